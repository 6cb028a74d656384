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

from ragzip.compressors._groups import best_first, segment_scores, select, shown
from ragzip.compressors._options import check_number
from ragzip.compressors._relevance import titles_of
from ragzip.protocols import Selector
from ragzip.text import words
from ragzip.types import Context, Segment, SoftSegment, TextSegment

_SIZE = 3
_SPEAKS = 11  # shingles from which on a segment is the same under any title: those of thirteen words
_PUNCTUATION = string.punctuation + "“”‘’«»‹›…—–·•。，、？！：；（）「」『』《》،؛؟।"


@dataclass(frozen=True)
class Dedupe(Selector):
    """Drops segments that another one, better scored or earlier, already says.

    A segment goes when at least ``threshold`` of its three-word shingles (case and punctuation aside) stand in one
    segment that stays; a long segment that holds a short one stays. Exact duplicates always go, but for segments of a
    dozen words or fewer under different titles: what they say is about two things. Takes time near linear in the
    length of the context: only segments that share one of a segment's rarest shingles are compared.

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
        soft: set[SoftSegment] = set()
        texts: dict[str, list[int]] = defaultdict(list)
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
                alike = _Alike(titles, about)
                same = texts[" ".join(segment.text.split())]
                if any(map(alike, same)) or (bag and self._contained(bag, bags, common, holders, alike)):
                    continue
                same.append(index)
                for shingle in bag or ():
                    if common[shingle] > 1:  # what no other segment holds cannot make one a duplicate
                        holders[shingle].append(index)
            kept.append(index)
        return select(context, sorted(kept))

    def _contained(
        self,
        bag: frozenset[tuple[str, ...]],
        bags: Sequence[frozenset[tuple[str, ...]] | None],
        common: Tally[tuple[str, ...]],
        holders: dict[tuple[str, ...], list[int]],
        alike: _Alike,
    ) -> bool:
        """Whether one kept segment holds enough of these shingles.

        A segment that holds ``needed`` of them holds one of any ``len - needed + 1``: the rarest are looked up.
        """
        needed = max(math.ceil(self.threshold * len(bag) - 1e-9), 1)
        rarest = sorted(bag, key=lambda shingle: (common[shingle], shingle))[: len(bag) - needed + 1]
        seen: set[int] = set()
        for shingle in rarest:
            for other in holders.get(shingle, ()):
                held = bags[other]
                if other not in seen and held is not None and len(bag & held) >= needed and alike(other):
                    return True
                seen.add(other)
        return False


@dataclass(frozen=True, slots=True)
class _Alike:
    """Whether another segment can be about the same: it stands under this title, or one of the two under none."""

    titles: Sequence[str]
    about: str

    def __call__(self, other: int) -> bool:
        return not self.about or not self.titles[other] or self.titles[other].casefold() == self.about.casefold()


def _shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Three neighbouring words each; a shorter text is one shingle; empty where there is only punctuation."""
    folded = text.casefold()
    bare = (folded[start:end].strip(_PUNCTUATION) for start, end in words(folded))
    kept = [word for word in bare if word]
    if len(kept) <= _SIZE:
        return frozenset({tuple(kept)} if kept else ())
    return frozenset(tuple(kept[i : i + _SIZE]) for i in range(len(kept) - _SIZE + 1))
