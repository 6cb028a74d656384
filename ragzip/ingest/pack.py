"""Sentences into passages of a token size: cutting what is too long, packing what is short.

A *unit* is what stays together: a sentence, or a piece of one that alone is over the limit. Token counts of units
are taken once, all in one batch, and added up; what adding up got wrong is found by counting the results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ragzip.text import cut_before, sentences

CHARACTERS_PER_TOKEN = 16
"""No passage has more characters a token of its limit: a tokenizer may call a megabyte without a space one token."""

_BLOCK = 1 << 18
_BATCH_TEXTS = 8192
_BATCH_CHARACTERS = 1 << 22


class Unit(NamedTuple):
    """Characters ``start`` to ``end`` of a document, at least one of them, without white space around.

    ``whole`` is False for a piece of a sentence.
    """

    start: int
    end: int
    tokens: int
    whole: bool


class Packed(NamedTuple):
    """The units of one passage; the first ``carried`` stand in the passage before as well."""

    units: Sequence[Unit]
    carried: int


class Counter:
    """Counts tokens in batches of bounded size.

    Attributes:
        base: What the count of an empty text is: special tokens, which adding up must not add up.
    """

    def __init__(self, count_tokens: Callable[[Sequence[str]], Sequence[int]]) -> None:
        self._count = count_tokens
        self.base = 0

    def first(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text without ``base``, which the same call finds out."""
        counts = self.raw(["", *texts])
        self.base = counts[0]
        return [max(1, count - self.base) for count in counts[1:]]

    def each(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text without ``base``, at least 1."""
        return [max(1, count - self.base) for count in self.raw(texts)]

    def raw(self, texts: Sequence[str]) -> list[int]:
        """What ``count_tokens`` says, in as few calls as memory allows."""
        out: list[int] = []
        batch: list[str] = []
        size = 0
        for text in texts:
            if batch and (len(batch) >= _BATCH_TEXTS or size + len(text) > _BATCH_CHARACTERS):
                out.extend(int(count) for count in self._count(batch))
                batch, size = [], 0
            batch.append(text)
            size += len(text)
        if batch:
            out.extend(int(count) for count in self._count(batch))
        return out


def stretches(text: str, start: int, end: int, most: int) -> list[tuple[int, int, bool]]:
    """The sentences between two offsets, those longer than ``most`` characters in pieces: ``(start, end, whole)``."""
    out: list[tuple[int, int, bool]] = []
    for left, right in _blocks(text, start, end):
        for first, last in sentences(text[left:right]):
            if last - first <= most:
                out.append((left + first, left + last, True))
            else:
                out.extend((a, b, False) for a, b in cut(text, left + first, left + last, most))
    return out


def _blocks(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Slices of a long text at blank lines, or else at line ends or spaces, so that no step holds all of it."""
    out: list[tuple[int, int]] = []
    while end - start > 2 * _BLOCK:
        low, high = start + _BLOCK, start + 2 * _BLOCK
        at = next((at for gap in ("\n\n", "\n", " ") if (at := text.rfind(gap, low, high)) > 0), -1)
        at = at + 1 if at > 0 else cut_before(text, high)
        out.append((start, at))
        start = at
    out.append((start, end))
    return out


def cut(text: str, start: int, end: int, size: int) -> list[tuple[int, int]]:
    """Pieces of at most ``size`` characters, ending at a line's end, else between words, else between characters."""
    out: list[tuple[int, int]] = []
    while start < end:
        stop = end if end - start <= size else _border(text, start, start + size)
        piece = text[start:stop]
        bare = piece.strip()
        if bare:
            first = start + len(piece) - len(piece.lstrip())
            out.append((first, first + len(bare)))
        start = stop
    return out


def _border(text: str, start: int, stop: int) -> int:
    """The best place to cut in the second half of ``[start, stop)``."""
    low = start + (stop - start) // 2
    line = text.rfind("\n", low, stop)
    if line >= 0:
        return line + 1
    for at in range(stop, low, -1):
        if text[at - 1].isspace() or text[at].isspace():
            return at
    at = cut_before(text, stop)
    return at if at > start else stop


def shortened(text: str, units: list[Unit], room: int, counter: Counter) -> list[Unit]:
    """The units, those of more than ``room`` tokens replaced by pieces that are not."""
    while any(unit.tokens > room and unit.end - unit.start > 1 for unit in units):
        out: list[Unit] = []
        fresh: list[int] = []
        for unit in units:
            length = unit.end - unit.start
            if unit.tokens <= room or length == 1:
                out.append(unit)
                continue
            # A little below the proportional length, so that most pieces fit at once; always a real cut.
            size = min(length - 1, max(1, length * room * 9 // (unit.tokens * 10)))
            for start, end in cut(text, unit.start, unit.end, size):
                fresh.append(len(out))
                out.append(Unit(start, end, 0, False))
        counts = counter.each([text[out[at].start : out[at].end] for at in fresh])
        for at, count in zip(fresh, counts, strict=True):
            out[at] = out[at]._replace(tokens=count)
        units = out
    return units


def pack(units: Sequence[Unit], room: int, overlap: int, most: int) -> list[Packed]:
    """Neighbouring units into passages of at most ``room`` tokens and ``most`` characters, of much the same size.

    What is left over is shared out evenly at every step, so that no passage ends up with a scrap; neighbours share
    up to ``overlap`` tokens of whole sentences.
    """
    sums = [0]
    for unit in units:
        sums.append(sums[-1] + unit.tokens)
    out: list[Packed] = []
    start = new = 0
    while new < len(units):
        left = sums[-1] - sums[start]
        parts = 1 if left <= room else math.ceil((left - overlap) / (room - overlap))
        target = left if parts == 1 else (left - overlap) / parts + overlap
        stop = new + 1
        while (
            stop < len(units)
            and sums[stop + 1] - sums[start] <= room
            and units[stop].end - units[start].start <= most
            and (parts == 1 or sums[stop] - sums[start] + units[stop].tokens / 2 <= target)
        ):
            stop += 1
        out.append(Packed(units[start:stop], new - start))
        new = back = stop
        while (
            new < len(units)
            and back - 1 > start
            and units[back - 1].whole
            and sums[new] - sums[back - 1] <= overlap
            and sums[new + 1] - sums[back - 1] <= room
            and units[new].end - units[back - 1].start <= most
        ):
            back -= 1
        start = back
    return out


def halves(text: str, packed: Packed) -> list[Packed]:
    """A passage that came out too long, made shorter: without what it shares, else in two."""
    if packed.carried:
        return [Packed(packed.units[packed.carried :], 0)]
    if len(packed.units) > 1:
        middle = len(packed.units) // 2
        return [Packed(packed.units[:middle], 0), Packed(packed.units[middle:], 0)]
    unit = packed.units[0]
    size = (unit.end - unit.start + 1) // 2
    return [Packed([Unit(a, b, 0, False)], 0) for a, b in cut(text, unit.start, unit.end, size)]
