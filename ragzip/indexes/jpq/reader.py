"""Searching the codes of one commit of an index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import ModelError
from ragzip.indexes.ann import Ann
from ragzip.indexes.jpq.part import check, kept, opened
from ragzip.indexes.manifest import PartEntry
from ragzip.indexes.nearest import Nearest
from ragzip.indexes.ranking import NO_HITS, Hits, only

if TYPE_CHECKING:
    from ragzip.indexes.encoding import Encoder
    from ragzip.indexes.index import Index


class TrainedCodes:
    """The codes of an index's passages, and what they are worth to a question.

    Args:
        index: The commit.
        entry: Its part.
    """

    def __init__(self, index: Index, entry: PartEntry) -> None:
        learned = kept(index.path, entry)
        codes = opened(index.path, entry, learned)
        file = next(iter(entry.whole or ()))
        rows = index.rows_of(entry)
        ann = Ann(index.path, file, len(rows), learned.dimensions, deep=True)
        self._index, self._entry = index, entry
        self._nearest = Nearest(codes, rows, ann)
        self._alive = rows if entry.of is None else np.intersect1d(rows, index.rows, assume_unique=True)
        self._gone = len(rows) - len(self._alive)
        self.model_name: str = entry.settings["name"]
        """What ``load_encoder`` takes to encode questions."""

    def check_model(self, encoder: Encoder) -> None:
        """Makes sure that an encoder is the one that the centroids were trained with.

        Raises:
            StoreMismatch: It is not.
        """
        check(encoder, self._index, self._entry)

    def search(self, query: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None = None) -> Hits:
        """The best passages by the inner products of their codes; FAISS finds them unless only some are allowed.

        Args:
            query: ``[dimensions]``, of the trained encoder.
            k: How many at most.
            allowed: Only these rows, ascending.

        Raises:
            ModelError: The query is not finite.
        """
        if not np.isfinite(query).all():
            raise ModelError(f"{self.model_name}: gave a vector that is not finite.", hint="Check the model.")
        if allowed is not None:
            allowed = allowed[allowed < self._entry.rows]
        if k < 1 or (allowed is not None and not len(allowed)):
            return NO_HITS
        if allowed is not None:
            return self._nearest.vectors.search(query, k, allowed)
        if not self._gone:
            return self._nearest.search(query, k)
        hits = only(self._nearest.search(query, k + min(self._gone, k)), self._alive, k)
        if len(hits.rows) < min(k, len(self._alive)):  # most of what is nearest is gone
            return self._nearest.vectors.search(query, k, self._alive)
        return hits
