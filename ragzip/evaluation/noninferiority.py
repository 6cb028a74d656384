"""Is a candidate surely not worse than the baseline by more than a limit? A test that holds for few questions too.

The usual t-test and the bootstrap fail where it matters here: a candidate that differs from the baseline on none of 100
questions has no variance, and both would be certain of it, although a loss on 1 question of 100 goes unseen once in
three times. This test adds the worst question there could be to those seen, and weights all of them at random
(Dirichlet(1, ..., 1) weights, the Bayesian bootstrap). p is how often the weighted loss is beyond the limit. For
yes-or-no values it is the exact (Clopper-Pearson) test; for others it is Gaffke's (2005) bound, which needs nothing
but the bounds of the metric and is not known to err on the wrong side anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ragzip.evaluation.lines import Floats
from ragzip.evaluation.loss import Loss

_CHUNK = 1 << 21

TINY = 1e-12
"""Means of margins that are 0 but for rounding."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one candidate against the baseline.

    Attributes:
        difference: Observed, candidate minus baseline, in the limit's unit.
        draws: Differences under random weights, ascending, ``[b]``.
        margins: By question how far the candidate is above the limit, ``[n]``; the mean must surely be above 0.
        limit: The loss allowed.
    """

    difference: float
    draws: Floats
    margins: Floats
    limit: Loss

    @property
    def p(self) -> float:
        """One-sided: small where a loss beyond the limit is out of the question."""
        return float((1 + np.searchsorted(self.draws, -self.limit.limit, side="right")) / (len(self.draws) + 1))

    def low(self, level: float) -> float:
        """The least difference not ruled out at this level: above ``-limit`` exactly where ``p <= level``."""
        rank = math.floor(level * (len(self.draws) + 1) + 1e-9) - 1
        return float(self.draws[rank]) if rank >= 0 else -1.0

    def needed(self, level: float, power: float = 0.8) -> float:
        """Questions needed to qualify four times in five, if what is seen is true; infinite where it has no margin."""
        mean, deviation = float(np.mean(self.margins)), float(np.std(self.margins))
        if mean <= TINY:
            return math.inf
        quantile = NormalDist().inv_cdf
        normal = ((quantile(1 - level) + quantile(power)) * deviation / mean) ** 2
        # Without any difference seen, a loss of 1 still has to be ruled out.
        return max(normal, -math.log(level) / mean)


def evidence(
    candidate: Sequence[float],
    baseline: Sequence[float],
    limit: Loss,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    draws: int = 20_000,
) -> Evidence:
    """Weighs paired values, ``[n]`` each, of a metric within ``bounds``.

    A relative limit is tested as the ratio of the two weighted means, so that the baseline's own uncertainty counts.

    Raises:
        ValueError: A relative limit, and a baseline that scores the least there is throughout: a share of nothing.
    """
    least, most = bounds
    scale = most - least
    pairs = (np.stack([np.asarray(candidate), np.asarray(baseline)], axis=1) - least) / scale
    mean_c, mean_b = (float(v) for v in pairs.mean(axis=0))
    if limit.relative and mean_b <= 0:
        raise ValueError("a share of a baseline of 0 means nothing")
    values, counts = np.unique(pairs, axis=0, return_counts=True)
    values = np.concatenate([values, [[0.0, 1.0]]])  # the worst there could be
    shapes = np.append(counts, 1).astype(np.float64)
    rng = np.random.default_rng([seed, len(pairs)])
    found, step = [], max(1, _CHUNK // len(shapes))
    for first in range(0, draws, step):
        weights = rng.standard_gamma(shapes, size=(min(step, draws - first), len(shapes)))
        sums = weights @ values
        if limit.relative:
            found.append(sums[:, 0] / np.maximum(sums[:, 1], 1e-300) - 1)
        else:
            found.append((sums[:, 0] - sums[:, 1]) / weights.sum(axis=1))
    if limit.relative:
        observed = mean_c / mean_b - 1
        margins = pairs[:, 0] - (1 - limit.limit) * pairs[:, 1]
    else:
        observed, margins = mean_c - mean_b, pairs[:, 0] - pairs[:, 1] + limit.limit
    return Evidence(observed, np.sort(np.concatenate(found)), margins, limit)
