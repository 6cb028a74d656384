"""Everything here must type-check; ``assert_type`` says as what."""

# pyright: strict, reportUnusedExpression=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_type

from ragzip import (
    Budget,
    Compressor,
    Context,
    Dedupe,
    Identity,
    Reorder,
    Selector,
    SentenceFilter,
    SoftSegment,
    Stack,
    TextSegment,
    TopK,
    Truncate,
)
from ragzip.protocols import Counter
from ragzip.types import Segment


@dataclass(frozen=True)
class Soft(Compressor[TextSegment, SoftSegment]):
    """Text to rows."""

    def compress(self, contexts: Sequence[Context[TextSegment]]) -> Sequence[Context[SoftSegment]]:
        """Nothing."""
        return [Context(c.query, (), c.passages) for c in contexts]


@dataclass(frozen=True)
class Shrink(Compressor[Segment, SoftSegment]):
    """Anything to rows."""

    def compress(self, contexts: Sequence[Context[Segment]]) -> Sequence[Context[SoftSegment]]:
        """Nothing."""
        return [Context(c.query, (), c.passages) for c in contexts]


@dataclass(frozen=True)
class Mix(Compressor[TextSegment, Segment]):
    """Text to text and rows."""

    def compress(self, contexts: Sequence[Context[TextSegment]]) -> Sequence[Context[Segment]]:
        """Nothing."""
        return [Context(c.query, (), c.passages) for c in contexts]


Text = Stack[TextSegment, TextSegment]
ToSoft = Stack[TextSegment, SoftSegment]

# Text before soft.
assert_type(SentenceFilter() >> Soft(), ToSoft)
assert_type(SentenceFilter() >> SentenceFilter() >> Soft(), ToSoft)
assert_type(Soft() >> Shrink(), ToSoft)
assert_type(SentenceFilter() >> Shrink(), ToSoft)
assert_type(SentenceFilter() >> Mix() >> Shrink(), ToSoft)
assert_type(SentenceFilter() >> Mix(), Stack[TextSegment, Segment])

# Selectors fit anywhere and keep the type.
assert_type(SentenceFilter() >> TopK(), Text)
assert_type(SentenceFilter() >> Budget(400), Text)
assert_type(TopK() >> SentenceFilter(), Text)
assert_type(Soft() >> Reorder(), ToSoft)
assert_type(Soft() >> Budget(400) >> Identity(), ToSoft)
assert_type(TopK() >> Soft(), ToSoft)
assert_type(Dedupe() >> SentenceFilter() >> Reorder() >> Soft() >> Truncate(tokens=9), ToSoft)
assert_type(Mix() >> TopK(), Stack[TextSegment, Segment])
assert_type(TopK() >> Shrink(), Stack[Segment, SoftSegment])

# Stacks compose as their parts do, however they are put together.
assert_type((SentenceFilter() >> TopK()) >> (Dedupe() >> Soft()), ToSoft)
assert_type(SentenceFilter() >> (TopK() >> Dedupe()) >> SentenceFilter(), Text)
assert_type(Soft() >> (TopK() >> Reorder()), ToSoft)
assert_type((TopK() >> Reorder()) >> Soft(), ToSoft)
assert_type((TopK() >> Reorder()) >> (Dedupe() >> Reorder()) >> SentenceFilter(), Text)
assert_type(Soft() >> (TopK() >> Shrink()), ToSoft)

# Variance: what takes any segment can stand where text is given.
takes_text: Compressor[TextSegment, SoftSegment] = Shrink()
gives_any: Compressor[TextSegment, Segment] = SentenceFilter()
selector: Selector = TopK() >> Reorder()
empty: Stack[TextSegment, TextSegment] = Stack()


def run(counter: Counter, contexts: Sequence[Context[TextSegment]]) -> None:
    """Results keep the type of the stack."""
    stack = SentenceFilter(keep=0.5) >> TopK(3)
    assert_type(stack.compress(contexts), Sequence[Context[TextSegment]])
    assert_type(stack.run(contexts)[0].context, Context[TextSegment])
    assert_type(stack.bind(counter), Stack[TextSegment, TextSegment])
    assert_type((stack >> Soft()).run(contexts)[0].context.segments, tuple[SoftSegment, ...])
    assert_type(SentenceFilter().bind(counter), SentenceFilter)
