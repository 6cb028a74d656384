"""The best passages stay text, the rest become soft, under one budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ragzip.compressors._groups import best_first, runs, segment_scores
from ragzip.compressors._options import check_count, counter_of, most
from ragzip.errors import ConfigError
from ragzip.protocols import Compressor, Counter, runtime_field
from ragzip.types import Context, Segment, TextSegment


@dataclass(frozen=True)
class TextThenSoft(Compressor[TextSegment, Segment]):
    """Spends tokens where the retriever is surest: passages as text from the best one on, the others as soft segments.

    Where everything fits the budget as text, it stays. Otherwise all passages become soft first; then, from the best
    one down, they are text again as long as the whole context stays within the budget, and the first one that does not
    fit ends it. Where even the soft context is too large, the poorest passages are dropped; where nothing fits, nothing
    is left. Passages keep their places. Without scores, the order they are in counts as best first. Beside ``refrag``,
    which chooses chunks within passages, it moves whole passages, and works with any soft compressor.

    Attributes:
        soft: Makes the rest soft: ``xrag``, ``comp_llm`` or ``icae``, say.
        budget: Most tokens of the context as laid out, or None for no limit; always met.
        text: Most passages that stay text, or None for as many as the budget allows. Give this or a budget.
        counter: Whose tokens are counted; the generator's within a pipeline.
    """

    soft: Compressor[TextSegment, Segment]
    budget: int | None = None
    text: int | None = None
    counter: Counter | None = runtime_field()

    def __post_init__(self) -> None:
        check_count("budget", self.budget)
        check_count("text", self.text)
        if self.budget is None and self.text is None:
            raise ConfigError("budget", "is missing", hint="Give budget (tokens) or text (passages).")

    @property
    def space(self) -> str:
        """Whose input embeddings the soft segments are, as far as the compressor within says so."""
        return _space(self.soft)

    def compress(self, contexts: Sequence[Context[TextSegment]]) -> Sequence[Context[Segment]]:
        """Each context with its best passages as text."""
        if self.budget == 0:
            return [Context(context.query, (), context.passages) for context in contexts]
        blocks = [runs(context) for context in contexts]
        ranked = [_ranked(context, some) for context, some in zip(contexts, blocks, strict=True)]
        needed = [set(self._needed(context, order)) for context, order in zip(contexts, ranked, strict=True)]
        parts = [
            Context(context.query, tuple(context.segments[i] for i in block), context.passages)
            for context, some, wanted in zip(contexts, blocks, needed, strict=True)
            for number, block in enumerate(some)
            if number in wanted
        ]
        soft = iter(self.soft.compress(parts) if parts else ())
        return [
            self._mixed(context, some, order, [next(soft).segments if n in wanted else () for n in range(len(some))])
            if wanted
            else Context(context.query, context.segments, context.passages)
            for context, some, order, wanted in zip(contexts, blocks, ranked, needed, strict=True)
        ]

    def _needed(self, context: Context[TextSegment], ranked: Sequence[int]) -> Sequence[int]:
        """The blocks whose rows may be asked for: none where all stays text, all where a budget decides."""
        if self.budget is None:
            return ranked[self.text :]
        everything = self.text is None or self.text >= len(ranked)
        return () if everything and counter_of(self.counter).context(context) <= self.budget else ranked

    def _mixed(
        self,
        context: Context[TextSegment],
        blocks: list[list[int]],
        ranked: Sequence[int],
        soft: list[tuple[Segment, ...]],
    ) -> Context[Segment]:
        counter = counter_of(self.counter)

        def build(kept: Sequence[int], text: set[int]) -> Context[Segment]:
            segments: list[Segment] = []
            for number in sorted(kept):
                segments += [context.segments[i] for i in blocks[number]] if number in text else soft[number]
            return Context(context.query, tuple(segments), context.passages)

        def fits(kept: Sequence[int], text: set[int]) -> bool:
            return self.budget is None or counter.context(build(kept, text)) <= self.budget

        kept = ranked[: most(len(ranked), lambda count: fits(ranked[:count], set()))]
        room = len(kept) if self.text is None else min(self.text, len(kept))
        count = most(room, lambda number: fits(kept, set(kept[:number])))
        return build(kept, set(kept[:count]))


def _ranked(context: Context[TextSegment], blocks: Sequence[Sequence[int]]) -> list[int]:
    """The blocks of a context, best first."""
    scores = segment_scores(context)
    return best_first([scores[block[0]] for block in blocks])


def _space(part: Any) -> str:
    """What a compressor, or the last of a stack that says so, names as the space of its rows; "" for none."""
    inner = reversed(getattr(part, "compressors", ()))
    return str(getattr(part, "space", "")) or next((space for one in inner if (space := _space(one))), "")
