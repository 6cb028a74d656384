"""What a format's reader gives, and what all readers share."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_MARKUP = re.compile(r"!?\[([^\]]{0,400})\]\([^)]{0,400}\)")
_CODE = re.compile(r"`+([^`]*)`+")
_STRONG = re.compile(r"(\*\*|__)(?=\S)(.{1,300}?)(?<=\S)\1")
_EMPHASIS = re.compile(r"(?<!\w)([*_])(?=\S)(.{1,300}?)(?<=\S)\1(?!\w)")
_LONGEST_HEADING = 120


@dataclass(frozen=True, slots=True)
class Content:
    """A file as text with its structure; the fields are those of ``Document``.

    Attributes:
        skipped: ``(where, reason)`` of the parts that could not be read: ``("page 7", "...")``.
    """

    text: str
    title: str = ""
    sections: tuple[tuple[int, str], ...] = ()
    pages: tuple[int, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()


def heading(text: str) -> str:
    """A heading as it is shown in paths and titles: without markup, on one line, not too long."""
    text = text[:1000].strip()
    text = text.rsplit("{#", 1)[0] if text.endswith("}") else text
    # every other part is code, whose stars and underscores are its own
    parts = _CODE.split(_MARKUP.sub(r"\1", text))
    parts[::2] = [_EMPHASIS.sub(r"\2", _STRONG.sub(r"\2", part)).replace("`", "") for part in parts[::2]]
    return on_one_line("".join(parts))


def on_one_line(text: str) -> str:
    """A title as it is shown: on one line, not too long."""
    text = " ".join(text[: 10 * _LONGEST_HEADING].split())
    return text if len(text) <= _LONGEST_HEADING else text[: _LONGEST_HEADING - 1].rstrip() + "…"


def paths(headings: Iterable[tuple[int, int, str]]) -> tuple[tuple[int, str], ...]:
    """``(offset, level, heading)`` in order to ``(offset, "Top > Sub")``."""
    out: list[tuple[int, str]] = []
    stack: list[tuple[int, str]] = []
    for offset, level, title in headings:
        while stack and stack[-1][0] >= level:
            stack.pop()
        stack.append((level, title))
        # Text in the wild nests to any depth; a path deeper than this tells a reader nothing more.
        out.append((offset, " > ".join(name for _, name in stack[-6:] if name)))
    return tuple(out)


def reason(error: BaseException) -> str:
    """An exception as a reason: its first line, short."""
    lines = str(error).strip().splitlines()
    said = " ".join(lines[0].split())[:160] if lines else ""
    name = type(error).__name__
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, MemoryError):
        return "takes more memory than there is"
    return f"{name}: {said}" if said else name


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Keeps a library's log lines and warnings off the screen: what matters comes out as ``Skipped``."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
