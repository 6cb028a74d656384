"""BM25 over the sentences of one context: the lexical baseline, without any model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragzip.compressors._extractive import Sentences, SentenceScorer
from ragzip.types import Query


@dataclass(frozen=True)
class BM25Sentences(SentenceScorer):
    """Keeps the sentences that share the question's rarest words, in their order.

    Each sentence, with its passage's title before it, is a document of a collection that is this context alone; terms
    and weights are those of the ``bm25`` retriever (k1 1.5, b 0.75). A sentence without any term of the question
    scores 0. An empty question scores all sentences alike.
    """

    def score(self, query: Query, groups: Sequence[Sentences]) -> Sequence[Sequence[float]]:
        """BM25, from 0."""
        from ragzip.indexes.bm25 import build  # imported late: it needs numpy, and so does whoever lists components

        texts = [f"{group.title}\n{text}" if group.title else text for group in groups for text in group.texts]
        scores = [0.0] * len(texts)
        positions, found = build(texts).search(query.text, len(texts))
        for position, score in zip(positions.tolist(), found.tolist(), strict=True):
            scores[position] = score
        rest = iter(scores)
        return [[next(rest) for _ in group.texts] for group in groups]
