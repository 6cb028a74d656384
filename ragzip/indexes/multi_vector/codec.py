"""Token vectors in a few bytes: the number of the nearest centroid, and a few bits for each dimension of what is left.

PLAID and ColBERTv2 (https://arxiv.org/abs/2205.09707, https://arxiv.org/abs/2112.01488): residuals are cut into
buckets, each of which stands for its mean. Without residual bits and with at most 256 centroids a token is one
byte (HPC-ColPali, https://arxiv.org/abs/2506.21601). The bits of residuals lie in planes of two, the leading ones
first: these alone say nearly which passages are best, as the first bits of extended RaBitQ do
(https://arxiv.org/abs/2409.09913).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
BITS = (0, 1, 2, 4, 6, 8)
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
        bits: For each dimension of a residual: 0, 1, 2, 4, 6 or 8.
        rotation: ``[dimensions, dimensions]``, orthogonal: residuals are turned by it before they are cut, after which
            all dimensions are alike; None leaves them as they are.
        leading: ``[4]``, ``[2]`` for one bit: what the buckets of the first plane stand for; None where the bits of a
            dimension lie together, as in older indexes.
    """

    centroids: Matrix
    cuts: Matrix
    means: Matrix
    bits: int
    rotation: Matrix | None = None
    leading: Matrix | None = None

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
        if self.leading is None:
            return -(-self.dimensions * self.bits // 8)
        return self._planes * self._plane_bytes

    @property
    def leads_to_all(self) -> bool:
        """Whether the leading bits are all that there are, or lie together with the others."""
        return self.leading is None or self.bits <= 2

    @property
    def _planes(self) -> int:
        return -(-self.bits // 2)

    @property
    def _plane_bytes(self) -> int:
        return -(-self.dimensions * min(self.bits, 2) // 8)

    @cached_property
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
                packed[here] = self._pack(np.searchsorted(self.cuts, self.turn(block - self.centroids[nearest])))
        return codes, packed

    def decode(self, codes: NDArray[Any], packed: NDArray[np.uint8]) -> Matrix:
        """Vectors from codes, made 1 long: ``[n, dimensions]``."""
        found = self.turned(codes, packed)
        return found if self.rotation is None else found @ self.rotation.T

    def turned(self, codes: NDArray[Any], packed: NDArray[np.uint8], *, leading: bool = False) -> Matrix:
        """The same, turned by the rotation, which leaves products with what ``turn`` gives as they are.

        Args:
            codes: ``[n]``.
            packed: ``[n, residual_bytes]``.
            leading: By the leading plane of residuals alone, where they lie in planes.
        """
        found: Matrix = self._centroids.take(codes, 0)
        if self.bits:
            found += self._values(packed, 1 if leading else self._planes)
        found /= np.maximum(np.sqrt(np.einsum("ij,ij->i", found, found)), 1e-12)[:, None]
        return found

    def turn(self, vectors: Matrix) -> Matrix:
        """Vectors ``[n, dimensions]``, turned by the rotation."""
        return vectors if self.rotation is None else vectors @ self.rotation

    @cached_property
    def _centroids(self) -> Matrix:
        return np.ascontiguousarray(self.turn(self.centroids))

    def _values(self, packed: NDArray[np.uint8], planes: int) -> Matrix:
        """What residuals stand for, from so many of their planes: one or all."""
        if self.leads_to_all:
            return self._looked_up(self._table, packed)
        if planes == 1:
            return self._looked_up(self._leading_table, packed[:, : self._plane_bytes])
        buckets = np.zeros((len(packed), self._plane_bytes), np.uint32)  # four in each
        for plane in range(planes):
            buckets <<= np.uint32(2)
            buckets |= self._spread[packed[:, plane * self._plane_bytes : (plane + 1) * self._plane_bytes]]
        found: Matrix = self.means.take(buckets.view(np.uint8)[:, : self.dimensions])
        return found

    def _nearest(self, vectors: Matrix) -> NDArray[np.int64]:
        # the nearest by distance, not by angle: half the square of the centroid's length is taken off
        scores = vectors @ self.centroids.T
        scores -= 0.5 * np.einsum("ij,ij->i", self.centroids, self.centroids)
        found: NDArray[np.int64] = scores.argmax(1)
        return found

    def _looked_up(self, table: Matrix, packed: NDArray[np.uint8]) -> Matrix:
        found: Matrix = table.take(packed, 0).reshape(len(packed), packed.shape[1] * table.shape[1])
        return found[:, : self.dimensions]

    def _pack(self, buckets: NDArray[np.int64]) -> NDArray[np.uint8]:
        if self.leads_to_all:
            return _packed(buckets, self.bits)
        shifts = range(self.bits - 2, -1, -2)
        return np.concatenate([_packed((buckets >> shift) & 3, 2) for shift in shifts], axis=1)

    @cached_property
    def _table(self) -> Matrix:
        """What each byte stands for where all bits of a dimension are in one: ``[256, dimensions of a byte]``."""
        found: Matrix = self.means[_unpacked(self.bits)]
        return found

    @cached_property
    def _leading_table(self) -> Matrix:
        found: Matrix = np.asarray(self.leading)[_unpacked(2)]
        return found

    @cached_property
    def _spread(self) -> NDArray[np.uint32]:
        """``[256]``: the four numbers of two bits in each byte, a byte each."""
        found: NDArray[np.uint32] = np.ascontiguousarray(_unpacked(2), np.uint8).view(np.uint32)[:, 0]
        return found


def _packed(numbers: NDArray[np.int64], bits: int) -> NDArray[np.uint8]:
    """Numbers of so many bits ``[n, m]``, as many to a byte as fit, the first lowest."""
    per_byte = 8 // bits
    width = -(-numbers.shape[1] // per_byte)
    padded = np.zeros((len(numbers), width * per_byte), np.uint8)
    padded[:, : numbers.shape[1]] = numbers
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(bits)
    found: NDArray[np.uint8] = np.bitwise_or.reduce(padded.reshape(len(numbers), width, per_byte) << shifts, axis=2)
    return found


def _unpacked(bits: int) -> NDArray[np.int64]:
    """The numbers of so many bits in each byte, ``[256, 8 // bits]``."""
    found: NDArray[np.int64] = (np.arange(256)[:, None] >> np.arange(8 // bits) * bits) & ((1 << bits) - 1)
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
    plain = Codec(found, empty, np.zeros(1, np.float32), 0, None, empty)
    if not bits:
        return plain
    sample = vectors[np.sort(order[: min(apart or len(vectors), _BLOCK * 4)])]
    turn: Matrix = np.linalg.qr(draw.standard_normal((vectors.shape[1],) * 2))[0].astype(np.float32)
    residuals = np.asarray((sample - found[plain.encode(sample)[0]]) @ turn, np.float32)
    ordered = np.sort(residuals, axis=None)
    cuts, values = _buckets(ordered, 1 << bits)
    each = 1 << (bits - 2) if bits > 2 else 1  # buckets that begin with the same two bits
    leading = values if each == 1 else _stand_for(ordered, cuts[each - 1 :: each])
    return Codec(found, cuts, values, bits, turn, leading)


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


def _stand_for(values: NDArray[np.float32], cuts: Matrix) -> Matrix:
    """Means of sorted values between cuts; of what is empty, the cut beside it."""
    edges = np.concatenate([[0], np.searchsorted(values, cuts), [len(values)]])
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    sizes = np.diff(edges)
    beside = np.concatenate([cuts, cuts[-1:]])
    return np.where(sizes, np.diff(sums[edges]) / np.maximum(sizes, 1), beside).astype(np.float32)


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
