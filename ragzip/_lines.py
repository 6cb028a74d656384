"""Lines that stand apart by what they begin with: log entries, speakers, quoted mail, lettered options, rows."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ENTRY = re.compile(
    r"\[?\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d|\[\d{1,2}:\d\d(?::\d\d)?|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d\b"
    r"|\d\d:\d\d:\d\d[.,]\d|\[(?:TRACE|DEBUG|INFO|WARN|WARNING|ERROR|FATAL)\]|<\d{1,3}>[A-Z]"
)
_SPEAKER = re.compile(r"[A-Z][A-Z.' -]{1,30}:\s+(?=\S)")
_QUOTED = re.compile(r"(?:>[^\S\n]?)+")
_OPTION = re.compile(r"([A-Z]|[ivx]{1,4})\.[^\S\n]+(?=\S)")
_ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii", "xiii", "xiv", "xv", "xvi")
_DELIMITERS = ",;\t"
_ROWS = 3


def starts_apart(before: str, line: str) -> bool:
    """Whether a line begins anew after the one before it: an entry, a speaker, another depth of quoting."""
    if _ENTRY.match(line) or _SPEAKER.match(line):
        return True
    depth, above = _QUOTED.match(line), _QUOTED.match(before)
    return _depth(depth) != _depth(above) or bool(above and above.end() == len(before))


def places_of_rows(lines: Sequence[str]) -> set[int]:
    """The numbers of the lines that are rows of delimited text, or options ``A.``, ``B.`` or ``i.``, ``ii.`` of a list.

    Three lines in turn with as many delimiters are rows: tabs, or two or more commas or semicolons without a space
    behind any. Options are two in turn whose letters or numerals are neighbours.
    """
    found: set[int] = set()
    marks = [_OPTION.match(line) for line in lines]
    for number in range(1, len(lines)):
        one, two = marks[number - 1], marks[number]
        if one is not None and two is not None and _next(one[1], two[1]):
            found |= {number - 1, number}
    for delimiter in _DELIMITERS:
        found |= _delimited(lines, delimiter)
    return found


def _delimited(lines: Sequence[str], delimiter: str) -> set[int]:
    least = 1 if delimiter == "\t" else 2
    found: set[int] = set()
    run: list[int] = []
    counted = 0
    for number, line in enumerate([*lines, ""]):
        count = line.count(delimiter)
        if delimiter != "\t" and f"{delimiter} " in line:
            count = 0
        if count < least or count != counted:
            found |= set(run) if len(run) >= _ROWS else set()
            run = []
        counted = count
        if count >= least:
            run.append(number)
    return found


def _next(one: str, two: str) -> bool:
    if one in _ROMAN and two in _ROMAN:
        return _ROMAN.index(two) == _ROMAN.index(one) + 1
    return len(one) == len(two) == 1 and one.isupper() and ord(two) == ord(one) + 1


def _depth(quoted: re.Match[str] | None) -> int:
    return quoted[0].count(">") if quoted else 0
