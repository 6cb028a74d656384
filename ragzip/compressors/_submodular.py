"""Choosing a set by diminishing returns: an objective over sentences, and the greedy choice that is nearly best.

``F(S) = relevance + coverage + diversity``, each divided by what all sentences together give, so that its part runs
from 0 to its weight. F is monotone and submodular: a sentence adds the less, the more is chosen already, and never
less than nothing. Greedy choice then reaches 1-1/e of the best there is for a number of sentences (Nemhauser, Wolsey
and Fisher 1978), and 1-1/sqrt(e) under a token budget, if compared with the best single sentence (Lin and Bilmes
2010; the proof was mended by Tang et al. 2021, arXiv 2008.05391).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Gains(Protocol):
    """A set that grows, and what an element would add to its value."""

    def gain(self, element: int) -> float:
        """What adding this element now would add."""
        ...

    def add(self, element: int) -> None:
        """Adds it."""
        ...


class Objective:
    """Relevance, coverage and diversity of a growing set of sentences.

    Coverage is facility location: each sentence is as well covered as by the most similar one in the set, and counts
    as much as it is relevant. Diversity is the sum over groups of the square root of their relevance in the set: the
    second sentence of a group is worth less than the first of another.

    Args:
        relevance: ``[n]``, at least 0.
        similarity: ``[n, n]``, at least 0.
        groups: ``[n]``, which group each sentence is in.
        weights: Of relevance, coverage and diversity, at least 0.
    """

    def __init__(
        self,
        relevance: npt.NDArray[np.float64],
        similarity: npt.NDArray[np.floating[Any]],
        groups: npt.NDArray[np.int64],
        weights: tuple[float, float, float],
    ) -> None:
        import numpy as np

        self._similarity, self._groups, self._relevance = similarity, groups, relevance
        self._in_group = np.zeros(int(groups.max(initial=-1)) + 1)
        self._covered = np.zeros(len(relevance))
        whole = np.zeros_like(self._in_group)
        np.add.at(whole, groups, relevance)
        totals = (
            float(relevance.sum()),
            float(relevance @ similarity.max(axis=0, initial=0.0)),
            float(np.sqrt(whole).sum()),
        )
        self._scale = [weight / total if total > 0 else 0.0 for weight, total in zip(weights, totals, strict=True)]
        self._mass = relevance * self._scale[1]
        self._spent = set[int]()  # sentences that cover nothing more
        self.value = 0.0

    def gain(self, element: int) -> float:
        """What the sentence adds now. Written such that rounding, too, never lets it grow with the set."""
        import numpy as np

        own = float(self._relevance[element])
        covers = 0.0
        if element not in self._spent:
            covers = float(self._mass @ np.maximum(self._similarity[element] - self._covered, 0.0))
            if covers == 0.0:
                self._spent.add(element)
        held = float(self._in_group[self._groups[element]])
        voice = own / (math.sqrt(held + own) + math.sqrt(held)) if own else 0.0  # sqrt(held + own) - sqrt(held)
        return self._scale[0] * own + covers + self._scale[2] * voice

    def add(self, element: int) -> None:
        """Puts the sentence into the set."""
        import numpy as np

        self.value += self.gain(element)
        self._covered = np.maximum(self._covered, self._similarity[element])
        self._in_group[self._groups[element]] += self._relevance[element]


def lazy_greedy(
    gains: Gains, costs: Sequence[float], budget: float, *, scaling: float = 1.0, start: Sequence[int] = ()
) -> list[int]:
    """The elements with the most gain for their cost that fit a budget, in the order of their choice.

    Gains only shrink, so an element whose gain was too small before the set grew needs no second look until it comes
    first again (Minoux 1978): the choice is exactly that of looking at all elements at every step. An element that
    does not fit is passed over for good. If the best single element is worth more than the whole choice, it is the
    choice: without this, one long sentence that says everything could lose against a short one that says little.

    Args:
        gains: The empty set; it is changed.
        costs: Of each element, at least 0.
        budget: Most cost of the elements chosen, those in ``start`` not counted.
        scaling: Costs are raised to this power before gains are divided by them: 1 for the bound above, 0 to
            ignore costs, which is right for equal ones.
        start: Elements in the set from the start, outside the budget.

    Returns:
        Elements, without those in ``start``; equal ones in their order. Elements that add nothing come last.
    """
    for element in start:
        gains.add(element)
    given = set(start)
    weights = [max(cost, 1e-12) ** scaling for cost in costs]
    fitting = [element for element in range(len(costs)) if element not in given and costs[element] <= budget]
    first = {element: gains.gain(element) for element in fitting}
    heap = [(-first[element] / weights[element], element) for element in fitting]
    heapq.heapify(heap)
    chosen: list[int] = []
    room, total = budget, 0.0
    while (best := _next(heap, gains, costs, weights, room)) is not None:
        element, gain = best
        gains.add(element)
        chosen.append(element)
        room -= costs[element]
        total += gain
    alone = max(fitting, key=lambda element: (first[element], -element), default=-1)
    if alone >= 0 and first[alone] > total:
        return [alone]
    return chosen


def better_greedy(
    fresh: Callable[[], Gains], costs: Sequence[float], budget: float, *, scaling: float, start: Sequence[int] = ()
) -> list[int]:
    """The better of two greedy choices, with costs to the power of ``scaling`` and to that of 1.

    The second one is within the bound, and so is the better one, whatever the scaling.

    Args:
        fresh: Makes the empty set.
        costs: As for ``lazy_greedy``.
        budget: As for ``lazy_greedy``.
        scaling: Of the first choice, which stands where both are worth the same.
        start: As for ``lazy_greedy``.
    """
    choices = []
    for power in dict.fromkeys((scaling, 1.0)):
        chosen = lazy_greedy(fresh(), costs, budget, scaling=power, start=start)
        gains, worth = fresh(), 0.0
        for element in (*start, *chosen):
            worth += gains.gain(element)
            gains.add(element)
        choices.append((worth, chosen))
    return max(choices, key=lambda choice: choice[0])[1]


def _next(
    heap: list[tuple[float, int]], gains: Gains, costs: Sequence[float], weights: Sequence[float], room: float
) -> tuple[int, float] | None:
    """Takes the best element that fits off the heap, with its gain; None where none fits."""
    best: tuple[float, int] | None = None
    worth = 0.0
    looked: list[tuple[float, int]] = []
    while heap and (best is None or heap[0] < best):
        element = heapq.heappop(heap)[1]
        if costs[element] > room:
            continue
        gain = gains.gain(element)
        entry = (-gain / weights[element], element)
        looked.append(entry)
        if best is None or entry < best:
            best, worth = entry, gain
    for entry in looked:
        if entry is not best:
            heapq.heappush(heap, entry)
    return None if best is None else (best[1], worth)
