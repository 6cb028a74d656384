"""No compression: the baseline that every other method is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragzip.protocols import Selector
from ragzip.types import Context, Segment


@dataclass(frozen=True)
class Identity(Selector):
    """Gives back every context as it is.

    >>> from ragzip.types import Query, context_of
    >>> context = context_of(Query("Why?"), ())
    >>> Identity().compress([context]) == [context]
    True
    """

    def compress(self, contexts: Sequence[Context[Segment]]) -> Sequence[Context[Segment]]:
        """The contexts themselves."""
        return list(contexts)
