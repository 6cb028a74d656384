"""Files of evaluation data, read with bounds: JSON lines, tables and whole JSON files, plain or gzip-compressed."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from ragzip.errors import IngestError

LONGEST_LINE = 64 * 2**20
"""Bytes of one line, after decompression."""
LARGEST_FILE = 4 * 2**30
"""Bytes of one file, after decompression: a small compressed file can hold any amount."""

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_PIECE = 2**20


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file with their numbers, from 1; blank ones and a byte order mark are passed over.

    Raises:
        IngestError: The file cannot be read, is not UTF-8, or is larger than the bounds; says file and line.
    """
    number = total = 0
    try:
        with _open(path) as file:
            while raw := file.readline(LONGEST_LINE + 1):
                number += 1
                total += len(raw)
                if len(raw) > LONGEST_LINE:
                    problem = f"the line is longer than {_mib(LONGEST_LINE)}"
                    raise IngestError(f"{path}:{number}: {problem}", hint="A file of records has one record a line.")
                if total > LARGEST_FILE:
                    raise IngestError(f"{path}: larger than {_mib(LARGEST_FILE)}", hint="Split it into several files.")
                line = _decode(raw, f"{path}:{number}")
                if number == 1:
                    line = line.removeprefix("\ufeff")
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file, one a line, with their line numbers.

    Raises:
        IngestError: As ``text_lines``; or a line that is not a JSON object, or holds a lone surrogate.
    """
    for number, line in text_lines(path):
        value = _parse(line, f"{path}:{number}")
        if not isinstance(value, dict):
            raise IngestError(f"{path}:{number}: not a JSON object but {kind(value)}", hint="One object a line.")
        yield number, value


def read_json(path: Path) -> Any:
    """A file that is one JSON value.

    Raises:
        IngestError: The file cannot be read, is not JSON, or is larger than the bounds.
    """
    return _parse(read_text(path), str(path))


def read_text(path: Path) -> str:
    """A whole UTF-8 file.

    Raises:
        IngestError: The file cannot be read, is not UTF-8, or is larger than the bounds.
    """
    pieces: list[bytes] = []
    try:
        with _open(path) as file:
            while piece := file.read(_PIECE):
                pieces.append(piece)
                if len(pieces) * _PIECE > LARGEST_FILE:
                    raise IngestError(f"{path}: larger than {_mib(LARGEST_FILE)}")
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error
    return _decode(b"".join(pieces), str(path)).removeprefix("\ufeff")


def kind(value: Any) -> str:
    """What a JSON value is, in JSON's words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else type(value).__name__


def has_surrogate(value: Any) -> bool:
    """Whether a text anywhere in a JSON value holds half a surrogate pair, which no UTF-8 file can."""
    if isinstance(value, str):
        return any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, dict):
        return any(has_surrogate(key) or has_surrogate(item) for key, item in value.items())
    return isinstance(value, list | tuple) and any(has_surrogate(item) for item in value)


def _parse(text: str, where: str) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}"
        raise IngestError(f"{where}: not JSON: {error.msg} at {place}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
        raise IngestError(f"{where}: not JSON that can be read: {error}") from error
    if _SURROGATE_ESCAPE.search(text) and has_surrogate(value):
        raise IngestError(
            f"{where}: half a surrogate pair (\\ud800 to \\udfff), which is no character",
            hint="Write characters beyond U+FFFF as themselves or as both halves.",
        )
    return value


def _open(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _decode(raw: bytes, where: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise IngestError(f"{where}: not UTF-8 at byte {error.start + 1}", hint="Save the file as UTF-8.") from error


def _unreadable(path: Path, error: Exception) -> IngestError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return IngestError(f"{path}: cannot be read: {reason or type(error).__name__}")


def _mib(size: int) -> str:
    return f"{size >> 20:,} MiB"
