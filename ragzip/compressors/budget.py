"""A token budget for the whole context, shared across passages by their scores, and always met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragzip.compressors._allocate import fit, fits, unless_grown
from ragzip.compressors._groups import owner, ranks, segment_scores
from ragzip.compressors._layout import Layout
from ragzip.compressors._options import check_count, counter_of
from ragzip.protocols import Counter, Selector, runtime_field
from ragzip.types import Context, Segment


@dataclass(frozen=True)
class Budget(Selector):
    """Cuts passages from their end until the context fits, poor ones more than good ones.

    The passage with the best score gets twice the share of the second and three times that of the third (weights
    1, 1/2, 1/3, …; equal scores get equal weights, and so do passages where none has a score). Within its share a
    passage keeps its first sentences. Whole sentences are dealt out one by one by highest averages (D'Hondt's
    rule), so what a short passage leaves over goes to the others. Soft segments are kept or dropped
    whole. Put it last: it needs no model, and whatever came before, the generator gets no more than this.

    Attributes:
        tokens: Most tokens of the context as laid out, titles and separators included. 0 leaves nothing.
        counter: Whose tokens are counted; the generator's within a pipeline.
    """

    tokens: int
    counter: Counter | None = runtime_field()

    def __post_init__(self) -> None:
        check_count("tokens", self.tokens)

    def compress(self, contexts: Sequence[Context[Segment]]) -> Sequence[Context[Segment]]:
        """Each context within the budget."""
        return [self._compress(context) for context in contexts]

    def _compress(self, context: Context[Segment]) -> Context[Segment]:
        layout = Layout(context)
        if not layout.units:
            return context
        counter = counter_of(self.counter)
        if fits(layout, self.tokens, counter):
            return context
        shared = fit(layout, _deal(layout), self.tokens, counter, skip="segment")
        return unless_grown(layout, shared, lambda: counter)


def _deal(layout: Layout) -> list[int]:
    """Units in the order in which highest averages deals them out; lengths stand for tokens, and order is all."""
    context = layout.context
    weights = [1 / (1 + rank) for rank in ranks(segment_scores(context))]
    taken: dict[str, int] = {}
    worth = []
    for number, unit in enumerate(layout.units):
        index = unit.segment
        name = owner(context.segments[index], index)
        first = number == layout.of_segment[index][0]
        taken[name] = taken.get(name, 0) + layout.size(number) + (len(layout.title(index)) if first else 0)
        worth.append(weights[index] / max(taken[name], 1))
    return sorted(range(len(worth)), key=lambda number: (-worth[number], number))
