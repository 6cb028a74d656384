"""The k best passages: compression by the retriever's own scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragzip.compressors._groups import best_first, owner, segment_scores, select
from ragzip.compressors._options import check_count
from ragzip.protocols import Selector
from ragzip.types import Context, Segment


@dataclass(frozen=True)
class TopK(Selector):
    """Keeps the segments of the ``k`` passages with the best scores, in the order they are in.

    Without scores the first passages count as the best. A segment that names no passage counts as one of its own.

    Attributes:
        k: How many passages.
    """

    k: int = 5

    def __post_init__(self) -> None:
        check_count("k", self.k, least=1)

    def compress(self, contexts: Sequence[Context[Segment]]) -> Sequence[Context[Segment]]:
        """Each context with its best passages."""
        return [self._compress(context) for context in contexts]

    def _compress(self, context: Context[Segment]) -> Context[Segment]:
        owners = [owner(segment, index) for index, segment in enumerate(context.segments)]
        chosen: set[str] = set()
        for index in best_first(segment_scores(context)):
            if len(chosen) == self.k:
                break
            chosen.add(owners[index])
        return select(context, [index for index, name in enumerate(owners) if name in chosen])
