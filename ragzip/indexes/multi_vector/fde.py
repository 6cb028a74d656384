"""Fixed dimensional encodings: one vector for many, whose inner products stand for MaxSim.

MUVERA (https://arxiv.org/abs/2405.19504), as its reference implementation defines it (google/graph-mining,
``fixed_dimensional_encoding``): random hyperplanes cut space into partitions; a query adds up its vectors in each, a
document takes their mean, and where it has none in a partition, the vector nearest to it by the signs at the
hyperplanes; a count sketch makes them narrower; all of this several times over; and another count sketch at the end.
One difference: hyperplanes and sketches of a repetition are drawn from one stream for all of them, not from seeds in a
row, with which repetition 1 of a seed is repetition 0 of the next.

An encoding is made from one cloud of vectors alone, in operations whose shapes hang on nothing else: the same bits for
any batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import ConfigError

Matrix = NDArray[np.float32]
_MOST_PLANES = 10  # cells of one repetition and cloud fit into 16 bits
_MOST_WIDTH = 1 << 20
_MOST_CELLS = 1 << 23  # cells times partitions that are compared at once
_BLOCK = 64  # clouds whose partitions are added up together
_NOWHERE = np.iinfo(np.int32).max  # no token
_NEVER = 255  # more signs than there are


@dataclass(frozen=True, slots=True)
class FDERecipe:
    """How encodings are made.

    Attributes:
        dimensions: Width of the vectors.
        repetitions: How often space is cut anew.
        planes: Hyperplanes a repetition: 2 to this power partitions.
        projection: Width of a vector in a partition, at most ``dimensions``; 0 leaves it as it is.
        width: Of the encoding, by a last count sketch; 0 leaves it as it is.
        seed: Of all draws.
    """

    dimensions: int
    repetitions: int = 20
    planes: int = 5
    projection: int = 16
    width: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("dimensions", 1, 1 << 16),
            ("repetitions", 1, 1 << 10),
            ("planes", 0, _MOST_PLANES),
            ("projection", 0, self.dimensions),
            ("width", 0, 1 << 20),
            ("seed", 0, (1 << 63) - 1),
        ):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise ConfigError(name, f"must be a whole number from {least} to {most}, not {value!r}")
        if self.repetitions * (1 << self.planes) * max(self.projection, 1) > _MOST_WIDTH:
            raise ConfigError("repetitions", f"of so many partitions are more than {_MOST_WIDTH:,} numbers")

    @property
    def raw_width(self) -> int:
        """Before the last count sketch."""
        return self.repetitions * (1 << self.planes) * (self.projection or self.dimensions)

    @property
    def final_width(self) -> int:
        """Of an encoding."""
        return self.width or self.raw_width


class FDE:
    """The encodings of one recipe.

    Args:
        recipe: How they are made.
        matrices: As ``matrices`` gave them, to make the same encodings on any machine; None draws them from the seed,
            whose meaning may change with numpy.
    """

    def __init__(self, recipe: FDERecipe, matrices: Mapping[str, NDArray[Any]] | None = None) -> None:
        self.recipe = recipe
        self.matrices = dict(matrices) if matrices is not None else _draw(recipe)
        """``planes`` [dimensions, repetitions * planes] float32; ``sketch`` [repetitions, dimensions] int32, the
        column of each dimension plus 1, negative where it counts negatively; ``final`` [raw_width], likewise."""
        planes = recipe.repetitions * recipe.planes
        shapes: dict[str, tuple[int, ...]] = {"planes": (recipe.dimensions, planes)}
        if recipe.projection:
            shapes["sketch"] = (recipe.repetitions, recipe.dimensions)
        if recipe.width:
            shapes["final"] = (recipe.raw_width,)
        if {name: matrix.shape for name, matrix in self.matrices.items()} != shapes:
            raise ValueError("the matrices are not those of the recipe")
        for name, columns in (("sketch", recipe.projection), ("final", recipe.width)):
            found = np.abs(self.matrices[name]) if columns else np.ones(1)
            if not 1 <= found.min() <= found.max() <= max(columns, 1):
                raise ValueError(f"{name} names columns that are not there")
        self._planes = np.ascontiguousarray(self.matrices["planes"], np.float32)
        if recipe.projection:
            self._sketches = _columns(self.matrices["sketch"], recipe.projection)
        self._powers = (1 << np.arange(recipe.planes)[::-1]).astype(np.int32)
        numbers = np.arange(1 << recipe.planes)
        # reading the signs as a Gray code, partitions next to each other differ in one of them
        signs = numbers ^ (numbers >> 1)
        self._partition = np.argsort(signs).astype(np.int32)  # signs -> partition
        self._differ = np.bitwise_count(signs[:, None] ^ signs[None, :]).astype(np.uint8)  # partition by partition

    def queries(self, clouds: Sequence[Matrix]) -> Matrix:
        """Encodings of queries.

        Args:
            clouds: ``[n, dimensions]`` each; n may be 0.

        Returns:
            ``[clouds, width]`` float32; of an empty cloud, 0.
        """
        return self._encode(clouds, self._sums)

    def documents(self, clouds: Sequence[Matrix]) -> Matrix:
        """Encodings of documents; arguments and result as of ``queries``."""
        return self._encode(clouds, self._means)

    def _encode(self, clouds: Sequence[Matrix], reduce: Any) -> Matrix:
        out = np.zeros((len(clouds), self.recipe.final_width), np.float32)
        together = max(min(_BLOCK, _MOST_CELLS // (self.recipe.repetitions << 2 * self.recipe.planes)), 1)
        for start in range(0, len(clouds), together):
            block = [np.ascontiguousarray(cloud, np.float32) for cloud in clouds[start : start + together]]
            for cloud in block:
                if cloud.ndim != 2 or cloud.shape[1] != self.recipe.dimensions:
                    raise ValueError(f"a cloud is {cloud.shape}, not [n, {self.recipe.dimensions}]")
            lengths = np.array([len(cloud) for cloud in block])
            if lengths.any():
                out[start : start + len(block)] = self._narrow(reduce(block, lengths))
        return out

    def _parts(self, block: Sequence[Matrix], lengths: NDArray[np.int64]) -> _Parts:
        """What a block of clouds has in each partition."""
        recipe = self.recipe
        size, most = recipe.repetitions, 1 << recipe.planes
        total = int(lengths.sum())
        products = np.empty((total, size * recipe.planes), np.float32)
        vectors = np.empty((total, size * recipe.projection), np.float32)
        start = 0
        for cloud in block:  # alone, so that nobody else decides how its products are added up
            end = start + len(cloud)
            np.matmul(cloud, self._planes, out=products[start:end])
            if recipe.projection:
                np.matmul(cloud, self._sketches, out=vectors[start:end])
            start = end
        if not recipe.projection:
            vectors = np.concatenate(block)
        signs = (products > 0).reshape(total, size, recipe.planes) @ self._powers
        # small numbers are sorted by radix
        cells = (self._partition[signs] + np.arange(size) * most).astype(np.min_scalar_type(size * most))
        # the tokens of each partition, in their order
        order, counts, start = np.empty(total * size, np.int64), [], 0
        for cloud in block:
            end = start + len(cloud)
            mine = cells[start:end].ravel()
            order[start * size : end * size] = np.argsort(mine, kind="stable") + start * size
            counts.append(np.bincount(mine, minlength=size * most))
            start = end
        found = np.concatenate(counts)
        return _Parts(vectors, order, np.cumsum(found) - found, found)

    def _sums(self, block: Sequence[Matrix], lengths: NDArray[np.int64]) -> Matrix:
        return self._added(self._parts(block, lengths)).reshape(len(block), -1)

    def _means(self, block: Sequence[Matrix], lengths: NDArray[np.int64]) -> Matrix:
        recipe = self.recipe
        size, most = recipe.repetitions, 1 << recipe.planes
        parts = self._parts(block, lengths)
        sums = self._added(parts)
        sums /= np.maximum(parts.counts, 1).astype(np.float32)[:, None]
        # of each empty partition the first token among those whose signs differ least from its own
        empty = parts.counts == 0
        firsts = np.full(len(parts.counts), _NOWHERE, np.int32)
        firsts[~empty] = parts.order[parts.starts[~empty]] // size
        cells = np.flatnonzero(empty & np.repeat(lengths > 0, size * most))
        where = firsts.reshape(-1, most)[cells // most]
        away = np.where(where == _NOWHERE, _NEVER, self._differ[cells % most])
        least = away.min(1, keepdims=True)
        tokens = np.where(away == least, where, _NOWHERE).min(1).astype(np.int64)
        per_token = size if recipe.projection else 1
        repetition = cells // most % size if recipe.projection else 0
        sums[cells] = parts.vectors.reshape(len(parts.vectors) * per_token, -1)[tokens * per_token + repetition]
        return sums.reshape(len(block), -1)

    def _added(self, parts: _Parts) -> Matrix:
        """Sums over each partition, in the order of tokens: ``[cells, projection]``."""
        from scipy.sparse import csr_array

        recipe = self.recipe
        per_token = recipe.repetitions if recipe.projection else 1
        columns = parts.order if recipe.projection else parts.order // recipe.repetitions
        rows = parts.vectors.reshape(len(parts.vectors) * per_token, -1)
        pointers = np.append(parts.starts, len(columns))
        ones = np.ones(len(columns), np.float32)
        found: Matrix = csr_array((ones, columns, pointers), shape=(len(parts.counts), len(rows))) @ rows
        return found

    def _narrow(self, encodings: Matrix) -> Matrix:
        if not self.recipe.width:
            return encodings
        from scipy.sparse import csr_array

        final = self.matrices["final"]
        columns = np.abs(final) - 1
        order = np.argsort(columns, kind="stable")
        pointers = np.concatenate([[0], np.cumsum(np.bincount(columns, minlength=self.recipe.width))])
        sketch = csr_array(
            (np.sign(final[order]).astype(np.float32), order, pointers), shape=(self.recipe.width, len(final))
        )
        return np.stack([sketch @ row for row in encodings])


@dataclass(frozen=True, slots=True)
class _Parts:
    """What clouds have in partitions. A cell is a partition of a repetition of a cloud.

    Attributes:
        vectors: ``[tokens, repetitions * projection]``, or the tokens' own.
        order: Numbers of tokens times repetitions, plus the repetition, by cell, and in one cell by token.
        starts: ``[cells]``: where each begins in ``order``.
        counts: ``[cells]``.
    """

    vectors: Matrix
    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]


def _columns(sketches: NDArray[np.int32], width: int) -> Matrix:
    """Count sketches side by side: ``[repetitions, dimensions]`` -> ``[dimensions, repetitions * width]``."""
    repetitions, dimensions = sketches.shape
    found = np.zeros((dimensions, repetitions, width), np.float32)
    number, dimension = np.indices(sketches.shape)
    found[dimension, number, np.abs(sketches) - 1] = np.sign(sketches)
    return found.reshape(dimensions, -1)


def _draw(recipe: FDERecipe) -> dict[str, NDArray[Any]]:
    draw = np.random.Generator(np.random.PCG64(recipe.seed))
    count = recipe.repetitions * recipe.planes
    found: dict[str, NDArray[Any]] = {"planes": draw.standard_normal((recipe.dimensions, count), np.float32)}
    if recipe.projection:
        found["sketch"] = _sketch(draw, (recipe.repetitions, recipe.dimensions), recipe.projection)
    if recipe.width:
        found["final"] = _sketch(draw, (recipe.raw_width,), recipe.width)
    return found


def _sketch(draw: np.random.Generator, shape: tuple[int, ...], columns: int) -> NDArray[np.int32]:
    """A column, from 1, for everything in a shape, and a sign."""
    signs = draw.integers(0, 2, shape) * 2 - 1
    return ((draw.integers(0, columns, shape) + 1) * signs).astype(np.int32)
