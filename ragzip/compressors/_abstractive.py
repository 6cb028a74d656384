"""What compressors that write new text share: what must be said is said, limits are met, nothing grows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from ragzip.compressors._allocate import fit
from ragzip.compressors._forced import Force, check_forced, forced_in, forced_units
from ragzip.compressors._layout import Layout, _pieces, spans_at
from ragzip.compressors._options import check_count, check_share, counter_of
from ragzip.errors import ConfigError
from ragzip.models import Dtype, check_options
from ragzip.protocols import Compressor, Counter, runtime_field
from ragzip.types import Context, Passage, Segment, Span, TextSegment

_THOUSANDS, _SIGNS, _THREE = frozenset(",'’\u00a0\u202f"), frozenset("-−–+"), re.compile(r"\d{3}(?!\d)")
WINDOW = 2048
"""Most tokens of a prompt where neither the user nor the model says how many."""

_BLOCK = 1000  # characters


@dataclass(frozen=True, kw_only=True)
class Abstractive(Compressor[TextSegment, TextSegment]):
    """The options that rewriting compressors share, and what holds for all of them.

    What they write never takes more tokens than what they read: else the context goes on as it was.

    Attributes:
        keep: Most tokens of the result, as a share of the context's, but for a first sentence, where none fits that;
            1.0 leaves the context alone.
        budget: Most tokens of the result as laid out. Always met: what is written is cut between sentences, and the
            first sentence at a word where even that is longer.
        max_new_tokens: Most tokens of each text that the model writes.
        window: Most tokens of a prompt; documents that do not fit are read in several. At most the model's own. None
            is 2,048, and for ``recomp_abstractive`` what an adapter was trained with, if it says.
        force_keep: Sentences with these (``titles``, ``numbers``, ``negations``) are added word for word, with exact
            spans, where what is written from them does not say the same name, number or negation.
        force_pattern: A regular expression; what it finds is kept in the same way.
        dtype: ``auto`` (bf16 where that is much faster, else fp32), ``fp32``, ``bf16`` or ``fp16``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``xpu``.
        counter: Whose tokens are counted; the generator's within a pipeline.
    """

    keep: float | None = None
    budget: int | None = None
    max_new_tokens: int = 128
    window: int | None = None
    force_keep: tuple[Force, ...] = ()
    force_pattern: str | None = None
    dtype: Dtype = "auto"
    device: str = "auto"
    counter: Counter | None = runtime_field()

    def __post_init__(self) -> None:
        check_share("keep", self.keep)
        check_count("budget", self.budget)
        check_count("max_new_tokens", self.max_new_tokens, least=1)
        check_count("window", self.window, least=256)
        check_forced(self.force_keep, self.force_pattern)
        check_options(self.dtype, self.device)

    def limit(self, tokens: int) -> int | None:
        """The stricter of keep and budget for a context of so many tokens; None where there is neither."""
        limits = [] if self.keep is None else [math.floor(self.keep * tokens)]
        return min([*limits, *([] if self.budget is None else [self.budget])], default=None)

    def finish(
        self, context: Context[TextSegment], written: Sequence[TextSegment], ranks: Sequence[int] = ()
    ) -> Context[TextSegment]:
        """The context with new segments in place of its own, what must be kept added, within the limits.

        Args:
            context: What was read.
            written: What was written, extractive pieces among it.
            ranks: For each of ``written`` its place when not all fits, 0 first; none for their order.
        """
        counter = counter_of(self.counter)
        added = missing(context, written, self.force_keep, self.force_pattern)
        made = Context(context.query, (*written, *added), context.passages)
        tokens = counter.context(context)
        fitted = self.fitted(made, tokens, (*ranks, *[0] * len(added)) if ranks else ())
        if counter.context(fitted) <= tokens:
            return fitted
        return self.fitted(context, tokens)

    def fitted(
        self, context: Context[TextSegment], tokens: int | None = None, ranks: Sequence[int] = ()
    ) -> Context[TextSegment]:
        """The context's first sentences, those that must be kept before all others, within the limits.

        Args:
            context: Any.
            tokens: What ``keep`` is a share of; None for the context's own.
            ranks: For each segment its place when not all fits.
        """
        if self.keep is None and self.budget is None:
            return context
        counter = counter_of(self.counter)
        count = counter.context(context)
        tokens = count if tokens is None else tokens
        limit = self.limit(tokens)
        if limit is None or count <= limit:
            return context
        layout = Layout(cast("Context[Segment]", context))
        must = forced_units(layout, self.force_keep, self.force_pattern)
        places = [ranks[unit.segment] if ranks else 0 for unit in layout.units]
        ranked = sorted(range(len(places)), key=lambda unit: (unit not in must, places[unit], unit))
        return cast("Context[TextSegment]", self._cut(layout, ranked, must, tokens, counter))

    def _cut(
        self, layout: Layout, ranked: Sequence[int], must: frozenset[int], tokens: int, counter: Counter
    ) -> Context[Segment]:
        share = None if self.keep is None else math.floor(self.keep * tokens)
        if share is not None and must:
            share = max(share, counter.context(layout.build(must)))
        if share is None or (self.budget is not None and self.budget <= share):
            return fit(layout, ranked, self.budget or 0, counter, must=must)
        kept = fit(layout, ranked, share, counter, cut=False, must=must)
        if kept.segments or not ranked:
            return kept
        return layout.build(ranked[:1]) if self.budget is None else fit(layout, ranked[:1], self.budget, counter)


def check_model(name: str, value: str) -> None:
    """Refuses what can be no model's name."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(name, f"must be the name or folder of a model, not {value!r}")


def sources_of(segments: Iterable[TextSegment], passages: Sequence[Passage]) -> tuple[Span, ...]:
    """The spans that these segments came from, each once, in order; those that lie in no passage are left out."""
    lengths = {passage.id: len(passage.text) for passage in reversed(passages)}
    spans = dict.fromkeys(span for segment in segments for span in segment.sources)
    return tuple(span for span in spans if span.end <= lengths.get(span.passage_id, -1))


def missing(
    context: Context[TextSegment], written: Sequence[TextSegment], kinds: tuple[Force, ...], pattern: str | None
) -> tuple[TextSegment, ...]:
    """The sentences with something that must be kept and that what was written from them does not say word for word."""
    if not kinds and pattern is None:
        return ()
    layout, told = Layout(cast("Context[Segment]", context)), _Told(written)
    units: list[int] = []
    for index, segment in enumerate(context.segments):
        stretches = forced_in(layout, index, kinds, pattern)
        pieces = _pieces(segment, layout.passages) if stretches else None
        first = 0
        for unit in layout.of_segment[index]:
            place = layout.units[unit]
            while first < len(stretches) and stretches[first][1] <= place.start:
                first += 1
            here, at = list[str](), first
            while at < len(stretches) and stretches[at][0] < place.end:
                here.append(segment.text[stretches[at][0] : stretches[at][1]])
                at += 1
            if here:
                spans = segment.sources if pieces is None else spans_at(pieces, place.start, place.end)
                said = told.of(spans)
                units += [] if all(says(said, piece) for piece in here) else [unit]
    return cast("tuple[TextSegment, ...]", layout.build(units).segments) if units else ()


class _Told:
    """What was written of which characters: a number that stands in another summary does not stand for this one."""

    def __init__(self, written: Sequence[TextSegment]) -> None:
        self._written = written
        self._loose = {number for number, segment in enumerate(written) if not segment.sources}
        self._near: dict[tuple[str, int], set[int]] = {}  # passage and thousand characters -> what touches them
        self._says: dict[tuple[int, ...], str] = {}
        for number, segment in enumerate(written):
            for span in segment.sources:
                for block in range(span.start // _BLOCK, span.end // _BLOCK + 1):
                    self._near.setdefault((span.passage_id, block), set()).add(number)

    def of(self, spans: Sequence[Span]) -> str:
        """What was written from these characters, or from no characters that are known."""
        blocks = {(s.passage_id, b) for s in spans for b in range(s.start // _BLOCK, s.end // _BLOCK + 1)}
        near = {number for block in blocks for number in self._near.get(block, ())}
        loose = self._loose if spans else set(range(len(self._written)))
        near = {n for n in near if any(_meet(a, b) for a in self._written[n].sources for b in spans)}
        found = tuple(sorted(loose | near))
        if found not in self._says:
            self._says[found] = "\n".join(self._written[number].text for number in found)
        return self._says[found]


def _meet(first: Span, second: Span) -> bool:
    return first.passage_id == second.passage_id and first.start < second.end and second.start < first.end


def says(text: str, piece: str) -> bool:
    """Whether a text holds a piece, and not only within a longer word or number."""
    at = text.find(piece) if piece else -1
    while at >= 0:
        end = at + len(piece)
        inside = (at and _joins(text[at - 1], piece[0])) or (end < len(text) and _joins(piece[-1], text[end]))
        if not (inside or _in_number(text, at, end)):
            return True
        at = text.find(piece, at + 1)
    return False


def _in_number(text: str, start: int, end: int) -> bool:
    """Whether a stretch that begins or ends with a digit is part of a longer number: of 1,500, 3.5 or -5.

    Of 1914-1918, 10:30 and 1995,1996 both numbers are said.
    """
    if text[start].isdigit() and start:
        mark, further = text[start - 1], text[start - 2 : start - 1]
        if mark in _SIGNS and not further.isalnum():
            return True
        if further.isdigit() and _divides(mark, text[start:]):
            return True
    return text[end - 1].isdigit() and _divides(text[end : end + 1], text[end + 1 :])


def _divides(mark: str, behind: str) -> bool:
    """Whether a mark between digits is one within a number: a point, or what stands before thousands."""
    return behind[:1].isdigit() if mark == "." else mark in _THOUSANDS and _THREE.match(behind) is not None


def _joins(before: str, after: str) -> bool:
    return before.isalnum() and after.isalnum() and before.isascii() and after.isascii()
