"""Each line that ends in ``# refused`` must not type-check; all others must."""

# pyright: strict, reportUnusedExpression=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence

from ragzip import Budget, Compressor, Context, Reorder, Selector, SentenceFilter, SoftSegment, Stack, TextSegment, TopK
from tests.typing.sound import Mix, Shrink, Soft

Soft() >> SentenceFilter()  # refused
Soft() >> Soft()  # refused
Soft() >> TopK() >> SentenceFilter()  # refused
Soft() >> (TopK() >> SentenceFilter())  # refused
(TopK() >> Soft()) >> (Reorder() >> SentenceFilter())  # refused
SentenceFilter() >> Soft() >> Budget(3) >> Reorder() >> SentenceFilter()  # refused
(Soft() >> (TopK() >> Reorder())) >> SentenceFilter()  # refused
Mix() >> SentenceFilter()  # refused
Mix() >> TopK() >> Soft()  # refused
SentenceFilter() >> 3  # refused
TopK() >> "reorder"  # refused
Shrink() >> SentenceFilter()  # refused

takes_any: Compressor[SoftSegment, TextSegment] = SentenceFilter()  # refused
gives_text: Compressor[TextSegment, TextSegment] = Soft()  # refused
no_selector: Selector = SentenceFilter() >> TopK()  # refused
text: Stack[TextSegment, TextSegment] = SentenceFilter() >> Soft()  # refused


def run(soft: Sequence[Context[SoftSegment]], text: Sequence[Context[TextSegment]]) -> None:
    """Contexts must be of the kind a stack takes."""
    SentenceFilter().compress(soft)  # refused
    (SentenceFilter() >> Soft()).run(soft)  # refused
    (TopK() >> Reorder()).compress(soft)
    (TopK() >> Reorder()).compress(text)
    Shrink().compress(text)
    SentenceFilter(treshold=0.3)  # refused
    Reorder("best")  # refused
