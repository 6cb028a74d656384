"""Tables, lists and JSON lines by records, for budgets that no whole one fits: tables with header, lists by items."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ragzip.compressors._json_text import is_json
from ragzip.compressors._layout import _pieces, take_from
from ragzip.compressors._parts import Answer, Part
from ragzip.compressors._structures import _ITEM, _fields, _is_rule, _lines, code_in
from ragzip.protocols import Counter
from ragzip.text import Stretch, complement, intersect, merge
from ragzip.types import Context, Passage, Segment, TextSegment

_MARKUP = ("```", "~~~", "<", "{", "[", "+")
_ROW = re.compile(r"<(/?)tr(?:\s[^<>]*)?>", re.IGNORECASE)
_TABLE = re.compile(r"<table(?:\s[^<>]*)?>", re.IGNORECASE)
_NAMES = re.compile(r"<th(?:\s[^<>]*)?>", re.IGNORECASE)
_MARKS = (("\t", 2), (";", 3), (",", 3))


@dataclass(frozen=True, slots=True)
class Records:
    """Where the header of a table, if there is one, and the rows of a table or the items of a list stand."""

    head: tuple[Stretch, ...]
    rows: tuple[Stretch, ...]


def records(text: str) -> Records | None:
    """The records of a structure; None for code, markup and whatever else means nothing in parts."""
    shown = [line for line in _lines(text) if line.text]
    if text[:1] == "<":
        return _of_html(text)
    if text[:1] in "{[":
        return _of_json(text, [(line.start, line.end) for line in shown])
    lines, said = [(line.start, line.end) for line in shown], [line.text for line in shown]
    if len(lines) < 2 or said[0].lstrip().startswith(_MARKUP):
        return None
    if "|" in said[0] and _is_rule(said[1]):
        return Records(tuple(lines[:2]), tuple(lines[2:]))
    if _ITEM.match(said[0].lstrip()):
        return Records((), tuple(_items(lines, said)))
    if code_in(text):
        return None
    for mark, fields in _MARKS:
        counts = {len(_fields(line, mark)) if mark in line else 0 for line in said}
        if len(counts) == 1 and counts.pop() >= fields:
            return Records(tuple(lines[:1]), tuple(lines[1:]))
    return None


def _of_html(text: str) -> Records | None:
    """The rows of a table without another one in it; names of columns, and tags between rows, belong to its header."""
    rows, opened = list[Stretch](), -1
    for tag in _ROW.finditer(text):
        if tag[1] and opened >= 0:
            rows.append((opened, tag.end()))
        opened = -1 if tag[1] else tag.start()
    if len(rows) < 2 or len(_TABLE.findall(text)) != 1 or not _TABLE.match(text):
        return None
    names = [(start, end) for start, end in rows[:1] if _NAMES.search(text, start, end)]
    around = [(a, b) for a, b in complement(rows, len(text)) if text[a:b].strip()]
    return Records((*names, *around), tuple(rows[len(names) :]))


def _of_json(text: str, lines: Sequence[Stretch]) -> Records | None:
    """JSON lines by lines; any other JSON means nothing in parts."""
    if len(lines) < 2 or not all(is_json(text[start:end]) for start, end in lines):
        return None
    return Records((), tuple(lines))


def _items(lines: Sequence[Stretch], said: Sequence[str]) -> list[Stretch]:
    """The items at the left edge, each with what stands below it; lines before the first belong to it."""
    edges = [len(line) - len(line.lstrip()) for line in said]
    edge, found = min(edges), list[Stretch]()
    for (start, end), line, own in zip(lines, said, edges, strict=True):
        if not found or (own == edge and _ITEM.match(line[own:])):
            found.append((start, end))
        else:
            found[-1] = (found[-1][0], end)
    return found


@dataclass(slots=True)
class Cut:
    """What an answer wants of a context, with tables and lists by records.

    Attributes:
        context: What was asked about.
        parts: Its parts.
        answer: To all of them.
        wanted: Each row of which something is kept, as part and number, best first.
        count: How many of them are in the best that was made.
    """

    context: Context[TextSegment]
    parts: Sequence[Part]
    answer: Answer
    wanted: list[tuple[int, int]] = field(init=False)
    count: int = field(init=False, default=0)
    _found: dict[int, Records] = field(init=False)

    def __post_init__(self) -> None:
        whole = {index: part for index, part in enumerate(self.parts) if part.kind == "whole"}
        known = {index: records(part.segment.text) for index, part in whole.items()}
        self._found = {index: found for index, found in known.items() if found is not None}
        shares: dict[tuple[int, int], float] = {}
        for index, found in self._found.items():
            starts = [start for start, _ in found.rows]
            for start, end in intersect(self.answer.kept.get((index, 0), []), found.rows):
                number = bisect_right(starts, start) - 1
                first, last = found.rows[number]
                shares[index, number] = shares.get((index, number), 0.0) + (end - start) / (last - first)
        self.wanted = sorted(shares, key=lambda key: (-shares[key], key))

    def whole(self, limit: int, counter: Counter) -> bool:
        """Whether all that is wanted fits; not where no row is wanted."""
        return bool(self.wanted) and counter.context(self._made(len(self.wanted), self.answer)) <= limit

    def best(self, limit: int, counter: Counter) -> Context[Segment] | None:
        """As many of the wanted rows as fit beside the prose that was kept, or beside none; None where not one does."""
        for prose in (self.answer, None):
            low, high, found = 1, len(self.wanted), None
            while low <= high:
                middle = (low + high) // 2
                made = self._made(middle, prose)
                if counter.context(made) <= limit:
                    found, low, self.count = made, middle + 1, middle
                else:
                    high = middle - 1
            if found is not None:
                return found
        return None

    def rows(self, prose: Answer | None = None) -> Context[Segment]:
        """The rows of the best, beside what another answer keeps of the prose."""
        return self._made(self.count, prose)

    def _made(self, count: int, prose: Answer | None) -> Context[Segment]:
        passages: Mapping[str, Passage] = {passage.id: passage for passage in reversed(self.context.passages)}
        chosen: dict[int, list[Stretch]] = {}
        for index, number in self.wanted[:count]:
            chosen.setdefault(index, []).append(self._found[index].rows[number])
        segments: list[Segment] = []
        for index, part in enumerate(self.parts):
            made: TextSegment | None = None
            if index in chosen:
                places = _lines_together(part.segment.text, [*self._found[index].head, *chosen[index]])
                pieces = _pieces(part.segment, passages)
                made = take_from(part.segment, places, pieces, passages, fine=False, joiner="\n")
            elif prose is not None and part.kind == "prose":
                made = prose.part(index, part, passages)
            if made is not None:
                segments.append(made)
        return Context(self.context.query, tuple(segments), self.context.passages)


def _lines_together(text: str, places: Sequence[Stretch]) -> list[Stretch]:
    """Stretches in order, neighbours with the line ends between them as one."""
    found: list[Stretch] = []
    for start, end in merge(places):
        if found and not text[found[-1][1] : start].strip():
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found
