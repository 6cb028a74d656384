"""The FAISS index over the vectors alive: exact below 100,000 of them, compressed above."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import StoreDamaged
from ragzip.indexes.files import FileEntry, guarded, new_file, rebuild_hint
from ragzip.indexes.ranking import NO_HITS, Hits, top

Matrix = NDArray[np.float32]
EXACT_BELOW = 100_000
_TRAIN_ROWS = 32_768
_K_FACTOR = 16.0
_LEAST_K = 64
_BUFFER = 1 << 20


def kind(count: int, dimensions: int) -> str:
    """The FAISS factory string for so many vectors.

    Above the limit 4-bit product quantisation finds candidates and 8-bit vectors refine them (recall@10 of 0.99 on
    clustered vectors at a quarter of the memory); widths that do not divide by four go without the first.
    """
    if count < EXACT_BELOW:
        return "Flat"
    return f"PQ{dimensions // 4}x4fs,Refine(SQ8)" if dimensions % 4 == 0 else "SQ8"


def build(
    root: Path,
    name: str,
    count: int,
    dimensions: int,
    take: Callable[[NDArray[np.int64]], Matrix],
    blocks: Iterable[Matrix],
) -> FileEntry:
    """Builds the index over all vectors and writes it.

    Args:
        root: The index folder.
        name: Of the file below it.
        count: How many vectors.
        dimensions: Their width.
        take: Gives the vectors at ascending positions, to learn the quantiser from.
        blocks: All vectors in order, ``[n, dimensions]`` each.
    """
    import faiss

    index: Any = faiss.index_factory(dimensions, kind(count, dimensions), faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        sample = np.unique(np.linspace(0, count - 1, num=min(count, _TRAIN_ROWS)).astype(np.int64))
        index.train(take(sample))
    for block in blocks:
        index.add(block)
    if hasattr(index, "k_factor"):
        index.k_factor = _K_FACTOR
    with guarded(root), new_file(root / name) as out:
        faiss.write_index(index, _writer(faiss, out.write))
        return out.entry(name)


def _writer(faiss: Any, write: Callable[[bytes], int]) -> Any:
    """Through Python's own file, so that a full disk is noticed: FAISS does not look at what closing a file says."""
    return faiss.BufferedIOWriter(faiss.PyCallbackIOWriter(write), _BUFFER)


class Ann:
    """Searches a FAISS file, which stays in the page cache where its kind allows it.

    Args:
        root: The index folder.
        file: The manifest's entry.
        count: How many vectors it must hold.
        dimensions: Their width.

    Raises:
        FileNotFoundError: It is gone.
        StoreDamaged: It is not what the manifest says.
    """

    def __init__(self, root: Path, file: FileEntry, count: int, dimensions: int) -> None:
        import faiss

        path = root / file.name
        if not path.is_file():
            raise FileNotFoundError(path)
        try:
            self._index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise StoreDamaged(f"{path}: FAISS cannot read it: {error}.", hint=rebuild_hint(root)) from error
        if (self._index.ntotal, self._index.d) != (count, dimensions):
            raise StoreDamaged(
                f"{path}: holds {self._index.ntotal} vectors of {self._index.d}, not {count} of {dimensions}.",
                hint=rebuild_hint(root),
            )
        self.exact = isinstance(self._index, faiss.IndexFlat)
        self._count = count

    def search(self, query: Matrix, k: int) -> Hits:
        """The best positions by inner product; the scores of compressed kinds are approximate.

        Args:
            query: ``[dimensions]``.
            k: How many at most.
        """
        wanted = min(k, self._count)
        asked = min(self._count, wanted + 1 if self.exact else max(wanted, _LEAST_K))
        if wanted < 1:
            return NO_HITS
        while True:
            with _one_thread():
                scores, positions = self._index.search(query.reshape(1, -1), asked)
            found = positions[0] >= 0
            scores, positions = scores[0][found], positions[0][found]
            # A tie across the cut: look further, so that the row decides which of the equals is in.
            tied = self.exact and wanted < len(scores) == asked < self._count and scores[-1] == scores[wanted - 1]
            if not tied:
                return top(positions.astype(np.int64), scores.astype(np.float32), asked if not self.exact else wanted)
            asked = min(self._count, asked * 4)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One query is no faster on several threads, and leaves the others to the models."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
