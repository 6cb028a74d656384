"""Lines that stand apart by what they begin with: log entries, speakers, quoted mail, lettered options, rows."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ENTRY = re.compile(
    r"\[?\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d|\[\d{1,2}:\d\d(?::\d\d)?|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d\b"
    r"|\d\d:\d\d:\d\d[.,]\d|\[(?:TRACE|DEBUG|INFO|WARN|WARNING|ERROR|FATAL)\]|<\d{1,3}>[A-Z]"
)
_SPEAKER = re.compile(r"[A-Z][A-Z.' -]{1,30}:\s+(?=\S)")
_OVER = re.compile(r"""[.!?…:;"'”’)\]]\Z""")  # how a line ends after which a speaker may begin
_QUOTED = re.compile(r"""(?:>[^\S\n]?)+(?=[^\W\d_]|["“'(*\-]|\Z)""")
_OPTION = re.compile(r"([A-Z]|[ivx]{1,4})\.[^\S\n]+(?=\S)")
_CLAUSE = re.compile(r"(\d{1,2}(?:\.\d{1,3}){0,4})\.?[^\S\n]+(?=\S)")
_ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii", "xiii", "xiv", "xv", "xvi")
_DELIMITERS = ",;\t"
_ROWS = 3


def starts_apart(before: str, line: str) -> bool:
    """Whether a line begins anew after the one before it: an entry, a speaker, another depth of quoting."""
    if _ENTRY.match(line):
        return True
    if _SPEAKER.match(line) and (_OVER.search(before) or _SPEAKER.match(before)):
        return True
    depth, above = _QUOTED.match(line), _QUOTED.match(before)
    return _depth(depth) != _depth(above) or bool(above and above.end() == len(before))


def places_of_clauses(lines: Sequence[str]) -> set[int]:
    """The numbers of the lines that begin with a clause's number, such as 1.2 behind 1.1, or 2.1 behind 2."""
    found: set[int] = set()
    before: tuple[int, tuple[int, ...]] | None = None
    for number, line in enumerate(lines):
        mark = _CLAUSE.match(line)
        if mark is None:
            continue
        clause = tuple(map(int, mark[1].split(".")))
        if before is not None and _follows(before[1], clause):
            found |= {place for place, parts in (before, (number, clause)) if len(parts) > 1}
        before = number, clause
    return found


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


def _follows(one: tuple[int, ...], two: tuple[int, ...]) -> bool:
    """Whether the second number comes next: 1.2 behind 1.1, 1.1.1 behind 1.1, 2 or 2.1 behind 1.3."""
    shared = 0
    while shared < min(len(one), len(two)) and one[shared] == two[shared]:
        shared += 1
    rest = two[shared:]
    if shared == len(one):
        return bool(rest) and all(part == 1 for part in rest)
    return bool(rest) and rest[0] == one[shared] + 1 and all(part == 1 for part in rest[1:])


def _next(one: str, two: str) -> bool:
    if one in _ROMAN and two in _ROMAN:
        return _ROMAN.index(two) == _ROMAN.index(one) + 1
    return len(one) == len(two) == 1 and one.isupper() and ord(two) == ord(one) + 1


def _depth(quoted: re.Match[str] | None) -> int:
    return quoted[0].count(">") if quoted else 0
