"""From how many context tokens on does a compressor pay, for this generator on this machine?

Time to first token with compression is retrieval + compressing n tokens + reading what is left; without, it is
retrieval + reading n tokens. All three costs are fitted to the records of the run, so the answer holds for the machine
they were measured on, and the least n from which compression is faster and stays faster is the break-even.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import UsageError
from ragzip.evaluation.costmodel import Measured, RowFit, RunFit, budget_of, fit_all, fit_run, left
from ragzip.evaluation.lines import Floats, Line, refit
from ragzip.evaluation.view import RunView, uncompressed_of

__all__ = ["RowFit", "RunFit", "break_even", "fit_run", "predict"]

_GRID, _POINTS = 2048, 60
_FURTHEST = 131_072  # tokens up to which is looked where the window is not known: that of many generators
_NOTHING = 1e-9  # seconds below which two times are the same


@dataclass(frozen=True, slots=True)
class _Draws:
    """The numbers of a fit, many times over: lines ``[b, 3]``, the others ``[b, 1]``."""

    compress: Floats
    plain: Floats
    prefill: Floats
    overhead: Floats
    share: Floats
    most: Floats

    def left(self, n: Floats) -> Floats:
        return np.minimum(self.share * n, self.most)

    def difference(self, n: Floats) -> Floats:
        """Seconds with compression minus seconds without, ``[b, len(n)]``."""
        with_it = _at(self.compress, n) + _at(self.prefill, self.left(n) + self.overhead)
        return with_it - _at(self.plain, n) - _at(self.prefill, n + self.overhead)


def predict(run_fit: RunFit, row: str, context_tokens: float) -> tuple[float, float]:
    """Seconds to the first token with and without compression, for a context of so many tokens before it.

    Raises:
        UsageError: There is no fit of this row.
    """
    if row not in run_fit.rows:
        why = run_fit.problems.get(row, "it has no compressors, or is no row of this run")
        raise UsageError(f"no times can be predicted for the row {row!r}: {why}.")
    with_it, without = run_fit.rows[row].times(np.array([float(context_tokens)]))
    return float(with_it[0]), float(without[0])


def break_even(
    run: RunView, *, window: int | None = None, confidence: float = 0.95, seed: int = 0, resamples: int = 300
) -> dict[str, Any]:
    """Time to first token against context length for each row with compressors, and where compression starts to pay.

    Args:
        run: What was measured.
        window: The generator's, in prompt tokens. Where it is None, not known, the curves end at the longest prompt
            measured, and what lies beyond stands apart, in ``extrapolated``.
        confidence: Of the interval ``low`` to ``high``, from resampled records.
        seed: Of the resampling.
        resamples: How many times.

    Returns:
        Plain values: ``unit``, ``window``, ``window_known``, and by row ``pays_from`` with ``low`` and ``high`` (None:
        not within the window), ``extrapolated`` (from where on it pays beyond a window that is only the longest
        prompt measured; None: not that either, or not asked), ``points`` as ``[context tokens, seconds with, seconds
        without]``, ``compress_per_token``, ``prefill_per_token``, ``compress_residual``, ``prefill_residual`` (robust
        standard deviations about the lines), ``extrapolated_from`` and ``note``. What could not be measured is None.

    Raises:
        UsageError: A window below 1 token.
    """
    if window is not None and window < 1:
        raise UsageError(f"the window must be at least 1 token, not {window}.")
    measured = Measured(run)
    fitted = fit_all(measured)
    known = window is not None
    window = window or fitted.window
    rng = np.random.default_rng(seed)
    chances = np.full(max(measured.records, 1), 1 / max(measured.records, 1))
    counts = rng.multinomial(max(measured.records, 1), chances, size=resamples).astype(np.float64)
    prefills: dict[int, Floats] = {}
    rows: dict[str, Any] = {}
    for name in measured.compressing:
        if name in fitted.problems:
            rows[name] = _row(note=fitted.problems[name])
            continue
        row = fitted.rows[name]
        if id(row.prefill) not in prefills:  # rows of one generator share the object
            x, y, who = measured.prompts(name)
            prefills[id(row.prefill)] = _redraw(x, y, row.prefill, counts, who)
        draws = _resampled(measured, row, counts, prefills[id(row.prefill)])
        rows[name] = _answer(row, draws, int(window - row.overhead), confidence, known)
    return {"unit": "tokens", "window": int(window), "window_known": known, "rows": rows}


def _at(lines: Floats, x: Floats) -> Floats:
    return lines[:, :1] + x * (lines[:, 1:2] + lines[:, 2:3] * x)


def _redraw(x: Floats, y: Floats, line: Line, counts: Floats, who: NDArray[np.intp]) -> Floats:
    """A line's coefficients ``[b, 3]`` under each resample, in pieces that fit in memory."""
    step = max(1, 2_000_000 // max(len(x), 1))
    return np.concatenate([refit(x, y, line, counts[i : i + step, who]) for i in range(0, len(counts), step)])


def _resampled(measured: Measured, row: RowFit, counts: Floats, prefill: Floats) -> _Draws:
    data = measured.data[row.name]
    base = measured.data.get(uncompressed_of(measured.run, row.name))
    plain = np.tile(row.plain.coefficients, (len(counts), 1))
    if base is not None and len(base.who):
        plain = _redraw(base.tokens_in, base.compress, row.plain, counts, base.who)
    weights = counts[:, data.who]
    share, most = left(data, budget_of(measured.run, row.name), weights)
    extra = np.where(data.read, data.prompt - data.tokens_out, 0.0)
    number = (weights @ data.read)[:, None]
    overhead = np.where(number > 0, (weights @ extra)[:, None] / np.maximum(number, 1.0), row.overhead)
    compress = _redraw(data.tokens_in, data.compress, row.compress, counts, data.who)
    return _Draws(compress, plain, prefill, overhead, share, most)


def _answer(row: RowFit, draws: _Draws, limit: int, confidence: float, known: bool) -> dict[str, Any]:
    if limit < 1:
        return _row(note="the prompt without any context fills the window already")
    one = _Draws(
        *(line.coefficients[None, :] for line in (row.compress, row.plain, row.prefill)),
        *(np.array([[value]]) for value in (row.overhead, row.share, row.most)),
    )
    grid = _grid(limit)
    pays, beyond = _pays_from(one, limit), np.inf
    if not known and not np.isfinite(pays):
        beyond = _pays_from(one, max(_FURTHEST, limit))
    found = np.sort(_crossing(draws.difference(grid), grid))
    tail = (1 - confidence) / 2
    low, high = (float(found[round(q * (len(found) - 1))]) for q in (tail, 1 - tail))
    shown = np.unique(np.linspace(0, limit, min(limit + 1, _POINTS)).round())
    curve = np.stack([shown, *row.times(shown)], axis=1)
    return _row(
        pays_from=_whole(pays),
        low=_whole(np.floor(low)),
        high=_whole(np.ceil(high)),
        points=[[int(n), round(float(w), 6), round(float(o), 6)] for n, w, o in curve],
        compress_per_token=row.compress.per_token,
        prefill_per_token=row.prefill.per_token,
        compress_residual=row.compress.residual,
        prefill_residual=row.prefill.residual,
        extrapolated=_whole(beyond),
        extrapolated_from=int(row.reach),
        note=_note(row, pays, beyond, float(np.mean(np.isfinite(found))), limit, known),
    )


def _grid(limit: int) -> Floats:
    return np.unique(np.linspace(1, limit, min(limit, _GRID)).round())


def _pays_from(one: _Draws, limit: int) -> float:
    """The least context, to the token, from which it is faster up to the limit; infinite where there is none."""
    grid = _grid(limit)
    pays = float(_crossing(one.difference(grid), grid)[0])
    if not np.isfinite(pays):
        return pays
    below = grid[grid < pays]
    near = np.arange(below[-1] if len(below) else grid[0], min(np.ceil(pays) + 1, limit) + 1)
    slow = near[one.difference(near)[0] >= -_NOTHING]
    return float(slow[-1] + 1 if len(slow) else near[0])


def _crossing(difference: Floats, grid: Floats) -> Floats:
    """Where each curve ``[b, g]`` goes below 0 and stays there; infinite where it does not."""
    slow = difference >= -_NOTHING
    last = np.where(slow.any(axis=1), slow.shape[1] - 1 - np.argmax(slow[:, ::-1], axis=1), -1)
    following = np.minimum(last + 1, slow.shape[1] - 1)
    rows = np.arange(len(difference))
    before, after = difference[rows, np.maximum(last, 0)], difference[rows, following]
    part = np.where(before > after, before / np.where(before > after, before - after, 1.0), 1.0)
    between = grid[np.maximum(last, 0)] + np.clip(part, 0, 1) * (grid[following] - grid[np.maximum(last, 0)])
    found = np.where(last < 0, grid[0], between)
    return np.where(last == slow.shape[1] - 1, np.inf, found)


def _note(row: RowFit, pays: float, beyond: float, chance: float, limit: int, known: bool) -> str:
    notes: list[str] = []
    within = f"within {limit} context tokens" if known else f"within the lengths measured, up to {limit} context tokens"
    if not np.isfinite(pays):
        if known:
            notes.append(f"Never {within}: {_reason(row, limit)}.")
        elif np.isfinite(beyond):
            notes.append(f"Not {within}. Extrapolated: from {beyond:.0f} on.")
        else:
            furthest = max(_FURTHEST, limit)
            notes.append(f"Not {within}, nor extrapolated up to {furthest}: {_reason(row, furthest)}.")
        if chance > 0.025:
            notes.append(f"In {chance:.0%} of resamples it does{'' if known else ' within them'}.")
    elif chance < 0.975:
        notes.append(f"In {1 - chance:.0%} of resamples it does not pay {within}.")
    if np.isfinite(pays) and pays > row.reach:
        notes.append(f"Extrapolated: the longest context measured has {row.reach:.0f} tokens.")
    elif np.isfinite(pays) and pays < row.least:
        notes.append(f"Extrapolated: the shortest context measured has {row.least:.0f} tokens.")
    return " ".join(notes)


def _reason(row: RowFit, limit: int) -> str:
    cost, reading = row.compress.per_token - row.plain.per_token, row.prefill.per_token
    if row.share == 1.0 and row.most >= limit:
        return f"its budget leaves contexts of up to {row.most:.0f} tokens as they are"
    dropped = 1.0 if np.isfinite(row.most) else 1.0 - row.share
    if cost >= dropped * reading:
        part = "" if dropped == 1.0 else f" and the {dropped:.0%} that it drops in {_ms(dropped * reading)}"
        return f"the compressor costs {_ms(cost)} a context token, the generator reads one in {_ms(reading)}{part}"
    fixed = row.compress.intercept - row.plain.intercept
    return (
        f"a context token more costs the compressor {_ms(cost)} and saves the generator {_ms(dropped * reading)}, "
        f"which does not earn back the compressor's fixed {_ms(fixed)} by then"
    )


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2g} ms" if seconds < 0.1 else f"{seconds:.2g} s"


def _whole(value: float) -> int | None:
    return int(value) if np.isfinite(value) else None


_EMPTY: Mapping[str, Any] = {
    "pays_from": None,
    "low": None,
    "high": None,
    "points": [],
    "compress_per_token": None,
    "prefill_per_token": None,
    "compress_residual": None,
    "prefill_residual": None,
    "extrapolated": None,
    "extrapolated_from": None,
    "note": "",
}


def _row(**values: Any) -> dict[str, Any]:
    return {**_EMPTY, "points": [], **values}
