"""The helper base for methods that score sentences: subclass it, write ``score``, and everything else is there."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, cast

from ragzip.compressors._allocate import fit, fits, share_of, unless_grown
from ragzip.compressors._forced import Force, check_forced, forced_units
from ragzip.compressors._layout import Layout
from ragzip.compressors._options import check_count, check_number, check_share, counter_of
from ragzip.protocols import Compressor, Counter, runtime_field
from ragzip.types import Context, Passage, Query, Segment, TextSegment


@dataclass(frozen=True, slots=True)
class Sentences:
    """The sentences of one segment.

    Attributes:
        texts: In order; a very long one comes in several parts.
        passage: Where they come from (title, score, full text), or None where the segment names none.
    """

    texts: tuple[str, ...]
    passage: Passage | None = None

    @property
    def title(self) -> str:
        """The passage's title, or ""."""
        return self.passage.title if self.passage else ""


@dataclass(frozen=True, kw_only=True)
class SentenceScorer(Compressor[TextSegment, TextSegment]):
    """Keeps the sentences with the best scores, in their order, with exact spans.

    A method is a frozen dataclass with ``score`` and its own options; see ``sentence_filter`` for an example. All
    limits that are given hold together; where none is, ``default_threshold`` does, or ``default_keep`` for methods
    whose scores have no scale. A method whose scores say what surely does not help has a ``limited_threshold`` besides:
    where keep or budget cut something and no threshold is given, sentences below it do not fill what is left, unless
    no sentence reaches it.

    Attributes:
        threshold: Sentences that score less are dropped; None drops none but by the method's own default. Where nothing
            is asked, no sentence can fall short of it.
        keep: Share of the context's tokens kept, above 0 and at most 1, shared across passages by score; the best
            sentence is kept whole even where it is more.
        budget: Most tokens of the whole context as laid out, titles and separators included, shared across
            passages by score. Always met: where no sentence fits, the best one is cut at a word.
        force_keep: Sentences with these come before all others and stay whatever threshold and keep say:
            ``titles``, ``numbers``, ``negations``. Only a budget is stronger.
        force_pattern: A regular expression; sentences in which it is found are kept like those of ``force_keep``.
        counter: Whose tokens are counted; the generator's within a pipeline.
    """

    default_keep: ClassVar[float] = 0.5
    asks: ClassVar[bool] = True  # whether the scores hang on what is asked
    scale: ClassVar[tuple[float, float]] = (-math.inf, math.inf)  # of the scores; thresholds beyond it are refused
    floor: ClassVar[float | None] = None  # what a score below it counts as against a threshold; ranks are by the score
    default_threshold: ClassVar[float | None] = None
    limited_threshold: ClassVar[float | None] = None

    threshold: float | None = None
    keep: float | None = None
    budget: int | None = None
    force_keep: tuple[Force, ...] = ()
    force_pattern: str | None = None
    counter: Counter | None = runtime_field()

    def __post_init__(self) -> None:
        low, high = self.scale
        check_number("threshold", self.threshold, low=low, high=high)
        check_share("keep", self.keep)
        check_count("budget", self.budget)
        check_forced(self.force_keep, self.force_pattern)

    @abstractmethod
    def score(self, query: Query, groups: Sequence[Sentences]) -> Sequence[Sequence[float]]:
        """A score for each sentence of each group, greater is better; called once a context.

        Args:
            query: The question; its text may be empty.
            groups: One per segment that has sentences, in order; never empty.
        """

    def compress(self, contexts: Sequence[Context[TextSegment]]) -> Sequence[Context[TextSegment]]:
        """Each context with its best sentences."""
        unlimited = self.threshold is None and self.keep is None and self.budget is None
        if unlimited and self.default_threshold is not None:
            return replace(self, threshold=self.default_threshold).compress(contexts)
        return [cast("Context[TextSegment]", self._compress(context)) for context in contexts]

    def _compress(self, context: Context[TextSegment]) -> Context[Segment]:
        layout = Layout(cast("Context[Segment]", context))
        keep = self.keep
        if keep is None and self.threshold is None and self.budget is None:
            keep = self.default_keep
        keep = None if keep == 1.0 else keep
        if not layout.units or (keep is None and self.threshold is None and self.budget is None):
            return layout.context
        if keep is None and self.budget is None:
            kept = layout.build(self._rank(layout, self._forced(layout), None))
            return unless_grown(layout, kept, lambda: counter_of(self.counter))
        counter = counter_of(self.counter)
        if self.budget == 0:
            return layout.build(())
        if keep is None and self.threshold is None and fits(layout, self.budget or 0, counter):
            return layout.context  # nothing to decide: spare the scoring
        must = self._forced(layout)
        share = None if keep is None else self._share(keep, layout, counter)
        if share is not None and must:
            share = max(share, counter.context(layout.build(must)))
        ranked = self._rank(layout, must, min(limit for limit in (share, self.budget) if limit is not None))
        if share is None or (self.budget is not None and self.budget <= share):
            kept = fit(layout, ranked, self.budget or 0, counter, must=must)
        else:
            kept = share_of(layout, ranked, share, self.budget, counter, must)
        return unless_grown(layout, kept, lambda: counter)

    def _share(self, keep: float, layout: Layout, counter: Counter) -> int:
        """The tokens that ``keep`` leaves."""
        return math.floor(keep * counter.context(layout.context))

    def _forced(self, layout: Layout) -> frozenset[int]:
        return forced_units(layout, self.force_keep, self.force_pattern)

    def _rank(self, layout: Layout, must: frozenset[int], limit: int | None) -> list[int]:
        """The units to choose from, first those to choose first.

        Args:
            layout: The units.
            must: Those that come first whatever they score.
            limit: Most tokens that will be kept, or None where only the threshold decides.
        """
        groups = groups_of(layout)
        query = layout.context.query
        found = self.score(query, groups)
        if [len(scores) for scores in found] != [len(group.texts) for group in groups]:
            raise ValueError(f"{type(self).__name__}.score gave another number of scores than there are sentences")
        return self._order(
            [float(score) for group in found for score in group], must, bool(query.text.strip()) or not self.asks
        )

    def _order(self, scores: Sequence[float], must: frozenset[int], asked: bool = True) -> list[int]:
        """What must be kept, then units at or above the threshold, best first, equal ones in their order.

        Where nothing was asked, no score says that something does not help, and the threshold does not hold.
        """
        if not all(math.isfinite(score) for score in scores):
            raise ValueError(f"{type(self).__name__}.score gave a score that is not finite")
        least = self.threshold if asked else None
        if least is None and self.limited_threshold is not None and max(scores, default=0.0) >= self.limited_threshold:
            least = self.limited_threshold
        counted = scores if self.floor is None else [max(score, self.floor) for score in scores]
        above = (unit for unit in range(len(scores)) if unit in must or least is None or counted[unit] >= least)
        return sorted(above, key=lambda unit: (unit not in must, -scores[unit], unit))


def groups_of(layout: Layout) -> list[Sentences]:
    """The sentences of every segment that has some, in order; there are as many as units."""
    return [
        Sentences(tuple(layout.text(unit) for unit in units), layout.passage(segment))
        for segment, units in enumerate(layout.of_segment)
        if units
    ]
