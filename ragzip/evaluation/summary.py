"""From the records of a run to its numbers: means with intervals, tests against the baseline, break-even, fronts."""

from __future__ import annotations

import math
from typing import Any

from ragzip.errors import RagzipError
from ragzip.evaluation.breakeven import break_even
from ragzip.evaluation.folder import Run
from ragzip.evaluation.fronts import fronts
from ragzip.evaluation.metrics import Metric, parse
from ragzip.evaluation.savings import savings
from ragzip.evaluation.statistics import Interval, holm, mean_interval, paired, ratio_interval
from ragzip.evaluation.view import baseline_of, failed_steps

ALPHA = 0.05
"""A difference is called significant where its corrected p-value is below this."""

_COSTS = ("tokens_out", "ratio", "ttft")

Prices = tuple[float, float]
"""USD per million input tokens, and per million output tokens."""


def summarise(
    run: Run, *, seed: int = 0, prices: Prices | None = None, window: int | None = None
) -> tuple[dict[str, dict[str, dict[str, Any]]], dict[str, Any]]:
    """The contents of ``metrics.json`` and of ``summary.json``.

    Args:
        run: With all its records.
        seed: Of the bootstrap and the randomisation tests.
        prices: For what compression saves on an API.
        window: The generator's, in prompt tokens: how far the break-even is looked for.
    """
    metrics = [parse(name) for name in run.config["metrics"]]
    costs = [parse(name) for name in _COSTS if name not in run.config["metrics"]]  # fronts and tables need them
    means = {name: _means(run, name, [*metrics, *costs], seed) for name in run.names}
    timed = bool(run.config["generate"]) and run.config["batch"] == 1
    summary: dict[str, Any] = {
        "data": run.config["data"],
        "baseline": run.config["baseline"],
        "alpha": ALPHA,
        "comparisons": _comparisons(run, metrics, seed),
        "failed": {name: failed for name in run.names if (failed := sum("error" in line for line in run.rows(name)))},
        "failed_steps": {name: steps for name in run.names if (steps := failed_steps(run, name))},
        "break_even": _tried(lambda: break_even(run, window=window, seed=seed)) if timed else None,
        "savings": savings(run, price_in=prices[0], price_out=prices[1], seed=seed) if prices else None,
        "fronts": _front_names(run),
    }
    return means, summary


def _means(run: Run, name: str, metrics: list[Metric], seed: int) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for metric in metrics:
        interval = _interval(run, name, metric, seed)
        if interval is not None:
            found[metric.name] = {
                "mean": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "n": interval.n,
            }
    return found


def _interval(run: Run, name: str, metric: Metric, seed: int) -> Interval | None:
    """None where no record has a value, or the ratio is infinite."""
    if metric.ratio_of is None:
        values = list(run.values(name, metric.name).values())
        return mean_interval(values, seed=seed, bounds=metric.bounds) if values else None
    over, under = (run.values(name, part) for part in metric.ratio_of)
    common = [key for key in over if key in under]
    if not common or not any(under[key] for key in common):
        return None
    found = ratio_interval([over[key] for key in common], [under[key] for key in common], seed=seed)
    return found if math.isfinite(found.high) else None


def _comparisons(run: Run, metrics: list[Metric], seed: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Each row against its baseline; p-values corrected by Holm over the rows, metric by metric."""
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in run.names}
    for metric in metrics:
        if metric.ratio_of is not None:
            continue
        tested: list[str] = []
        p_values: list[float] = []
        for name in run.names:
            base = baseline_of(run, name)
            if not base or base == name:
                continue
            ours, theirs = run.values(name, metric.name), run.values(base, metric.name)
            if not any(key in theirs for key in ours):
                continue
            result = paired(ours, theirs, seed=seed, bounds=metric.bounds)
            found[name][metric.name] = {
                "baseline": base,
                "difference": result.difference,
                "low": result.low,
                "high": result.high,
                "p": result.p,
                "n": result.n,
            }
            tested.append(name)
            p_values.append(result.p)
        for name, corrected in zip(tested, holm(p_values), strict=True):
            found[name][metric.name] |= {"p_corrected": corrected, "significant": corrected < ALPHA}
    return {name: values for name, values in found.items() if values}


def _front_names(run: Run) -> dict[str, list[str]]:
    """``f1/tokens_out`` -> the rows on that front, cheapest first."""
    return {f"{quality}/{cost}": names for quality, by in fronts(run).items() for cost, names in by.items()}


def _tried(work: Any) -> Any:
    """The result, or why there is none: a run too small to tell costs is still a run."""
    try:
        return work()
    except RagzipError as error:
        return {"unit": "tokens", "window": 0, "rows": {}, "note": str(error)}
