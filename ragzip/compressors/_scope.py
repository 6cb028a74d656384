"""The parts of SCOPE that need no model: chunks of sentences that belong together, their shares, their keywords."""

from __future__ import annotations

import math
import string
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ragzip.compressors._layout import Layout
from ragzip.text import words

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_LONGEST = 1200  # characters of a chunk: more than small models rewrite well
_SHORT = 80  # characters of a chunk that says too little by itself
_LEAST = 8  # tokens below which a share is not worth having
_AT_ONCE = 16  # of so many chunks whose share is not worth having, one goes at a time
_PUNCTUATION = string.punctuation + "“”‘’«»‹›…—–·•。，、？！：；（）「」『』《》،؛؟।"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Neighbouring sentences of one segment.

    Attributes:
        segment: Index of the segment.
        units: Indices of its units in the layout.
        text: From the first sentence to the last.
        relevance: 0 to 1: of its sentence that is closest to the question.
    """

    segment: int
    units: range
    text: str
    relevance: float


def chunks(
    layout: Layout,
    vectors: npt.NDArray[np.float32],
    scores: Sequence[float],
    similarity: float,
    longest: int = _LONGEST,
) -> list[Chunk]:
    """Cuts every segment where neighbouring sentences differ.

    A chunk too short to say something by itself (an outlier) joins the neighbour that it resembles more.

    Args:
        layout: Its units are sentences.
        vectors: ``[n_units, d]``, rows of length 1.
        scores: Of each unit, 0 to 1.
        similarity: Least cosine of two neighbours within a chunk.
        longest: Most characters of a chunk of several sentences, up to what small models rewrite well.
    """
    found: list[Chunk] = []
    longest = min(longest, _LONGEST)
    for segment, units in enumerate(layout.of_segment):
        for part in _gathered(layout, vectors, _cut(layout, vectors, units, similarity, longest), longest):
            first, last = layout.units[part.start], layout.units[part.stop - 1]
            text = _text(layout, segment)[first.start : last.end]
            found.append(Chunk(segment, part, text, max(scores[unit] for unit in part)))
    return found


def _text(layout: Layout, segment: int) -> str:
    return str(getattr(layout.context.segments[segment], "text", ""))


def _cut(
    layout: Layout, vectors: npt.NDArray[np.float32], units: range, similarity: float, longest: int
) -> list[range]:
    parts: list[range] = []
    size = 0
    for unit in units:
        length = layout.size(unit)
        alike = bool(parts) and float(vectors[unit - 1] @ vectors[unit]) >= similarity
        if alike and size + length <= longest:
            parts[-1] = range(parts[-1].start, unit + 1)
            size += length
        else:
            parts.append(range(unit, unit + 1))
            size = length
    return parts


def _gathered(layout: Layout, vectors: npt.NDArray[np.float32], parts: list[range], longest: int) -> list[range]:
    """Chunks with the short ones put to their neighbours, from the first to the last."""
    place = 0
    while place < len(parts) and len(parts) > 1:
        part = parts[place]
        size = sum(map(layout.size, part))
        if size >= _SHORT:
            place += 1
            continue
        sides = [at for at in (place - 1, place + 1) if 0 <= at < len(parts)]
        sides = [at for at in sides if size + sum(map(layout.size, parts[at])) <= longest]
        if not sides:
            place += 1
            continue
        own = vectors[part.start : part.stop].mean(axis=0)
        best = max(sides, key=lambda at: (float(own @ vectors[parts[at].start : parts[at].stop].mean(axis=0)), -at))
        first, last = sorted((place, best))
        parts[first : last + 1] = [range(parts[first].start, parts[last].stop)]
        place = first
    return parts


def deal(sizes: Sequence[int], weights: Sequence[float], total: int) -> list[int]:
    """How many tokens each chunk may keep: the dynamic ratio.

    A chunk's share of ``total`` goes by its size times its weight, and is at most its size; what that leaves over
    goes to the others. Chunks whose share would be less than a few tokens get none, the least relevant first, and where
    there are many of them a sixteenth at a time.

        >>> deal([100, 100, 40], [0.9, 0.3, 0.9], 120)
        [68, 23, 27]
    """
    taking = [i for i, size in enumerate(sizes) if size > 0]
    while taking:
        shares = _shares(sizes, weights, total, taking)
        poor = [i for i in taking if shares[i] < min(_LEAST, sizes[i])]
        if not poor or len(taking) == 1:
            return shares
        poor.sort(key=lambda i: (weights[i], -i))
        gone = set(poor[: max(len(poor) // _AT_ONCE, 1)])  # one by one would be quadratic in very long contexts
        taking = [i for i in taking if i not in gone]
    return [0] * len(sizes)


def _shares(sizes: Sequence[int], weights: Sequence[float], total: int, taking: Sequence[int]) -> list[int]:
    shares = [0] * len(sizes)
    left, open_ = total, list(taking)
    while open_ and left > 0:
        mass = sum(sizes[i] * max(weights[i], 1e-3) for i in open_)
        enough = left >= sum(sizes[i] for i in open_)  # said in whole numbers: products of weights are rounded
        full = [i for i in open_ if enough or left * sizes[i] * max(weights[i], 1e-3) >= sizes[i] * mass]
        if not full:
            for i in open_:
                shares[i] = math.floor(left * sizes[i] * max(weights[i], 1e-3) / mass)
            break
        for i in full:
            shares[i] = sizes[i]
        left -= sum(sizes[i] for i in full)
        filled = set(full)
        open_ = [i for i in open_ if i not in filled]
    return [max(min(share, size), 0) for share, size in zip(shares, sizes, strict=True)]


def keywords(texts: Sequence[str], question: str, most: int) -> list[list[str]]:
    """For each text the words that must not get lost: numbers, names, words of the question, and rare words.

    Args:
        texts: The chunks of one context; a word counts as rare where few of them have it.
        question: May be empty.
        most: How many words of a text.
    """
    asked = {_bare(question[start:end]).casefold() for start, end in words(question)}
    bags = [_words(text) for text in texts]
    common = Tally(word for bag in bags for word in {bare.casefold() for bare in bag})
    return [_best(bag, asked, common, len(texts), most) for bag in bags]


def _best(bag: Mapping[str, bool], asked: set[str], common: Tally[str], total: int, most: int) -> list[str]:
    worth: dict[str, float] = {}
    for word, opens in bag.items():
        key = word.casefold()
        number = any(character.isdigit() for character in word)
        name = word[0].isupper() and not opens
        # articles, initials; letters that are words, and ideographs, of which one says little: but for Korean syllables
        short = len(word) < (3 if name else 4) if word.isascii() else len(word) == 1 and not "가" <= word <= "힣"
        if len(word) > 40 or (short and not number):
            continue
        rare = math.log((total + 1) / common[key]) if total > 1 else 0.0
        worth[word] = 3 * number + 2 * name + 2 * (key in asked) + rare
    ranked = sorted(worth, key=lambda word: -worth[word])  # stable: equal ones in their order
    chosen = [word for word in ranked if worth[word] > 1][:most]
    return [word for word in worth if word in set(chosen)]


def _words(text: str) -> dict[str, bool]:
    """A text's words without punctuation, and whether each only ever opens a sentence."""
    found: dict[str, bool] = {}
    opens = True
    for start, end in words(text):
        word = text[start:end]
        bare = _bare(word)
        if bare:
            found[bare] = found.get(bare, True) and opens
        opens = word[-1] in ".!?…。！？।؟:" or text[end : end + 1] == "\n"
    return found


def _bare(word: str) -> str:
    return word.strip(_PUNCTUATION)
