"""Random sentences: the baseline that any choice of sentences must beat."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ragzip.compressors._extractive import Sentences, SentenceScorer
from ragzip.compressors._options import check_count
from ragzip.types import Query


@dataclass(frozen=True)
class RandomSentences(SentenceScorer):
    """Keeps sentences drawn at random, in their order.

    A sentence's score, from 0 to 1, is drawn from the seed, the question, its passage and its place in it: the same
    call gives the same sentences, and no score depends on what else is in the context.

    Attributes:
        seed: Another seed draws other sentences.
    """

    asks: ClassVar[bool] = False

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("seed", self.seed)

    def score(self, query: Query, groups: Sequence[Sentences]) -> Sequence[Sequence[float]]:
        """Uniform numbers, at least 0 and below 1."""
        names = [group.passage.id if group.passage else "" for group in groups]
        return [
            [_draw(self.seed, query.text, name, place, text) for place, text in enumerate(group.texts)]
            for name, group in zip(names, groups, strict=True)
        ]


def _draw(*parts: object) -> float:
    digest = hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)
