"""Metrics by name.

Third parties add theirs with ``register_metric`` or with entry points in the group ``ragzip.metric``::

    [project.entry-points."ragzip.metric"]
    brevity = "my_package.brevity:Brevity"

What stands behind a name is called without arguments for ``brevity``, with 5 for ``brevity@5``, and gives a ``Metric``.
"""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
import re
import threading
from collections.abc import Callable
from typing import Any

from ragzip.errors import ConfigError, UsageError
from ragzip.evaluation.metrics.answers import F1, ExactMatch, Match
from ragzip.evaluation.metrics.base import Metric
from ragzip.evaluation.metrics.costs import Cost, Ratio
from ragzip.evaluation.metrics.evidence import AnswerInContext, Sentences
from ragzip.evaluation.metrics.ranking import MRR, NDCG, Recall
from ragzip.evaluation.metrics.rouge import RougeL
from ragzip.registry import suggest

Factory = Callable[..., Metric]

_NAME = re.compile(r"([a-z][a-z0-9_]*)(?:@([1-9][0-9]{0,5}))?")

_BUILTIN: dict[str, Factory] = {
    "em": ExactMatch,
    "f1": F1,
    "match": Match,
    "rouge_l": RougeL,
    "recall": Recall,
    "ndcg": NDCG,
    "mrr": MRR,
    "answer_in_context": AnswerInContext,
    **{f"sentence_{part}": functools.partial(Sentences, part) for part in ("precision", "recall", "f1")},
    "tokens_in": functools.partial(Cost, "tokens_in"),
    "tokens_out": functools.partial(Cost, "tokens_out"),
    "ratio": Ratio,
    **{
        name: functools.partial(Cost, name)
        for name in (
            *("prompt_tokens", "new_tokens", "retrieve_seconds", "compress_seconds", "prefill_seconds"),
            *("decode_seconds", "ttft", "total_seconds", "peak_memory", "prefill_flops", "decode_flops"),
            *("kv_memory", "index_bytes", "build_seconds"),
        )
    },
}
_USUAL_CUTOFF = {"recall": 5, "ndcg": 10}

_extra: dict[str, Factory] = {}
_lock = threading.Lock()


def parse(name: str) -> Metric:
    """The metric of a name: ``em``, ``recall@5``.

    Raises:
        UsageError: No such metric, a cutoff where there is none, none where there must be one; says what exists.
    """
    word = name.strip() if isinstance(name, str) else ""
    match = _NAME.fullmatch(word)
    factory = _factory(match[1]) if match else None
    if match is None or factory is None:
        raise UsageError(f"Unknown metric {name!r}.", hint=suggest(word, forms()))
    cutoff = int(match[2]) if match[2] else None
    arguments = () if cutoff is None else (cutoff,)
    if not _takes(factory, *arguments):
        if cutoff is None:
            example = f"{word}@{_USUAL_CUTOFF.get(word, 10)}"
            raise UsageError(f"Metric {name!r} needs to know how many passages count.", hint=f"Write {example}.")
        raise UsageError(f"Metric {match[1]!r} takes no cutoff.", hint=f"Write {match[1]}.")
    metric = factory(*arguments)
    if not isinstance(metric, Metric):
        raise UsageError(
            f"What is registered as metric {match[1]!r} gives {type(metric).__name__}, no metric.",
            hint="Derive it from ragzip.evaluation.metrics.Metric.",
        )
    if metric.name != word:
        raise UsageError(
            f"What is registered as metric {word!r} calls itself {metric.name!r}.", hint="Register it by its own name."
        )
    return metric


def all_names() -> list[str]:
    """Every metric's name, built-in ones first; where a cutoff must be given, with the usual one."""
    return [f"{name}@{_USUAL_CUTOFF.get(name, 10)}" if _ranked(name) else name for name in _known()]


def forms() -> list[str]:
    """Every metric's name as it is to be written: ``recall@k`` where a cutoff must be given."""
    return [f"{name}@k" if _ranked(name) else name for name in _known()]


def register_metric(name: str, factory: Factory) -> None:
    """Adds a metric for this process.

    Args:
        name: In snake case, without a cutoff.
        factory: Called without arguments for the bare name, with k for ``name@k``; a class will do.

    Raises:
        ConfigError: The name is taken, or not in snake case.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError("", f"{name!r} is no metric name", hint="Use snake case: my_metric.")
    if not callable(factory):
        raise ConfigError("", f"metric {name!r} needs a class or function, not {factory!r}")
    with _lock:
        taken = _BUILTIN.get(name) or _extra.get(name)
        if (taken is not None and taken is not factory) or (taken is None and name in _points()):
            raise ConfigError("", f"metric {name!r} exists already", hint="Choose another name.")
        _extra[name] = factory


def _known() -> list[str]:
    return [*_BUILTIN, *sorted((_extra.keys() | _points().keys()) - _BUILTIN.keys())]


def _ranked(name: str) -> bool:
    """Whether a name needs a cutoff; no for entry points, which listing must not import."""
    factory = _BUILTIN.get(name) or _extra.get(name)
    return factory is not None and not _takes(factory)


def _factory(name: str) -> Factory | None:
    found = _BUILTIN.get(name) or _extra.get(name)
    point = _points().get(name)
    if found is not None or point is None:
        return found
    try:
        loaded: Factory = point.load()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"Metric {name!r} cannot be loaded from {point.value!r}: {error}.", hint="Reinstall its package."
        ) from error
    return loaded


@functools.lru_cache(maxsize=1)
def _points() -> dict[str, Any]:
    return {point.name: point for point in importlib.metadata.entry_points(group="ragzip.metric")}


def _takes(factory: Factory, *arguments: int) -> bool:
    """Whether a factory can be called like this."""
    try:
        inspect.signature(factory).bind(*arguments)
    except (TypeError, ValueError):
        return False
    return True
