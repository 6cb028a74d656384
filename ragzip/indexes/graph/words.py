"""Text to a stream of hashed words, each with what its surroundings say: is it capitalised, does a name go on in it.

Names are found without a model, by capitals; scripts without capitals still have titles and rare words. A phrase of
several words is one number of 64 bits, the same wherever they stand: in a title, a passage, a question.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ragzip.indexes.terms import word_pattern

CAPITAL, NUMBER, JOINED, START, LINK, SHORT = 1, 2, 4, 8, 16, 32
"""Begins with a capital; has a digit; goes on from the word before; begins a sentence; may stand in the midst of a
name ("of"); too short for a rare term."""

MOST_WORDS = 8
"""Of a phrase."""

_LINKS = {
    *("of", "the", "and", "de", "la", "le", "du", "des", "di", "da", "do", "dos", "del", "della"),
    *("von", "van", "der", "den", "zu", "y", "e", "al", "el", "bin", "ibn"),
}
_JOINING = re.compile(r"[ \t]*[-‐-―'’&·.]?[ \t]*|[ \t]*\n?[ \t]*")
_SHORTENED = re.compile(r"\.[ \t]*")
_ENDING = re.compile(r"[.!?:;。！？]|\n")
_ASIDE = re.compile(r"\s*[(\[（][^)\]）]*[)\]）]\s*$")
_STEP = re.compile(r"\s>\s")
_MULTIPLIER, _ADDEND, _MASK = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03, (1 << 64) - 1
_LEAST_LETTERS = 4
_LONGEST_NAME = 400  # characters
_WIDEST = 32  # characters between two words of one phrase


class Words(NamedTuple):
    """The words of a text, in order.

    Attributes:
        hashes: ``[n]`` uint32, of the words without regard to case.
        flags: ``[n]`` uint8.
    """

    hashes: NDArray[np.uint32]
    flags: NDArray[np.uint8]


def words(text: str) -> Words:
    """The words of a text."""
    found: list[int] = []
    flags: list[int] = []
    end, before = 0, ""
    normal = text if text.isascii() else unicodedata.normalize("NFKC", text)
    for match in word_pattern().finditer(normal):
        word, gap = match[0], normal[end : match.start()]
        around = _around(gap) if end else START
        if around == START and 0 < len(before) < 3 and before[0].isupper() and _SHORTENED.fullmatch(gap):
            around = JOINED  # an initial, or "St."
        end, before = match.end(), word
        if match[1] is None:
            number, own = _word(word)
            found.append(number)
            flags.append(own | around)
            continue
        for character in word:  # a script without spaces
            number, own = _word(character)
            found.append(number)
            flags.append(own | around)
            around = JOINED
    return Words(np.array(found, np.uint32), np.array(flags, np.uint8))


@functools.lru_cache(maxsize=1 << 16)
def _word(word: str) -> tuple[int, int]:
    folded = word.casefold()
    flags = CAPITAL if word[0].isupper() or word[0].istitle() else 0
    flags |= NUMBER if any(map(str.isdigit, word)) else 0
    flags |= LINK if word in _LINKS else 0
    flags |= SHORT if len(word) < _LEAST_LETTERS else 0
    return int.from_bytes(hashlib.blake2b(folded.encode("utf-8", "replace"), digest_size=4).digest(), "little"), flags


@functools.lru_cache(maxsize=1 << 12)
def _around(gap: str) -> int:
    """What the characters between two words say of the second."""
    if _ENDING.search(gap):
        return START
    if len(gap) > _WIDEST:
        return 0
    return JOINED if _JOINING.fullmatch(gap) else 0


def phrase(hashes: Sequence[int] | NDArray[np.uint32]) -> int:
    """The number of a phrase: the same as ``phrases`` gives where these words stand."""
    value = 0
    for one in hashes:
        value = ((value ^ int(one)) * _MULTIPLIER + _ADDEND) & _MASK
        value ^= value >> 29
    return value


def phrases(hashes: NDArray[np.uint32], most: int = MOST_WORDS) -> Iterator[NDArray[np.uint64]]:
    """For 1, 2, ... words: the numbers of the phrases of that many words, ``[n - words + 1]``, by their first word."""
    value = np.zeros(len(hashes), np.uint64)
    for size in range(1, min(most, len(hashes)) + 1):
        value = value[: len(hashes) - size + 1]
        value = (value ^ hashes[size - 1 :].astype(np.uint64)) * np.uint64(_MULTIPLIER) + np.uint64(_ADDEND)
        value ^= value >> np.uint64(29)
        yield value


def names_of(title: str) -> set[int]:
    """The phrases a title stands for: each step of it, with and without what it has in brackets at its end.

    "Cars (film)" is what a text calls "Cars"; "Guide > Install" is both of them.
    """
    found: set[int] = set()
    for step in _STEP.split(title):
        if len(step) > _LONGEST_NAME:
            continue
        for form in (step, _ASIDE.sub("", step)):
            hashes = words(form).hashes
            if 0 < len(hashes) <= MOST_WORDS:
                found.add(phrase(hashes))
    return found
