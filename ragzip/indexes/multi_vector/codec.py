"""Token vectors in a few bytes: the number of the nearest centroid, and a few bits for each dimension of what is left.

PLAID and ColBERTv2 (https://arxiv.org/abs/2205.09707, https://arxiv.org/abs/2112.01488): residuals are cut into
buckets, each of which stands for its mean. Without residual bits and with at most 256 centroids a token is one
byte (HPC-ColPali, https://arxiv.org/abs/2506.21601).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
BITS = (0, 1, 2, 4, 8)
MOST_CENTROIDS = 65_536
_PER_CENTROID = 8  # fewer vectors than this for each teach a centroid nothing but themselves
_AUTO, _MOST_AUTO = 4096, 16_384
_STANDS_FOR = 128  # vectors for each centroid above the first of these
_APART, _LEAST_APART = 8, 512  # an eighth of the vectors is for buckets, where that is enough of them
_ROUNDS = 4
_LLOYD = 30
_BLOCK = 8192


@dataclass(frozen=True, eq=False)
class Codec:
    """A trained codec.

    Attributes:
        centroids: ``[n, dimensions]`` float32.
        cuts: ``[2**bits - 1]``: where buckets of residuals end; empty for 0 bits.
        means: ``[2**bits]``: what they stand for.
        bits: For each dimension of a residual: 0, 1, 2, 4 or 8.
        rotation: ``[dimensions, dimensions]``, orthogonal: residuals are turned by it before they are cut, after which
            all dimensions are alike; None leaves them as they are.
    """

    centroids: Matrix
    cuts: Matrix
    means: Matrix
    bits: int
    rotation: Matrix | None = None

    @property
    def dimensions(self) -> int:
        """Width of a vector."""
        return int(self.centroids.shape[1])

    @property
    def code_type(self) -> Any:
        """Of the numbers of centroids."""
        return np.uint8 if len(self.centroids) <= 256 else np.uint16

    @property
    def residual_bytes(self) -> int:
        """Of one vector."""
        return -(-self.dimensions * self.bits // 8)

    @property
    def directions(self) -> Matrix:
        """The centroids, made 1 long: what tokens are taken for where residuals are not looked at."""
        found: Matrix = self.centroids / np.maximum(np.linalg.norm(self.centroids, axis=1, keepdims=True), 1e-12)
        return found

    def encode(self, vectors: Matrix) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Codes of vectors.

        Args:
            vectors: ``[n, dimensions]``.

        Returns:
            Numbers of centroids ``[n]``, and packed residuals ``[n, residual_bytes]``.
        """
        codes = np.empty(len(vectors), self.code_type)
        packed = np.empty((len(vectors), self.residual_bytes), np.uint8)
        for start in range(0, len(vectors), _BLOCK):
            block = vectors[start : start + _BLOCK]
            here = slice(start, start + len(block))
            nearest = self._nearest(block)
            codes[here] = nearest
            if self.bits:
                packed[here] = self._pack(np.searchsorted(self.cuts, self._turned(block - self.centroids[nearest])))
        return codes, packed

    def decode(self, codes: NDArray[Any], packed: NDArray[np.uint8]) -> Matrix:
        """Vectors from codes, made 1 long: ``[n, dimensions]``."""
        found: Matrix = self.centroids[codes]
        if self.bits:
            residuals = self._table[packed].reshape(len(codes), -1)[:, : self.dimensions]
            found += residuals if self.rotation is None else residuals @ self.rotation.T
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return found

    def _turned(self, residuals: Matrix) -> Matrix:
        return residuals if self.rotation is None else residuals @ self.rotation

    def _nearest(self, vectors: Matrix) -> NDArray[np.int64]:
        # the nearest by distance, not by angle: half the square of the centroid's length is taken off
        scores = vectors @ self.centroids.T
        scores -= 0.5 * np.einsum("ij,ij->i", self.centroids, self.centroids)
        found: NDArray[np.int64] = scores.argmax(1)
        return found

    def _pack(self, buckets: NDArray[np.int64]) -> NDArray[np.uint8]:
        per_byte = 8 // self.bits
        width = self.residual_bytes * per_byte
        padded = np.zeros((len(buckets), width), np.uint8)
        padded[:, : self.dimensions] = buckets
        shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(self.bits)
        shaped = padded.reshape(len(buckets), self.residual_bytes, per_byte) << shifts
        found: NDArray[np.uint8] = np.bitwise_or.reduce(shaped, axis=2)
        return found

    @property
    def _table(self) -> Matrix:
        """What each byte stands for: ``[256, dimensions of a byte]``."""
        per_byte = 8 // self.bits
        shifts = np.arange(per_byte) * self.bits
        buckets = (np.arange(256)[:, None] >> shifts) & ((1 << self.bits) - 1)
        found: Matrix = self.means[buckets]
        return found


def centroids_for(vectors: int) -> int:
    """How many centroids so many vectors get, a power of two.

    As PLAID, below 16 times the root of their number; but more than 4,096 only where each stands for 128 vectors, so
    that centroids weigh little beside codes, and 16,384 at most, since every vector is compared with all of them.
    """
    most = min(max(_AUTO, vectors / _STANDS_FOR), _MOST_AUTO)
    return 1 << int(np.log2(max(min(16 * np.sqrt(vectors), most), 1)))


def train_codec(vectors: Matrix, *, bits: int, centroids: int = 0, expected: int = 0, seed: int = 0) -> Codec:
    """Learns centroids by k-means, and buckets from residuals: of vectors that k-means did not see, if there are many.

    Residuals are turned at random, which makes each of their numbers a sum of many, and so alike and nearly Gaussian
    (TurboQuant, https://arxiv.org/abs/2504.19874): one set of buckets then loses less.

    Args:
        vectors: ``[n, dimensions]``, a sample, at least one.
        bits: For each dimension of a residual.
        centroids: How many at most; 0 for those of ``centroids_for``.
        expected: How many vectors there will be; 0 for as many as there are.
        seed: Of k-means, the rotation, and which vectors are for buckets.
    """
    import faiss

    draw = np.random.default_rng(seed)
    order = draw.permutation(len(vectors))
    apart = len(vectors) // _APART if len(vectors) >= _APART * _LEAST_APART else 0
    seen = vectors[np.sort(order[apart:])] if apart else vectors
    wanted = centroids or centroids_for(max(expected, len(vectors)))
    count = max(min(wanted, len(seen) // _PER_CENTROID), 1)
    means = faiss.Kmeans(
        vectors.shape[1], count, niter=_ROUNDS, seed=seed, min_points_per_centroid=1, max_points_per_centroid=256
    )
    means.train(np.ascontiguousarray(seen, np.float32))
    found = np.asarray(means.centroids, np.float32).reshape(count, -1)
    empty = np.zeros(0, np.float32)
    plain = Codec(found, empty, np.zeros(1, np.float32), 0)
    if not bits:
        return plain
    sample = vectors[np.sort(order[: min(apart or len(vectors), _BLOCK * 4)])]
    turn: Matrix = np.linalg.qr(draw.standard_normal((vectors.shape[1],) * 2))[0].astype(np.float32)
    residuals = np.asarray((sample - found[plain.encode(sample)[0]]) @ turn, np.float32)
    cuts, values = _buckets(np.sort(residuals, axis=None), 1 << bits)
    return Codec(found, cuts, values, bits, turn)


def _buckets(values: NDArray[np.float32], count: int) -> tuple[Matrix, Matrix]:
    """Where buckets end and what they stand for, so that the squares of what is lost add up to least.

    Lloyd's iteration, begun at the quantiles, which are where PLAID leaves them; tails count for more this way.

    Args:
        values: Sorted, at least one.
        count: Of buckets.
    """
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    edges = np.linspace(0, len(values), count + 1).astype(np.int64)
    means = np.quantile(values, (np.arange(count) + 0.5) / count)
    for _ in range(_LLOYD):
        sizes = np.diff(edges)
        means = np.where(sizes, np.diff(sums[edges]) / np.maximum(sizes, 1), means)
        middles = (means[1:] + means[:-1]) / 2
        edges = np.concatenate([[0], np.searchsorted(values, middles, side="right"), [len(values)]])
    return ((means[1:] + means[:-1]) / 2).astype(np.float32), means.astype(np.float32)


def heaviest(weights: NDArray[np.float32], share: float) -> NDArray[np.int64]:
    """The tokens that matter most, in their order: at least one of any.

    Args:
        weights: ``[n]``, of one document.
        share: How many to keep, above 0 and up to 1.
    """
    if share >= 1 or len(weights) == 0:
        return np.arange(len(weights))
    most = max(round(share * len(weights)), 1)
    return np.sort(np.argsort(-weights, kind="stable")[:most])
