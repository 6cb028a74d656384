"""Searching token vectors: encodings find many, centroids leave fewer, and MaxSim over the codes ranks these.

What leaves fewer is the score by centroids, as in PLAID, with a share of the encodings' product: the two err
differently, one by taking tokens for their centroids, the other by taking partitions for tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import ModelError
from ragzip.indexes.manifest import PartEntry
from ragzip.indexes.multi_vector.candidates import Candidates, nearest
from ragzip.indexes.multi_vector.maxsim import best_of, maxsim
from ragzip.indexes.multi_vector.part import check, learned, tokens_of
from ragzip.indexes.ranking import NO_HITS, Hits, among, top

if TYPE_CHECKING:
    from ragzip.indexes.index import Index
    from ragzip.models.late_interaction import LateInteraction

Matrix = NDArray[np.float32]
_BLOCK = 1024  # passages whose token vectors are in memory at once
_SIEVED = 128  # passages whose products with centroids are
_FIRST = 500  # passages that encodings find, at least, and vectors as many
_MANY = 0.1  # of all passages, from which on all are searched and those that a filter leaves are picked
_ENCODED = 0.3  # share of encodings beside centroids, chosen on training questions
_TIMES = 4  # and so many times the candidates


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
        self._centroids = codec.directions
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
        if candidates and wanted < len(rows):
            encoding = self._fde.queries([query])[0]
            rows = self._found(encoding, max(_TIMES * wanted, _FIRST), rows, allowed is None, whole)
            if len(rows) > wanted:
                encoded = _standard(self._tokens.products(rows, encoding))
                part = _ENCODED * (1 - (whole.share if whole else 0))  # of what tokens say
                scores = (1 - part) * _standard(self._by_centroids(query, rows, whole)) + part * encoded
                rows = np.sort(top(rows, scores.astype(np.float32), wanted).rows)
        if not len(rows):
            return NO_HITS
        ranked = []
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            ranked.append(self._mixed(maxsim(query, *self._tokens.vectors(block)), query, block, whole))
        return top(rows, np.concatenate(ranked), k)

    def _found(
        self, encoding: Matrix, count: int, rows: NDArray[np.int64], every: bool, whole: Whole | None
    ) -> NDArray[np.int64]:
        """The rows that encodings find, and with a vector of the question those that this finds; ascending."""
        if count >= len(rows):
            return rows
        found = self._by_encodings(encoding, count, rows)
        if whole is None:
            return np.sort(found)
        index = self._index
        if every:
            (hits,) = index.search_vectors(whole.vector[None], count)
            near = hits.rows[hits.rows < self._entry.rows]  # those that came later have no token vectors yet
        else:
            near = index.vectors.search(whole.vector, count, rows).rows
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

    def _by_centroids(self, query: Matrix, rows: NDArray[np.int64], whole: Whole | None) -> Matrix:
        """Scores with every token taken for its centroid, as PLAID does before it looks at residuals."""
        products = query @ self._centroids.T
        scores = []
        for start in range(0, len(rows), _SIEVED):
            block = rows[start : start + _SIEVED]
            codes, counts = self._tokens.codes(block)
            scores.append(self._mixed(best_of(products[:, codes], counts), query, block, whole))
        return np.concatenate(scores)

    def _mixed(self, sums: Matrix, query: Matrix, rows: NDArray[np.int64], whole: Whole | None) -> Matrix:
        """Sums over a question's tokens as their mean, with the cosine of whole vectors as a share of it."""
        means: Matrix = sums / np.float32(len(query))
        if whole is None:
            return means
        cosines = self._index.vectors.scores(whole.vector, rows)
        return ((1 - whole.share) * means + whole.share * cosines).astype(np.float32)


def _standard(scores: Matrix) -> NDArray[np.float64]:
    """On a scale of mean 0 and standard deviation 1; all 0 where they are all the same."""
    apart = scores.astype(np.float64) - scores.mean(dtype=np.float64)
    found: NDArray[np.float64] = apart / max(float(apart.std()), 1e-12)
    return found
