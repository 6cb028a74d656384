"""Rows of CSV: where they begin and end, which of them names the columns, and what is wrong with them."""

from __future__ import annotations

import csv
import itertools
import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from ragzip.ingest.decode import whole
from ragzip.ingest.formats.lines import LONGEST_LINE, Line

_LONGEST_NAME = 64
_AGAIN = 5  # rows with open quotes, behind which quotes are taken for text
_SEPARATOR = re.compile(r"sep=([,;|\t])\s*", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)*|[.,]\d+)(?:[eE][+-]?\d+)?%?")
_YEAR = re.compile(r"[12]\d{3}")


class Feed:
    """Lines for ``csv.reader``, remembering those of a row, where it began and what was wrong on the way."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = iter(lines)
        self._ahead: deque[Line] = deque()
        self._row: list[Line] = []
        self.ended = False
        self.problem = ""

    @property
    def first(self) -> int:
        """The number of the row's first line; 0 before it is read."""
        return self._row[0].number if self._row else 0

    @property
    def text(self) -> str:
        """The row, as it stands there."""
        return "".join(line.text for line in self._row)

    def peek(self) -> str:
        """The next line, or "" at the end."""
        line = next(self._lines, None) if not self._ahead else None
        if line is not None:
            self._ahead.append(line)
        return self._ahead[0].text if self._ahead else ""

    def begin(self) -> None:
        self._row, self.problem = [], ""

    def again(self) -> None:
        """Gives the lines of the row behind its first one once more."""
        self._ahead.extendleft(reversed(self._row[1:]))
        del self._row[1:]

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._ahead.popleft() if self._ahead else next(self._lines, None)
        if line is None:
            self.ended = True
            raise StopIteration
        self._row.append(line)
        self.problem = self.problem or line.problem
        return line.text


def rows(feed: Feed, tabs: bool) -> Iterator[list[str] | str]:
    """Rows, or the reason why one cannot be read."""
    head = feed.peek()
    named = None if tabs else _SEPARATOR.fullmatch(head)
    if named:  # as Excel writes it
        next(feed)
        mark = named[1]
    else:
        counts = {mark: head.count(mark) for mark in ",;|"}
        mark = "\t" if tabs else max(counts, key=lambda mark: counts[mark])
    again = 0
    quoting: Any = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
    reader = csv.reader(feed, delimiter=mark, quoting=quoting)
    while True:
        feed.begin()
        # The limit is the csv module's own, for all readers: it is ours only while our reader runs.
        before = csv.field_size_limit(LONGEST_LINE)
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield f"not CSV: {error}"
            continue
        finally:
            csv.field_size_limit(before)
        if row is None:
            return
        if feed.ended and quoting == csv.QUOTE_MINIMAL and _unclosed(feed.text, mark):
            feed.again()
            again += 1  # each time the rest of the file is read once more
            quoting = csv.QUOTE_MINIMAL if again < _AGAIN else csv.QUOTE_NONE
            reader = csv.reader(feed, delimiter=mark, quoting=quoting)
            yield "not CSV: a quote that is not closed"
            continue
        yield [_unquoted(cell) for cell in row] if tabs else row


def _unclosed(text: str, mark: str) -> bool:
    """Whether a row, which the end of the file ended, is within quotes there."""
    before = csv.field_size_limit(LONGEST_LINE)
    try:
        list(csv.reader(text.splitlines(keepends=True), delimiter=mark, strict=True))
    except csv.Error as error:
        return "unexpected end" in str(error)
    finally:
        csv.field_size_limit(before)
    return False


def _unquoted(cell: str) -> str:
    if len(cell) >= 2 and cell[0] == cell[-1] == '"':
        inner = cell[1:-1].replace('""', "\0")
        return cell if '"' in inner else inner.replace("\0", '"')
    return cell


def header_of(row: list[str], known: frozenset[str]) -> tuple[list[str], bool]:
    """Column names, and whether the row gave them."""
    cells = [cell.strip() for cell in row]
    named = [cell for cell in cells if cell]
    apart = len(set(named)) == len(named) and all(len(cell) <= _LONGEST_NAME for cell in named)
    told = apart or any(cell.lower() in known for cell in named)
    is_header = told and (not any(map(_number, named)) or _years(named))
    if not is_header:
        return [f"column_{at + 1}" for at in range(len(row))], False
    names: dict[str, None] = {}
    for at, cell in enumerate(cells):
        name = whole(cell) or f"column_{at + 1}"
        names[name if name not in names else f"{name}_{at + 1}"] = None
    return list(names), True


def _number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell) is not None


def _years(cells: list[str]) -> bool:
    """Whether numbers among column names are years one after the other, as of a table by year."""
    found = [int(cell) for cell in cells if _YEAR.fullmatch(cell)]
    steps = {after - before for before, after in itertools.pairwise(found)}
    even = steps in ({1}, {-1}) or (len(found) > 2 and len(steps) == 1)  # two others may be when somebody lived
    return even and len(found) == sum(map(_number, cells)) and not _number(cells[0])
