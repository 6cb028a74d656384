"""The nearest vectors of one commit: found by an index over them and scored again, or scanned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragzip.indexes.ann import Ann
from ragzip.indexes.ranking import Hits, top
from ragzip.indexes.vectors import Matrix, Vectors


@dataclass(frozen=True, eq=False)
class Nearest:
    """Both stages of a search.

    Attributes:
        vectors: What is kept.
        rows: Those alive, ascending; the positions of ``ann`` are places in it.
        ann: Finds candidates, or everything where it is exact; None to scan.
    """

    vectors: Vectors
    rows: NDArray[np.int64]
    ann: Ann | None

    def search(self, query: Matrix, k: int) -> Hits:
        """The best rows for a query ``[dimensions]``, scored by what is kept of them."""
        if self.ann is None:
            return self.vectors.search(query, k, self.rows)
        hits = self.ann.search(self.vectors.codec.reduce(query[None])[0], k)
        rows = self.rows[hits.rows]
        if self.ann.exact:
            return Hits(rows, hits.scores)
        if len(rows) < min(k, len(self.rows)):  # the lists that were searched hold no more
            return self.vectors.search(query, k, self.rows)
        rows = np.sort(rows)
        return top(rows, self.vectors.scores(query, rows), k)
