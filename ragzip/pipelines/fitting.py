"""Whether a component's model is of the kind that it reads, as far as a name says so: nothing is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from ragzip.errors import ConfigError
from ragzip.models import catalogue, shipped
from ragzip.protocols import Stack
from ragzip.registry import name_of

_GENERATORS = frozenset({"huggingface", "llmlingua", "long_llmlingua", "selective_context", "summary"})
_ENCODERS = frozenset({"sentence_filter", "semantic_drop", "coverage", "dense"})
_OTHERS = {"rerank": ("provence",), **dict.fromkeys(_ENCODERS, ("recomp_extractive",))}


def components(component: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All components that one is made of, with where they stand in its config."""
    if path:
        yield path, component
    for field in dataclasses.fields(component):
        value = getattr(component, field.name)
        many = isinstance(value, Stack | tuple)
        items = value.compressors if isinstance(value, Stack) else value if isinstance(value, tuple) else (value,)
        for i, item in enumerate(items):
            if dataclasses.is_dataclass(item) and not isinstance(item, type):
                name = f"{field.name}.{i}" if many else field.name
                yield from components(item, f"{path}.{name}" if path else name)


def misfit(component: str, model: str) -> str:
    """What is wrong with a model for a component, by registry name, or "" where nothing is known to be.

    >>> misfit("provence", "exit-smollm2")
    "'exit-smollm2' are weights of exit, not of provence"
    """
    methods = {spec.method for spec in shipped.SHIPPED.values()}
    weights, spec = shipped.find(model), catalogue.find(model)
    if weights is not None:
        allowed = _OTHERS.get(component, (component,) if component in methods else ())
        if weights.method not in allowed and (allowed or component in _GENERATORS):
            wanted = f"not of {' or '.join(allowed)}" if allowed else f"and {component} needs a language model"
            return f"{model!r} are weights of {weights.method}, {wanted}"
    if spec is not None and spec.kind == "embedding" and component in _GENERATORS:
        return f"{model!r} makes embeddings, and {component} needs a language model"
    if spec is not None and spec.kind == "generator" and component in _ENCODERS:
        return f"{model!r} is a language model, and {component} needs one that makes embeddings"
    return ""


def check_models(pipeline: Any) -> None:
    """Refuses models that are of another kind than the component that names them.

    Raises:
        ConfigError: With the path of the option.
    """
    for path, part in components(pipeline):
        model = getattr(part, "model", None)
        if isinstance(model, str) and model and not hasattr(part, "base_url"):
            wrong = misfit(name_of(part), model)
            if wrong:
                raise ConfigError(f"{path}.model", wrong, hint="See what there is: ragzip models")
