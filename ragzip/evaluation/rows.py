"""Which rows a run has: the pipelines given, and the baselines each of them has to face."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ragzip import config
from ragzip.errors import ConfigError
from ragzip.evaluation.baselines import BUDGETED, ClosedBook, budgeted
from ragzip.pipelines import Pipeline
from ragzip.pipelines.check import flatten
from ragzip.protocols import Compressor, Stack, walk

Baselines = Literal["all", "reference"]
"""``reference`` is closed book and no compression alone; ``all`` adds the same budget spent in other ways."""

_LONGEST_NAME = 200
CLOSED_BOOK, NO_COMPRESSION = "closed_book", "no_compression"


@dataclass(frozen=True)
class Row:
    """One line of the results: a pipeline under a name.

    Attributes:
        name: Unique within its run.
        pipeline: What answers.
        kind: ``given`` or ``baseline``.
        baseline: The row it is compared with: the same generator without compression.
        budget: Most context tokens it allows, or None.
        like: For a baseline that spends, question by question, as many tokens as another row: that row's name.
    """

    name: str
    pipeline: Pipeline[Any]
    kind: Literal["given", "baseline"] = "given"
    baseline: str = NO_COMPRESSION
    budget: int | None = None
    like: str = ""

    @property
    def reads_labels(self) -> bool:
        """True for the oracle, which no real system could be."""
        return self.kind == "baseline" and self.name.startswith(BUDGETED[0])

    @property
    def closed_book(self) -> bool:
        """True for the baseline that gives the generator no context."""
        return self.kind == "baseline" and self.name.startswith(CLOSED_BOOK)

    def to_config(self) -> dict[str, Any]:
        """Plain values, every default of the pipeline spelled out."""
        values = {"kind": self.kind, "baseline": self.baseline, "budget": self.budget, "like": self.like}
        return {**values, "pipeline": self.pipeline.to_config()}


def load_pipelines(paths: Sequence[Path], overrides: Sequence[str] = ()) -> list[tuple[str, Pipeline[Any]]]:
    """Pipelines from YAML files with their names: the file's ``name``, else its stem.

    Raises:
        ConfigError: Two of the same name.
    """
    named: list[tuple[str, Pipeline[Any]]] = []
    seen: dict[str, Path] = {}
    for path in paths:
        pipeline = Pipeline.load(path, overrides=overrides)
        name = pipeline.name or path.stem
        if name in seen:
            raise ConfigError(
                "name",
                f"{path} and {seen[name]} are both called {name!r}",
                hint="Give one of them another 'name', or rename its file.",
            )
        seen[name] = path
        named.append((name, pipeline))
    return named


def plan(pipelines: Sequence[tuple[str, Pipeline[Any]]], *, baselines: Baselines = "all", seed: int = 0) -> list[Row]:
    """The rows of a run: references first, then the pipelines given, then the same budgets spent in other ways.

    Pipelines with the same generator, prompt and retriever share their baselines. A pipeline without a budget of its
    own faces baselines that spend as many tokens as it did, question by question.

    Raises:
        ConfigError: A name twice, or one that baselines have.
    """
    if not pipelines:
        raise ConfigError("", "no pipeline to evaluate", hint="Give at least one pipeline's YAML file.")
    for name, _ in pipelines:
        if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
            raise ConfigError(
                "name", f"{name[:40]!r} is no name for a row", hint=f"1 to {_LONGEST_NAME} characters in one line."
            )
    readers: dict[str, tuple[str, Pipeline[Any]]] = {}
    references: list[Row] = []
    given: list[Row] = []
    others: dict[str, Row] = {}
    for name, pipeline in pipelines:
        reader = reader_key(pipeline)
        suffix = "" if not readers or next(iter(readers)) == reader else f" [{readers.get(reader, (name,))[0]}]"
        base = NO_COMPRESSION + suffix
        if reader not in readers:
            readers[reader] = (name, pipeline)
            empty = dataclasses.replace(pipeline, compressors=Stack(), name="")
            closed = dataclasses.replace(pipeline, compressors=Stack((ClosedBook(),)), retriever=None, name="")
            references += [Row(CLOSED_BOOK + suffix, closed, "baseline", base), Row(base, empty, "baseline", base)]
        budget = budget_of(pipeline)
        given.append(Row(name, pipeline, "given", base, budget))
        if baselines == "all" and flatten(pipeline.stack):
            for kind in BUDGETED:
                row_name = f"{kind}@{budget}{suffix}" if budget is not None else f"{kind}={name}"
                part = budgeted(kind, budget or 0, seed)
                same = dataclasses.replace(pipeline, compressors=Stack((part,)), name="")
                like = "" if budget is not None else name
                others.setdefault(row_name, Row(row_name, same, "baseline", base, budget, like))
    rows = [*references, *given, *others.values()]
    seen: set[str] = set()
    for row in rows:
        if row.name in seen:
            raise ConfigError(
                "name",
                f"two rows are called {row.name!r}",
                hint="Baselines have names, too: give the pipeline another.",
            )
        seen.add(row.name)
    return rows


def reader_key(pipeline: Pipeline[Any]) -> str:
    """What two pipelines must have in common to share a baseline: all but the compressors."""
    values = pipeline.to_config()
    return json.dumps({key: values[key] for key in ("retriever", "generator", "prompt", "seed")}, sort_keys=True)


def budget_of(pipeline: Pipeline[Any]) -> int | None:
    """The tokens a pipeline means to spend: the smallest budget among its compressors.

    None where it has none, or where a share or a threshold may leave far less than the budget: others are then given
    what it really used.
    """
    found: list[int] = []
    for part in flatten(pipeline.stack):
        if any(getattr(one, name) is not None for one in walk(part) for name in _sizes(one) & {"keep", "threshold"}):
            return None
        options = _sizes(part) & {"budget", "tokens"}
        found += [value for name in options if (value := getattr(part, name)) is not None]
    return min(found, default=None)


def _sizes(part: Compressor[Any, Any]) -> set[str]:
    """The options of a part that sets sizes; none of others: dedupe, top_k, reorder."""
    names = {field.name for field in config.options(type(part))}
    return names if names & {"budget", "tokens", "keep"} else set()
