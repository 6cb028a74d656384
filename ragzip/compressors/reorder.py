"""The order of passages: the best where language models look most.

Liu et al., "Lost in the Middle: How Language Models Use Long Contexts", TACL 2024: models use what stands at the
beginning and the end of their context better than what stands in its middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ragzip.compressors._groups import best_first, lead, runs, segment_scores, select
from ragzip.errors import ConfigError
from ragzip.protocols import Selector
from ragzip.types import Context, Segment

Order = Literal["ends", "score", "original"]


@dataclass(frozen=True)
class Reorder(Selector):
    """Moves passages; nothing is removed. Neighbouring segments of one passage stay together.

    Attributes:
        order: ``ends`` puts the best passage first, the second last, the third second, and so on, so that the
            poorest stand in the middle; ``score`` puts the best first; ``original`` goes back to the order in
            which they were retrieved. Without scores, the order they are in counts as best first.
    """

    order: Order = "ends"

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise ConfigError("order", f"must be one of {', '.join(get_args(Order))}, not {self.order!r}")

    def compress(self, contexts: Sequence[Context[Segment]]) -> Sequence[Context[Segment]]:
        """Each context in the new order."""
        return [self._compress(context) for context in contexts]

    def _compress(self, context: Context[Segment]) -> Context[Segment]:
        blocks = runs(context)
        if self.order == "original":
            place = {passage.id: i for i, passage in reversed(list(enumerate(context.passages)))}
            last = len(place)
            where = [place.get(lead(context.segments[block[0]]) or "", last) for block in blocks]
            order = sorted(range(len(blocks)), key=lambda b: (where[b], b))
        else:
            scores = segment_scores(context)
            order = best_first([scores[block[0]] for block in blocks])
            if self.order == "ends":
                order = [*order[::2], *reversed(order[1::2])]
        return select(context, [index for b in order for index in blocks[b]])
