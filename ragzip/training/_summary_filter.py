"""What a summariser sees behind a filter of sentences, in a stack of the two, and what of it helps."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from ragzip.compressors._writer import Block
from ragzip.compressors.bm25_sentences import BM25Sentences
from ragzip.compressors.recomp_abstractive import blocks_of
from ragzip.text import Stretch, intersect
from ragzip.training.examples import Example, Marked
from ragzip.types import Context, Passage, Query, TextSegment, context_of

Filter = Callable[[Context[TextSegment], int], Context[TextSegment]]
"""Leaves at most so many tokens of a context, in whole sentences."""

_LEFT = (60, 320)  # tokens, drawn for each example: budgets at which a filter stands before a summariser


def bm25_filter(context: Context[TextSegment], tokens: int) -> Context[TextSegment]:
    """By words in common with the question: untrained, so that it does here as well as elsewhere, and cheap."""
    return BM25Sentences(budget=tokens).compress([context])[0]


def left_of(
    example: Example, shown: Sequence[Marked], filters: Filter, seed: int
) -> tuple[tuple[Block, ...], list[Marked]]:
    """What a filter leaves of passages, as a prompt shows it; and the passages with what helps of what is left.

    Args:
        example: Whose question is asked.
        shown: The passages in their order; those that do not help have no support.
        filters: See ``Filter``.
        seed: Of the draw of how much is left.
    """
    draw = random.Random(f"{seed} left {example.id}")  # noqa: S311 - no secret
    passages = tuple(Passage(str(number), marked.text, marked.title) for number, marked in enumerate(shown))
    context = filters(context_of(Query(example.question), passages), draw.randint(*_LEFT))
    kept: dict[str, list[Stretch]] = {}
    for segment in context.segments:
        for span in segment.sources:
            kept.setdefault(span.passage_id, []).append((span.start, span.end))
    left = [
        replace(marked, support=tuple(intersect(marked.support, kept.get(str(number), ()))))
        for number, marked in enumerate(shown)
    ]
    return tuple(blocks_of(context)), left
