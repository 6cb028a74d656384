"""Bytes to text, without guessing.

UTF-8, or UTF-16 and UTF-32 with a byte order mark. Anything else is refused with the byte that shows it, unless the
caller names an encoding: a guess that is wrong puts garbage into an index without a word. Line endings stay as they
are: translating them would shift every offset into the file.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import stat
from typing import BinaryIO

from ragzip.errors import UsageError
from ragzip.ingest.walk import kind, say

_MARKS = (
    # UTF-32 first: its little-endian mark begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Encodings whose bytes can pass for UTF-8 without being it: tried before UTF-8 when named.
_LOOKALIKES = re.compile(r"(utf_(7|16|32).*|iso2022.*|hz|utf-(7|16|32).*|cp037|cp500|cp1140)$")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Unreadable(Exception):
    """Why a file cannot be read; the message is the reason that ``Skipped`` shows."""


class Empty(Unreadable):
    """The file can be read, and nothing stands in it."""


def check_encoding(encoding: str | None) -> str | None:
    """The encoding's canonical name.

    Raises:
        UsageError: Python knows no such text encoding.
    """
    if encoding is None:
        return None
    try:
        name = codecs.lookup(encoding).name
        with contextlib.suppress(UnicodeError):
            b"ragzip".decode(encoding)  # base64 and its kind are codecs, and no text encodings
    except (LookupError, ValueError) as error:
        raise UsageError(
            f"{encoding!r} is no text encoding", hint="For example latin-1, cp1252, shift_jis or utf-16."
        ) from error
    return name


def read_bytes(path: str, max_bytes: int) -> bytes:
    """A whole file.

    Raises:
        Unreadable: Too big, not permitted, gone, or not a regular file.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size <= max_bytes:
                data = file.read(max_bytes + 1)
                if len(data) <= max_bytes:
                    return data
                size = len(data)
    except OSError as error:
        raise Unreadable(say(error, "file")) from error
    raise Unreadable(too_big(size, max_bytes))


def open_regular(path: str) -> BinaryIO:
    """Opens a regular file for reading; anything else is refused without being read.

    Opened without blocking: a named pipe put in a file's place between the walk and now would wait forever.

    Raises:
        OSError: As ``open``.
        Unreadable: Not a regular file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise Unreadable(f"not a regular file ({kind(mode)})")
    return os.fdopen(handle, "rb")


def too_big(size: int, limit: int) -> str:
    """The reason for a file over the limit."""
    return f"too big: {size / 2**20:,.1f} MiB, the limit is {limit / 2**20:,.1f} MiB"


def decode(data: bytes, encoding: str | None = None) -> str:
    """A text file's characters, without its byte order mark.

    Args:
        data: The file.
        encoding: What to read it as where it is not UTF-8, as ``check_encoding`` gives it.

    Raises:
        Unreadable: Not text, or in an encoding that is not said.
    """
    marked = mark_of(data)
    if marked is not None:
        return _strict(data[len(marked[0]) :], marked[1])
    if encoding is not None and _LOOKALIKES.match(encoding):
        return _strict(data, encoding)
    if b"\0" in data:
        raise Unreadable("binary file")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if encoding is not None and encoding != "utf-8":
            return _strict(data, encoding)
        raise Unreadable(not_utf8(data[error.start], error.start)) from error


def not_utf8(byte: int, offset: int) -> str:
    """The reason for a file that is not UTF-8."""
    return f"not UTF-8 (byte 0x{byte:02X} at {offset}); convert it or pass --encoding"


def mark_of(head: bytes) -> tuple[bytes, str] | None:
    """The byte order mark that a file begins with, and its encoding."""
    return next(((mark, name) for mark, name in _MARKS if head.startswith(mark)), None)


def stream_encoding(head: bytes, encoding: str | None) -> str:
    """How to read a file line by line, from its first bytes; "utf-8" for everything decided a line at a time.

    Raises:
        Unreadable: The file is binary.
    """
    marked = mark_of(head)
    if marked is not None:
        return {"utf-8": "utf-8-sig"}.get(marked[1], marked[1][:6])
    if encoding is not None and _LOOKALIKES.match(encoding):
        return encoding
    if b"\0" in head:
        raise Unreadable("binary file")
    return "utf-8"


def whole(text: str) -> str:
    """The text with lone surrogates replaced: they cannot be stored or tokenized. Keeps every offset."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _strict(data: bytes, encoding: str) -> str:
    try:
        return whole(data.decode(encoding))
    except (UnicodeError, ValueError) as error:
        at = f" at {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        raise Unreadable(f"not {encoding.upper()}{at}; convert it or pass another --encoding") from error
