"""Searching token vectors: encodings and lists find many, leading bits leave fewer, MaxSim over all bits ranks these.

What encodings miss, by taking partitions for tokens, the lists of centroids mostly find, and the other way round; of
what both find, MaxSim over the leading bits of residuals leaves those that are worth reading whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import ModelError
from ragzip.indexes.manifest import PartEntry
from ragzip.indexes.multi_vector.candidates import Candidates, nearest
from ragzip.indexes.multi_vector.lists import Lists
from ragzip.indexes.multi_vector.maxsim import maxsim
from ragzip.indexes.multi_vector.part import check, learned, tokens_of
from ragzip.indexes.ranking import NO_HITS, Hits, among, top

if TYPE_CHECKING:
    from ragzip.indexes.index import Index
    from ragzip.models.late_interaction import LateInteraction

Matrix = NDArray[np.float32]
_BLOCK = 1024  # passages whose token vectors are in memory at once
_SIEVED = 128  # passages whose leading bits are
_TIMES = 4  # so many times the candidates are looked for, by all ways together: encodings, lists, whole vectors
_ROOT, _MOST = 3.2, 1000  # or this many times the root of the number of passages, if that is more, up to the second
_MANY = 0.1  # of all passages, from which on all are searched and those that a filter leaves are picked


class Whole(NamedTuple):
    """A question as one vector.

    Attributes:
        vector: ``[d]``, of the encoder of the index.
        share: Of its cosine to a passage's vector in the score, from 0 to 1.
    """

    vector: Matrix
    share: float


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
        self._tokens = tokens_of(index, entry, codec)
        self._codec = codec
        whole = list(entry.whole or ())
        self._candidates = Candidates(index.path, whole[0], indexed)
        self._lists = None  # in an older index
        if len(whole) == 3:
            self._lists = Lists(index.path, (whole[1], whole[2]), indexed, len(codec.centroids))
        self._index, self._entry = index, entry
        self.model_name: str = entry.settings["name"]
        """What ``load_late_interaction`` takes to encode questions."""

    def check_model(self, model: LateInteraction) -> None:
        """Makes sure that a model is the one that the token vectors come from.

        Raises:
            StoreMismatch: It is not.
        """
        check(model, self._index, self._entry)

    def search(
        self,
        query: Matrix,
        k: int,
        candidates: int,
        allowed: NDArray[np.int64] | None = None,
        whole: Whole | None = None,
    ) -> Hits:
        """The best passages by MaxSim, the mean over the question's tokens.

        Args:
            query: ``[n, dimensions]``, token vectors of a question.
            k: How many at most.
            candidates: How many are left for MaxSim, at least ``k``; 0 ranks all passages.
            allowed: Only these rows, ascending.
            whole: The question as one vector, whose cosine then is a share of the score.

        Raises:
            ModelError: Vectors of the question that are not finite.
        """
        whole_is_odd = whole is not None and not np.isfinite(whole.vector).all()
        if whole_is_odd or not np.isfinite(query).all():
            name = self._index.model_name() if whole_is_odd else self.model_name
            raise ModelError(
                f"{name}: gave no finite vectors for a question to {self._index.path}.", hint="Check the model."
            )
        rows = self._rows if allowed is None else allowed[allowed < self._entry.rows]
        if k < 1 or not len(rows) or not len(query):
            return NO_HITS
        wanted = max(candidates, k)
        turned = self._codec.turn(query)
        if candidates and wanted < len(rows):
            count = max(_TIMES * wanted, min(int(_ROOT * len(rows) ** 0.5), _MOST))
            rows = self._found(query, count, wanted, rows, allowed is None, whole)
            if len(rows) > wanted and not self._codec.leads_to_all:
                rows = np.sort(top(rows, self._scores(turned, rows, whole, leading=True), wanted).rows)
        if not len(rows):
            return NO_HITS
        return top(rows, self._scores(turned, rows, whole), k)

    def _found(
        self, query: Matrix, count: int, least: int, rows: NDArray[np.int64], every: bool, whole: Whole | None
    ) -> NDArray[np.int64]:
        """The rows that encodings and lists find, and with a vector of the question what this finds; ascending.

        They are about ``count`` or fewer, as ways find the same, and no fewer than ``least``, if there are so many.
        """
        if count >= len(rows):
            return rows
        each = -(-count // (1 + (self._lists is not None) + (whole is not None)))
        found = self._by_encodings(self._fde.queries([query])[0], max(each, 2 * least), rows)
        if self._lists is not None:
            found = np.union1d(found, self._lists.search(query @ self._codec.directions.T, each, rows))
        if whole is None:
            return np.sort(found)
        index = self._index
        if every:
            (hits,) = index.search_vectors(whole.vector[None], each)
            near = hits.rows[hits.rows < self._entry.rows]  # those that came later have no token vectors yet
        else:
            near = index.vectors.search(whole.vector, each, rows).rows
        return np.union1d(found, near)

    def _by_encodings(self, encoding: Matrix, count: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of some rows those whose encodings are nearest: about so many, half of them at least."""
        held = self._candidates.count
        if len(rows) >= held * _MANY:
            # of what all of them find, so many should be among these, and some more
            wanted = max(-(-count * held // len(rows)), count) + min(max(held - len(rows), 0), count)
            found = self._candidates.search(encoding, wanted)
            found = found[among(found, rows)]
            if len(found) >= max(count // 2, 1):
                return found
        return nearest(self._tokens, encoding, rows, count).rows

    def _scores(self, turned: Matrix, rows: NDArray[np.int64], whole: Whole | None, *, leading: bool = False) -> Matrix:
        """Of ascending rows, from all bits of their residuals or the leading ones."""
        scores, step = [], _SIEVED if leading else _BLOCK
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            sums = maxsim(turned, *self._tokens.vectors(block, leading=leading))
            scores.append(self._mixed(sums, len(turned), block, whole))
        return np.concatenate(scores)

    def _mixed(self, sums: Matrix, tokens: int, rows: NDArray[np.int64], whole: Whole | None) -> Matrix:
        """Sums over a question's tokens as their mean, with the cosine of whole vectors as a share of it."""
        means: Matrix = sums / np.float32(tokens)
        if whole is None:
            return means
        cosines = self._index.vectors.scores(whole.vector, rows)
        return ((1 - whole.share) * means + whole.share * cosines).astype(np.float32)
