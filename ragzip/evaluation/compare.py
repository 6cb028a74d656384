"""Two runs of the same set, row by row and question by question."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ragzip.errors import UsageError
from ragzip.evaluation.metrics import Metric, parse
from ragzip.evaluation.report.words import mapping
from ragzip.evaluation.statistics import holm, paired
from ragzip.evaluation.view import RunView, failed, finite, require_row, settings

_ALPHA = 0.05
_MACHINE = ("cpu", "cores", "threads", "device", "computes")


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of one row in both runs, on the questions that both have.

    Attributes:
        row: Its name in the first run.
        other: Its name in the second.
        metric: Its name.
        a: Mean in the first run.
        b: Mean in the second.
        difference: ``b - a``.
        low: Lower limit of its 95 % interval.
        high: Upper limit.
        p: Of the paired randomisation test.
        p_corrected: For all rows compared by this metric (Holm).
        n: Questions.
        better: Whether the second run is the better one; None where the difference is not significant, or where
            neither way is better.
    """

    row: str
    other: str
    metric: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    p_corrected: float
    n: int
    better: bool | None

    @property
    def significant(self) -> bool:
        """Whether chance is ruled out at 5 % for all rows together."""
        return self.p_corrected < _ALPHA


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences of two runs.

    Attributes:
        differences: By metric, then row.
        records: Questions that both runs have, of the rows compared.
        only_a: Questions that only the first has.
        only_b: Questions that only the second has.
        rows_only_a: Rows that only the first has, and that were not compared.
        rows_only_b: The same of the second.
        notes: What else differs, in plain words.
    """

    differences: tuple[Difference, ...]
    records: int
    only_a: int
    only_b: int
    rows_only_a: tuple[str, ...]
    rows_only_b: tuple[str, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        rows = [{**dataclasses.asdict(d), "significant": d.significant} for d in self.differences]
        return {key: list(v) if isinstance(v, tuple) else v for key, v in found.items()} | {"differences": rows}

    def table(self) -> list[tuple[str, ...]]:
        """Lines of a table: row, metric, a, b, difference, interval, corrected p, verdict."""
        lines = []
        for d in self.differences:
            name = d.row if d.row == d.other else f"{d.row} / {d.other}"
            verdict = {None: "changed", True: "better", False: "worse"}[d.better] if d.significant else ""
            shown = [f"{v:.4g}" for v in (d.a, d.b)]
            interval = f"{d.low:+.3g} to {d.high:+.3g}"
            p = "< 0.001" if d.p_corrected < 0.001 else f"{d.p_corrected:.3f}"
            line = (name, d.metric, *shown, f"{d.difference:+.3g}", interval, p, verdict or "not significant")
            lines.append(line)
        return lines


def compare(
    run_a: RunView,
    run_b: RunView,
    *,
    metrics: Sequence[str] | None = None,
    pairs: Sequence[tuple[str, str]] = (),
    seed: int = 0,
) -> Comparison:
    """Compares rows of the same name, and those given as pairs, paired by question.

    Args:
        run_a: The first run.
        run_b: The second.
        metrics: Names; None takes all that both runs have.
        pairs: Names of a row in the first run and one in the second; rows named here are not also paired by name.
        seed: Of intervals and tests.

    Raises:
        UsageError: Runs of different data; rows or metrics that are not there; nothing in common.
    """
    _same_data(run_a, run_b)
    names = _metrics(run_a, run_b, metrics)
    rows = _pairs(run_a, run_b, pairs)
    ids_a = {line["id"] for a, _ in rows for line in run_a.rows(a)}
    ids_b = {line["id"] for _, b in rows for line in run_b.rows(b)}
    if not ids_a & ids_b:
        raise UsageError("the two runs have no question in common.", hint="Run both with the same --limit and --seed.")
    differences = [d for name in names for d in _one_metric(run_a, run_b, rows, parse(name), seed)]
    left_a, left_b = {a for a, _ in rows}, {b for _, b in rows}
    return Comparison(
        tuple(differences),
        len(ids_a & ids_b),
        len(ids_a - ids_b),
        len(ids_b - ids_a),
        tuple(name for name in run_a.names if name not in left_a),
        tuple(name for name in run_b.names if name not in left_b),
        (
            *_unfinished(run_a, run_b),
            *_missing(len(ids_a - ids_b), len(ids_b - ids_a)),
            *_failures(run_a, run_b, rows),
            *_notes(run_a, run_b, rows, names),
        ),
    )


def _same_data(run_a: RunView, run_b: RunView) -> None:
    data = [run.config.get("data") or {} for run in (run_a, run_b)]
    hashes = [str(one.get("sha256") or "") for one in data]
    if hashes[0] and hashes[0] == hashes[1]:
        return
    named = [
        f"{one.get('name') or 'a set without a name'} ({h[:12] or 'no hash'})"
        for one, h in zip(data, hashes, strict=True)
    ]
    raise UsageError(
        f"the first run is of {named[0]}, the second of {named[1]}: different data.",
        hint="Run both on the same set; the hash changes with its content.",
    )


def _metrics(run_a: RunView, run_b: RunView, asked: Sequence[str] | None) -> list[str]:
    have_a, have_b = (list(run.config.get("metrics") or ()) for run in (run_a, run_b))
    common = [name for name in have_a if name in have_b]
    for name in asked or ():
        if name not in common:
            where = "the first run" if name not in have_a else "the second run"
            raise UsageError(f"{where} has no metric {name!r}.", hint=f"Both have: {', '.join(common) or 'none'}.")
    if not common:
        raise UsageError("the two runs have no metric in common.", hint="Run both with the same --metrics.")
    wanted: list[str] = list(asked or common)
    return list(dict.fromkeys(wanted))


def _pairs(run_a: RunView, run_b: RunView, given: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    for a, b in given:
        require_row(run_a, a, "first run")
        require_row(run_b, b, "second run")
    taken_a, taken_b = {a for a, _ in given}, {b for _, b in given}
    same = [(n, n) for n in run_a.names if n in run_b.names and n not in taken_a and n not in taken_b]
    if not given and not same:
        raise UsageError(
            f"no row has the same name in both runs ({', '.join(run_a.names)}; {', '.join(run_b.names)}).",
            hint="Say which row of the first is to be compared with which of the second.",
        )
    return list(dict.fromkeys([*given, *same]))


def _one_metric(
    run_a: RunView, run_b: RunView, rows: Sequence[tuple[str, str]], metric: Metric, seed: int
) -> list[Difference]:
    found: list[Difference] = []
    for a, b in rows:
        if metric.ratio_of is None:
            values_a, values_b = finite(run_a, a, metric.name), finite(run_b, b, metric.name)
            common = [key for key in values_a if key in values_b]
        else:
            both = finite(run_a, a, metric.ratio_of[0]).keys() & finite(run_b, b, metric.ratio_of[0]).keys()
            values_a, values_b = (_linear(run, row, metric.ratio_of, both) for run, row in ((run_a, a), (run_b, b)))
            common = [key for key in values_a if key in values_b]
        if not common:
            continue
        bounds = metric.bounds if metric.ratio_of is None else None
        test = paired(values_b, values_a, seed=seed, bounds=bounds)
        mean_a, mean_b = (math.fsum(values[key] for key in common) / len(common) for values in (values_a, values_b))
        interval = (test.difference, test.low, test.high)
        found.append(Difference(a, b, metric.name, mean_a, mean_b, *interval, test.p, 1.0, test.n, None))
    corrected = holm([d.p for d in found])
    return [
        dataclasses.replace(
            d, p_corrected=p, better=(d.difference > 0) == metric.higher_is_better if p < _ALPHA else None
        )
        for d, p in zip(found, corrected, strict=True)
    ]


def _linear(run: RunView, row: str, parts: tuple[str, str], keys: Collection[str]) -> dict[str, float]:
    """A number for each question whose mean is the ratio of two sums; empty where that has no finite value.

    To first order a ratio of sums moves with the questions drawn as this mean does, so that its interval and its test
    are the ratio's.
    """
    over, under = (finite(run, row, part) for part in parts)
    common = [key for key in over if key in under and key in keys]
    total = math.fsum(under[key] for key in common)
    if total <= 0:
        return {}
    ratio, mean = math.fsum(over[key] for key in common) / total, total / len(common)
    return {key: ratio + (over[key] - ratio * under[key]) / mean for key in common}


def _unfinished(run_a: RunView, run_b: RunView) -> list[str]:
    notes = []
    for which, run in (("first", run_a), ("second", run_b)):
        if getattr(run, "finished", True):
            continue
        there = len({line["id"] for line in run.rows(run.names[0])}) if run.names else 0
        wanted = (run.config.get("data") or {}).get("records")
        of = f" of {wanted}" if wanted else ""
        notes.append(f"The {which} run is not finished: {there}{of} questions are there.")
    return notes


def _failures(run_a: RunView, run_b: RunView, rows: Sequence[tuple[str, str]]) -> list[str]:
    counts = [(a if a == b else f"{a} / {b}", len(failed(run_a, a)), len(failed(run_b, b))) for a, b in rows]
    said = [f"{name} ({one} in the first run, {other} in the second)" for name, one, other in counts if one or other]
    if not said:
        return []
    return [f"Left out: questions without an answer, of {', '.join(said)}. The others alone say nothing of these."]


def _missing(only_a: int, only_b: int) -> list[str]:
    if not only_a and not only_b:
        return []
    return [f"Left out: questions that only the first run has ({only_a}) or only the second ({only_b})."]


def _notes(run_a: RunView, run_b: RunView, rows: Sequence[tuple[str, str]], metrics: Sequence[str]) -> list[str]:
    """What differs between the runs besides what is compared."""
    notes: list[str] = []
    measured = [name for name in metrics if parse(name).unit in ("s", "MiB")]
    machines = [(key, run_a.environment.get(key), run_b.environment.get(key)) for key in _MACHINE]
    changed = [f"{key} {a}, {b}" for key, a, b in machines if a != b and None not in (a, b)]
    if measured and changed:
        notes.append(
            f"The machines differ ({'; '.join(changed)}): {', '.join(measured)} say more about the machines than "
            "about the rows."
        )
    versions = [mapping(run.environment.get("versions")).get("ragzip") for run in (run_a, run_b)]
    if versions[0] != versions[1]:
        notes.append(f"The runs are of ragzip {versions[0]} and {versions[1]}.")
    for key in ("seed", "generate"):
        if run_a.config.get(key) != run_b.config.get(key):
            notes.append(
                f"{key} is {run_a.config.get(key)} in the first run and {run_b.config.get(key)} in the second."
            )
    for part in ("retriever", "prompt", "generator"):
        differing = [a if a == b else f"{a} / {b}" for a, b in rows if _part(run_a, a, part) != _part(run_b, b, part)]
        if differing:
            notes.append(f"The {part} differs in {', '.join(differing)}.")
    return notes


def _part(run: RunView, row: str, part: str) -> Any:
    return (settings(run, row).get("pipeline") or {}).get(part)
