"""BM25: passages that share rare words with the question (Robertson and Zaragoza, 2009), searched with bm25s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ragzip.retrievers.options import at_least, check_index
from ragzip.types import Passage, Query

if TYPE_CHECKING:
    from ragzip.indexes import Index


@dataclass(frozen=True)
class BM25:
    """Retrieval by words. Needs no model; passages that share no word with the question are left out.

    Attributes:
        index: The index folder.
        top_k: How many passages at most.
        filters: ``key=value``, ``key>=3``, ``source=docs/*``; all must hold.
    """

    structures: ClassVar[tuple[str, ...]] = ("bm25",)
    """Of the index, those that it reads."""

    index: str
    top_k: int = 20
    filters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_index(self.index, self.top_k, self.filters)

    def retrieve(self, queries: Sequence[Query], *, top_k: int | None = None) -> list[list[Passage]]:
        """The passages of each question, best first; equal scores in the order of the index.

        Raises:
            StoreError: The index cannot be opened.
        """
        from ragzip.indexes import using

        k = self.top_k if top_k is None else at_least("top_k", top_k, 1)
        return using(self.index, lambda index: self._search(index, queries, k)) if queries else []

    def _search(self, index: Index, queries: Sequence[Query], k: int) -> list[list[Passage]]:
        found = index.search_terms([query.text for query in queries], k, self.filters)
        return [index.passages(hits.rows, hits.scores) for hits in found]
