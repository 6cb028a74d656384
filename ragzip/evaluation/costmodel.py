"""What the times and tokens of a run follow: lines fitted to its records, one set for each row with compressors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragzip.evaluation.lines import Floats, Line, fit, spread
from ragzip.evaluation.view import RunView, drops_all, finite, generator_of, reads_labels, settings, uncompressed_of

_FEW = 5
_FULL = 0.75  # a budget is used up where that much of it is: whole sentences leave some of it
_BUDGETS = ("budget", "tokens")
_NEEDED = ("tokens_in", "tokens_out", "compress_seconds")


@dataclass(frozen=True, slots=True)
class RowFit:
    """What one row's times and tokens follow.

    Attributes:
        name: The row.
        compress: Seconds of compression against context tokens before it.
        plain: The same for the row without compression: what counting tokens takes.
        prefill: Seconds from the end of compression to the first token, against prompt tokens.
        overhead: Prompt tokens that are not context: template and question.
        retrieve: Seconds, whatever the context.
        share: Tokens left, as a share, of a context short enough not to reach ``most``.
        most: Most tokens left of any context, or infinity for rows without a budget.
    """

    name: str
    compress: Line
    plain: Line
    prefill: Line
    overhead: float
    retrieve: float
    share: float
    most: float

    def times(self, n: Floats) -> tuple[Floats, Floats]:
        """Seconds to the first token with and without compression, at context tokens ``[n]``."""
        kept = np.minimum(self.share * n, self.most)
        with_it = self.retrieve + self.compress.at(n) + self.prefill.at(kept + self.overhead)
        return with_it, self.retrieve + self.plain.at(n) + self.prefill.at(n + self.overhead)

    @property
    def least(self) -> float:
        """Context tokens below which times are extrapolated."""
        return max(self.compress.low, self.prefill.low - self.overhead, 0.0)

    @property
    def reach(self) -> float:
        """Context tokens above which times are extrapolated."""
        return max(min(self.compress.high, self.prefill.high - self.overhead), 0.0)


@dataclass(frozen=True, slots=True)
class RunFit:
    """The fits of a run's rows with compressors.

    Attributes:
        rows: By name.
        problems: Why a row has no fit, by name.
        window: The longest prompt measured, in tokens.
    """

    rows: Mapping[str, RowFit] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    window: int = 0


@dataclass(frozen=True, slots=True)
class Data:
    """One row's records: ``[n]`` each; ``who`` counts in the run's record ids."""

    who: NDArray[np.intp]
    tokens_in: Floats
    tokens_out: Floats
    prompt: Floats
    compress: Floats
    prefill: Floats
    retrieve: Floats

    @property
    def read(self) -> NDArray[np.bool_]:
        """Where a prompt was read and timed."""
        return np.isfinite(self.prefill) & (self.prompt > 0)


class Measured:
    """A run's numbers, read once and put into arrays."""

    def __init__(self, run: RunView) -> None:
        self.run = run
        self.data: dict[str, Data] = {}
        ids: dict[str, int] = {}
        names = [name for name in run.names if not reads_labels(run, name)]
        for name in names:
            self.data[name] = self._read(name, ids)
        self.records = len(ids)
        self.compressing = [
            name for name in names if not drops_all(run, name) and any(line.get("steps") for line in run.rows(name))
        ]
        # Rows of one generator measured the same prefill cost, whatever they gave it to read.
        self.readers: dict[str, list[str]] = {}
        for name in names:
            self.readers.setdefault(self.reader(name), []).append(name)

    def prompts(self, name: str) -> tuple[Floats, Floats, NDArray[np.intp]]:
        """Prompt tokens, seconds and records, ``[n]`` each, of all rows with the generator of ``name``.

        Rows that gave it the same prompt share one measurement, which counts once.
        """
        found = [self.data[other] for other in self.readers[self.reader(name)]]
        tokens = np.concatenate([d.prompt[d.read] for d in found])
        seconds = np.concatenate([d.prefill[d.read] for d in found])
        who = np.concatenate([d.who[d.read] for d in found])
        first = np.sort(np.unique(np.stack([who, tokens, seconds], axis=1), axis=0, return_index=True)[1])
        return tokens[first], seconds[first], who[first]

    def reader(self, name: str) -> str:
        """The generator's config: rows that share it share its prefill cost."""
        return generator_of(self.run, name)

    def _read(self, name: str, ids: dict[str, int]) -> Data:
        metrics = (*_NEEDED, "prefill_seconds", "retrieve_seconds")
        values = {metric: finite(self.run, name, metric) for metric in metrics}
        prompts = {line["id"]: float(line.get("prompt_tokens") or 0) for line in self.run.rows(name)}
        known = [key for key in prompts if all(key in values[metric] for metric in _NEEDED)]

        def column(metric: str, missing: float) -> Floats:
            return np.array([values[metric].get(key, missing) for key in known], dtype=np.float64)

        return Data(
            np.array([ids.setdefault(key, len(ids)) for key in known], dtype=np.intp),
            column("tokens_in", 0.0),
            column("tokens_out", 0.0),
            np.array([prompts[key] for key in known], dtype=np.float64),
            column("compress_seconds", 0.0),
            column("prefill_seconds", np.nan),
            column("retrieve_seconds", 0.0),
        )


def fit_run(run: RunView) -> RunFit:
    """Fits every row with compressors; rows that read labels are left out, since nobody can run them."""
    return fit_all(Measured(run))


def fit_all(measured: Measured) -> RunFit:
    """The same, from numbers read before."""
    rows: dict[str, RowFit] = {}
    problems: dict[str, str] = {}
    prefills: dict[str, tuple[Line | None, str]] = {}
    for name in measured.compressing:
        reader = measured.reader(name)
        if reader not in prefills:
            prefills[reader] = _prefill(*measured.prompts(name)[:2])
        prefill, problem = prefills[reader]
        data = measured.data[name]
        if not len(data.who):
            problem = f"no record of this row has all of {', '.join(_NEEDED)}"
        elif not problem and (why := spread(data.tokens_in)):
            problem = f"the compressor's cost a token cannot be told from these contexts: {why}"
        if prefill is None or problem:
            problems[name] = problem
            continue
        base = measured.data.get(uncompressed_of(measured.run, name))
        # Rows that do nothing still count tokens, and their measured times hold that.
        plain = fit(base.tokens_in, base.compress) if base is not None and len(base.who) else Line(0.0, 0.0)
        share, most = left(data, budget_of(measured.run, name), np.ones((1, len(data.who))))
        extra = (data.prompt - data.tokens_out)[data.read]
        rows[name] = RowFit(
            name,
            fit(data.tokens_in, data.compress),
            plain,
            prefill,
            float(np.mean(extra)) if len(extra) else 0.0,
            float(np.median(data.retrieve)),
            float(share[0, 0]),
            float(most[0, 0]),
        )
    window = max((int(np.max(d.prompt, initial=0)) for d in measured.data.values()), default=0)
    return RunFit(rows, problems, window)


def _prefill(prompts: Floats, seconds: Floats) -> tuple[Line | None, str]:
    if not len(prompts):
        return None, "nothing was generated in this run, so the cost of reading a prompt is not known"
    if why := spread(prompts):
        return None, f"the generator's cost a token cannot be told from these prompts: {why}"
    line = fit(prompts, seconds, curved=True)
    if not line.curve and line.slope <= 2 * line.error:
        return None, "the time to read a prompt does not grow measurably with its length in these records"
    return line, ""


def left(data: Data, budget: int | None, weights: Floats) -> tuple[Floats, Floats]:
    """The share of its tokens that a context keeps and the most it keeps, ``[b, 1]`` each.

    A budget alone gives ``min(n, most)``. Where something else drops a share too, contexts beyond the budget show
    which comes first: ``share * min(n, budget)`` stays the same from there on, ``min(share * n, budget)`` grows.
    """
    before, after = data.tokens_in, data.tokens_out
    if budget is None:
        return _share(weights, before, after)[:, None], np.full((len(weights), 1), np.inf)
    over = before > budget
    number = weights @ over
    most = np.where(number > 0, weights @ (after * over) / np.maximum(number, 1.0), float(budget))
    below = after < _FULL * budget  # where the budget was not what stopped it
    grows = _grows(before[over], after[over], below[over], float(budget))
    if grows:
        most = np.full(len(weights), float(budget))
    if np.sum(~over) >= _FEW:
        share = _share(weights, before * ~over, after * ~over)
    elif grows:
        share = _share(weights, before * below, after * below)
    elif np.any(over) and np.mean(after[over]) < _FULL * budget:
        share = np.minimum(most / budget, 1.0)
    else:
        share = np.ones(len(weights))
    return share[:, None], most[:, None]


def _share(weights: Floats, before: Floats, after: Floats) -> Floats:
    total = weights @ before
    return np.where(total > 0, np.minimum(weights @ after / np.maximum(total, 1.0), 1.0), 1.0)


def _grows(before: Floats, after: Floats, below: NDArray[np.bool_], budget: float) -> bool:
    """Whether longer contexts beyond the budget still keep more: a share of them up to the budget fits far better."""
    if np.sum(below) < _FEW:
        return False
    share = float(np.sum(after[below]) / np.sum(before[below]))
    line = np.sum((after - np.minimum(share * before, budget)) ** 2)
    return bool(line < 0.5 * np.sum((after - np.mean(after)) ** 2))


def budget_of(run: RunView, name: str) -> int | None:
    """The most context tokens a row allows: as the run says, else the least that any of its compressors has."""
    own = settings(run, name)
    if own.get("budget") is not None:
        return int(own["budget"])
    found: list[int] = []
    todo: list[Any] = [(own.get("pipeline") or {}).get("compressors")]
    while todo:
        part = todo.pop()
        if isinstance(part, Mapping):
            found += [v for k, v in part.items() if k in _BUDGETS and isinstance(v, int) and not isinstance(v, bool)]
            todo += [value for key, value in part.items() if key != "soft"]  # that is a budget for each passage
        elif isinstance(part, list | tuple):
            todo += part
    return min((value for value in found if value > 0), default=None)
