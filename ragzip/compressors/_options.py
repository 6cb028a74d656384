"""Checks of options, for ``__post_init__``: cheap, and with errors that name the option."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real

from ragzip.errors import ConfigError
from ragzip.protocols import Counter


def check_share(name: str, value: float | None) -> None:
    """``keep``-like: above 0, up to 1, or None."""
    if value is not None and not 0 < _real(name, value) <= 1:
        raise ConfigError(name, f"must be above 0 and at most 1, not {value!r}")


def check_count(name: str, value: int | None, *, least: int = 0) -> None:
    """A whole number from ``least`` on, or None."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, Integral)):
        raise ConfigError(name, f"must be a whole number, not {value!r}")
    if value is not None and value < least:
        raise ConfigError(name, f"must be at least {least}, not {value!r}")


def check_number(name: str, value: float | None, *, low: float = -math.inf, high: float = math.inf) -> None:
    """A finite number within bounds, or None."""
    if value is None:
        return
    try:
        finite = math.isfinite(_real(name, value))
    except OverflowError:  # a whole number beyond all of them
        finite = False
    if not finite:
        raise ConfigError(name, f"must be a finite number, not {value!r}")
    if not low <= value <= high:
        raise ConfigError(name, f"must be between {low:g} and {high:g}, not {value!r}")


def _real(name: str, value: float) -> float:
    """A number, for comparing; True is none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ConfigError(name, f"must be a number, not {value!r}")
    return value


def counter_of(bound: Counter | None) -> Counter:
    """The bound counter, or that of the built-in generator, its tokenizer at hand, for a compressor used by itself."""
    if bound is not None:
        return bound
    from ragzip.models import GENERATOR, CountTokens
    from ragzip.tokens import TokenCounter

    return TokenCounter(CountTokens(GENERATOR).ready())


def most(high: int, fits: Callable[[int], bool]) -> int:
    """The greatest number up to ``high`` that fits, 0 where none does; what fits is taken to fit for less, too."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low
