"""Robust lines through timings: cost against size, with no negative cost and few assumptions.

Timings have outliers: a first call, a busy machine. A least-squares line follows them; Huber's gives each a bounded
pull. Costs do not fall with size and nothing takes less than no time, so all coefficients are kept at 0 or above.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_TUNING = 1.345  # Huber's: 95 % of the efficiency of least squares where there are no outliers
_LEAST_POINTS = 8


@dataclass(frozen=True, slots=True)
class Line:
    """``intercept + slope x + curve x²``, with what it was fitted to.

    Attributes:
        intercept: Seconds at 0.
        slope: Seconds a token.
        curve: Seconds a squared token; 0 unless the data ask for it.
        residual: Robust standard deviation of what the line leaves, in seconds.
        error: Standard error of the slope, robust to uneven scatter; 0 for a curve.
        low: Smallest size measured.
        high: Largest size measured.
        n: Measurements.
    """

    intercept: float
    slope: float
    curve: float = 0.0
    residual: float = 0.0
    error: float = 0.0
    low: float = 0.0
    high: float = 0.0
    n: int = 0

    def at(self, size: Any) -> Any:
        """Seconds at a size, or at each of an array of sizes."""
        return self.intercept + size * (self.slope + self.curve * size)

    @property
    def per_token(self) -> float:
        """Mean seconds that one more token costs, over the sizes measured."""
        return self.slope + self.curve * (self.low + self.high)

    @property
    def coefficients(self) -> Floats:
        """``[3]``: intercept, slope, curve."""
        return np.array([self.intercept, self.slope, self.curve])


def spread(x: Floats) -> str:
    """Why no slope can be told from these sizes, or ""."""
    if len(x) < _LEAST_POINTS:
        return f"only {len(x)} measurement{'' if len(x) == 1 else 's'}"
    if len(np.unique(x)) == 1:
        return f"all have the same size, {x[0]:.0f} tokens"
    low, middle, high = np.percentile(x, [5, 50, 95])
    if high - low < 0.1 * max(middle, 1.0):
        return f"nearly all have the same size, {low:.0f} to {high:.0f} tokens"
    return ""


def fit(x: Floats, y: Floats, *, curved: bool = False) -> Line:
    """A robust line through ``y`` against ``x``, both ``[n]``, n >= 1.

    Args:
        x: Sizes, at least 0.
        y: Seconds.
        curved: Whether a quadratic term may be added. It is where it is positive by more than three standard errors,
            makes at least 2 % of the largest cost, and the sizes span a factor of two.
    """
    line = _fit(x, y, 2)
    wide = len(np.unique(x)) >= _LEAST_POINTS and np.max(x) >= 2 * max(float(np.min(x)), 1.0)
    if not (curved and wide and len(x) >= 2 * _LEAST_POINTS):
        return line
    bent = _fit(x, y, 3)
    matters = bent.curve * bent.high**2 >= 0.02 * bent.at(bent.high)
    return bent if bent.slope > 0 and matters and bent.curve > 3 * _errors(x, y, bent)[2] else line


def refit(x: Floats, y: Floats, line: Line, weights: Floats, *, rounds: int = 4) -> Floats:
    """The same kind of line under other weights of the points: ``[b, n]`` to coefficients ``[b, 3]``.

    Starts from ``line`` and keeps its scale, so a few rounds are enough. Rows without weight give zeros.
    """
    terms = 3 if line.curve else 2
    scale = _scale_floor(line.residual, y)
    largest = _largest(x)
    beta = np.tile(line.coefficients[:terms] * largest ** np.arange(terms), (len(weights), 1))
    powers = _powers(x / largest, terms)
    for _ in range(rounds):
        beta = _solve(weights * _huber(y - beta @ powers.T, scale), powers, y)
    result = np.zeros((len(weights), 3))
    result[:, :terms] = beta / largest ** np.arange(terms)
    return result


def _fit(x: Floats, y: Floats, terms: int) -> Line:
    largest = _largest(x)
    powers = _powers(x / largest, terms)
    flat = len(np.unique(x)) == 1
    if flat:
        beta = np.zeros(terms)
        beta[0] = max(float(np.median(y)), 0.0)
    else:
        beta = _solve(np.ones((1, len(x))), powers, y)[0]
        for _ in range(40):  # the scale shrinks with the pull of the outliers
            scale = _scale_floor(_scale(y - powers @ beta), y)
            beta = _solve(_huber(y - powers @ beta, scale)[None, :], powers, y)[0]
    found = np.zeros(3)
    found[:terms] = beta / largest ** np.arange(terms)
    residual = _scale(y - powers @ beta)
    intercept, slope, curve = (float(value) for value in found)
    line = Line(intercept, slope, curve, residual, 0.0, float(np.min(x)), float(np.max(x)), len(x))
    return line if flat or curve else replace(line, error=float(_errors(x, y, line)[1]))


def _errors(x: Floats, y: Floats, line: Line) -> Floats:
    """Standard errors of the coefficients, ``[3]``, valid where the scatter is uneven."""
    terms = 3 if line.curve else 2
    largest = _largest(x)
    powers = _powers(x / largest, terms)
    rest = y - line.at(x)
    weights = _huber(rest, _scale_floor(line.residual, y))
    inverse = np.linalg.pinv((powers * weights[:, None]).T @ powers)
    middle = (powers * (weights * rest)[:, None] ** 2).T @ powers
    found = np.full(3, np.inf)
    variances = np.maximum(np.diag(inverse @ middle @ inverse), 0.0)  # rounding may leave less than nothing
    found[:terms] = np.sqrt(variances) / largest ** np.arange(terms)
    return found


def _solve(weights: Floats, powers: Floats, y: Floats) -> Floats:
    """Weighted least squares with coefficients >= 0, exactly: weights ``[b, n]``, powers ``[n, k]`` to ``[b, k]``.

    With two or three coefficients every set of those that are not 0 can be tried; the best feasible one is the answer.
    """
    k = powers.shape[1]
    grams = (weights @ (powers[:, :, None] * powers[:, None, :]).reshape(len(y), k * k)).reshape(-1, k, k)
    moments = weights @ (powers * y[:, None])
    grams = grams + 1e-12 * np.maximum(grams[:, :1, :1], 1e-12) * np.eye(k)
    best, explained = np.zeros((len(weights), k)), np.zeros(len(weights))
    for size in range(1, k + 1):
        for chosen in combinations(range(k), size):
            index = list(chosen)
            part = np.linalg.solve(grams[:, index][:, :, index], moments[:, index, None])[:, :, 0]
            gain = np.sum(part * moments[:, index], axis=1)
            better = np.all(part >= 0, axis=1) & (gain > explained)
            best[np.ix_(better, range(k))] = 0.0
            best[np.ix_(better, index)] = part[better]
            explained = np.where(better, gain, explained)
    return best


def _powers(x: Floats, terms: int) -> Floats:
    return np.stack([x**power for power in range(terms)], axis=1)


def _huber(rest: Floats, scale: float) -> Floats:
    return np.minimum(1.0, _TUNING * scale / np.maximum(np.abs(rest), 1e-300))


def _scale(rest: Floats) -> float:
    return float(1.4826 * np.median(np.abs(rest)))


def _scale_floor(scale: float, y: Floats) -> float:
    """A scale that is never 0, where more than half of the points lie exactly on the line."""
    return max(scale, 1e-9 * float(np.max(np.abs(y))), 1e-15)


def _largest(x: Floats) -> float:
    return max(float(np.max(x)), 1.0)
