"""JSON, tables, code and lists stay valid and whole; another compressor works on the prose between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from ragzip.compressors._allocate import fit
from ragzip.compressors._layout import Layout, _units
from ragzip.compressors._options import check_count, counter_of
from ragzip.compressors._parts import Answer, Asked, Part, rejoin, take_apart
from ragzip.compressors._records import Cut
from ragzip.compressors.budget import Budget
from ragzip.compressors.sentence_filter import SentenceFilter
from ragzip.errors import ConfigError
from ragzip.protocols import Compressor, Counter, Stack, runtime_field
from ragzip.protocols._compressor import members
from ragzip.text import Stretch
from ragzip.types import Context, Segment, TextSegment

_ROUNDS = 4  # of asking for the prose, until it fits beside the structures
_SHARES = (1.0, 0.8, 0.6, 0.4, 0.2)  # of a budget, tried in turn where rows and items are chosen
_SLACK = 0.05  # share of the room that may be left over


@dataclass(frozen=True)
class Structured(Compressor[TextSegment, TextSegment]):
    """Compresses prose with another compressor and never breaks what is not prose.

    Half a table or a JSON object without its end is worth less than none: a generator reads wrong cells into it, and
    a program cannot read it. So code (between fences, indented, or at the left edge), Markdown, HTML and delimited
    tables (one record a line), preformatted HTML, lists, and JSON within a text are kept whole; headings and
    everything else are prose. The inner compressor gets the prose of each passage as one text, with the passage's
    title, and its choice is put back between the structures, in the order of the passage. A segment that is JSON as a
    whole keeps its keys, numbers and shape; the sentences of its longer strings are prose, so that the result is JSON
    again (and its spans name what it was read from). Passages keep their order where there are structures, whatever
    order the inner compressor gives them. A context without structures goes to the inner compressor as it is.

    With a budget, structures come first and prose gets the rest: the inner compressor is asked up to four times, until
    what it leaves fits and fills it (once, if it has no budget of its own). Where the structures alone are over the
    budget, they are dropped whole, those first of which the inner compressor, given everything, would have kept the
    smallest share; those of which it would have kept nothing come after the prose. Where none fits, those rows of
    tables, with their header, and items of lists stay of which it would have kept something, as many as fit. The prose
    is then asked for once more, with what is left of the budget.

    Attributes:
        inner: What compresses the prose: any compressor from text to text. Its ``keep`` and ``threshold`` speak of
            the prose alone, its force-keep options and other limits as well; its ``budget`` is that of the whole
            context.
        budget: Most tokens of the whole context as laid out; always met.
        counter: Whose tokens are counted; the generator's within a pipeline.
    """

    inner: Compressor[TextSegment, TextSegment] = field(default_factory=SentenceFilter)
    budget: int | None = None
    counter: Counter | None = runtime_field()

    def __post_init__(self) -> None:
        check_count("budget", self.budget)
        if not isinstance(self.inner, Compressor):
            raise ConfigError("inner", f"must be a compressor, not {self.inner!r}")

    def compress(self, contexts: Sequence[Context[TextSegment]]) -> Sequence[Context[TextSegment]]:
        """Each context with its structures whole and its prose compressed."""
        limits = [limit for limit in (self.budget, _budget_of(self.inner)) if limit is not None]
        if limits:
            found = [self._within(context, min(limits)) for context in contexts]
            return [cast("Context[TextSegment]", context) for context in found]
        parts = [take_apart(context) for context in contexts]
        asked = [Asked(context, found) for context, found in zip(contexts, parts, strict=True)]
        put = [
            context if _plain(found) else one.context
            for context, found, one in zip(contexts, parts, asked, strict=True)
        ]
        answers = self.inner.compress(put)
        return [
            answer if _plain(found) else cast("Context[TextSegment]", self._put(context, found, one.read(answer)))
            for context, found, one, answer in zip(contexts, parts, asked, answers, strict=True)
        ]

    def _put(self, context: Context[TextSegment], parts: Sequence[Part], answer: Answer) -> Context[Segment]:
        """The context with what the answer leaves of its prose, unless it costs more."""
        left, _ = _left(context, parts, answer)
        if list(left.segments) == [part.segment for part in parts]:
            return cast("Context[Segment]", context)
        return self._smaller(context, left)

    def _smaller(self, context: Context[TextSegment], left: Context[Segment]) -> Context[Segment]:
        counter, before = counter_of(self.counter), cast("Context[Segment]", context)
        made = rejoin(left, counter)
        return made if counter.context(made) <= counter.context(before) else before

    def _within(self, context: Context[TextSegment], limit: int, *, once: bool = False) -> Context[Segment]:
        """The context within a budget; with ``once`` nothing, where its structures alone are over that."""
        parts, counter = take_apart(context), counter_of(self.counter)
        if _plain(parts):
            return _cut(self._asker(context)(limit), [], limit, counter)
        shells = tuple(part.shell() for part in parts if part.kind != "prose")
        base = counter.context(Context(context.query, shells, context.passages))
        if base > limit and once:
            return Context(context.query, (), context.passages)
        if base > limit:
            return self._smaller(context, self._crowded(context, parts, limit))
        asked, all_of_it = Asked(context, parts), counter.context(_segments(context))
        ask = self._asker(asked.context)
        written = any(part.kind == "json" for part in parts)
        whole = counter.context(_segments(asked.context))
        # Within JSON a token of prose costs its share of the whole; else as much, and titles that stand there are free.
        room = whole * (limit - base) // max(all_of_it - base, 1) if written else limit + whole - all_of_it
        left, kept = _left(context, parts, asked.read(Context(context.query, (), context.passages)))
        best, least, low, high, seen = None, -1, 0, limit + whole, set[tuple[Segment, ...]]()
        for _ in range(_ROUNDS):
            room = min(max(room, low + 1), high - 1)
            given = ask(room) if room > low else None
            if given is None or given.segments in seen:
                break
            seen.add(given.segments)
            left, kept = _left(context, parts, asked.read(given))
            count = counter.context(left)
            if count <= limit:
                low = room
                if count > least:
                    best, least = (left, kept), count
                if room >= whole or limit - count <= _SLACK * limit:
                    break
            else:
                high = room
            room = counter.context(given) * (limit - base) // max(count - base, 1) if written else room + limit - count
        if best is None and any(part.kind == "json" for part in parts):  # it cannot be cut, but it can be empty
            best = _left(context, parts, asked.read(Context(context.query, (), context.passages)))
        left, kept = best or (left, kept)
        if list(left.segments) == [part.segment for part in parts] and all_of_it <= limit:
            return _segments(context)
        uncut = [place for place, index in enumerate(kept) if index >= 0 and parts[index].kind != "prose"]
        return self._smaller(context, _cut(left, uncut, limit, counter))

    def _crowded(self, context: Context[TextSegment], parts: Sequence[Part], limit: int) -> Context[Segment]:
        """Where the structures alone are over the budget: those that the inner compressor wants most."""
        asked = Asked(context, parts, everything=True)
        ask = self._asker(asked.context)
        answer = asked.read(ask(limit))
        left, kept = _left(context, parts, answer)
        wanted = {
            place: answer.share(index, parts[index])
            for place, index in enumerate(kept)
            if index >= 0 and parts[index].kind != "prose"
        }
        counter = counter_of(self.counter)
        found = _cut(left, sorted(wanted, key=lambda place: -wanted[place]), limit, counter, wanted)
        stays = {id(segment) for segment in found.segments}
        chosen = {kept[place] for place, share in wanted.items() if share > 0 and id(left.segments[place]) in stays}
        if not chosen and any(wanted.values()):
            # beside a header, and with rows whole, less fits than the inner compressor may take
            cuts = (Cut(context, parts, asked.read(ask(int(share * limit)))) for share in _SHARES)
            cut = next((cut for cut in cuts if cut.whole(limit, counter)), None) or Cut(context, parts, answer)
            made = cut.best(limit, counter)
            if made is not None:
                prose = Asked(context, parts)
                more = prose.read(self._asker(prose.context)(limit - counter.context(cut.rows())))
                return _larger(made, cut.rows(more), limit, counter)
        # what was dropped was asked about, too: the prose may be given what that took
        rest = tuple(part.segment for index, part in enumerate(parts) if index in chosen or part.kind == "prose")
        again = self._within(replace(context, segments=rest), limit, once=True)
        return _larger(found, again, limit, counter)

    def _asker(self, context: Context[TextSegment]) -> Callable[[int], Context[Segment]]:
        """Gives the inner compressor's answer within budgets; one that has no budget is asked once."""
        bounded = any(map(_budget_option, members(self.inner)))
        found: list[Context[Segment]] = []

        def ask(limit: int) -> Context[Segment]:
            if not context.segments or limit <= 0:
                return Context(context.query, (), context.passages)
            if bounded:
                return cast("Context[Segment]", _within(self.inner, limit).compress([context])[0])
            if not found:
                found.extend(cast("Sequence[Context[Segment]]", self.inner.compress([context])))
            return Budget(limit, counter=self.counter).compress(found)[0]

        return ask


def _larger(found: Context[Segment], other: Context[Segment], limit: int, counter: Counter) -> Context[Segment]:
    """The other context if it is within the limit and has more tokens, else the first."""
    return other if counter.context(found) < counter.context(other) <= limit else found


def _budget_option(inner: Compressor[Any, Any]) -> str:
    options: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(inner) if dataclasses.is_dataclass(inner) else ()
    names = {option.name for option in options}
    return "budget" if "budget" in names else "tokens" if "tokens" in names else ""


def _budget_of(inner: Compressor[Any, Any]) -> int | None:
    """The least budget of a compressor, or of those of a stack and of the stacks within it."""
    if isinstance(inner, Stack):
        found = [_budget_of(one) for one in inner.compressors]
    else:
        option = _budget_option(inner)
        found = [getattr(inner, option)] if option else []
    return min((budget for budget in found if budget is not None), default=None)


def _within(inner: Compressor[Any, Any], limit: int) -> Compressor[Any, Any]:
    """The same compressor with at most this budget; of a stack the last part that can have one gets it."""
    parts: list[Any] = list(members(inner))
    last = max(place for place, one in enumerate(parts) if _budget_option(one))
    for place, one in enumerate(parts):
        option = _budget_option(one)
        given = getattr(one, option) if option else None
        if place == last or given is not None:
            parts[place] = dataclasses.replace(one, **{option: limit if given is None else min(limit, given)})
    return dataclasses.replace(inner, compressors=tuple(parts)) if isinstance(inner, Stack) else parts[0]


def _plain(parts: Sequence[Part]) -> bool:
    return all(part.kind == "prose" for part in parts)


def _segments(context: Context[TextSegment]) -> Context[Segment]:
    return cast("Context[Segment]", context)


def _left(context: Context[TextSegment], parts: Sequence[Part], answer: Answer) -> tuple[Context[Segment], list[int]]:
    """What is left of the parts, all structures included, and for each segment which part it is; -1 for none."""
    passages = {passage.id: passage for passage in reversed(context.passages)}
    made = [(index, answer.part(index, part, passages)) for index, part in enumerate(parts)]
    segments = [(index, segment) for index, segment in made if segment is not None]
    segments += [(-1, segment) for segment in answer.loose]
    left: Context[Segment] = Context(context.query, tuple(s for _, s in segments), context.passages)
    return left, [index for index, _ in segments]


def _cut(
    left: Context[Segment],
    whole: Sequence[int],
    limit: int,
    counter: Counter,
    wanted: Mapping[int, float] | None = None,
) -> Context[Segment]:
    """Within a budget: structures in this order, unless not wanted at all; then prose; then the other structures.

    Args:
        left: The context.
        whole: Its segments that are never cut, best first.
        limit: Most tokens.
        counter: Counts them.
        wanted: How much each of these is wanted; None where all must be kept.
    """
    if counter.context(left) <= limit:
        return left
    uncut = set(whole)
    number = iter(range(len(left.segments)))

    def units(text: str) -> Iterable[Stretch]:
        return [(0, len(text))] if next(number) in uncut else _units(text)

    layout = Layout(left, cut=units)
    place = {index: unit for unit, index in enumerate(u.segment for u in layout.units)}
    structures = [place[index] for index in whole]
    prose = [unit for unit in range(len(layout.units)) if layout.units[unit].segment not in uncut]
    first = [unit for unit, index in zip(structures, whole, strict=True) if wanted is None or wanted[index] > 0]
    before = set(first)
    last = [unit for unit in structures if unit not in before]
    found = fit(layout, [*first, *prose, *last], limit, counter, cut=False, must=() if wanted else structures)
    return found if found.segments else fit(layout, prose, limit, counter)
