"""Searching token vectors: encodings find candidates, MaxSim over the codes ranks them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ragzip.indexes.manifest import PartEntry
from ragzip.indexes.multi_vector.candidates import Candidates, nearest
from ragzip.indexes.multi_vector.maxsim import maxsim
from ragzip.indexes.multi_vector.part import check, learned, tokens_of
from ragzip.indexes.ranking import NO_HITS, Hits, top

if TYPE_CHECKING:
    from ragzip.indexes.index import Index
    from ragzip.models.late_interaction import LateInteraction

Matrix = NDArray[np.float32]
_BLOCK = 1024  # passages whose token vectors are in memory at once


class MultiVectors:
    """The token vectors of one commit of an index.

    Args:
        index: The commit.
        entry: Its part.
    """

    def __init__(self, index: Index, entry: PartEntry) -> None:
        codec, self._fde = learned(index, entry)
        indexed = index.rows_of(entry)
        self._rows = index.rows[: int(np.searchsorted(index.rows, entry.rows))]
        self._gone = len(np.setdiff1d(indexed, self._rows, assume_unique=True))
        self._tokens = tokens_of(index, entry, codec)
        whole = list(entry.whole or ())
        self._candidates = Candidates(index.path, whole[0], indexed)
        self._index, self._entry = index, entry
        self.model_name: str = entry.settings["name"]
        """What ``load_late_interaction`` takes to encode questions."""

    def check_model(self, model: LateInteraction) -> None:
        """Makes sure that a model is the one that the token vectors come from.

        Raises:
            StoreMismatch: It is not.
        """
        check(model, self._index, self._entry)

    def search(self, query: Matrix, k: int, candidates: int, allowed: NDArray[np.int64] | None = None) -> Hits:
        """The best passages by MaxSim.

        Args:
            query: ``[n, dimensions]``, token vectors of a question.
            k: How many at most.
            candidates: How many the encodings choose to be ranked, at least ``k``; 0 ranks all passages.
            allowed: Only these rows, ascending.
        """
        rows = self._rows if allowed is None else allowed[allowed < self._entry.rows]
        if k < 1 or not len(rows) or not len(query):
            return NO_HITS
        wanted = max(candidates, k)
        if candidates and wanted < len(rows):
            encoding = self._fde.queries([query])[0]
            if allowed is None:
                found = self._candidates.search(encoding, wanted + min(self._gone, wanted))
                rows = found[np.isin(found, self._rows)] if self._gone else found
            else:
                rows = np.sort(nearest(self._tokens, encoding, rows, wanted).rows)
        if not len(rows):
            return NO_HITS
        scores = [
            maxsim(query, *self._tokens.vectors(rows[start : start + _BLOCK])) for start in range(0, len(rows), _BLOCK)
        ]
        return top(rows, np.concatenate(scores), k)
