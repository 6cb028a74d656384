"""Vector shards: ``.npy`` files that are written once and read through the page cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import StoreDamaged
from ragzip.indexes.codecs import Codec, Codes
from ragzip.indexes.files import guarded, new_file, rebuild_hint
from ragzip.indexes.manifest import Shard
from ragzip.indexes.ranking import Hits, top

Matrix = NDArray[np.float32]
BLOCK = 16384
SHARD_ROWS = 131072
PLAIN = np.dtype("<f4")


def write_shard(
    root: Path, name: str, columns: int, rows: int, blocks: Iterable[Codes], dtype: np.dtype[Any] = PLAIN
) -> Shard:
    """Writes blocks of vectors, or of their codes, as they come, into one shard.

    Args:
        root: The index folder.
        name: The shard's name below it.
        columns: Width of a row.
        rows: How many the blocks hold together.
        blocks: ``[n, columns]`` each.
        dtype: Of the shard.

    Raises:
        StoreError: The disk does not take it; errors of ``blocks`` itself pass as they are.
    """
    source = iter(blocks)
    try:
        with guarded(root), new_file(root / name) as out:
            header = {"descr": dtype.str, "fortran_order": False, "shape": (rows, columns)}
            np.lib.format.write_array_header_1_0(out, header)
            while (block := _next(source)) is not None:
                out.write(np.ascontiguousarray(block, dtype=dtype).data.cast("B"))
        return Shard(out.entry(name), rows)
    except _NotTheDisk as passing:
        raise passing.error from passing.error.__cause__


class _NotTheDisk(Exception):
    """Carries an error of the encoder past the guard of the disk."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


def _next(source: Iterator[Codes]) -> Codes | None:
    try:
        return next(source, None)
    except BaseException as error:
        raise _NotTheDisk(error) from error


def open_shard(root: Path, shard: Shard, columns: int, dtype: np.dtype[Any] = PLAIN) -> Codes:
    """A shard as a read-only array ``[rows, columns]`` that lives in the page cache.

    Raises:
        FileNotFoundError: It is gone.
        StoreDamaged: It is not what the manifest says.
    """
    path = root / shard.file.name
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise StoreDamaged(f"{path}: is damaged: {error}.", hint=rebuild_hint(root)) from error
    if array.shape != (shard.rows, columns) or array.dtype != dtype:
        raise StoreDamaged(
            f"{path}: holds {array.dtype} {array.shape}, not {dtype} ({shard.rows}, {columns}).",
            hint=rebuild_hint(root),
        )
    return np.asarray(array)


class Vectors:
    """All shards of one commit as one matrix in row order.

    Attributes:
        codec: What the shards hold. Vectors leave as they came, ``[n, dimensions]``, but for what was rounded away;
            the index over them sees them reduced, ``[n, codec.width]``.
    """

    def __init__(self, root: Path, shards: Sequence[Shard], codec: Codec) -> None:
        self._shards = [open_shard(root, shard, codec.columns, codec.dtype) for shard in shards]
        self._starts = np.cumsum([0, *(len(shard) for shard in self._shards)])
        self.codec = codec

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def dimensions(self) -> int:
        """Of the vectors."""
        return self.codec.dimensions

    def codes(self, rows: NDArray[np.int64]) -> Codes:
        """What the shards hold of ascending rows, ``[n, columns]``, copied."""
        out = np.empty((len(rows), self.codec.columns), self.codec.dtype)
        for shard, inside, start in self._split(rows):
            out[inside] = shard[rows[inside] - start]
        return out

    def take(self, rows: NDArray[np.int64]) -> Matrix:
        """The vectors of ascending rows, ``[n, dimensions]``."""
        return self.codec.restore(self.reduced(rows))

    def reduced(self, rows: NDArray[np.int64]) -> Matrix:
        """The vectors of ascending rows as they are compared, ``[n, codec.width]``."""
        return self.codec.decode(self.codes(rows))

    def blocks(self, rows: NDArray[np.int64]) -> Iterator[Matrix]:
        """The vectors of ascending rows, a block at a time."""
        return map(self.take, _cut(rows))

    def reduced_blocks(self, rows: NDArray[np.int64]) -> Iterator[Matrix]:
        """As ``reduced``, a block at a time."""
        return map(self.reduced, _cut(rows))

    def code_blocks(self, rows: NDArray[np.int64]) -> Iterator[Codes]:
        """As ``codes``, a block at a time."""
        return map(self.codes, _cut(rows))

    def scores(self, query: Matrix, rows: NDArray[np.int64]) -> Matrix:
        """Inner products of a query ``[dimensions]`` with ascending rows, ``[n]``."""
        return self.codec.scorer(query)(self.codes(rows))

    def search(self, query: Matrix, k: int, rows: NDArray[np.int64]) -> Hits:
        """The best of these ascending rows by inner product, exactly for what is stored.

        Args:
            query: ``[dimensions]``.
            k: How many at most.
            rows: Where to look, ascending.
        """
        scores = np.empty(len(rows), np.float32)
        score = self.codec.scorer(query)
        for shard, inside, start in self._split(rows):
            local = rows[inside] - start
            # Reading everything in order beats picking a large part of it.
            whole = len(local) * 2 > len(shard)
            for part in range(0, len(shard) if whole else len(local), BLOCK):
                if whole:
                    last = min(part + BLOCK, len(shard))
                    here = slice(*np.searchsorted(local, [part, last]))
                    scores[inside][here] = score(shard[part:last])[local[here] - part]
                else:
                    scores[inside][part : part + BLOCK] = score(shard[local[part : part + BLOCK]])
        return top(rows, scores, k)

    def _split(self, rows: NDArray[np.int64]) -> Iterator[tuple[Codes, slice, int]]:
        """For each shard with some of these ascending rows: the shard, which of them, and its first row."""
        cuts = np.searchsorted(rows, self._starts)
        for number, shard in enumerate(self._shards):
            first, last = int(cuts[number]), int(cuts[number + 1])
            if first < last:
                yield shard, slice(first, last), int(self._starts[number])


def _cut(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    return (rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK))
