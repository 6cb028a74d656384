"""The best units that fit a budget, in the generator's own tokens: the one place where budgets are met.

Tokens do not add up exactly: what a sentence costs depends on what stands before it. So units are counted by
themselves, as far as they come into question, and chosen by these estimates; the context that results is counted as
it will be laid out, and the estimate's target moves by what that count is off. A context is only given back after
its count was seen to fit.
"""

from __future__ import annotations

from collections import Counter as Multiset
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from ragzip.compressors._layout import Layout
from ragzip.protocols import Counter
from ragzip.text import cut_before, words
from ragzip.tokens import SEPARATOR, lay_out
from ragzip.types import Context, Segment, SoftSegment, TextSegment

_ROUNDS = 6
_CUTS, _MOST_CUTS = 3, 64
_FEW = 4
_BATCH = 16
_DOUBT = 8  # tokens by which the estimate of a unit that fits can be too high, and a sixteenth of the limit
_LIKELY = 4.0  # characters of a token, until some were counted

Skip = Literal["unit", "segment", "all"]
"""What is passed over when a unit does not fit: it alone, the rest of its segment, or everything after it."""


def fits(layout: Layout, limit: int, counter: Counter) -> bool:
    """Whether the whole context is within the limit; not counted where its length leaves no doubt."""
    return not layout.longer(8 * limit + 64) and counter.context(layout.context) <= limit


def fit(
    layout: Layout,
    ranked: Sequence[int],
    limit: int,
    counter: Counter,
    *,
    skip: Skip = "unit",
    cut: bool = True,
    must: Collection[int] = (),
) -> Context[Segment]:
    """The context of the first units that fit, and of later ones that fill what is left.

    Args:
        layout: The units.
        ranked: Indices of units, best first; others are dropped.
        limit: Most tokens of the context as laid out; it holds for every counter.
        counter: The generator's.
        skip: What to pass over when a unit does not fit.
        cut: Where no unit fits, cut the best ones at a word, else within one, rather than keep nothing. The best is
            cut, too, where it does not fit and those that do fill less than a quarter of the limit; and so is the first
            one that is passed over with all that follows it, behind those that fill less than a quarter.
        must: Units that are all kept where they fit by themselves; where they do not, the first one that fits is, and
            ``ranked`` decides on the others.
    """
    if limit <= 0 or not ranked:
        return layout.build(())
    costs = Costs(layout, counter)
    base = _base(layout, ranked, must, limit, counter) if must else _best(layout, ranked, limit, counter, costs)
    found = _search(layout, ranked, limit, counter, costs, skip, base)
    if costs.guessed and (found is None or found[1] <= limit // 2):
        costs.exact = True  # text unlike any other, such as long runs of white space: leave nothing to guesses
        found = _search(layout, ranked, limit, counter, costs, skip, base)
    units, cost = found or (base.units, base.cost)
    kept = layout.build(units)
    if not units and cut:
        return _cut(layout, ranked, limit, counter) or kept
    if cut and not must and _scraps(layout, ranked[0], kept, limit, counter):
        return _cut(layout, ranked[:1], limit, counter) or kept
    if cut and not must and skip != "unit" and cost <= limit // _FEW:
        blocked = [unit for unit in ranked if unit not in units]
        return _cut(layout, blocked[:1] if skip == "all" else blocked, limit, counter, units) or kept
    return kept


def _scraps(layout: Layout, best: int, found: Context[Segment], limit: int, counter: Counter) -> bool:
    """Whether the best unit is too long and what was found instead next to nothing: the like of "OK. See below."."""
    shown = sum(len(segment.text) for segment in found.segments if isinstance(segment, TextSegment))
    if shown > len(layout.text(best)):  # it need not be counted
        return False
    return counter.context(found) <= limit // _FEW and counter.context(layout.build((best,))) > limit


@dataclass(frozen=True, slots=True)
class _Base:
    """Units that are in every choice, the segments they open, and what they cost together."""

    units: frozenset[int] = frozenset()
    segments: frozenset[int] = frozenset()
    cost: int = 0


def _base(layout: Layout, ranked: Sequence[int], must: Collection[int], limit: int, counter: Counter) -> _Base:
    """What must be kept; where that does not fit the first of it that does, by its true count; else nothing."""
    wanted = frozenset(must)
    for units in (wanted, *(frozenset({unit}) for unit in ranked if unit in wanted)) if wanted else ():
        cost = counter.context(layout.build(units))
        if cost <= limit:
            return _Base(units, frozenset(layout.units[unit].segment for unit in units), cost)
    return _Base()


def _best(layout: Layout, ranked: Sequence[int], limit: int, counter: Counter, costs: Costs) -> _Base:
    """The best unit where it fits and the estimate leaves that in doubt; else nothing, and all is open."""
    unit = ranked[0]
    guess = costs.unit(ranked, 0, limit) + costs.lead(layout.units[unit].segment)
    if costs.guessed or not _aim(limit) < guess <= limit + limit // 16 + _DOUBT:
        return _Base()
    return _base(layout, ranked, (unit,), limit, counter)


def _aim(limit: int) -> int:
    """What the estimates aim at: joined, sentences mostly cost a little more than one by one."""
    return limit - limit // 64


def share_of(
    layout: Layout, ranked: Sequence[int], share: int, budget: int | None, counter: Counter, must: Collection[int]
) -> Context[Segment]:
    """The context of the first units that fit a share; the first one stays whole even where it is more.

    Args:
        layout: The units.
        ranked: As for ``fit``, like ``counter`` and ``must``.
        share: In tokens.
        budget: Greater than the share and never exceeded: where the first unit does, others fill the share, and where
            none does it is cut. None is no limit.
        counter: The generator's.
        must: Units that are all kept.
    """
    if not ranked:
        return layout.build(())
    best = layout.build(ranked[:1])
    cost = counter.context(best)
    if share < cost and (budget is None or cost <= budget):
        return best
    kept = fit(layout, ranked, share, counter, cut=False, must=must)
    return kept if kept.segments or budget is None else fit(layout, ranked[:1], budget, counter)


def unless_grown(layout: Layout, context: Context[Segment], counter: Callable[[], Counter]) -> Context[Segment]:
    """The compressed context, or the one it came from where it costs more.

    Dropping text can only cost tokens where a segment made of several passages loses some of them, so that another
    title is printed, or one at all; only then are tokens counted.
    """
    new, old = (Multiset(p.strip() for p in lay_out(c) if isinstance(p, str)) for c in (context, layout.context))
    if new <= old:
        return context
    used = counter()
    return context if used.context(context) <= used.context(layout.context) else layout.context


class Costs:
    """Estimated tokens of units and of titles, each counted by itself, many in one call, when first asked for.

    Attributes:
        exact: Whether units far too long for the room are counted, too.
        guessed: Whether one was not.
    """

    def __init__(self, layout: Layout, counter: Counter) -> None:
        self.layout, self.counter, self.exact, self.guessed = layout, counter, False, False
        self._units: dict[int, int] = {}
        self._leads: dict[int, int] = {}
        self._titles = bool(getattr(counter, "titles", True))
        self._characters, self._tokens = _LIKELY, 1.0

    def lead(self, segment: int) -> int:
        """Of a segment's separator and title; after a unit of it was asked for."""
        return self._leads.get(segment, 0)

    def unit(self, ranked: Sequence[int], place: int, room: int) -> int:
        """Of the unit at a place of the ranking; where it is far longer than the room, a guess by its length."""
        unit = ranked[place]
        if unit not in self._units:
            if self._hopeless(unit, room):
                self.guessed = True
                return room + 1
            self._count(ranked, place, room)
        return self._units[unit]

    def _hopeless(self, unit: int, room: int) -> bool:
        return not self.exact and self.layout.size(unit) * self._tokens > (2 * room + 8) * self._characters

    def _count(self, ranked: Sequence[int], place: int, room: int) -> None:
        """Counts a unit and those after it that may find room as well, with their titles."""
        units: list[int] = []
        length = 0
        for later in range(place, len(ranked)):
            unit = ranked[later]
            if unit not in self._units and not self._hopeless(unit, room):
                units.append(unit)
                length += self.layout.size(unit)
            if len(units) >= _BATCH and length * self._tokens > room * self._characters:
                break
        segments = sorted({self.layout.units[unit].segment for unit in units} - set(self._leads))
        titles = [self.layout.title(segment) if self._titles else "" for segment in segments]
        texts = [self.layout.text(unit) for unit in units]
        separator, *counts = self.counter.texts([SEPARATOR, *(title + "\n" for title in titles), *texts])
        for segment, title, count in zip(segments, titles, counts, strict=False):
            self._leads[segment] = separator + (count if title else 0)
        for unit, text, count in zip(units, texts, counts[len(segments) :], strict=True):
            source = self.layout.context.segments[self.layout.units[unit].segment]
            self._units[unit] = int(source.embeddings.shape[0]) if isinstance(source, SoftSegment) else count
            self._characters += len(text)
            self._tokens += count


def _search(
    layout: Layout, ranked: Sequence[int], limit: int, counter: Counter, costs: Costs, skip: Skip, base: _Base
) -> tuple[frozenset[int], int] | None:
    """The fullest choice seen to fit and its true cost, the estimate's target moving; None where none was found."""
    best: frozenset[int] | None = None
    most, target, tried = -1, _aim(limit), set[frozenset[int]]()
    while target > 0:
        chosen, total = _greedy(layout, ranked, target, costs, skip, base)
        if not chosen or chosen in tried or (best is not None and len(tried) >= _ROUNDS):
            break
        tried.add(chosen)
        count = counter.context(layout.build(chosen))
        if count <= limit:
            if count > most:
                best, most = chosen, count
            if limit - count <= limit // 50:
                break
            target += limit - count
        else:  # lower the target by what is too much, by half at most, and so far that the choice changes
            target = min(max(target - (count - limit), target // 2), total - 1)
            if len(tried) > _ROUNDS:
                target //= 2
    return None if best is None else (best, most)


def _greedy(
    layout: Layout, ranked: Sequence[int], target: int, costs: Costs, skip: Skip, base: _Base
) -> tuple[frozenset[int], int]:
    """The units that fit the target by the estimate, first come first served, and what they cost."""
    room, chosen, opened, closed = target - base.cost, set(base.units), set(base.segments), set[int]()
    for place, unit in enumerate(ranked):
        segment = layout.units[unit].segment
        if unit in base.units or segment in closed:
            continue
        cost = costs.unit(ranked, place, room)
        cost += 0 if segment in opened else costs.lead(segment)
        if cost <= room:
            room -= cost
            chosen.add(unit)
            opened.add(segment)
        elif skip == "all":
            break
        elif skip == "segment":
            closed.add(segment)
    return frozenset(chosen), target - room


def _cut(
    layout: Layout, ranked: Sequence[int], limit: int, counter: Counter, kept: Collection[int] = ()
) -> Context[Segment] | None:
    """The head of the best unit of which a head fits beside those kept and its title; None where no character does."""
    seen, tries = set[int](), 0
    for unit in ranked:
        place = layout.units[unit]
        text = layout.text(unit)
        if place.segment in seen or not text:
            continue
        seen.add(place.segment)
        if tries == _CUTS or len(seen) > _MOST_CUTS:
            break

        def head(end: int, unit: int = unit, start: int = place.start) -> Context[Segment]:
            return layout.build((*kept, unit), {unit: start + end})

        def small(end: int, head: Callable[[int], Context[Segment]] = head) -> bool:
            return counter.context(head(end)) <= limit

        if not small(1):  # the title alone is too much
            continue
        tries += 1
        ends = [end for _, end in words(text)]
        found = _longest(ends, small)
        if not found:
            found = _longest(sorted({cut_before(text, at) for at in range(1, ends[0])} - {0}), small)
        if found:
            return head(found)
    return None


def _longest(ends: Sequence[int], small: Callable[[int], bool]) -> int:
    """By bisection, the last end that was seen to fit; 0 where none was."""
    low, high, found = 0, len(ends) - 1, 0
    while low <= high:
        middle = (low + high) // 2
        if small(ends[middle]):
            found, low = ends[middle], middle + 1
        else:
            high = middle - 1
    return found
