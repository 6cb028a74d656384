"""Where retrieved passages stand in the passages of a set: labels know the set's ids, an index has ids of its own.

A passage is known by its id or by its document's id in the metadata, and then by ``start``; the text decides where the
record brings it, because sets and indexes alike number their passages. Failing that it is known by its text: the same,
a part of the set's passage, the set's passage with more around it, or whole sentences of it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ragzip import text as text_
from ragzip.evaluation.metrics.ranking import document_ids
from ragzip.evaluation.record import Record
from ragzip.text import Stretch
from ragzip.types import Passage, Span

Home = tuple[bool, str]
"""Whether it is a passage of the set, and its id there; else the id that it was retrieved under."""

LEAST = 30
"""Characters other than white space from which on a piece of text is taken for the same wherever it stands."""

_GAP = "\n\n"  # no sentence crosses a blank line


@dataclass(frozen=True, slots=True)
class Piece:
    """Characters ``start`` to ``end`` of a retrieved passage; in the set's passage ``home`` they are ``shift`` on."""

    start: int
    end: int
    home: str
    shift: int = 0


@dataclass(frozen=True, slots=True)
class Places:
    """The texts that sentences are counted in, and how spans get there.

    Attributes:
        texts: The set's passages that are known, whole or in part, and the retrieved ones as they are.
        pieces: Of each retrieved passage, by its id: what stands in passages of the set, in order, without overlap.
        parts: Of each passage of the set that only its retrieved parts are known of: which characters stand where.
        comparable: Whether evidence that is not there can be said to be missing: something retrieved is known to the
            set, or nothing was retrieved.
    """

    texts: Mapping[Home, str]
    pieces: Mapping[str, tuple[Piece, ...]]
    parts: Mapping[str, tuple[Piece, ...]]
    comparable: bool

    def labelled(self, span: Span) -> list[tuple[Home, Stretch]]:
        """Where a labelled span stands; empty where nobody has its text."""
        home = (True, span.passage_id)
        if span.passage_id in self.parts:
            return [
                (home, (max(span.start, part.start) + part.shift, min(span.end, part.end) + part.shift))
                for part in self.parts[span.passage_id]
                if max(span.start, part.start) < min(span.end, part.end)
            ]
        return [(home, (span.start, span.end))] if home in self.texts else []

    def kept(self, span: Span) -> Iterator[tuple[Home, Stretch]]:
        """Where a span of a retrieved passage stands, what is not of the set in the passage itself."""
        if span.passage_id not in self.pieces:
            home = (True, span.passage_id)
            if home in self.texts:
                yield home, (span.start, span.end)
            return
        at = span.start
        for piece in self.pieces[span.passage_id]:
            start, end = max(at, piece.start), min(span.end, piece.end)
            if start >= end:
                continue
            if at < start:
                yield (False, span.passage_id), (at, start)
            yield (True, piece.home), (start + piece.shift, end + piece.shift)
            at = end
        if at < span.end:
            yield (False, span.passage_id), (at, span.end)


def locate(record: Record, passages: Sequence[Passage]) -> Places:
    """Finds the retrieved passages among those that the record brings or its labels name.

    Args:
        record: The question and its labels.
        passages: What was retrieved; of several with one id the first counts.
    """
    found = {passage.id: passage for passage in reversed(passages)}
    labelled = dict.fromkeys(span.passage_id for span in record.relevant)
    known = {passage.id: passage.text for passage in record.passages}
    order = sorted(known, key=lambda own: own not in labelled)  # of passages with the same text, the labelled one
    pieces: dict[str, tuple[Piece, ...]] = {}
    bare: dict[str, list[tuple[int, Passage]]] = {}
    comparable = not found
    for passage in found.values():
        ids = [passage.id, *document_ids(passage)]
        by_id = _by_id(passage, ids, known, labelled)
        if isinstance(by_id, tuple):
            bare.setdefault(by_id[0], []).append((by_id[1], passage))
        pieces[passage.id] = (by_id,) if isinstance(by_id, Piece) else () if by_id else _by_text(passage, known, order)
        judged = any(own in record.qrels and own not in known for own in ids)
        comparable = comparable or bool(by_id) or bool(pieces[passage.id]) or judged
    texts: dict[Home, str] = {(False, own): passage.text for own, passage in found.items()}
    texts |= {(True, own): text for own, text in known.items()}
    parts: dict[str, tuple[Piece, ...]] = {}
    for own, cut in bare.items():
        texts[True, own], parts[own] = _assembled(own, sorted(cut, key=lambda part: (part[0], part[1].id)), pieces)
    return Places(texts, pieces, parts, comparable)


def _by_id(
    passage: Passage, ids: Sequence[str], known: Mapping[str, str], labelled: Mapping[str, None]
) -> Piece | tuple[str, int] | None:
    """Its place in a passage of known text, or the id and offset where labels name a passage that nobody brings."""
    for number, own in enumerate(ids):
        start = _start(passage) if number else 0
        text = known.get(own)
        if text is None:
            if own in labelled:
                return own, start
        elif text == passage.text:
            return Piece(0, len(text), own)
        elif passage.text.strip():
            at = start if text.startswith(passage.text, start) else text.find(passage.text)
            if at >= 0:
                return Piece(0, len(passage.text), own, at)
    return None


def _start(passage: Passage) -> int:
    start = passage.metadata.get("start")
    return start if isinstance(start, int) and not isinstance(start, bool) and start > 0 else 0


def _by_text(passage: Passage, known: Mapping[str, str], order: Sequence[str]) -> tuple[Piece, ...]:
    """Its places in passages of the set, by nothing but the text."""
    text = passage.text
    for own in order:
        if known[own] == text and text.strip():
            return (Piece(0, len(text), own),)
    if visible(text) < LEAST:
        return ()
    for own in order:
        if (at := known[own].find(text)) >= 0:
            return (Piece(0, len(text), own, at),)
    found: list[Piece] = []
    for own in order:
        for start, end, shift in _shared(text, known[own]):
            if all(end <= piece.start or piece.end <= start for piece in found):
                found.append(Piece(start, end, own, shift))
    return tuple(sorted(found, key=lambda piece: piece.start))


@functools.lru_cache(maxsize=1024)  # three metrics and many pipelines ask about the same passages in turn
def _shared(text: str, other: str) -> tuple[tuple[int, int, int], ...]:
    """Start, end and shift of the other text where it stands in this one as a whole, else of its sentences that do."""
    if visible(other) < LEAST:
        return ()
    if (at := text.find(other)) >= 0:
        return ((at, at + len(other), -at),)
    return tuple(
        (at, at + end - start, start - at)
        for start, end in sentences(other)
        if visible(other[start:end]) >= LEAST and (at := text.find(other[start:end])) >= 0
    )


def _assembled(
    own: str, cut: Sequence[tuple[int, Passage]], pieces: dict[str, tuple[Piece, ...]]
) -> tuple[str, tuple[Piece, ...]]:
    """What is known of a document from its parts, gaps left out, and which of its characters stand where in that.

    Gives each part its piece.
    """
    text, runs = "", [(0, 0, 0)]  # start and end in the document, shift to the text
    for start, passage in cut:
        first, last, shift = runs[-1]
        if start > last or not text:
            text += _GAP if text else ""
            first, last, shift = start, start, len(text) - start
            runs.append((first, last, shift))
        text += passage.text[last - start :]
        runs[-1] = (first, max(last, start + len(passage.text)), shift)
        pieces[passage.id] = (Piece(0, len(passage.text), own, start + shift),)
    return text, tuple(Piece(start, end, own, shift) for start, end, shift in runs if start < end)


def visible(text: str) -> int:
    """Characters other than white space."""
    return sum(map(len, text.split()))


@functools.lru_cache(maxsize=512)  # as above
def sentences(text: str) -> tuple[Stretch, ...]:
    """The sentences of a text, in order."""
    return tuple(text_.sentences(text))
