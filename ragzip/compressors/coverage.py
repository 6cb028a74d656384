"""Sentences that are relevant, cover what is relevant, and differ: a submodular choice under a token budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ragzip.compressors._extractive import groups_of
from ragzip.compressors._layout import Layout
from ragzip.compressors._options import check_number, counter_of
from ragzip.compressors._relevance import asked
from ragzip.compressors._submodular import Objective, better_greedy
from ragzip.compressors.sentence_filter import SentenceFilter, read_groups, says_something
from ragzip.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_PER_GROUP = 5
_MOST = 1000  # sentences of which each is compared with each


@dataclass(frozen=True)
class Coverage(SentenceFilter):
    """Keeps the set of sentences that is best as a set: near the question, covering what is near it, and diverse.

    ``sentence_filter`` takes the best sentences one by one, and five that say the same are five. Here a sentence
    counts for what it adds (Lin and Bilmes, ACL 2011, P11-1052; for retrieval arXiv 2507.19715): a share of the
    relevance, a better cover for relevant sentences that no chosen one is like, and a first voice for its group.
    Sentences are chosen by gain per token, lazily, up to the budget; see ``_submodular`` for the bound. Coverage is
    facility location as in the second paper, with sentences weighted by their relevance; the first saturates sums
    of similarities. Groups, a fifth as many as sentences, are found by farthest points instead of k-means, whose
    start is random.

    In contexts of more than 1,000 sentences, only the 1,000 most relevant are candidates, and others fill what is
    left by their relevance. Where only a ``threshold`` (a cosine, 0 to 1) is given, nothing limits the set, and it is
    that of ``sentence_filter``. Sentences are alike by their whole vectors: of one longer than the encoder's window the
    mean over its windows.

    Attributes:
        relevance: Weight of the cosine with the question, at least 0.
        coverage: Weight of the cover, at least 0.
        diversity: Weight of the groups, at least 0.
        sharpness: Relevance is the cosine, as a share of the greatest, to this power, at least 0. With 1, ten short
            sentences that are a little near outweigh the one that answers.
        scaling: How much long sentences pay for their length: gains are divided by tokens to this power, 0 to 4. Less
            than 1 favours long sentences, which are the better ones more often than not. The bound is proved for 1:
            the choice with 1 is made as well, and taken where its set is worth more.
    """

    relevance: float = 1.0
    coverage: float = 0.3
    diversity: float = 0.1
    sharpness: float = 4.0
    scaling: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("relevance", "coverage", "diversity"):
            check_number(name, getattr(self, name), low=0.0)
        check_number("sharpness", self.sharpness, low=0.0, high=100.0)
        check_number("scaling", self.scaling, low=0.0, high=4.0)
        if self.relevance == self.coverage == self.diversity == 0:
            raise ConfigError("relevance", "one of relevance, coverage and diversity must be above 0")

    def _rank(self, layout: Layout, must: frozenset[int], limit: int | None) -> list[int]:
        if limit is None:
            return super()._rank(layout, must, limit)
        import numpy as np

        groups, query = groups_of(layout), layout.context.query
        texts = [text for group in groups for text in group.texts]
        encoder = self.load()
        reading = read_groups(encoder, groups)
        vectors = reading.vectors().astype(np.float64)
        speaks = np.fromiter(map(says_something, texts), dtype=np.float64, count=len(texts))
        near = np.ones(len(texts))
        if query.text.strip():
            near = reading.closeness(asked(encoder, query.text).astype(np.float64)) * speaks
        ranked = self._order(near.tolist(), must)
        pool = ranked[:_MOST]
        rows = vectors[pool] * speaks[pool, None]
        alike = (rows @ rows.T).clip(0.0, 1.0)
        sharp = (near[pool] / (near[pool].max(initial=0.0) or 1.0)) ** self.sharpness * speaks[pool]
        weights = (self.relevance, self.coverage, self.diversity)
        voices = farthest_groups(alike)
        costs = [max(cost, 1) for cost in counter_of(self.counter).texts([texts[unit] for unit in pool])]
        start = [place for place, unit in enumerate(pool) if unit in must]
        room = limit - sum(costs[place] for place in start)
        found = better_greedy(
            lambda: Objective(sharp, alike, voices, weights), costs, room, scaling=self.scaling, start=start
        )
        chosen = [pool[place] for place in found]
        first = [unit for unit in ranked if unit in must] + chosen
        seen = set(first)
        return first + [unit for unit in ranked if unit not in seen]


def farthest_groups(alike: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Groups of like sentences: ``[n]`` numbers from 0, for a fifth as many groups as sentences.

    Each group's first member is the sentence least like all first members before it (the first sentence of all is
    the first one); every other sentence goes to the first member that it is most like.

    Args:
        alike: ``[n, n]`` similarities; n may be 0.
    """
    import numpy as np

    group = np.zeros(len(alike), dtype=np.int64)
    if not len(alike):
        return group
    best = alike[0].copy()
    best[0] = np.inf
    for number in range(1, math.ceil(len(alike) / _PER_GROUP)):
        center = int(best.argmin())
        nearer = alike[center] > best
        nearer[center] = True
        group[nearer] = number
        best = np.maximum(best, alike[center])
        best[center] = np.inf  # never a first member again, not even where it is like nothing
    return group
