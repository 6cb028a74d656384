"""The helper base for methods that score words or phrases: subclass it, write ``score``, and the rest is there."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

from ragzip import text as texts
from ragzip.compressors._allocate import fits
from ragzip.compressors._forced import Force, check_forced, forced_units
from ragzip.compressors._layout import Layout
from ragzip.compressors._options import check_count, check_number, check_share, counter_of
from ragzip.protocols import Compressor, Counter, runtime_field
from ragzip.text import Stretch
from ragzip.types import Context, Passage, Query, Segment, TextSegment

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ragzip.compressors._words import Choice


@dataclass(frozen=True, slots=True)
class Words:
    """The words (or phrases) of one segment.

    Attributes:
        text: The segment's whole text.
        spans: Where each word stands in it, ``(start, end)`` in characters, in order.
        passage: Where the text comes from (title, score, full text), or None where the segment names none.
    """

    text: str
    spans: tuple[Stretch, ...]
    passage: Passage | None = None

    @property
    def title(self) -> str:
        """The passage's title, or ""."""
        return self.passage.title if self.passage else ""


@dataclass(frozen=True, kw_only=True)
class TokenScorer(Compressor[TextSegment, TextSegment]):
    """Keeps the words with the best scores, in their order, with exact spans.

    A method is a frozen dataclass with ``score`` and its own options; see ``llmlingua2`` for an example. Words of
    the whole context compete with each other: a passage that says little is left with little. All limits that are
    given hold together; where none is, ``default_keep`` does. Neighbouring words keep the white space between them,
    others are joined by a space (in scripts that are written without spaces, by nothing).

    Attributes:
        threshold: Words that score less are dropped; None drops none.
        keep: Share of the context's tokens kept, above 0 and at most 1, shared across passages by score; the best
            word is kept even where it is more.
        budget: Most tokens of the whole context as laid out, titles and separators included, shared across
            passages by score. Always met.
        force_keep: What stays whatever ``threshold`` and ``keep`` say, as far as ``budget`` allows: words of
            ``"titles"``, ``"numbers"``, ``"negations"``.
        force_pattern: A regular expression; words that touch a match of it stay, too.
        counter: Whose tokens are counted; the generator's within a pipeline.
    """

    default_keep: ClassVar[float] = 0.5
    scale: ClassVar[tuple[float, float]] = (-math.inf, math.inf)  # of the scores; thresholds beyond it are refused

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
    def score(self, query: Query, groups: Sequence[Words]) -> Sequence[Sequence[float]]:
        """A score for each word of each group, greater is better; called once a context.

        Args:
            query: The question; its text may be empty.
            groups: One per segment that has words, in order; never empty.

        Returns:
            As many rows as groups, each as long as its group's ``spans``; lists or arrays ``[n_words]``.
        """

    def units(self, text: str) -> list[Stretch]:
        """What is kept or dropped whole: words. Methods that decide on phrases override it.

        Stretches must be in order, must not overlap, and should cover every character that is not white space:
        what they leave out is dropped.
        """
        return texts.words(text)

    def compress(self, contexts: Sequence[Context[TextSegment]]) -> Sequence[Context[TextSegment]]:
        """Each context with its best words."""
        return [cast("Context[TextSegment]", self._compress(context)) for context in contexts]

    def _compress(self, context: Context[TextSegment]) -> Context[Segment]:
        given = cast("Context[Segment]", context)
        keep = self.keep
        if keep is None and self.threshold is None and self.budget is None:
            keep = self.default_keep
        keep = None if keep == 1.0 else keep
        if keep is None and self.threshold is None and self.budget is None:
            return given
        layout = Layout(given, cut=self.units)
        if not layout.units:
            return given
        if self.budget == 0:
            return layout.build(())
        counter = counter_of(self.counter)
        if keep is None and self.threshold is None and fits(layout, self.budget or 0, counter):
            return given  # nothing to decide: spare the scoring
        return self._choose(layout, keep, counter)

    def _choose(self, layout: Layout, keep: float | None, counter: Counter) -> Context[Segment]:
        """The context of the words that all limits leave."""
        import numpy as np

        from ragzip.compressors._words import Choice

        groups = [
            Words(cast("TextSegment", layout.context.segments[i]).text, tuple(layout.places(i)), layout.passage(i))
            for i, units in enumerate(layout.of_segment)
            if units
        ]
        choice = Choice(layout, groups, counter) if keep is not None or self.budget is not None else None
        scores = self._counted_beside(choice, layout.context.query, groups, whole=keep is not None)
        must = self._must(layout)
        # Forced words first, then by score, equal ones in their order.
        order = np.lexsort((-scores, ~must)) if must.any() else np.argsort(-scores, kind="stable")
        if self.threshold is not None:
            order = order[(scores[order] >= self.threshold) | must[order]]
        if choice is None:
            return _smaller(layout, layout.build(order.tolist()), counter)
        stay = order[must[order]]
        share = None if keep is None or choice.whole is None else math.floor(keep * choice.whole)
        if share is None or (self.budget is not None and self.budget <= share):
            kept = choice.fit(order, self.budget or 0, stay)
            return kept if self.threshold is None else _smaller(layout, kept, counter)
        least = stay if len(stay) else order[:1]  # stays even where it is more than the share
        found = choice.fit_with(order, share, least)
        if found is not None:
            return found
        kept = layout.build(least.tolist()) if self.budget is None else choice.fit(least, self.budget, least)
        return _smaller(layout, kept, counter)

    def _counted_beside(
        self, choice: Choice | None, query: Query, groups: Sequence[Words], *, whole: bool
    ) -> npt.NDArray[np.float64]:
        """The scores, while a second thread counts what the choice will need: tokenizers let other threads run."""
        if choice is None:
            return self._scores(query, groups)
        with ThreadPoolExecutor(1) as beside:
            counting = beside.submit(copy_context().run, choice.count, whole=whole)
            scores = self._scores(query, groups)
            counting.result()
        return scores

    def _scores(self, query: Query, groups: Sequence[Words]) -> npt.NDArray[np.float64]:
        """``[n_words]`` over all groups."""
        import numpy as np

        found = self.score(query, groups)
        if [len(scores) for scores in found] != [len(group.spans) for group in groups]:
            raise ValueError(f"{type(self).__name__}.score gave another number of scores than there are words")
        scores = np.concatenate([np.asarray(row, dtype=np.float64) for row in found])
        if not np.isfinite(scores).all():
            raise ValueError(f"{type(self).__name__}.score gave a score that is not finite")
        return scores

    def _must(self, layout: Layout) -> npt.NDArray[np.bool_]:
        """``[n_words]``: which words touch what is to be kept by force."""
        import numpy as np

        if not self.force_keep and self.force_pattern is None:
            return np.zeros(len(layout.units), dtype=np.bool_)
        must = np.zeros(len(layout.units), dtype=np.bool_)
        must[sorted(forced_units(layout, self.force_keep, self.force_pattern))] = True
        return must


def _smaller(layout: Layout, context: Context[Segment], counter: Counter) -> Context[Segment]:
    """The compressed context, or the one it came from where that costs less.

    Without a word, the letters around it can need more tokens than all of them did: one token can hold three
    ideographs, of which the first and the last take one each.
    """
    return context if counter.context(context) <= counter.context(layout.context) else layout.context
