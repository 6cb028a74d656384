"""Back from a compressed context to the text it was made from, with as much around it as wanted."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ragzip import text as text_
from ragzip.errors import UsageError
from ragzip.types import Context, Passage, Query, Segment, SoftSegment, Span, TextSegment

_SHOWN = 8


@dataclass(frozen=True)
class Excerpt:
    """A stretch of a passage as it was before compression.

    Attributes:
        passage_id: The passage.
        title: Its title, or "".
        start: First character within the passage's text.
        end: One past the last.
        text: The characters.
    """

    passage_id: str
    title: str
    start: int
    end: int
    text: str


def expand(
    context: Context[Any], what: Span | Segment | str, *, sentences: int = 0, characters: int = 0
) -> tuple[Excerpt, ...]:
    """The original text of a part of a compressed context.

    ``Context.expand`` gives the characters alone; this knows where they stand and what stands around them.

    Args:
        context: Compressed in whatever way; its passages are untouched.
        what: A span; a segment, for everything it was taken or written from, soft ones included; or a passage's id.
        sentences: How many sentences to give before and after; whole ones, of the same passage.
        characters: How many characters to give before and after, of the same passage.

    Returns:
        In the order of the segment's sources; stretches that overlap or touch once widened are one.

    Raises:
        UsageError: There is no such passage or place, or the segment names no source; says what there is.

        >>> from ragzip.types import Passage, Query, Span, context_of
        >>> context = context_of(Query("Who?"), (Passage("p", "One two. Three four. Five six."),))
        >>> expand(context, Span("p", 9, 14), sentences=1)[0].text
        'One two. Three four. Five six.'
    """
    if sentences < 0 or characters < 0:
        raise UsageError("sentences and characters must be at least 0")
    if isinstance(what, str):
        return (_excerpt(_passage(context, what)),)
    spans = (what,) if isinstance(what, Span) else what.sources
    if not spans:
        raise UsageError(
            "the segment names no source, so nothing says what it was made from",
            hint="Ask for a passage by its id.",
        )
    widened: dict[str, list[tuple[int, int]]] = {}
    places: dict[str, _Sentences] = {}
    for span in spans:
        passage = _passage(context, span.passage_id)
        if span.end > len(passage.text):
            raise UsageError(f"passage {passage.id!r} has {len(passage.text)} characters; {span.end} is beyond its end")
        if sentences and passage.id not in places:
            places[passage.id] = _Sentences.of(passage.text)
        around = places[passage.id].around(span, sentences) if sentences else (span.start, span.end)
        widened.setdefault(passage.id, []).append(_widen(passage.text, *around, characters))
    return tuple(
        _excerpt(_passage(context, name), *stretch)
        for name, stretches in widened.items()
        for stretch in _together(stretches)
    )


def _together(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Overlapping ones merged, and beside them the empty ones that stand in none of these."""
    merged = text_.merge(stretches)
    starts = [start for start, _ in merged]
    empty = {(start, end) for start, end in stretches if start >= end}
    apart = {(a, b) for a, b in empty if not (n := bisect_right(starts, a)) or merged[n - 1][1] < a}
    return sorted([*merged, *apart])


@dataclass(frozen=True, slots=True)
class _Sentences:
    """Where the sentences of a passage begin and end."""

    starts: list[int]
    ends: list[int]

    @classmethod
    def of(cls, text: str) -> _Sentences:
        places = text_.sentences(text)
        return cls([start for start, _ in places], [end for _, end in places])

    def around(self, span: Span, count: int) -> tuple[int, int]:
        """The span with the sentences that it touches, and so many before and after them."""
        first = max(bisect_right(self.ends, span.start) - count, 0)
        last = min(bisect_left(self.starts, span.end) + count, len(self.starts))
        if first >= last:
            return span.start, span.end
        return min(self.starts[first], span.start), max(self.ends[last - 1], span.end)


def _widen(text: str, start: int, end: int, characters: int) -> tuple[int, int]:
    if characters:
        start = text_.cut_before(text, start - characters)
        stop = min(end + characters, len(text))
        end = max(text_.cut_before(text, stop), end)
    return start, end


def _excerpt(passage: Passage, start: int = 0, end: int | None = None) -> Excerpt:
    last = len(passage.text) if end is None else end
    return Excerpt(passage.id, passage.title, start, last, passage.text[start:last])


def _passage(context: Context[Any], name: str) -> Passage:
    try:
        return context.passage(name)
    except KeyError:
        known = list(dict.fromkeys(passage.id for passage in context.passages))
        shown = ", ".join(known[:_SHOWN]) + (f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")
        raise UsageError(f"no passage {name!r}", hint=f"There are: {shown}." if known else "There is none.") from None


def context_dict(context: Context[Any]) -> dict[str, Any]:
    """A context as plain values: the question, the segments with their spans, and the passages, whole."""
    return {
        "question": context.query.text,
        **({"question_id": context.query.id} if context.query.id else {}),
        "segments": [_segment_dict(segment) for segment in context.segments],
        "passages": [
            {"id": p.id, "title": p.title, "text": p.text, "score": _score(p), **_metadata(p)} for p in context.passages
        ],
    }


def _metadata(passage: Passage) -> dict[str, Any]:
    """What of it is plain values that JSON can hold."""
    held = {key: value for key, value in passage.metadata.items() if _plain(value)}
    return {"metadata": held} if held else {}


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return isinstance(value, str | bool | int) or value is None or (isinstance(value, float) and math.isfinite(value))


def _score(passage: Passage) -> float | None:
    return passage.score if passage.score is not None and math.isfinite(passage.score) else None


def _segment_dict(segment: Segment) -> dict[str, Any]:
    spans = [{"passage_id": span.passage_id, "start": span.start, "end": span.end} for span in segment.sources]
    if isinstance(segment, SoftSegment):
        return {"soft_tokens": int(segment.embeddings.shape[0]), "space": segment.space, "spans": spans}
    joiner = {} if segment.joiner == TextSegment("").joiner else {"joiner": segment.joiner}
    return {"text": segment.text, "spans": spans, **joiner}


def context_from_dict(value: Mapping[str, Any]) -> Context[TextSegment]:
    """The context that ``context_dict`` described; of soft segments only the spans are left.

    Raises:
        UsageError: It is not what ``context_dict`` writes; says where.
    """
    passages = tuple(
        Passage(
            _text(row, "id", f"passages[{n}]"),
            _text(row, "text", f"passages[{n}]"),
            str(row.get("title") or ""),
            score=_number(row, "score", f"passages[{n}]"),
            metadata=dict(row["metadata"]) if isinstance(row.get("metadata"), Mapping) else {},
        )
        for n, row in enumerate(_rows(value, "passages", ""))
    )
    segments = tuple(
        TextSegment(str(row.get("text") or ""), spans_from(row, f"segments[{n}]."), _joiner(row, f"segments[{n}]."))
        for n, row in enumerate(_rows(value, "segments", ""))
    )
    lengths: dict[str, int] = {}
    for passage in passages:
        lengths[passage.id] = max(len(passage.text), lengths.get(passage.id, 0))
    for n, segment in enumerate(segments):
        for span in segment.sources:
            if span.end > lengths.get(span.passage_id, span.end):
                said = f"passage {span.passage_id!r} has {lengths[span.passage_id]} characters, not {span.end}"
                raise UsageError(f"segments[{n}]: {said}")
    query = Query(str(value.get("question") or ""), str(value.get("question_id") or ""))
    return Context(query, segments, passages)


def _joiner(row: Mapping[str, Any], where: str) -> str:
    """What stands between the spans' texts; it is only written where it is not the usual one."""
    found = row.get("joiner", TextSegment("").joiner)
    if not isinstance(found, str):
        raise UsageError(f"{where}joiner must be a text, not {found!r}")
    return found


def spans_from(row: Mapping[str, Any], where: str) -> tuple[Span, ...]:
    """The spans of a segment that is plain values.

    Raises:
        UsageError: One is none.
    """
    return tuple(span_from(span, f"{where}spans[{n}]") for n, span in enumerate(_rows(row, "spans", where)))


def span_from(row: Mapping[str, Any], where: str) -> Span:
    """A span that is plain values: ``passage_id``, ``start``, ``end``.

    Raises:
        UsageError: It is none.
    """
    start, end = row.get("start"), row.get("end")
    if type(start) is not int or type(end) is not int or not 0 <= start <= end:
        raise UsageError(f"{where} needs a start and an end, 0 <= start <= end, not {start!r} and {end!r}")
    return Span(_text(row, "passage_id", where), start, end)


def _rows(value: Mapping[str, Any], key: str, where: str) -> list[Mapping[str, Any]]:
    rows = value.get(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise UsageError(f"{where}{key} should be a list of objects")
    return rows


def _number(row: Mapping[str, Any], key: str, where: str) -> float | None:
    found = row.get(key)
    if found is not None and (isinstance(found, bool) or not isinstance(found, int | float)):
        raise UsageError(f"{where} has a {key!r} that is no number")
    try:
        return None if found is None else float(found)
    except OverflowError as error:
        raise UsageError(f"{where} has a {key!r} that is larger than any number can be") from error


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    found = row.get(key)
    if not isinstance(found, str):
        raise UsageError(f"{where} has no {key!r} that is text")
    return found
