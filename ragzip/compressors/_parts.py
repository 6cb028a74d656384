"""A context taken apart into structures and prose, the question put to another compressor, and the way back."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from typing import Literal, cast

from ragzip.compressors._json_text import is_json, json_literal
from ragzip.compressors._layout import _pieces, take_from
from ragzip.compressors._relevance import titles_of
from ragzip.compressors._structures import json_prose, structures
from ragzip.errors import ConfigError
from ragzip.protocols import Counter
from ragzip.text import Stretch, complement, merge
from ragzip.tokens import SEPARATOR
from ragzip.types import Context, Passage, Segment, Span, TextSegment

Kind = Literal["prose", "whole", "json"]
_INVISIBLE = "\ufeff\u200b\u2060"  # byte order marks and the like, which are no white space to Python
_GAP = 2  # characters of white space over which neighbours are put together again


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a segment.

    Attributes:
        owner: Index of its segment in the context.
        segment: The stretch as a segment of its own.
        kind: ``prose``; ``whole``, to be kept whole or dropped; or ``json`` with prose in its values.
        values: Of JSON: where the string literals that are prose stand in the segment's text, and what they say.
    """

    owner: int
    segment: TextSegment
    kind: Kind
    values: tuple[tuple[Stretch, str], ...] = ()

    def texts(self, everything: bool) -> Sequence[str]:
        """What the other compressor is asked about."""
        if self.kind == "json":
            return [value for _, value in self.values]
        return [self.segment.text] if everything or self.kind == "prose" else []

    def shell(self) -> TextSegment:
        """The JSON with nothing in the values that are prose."""
        return self.filled(dict.fromkeys(range(len(self.values)), ""))

    def filled(self, values: Mapping[int, str]) -> TextSegment:
        """The JSON with other values; no literal becomes longer."""
        text, out, position = self.segment.text, list[str](), 0
        for number, ((start, end), value) in enumerate(self.values):
            literal = text[start:end]
            if values.get(number, value) != value:
                made = json_literal(values[number], literal)
                literal = made if len(made) <= len(literal) else literal
            out += [text[position:start], literal]
            position = end
        made = "".join([*out, text[position:]])
        return self.segment if made == text else replace(self.segment, text=made)


def take_apart(context: Context[TextSegment]) -> list[Part]:
    """The parts of a context, in order; what is white space is in none."""
    passages = {passage.id: passage for passage in reversed(context.passages)}
    parts: list[Part] = []
    for owner, segment in enumerate(context.segments):
        text = segment.text
        if is_json(text):
            values = tuple(json_prose(text))
            parts.append(Part(owner, segment, "json" if values else "whole", values))
            continue
        blocks = structures(text)
        if not blocks:
            parts += [Part(owner, segment, "prose")] if text.strip() else []
            continue
        pieces = _pieces(segment, passages)
        kinds: dict[Stretch, Kind] = dict.fromkeys(complement(blocks, len(text)), "prose")
        kinds.update(dict.fromkeys(blocks, "whole"))
        for start, end in sorted(kinds):
            piece = text[start:end]
            if kinds[start, end] == "prose":
                place = (start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip()))
            else:
                place = (start, end)
            seen = piece.strip().strip(_INVISIBLE).strip()
            taken = take_from(segment, [place], pieces, passages, fine=False) if seen else None
            if taken is not None:
                parts.append(Part(owner, taken, kinds[start, end]))
    return parts


@dataclass(frozen=True, slots=True)
class _Piece:
    part: int
    number: int  # of the value, in JSON
    start: int  # within the passage made for the other compressor
    end: int


class Asked:
    """A context for another compressor, made of the prose of one, and how its answer is read.

    The texts of each segment are one passage, so that they are judged with each other as their context. Its prose is
    one segment; each value of JSON is one by itself, since what is written anew must not move between them.

    Args:
        context: It is never changed.
        parts: Its parts.
        everything: Whether structures are asked about, too.
    """

    def __init__(self, context: Context[TextSegment], parts: Sequence[Part], *, everything: bool = False) -> None:
        known = {passage.id: passage for passage in reversed(context.passages)}
        titles = titles_of(context)
        self._parts, self._pieces = parts, dict[str, list[_Piece]]()
        texts: dict[int, list[tuple[int, int, str]]] = {}
        for index, part in enumerate(parts):
            for number, text in enumerate(part.texts(everything)):
                texts.setdefault(part.owner, []).append((index, number, text))
        passages, segments = list[Passage](), list[TextSegment]()
        for owner, found in texts.items():
            sources = context.segments[owner].sources
            origin = known.get(sources[0].passage_id) if sources else None
            name = origin.id if origin else ""
            while name in self._pieces:
                name += f"#{owner}"
            pieces, start = list[_Piece](), 0
            for index, number, text in found:
                pieces.append(_Piece(index, number, start, start + len(text)))
                start += len(text) + len(SEPARATOR)
            self._pieces[name] = pieces
            whole = SEPARATOR.join(text for _, _, text in found)
            apart = any(parts[index].kind == "json" for index, _, _ in found)
            places = [(piece.start, piece.end) for piece in pieces] if apart else [(0, len(whole))]
            segments += [TextSegment(whole[a:b], (Span(name, a, b),)) for a, b in places]
            passages.append(
                replace(origin, id=name, text=whole, title=titles[owner]) if origin else Passage(name, whole)
            )
        self.context = Context(context.query, tuple(segments), tuple(passages))

    def read(self, answer: Context[Segment]) -> Answer:
        """What an answer keeps of each part."""
        texts = {passage.id: passage.text for passage in self.context.passages}
        found = Answer({}, {}, [], set())
        for segment in answer.segments:
            if not isinstance(segment, TextSegment):
                raise ConfigError(
                    "inner", "gives soft segments, among which no structure can stay text", hint="Use a text compressor"
                )
            if not segment.text.strip():
                continue
            touched = [(piece, place) for span in segment.sources for piece, place in self._places(span)]
            says = segment.joiner.join(texts.get(s.passage_id, "")[s.start : s.end] for s in segment.sources)
            if not touched:
                found.loose.append(segment)
            elif says == segment.text:
                for piece, place in touched:
                    found.kept.setdefault((piece.part, piece.number), []).append(place)
                if not segment.joiner:
                    found.close.update((piece.part, piece.number) for piece, _ in touched)
            else:
                most, place = max(touched, key=lambda one: one[1][1] - one[1][0])
                read = dict.fromkeys(s for piece, _ in touched for s in self._parts[piece.part].segment.sources)
                written = found.written.setdefault((most.part, most.number), [])
                written.append((place[0], segment.text, tuple(read)))
        return found

    def _places(self, span: Span) -> list[tuple[_Piece, Stretch]]:
        """The stretches of pieces that a span touches, in characters of the piece."""
        pieces = self._pieces.get(span.passage_id, [])  # in order, and none within another
        first = bisect_right(pieces, span.start, key=lambda piece: piece.end)
        return [
            (piece, (max(span.start, piece.start) - piece.start, min(span.end, piece.end) - piece.start))
            for piece in takewhile(lambda piece: piece.start < span.end, islice(pieces, first, None))
        ]


@dataclass(frozen=True, slots=True)
class Answer:
    """What another compressor left of each text it was asked about, by part and value.

    Attributes:
        kept: Stretches.
        written: What it wrote instead, for what begins at this character, and what that was read from.
        loose: What names no source.
        close: Texts whose stretches are joined by nothing: what white space they need is in them.
    """

    kept: dict[tuple[int, int], list[Stretch]]
    written: dict[tuple[int, int], list[tuple[int, str, tuple[Span, ...]]]]
    loose: list[TextSegment]
    close: set[tuple[int, int]]

    def share(self, index: int, part: Part) -> float:
        """How much of a part it left, 0 to 1."""
        texts = part.texts(everything=True)
        left = sum(
            sum(end - start for start, end in merge(self.kept.get((index, number), [])))
            + min(sum(len(text) for _, text, _ in self.written.get((index, number), [])), len(whole))
            for number, whole in enumerate(texts)
        )
        return left / max(sum(map(len, texts)), 1)

    def part(self, index: int, part: Part, passages: Mapping[str, Passage]) -> TextSegment | None:
        """A part as it goes on; None where nothing is left of it. Structures stay."""
        if part.kind == "whole":
            return part.segment
        if part.kind == "json":
            return part.filled(
                {number: self._value(index, number, value) for number, (_, value) in enumerate(part.values)}
            )
        written = self.written.get((index, 0))
        if written:
            sources = tuple(dict.fromkeys(span for _, _, spans in written for span in spans))
            return TextSegment(self._mixed(index, 0, part.segment.text), sources or part.segment.sources)
        kept = merge(self.kept.get((index, 0), []))
        if kept == [(0, len(part.segment.text))]:
            return part.segment
        if not kept:
            return None
        pieces = _pieces(part.segment, passages)
        joiner = "" if (index, 0) in self.close and (pieces is None or len(pieces) == 1) else None
        return take_from(part.segment, kept, pieces, passages, fine=False, joiner=joiner)

    def _mixed(self, index: int, number: int, whole: str) -> str:
        """What was written, and what was kept word for word beside it, in the order of the text."""
        kept = [(start, whole[start:end]) for start, end in merge(self.kept.get((index, number), []))]
        written = [(start, text) for start, text, _ in self.written[index, number]]
        return "\n".join(text for _, text in sorted([*kept, *written], key=lambda one: one[0]))

    def _value(self, index: int, number: int, value: str) -> str:
        if self.written.get((index, number)):
            return self._mixed(index, number, value)
        joiner = "" if (index, number) in self.close else " "
        return joiner.join(value[start:end] for start, end in merge(self.kept.get((index, number), [])))


def rejoin(context: Context[Segment], counter: Counter) -> Context[Segment]:
    """The context with neighbours that were parted by a line end or a blank line put together as they stood.

    Only where this costs no tokens.
    """
    passages = {passage.id: passage.text for passage in reversed(context.passages)}
    found: list[_Run] = []
    for segment in context.segments:
        joiner = _joiner(segment, passages)
        gap = _gap(found[-1].segments[-1], segment, passages) if found and joiner is not None else None
        if gap is None or not found[-1].takes(joiner):
            found.append(_Run([segment], [], joiner))
        else:
            found[-1].segments.append(segment)
            found[-1].gaps.append(gap)
            found[-1].joiner = found[-1].joiner or joiner
    if len(found) == len(context.segments):
        return context
    made = Context(context.query, tuple(run.joined() for run in found), context.passages)
    return made if counter.context(made) <= counter.context(context) else context


@dataclass(slots=True)
class _Run:
    """Segments that become one.

    Attributes:
        segments: In order.
        gaps: What stands between each and the next.
        joiner: In a tuple that of those with several spans, if there are any; None where the segment is not
            extractive and stays alone.
    """

    segments: list[Segment]
    gaps: list[str]
    joiner: tuple[str, ...] | None

    def takes(self, joiner: tuple[str, ...] | None) -> bool:
        return self.joiner is not None and joiner is not None and len({*self.joiner, *joiner}) < 2

    def joined(self) -> Segment:
        if len(self.segments) == 1:
            return self.segments[0]
        segments = cast("list[TextSegment]", self.segments)
        text, spans = [segments[0].text], list(segments[0].sources)
        for gap, segment in zip(self.gaps, segments[1:], strict=True):
            text += [gap, segment.text]
            left, right = spans.pop(), segment.sources[0]
            spans += [Span(left.passage_id, left.start, right.end), *segment.sources[1:]]
        return TextSegment("".join(text), tuple(spans), *(self.joiner or ()))


def _joiner(segment: Segment, passages: Mapping[str, str]) -> tuple[str, ...] | None:
    """What joins the spans of an extractive segment, if it has several; None of one that is not extractive."""
    if not isinstance(segment, TextSegment) or not segment.sources or not _extractive(segment, passages):
        return None
    return (segment.joiner,) if len(segment.sources) > 1 else ()


def _gap(first: Segment, second: Segment, passages: Mapping[str, str]) -> str | None:
    """The white space between two segments, if the last span of one and the first of the other are neighbours."""
    left, right = first.sources[-1:], second.sources[:1]
    if not left or not right or left[0].passage_id != right[0].passage_id:
        return None
    gap = passages.get(left[0].passage_id, "")[left[0].end : right[0].start]
    return gap if 0 <= right[0].start - left[0].end <= _GAP and not gap.strip() else None


def _extractive(segment: TextSegment, passages: Mapping[str, str]) -> bool:
    return segment.text == segment.joiner.join(passages.get(s.passage_id, "")[s.start : s.end] for s in segment.sources)
