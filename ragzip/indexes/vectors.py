"""Vector shards: ``.npy`` files of float32 that are written once and read through the page cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import StoreDamaged
from ragzip.indexes.files import guarded, new_file, rebuild_hint
from ragzip.indexes.manifest import Shard
from ragzip.indexes.ranking import Hits, top

Matrix = NDArray[np.float32]
BLOCK = 16384
SHARD_ROWS = 131072


def write_shard(root: Path, name: str, dimensions: int, rows: int, blocks: Iterable[Matrix]) -> Shard:
    """Writes blocks of vectors, as they come, into one shard.

    Args:
        root: The index folder.
        name: The shard's name below it.
        dimensions: Width of the vectors.
        rows: How many vectors the blocks hold together.
        blocks: ``[n, dimensions]`` each.

    Raises:
        StoreError: The disk does not take it; errors of ``blocks`` itself pass as they are.
    """
    source = iter(blocks)
    try:
        with guarded(root), new_file(root / name) as out:
            header = {"descr": "<f4", "fortran_order": False, "shape": (rows, dimensions)}
            np.lib.format.write_array_header_1_0(out, header)
            while (block := _next(source)) is not None:
                out.write(np.ascontiguousarray(block, dtype="<f4").data.cast("B"))
        return Shard(out.entry(name), rows)
    except _NotTheDisk as passing:
        raise passing.error from passing.error.__cause__


class _NotTheDisk(Exception):
    """Carries an error of the encoder past the guard of the disk."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


def _next(source: Iterator[Matrix]) -> Matrix | None:
    try:
        return next(source, None)
    except BaseException as error:
        raise _NotTheDisk(error) from error


def open_shard(root: Path, shard: Shard, dimensions: int) -> Matrix:
    """A shard as a read-only array ``[rows, dimensions]`` that lives in the page cache.

    Raises:
        FileNotFoundError: It is gone.
        StoreDamaged: It is not what the manifest says.
    """
    path = root / shard.file.name
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise StoreDamaged(f"{path}: is damaged: {error}.", hint=rebuild_hint(root)) from error
    if array.shape != (shard.rows, dimensions) or array.dtype != np.dtype("<f4"):
        raise StoreDamaged(
            f"{path}: holds {array.dtype} {array.shape}, not float32 ({shard.rows}, {dimensions}).",
            hint=rebuild_hint(root),
        )
    return np.asarray(array)


def _products(matrix: Matrix, query: Matrix) -> Matrix:
    """Inner products, ``[n]``. Not by BLAS, whose threads wait for each other when the processor is busy."""
    products: Matrix = np.einsum("ij,j->i", matrix, query)
    return products


class Vectors:
    """All shards of one commit as one matrix ``[rows, dimensions]`` in row order."""

    def __init__(self, root: Path, shards: Sequence[Shard], dimensions: int) -> None:
        self._shards = [open_shard(root, shard, dimensions) for shard in shards]
        self._starts = np.cumsum([0, *(len(shard) for shard in self._shards)])
        self.dimensions = dimensions

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, rows: NDArray[np.int64]) -> Matrix:
        """The vectors of ascending rows, ``[n, dimensions]``, copied."""
        out = np.empty((len(rows), self.dimensions), np.float32)
        for shard, inside, start in self._split(rows):
            out[inside] = shard[rows[inside] - start]
        return out

    def blocks(self, rows: NDArray[np.int64]) -> Iterator[Matrix]:
        """The vectors of ascending rows, a block at a time."""
        for start in range(0, len(rows), BLOCK):
            yield self.take(rows[start : start + BLOCK])

    def search(self, query: Matrix, k: int, rows: NDArray[np.int64]) -> Hits:
        """The best of these ascending rows by inner product, exactly.

        Args:
            query: ``[dimensions]``.
            k: How many at most.
            rows: Where to look, ascending.
        """
        scores = np.empty(len(rows), np.float32)
        for shard, inside, start in self._split(rows):
            local = rows[inside] - start
            # Reading everything in order beats picking a large part of it.
            whole = len(local) * 2 > len(shard)
            for part in range(0, len(shard) if whole else len(local), BLOCK):
                if whole:
                    last = min(part + BLOCK, len(shard))
                    here = slice(*np.searchsorted(local, [part, last]))
                    scores[inside][here] = _products(shard[part:last], query)[local[here] - part]
                else:
                    scores[inside][part : part + BLOCK] = _products(shard[local[part : part + BLOCK]], query)
        return top(rows, scores, k)

    def _split(self, rows: NDArray[np.int64]) -> Iterator[tuple[Matrix, slice, int]]:
        """For each shard with some of these ascending rows: the shard, which of them, and its first row."""
        cuts = np.searchsorted(rows, self._starts)
        for number, shard in enumerate(self._shards):
            first, last = int(cuts[number]), int(cuts[number + 1])
            if first < last:
                yield shard, slice(first, last), int(self._starts[number])
