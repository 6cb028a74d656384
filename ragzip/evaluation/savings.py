"""What compression saves on an API that charges by the token, per 1,000 questions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ragzip.errors import UsageError
from ragzip.evaluation.statistics import mean_interval
from ragzip.evaluation.view import RunView, baseline_of, finite, require_row

_QUESTIONS = 1000
_PER = 1_000_000


def savings(
    run: RunView, *, price_in: float, price_out: float = 0.0, baseline: str = "", seed: int = 0
) -> dict[str, Any]:
    """USD that each row saves per 1,000 questions against its baseline, paired by record.

    Tokens in are the whole prompt's; where nothing was generated, the context's stand for them, on both sides, and
    tokens out count as none.

    Args:
        run: What was measured.
        price_in: USD per million prompt tokens.
        price_out: USD per million generated tokens.
        baseline: Compare all rows with this one; "" compares each with its generator without compression.
        seed: Of the intervals.

    Returns:
        Plain values: the prices, ``baseline``, and by row ``per_1000`` with its 95 % interval ``low`` to ``high``
        (negative: it costs more), ``cost_per_1000``, ``baseline`` and ``n`` records.

    Raises:
        UsageError: A price that is no finite number >= 0; no such baseline.
    """
    prices = (_price(price_in, "--price-in"), _price(price_out, "--price-out"))
    first = require_row(run, baseline or baseline_of(run), "baseline")
    tokens = {name: _tokens(run, name) for name in run.names}
    rows: dict[str, Any] = {}
    for name in run.names:
        base = baseline or baseline_of(run, name) or first
        common = [key for key in tokens[name] if key in tokens[base]]
        if not common:
            continue
        pairs = [_comparable(tokens[base][key], tokens[name][key]) for key in common]
        costs = [[_cost(side, prices) for side in pair] for pair in pairs]
        saved = mean_interval([_QUESTIONS * (before - after) for before, after in costs], seed=seed)
        rows[name] = {
            "per_1000": saved.mean,
            "low": saved.low,
            "high": saved.high,
            "cost_per_1000": _QUESTIONS * math.fsum(after for _, after in costs) / len(costs),
            "baseline": base,
            "n": len(common),
        }
    return {"price_in": prices[0], "price_out": prices[1], "baseline": first, "rows": rows}


_Tokens = tuple[float, float, float]  # prompt (0: none), generated, context


def _tokens(run: RunView, name: str) -> Mapping[str, _Tokens]:
    new, context = finite(run, name, "new_tokens"), finite(run, name, "tokens_out")
    found: dict[str, _Tokens] = {}
    for line in run.rows(name):
        key, prompt = line["id"], float(line.get("prompt_tokens") or 0)
        if prompt > 0 or key in context:
            found[key] = (prompt, new.get(key, 0.0), context.get(key, 0.0))
    return found


def _comparable(one: _Tokens, other: _Tokens) -> tuple[tuple[float, float], tuple[float, float]]:
    """Tokens in and out of both, counted the same way: a prompt is not to be compared with a bare context."""
    if one[0] > 0 and other[0] > 0:
        return one[:2], other[:2]
    return (one[2], 0.0), (other[2], 0.0)


def _cost(tokens: tuple[float, float], prices: tuple[float, float]) -> float:
    return (tokens[0] * prices[0] + tokens[1] * prices[1]) / _PER


def _price(value: float, option: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise UsageError(
            f"{option}: a price must be a finite number of at least 0, not {value!r}.",
            hint="Give USD per million tokens, as 0.15.",
        )
    return float(value)
