"""Near-duplicate removal by word shingles.

Broder, "On the resemblance and containment of documents", 1997: the share of one text's word n-grams that another
holds says how much of it that other text repeats.
"""

from __future__ import annotations

import math
import string
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ragzip.compressors._forced import forced
from ragzip.compressors._groups import best_first, segment_scores, select, shown
from ragzip.compressors._options import check_number
from ragzip.compressors._relevance import titles_of
from ragzip.protocols import Selector
from ragzip.text import merge, words
from ragzip.types import Context, Segment, SoftSegment, TextSegment

_SIZE = 3
_SPEAKS = 11  # shingles from which on a segment is the same under any title: those of thirteen words
_ALIKE = 0.8  # share of its length from which on a segment is another version of one that holds it, and no part
_BEFORE_DIGITS, _BEHIND_DIGITS, _BEHIND_LETTERS = "+-<>=~#$", "%+$", "+#"
_PUNCTUATION = string.punctuation + "“”‘’«»‹›…—–·•。，、？！：；（）「」『』《》،؛؟।"


@dataclass(frozen=True)
class Dedupe(Selector):
    """Drops segments that another one, better scored or earlier, already says.

    A segment goes when at least ``threshold`` of its three-word shingles (case and punctuation aside) stand in one
    segment that stays, which has all of its numbers, with signs and units, and its negations, too, and no others if it
    is hardly longer; a long segment that holds a short one stays. Exact duplicates always go, but for segments of a
    dozen words or fewer under different titles: what they say is about two things. Takes time near linear in the length
    of the context: only segments that share one of a segment's rarest shingles, or its rarest number, are compared.

    Attributes:
        threshold: Least share of shingles that counts as duplicate, above 0 and at most 1.
    """

    threshold: float = 0.9

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, low=1e-6, high=1.0)

    def compress(self, contexts: Sequence[Context[Segment]]) -> Sequence[Context[Segment]]:
        """Each context without its duplicates, in the order it was in."""
        return [self._compress(context) for context in contexts]

    def _compress(self, context: Context[Segment]) -> Context[Segment]:
        segments = context.segments
        if len(segments) < 2:
            return context
        titles = titles_of(context)
        bags = [_shingles(segment.text) if isinstance(segment, TextSegment) else None for segment in segments]
        common = Tally(shingle for bag in bags if bag for shingle in bag)
        holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
        tellers: dict[str, list[int]] = defaultdict(list)
        soft: set[SoftSegment] = set()
        texts: dict[str, list[int]] = defaultdict(list)
        told: dict[int, frozenset[str]] = {}
        kept: list[int] = []
        for index in best_first(segment_scores(context)):
            segment, bag = segments[index], bags[index]
            if isinstance(segment, SoftSegment):
                if segment in soft:
                    continue
                soft.add(segment)
            elif shown(segment):
                # a few words say what they say of what their title names; more words name it themselves
                about = titles[index] if bag is None or len(bag) < _SPEAKS else ""
                alike = _Alike(titles, about, index, segments, told)
                same = texts[" ".join(segment.text.split())]
                if any(map(alike, same)) or (bag and self._contained(bag, bags, common, holders, tellers, alike)):
                    continue
                same.append(index)
                for shingle in bag or ():
                    if common[shingle] > 1:  # what no other segment holds cannot make one a duplicate
                        holders[shingle].append(index)
                shared = any(common[shingle] > 1 for shingle in bag or ())
                for word in alike.telling() if shared else ():
                    tellers[word].append(index)
            kept.append(index)
        return select(context, sorted(kept))

    def _contained(
        self,
        bag: frozenset[tuple[str, ...]],
        bags: Sequence[frozenset[tuple[str, ...]] | None],
        common: Tally[tuple[str, ...]],
        holders: dict[tuple[str, ...], list[int]],
        tellers: dict[str, list[int]],
        alike: _Alike,
    ) -> bool:
        """Whether one kept segment holds enough of these shingles.

        A segment that holds ``needed`` of them holds one of any ``len - needed + 1``: the rarest are looked up. One
        that has all numbers and negations has the rarest of these: where fewer have it, they are.
        """
        needed = max(math.ceil(self.threshold * len(bag) - 1e-9), 1)
        rarest = sorted(bag, key=lambda shingle: (common[shingle], shingle))[: len(bag) - needed + 1]
        lists = [holders.get(shingle, []) for shingle in rarest]
        telling = min((tellers.get(word, []) for word in alike.telling()), key=len, default=None)
        if telling is not None and len(telling) < sum(map(len, lists)):
            lists = [telling]
        seen: set[int] = set()
        for found in lists:
            for other in found:
                held = bags[other]
                if other in seen or held is None:
                    continue
                seen.add(other)
                if not alike(other) or not alike.told_by(other):
                    continue
                both = len(bag & held)
                if both == len(bag) or (both >= needed and alike.agrees(other)):
                    return True
        return False


@dataclass(frozen=True, slots=True)
class _Alike:
    """Whether another segment can be about the same: it stands under this title, or one of the two under none."""

    titles: Sequence[str]
    about: str
    index: int
    segments: Sequence[Segment]
    told: dict[int, frozenset[str]]

    def __call__(self, other: int) -> bool:
        return not self.about or not self.titles[other] or self.titles[other].casefold() == self.about.casefold()

    def telling(self) -> frozenset[str]:
        """The numbers and negations of this one."""
        return self._telling(self.index)

    def told_by(self, other: int) -> bool:
        """Whether the other has all numbers and negations of this one."""
        return self._telling(self.index) <= self._telling(other)

    def agrees(self, other: int) -> bool:
        """Whether it has no more of them, or is so much longer that these can stand elsewhere."""
        longer = len(self._text(self.index)) < _ALIKE * len(self._text(other))
        return longer or self._telling(self.index) == self._telling(other)

    def _telling(self, number: int) -> frozenset[str]:
        if number not in self.told:
            self.told[number] = _telling(self._text(number))
        return self.told[number]

    def _text(self, number: int) -> str:
        segment = self.segments[number]
        return segment.text if isinstance(segment, TextSegment) else ""


def _shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Three neighbouring words each; a shorter text is one shingle; empty where there is only punctuation."""
    folded = text.casefold()
    kept = _bare(folded)
    if len(kept) <= _SIZE:
        return frozenset({tuple(kept)} if kept else ())
    return frozenset(tuple(kept[i : i + _SIZE]) for i in range(len(kept) - _SIZE + 1))


def _bare(folded: str) -> list[str]:
    """The words of a text in small letters, without the marks around them that say nothing: C# and -5% keep theirs."""
    found: list[str] = []
    for start, end in words(folded):
        word = folded[start:end]
        bare = word.strip(_PUNCTUATION)
        if not bare:
            continue
        first = word.index(bare)
        last = first + len(bare)
        while first > 0 and bare[0].isdigit() and word[first - 1] in _BEFORE_DIGITS:
            first -= 1
        while last < len(word) and word[last] in (_BEHIND_DIGITS if bare[-1].isdigit() else _BEHIND_LETTERS):
            last += 1
        found.append(word[first:last])
    return found


def _telling(text: str) -> frozenset[str]:
    """The numbers and negations of a text, by which two that are alike otherwise say different things."""
    folded = text.casefold()
    names = {word for word in _bare(folded) if any(map(str.isdigit, word)) and any(map(str.isalpha, word))}
    found = forced(folded, "", ("numbers", "negations"), None)  # a number with its sign and its unit
    if len(folded) == len(text):  # some units are known in capitals alone, MB say
        found = merge([*found, *forced(text, "", ("numbers",), None)])
    return frozenset(names | {"".join(folded[start:end].split()) for start, end in found})
