"""The best words that fit a limit, of thousands: the fast sibling of ``_allocate``, in arrays.

A distinct word is counted once, by itself, with the space before it. Words are chosen by these estimates, best first;
the context that results is counted as it will be laid out, and the cut moves by what that count is off. A context is
only given back after its count was seen to fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ragzip.compressors import _allocate
from ragzip.compressors._layout import Layout
from ragzip.protocols import Counter
from ragzip.text import Stretch
from ragzip.tokens import SEPARATOR
from ragzip.types import Context, Segment

if TYPE_CHECKING:
    import numpy.typing as npt

    from ragzip.compressors._tokenwise import Words

    Ints = npt.NDArray[np.int64]

_ROUNDS = 6
_FEW = 64  # words that the slow and careful search looks at where the fast one finds nothing


def touching(offsets: Ints, spans: Sequence[Stretch]) -> tuple[Ints, Ints]:
    """Which tokens share characters with which words: indices of tokens, and beside each that of a word.

    Args:
        offsets: ``[n_tokens, 2]``, characters of each token; nothing is asked of the tokenizer that made them.
        spans: ``n_words`` stretches of characters, in order, without overlaps.

    Returns:
        Two arrays ``[n_pairs]``, ordered by token. A token in white space stands in none, one that holds several
        ideographs in several.
    """
    places = np.asarray(spans, dtype=np.int64).reshape(-1, 2)
    # From the first word that ends behind the token's start to the last that starts before its end.
    first = np.searchsorted(places[:, 1], offsets[:, 0], side="right")
    after = np.searchsorted(places[:, 0], offsets[:, 1], side="left")
    number = np.where(offsets[:, 1] > offsets[:, 0], np.maximum(after - first, 0), 0)
    token = np.repeat(np.arange(len(number)), number)
    return token, np.repeat(first - np.cumsum(number) + number, number) + np.arange(len(token))


class Choice:
    """Chooses among the words of one context.

    Args:
        layout: Its units are the words of ``groups``, in the same order.
        groups: One for each segment that has words.
        counter: The generator's.

    Attributes:
        whole: Tokens of the whole context, where they were counted: estimates are held against them.
    """

    def __init__(self, layout: Layout, groups: Sequence[Words], counter: Counter) -> None:
        self.layout, self.groups, self.counter = layout, groups, counter
        self.whole: int | None = None

    def count(self, *, whole: bool) -> None:
        """Counts what hangs on no score: each word by itself and, if asked for, the whole context."""
        _ = self._costs
        if whole:
            self.whole = self.counter.context(self.layout.context)

    def fit(self, order: Ints, limit: int, must: Ints) -> Context[Segment]:
        """The first words that fit, and later ones that fill what is left; at least a part of a word if any fits.

        Args:
            order: Indices of units, best first; others are dropped.
            limit: Most tokens of the context as laid out; it holds for every counter.
            must: Those of them that are all kept where they fit by themselves.
        """
        found = self._search(order, limit)
        if found is not None and bool(np.isin(must, found[1]).all()):
            return found[0]
        if len(must):
            least = self.layout.build(must.tolist())
            if self.counter.context(least) <= limit:
                return least
        if found is not None:
            return found[0]
        return _allocate.fit(self.layout, order[:_FEW].tolist(), limit, self.counter)

    def fit_with(self, order: Ints, limit: int, least: Ints) -> Context[Segment] | None:
        """As ``fit``, but None where not all units of ``least`` are in it, and no word is cut."""
        found = self._search(order, limit)
        return found[0] if found is not None and bool(np.isin(least, found[1]).all()) else None

    @cached_property
    def _segment(self) -> Ints:
        """``[n_units]``: the index of each unit's group."""
        return np.repeat(np.arange(len(self.groups)), [len(group.spans) for group in self.groups])

    @cached_property
    def _costs(self) -> tuple[Ints, Ints]:
        """Estimated tokens of units ``[n_units]`` and of separator and title before each group ``[n_groups]``."""
        number: dict[str, int] = {}
        ids = [
            number.setdefault(
                text[start - 1 : end] if start and text[start - 1] == " " else text[start:end], len(number)
            )
            for text, spans in ((group.text, group.spans) for group in self.groups)
            for start, end in spans
        ]
        shown = bool(getattr(self.counter, "titles", True))
        titles = [group.title + "\n" if shown and group.title else "" for group in self.groups]
        separator, *counts = self.counter.texts([SEPARATOR, *titles, *number])
        leads = [separator + (count if title else 0) for title, count in zip(titles, counts, strict=False)]
        each = np.asarray(counts[len(titles) :], dtype=np.int64)
        return each[np.asarray(ids, dtype=np.int64)], np.asarray(leads, dtype=np.int64)

    def _search(self, order: Ints, limit: int) -> tuple[Context[Segment], Ints] | None:
        """The fullest context seen to fit, with its units, moving the target of the estimate."""
        best: tuple[Context[Segment], Ints] | None = None
        most, target, over, rounds = -1, self._aim(limit), None, 0
        while target > 0 and (best is None or rounds < _ROUNDS):
            rounds += 1
            chosen, total = self._greedy(order, target)
            if not len(chosen):
                break
            context = self.layout.build(chosen.tolist())
            count = self.counter.context(context)
            if count <= limit:
                if count > most:
                    best, most = (context, chosen), count
                if len(chosen) == len(order) or limit - count <= limit // 50:
                    break
                more = max(_scaled(total, limit, count), target + 1)
                if over is not None and more >= over:
                    more = (target + over) // 2
                if more <= target:
                    break
                target = more
            else:  # by half at most, and so far that the choice changes
                over = min(target, total)
                target = min(max(_scaled(total, limit, count), target // 2), total - 1)
                if rounds > _ROUNDS:
                    target //= 2
        return best

    def _aim(self, limit: int) -> int:
        """The estimate to try first: of what costs a little less than the limit, so that it mostly fits.

        What the whole context costs beyond its words is white space, of which some goes with the words.
        """
        aim = limit - limit // 100
        if limit <= 0 or not self.whole:
            return aim
        guess = int(self._costs[0].sum() + self._costs[1].sum())
        return max(int(aim * min(max(guess / self.whole, 0.25), 4.0) ** 0.5), 1)

    def _greedy(self, order: Ints, room: int) -> tuple[Ints, int]:
        """The units that fit by the estimate, first come first served, and what they cost together."""
        units, leads = self._costs
        opened = np.zeros(len(self.groups), dtype=np.bool_)
        chosen: list[Ints] = []
        left, spent = order, 0
        while True:
            # What cannot fit any more goes; the first of what is left can, so each round takes at least one.
            segment = self._segment[left]
            lead = np.where(opened[segment], 0, leads[segment])
            possible = units[left] + lead <= room - spent
            left, segment, lead = left[possible], segment[possible], lead[possible]
            if not len(left):
                break
            first = np.zeros(len(left), dtype=np.bool_)
            first[np.unique(segment, return_index=True)[1]] = True
            total = np.cumsum(units[left] + np.where(first, lead, 0))
            number = int(np.searchsorted(total, room - spent, side="right"))
            chosen.append(left[:number])
            opened[segment[:number]] = True
            spent += int(total[number - 1])
            left = left[number:]
        return (np.concatenate(chosen) if chosen else order[:0]), spent


def _scaled(guess: int, limit: int, count: int) -> int:
    """The estimate of what costs the limit, or a little less, if what was guessed has cost the count."""
    return guess * limit * 199 // (count * 200) if count else guess + limit
