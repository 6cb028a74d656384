"""Truncation: the head of the context, as long as allowed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ragzip.compressors._allocate import fit, fits, unless_grown
from ragzip.compressors._layout import Layout
from ragzip.compressors._options import check_count, check_share, counter_of
from ragzip.errors import ConfigError
from ragzip.protocols import Counter, Selector, runtime_field
from ragzip.types import Context, Segment


@dataclass(frozen=True)
class Truncate(Selector):
    """Keeps the context up to the last sentence that fits; where none does, to the last word, else character.

    What a system without compression does when its context is too long, and therefore the baseline to beat. It
    reads no scores, so put it after what orders the context. Soft segments are kept or dropped whole.

    Attributes:
        tokens: Most tokens of the context as laid out, or None; always met.
        keep: Share of the context's tokens kept, above 0 and at most 1, or None; always met.
        counter: Whose tokens are counted; the generator's within a pipeline.

        >>> from ragzip.tokens import TokenCounter
        >>> from ragzip.types import Passage, Query, context_of
        >>> context = context_of(Query("Who?"), (Passage("p", "One two. Three four. Five six."),))
        >>> by_words = TokenCounter(lambda texts: [len(text.split()) for text in texts])
        >>> Truncate(tokens=5).bind(by_words).compress([context])[0].segments[0].text
        'One two. Three four.'
    """

    tokens: int | None = None
    keep: float | None = None
    counter: Counter | None = runtime_field()

    def __post_init__(self) -> None:
        check_count("tokens", self.tokens)
        check_share("keep", self.keep)
        if self.tokens is None and self.keep is None:
            raise ConfigError("tokens", "is missing", hint="Give tokens (a number) or keep (a share).")

    def compress(self, contexts: Sequence[Context[Segment]]) -> Sequence[Context[Segment]]:
        """The head of each context."""
        return [self._compress(context) for context in contexts]

    def _compress(self, context: Context[Segment]) -> Context[Segment]:
        layout = Layout(context)
        if not layout.units or (self.tokens is None and self.keep == 1.0):
            return context
        counter = counter_of(self.counter)
        limits = [] if self.tokens is None else [self.tokens]
        if self.keep is not None and self.keep < 1.0:
            limits.append(math.floor(self.keep * counter.context(context)))
        if fits(layout, min(limits), counter):
            return context
        head = fit(layout, range(len(layout.units)), min(limits), counter, skip="all")
        return unless_grown(layout, head, lambda: counter)
