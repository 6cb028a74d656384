"""What the terminal and the page share: a run's numbers, its fronts, and what a difference means."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ragzip.evaluation import view as base_view
from ragzip.evaluation.fronts import pareto
from ragzip.evaluation.report.measures import COSTS, better_if_higher, heading, is_quality
from ragzip.evaluation.report.words import finite, mapping, word


class RunView(base_view.RunView, Protocol):
    """What a report needs of a run. ``ragzip.evaluation.folder.Run`` is one, once it is finished."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Contents of ``metrics.json``."""
        ...

    @property
    def summary(self) -> Mapping[str, Any]:
        """Contents of ``summary.json``."""
        ...

    @property
    def questions(self) -> Mapping[str, Any]:
        """Questions by record id."""
        ...


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of the table: the mean over questions, its 95 % interval and how many questions had a value."""

    mean: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0

    @property
    def half(self) -> float | None:
        """Half the width of the interval; None where there is none, or where the mean is far from its middle."""
        if self.mean is None or self.low is None or self.high is None:
            return None
        half = (self.high - self.low) / 2
        return half if abs(self.mean - (self.low + self.high) / 2) <= 0.25 * half else None


def cell(run: RunView, name: str, metric: str) -> Cell:
    """The aggregate of one metric of one row; empty where there is none."""
    found = mapping(mapping(run.metrics.get(name)).get(metric))
    return Cell(
        finite(found.get("mean")), finite(found.get("low")), finite(found.get("high")), int(found.get("n") or 0)
    )


def _whole(value: object) -> int:
    return int(finite(value) or 0)


def metric_names(run: RunView) -> list[str]:
    """The metrics that have a value in some row: quality first, then costs, each in the run's order."""
    order = [str(name) for name in run.config.get("metrics") or []]
    for name in run.names:
        order.extend(metric for metric in mapping(run.metrics.get(name)) if metric not in order)
    seen = [m for m in order if any(cell(run, name, m).mean is not None for name in run.names)]
    order = list(COSTS)
    costs = sorted((m for m in seen if not is_quality(m)), key=lambda m: order.index(m) if m in COSTS else len(order))
    return [m for m in seen if is_quality(m)] + costs


def quality_names(run: RunView) -> list[str]:
    """The quality metrics that have a value in some row."""
    return [metric for metric in metric_names(run) if is_quality(metric)]


def main_quality(run: RunView) -> str:
    """The one metric to rank by: F1 of the answers where it was measured, else the first; "" where there is none."""
    names = quality_names(run)
    return next((metric for metric in ("f1", "rouge_l", "match") if metric in names), names[0] if names else "")


def baseline(run: RunView, name: str = "") -> str:
    """The row that ``name`` is compared with, or the run's first such row; "" where there is none."""
    return base_view.baseline_of(run, name)


def baselines(run: RunView) -> list[str]:
    """All rows that others are compared with."""
    return [found for found in dict.fromkeys(baseline(run, name) for name in run.names) if found]


def kind(run: RunView, name: str) -> str:
    """``given`` or ``baseline``."""
    return str(mapping(mapping(run.config.get("rows")).get(name)).get("kind") or "given")


def against(run: RunView) -> str:
    """The rows that others are compared with, in words."""
    names = [word(name) for name in baselines(run)]
    return names[0] if len(names) == 1 else f"the same generator's row among {', '.join(names)}" if names else ""


CORRECTED = "corrected over the rows of the table, metric by metric, and not over metrics"
"""Which tests the p-values that mark a difference were corrected together with."""


def failures(run: RunView) -> list[str]:
    """Rows that could not answer some questions, and rows some of whose compressors failed, in words."""
    remarks = []
    failed = mapping(run.summary.get("failed"))
    named = [f"{word(name)} {_whole(count):,}" for name, count in failed.items() if _whole(count)]
    if named:
        remarks.append(f"Questions that could not be answered: {', '.join(named)}; they have no values.")
    stepped = []
    for name, steps in mapping(run.summary.get("failed_steps")).items():
        told = [f"{_whole(count):,} × {word(step)}" for step, count in mapping(steps).items() if _whole(count)]
        if told:
            stepped.append(f"{word(name)} {', '.join(told)}")
    if stepped:
        remarks.append(
            f"Compressors that failed and passed their input on as it was: {'; '.join(stepped)}; "
            "what came of it is in the numbers."
        )
    return remarks


def uses_labels(run: RunView, name: str) -> bool:
    """Whether a row reads the labels, which no real pipeline can."""
    return base_view.reads_labels(run, name)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A difference from the baseline, and whether it is more than chance."""

    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_corrected: float | None
    significant: bool
    higher_is_better: bool
    n: int

    @property
    def words(self) -> str:
        """``better``, ``worse`` or ``n.s.``."""
        if not self.significant or self.difference == 0:
            return "n.s."
        return "better" if (self.difference > 0) == self.higher_is_better else "worse"


def verdict(run: RunView, name: str, metric: str) -> Verdict | None:
    """How a row differs from the baseline in one metric; None where that was not tested."""
    found = mapping(mapping(mapping(run.summary.get("comparisons")).get(name)).get(metric))
    difference = finite(found.get("difference"))
    if difference is None or name == baseline(run, name):
        return None
    return Verdict(
        difference=difference,
        low=finite(found.get("low")),
        high=finite(found.get("high")),
        p=finite(found.get("p")),
        p_corrected=finite(found.get("p_corrected")),
        significant=found.get("significant") is True,
        higher_is_better=better_if_higher(metric),
        n=_whole(found.get("n")),
    )


def best(run: RunView, metric: str) -> frozenset[str]:
    """The rows with the best mean; rows that read the labels, and for costs those without a context, do not count.

    Where all are equal none is best.
    """
    means = {
        name: mean
        for name in run.names
        if not uses_labels(run, name)
        and (is_quality(metric) or not base_view.drops_all(run, name))
        and (mean := cell(run, name, metric).mean) is not None
    }
    if not means:
        return frozenset()
    top = max(means.values()) if better_if_higher(metric) else min(means.values())
    first = {name for name, mean in means.items() if math.isclose(mean, top, rel_tol=1e-9, abs_tol=1e-12)}
    return frozenset(first if len(first) < len(means) else ())


def front(run: RunView, metric: str, cost: str) -> list[str]:
    """The rows that no other beats in both, cheapest first: the run's own front, or the one its means give."""
    fronts = mapping(run.summary.get("fronts"))
    if isinstance(known := fronts.get(f"{metric}/{cost}"), Sequence):
        return [name for name in known if name in run.names]
    sign = 1.0 if better_if_higher(metric) else -1.0
    points = {
        name: (x, sign * y)
        for name in run.names
        if not uses_labels(run, name)
        and (x := cell(run, name, cost).mean) is not None
        and (y := cell(run, name, metric).mean) is not None
    }
    return pareto(points)


_FAMILY = re.compile(r"(?P<stem>.+?)(?P<rest>[@=\[(,: ].*|[-_.]?\d+(?:\.\d+)?)", re.DOTALL)


def families(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Rows that differ only in a setting belong together: ``truncate@100`` is (``truncate``, ``@100``).

    Returns:
        For each row its family and the label that tells it from its siblings: its whole name where it has none.
    """
    parts = {name: (m["stem"], m["rest"]) if (m := _FAMILY.fullmatch(name)) else (name, "") for name in names}
    stems = [stem for stem, _ in parts.values()]
    return {
        name: (stem, rest or name) if stems.count(stem) > 1 else (name, name) for name, (stem, rest) in parts.items()
    }


def data_line(run: RunView) -> str:
    """The data set with its version and the start of its hash, on one line."""
    data = mapping(run.summary.get("data")) or mapping(run.config.get("data"))
    parts = [word(data.get("name") or "unnamed data")]
    if data.get("split"):
        parts.append(word(data["split"]))
    if data.get("version"):
        parts.append(f"version {word(data['version'])}")
    if data.get("sha256"):
        parts.append(f"sha256 {word(data['sha256'])[:12]}")
    return ", ".join(parts)


def sizes(run: RunView, metrics: Sequence[str]) -> str:
    """How many questions stand behind the numbers; metrics that miss some of them are named."""
    data = mapping(run.summary.get("data")) or mapping(run.config.get("data"))
    total = _whole(data.get("records")) or len(run.questions)
    fewer = []
    for metric in metrics:
        counts = [found.n for name in run.names if (found := cell(run, name, metric)).mean is not None]
        if counts and min(counts) < total:
            fewer.append(f"{heading(metric)} {min(counts)}" + (f"–{max(counts)}" if max(counts) > min(counts) else ""))
    return f"n = {total:,}" + (f" ({', '.join(fewer)})" if fewer else "")
