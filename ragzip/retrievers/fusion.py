"""Fusion: several rankings into one, by rank (Cormack, Clarke and Büttcher, SIGIR 2009) or by normalised scores."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from ragzip.errors import ConfigError
from ragzip.protocols import Retriever
from ragzip.registry import name_of
from ragzip.retrievers.options import at_least
from ragzip.types import Passage, Query

Normalize = Literal["rank", "minmax", "zscore"]


@dataclass(frozen=True)
class Fusion:
    """Adds up, over the retrievers that found a passage, what its place or its score there is worth.

    ``rank`` is reciprocal rank fusion: ``1 / (k + rank)``, ranks from 1, whatever the scores are. The others look at
    scores: ``minmax`` puts those of a list between 0 and 1 (Lee, SIGIR 1997), which in a weighted sum is the convex
    combination that Bruch, Gai and Ingber (TOIS 2023) find better than ranks once its weight is tuned; ``zscore`` takes
    off their mean and divides by their standard deviation (Montague and Aslam, CIKM 2001). Both stay as they are when
    all scores of a retriever are multiplied by a positive number or grow by the same amount. What a retriever did not
    find counts as the worst that it found; where it gives all it found the same score, that is 1, and 0 for the rest.
    Passages of one id with different texts, of two indexes say, stay two: the later one gets a number behind its id.

    Attributes:
        retrievers: Whose rankings count.
        k: The greater, the less the first ranks stand out; for ``rank`` alone.
        depth: How many passages each retriever is asked for, or ``top_k`` where that is more; a ``top_k`` of
            their own does not count.
        top_k: How many passages at most.
        weights: What is added is multiplied by these, one for each retriever, 0 or more; one with weight 0 is not
            asked. Empty counts all the same.
        normalize: ``rank``, ``minmax`` or ``zscore``.
    """

    retrievers: tuple[Retriever, ...]
    k: int = 60
    depth: int = 100
    top_k: int = 20
    weights: tuple[float, ...] = ()
    normalize: Normalize = "rank"

    def __post_init__(self) -> None:
        if not isinstance(self.retrievers, tuple) or not self.retrievers:
            raise ConfigError("retrievers", "must be at least one retriever", hint="As dense and bm25.")
        for name in ("k", "depth", "top_k"):
            at_least(name, getattr(self, name), 1)
        if self.normalize not in get_args(Normalize):
            raise ConfigError("normalize", f"must be one of {', '.join(get_args(Normalize))}, not {self.normalize!r}")
        _check_weights(self.weights, len(self.retrievers))

    def load(self) -> None:
        """Loads what its retrievers need, where they can say so."""
        for retriever, _ in self._asked():
            load = getattr(retriever, "load", None)
            if callable(load):
                load()

    def retrieve(self, queries: Sequence[Query], *, top_k: int | None = None) -> list[list[Passage]]:
        """The passages of each question, best first, their scores those of the fusion.

        Of equal scores, what an earlier retriever found comes first.

        Raises:
            ConfigError: Scores are to be normalised, and a retriever gives none, or one that is not finite.
        """
        k = self.top_k if top_k is None else at_least("top_k", top_k, 1)
        if not queries:
            return []
        depth = max(self.depth, k)
        rankings = [retriever.retrieve(queries, top_k=depth) for retriever, _ in self._asked()]
        return [self._fuse(lists, k) for lists in zip(*rankings, strict=True)]

    def _asked(self) -> list[tuple[Retriever, float]]:
        """The retrievers that count, with their weights."""
        weights = self.weights or (1.0,) * len(self.retrievers)
        return [(one, float(weight)) for one, weight in zip(self.retrievers, weights, strict=True) if weight]

    def _fuse(self, lists: Sequence[Sequence[Passage]], top_k: int) -> list[Passage]:
        lists = _told_apart(lists)
        passages: dict[str, Passage] = {}
        for ranking in lists:
            for passage in ranking:
                passages.setdefault(passage.id, passage)
        scores = dict.fromkeys(passages, 0.0)
        for ranking, (retriever, weight) in zip(lists, self._asked(), strict=True):
            worth, missing = self._worth(ranking, retriever)
            for passage_id in scores:
                scores[passage_id] += weight * worth.get(passage_id, missing)
        best = sorted(scores, key=lambda passage_id: -scores[passage_id])[:top_k]
        return [replace(passages[passage_id], score=scores[passage_id]) for passage_id in best]

    def _worth(self, ranking: Sequence[Passage], retriever: Retriever) -> tuple[Mapping[str, float], float]:
        """What each passage of a list adds, and what those add that are not in it; a repeated one counts once."""
        firsts: dict[str, tuple[int, Passage]] = {}
        for rank, passage in enumerate(ranking, start=1):
            firsts.setdefault(passage.id, (rank, passage))
        if self.normalize == "rank":
            return {passage_id: 1 / (self.k + rank) for passage_id, (rank, _) in firsts.items()}, 0.0
        values = [_score(passage, retriever) for _, passage in firsts.values()]
        scaled, missing = normalised(values, self.normalize)
        return dict(zip(firsts, scaled, strict=True)), missing


def _told_apart(lists: Sequence[Sequence[Passage]]) -> list[list[Passage]]:
    """The lists with one id for one passage: two indexes can have the same one for different texts.

    The first keeps it, others get a number behind it.
    """
    given = {passage.id for ranking in lists for passage in ranking}
    names: dict[tuple[str, str, str], str] = {}
    taken: set[str] = set()
    found: list[list[Passage]] = []
    for ranking in lists:
        found.append([])
        for passage in ranking:
            key = (passage.id, passage.title, passage.text)
            if key not in names:
                name, number = passage.id, 1
                while name in taken or (number > 1 and name in given):
                    number += 1
                    name = f"{passage.id} ({number})"
                names[key] = name
                taken.add(name)
            name = names[key]
            found[-1].append(passage if name == passage.id else replace(passage, id=name))
    return found


def normalised(scores: Sequence[float], how: Normalize) -> tuple[list[float], float]:
    """Scores of one list on a scale of their own, and what a passage counts that is not in the list.

    Args:
        scores: Finite, in any order.
        how: ``minmax`` or ``zscore``.
    """
    most = max(map(abs, scores), default=0.0)
    values = [score / most for score in scores] if most else list(scores)  # differences of huge scores stay finite
    low, high = min(values, default=0.0), max(values, default=0.0)
    if low == high:
        return [1.0] * len(values), 0.0
    if how == "minmax":
        return [(value - low) / (high - low) for value in values], 0.0
    mean, spread = statistics.fmean(values), statistics.pstdev(values)
    return [(value - mean) / spread for value in values], (low - mean) / spread


def _score(passage: Passage, retriever: Retriever) -> float:
    if passage.score is None or not math.isfinite(passage.score):
        what = "no scores" if passage.score is None else f"the score {passage.score}"
        raise ConfigError(
            "normalize", f"{name_of(retriever)} gives {what}, as for {passage.id!r}", hint="Use normalize: rank."
        )
    return float(passage.score)


def _check_weights(weights: Any, count: int) -> None:
    """Refuses weights that do not say how much each retriever counts."""
    if not isinstance(weights, tuple) or len(weights) not in (0, count):
        raise ConfigError("weights", f"must be {count} numbers, one for each retriever, not {weights!r}")
    for place, weight in enumerate(weights):
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight) or weight < 0:
            raise ConfigError(f"weights.{place}", f"must be a number of at least 0, not {weight!r}")
    if weights and not any(weights):
        raise ConfigError("weights", "are all 0", hint="Give one retriever a weight above 0.")
