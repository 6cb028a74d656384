"""What analyses read of a run, whether it lies in a folder or was just made."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ragzip.errors import UsageError

_READER = ("retriever", "generator", "prompt", "seed")


class RunView(Protocol):
    """A run's rows and their records. ``ragzip.evaluation.folder.Run`` is one."""

    @property
    def names(self) -> Sequence[str]:
        """Its rows, in order."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """``config.yaml``."""
        ...

    @property
    def environment(self) -> Mapping[str, Any]:
        """``environment.json``."""
        ...

    def rows(self, name: str) -> Sequence[Mapping[str, Any]]:
        """The record lines of one row."""
        ...

    def values(self, name: str, metric: str) -> Mapping[str, float]:
        """One metric of one row by record id, where there is a value."""
        ...


def settings(run: RunView, name: str) -> Mapping[str, Any]:
    """The config of one row, empty where there is none."""
    found = (run.config.get("rows") or {}).get(name)
    return found if isinstance(found, Mapping) else {}


def baseline_of(run: RunView, name: str = "") -> str:
    """The row that ``name`` is compared with, or the run's first such row; "" where the run has none."""
    own = settings(run, name).get("baseline") if name else ""
    found = str(own or run.config.get("baseline") or "")
    return found if found in run.names else ""


def uncompressed_of(run: RunView, name: str) -> str:
    """The row of the same generator, retriever and prompt without compressors, whatever losses are held against.

    That is its baseline where there is no such row.
    """
    mine = settings(run, name).get("pipeline") or {}
    for other in run.names if mine else ():
        pipeline = settings(run, other).get("pipeline") or {}
        if pipeline and not pipeline.get("compressors") and all(pipeline.get(k) == mine.get(k) for k in _READER):
            return other
    return baseline_of(run, name)


def reads_labels(run: RunView, name: str) -> bool:
    """True for baselines that look at the labels: no real system could be them."""
    return settings(run, name).get("kind") == "baseline" and name.startswith("oracle_sentences")


def drops_all(run: RunView, name: str) -> bool:
    """True for the baseline that gives the generator no context."""
    return settings(run, name).get("kind") == "baseline" and name.startswith("closed_book")


def finite(run: RunView, name: str, metric: str) -> dict[str, float]:
    """The values of one metric that are numbers, by record id."""
    return {key: float(value) for key, value in run.values(name, metric).items() if math.isfinite(value)}


def failed(run: RunView, name: str) -> frozenset[str]:
    """Records that the row has no answer to: its generator failed, and no metric has a value."""
    return frozenset(line["id"] for line in run.rows(name) if line.get("error"))


def failed_steps(run: RunView, name: str) -> dict[str, int]:
    """``compressor: status`` -> how often a compressor failed, so that its input went on as it was."""
    found: dict[str, int] = {}
    for line in run.rows(name):
        for step in line.get("steps") or ():
            if step.get("status") in ("error", "timeout"):
                key = f"{step.get('name')}: {step['status']}"
                found[key] = found.get(key, 0) + 1
    return found


def generator_of(run: RunView, name: str) -> str:
    """The generator's config as one word to compare by."""
    pipeline = settings(run, name).get("pipeline") or {}
    return json.dumps(pipeline.get("generator"), sort_keys=True, default=str)


def retrievers(run: RunView) -> int:
    """How many retrievers the rows have, none being one, too: with one, all have retrieved the same."""
    pipelines = [settings(run, name).get("pipeline") or {} for name in run.names if not drops_all(run, name)]
    return len({json.dumps(pipeline.get("retriever"), sort_keys=True, default=str) for pipeline in pipelines})


def mean_of(values: Mapping[str, float]) -> float:
    """Mean over the records; NaN where there are none."""
    return math.fsum(values.values()) / len(values) if values else math.nan


def require_row(run: RunView, name: str, role: str) -> str:
    """``name``, if the run has such a row.

    Raises:
        UsageError: It has not.
    """
    if name in run.names:
        return name
    raise UsageError(f"{role}: the run has no row called {name!r}.", hint=f"Its rows are: {', '.join(run.names)}.")
