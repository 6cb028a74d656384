"""k-means over the pieces of vectors, for product quantisation: the same vectors give the same centroids."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
CENTROIDS = 256
_ROUNDS = 12
_BLOCK = 4096


def centroids_of(vectors: Matrix, pieces: int) -> Matrix:
    """What each piece of a vector is rounded to.

    Args:
        vectors: ``[n, width]``, at least 256.
        pieces: How many pieces of equal width.

    Returns:
        ``[pieces, 256, width / pieces]``.
    """
    parts = _parts(vectors, pieces)
    start = np.linspace(0, len(vectors) - 1, num=CENTROIDS).astype(np.int64)
    found = np.ascontiguousarray(parts[:, start])
    for piece, centroids in zip(parts, found, strict=True):
        for _ in range(_ROUNDS):
            codes, errors = _nearest(piece, centroids)
            counts = np.bincount(codes, minlength=CENTROIDS)
            for column in range(piece.shape[1]):
                sums = np.bincount(codes, weights=piece[:, column], minlength=CENTROIDS)
                centroids[:, column] = np.where(counts > 0, sums / np.maximum(counts, 1), centroids[:, column])
            # One that nothing is near to goes where the error is greatest.
            free = np.flatnonzero(counts == 0)
            centroids[free] = piece[np.argsort(-errors, kind="stable")[: len(free)]]
    return found


def assign(vectors: Matrix, centroids: Matrix) -> NDArray[np.uint8]:
    """The nearest centroid of each piece: ``[n, width]`` and ``[pieces, 256, width / pieces]`` to ``[n, pieces]``."""
    out = np.empty((len(vectors), len(centroids)), np.uint8)
    for start in range(0, len(vectors), _BLOCK):
        parts = _parts(vectors[start : start + _BLOCK], len(centroids))
        for number, (piece, near) in enumerate(zip(parts, centroids, strict=True)):
            out[start : start + _BLOCK, number] = _nearest(piece, near)[0]
    return out


def _parts(vectors: Matrix, pieces: int) -> Matrix:
    """``[pieces, n, width / pieces]``."""
    return np.ascontiguousarray(vectors.reshape(len(vectors), pieces, -1).transpose(1, 0, 2))


def _nearest(piece: Matrix, centroids: Matrix) -> tuple[NDArray[np.int64], Matrix]:
    """The nearest centroid of each row, and the square of how far it is."""
    distances = piece @ (-2 * centroids.T)
    distances += np.einsum("ij,ij->i", centroids, centroids)
    codes = distances.argmin(axis=1)
    return codes, distances[np.arange(len(piece)), codes] + np.einsum("ij,ij->i", piece, piece)
