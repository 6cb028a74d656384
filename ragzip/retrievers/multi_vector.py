"""Multi-vector retrieval: every token of the question looks for its best match among a passage's tokens.

ColBERT (https://arxiv.org/abs/2004.12832), made fast by MUVERA's encodings (https://arxiv.org/abs/2405.19504) and
small by PLAID's codes (https://arxiv.org/abs/2205.09707).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ragzip.errors import ConfigError
from ragzip.retrievers.options import at_least, check_index
from ragzip.types import Passage, Query

if TYPE_CHECKING:
    from ragzip.indexes import Index
    from ragzip.indexes.multi_vector.reader import MultiVectors, Whole
    from ragzip.models.late_interaction import LateInteraction


@dataclass(frozen=True)
class MultiVector:
    """Retrieval by MaxSim: for each token of the question the best cosine to a token of the passage, their mean.

    Fixed dimensional encodings and lists of centroids find passages, the leading bits of their tokens' codes leave the
    candidates, and MaxSim over all bits ranks these. The index has to be made for it (``ragzip index ... --retriever
    multi_vector``), and says which model made its vectors; questions are encoded with the same one, each on its own.

    A share of the score is the cosine of whole vectors, by which ``dense`` ranks: it knows what a passage is about
    where tokens only know that words are there. The index has these vectors anyhow; the question is encoded a second
    time. (BGE-M3 mixes the two likewise, https://arxiv.org/abs/2402.03216.)

    Attributes:
        index: The index folder.
        top_k: How many passages at most.
        candidates: How many are ranked by MaxSim, or ``top_k`` where that is more; 0 ranks all passages, which is
            exact, and slow.
        filters: ``key=value``, ``key>=3``, ``source=docs/*``; all must hold. Where they leave a tenth of the passages
            or more, those are picked out of what encodings find among all.
        dense: The share of the cosine of whole vectors, from 0 to 1; 0 for MaxSim alone, for which the index's own
            encoder is not asked.
    """

    index: str
    top_k: int = 20
    candidates: int = 100
    filters: tuple[str, ...] = ()
    dense: float = 0.3

    def __post_init__(self) -> None:
        check_index(self.index, self.top_k, self.filters)
        at_least("candidates", self.candidates, 0)
        if not isinstance(self.dense, int | float) or isinstance(self.dense, bool) or not 0 <= self.dense <= 1:
            raise ConfigError("dense", f"must be a number from 0 to 1, not {self.dense!r}")

    @property
    def structures(self) -> tuple[str, ...]:
        """Of the index, those that it reads."""
        found = self.dense > 0 and self.candidates > 0 and not self.filters
        return ("multi_vector", *(("vectors",) if self.dense else ()), *(("faiss",) if found else ()))

    def load(self) -> None:
        """Opens the index and loads its models now rather than at the first question."""
        from ragzip.indexes import using

        using(self.index, lambda index: self._search(index, [Query("?")], 1))

    def retrieve(self, queries: Sequence[Query], *, top_k: int | None = None) -> list[list[Passage]]:
        """The best passages of each question; equal scores in the order of the index.

        Raises:
            StoreError: The index cannot be opened, or indexing was stopped before its token vectors were done.
            StoreMismatch: It was made without token vectors, or with another model.
            ModelError: The model is not here, or gave vectors that are not finite.
        """
        from ragzip.indexes import using

        k = self.top_k if top_k is None else at_least("top_k", top_k, 1)
        return using(self.index, lambda index: self._search(index, queries, k)) if queries else []

    def _open(self, index: Index) -> tuple[MultiVectors, LateInteraction] | None:
        from ragzip.indexes.multi_vector.reader import MultiVectors
        from ragzip.models.late_interaction import load_late_interaction

        if len(index) == 0:
            return None
        vectors = index.opened("multi_vector", MultiVectors)
        model = load_late_interaction(vectors.model_name)
        vectors.check_model(model)
        return vectors, model

    def _search(self, index: Index, queries: Sequence[Query], k: int) -> list[list[Passage]]:
        opened = self._open(index)
        if opened is None:
            return [[] for _ in queries]
        vectors, model = opened
        allowed = index.rows_where(self.filters) if self.filters else None
        texts = [query.text for query in queries]
        wholes = self._wholes(index, texts)
        found = [
            vectors.search(query, k, self.candidates, allowed, whole)
            for query, whole in zip(model.encode_queries(texts), wholes, strict=True)
        ]
        return [index.passages(hits.rows, hits.scores) for hits in found]

    def _wholes(self, index: Index, texts: Sequence[str]) -> Sequence[Whole | None]:
        if not self.dense:
            return [None] * len(texts)
        from ragzip.indexes.multi_vector.reader import Whole
        from ragzip.models import load_encoder

        encoder = load_encoder(index.model_name())
        index.check_model(encoder)
        return [Whole(vector, float(self.dense)) for vector in encoder.encode_queries(texts)]
