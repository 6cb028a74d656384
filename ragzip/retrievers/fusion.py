"""Reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009): several rankings into one, by rank alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ragzip.errors import ConfigError
from ragzip.protocols import Retriever
from ragzip.retrievers.options import at_least
from ragzip.types import Passage, Query


@dataclass(frozen=True)
class Fusion:
    """Adds ``1 / (k + rank)`` over the retrievers that found a passage, ranks from 1.

    Attributes:
        retrievers: Whose rankings count, all the same.
        k: The greater, the less the first ranks stand out.
        depth: How many passages each retriever is asked for, or ``top_k`` where that is more.
        top_k: How many passages at most.
    """

    retrievers: tuple[Retriever, ...]
    k: int = 60
    depth: int = 100
    top_k: int = 20

    def __post_init__(self) -> None:
        if not isinstance(self.retrievers, tuple) or not self.retrievers:
            raise ConfigError("retrievers", "must be at least one retriever", hint="As dense and bm25.")
        for name in ("k", "depth", "top_k"):
            at_least(name, getattr(self, name), 1)

    def load(self) -> None:
        """Loads what its retrievers need, where they can say so."""
        for retriever in self.retrievers:
            load = getattr(retriever, "load", None)
            if callable(load):
                load()

    def retrieve(self, queries: Sequence[Query], *, top_k: int | None = None) -> list[list[Passage]]:
        """The passages of each question, best first, their scores those of the fusion.

        Of equal scores, what an earlier retriever found comes first.
        """
        k = self.top_k if top_k is None else at_least("top_k", top_k, 1)
        if not queries:
            return []
        depth = max(self.depth, k)
        rankings = [retriever.retrieve(queries, top_k=depth) for retriever in self.retrievers]
        return [self._fuse(lists, k) for lists in zip(*rankings, strict=True)]

    def _fuse(self, lists: Sequence[Sequence[Passage]], top_k: int) -> list[Passage]:
        scores: dict[str, float] = {}
        passages: dict[str, Passage] = {}
        for ranking in lists:
            ranks: dict[str, int] = {}
            for rank, passage in enumerate(ranking, start=1):
                ranks.setdefault(passage.id, rank)
                passages.setdefault(passage.id, passage)
            for passage_id, rank in ranks.items():
                scores[passage_id] = scores.get(passage_id, 0.0) + 1 / (self.k + rank)
        best = sorted(scores, key=lambda passage_id: -scores[passage_id])[:top_k]
        return [replace(passages[passage_id], score=scores[passage_id]) for passage_id in best]
