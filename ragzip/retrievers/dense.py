"""Dense: passages whose vectors are nearest to the question's (Karpukhin et al., EMNLP 2020), searched with FAISS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ragzip.retrievers.options import at_least, check_index
from ragzip.types import Passage, Query

if TYPE_CHECKING:
    from ragzip.indexes import Index


@dataclass(frozen=True)
class Dense:
    """Retrieval by inner product of unit vectors; scores are cosines.

    The index says which encoder made its vectors; questions are encoded with the same one, each on its own, so that
    a question's passages do not depend on what else is asked.

    Attributes:
        index: The index folder.
        top_k: How many passages at most.
        filters: ``key=value``, ``key>=3``, ``source=docs/*``; all must hold, and then the search is exact.
    """

    structures: ClassVar[tuple[str, ...]] = ("vectors", "faiss")
    """Of the index, those that it reads."""

    index: str
    top_k: int = 20
    filters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_index(self.index, self.top_k, self.filters)

    def load(self) -> None:
        """Opens the index and loads its encoder now rather than at the first question."""
        from ragzip.indexes import using

        using(self.index, lambda index: self._search(index, [Query("?")], 1))

    def retrieve(self, queries: Sequence[Query], *, top_k: int | None = None) -> list[list[Passage]]:
        """The nearest passages of each question, best first.

        Equal scores come in the order of the index where it is searched exactly, as all but the largest are.

        Raises:
            StoreError: The index cannot be opened, or has no vectors.
            StoreMismatch: The encoder here is not the one it was made with.
            ModelError: The encoder is not here.
        """
        from ragzip.indexes import using

        k = self.top_k if top_k is None else at_least("top_k", top_k, 1)
        return using(self.index, lambda index: self._search(index, queries, k)) if queries else []

    def _search(self, index: Index, queries: Sequence[Query], k: int) -> list[list[Passage]]:
        name = index.model_name()
        if len(index) == 0:
            return [[] for _ in queries]
        from ragzip.models import load_encoder

        encoder = load_encoder(name)
        index.check_model(encoder)
        vectors = encoder.encode_queries([query.text for query in queries])
        found = index.search_vectors(vectors, k, self.filters)
        return [index.passages(hits.rows, hits.scores) for hits in found]
