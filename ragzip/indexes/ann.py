"""The FAISS index over the vectors alive; unless told otherwise, exact below 100,000 of them, compressed above."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import StoreDamaged
from ragzip.indexes.faiss_files import one_thread, read_faiss, write_faiss
from ragzip.indexes.files import FileEntry, rebuild_hint
from ragzip.indexes.kmeans import centroids_of
from ragzip.indexes.ranking import NO_HITS, Hits, top
from ragzip.indexes.storage import Structure
from ragzip.indexes.stored import LEARNED_FROM, sample_of
from ragzip.indexes.vectors import Vectors

Matrix = NDArray[np.float32]
EXACT_BELOW = 100_000
_K_FACTOR = 16.0
_LEAST_K = 64
_DEEP_K = 256
_DEEP_FACTOR = 8
_LIST_ROWS = 39  # vectors for each list, from which the lists are learned


def kind(count: int, dimensions: int) -> str:
    """The FAISS factory string for so many vectors.

    Above the limit 4-bit product quantisation finds candidates and 8-bit vectors refine them (recall@10 of 0.99 on
    clustered vectors at a quarter of the memory); widths that do not divide by four go without the first.
    """
    if count < EXACT_BELOW:
        return "Flat"
    return f"PQ{dimensions // 4}x4fs,Refine(SQ8)" if dimensions % 4 == 0 else "SQ8"


def build(root: Path, name: str, vectors: Vectors, rows: NDArray[np.int64], structure: Structure | None) -> FileEntry:
    """Builds the index over vectors, reduced as they are kept, and writes it.

    Args:
        root: The index folder.
        name: Of the file below it.
        vectors: All there are.
        rows: Which of them, ascending.
        structure: What to build; None for what so many vectors need.
    """
    import faiss

    width = vectors.codec.width
    factory = kind(len(rows), width) if structure is None else structure.factory(width)
    index: Any = faiss.index_factory(width, factory, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        least = _LIST_ROWS * structure.size if structure is not None and structure.form == "ivf" else 0
        sample = vectors.reduced(sample_of(rows, max(LEARNED_FROM, least)))
        if structure is not None and structure.pieces and not structure.code.endswith("x4"):
            _train_pq(faiss, index, sample, structure)
        else:
            index.train(sample)
    for block in vectors.reduced_blocks(rows):
        index.add(block)
    if hasattr(index, "k_factor"):
        index.k_factor = _K_FACTOR
    if structure is not None and structure.form == "ivf":
        faiss.extract_index_ivf(index).nprobe = structure.probes
    return write_faiss(root, name, index)


def _train_pq(faiss: Any, index: Any, sample: Matrix, structure: Structure) -> None:
    """With centroids of our own: FAISS takes ten times as long for those of eight bits."""
    if structure.form == "ivf":
        index.train_q1(len(sample), faiss.swig_ptr(sample), False, faiss.METRIC_INNER_PRODUCT)
        _, lists = index.quantizer.search(sample, 1)
        sample = sample - index.quantizer.reconstruct_n(0, index.nlist)[lists[:, 0]]
    faiss.copy_array_to_vector(centroids_of(sample, structure.pieces).ravel(), index.pq.centroids)
    index.is_trained = True


class Ann:
    """Searches a FAISS file, which stays in the page cache where its kind allows it.

    Args:
        root: The index folder.
        file: The manifest's entry.
        count: How many vectors it must hold.
        dimensions: Their width.
        deep: Whether codes are all it has, so that it gives more than it is asked for, to be scored again.

    Raises:
        FileNotFoundError: It is gone.
        StoreDamaged: It is not what the manifest says.
    """

    def __init__(self, root: Path, file: FileEntry, count: int, dimensions: int, *, deep: bool = False) -> None:
        import faiss

        path = root / file.name
        self._index = read_faiss(root, file)
        if (self._index.ntotal, self._index.d) != (count, dimensions):
            raise StoreDamaged(
                f"{path}: holds {self._index.ntotal} vectors of {self._index.d}, not {count} of {dimensions}.",
                hint=rebuild_hint(root),
            )
        self.exact = isinstance(self._index, faiss.IndexFlat)
        self._count, self._deep = count, deep

    def search(self, query: Matrix, k: int) -> Hits:
        """The best positions by inner product; the scores of compressed kinds are approximate.

        Args:
            query: ``[dimensions]``.
            k: How many at most.
        """
        wanted = min(k, self._count)
        short = max(wanted * _DEEP_FACTOR, _DEEP_K) if self._deep else max(wanted, _LEAST_K)
        asked = min(self._count, wanted + 1 if self.exact else short)
        if wanted < 1:
            return NO_HITS
        while True:
            with one_thread():
                scores, positions = self._index.search(query.reshape(1, -1), asked, params=self._params(asked))
            found = positions[0] >= 0
            scores, positions = scores[0][found], positions[0][found]
            # A tie across the cut: look further, so that the row decides which of the equals is in.
            tied = self.exact and wanted < len(scores) == asked < self._count and scores[-1] == scores[wanted - 1]
            if not tied:
                return top(positions.astype(np.int64), scores.astype(np.float32), asked if not self.exact else wanted)
            asked = min(self._count, asked * 4)

    def _params(self, asked: int) -> Any:
        """A graph must be told to look at as many as it is asked for."""
        import faiss

        given: Any = faiss
        return given.SearchParametersHNSW(efSearch=asked) if hasattr(self._index, "hnsw") else None
