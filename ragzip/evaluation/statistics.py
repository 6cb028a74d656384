"""Intervals and tests over questions: bootstrap, sign-flip randomisation, Holm's correction.

Everything is deterministic for a seed and depends on the values alone, not on their order or ids. Work is cut into
pieces of some megabytes, so that 100,000 questions take time, not memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

_Values = NDArray[np.float64]

_EXACT = 14
_FLIPS = 20_000
_CHUNK = 1 << 21


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its confidence interval.

    Attributes:
        mean: Of the values (or the ratio of the sums).
        low: Lower limit, at most ``mean``.
        high: Upper limit, at least ``mean``.
        n: How many values. Below about 10, limits of any method promise more than they keep.
    """

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Paired:
    """The difference of two systems on the same questions.

    Attributes:
        difference: Mean of ``a - b``.
        low: Lower limit of its interval.
        high: Upper limit.
        p: Probability of a mean at least this far from 0, either way, if the two were exchangeable on each question.
        n: Questions that both have.
    """

    difference: float
    low: float
    high: float
    p: float
    n: int


def mean_interval(
    values: Sequence[float],
    *,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 2000,
    bounds: tuple[float, float] | None = None,
) -> Interval:
    """Mean with a bootstrap interval: expanded percentiles (Hesterberg, 2015).

    Plain percentiles are too narrow for few values: the quantiles are taken further out, by what Student's t is wider
    than the normal distribution. From 100 values on that is no difference to speak of.

    Equal values have no spread to resample. A point would be a claim of certainty; with ``bounds`` the limits are exact
    ones instead: the furthest means under which such values still come up with probability ``(1 - confidence) / 2``.
    One value between bounds says nothing, and the bounds are the interval. Without bounds it is a point.

    Args:
        values: One a question.
        confidence: Of the interval.
        seed: Of the resampling.
        resamples: How many.
        bounds: The least and greatest value there can be, if there are such.

    Raises:
        ValueError: No values, one that is not finite or not within the bounds, or a confidence not between 0 and 1.
    """
    x = _checked(values)
    _check_options(confidence, resamples)
    if bounds is not None:
        x = _within(x, bounds)
    mean = _mean(x)
    if x[0] == x[-1]:
        low, high = _limits_of_equal(mean, len(x), confidence, bounds)
        return Interval(mean, low, high, len(x))
    means = np.concatenate([x[index].mean(axis=1) for index in _resamples(len(x), resamples, seed)])
    low, high = _percentiles(means, len(x), confidence)
    return Interval(mean, min(low, mean), max(high, mean), len(x))


def ratio_interval(
    numerators: Sequence[float],
    denominators: Sequence[float],
    *,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 2000,
) -> Interval:
    """Sum of the numerators divided by the sum of the denominators, with a bootstrap interval over the pairs.

    Resamples whose denominators add up to 0 are left out.

    Args:
        numerators: One a question.
        denominators: One a question, none negative, not all 0.
        confidence: Of the interval.
        seed: Of the resampling.
        resamples: How many.

    Raises:
        ValueError: As for ``mean_interval``, or the denominators are not as said.
    """
    if len(numerators) != len(denominators):
        raise ValueError(f"{len(numerators)} numerators and {len(denominators)} denominators")
    _check_options(confidence, resamples)
    _checked(numerators)
    if _checked(denominators)[0] < 0 or not any(denominators):
        raise ValueError("denominators must not be negative, nor all 0")
    a, b = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    order = np.lexsort((b, a))
    a, b = a[order], b[order]
    ratio = math.fsum(a) / math.fsum(b)
    if (a[0] == a[-1] and b.min() == b.max()) or len(a) == 1:
        return Interval(ratio, ratio, ratio, len(a))
    found = []
    for index in _resamples(len(a), resamples, seed):
        over, under = a[index].sum(axis=1), b[index].sum(axis=1)
        found.append(over[under > 0] / under[under > 0])
    ratios = np.concatenate(found)
    if not len(ratios):
        return Interval(ratio, ratio, ratio, len(a))
    low, high = _percentiles(ratios, len(a), confidence)
    return Interval(ratio, min(low, ratio), max(high, ratio), len(a))


def paired(
    a: Mapping[str, float],
    b: Mapping[str, float],
    *,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 2000,
    flips: int = _FLIPS,
    bounds: tuple[float, float] | None = None,
) -> Paired:
    """How far ``a`` is above ``b`` on the questions that both have: bootstrap interval and randomisation test.

    The test (Fisher, 1935) flips the sign of each question's difference at random: if the systems were exchangeable,
    each sign is as likely as the other. Up to 14 differences other than 0 all ``2**14`` ways are counted and p is
    exact; beyond, it is estimated from random flips, with the observed one among them, so that it is never 0.

    Equal differences (none at all on 5 questions) have no spread to resample. With ``bounds`` the limits are exact
    instead: how far the mean may lie off without any other difference being seen. Without, they are a point, which
    claims more than is known.

    Args:
        a: Value by question.
        b: Value by question.
        bounds: The least and greatest value there can be of ``a`` and ``b`` (not of their difference), if there are.
        confidence: Of the interval.
        seed: Of resampling and flipping.
        resamples: Of the bootstrap.
        flips: How many, where they are not all counted.

    Raises:
        ValueError: No question in common, or a value that is not finite or not within the bounds.
    """
    common = [key for key in a if key in b]
    if not common:
        raise ValueError("the two have no question in common")
    for values in (a, b):
        _checked([values[key] for key in common])
    difference = [float(a[key]) - float(b[key]) for key in common]
    interval = mean_interval(difference, confidence=confidence, seed=seed, resamples=resamples)
    low, high = interval.low, interval.high
    if bounds is not None:
        width = bounds[1] - bounds[0]
        for values in (a, b):
            _within([values[key] for key in common], bounds)
        if min(difference) == max(difference):
            low, high = _limits_of_unseen(interval.mean, interval.n, confidence, (-width, width))
    p = sign_flip(difference, seed=seed, flips=flips)
    return Paired(interval.mean, low, high, p, interval.n)


def sign_flip(differences: Sequence[float], *, seed: int = 0, flips: int = _FLIPS, exact: int = _EXACT) -> float:
    """Two-sided p of the sign-flip randomisation test of a mean of 0; see ``paired``.

    Args:
        differences: One a question.
        seed: Of the flips.
        flips: How many, where they are not all counted.
        exact: Up to how many differences other than 0 all flips are counted, at most 24.

    Raises:
        ValueError: No differences, one that is not finite, or options out of range.
    """
    if flips < 1 or not 0 <= exact <= 24:
        raise ValueError("flips must be at least 1, exact from 0 to 24")
    d = _checked(differences)
    sizes = np.sort(np.abs(d[d != 0]))
    if not len(sizes):
        return 1.0
    # sums of the same numbers in another order differ in the last digits and are the same sum
    reached = abs(math.fsum(d)) - 1e-10 * float(sizes.sum())
    if len(sizes) <= exact:
        sums = np.zeros(1)
        for size in sizes:
            sums = np.concatenate([sums - size, sums + size])
        return float(np.count_nonzero(np.abs(sums) >= reached)) / len(sums)
    distinct, counts = np.unique(sizes, return_counts=True)
    draw = _by_size(distinct, counts) if 8 * len(distinct) <= len(sizes) else _by_byte(sizes)
    rng = np.random.default_rng([seed, len(sizes)])
    extreme, left = 0, flips
    while left:
        rows = min(left, max(_CHUNK // len(sizes), 1))
        extreme += int(np.count_nonzero(np.abs(draw(rng, rows)) >= reached))
        left -= rows
    return (extreme + 1) / (flips + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected p-values (Holm, 1979), in the order given: at most ``alpha`` keeps the family-wise error at ``alpha``.

    Raises:
        ValueError: A p-value that is not between 0 and 1.
    """
    if any(not 0 <= p <= 1 for p in p_values):
        raise ValueError("p-values must be between 0 and 1")
    corrected = [0.0] * len(p_values)
    greatest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        greatest = max(greatest, min(1.0, (len(p_values) - rank) * float(p_values[index])))
        corrected[index] = greatest
    return corrected


def _checked(values: Sequence[float]) -> _Values:
    """The values in ascending order, so that nothing depends on the order they came in."""
    x = np.sort(np.asarray(values, dtype=np.float64))
    if x.ndim != 1 or not len(x):
        raise ValueError("there are no values")
    if not np.isfinite(x).all():
        raise ValueError("a value is not finite")
    return x


def _check_options(confidence: float, resamples: int) -> None:
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError("confidence must be between 0 and 1, resamples at least 1")


def _mean(x: _Values) -> float:
    return float(x[0]) if x[0] == x[-1] else math.fsum(x) / len(x)


def _within(values: Sequence[float] | _Values, bounds: tuple[float, float]) -> _Values:
    """The values, with what rounding took over the bounds cut off."""
    x = np.asarray(values, dtype=np.float64)
    rounding = 1e-9 * (bounds[1] - bounds[0])
    if x.min() < bounds[0] - rounding or x.max() > bounds[1] + rounding:
        raise ValueError(f"values from {x.min()} to {x.max()} are not within {bounds}")
    return np.clip(x, *bounds)


def _limits_of_equal(
    value: float, n: int, confidence: float, bounds: tuple[float, float] | None
) -> tuple[float, float]:
    if bounds is None or bounds[0] == bounds[1]:
        return value, value
    return _limits_of_unseen(value, n, confidence, bounds) if n > 1 or value in bounds else bounds


def _limits_of_unseen(value: float, n: int, confidence: float, bounds: tuple[float, float]) -> tuple[float, float]:
    """The furthest means under which n values come out equal with probability ``(1 - confidence) / 2``."""
    # n values are all equal with probability q**n, where q is the share of that value; the rest may lie anywhere
    other = 1 - ((1 - confidence) / 2) ** (1 / n)
    return value - other * (value - bounds[0]), value + other * (bounds[1] - value)


def _resamples(n: int, resamples: int, seed: int) -> Iterator[NDArray[np.integer]]:
    """Indexes of the resamples, some rows at a time: ``[rows, n]``."""
    rng = np.random.default_rng([seed, n])
    rows = max(_CHUNK // n, 1)
    for first in range(0, resamples, rows):
        yield rng.integers(0, n, size=(min(rows, resamples - first), n), dtype=np.uint32)


def _percentiles(found: _Values, n: int, confidence: float) -> tuple[float, float]:
    t = _student_quantile(0.5 + confidence / 2, n - 1)
    tail = NormalDist().cdf(-t * math.sqrt(n / (n - 1)))
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


def _student_quantile(q: float, freedom: int) -> float:
    """The quantile of Student's t for ``q > 0.5``, by bisection of its distribution, which is a finite sum."""
    if freedom > 10_000:
        return NormalDist().inv_cdf(q)
    low, high = 0.0, 1.0
    while _student_central(high, freedom) < 2 * q - 1 and high < 1e9:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_central(middle, freedom) < 2 * q - 1 else (low, middle)
    return high


def _student_central(t: float, freedom: int) -> float:
    """The probability of ``[-t, t]`` (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan2(t, math.sqrt(freedom))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    if freedom % 2 == 0:
        term = total = 1.0
        for k in range(1, freedom // 2):
            term *= square * (2 * k - 1) / (2 * k)
            total += term
        return sine * total
    total, term = 0.0, math.cos(angle)
    for k in range(1, (freedom + 1) // 2):
        total += term
        term *= square * (2 * k) / (2 * k + 1)
    return 2 / math.pi * (angle + sine * total)


_Draw = Callable[[np.random.Generator, int], _Values]


def _by_size(sizes: _Values, counts: NDArray[np.integer]) -> _Draw:
    """Random sums of signed differences where many are equal: how many are positive is binomial."""

    def draw(rng: np.random.Generator, rows: int) -> _Values:
        positive = rng.binomial(counts, 0.5, size=(rows, len(sizes)))
        found: _Values = (2 * positive - counts) @ sizes
        return found

    return draw


def _by_byte(sizes: _Values) -> _Draw:
    """Random sums of signed differences, eight at a time: a random byte picks one of their 256 signed sums."""
    blocks = -(-len(sizes) // 8)
    padded = np.zeros(8 * blocks)
    padded[: len(sizes)] = sizes
    signs = 1.0 - 2.0 * ((np.arange(256)[:, None] >> np.arange(8)) & 1)
    table = (padded.reshape(blocks, 8) @ signs.T).ravel()
    offsets = 256 * np.arange(blocks)

    def draw(rng: np.random.Generator, rows: int) -> _Values:
        bytes_ = rng.integers(0, 256, size=(rows, blocks), dtype=np.uint8)
        found: _Values = table[bytes_ + offsets].sum(axis=1)
        return found

    return draw
