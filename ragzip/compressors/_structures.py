"""Where a text is not prose: JSON, fenced and indented code, Markdown and delimited tables, lists.

Everything is found by layout alone, in time linear in the length of the text, and given as exact stretches.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ragzip.text import Stretch, merge, sentences

_FENCE = re.compile(r"[^\S\n]*(`{3,}|~{3,})[^\S\n]*([^\n]*)")
_ITEM = re.compile(r"[^\S\n]*(?:[-*+•‣◦▪]|\d{1,3}[.)]|[A-Za-z]\)|\((?:\d{1,3}|[a-z]|[ivx]{1,4})\))[^\S\n]+\S")
_RULE_ROW = re.compile(r"[^\S\n]*\|?[^\S\n]*:?-+:?[^\S\n]*(?:\|[^\S\n]*:?-+:?[^\S\n]*)*\|?[^\S\n]*\Z")
_HEADING = re.compile(r"#{1,6}\s")
_JSON = re.compile(r"\{\s*\"|\[\s*[\[{\"]")
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_CODE = re.compile(r"[{}()\[\]=;<>]|:\s*\Z|\A\s*(?:return|import|end|else|#|//)\b")
_END = re.compile(r"[.!?:][\"')\]”’»]*\Z")

_PARAGRAPH = 300  # characters of list items from which on they are prose with a mark before it
_LONGEST_ROW = 20_000
_PROSE = 80  # characters of a JSON string from which on it may be prose


@dataclass(frozen=True, slots=True)
class _Line:
    start: int
    end: int
    text: str  # without what follows the last visible character; "" for a blank line

    @property
    def indented(self) -> bool:
        return self.text[:1].isspace()


def structures(text: str) -> list[Stretch]:
    r"""The stretches that are no prose, in order, apart from each other; each is to be kept whole or dropped.

    * JSON objects, and arrays of objects, arrays or strings, that parse; anywhere in the text;
    * code between fences of which one closes the other, and indented code;
    * Markdown tables; at least three lines (two with tabs) that are equally many comma-, semicolon- or tab-separated
      fields, of which commas are only believed with nothing but a few words between them;
    * lists of at least two items with everything that belongs to them, unless their items are long paragraphs.

        >>> text = "See:\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nThat is all."
        >>> [text[start:end] for start, end in structures(text)]
        ['| a | b |\n|---|---|\n| 1 | 2 |']
    """
    lines = _lines(text)
    fenced = list(_fenced(lines))
    taken = [False] * len(lines)
    for first, last in fenced:
        taken[first : last + 1] = [True] * (last + 1 - first)
    found = [*fenced, *_tables(lines, taken), *_delimited(lines, taken), *_lists(lines, taken), *_code(lines, taken)]
    stretches = [(lines[first].start, lines[last].end) for first, last in found]
    return merge([*stretches, *_json(text)])


def is_json(text: str) -> bool:
    """Whether the whole text is a JSON object, array or string."""
    if text.lstrip()[:1] not in ("{", "[", '"'):
        return False
    try:
        json.loads(text, parse_int=str, parse_float=str)
    except ValueError:
        return False
    except RecursionError:  # too deep for Python's parser; nothing that reads it as JSON gets this far
        return False
    return True


def json_prose(text: str) -> list[tuple[Stretch, str]]:
    """The long string values of a JSON text that are prose: where each literal stands, and what it says.

    Keys are none, nor are strings of one sentence: names, paths, addresses and code.
    """
    found = []
    for match in _STRING.finditer(text):
        if match.end() - match.start() < _PROSE or text[match.end() :][:64].lstrip().startswith(":"):
            continue
        value = json.loads(match[0], strict=False)
        if len(sentences(value)) > 1 and not structures(value):
            found.append((match.span(), value))
    return found


def json_literal(value: str, like: str) -> str:
    """A string as a JSON literal, escaped as the one whose place it takes."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # half of a pair can only stand in JSON escaped
        return json.dumps(value)
    return json.dumps(value, ensure_ascii=like.isascii())


def _lines(text: str) -> list[_Line]:
    lines, start = [], 0
    for line in text.split("\n"):
        visible = line.rstrip()
        lines.append(_Line(start, start + len(visible), visible))
        start += len(line) + 1
    return lines


def _fenced(lines: Sequence[_Line]) -> Iterator[tuple[int, int]]:
    """First and last line of each code block. A fence with a language name opens and cannot close."""
    opened, mark = -1, ""
    for number, line in enumerate(lines):
        fence = _FENCE.match(line.text)
        if fence is None:
            continue
        if opened >= 0 and fence[1].startswith(mark) and not fence[2]:
            yield opened, number
            opened = -1
        elif opened < 0 or fence[2]:
            opened, mark = number, fence[1]


def _tables(lines: Sequence[_Line], taken: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Pipe tables with their rule, and runs of rows or of a grid that begin with a pipe or a plus."""
    number = 0
    while number < len(lines):
        first = last = number
        bare = lines[number].text.lstrip()
        if taken[number] or not bare:
            number += 1
            continue
        if number + 1 < len(lines) and "|" in bare and not taken[number + 1] and _is_rule(lines[number + 1].text):
            last = number + 1
            while last + 1 < len(lines) and "|" in lines[last + 1].text and not taken[last + 1]:
                last += 1
        elif bare.startswith(("|", "+-", "+=")):
            while last + 1 < len(lines) and lines[last + 1].text.lstrip().startswith(("|", "+-", "+=")):
                last += 1
        if last > first:
            yield first, last
        number = last + 1


def _is_rule(line: str) -> bool:
    return "|" in line and "-" in line and _RULE_ROW.match(line) is not None


def _delimited(lines: Sequence[_Line], taken: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Runs of lines with equally many fields."""
    for mark, fields, rows in (("\t", 2, 2), (";", 3, 3), (",", 3, 3)):
        first, count = 0, 0
        for number in range(len(lines) + 1):
            here = 0
            if number < len(lines) and not taken[number] and mark in lines[number].text:
                here = len(_fields(lines[number].text, mark))
            if here == count:
                continue
            run = lines[first:number]
            if count >= fields and len(run) >= rows and (mark == "\t" or _is_data(run, mark)):
                yield first, number - 1
            first, count = number, here


def _fields(line: str, mark: str) -> list[str]:
    if len(line) > _LONGEST_ROW:
        return []
    if '"' not in line:
        return line.split(mark)
    try:
        return next(csv.reader([line], delimiter=mark), [])
    except csv.Error:
        return []


def _is_data(run: Sequence[_Line], mark: str) -> bool:
    """Whether lines with separators are data: prose has a space after its commas, and ends its sentences."""
    rows = [_fields(line.text, mark) for line in run]
    if not any(field[:1].isspace() for row in rows for field in row[1:]):
        return True
    words = sum(len(field.split()) for row in rows for field in row)
    return words <= 3 * sum(map(len, rows)) and not any(_END.search(line.text) for line in run)


def _lists(lines: Sequence[_Line], taken: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Lists: items, what is indented below them, and lines that go on without a blank line before."""
    number = 0
    while number < len(lines):
        if taken[number] or not _ITEM.match(lines[number].text):
            number += 1
            continue
        first = last = number
        items, size = 1, len(lines[number].text)
        number += 1
        while number < len(lines):
            line = lines[number]
            if not line.text:
                number += 1
                continue
            item = not taken[number] and _ITEM.match(line.text) is not None
            follows = number == last + 1 and not _HEADING.match(line.text) and "|" not in line.text[:1]
            if not (item or line.indented or follows) or number > last + 3:
                break
            items, size, last = items + item, size + len(line.text), number
            number += 1
        if items > 1 and size <= _PARAGRAPH * items:
            yield first, last
        number = last + 1


def _code(lines: Sequence[_Line], taken: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Runs of lines indented by four columns after a blank line, of which half look like code."""
    number = 0
    while number < len(lines):
        starts = number == 0 or not lines[number - 1].text
        if not starts or not _is_indented_code(lines[number], taken[number]):
            number += 1
            continue
        first = last = number
        while number < len(lines) and (not lines[number].text or _is_indented_code(lines[number], taken[number])):
            last = number if lines[number].text else last
            number += 1
        filled = [line for line in lines[first : last + 1] if line.text]
        if len(filled) > 1 and 2 * sum(_CODE.search(line.text) is not None for line in filled) >= len(filled):
            yield first, last


def _is_indented_code(line: _Line, taken: bool) -> bool:
    return not taken and line.text.startswith(("    ", "\t"))


def _json(text: str) -> Iterator[Stretch]:
    decoder: Any = json.JSONDecoder(parse_int=str, parse_float=str)
    patience = 8 * len(text) + 10_000  # brackets that never close must not be read to the end again and again
    done = 0
    for match in _JSON.finditer(text):
        start = match.start()
        if start < done or patience <= 0:
            continue
        try:
            _, done = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            patience -= max(error.pos - start, 1)
        except RecursionError:
            patience -= len(text) - start
        else:
            yield start, done
