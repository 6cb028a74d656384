"""Centroids, rotation and prices from vectors alone: where training begins.

The rotation is that of optimised product quantisation (Ge et al., TPAMI 2014): assignment and the rotation that fits
it best take turns. Balanced codes are those of RepCONC (arXiv 2110.05789): each centroid is to be assigned about as
many vectors as any other, by optimal transport (Sinkhorn). Its potentials are kept as prices of the centroids, so that
vectors that come later, one by one, are assigned by the same rule.
"""

from __future__ import annotations

import numpy as np

from ragzip.indexes.jpq.quantizer import CENTROIDS, Codes, Matrix, cheapest, cut, distances
from ragzip.indexes.kmeans import centroids_of

_TURNS = 10
_BALANCED = 5
_SINKHORN = 15
_MOST = 8192  # vectors that prices are found with
_FARTHEST = -60.0  # exponents of float32
_SOFT = 0.1  # of the mean square of the distance to the nearest centroid


def learn(vectors: Matrix, pieces: int, *, rotate: bool, balanced: bool) -> tuple[Matrix, Matrix, Matrix]:
    """Rotation, centroids and prices for vectors like these; the same vectors give the same.

    Args:
        vectors: ``[n, d]``, at least 256.
        pieces: A divisor of ``d``.
        rotate: Whether to look for a rotation; else, and where none loses less, it is the identity.
        balanced: Whether codes are to be about equally frequent; else all prices are 0.
    """
    rotation = np.eye(vectors.shape[1], dtype=np.float32)
    prices = np.zeros((pieces, CENTROIDS), np.float32)
    if rotate:
        rows = np.linspace(0, len(vectors) - 1, num=CENTROIDS).astype(np.int64)
        centroids = np.ascontiguousarray(cut(vectors, pieces)[:, rows])
        for _ in range(_TURNS):
            turned = vectors @ rotation
            codes = cheapest(turned, centroids, prices)
            centroids = means(turned, codes, centroids)
            rotation = _turn(vectors, decoded(codes, centroids))
    turned = vectors @ rotation
    centroids = centroids_of(turned, pieces)
    if rotate:  # taking turns ends somewhere, and not always at a better place than it could have begun at
        still = centroids_of(vectors, pieces)
        if _lost(vectors, still) <= _lost(turned, centroids):
            rotation, turned, centroids = np.eye(vectors.shape[1], dtype=np.float32), vectors, still
    if balanced:
        for _ in range(_BALANCED):
            prices = balance(turned, centroids, prices)
            centroids = means(turned, cheapest(turned, centroids, prices), centroids)
        prices = balance(turned, centroids, prices)
    return rotation, centroids, prices


def balance(turned: Matrix, centroids: Matrix, start: Matrix | None = None) -> Matrix:
    """Prices at which rotated vectors ``[n, d]`` choose all centroids about equally often, ``[pieces, 256]``.

    Sinkhorn's plan between vectors and centroids with uniform sides is ``u K v`` with ``K = exp(-distance / soft)``;
    its greatest entry in a row is at the least ``distance - soft log v``.

    Args:
        turned: Evenly so many of them as are enough are looked at.
        centroids: ``[pieces, 256, w]``.
        start: Prices to begin with.
    """
    some = np.unique(np.linspace(0, len(turned) - 1, num=min(len(turned), _MOST)).astype(np.int64))
    out = np.empty((len(centroids), CENTROIDS), np.float32)
    for number, piece in enumerate(cut(turned[some], len(centroids))):
        costs = distances(piece, centroids[number])
        least = costs.min(axis=1)
        soft = max(_SOFT * float((least + np.einsum("ij,ij->i", piece, piece)).mean()), 1e-12)
        kernel = np.exp(np.maximum((least[:, None] - costs) / soft, _FARTHEST))
        right = np.ones(CENTROIDS, np.float32) if start is None else np.exp(-start[number] / soft)
        for _ in range(_SINKHORN):
            # Not by BLAS, whose threads wait for each other when the processor is busy.
            left = 1 / np.einsum("nk,k->n", kernel, right)
            right = len(piece) / CENTROIDS / np.einsum("nk,n->k", kernel, left)
        found = -soft * np.log(right)
        out[number] = found - found.mean()
    return out


def means(turned: Matrix, codes: Codes, centroids: Matrix) -> Matrix:
    """The mean of the pieces with each code, ``[pieces, 256, w]``; a code that none has keeps its centroid."""
    out = centroids.copy()
    for number, piece in enumerate(cut(turned, len(centroids))):
        counts = np.bincount(codes[:, number], minlength=CENTROIDS)
        used = counts > 0
        for column in range(piece.shape[1]):
            sums = np.bincount(codes[:, number], weights=piece[:, column], minlength=CENTROIDS)
            out[number, used, column] = sums[used] / counts[used]
    return out


def decoded(codes: Codes, centroids: Matrix) -> Matrix:
    """What codes ``[n, pieces]`` stand for, ``[n, d]``."""
    found: Matrix = centroids[np.arange(len(centroids)), codes].reshape(len(codes), -1)
    return found


def entropy(codes: Codes) -> Matrix:
    """Of the codes of each piece, in bits, ``[pieces]``: 8 where all are equally frequent."""
    shares = np.stack([np.bincount(column, minlength=CENTROIDS) for column in codes.T]) / len(codes)
    found: Matrix = -(shares * np.log2(np.maximum(shares, 1e-30))).sum(axis=1)
    return found


def _lost(turned: Matrix, centroids: Matrix) -> float:
    """The mean square of what codes leave out."""
    prices = np.zeros(centroids.shape[:2], np.float32)
    return float(((turned - decoded(cheapest(turned, centroids, prices), centroids)) ** 2).sum(1).mean())


def _turn(vectors: Matrix, wanted: Matrix) -> Matrix:
    """The rotation that brings vectors nearest to others (Procrustes), ``[d, d]``."""
    left, _, right = np.linalg.svd(vectors.T.astype(np.float64) @ wanted)
    return np.ascontiguousarray(left @ right, np.float32)
