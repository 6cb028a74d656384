"""Pareto fronts: the rows that no other row beats in both quality and cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ragzip.evaluation.metrics import parse
from ragzip.evaluation.view import RunView, failed, finite, mean_of, reads_labels, retrievers

COSTS = ("tokens_out", "ttft")
"""What quality is held against: tokens of context, and seconds to the first token."""


def pareto(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names on the front of ``(cost, quality)`` points, cheapest first.

    A point is off the front where another costs no more, is no worse, and is not equal to it. Equal points stand on
    it together, by name; points that are not finite never do.
    """
    known = {name: point for name, point in points.items() if all(map(math.isfinite, point))}
    front: list[str] = []
    best = (math.inf, -math.inf)
    for name in sorted(known, key=lambda n: (known[n][0], -known[n][1], n)):
        if known[name][1] > best[1] or known[name] == best:
            front.append(name)
            best = known[name]
    return front


def fronts(
    run: RunView, *, metrics: Sequence[str] | None = None, costs: Sequence[str] = COSTS
) -> dict[str, dict[str, list[str]]]:
    """For each quality metric and each cost the rows on the front, cheapest first.

    Rows that read labels are on none, since nobody can run them; the one without any context may be. All rows are
    compared on the same questions: a failed answer has the worst quality there is, costs are those of the questions
    that all rows answered, and a row that has less than half of them is on no front.

    Args:
        run: What was measured.
        metrics: Names; None takes all quality metrics of the run, but judgements of what was retrieved where all rows
            have one retriever: compression comes later, and the cheapest row would always win.
        costs: Names of costs, lower is better.

    Returns:
        Metric -> cost -> names; combinations that no row was measured for are left out.
    """
    if metrics is None:
        found_by = retrievers(run)
        known = [parse(name) for name in run.config.get("metrics", ())]
        metrics = [m.name for m in known if m.quality and (found_by > 1 or "qrels" not in m.needs)]
    rows = [name for name in run.names if not reads_labels(run, name)]
    missing = {name: failed(run, name) for name in rows}
    spent = {cost: _on_common({name: finite(run, name, cost) for name in rows}) for cost in costs}
    found: dict[str, dict[str, list[str]]] = {}
    for metric in metrics:
        quality = _quality(run, rows, metric, missing)
        for cost in costs:
            front = pareto({name: (spent[cost][name], quality[name]) for name in rows})
            if front:
                found.setdefault(metric, {})[cost] = front
    return found


def _quality(run: RunView, rows: Sequence[str], metric: str, missing: Mapping[str, frozenset[str]]) -> dict[str, float]:
    """Means, higher is better, on questions that all rows answered or failed to answer; failures are the worst."""
    parsed = parse(metric)
    sign = 1.0 if parsed.higher_is_better else -1.0
    values = {name: finite(run, name, metric) for name in rows}
    if parsed.bounds is not None:
        worst = parsed.bounds[0 if parsed.higher_is_better else 1]
        asked = {key for one in values.values() for key in one}
        values = {
            name: one | dict.fromkeys((missing[name] & asked) - one.keys(), worst) for name, one in values.items()
        }
    return {name: sign * mean for name, mean in _on_common(values).items()}


def _on_common(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The means of all rows on the questions that they all have; NaN for those that have less than half of them."""
    asked = {key for one in values.values() for key in one}
    enough = {name for name, one in values.items() if one and 2 * len(one) >= len(asked)}
    common = set.intersection(*(set(values[name]) for name in enough)) if enough else set()
    return {
        name: mean_of({key: value for key, value in one.items() if key in common}) if name in enough else math.nan
        for name, one in values.items()
    }
