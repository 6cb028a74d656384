"""Choosing passages that together stand for a question's neighbourhood, and are unlike each other.

*Beyond Nearest Neighbors* (arXiv 2507.19715): instead of the nearest passages, the set ``S`` with the most

    sum over v of weight(v) * max over s in S of similarity(v, s) + diversity * sum over pairs in S of (1 - similarity)

The first part is monotone and submodular, the second a sum of distances: greedy choice by half the first gain and the
second is within half of the best there is for any size (Borodin, Lee and Ye, PODS 2012, for metrics).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def covering(weights: NDArray[np.float64], similarity: Matrix, diversity: float, k: int) -> list[int]:
    """The choice, in the order it was made; of equal elements the first.

    Lazy: coverage only shrinks as the set grows, so that an old gain is a bound, and only those that come first by
    their bound are looked at again (Minoux 1978). Distances to the set grow, and are kept exact for all. The choice
    is that of looking at everything at every step, and the first of it are the choice for a smaller ``k``.

    Args:
        weights: ``[n]``, at least 0: how much each counts for being covered.
        similarity: ``[n, n]``, symmetric, from 0 to 1.
        diversity: How much distances count, at least 0.
        k: How many at most.
    """
    n = len(weights)
    covered = np.zeros(n)
    bounds = similarity @ weights
    distances = np.zeros(n)
    fresh = np.ones(n, bool)
    open_ = np.ones(n, bool)
    chosen: list[int] = []
    while len(chosen) < min(k, n):
        values = np.where(open_, bounds / 2 + diversity * distances, -np.inf)
        best = int(np.argmax(values))
        if not fresh[best]:
            bounds[best] = gain(weights, similarity, covered, best)
            fresh[best] = True
            continue
        chosen.append(best)
        open_[best] = False
        covered = np.maximum(covered, similarity[best])
        distances += 1.0 - similarity[best]
        fresh[:] = False
    return chosen


def gain(weights: NDArray[np.float64], similarity: Matrix, covered: NDArray[np.float64], element: int) -> float:
    """What an element adds to the coverage."""
    return float(weights @ np.maximum(similarity[element] - covered, 0.0))
