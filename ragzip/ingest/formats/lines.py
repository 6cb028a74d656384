"""A file a line at a time, in memory that does not grow with the file, and a bad line at a time."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from ragzip.ingest.decode import not_utf8, stream_encoding

LONGEST_LINE = 16 * 1024 * 1024
"""Characters of one line or CSV field; a longer one is skipped."""

_ESCAPED = re.compile("[\udc80-\udcff]")
_HEAD = 8192


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        number: From 1.
        text: With its line end; a stand-in where there is a problem.
        problem: Why the line cannot be used, or "".
    """

    number: int
    text: str
    problem: str = ""


def read_lines(file: BinaryIO, encoding: str | None, *, longest: int = LONGEST_LINE) -> Iterator[Line]:
    """The lines of a text file; each that is not UTF-8 is tried in ``encoding``, on its own.

    Raises:
        Unreadable: The file is binary.
    """
    head = file.read(_HEAD)
    file.seek(0)
    codec = stream_encoding(head, encoding)
    # Bytes that are not UTF-8 come through as escapes and spoil their own line only.
    errors = "surrogateescape" if codec.startswith("utf-8") else "replace"
    with io.TextIOWrapper(file, codec, errors, newline="\n") as text:
        number = 0
        while line := text.readline(longest + 1):
            number += 1
            if len(line) > longest and not line.endswith("\n"):
                while (rest := text.readline(_HEAD)) and not rest.endswith("\n"):
                    pass
                yield Line(number, "\n", f"longer than {longest:,} characters")
            elif errors == "surrogateescape" and not line.isascii() and _ESCAPED.search(line):
                yield _escaped(number, line, encoding)
            else:
                yield Line(number, line)


def _escaped(number: int, line: str, encoding: str | None) -> Line:
    data = line.encode("utf-8", "surrogateescape")
    if encoding is not None:
        try:
            return Line(number, data.decode(encoding))
        except UnicodeError:
            return Line(number, _ESCAPED.sub("\ufffd", line), f"neither UTF-8 nor {encoding}")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return Line(number, _ESCAPED.sub("\ufffd", line), not_utf8(data[error.start], error.start))
    return Line(number, line)
