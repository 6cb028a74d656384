"""The FAISS index over fixed dimensional encodings: where the search for candidates begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import StoreDamaged
from ragzip.indexes.faiss_files import one_thread, read_faiss, write_faiss
from ragzip.indexes.files import FileEntry, mend_hint
from ragzip.indexes.multi_vector.tokens import Tokens
from ragzip.indexes.ranking import NO_HITS, Hits, top

Matrix = NDArray[np.float32]
_PLAIN_BELOW = 10_000
_BLOCK = 2048
_TRAIN = 16_384


def factory(count: int, width: int) -> str:
    """The FAISS factory string: whole numbers of a byte for few passages, 4-bit product quantisation for many."""
    return "SQ8" if count < _PLAIN_BELOW or width % 4 else f"PQ{width // 4}x4fs"


def build(root: Path, name: str, tokens: Tokens, rows: NDArray[np.int64]) -> FileEntry:
    """Builds the index over the encodings of rows, at least one, and writes it."""
    import faiss

    made: Any = faiss.index_factory(tokens.width, factory(len(rows), tokens.width), faiss.METRIC_INNER_PRODUCT)
    made.train(tokens.encodings(rows[np.unique(np.linspace(0, len(rows) - 1, _TRAIN).astype(np.int64))]))
    for start in range(0, len(rows), _BLOCK):
        made.add(tokens.encodings(rows[start : start + _BLOCK]))
    return write_faiss(root, name, made)


class Candidates:
    """Searches the file.

    Args:
        root: The index folder.
        file: The manifest's entry.
        rows: The rows alive, in the order of the file.

    Raises:
        FileNotFoundError: It is gone.
        StoreDamaged: It is not what the manifest says.
    """

    def __init__(self, root: Path, file: FileEntry, rows: NDArray[np.int64]) -> None:
        self._index = read_faiss(root, file)
        if self._index.ntotal != len(rows):
            raise StoreDamaged(
                f"{root / file.name}: holds {self._index.ntotal} encodings, not {len(rows)}.", hint=mend_hint(root)
            )
        self._rows = rows
        self.count = len(rows)
        """How many the file holds."""

    def search(self, encoding: Matrix, k: int) -> NDArray[np.int64]:
        """The rows whose encodings have the greatest products with a query's, ascending."""
        wanted = min(k, len(self._rows))
        if wanted < 1:
            return NO_HITS.rows
        with one_thread():
            _, positions = self._index.search(encoding.reshape(1, -1), wanted)
        found: NDArray[np.int64] = np.sort(self._rows[positions[0][positions[0] >= 0]])
        return found


def nearest(tokens: Tokens, encoding: Matrix, rows: NDArray[np.int64], k: int) -> Hits:
    """The best of some ascending rows by the products of encodings, one by one."""
    return top(rows, tokens.products(rows, encoding), k)
