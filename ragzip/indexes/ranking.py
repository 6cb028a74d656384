"""The order of results: score first, then row, so that the same search always gives the same list."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Hits(NamedTuple):
    """Results of one query, best first.

    Attributes:
        rows: ``[n]`` int64, for ``Index.passages``.
        scores: ``[n]`` float32, greater is better.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


NO_HITS = Hits(np.empty(0, np.int64), np.empty(0, np.float32))


def top(rows: NDArray[np.int64], scores: NDArray[np.float32], k: int) -> Hits:
    """The best ``k``; among equal scores the smaller row wins, at the cut as within the list.

    Args:
        rows: ``[n]``, in any order.
        scores: ``[n]``, finite.
        k: How many at most.
    """
    if len(scores) > k:
        # Everything from the k-th best score on, so that ties at the cut are decided by row below.
        cut = np.partition(scores, len(scores) - k)[len(scores) - k]
        keep = np.flatnonzero(scores >= cut)
        rows, scores = rows[keep], scores[keep]
    order = np.lexsort((rows, -scores))[:k]
    return Hits(rows[order], scores[order])


def only(hits: Hits, rows: NDArray[np.int64], k: int) -> Hits:
    """The best ``k`` of those that are among ``rows``, ascending."""
    kept = among(hits.rows, rows)
    return Hits(hits.rows[kept][:k], hits.scores[kept][:k])


def among(some: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of a few rows, in any order, are among many, ascending."""
    if not len(rows):
        return np.zeros(len(some), bool)
    found: NDArray[np.bool_] = rows[np.minimum(np.searchsorted(rows, some), len(rows) - 1)] == some
    return found
