"""Whole passages within a context: which segments belong together, and in which order their scores put them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ragzip.types import Context, Segment, TextSegment


def shown(segment: Segment) -> bool:
    """Whether the generator sees anything of a segment."""
    if isinstance(segment, TextSegment):
        return bool(segment.text.strip())
    return bool(segment.embeddings.shape[0])


def lead(segment: Segment) -> str | None:
    """The id of the passage a segment counts to: that of its first span."""
    return segment.sources[0].passage_id if segment.sources else None


def owner(segment: Segment, index: int) -> str:
    """Whose segment it is: a passage's id, whether it is known or not; what has no source is its own."""
    return lead(segment) or f"\0{index}"


def segment_scores(context: Context[Segment]) -> list[float | None]:
    """For each segment the retriever's score of its passage; the first passage counts where ids repeat."""
    by_id = {passage.id: passage.score for passage in reversed(context.passages)}
    return [_number(by_id.get(lead(segment) or "")) if segment.sources else None for segment in context.segments]


def runs(context: Context[Segment]) -> list[list[int]]:
    """Neighbouring segments of one passage, whose title is printed once: the blocks that can move as one.

    Segments that show nothing go with the block before them.
    """
    found: list[list[int]] = []
    last: str | None = None
    for index, segment in enumerate(context.segments):
        if found and (not shown(segment) or (lead(segment) is not None and lead(segment) == last)):
            found[-1].append(index)
        else:
            found.append([index])
        if shown(segment):
            last = lead(segment)
    return found


def best_first(scores: Sequence[float | None]) -> list[int]:
    """Indices by falling score; those without one last; equal ones in their order."""
    return sorted(range(len(scores)), key=lambda i: (scores[i] is None, -(scores[i] or 0.0), i))


def ranks(scores: Sequence[float | None]) -> list[int]:
    """For each score how many distinct ones are better; where there is none, all are."""
    levels = sorted({score for score in scores if score is not None}, reverse=True)
    place = {score: rank for rank, score in enumerate(levels)}
    return [len(levels) if score is None else place[score] for score in scores]


def select(context: Context[Segment], order: Sequence[int]) -> Context[Segment]:
    """The context with these segments in this order; itself where that changes nothing."""
    if list(order) == list(range(len(context.segments))):
        return context
    return Context(context.query, tuple(context.segments[i] for i in order), context.passages)


def _number(score: float | None) -> float | None:
    """A score that can be compared: NaN counts as none."""
    return None if score is None or math.isnan(score) else float(score)
