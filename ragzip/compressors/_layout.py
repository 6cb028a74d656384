"""A context cut into units that can be kept or dropped, and put together again with exact spans."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ragzip.text import Stretch, cut_before, sentences, words
from ragzip.tokens import mixed, title_of
from ragzip.types import Context, Passage, Segment, SoftSegment, Span, TextSegment

_LONGEST = 1000  # characters of a unit: about what a sentence encoder reads
_SPACE = re.compile(r"\s+")
_QUOTE = re.compile('["“”„«»]')  # what stands between two of them is one sentence, however long
_RUN = re.compile(r"(.)\1+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Unit:
    """A sentence (or word, or phrase) of a text segment, or a whole soft segment.

    Attributes:
        segment: Index of its segment in the context.
        start: First character within the segment's text; 0 for a soft segment.
        end: One past the last; 0 for a soft segment.
    """

    segment: int
    start: int
    end: int


class Layout:
    """The units of one context, in order.

    By default these are sentences. Those longer than 1,000 characters (tables, code, text without full stops) are
    several units, cut at line ends or words. Segments without any character but white space have no unit.

    Args:
        context: It is never changed.
        cut: What cuts a text into units: ``(start, end)`` in characters, in order, without overlap, none empty.
            None cuts into sentences.
    """

    def __init__(self, context: Context[Segment], *, cut: Callable[[str], Iterable[Stretch]] | None = None) -> None:
        self.context = context
        self._fine = cut is not None
        self.units: list[Unit] = []
        self.of_segment: list[range] = []
        for index, segment in enumerate(context.segments):
            first = len(self.units)
            if isinstance(segment, TextSegment):
                self.units += [Unit(index, start, end) for start, end in (cut or _units)(segment.text)]
            elif segment.embeddings.shape[0]:
                self.units.append(Unit(index, 0, 0))
            self.of_segment.append(range(first, len(self.units)))

    @cached_property
    def passages(self) -> dict[str, Passage]:
        """Passages by id; the first one counts where ids repeat."""
        return {passage.id: passage for passage in reversed(self.context.passages)}

    @cached_property
    def _titles(self) -> dict[str, str]:
        return {key: passage.title for key, passage in self.passages.items()}

    def passage(self, segment: int) -> Passage | None:
        """The passage a segment comes from, that of its first span; None where it is mixed."""
        found = self.context.segments[segment]
        sources = found.sources
        return self.passages.get(sources[0].passage_id) if sources and not mixed(found, self.passages) else None

    def title(self, segment: int) -> str:
        """The title that is printed before a segment, or ""."""
        return title_of(self.context.segments[segment], self.passages)

    def titles(self, segment: int) -> tuple[str, ...]:
        """Those of the passages that a segment comes from, each once, "" for none."""
        return tuple(dict.fromkeys(self._titles.get(s.passage_id, "") for s in self.context.segments[segment].sources))

    def size(self, unit: int) -> int:
        """How long a unit is, without counting tokens: characters, and four for each soft row."""
        place = self.units[unit]
        segment = self.context.segments[place.segment]
        return 4 * int(segment.embeddings.shape[0]) if isinstance(segment, SoftSegment) else place.end - place.start

    @cached_property
    def length(self) -> int:
        """The size of all units."""
        return sum(map(self.size, range(len(self.units))))

    def longer(self, most: int) -> bool:
        """Whether the size of all units is more, runs of one character as that character: tokens can be such runs."""
        if self.length <= most:
            return False
        left = most
        for unit in range(len(self.units)):
            text = self.text(unit)
            left -= len(_RUN.sub(r"\1", text)) if text else self.size(unit)
            if left < 0:
                return True
        return False

    def text(self, unit: int) -> str:
        """A unit's characters; "" for a soft segment."""
        place = self.units[unit]
        segment = self.context.segments[place.segment]
        return segment.text[place.start : place.end] if isinstance(segment, TextSegment) else ""

    def places(self, segment: int) -> list[Stretch]:
        """Where the units of a segment stand in its text."""
        units = self.of_segment[segment]
        return [(place.start, place.end) for place in self.units[units.start : units.stop]]

    def build(self, kept: Iterable[int], ends: Mapping[int, int] | None = None) -> Context[Segment]:
        """The context with these units alone, in their order.

        Neighbouring units keep the white space between them; others are joined by the segment's joiner, or by line ends
        where each gap holds one. Units smaller than sentences that have no white space between them (Chinese,
        Japanese) are joined by nothing.

        Args:
            kept: Indices of units.
            ends: For units to be cut short, the character of the segment's text to stop before.
        """
        ends = ends or {}
        chosen = sorted(set(kept))
        if len(chosen) == len(self.units) and not ends:
            return self.context
        segments: list[Segment] = []
        for index, stretches in self._stretches(chosen, ends).items():
            segment = self.context.segments[index]
            units = self.of_segment[index]
            whole = [(self.units[units[0]].start, self.units[units[-1]].end)]
            part: Segment | None = segment
            if isinstance(segment, TextSegment) and stretches != whole:
                part = take(segment, stretches, self.passages, self._fine)
            if part is not None:
                segments.append(part)
        return Context(self.context.query, tuple(segments), self.context.passages)

    def _stretches(self, chosen: Sequence[int], ends: Mapping[int, int]) -> dict[int, list[Stretch]]:
        """Per segment the stretches of its text that are kept, neighbouring units as one."""
        found: dict[int, list[Stretch]] = {}
        before = -2
        for unit in chosen:
            place = self.units[unit]
            stretches = found.setdefault(place.segment, [])
            end = ends.get(unit, place.end)
            if stretches and before == unit - 1 and before not in ends:
                stretches[-1] = (stretches[-1][0], end)
            else:
                stretches.append((place.start, end))
            before = unit
        return found


def _units(text: str) -> Iterable[Stretch]:
    for start, end in sentences(text):
        if end - start > _LONGEST:
            yield from _shorter(text, start, end)
        else:
            yield start, end


def _shorter(text: str, first: int, last: int) -> Iterable[Stretch]:
    """A sentence too long for a unit: what is quoted in it by sentences, and what is too long even so at line ends."""
    ends = [first + end for _, end in sentences(_QUOTE.sub(" ", text[first:last]))]
    start = first
    for end in [*ends[:-1], last]:
        while end < last and _QUOTE.match(text, end):
            end += 1
        while end - start > _LONGEST:
            stop = _break(text, start, start + _LONGEST)
            yield start, start + len(text[start:stop].rstrip())
            space = _SPACE.match(text, stop)
            start = space.end() if space else stop
        if start < end:
            yield start, end
        space = _SPACE.match(text, end)
        start = space.end() if space else end


def _break(text: str, start: int, stop: int) -> int:
    """Where to cut a long sentence at or before ``stop``: a line end, else a space, else between letters."""
    for mark in ("\n", " "):
        found = text.rfind(mark, start + _LONGEST // 2, stop)
        if found > start:
            return found
    near = start + cut_before(text[start : stop + 1], stop - start)
    return near if near > start else stop


def take(
    segment: TextSegment, stretches: Sequence[Stretch], passages: Mapping[str, Passage], fine: bool
) -> TextSegment | None:
    """The segment with only these stretches of its text; None where nothing is left."""
    return take_from(segment, stretches, _pieces(segment, passages), passages, fine)


def take_from(
    segment: TextSegment,
    stretches: Sequence[Stretch],
    pieces: list[tuple[int, Span]] | None,
    passages: Mapping[str, Passage],
    fine: bool,
    joiner: str | None = None,
) -> TextSegment | None:
    """The same with the segment's pieces, which those who take many times from one segment find once.

    Args:
        segment: As for ``take``, like the others.
        stretches: With the white space between them, where they have a joiner of their own.
        pieces: What ``_pieces`` gives.
        passages: By id.
        fine: Whether the stretches may be smaller than sentences.
        joiner: What joins them; None takes what suits the text.
    """
    if joiner is None:
        joiner = segment.joiner if not segment.joiner.strip() else " "
        lines = not fine and _lines(segment.text, stretches)
        if "\n" in joiner and not lines:
            joiner = " "
        elif joiner == " " and lines and len(stretches) > 1 and pieces is not None and len(pieces) == 1:
            joiner = "\n"
        if fine and joiner and _unspaced(segment.text, stretches):
            close = take_from(segment, _with_spaces(segment.text, stretches), pieces, passages, fine, "")
            texts = [segment.text[start:end] for start, end in _with_spaces(segment.text, stretches)]
            if close is None or pieces is None or len(pieces) == 1:
                apart = _apart(texts)
            else:
                apart = _apart([passages[s.passage_id].text[s.start : s.end] for s in close.sources])
            if apart:
                return close
        if not fine and not joiner.strip("\n ") and "\n" not in joiner and pieces is not None:
            found = [span for start, end in stretches for span in spans_at(pieces, start, end)]
            own = _with_gaps(found, passages)
            texts = [passages[span.passage_id].text[span.start : span.end] for span in own or ()]
            if own and _apart(texts):
                return TextSegment("".join(texts), tuple(own), "")
        if not joiner:
            stretches = _with_spaces(segment.text, stretches)
    if pieces is None:  # abstractive: the text is cut, and the spans still say what it was written from
        text = joiner.join(segment.text[start:end] for start, end in stretches)
        return TextSegment(text, segment.sources, joiner) if text.strip() else None
    spans = [span for start, end in stretches for span in spans_at(pieces, start, end)]
    text = joiner.join(passages[s.passage_id].text[s.start : s.end] for s in spans)
    return TextSegment(text, tuple(spans), joiner) if text.strip() else None


def _lines(text: str, stretches: Sequence[Stretch]) -> bool:
    """Whether there is a line end wherever something is dropped between two that are kept: rows, items, paragraphs."""
    return all("\n" in text[end:start] for (_, end), (start, _) in itertools.pairwise(stretches))


def _unspaced(text: str, stretches: Sequence[Stretch]) -> bool:
    """Whether at some gap the text has no white space on either side of what is dropped."""
    return any(
        not text[end].isspace() and not text[start - 1].isspace()
        for (_, end), (start, _) in itertools.pairwise(stretches)
    )


def spans_at(pieces: Sequence[tuple[int, Span]], start: int, end: int) -> list[Span]:
    """The spans of a stretch of a segment's text, given what ``_pieces`` gives."""
    spans: list[Span] = []
    number = max(bisect_right(pieces, start, key=lambda piece: piece[0]) - 1, 0)
    while number < len(pieces) and pieces[number][0] < end:
        offset, span = pieces[number]
        first, last = max(start, offset), min(end, offset + len(span))
        if first < last:
            spans.append(Span(span.passage_id, span.start + first - offset, span.start + last - offset))
        number += 1
    return spans


def _apart(texts: Sequence[str]) -> bool:
    """Whether no word or number is made of two where texts are joined by nothing."""
    seams = (first[-1] + second[0] for first, second in itertools.pairwise(texts))
    return all(
        len(words(seam)) != 1 or any(c.isspace() or not (c.isascii() or c.isalnum()) for c in seam) for seam in seams
    )


def _with_spaces(text: str, stretches: Sequence[Stretch]) -> list[Stretch]:
    """The stretches, each but the last with the one white space after it, so that they can be joined by nothing.

    Where white space is only before the next stretch, that one is taken instead.
    """
    spaced: list[Stretch] = []
    for number, (start, end) in enumerate(stretches):
        if spaced and start and not text[spaced[-1][1] - 1].isspace() and text[start - 1].isspace():
            start -= 1
        if number < len(stretches) - 1 and text[end : end + 1].isspace():
            end += 1
        spaced.append((start, end))
    return spaced


def _with_gaps(spans: Sequence[Span], passages: Mapping[str, Passage]) -> list[Span] | None:
    """The spans with white space of the gaps between them, so that they can be joined by nothing.

    Of each gap that is all up to the first line end, where what is dropped stood on lines of its own on one side at
    least, else one white space. None where no gap has a line end, and where spans do not follow one another.
    """
    spaced = list(spans)
    lines = False
    for number, (one, other) in enumerate(itertools.pairwise(spans)):
        text = passages[one.passage_id].text
        if one.passage_id != other.passage_id or one.end > other.start:
            return None
        gap = text[one.end : other.start]
        before, after = gap[: len(gap) - len(gap.lstrip())], gap[len(gap.rstrip()) :]
        line = "\n" in before or "\n" in after
        lines = lines or line
        if text[one.end - 1].isspace() or text[other.start].isspace():
            continue
        if "\n" in before or (before and not line):
            spaced[number] = Span(one.passage_id, spaced[number].start, one.end + max(before.find("\n"), 0) + 1)
        elif after:
            first = other.start - max(after[::-1].find("\n"), 0) - 1
            spaced[number + 1] = Span(other.passage_id, first, other.end)
    return spaced if lines else None


def _pieces(segment: TextSegment, passages: Mapping[str, Passage]) -> list[tuple[int, Span]] | None:
    """Where each span of an extractive segment begins in its text; None if the text is not what its spans say."""
    if not segment.sources:
        return None
    pieces, position = [], 0
    text, joiner = segment.text, segment.joiner
    for number, span in enumerate(segment.sources):
        passage = passages.get(span.passage_id)
        if passage is None or span.end > len(passage.text):
            return None
        if number:
            if not text.startswith(joiner, position):
                return None
            position += len(joiner)
        if not text.startswith(passage.text[span.start : span.end], position):
            return None
        pieces.append((position, span))
        position += len(span)
    return pieces if position == len(text) else None
