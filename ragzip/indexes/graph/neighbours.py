"""The nearest passages of each passage, in time that grows little faster than their number.

Vectors are put into cells of some 500 around centroids (k-means); a passage is compared with those in the cells
nearest to it. Below a few thousand passages there is one cell, and the neighbours are exact. Passages that come later
are put into the cells that are there; the cells are made anew when there are twice as many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragzip.indexes.vectors import Vectors

CELL = 512
PROBES = 8
_EXACT_BELOW = CELL * PROBES
_BLOCK = 8192
_TRAIN = 64  # vectors a cell
_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Cells:
    """Where the vectors are.

    Attributes:
        centroids: ``[cells, dimensions]``.
        of: ``[rows]`` int32, the cell of each row; -1 for rows that were dead.
        trained: How many rows there were when the centroids were made.
    """

    centroids: NDArray[np.float32]
    of: NDArray[np.int32]
    trained: int


def placed(vectors: Vectors, alive: NDArray[np.int64], before: Cells | None) -> Cells:
    """The cells of all rows.

    Args:
        vectors: Of all rows.
        alive: Rows, ascending.
        before: Those of the rows so far, if there are any.
    """
    count = len(vectors)
    if before is None or count > 2 * before.trained:
        before = Cells(_centroids(vectors, alive), np.empty(0, np.int32), count)
    centroids, known = before.centroids, before.of
    of = np.full(count, -1, np.int32)
    of[: len(known)] = known
    new = alive[np.searchsorted(alive, len(known)) :]
    for start in range(0, len(new), _BLOCK):
        part = new[start : start + _BLOCK]
        of[part] = np.argmax(vectors.take(part) @ centroids.T, axis=1) if len(centroids) > 1 else 0
    return Cells(centroids, of, before.trained)


def _centroids(vectors: Vectors, alive: NDArray[np.int64]) -> NDArray[np.float32]:
    count = len(alive) // CELL if len(alive) > _EXACT_BELOW else 1
    if count == 1:
        return np.zeros((1, vectors.dimensions), np.float32)
    import faiss

    sample = alive[np.linspace(0, len(alive) - 1, num=min(len(alive), count * _TRAIN)).astype(np.int64)]
    means = faiss.Kmeans(vectors.dimensions, count, niter=_ROUNDS, seed=0, spherical=True, max_points_per_centroid=256)
    means.train(vectors.take(sample))
    return np.asarray(means.centroids, np.float32)


def nearest(
    vectors: Vectors, alive: NDArray[np.int64], cells: Cells, rows: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The nearest other rows by inner product, best first.

    Args:
        vectors: Of all rows.
        alive: Rows to look among, ascending.
        cells: Of all rows.
        rows: Whose neighbours are wanted, ascending.
        k: How many.

    Returns:
        Rows ``[n, k]``, -1 where there are fewer, and their inner products ``[n, k]``.
    """
    found = np.full((len(rows), k), -1, np.int64)
    scores = np.full((len(rows), k), -np.inf, np.float32)
    mine = vectors.take(rows)
    probes = min(PROBES, len(cells.centroids))
    asked = np.argpartition(-(mine @ cells.centroids.T), probes - 1, axis=1)[:, :probes]
    order = np.argsort(cells.of[alive], kind="stable")
    members = alive[order]
    bounds = np.searchsorted(cells.of[members], np.arange(len(cells.centroids) + 1))
    askers = np.argsort(asked, axis=None, kind="stable")
    edges = np.searchsorted(asked.ravel()[askers], np.arange(len(cells.centroids) + 1))
    for cell in range(len(cells.centroids)):
        inside = members[bounds[cell] : bounds[cell + 1]]
        who = askers[edges[cell] : edges[cell + 1]] // probes
        if len(inside) == 0 or len(who) == 0:
            continue
        theirs = vectors.take(inside)
        for start in range(0, len(who), CELL):
            part = who[start : start + CELL]
            products = mine[part] @ theirs.T
            products[inside[None, :] == rows[part][:, None]] = -np.inf
            _keep(found, scores, part, inside, products)
    return found, scores


def _keep(
    found: NDArray[np.int64],
    scores: NDArray[np.float32],
    part: NDArray[np.int64],
    inside: NDArray[np.int64],
    products: NDArray[np.float32],
) -> None:
    """Puts the best of what a cell gave beside the best so far; among equal ones the smaller row comes first."""
    k = found.shape[1]
    if products.shape[1] > 2 * k:
        # Ties at this cut are decided by the order of the cell: a kth neighbour is as good as its equal.
        best = np.argpartition(-products, k, axis=1)[:, :k]
        values, names = np.take_along_axis(products, best, axis=1), inside[best]
    else:
        values, names = products, np.broadcast_to(inside, products.shape)
    values = np.concatenate([scores[part], values], axis=1)
    names = np.concatenate([found[part], names], axis=1)
    order = np.lexsort((names, -values), axis=1)[:, :k]
    values, names = np.take_along_axis(values, order, axis=1), np.take_along_axis(names, order, axis=1)
    scores[part], found[part] = values, np.where(np.isfinite(values), names, -1)
