"""Provence: a cross-encoder marks the sentences that help and judges the passage they stand in."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, cast, get_args

from ragzip import models
from ragzip.compressors._extractive import Sentences, SentenceScorer, groups_of
from ragzip.compressors._groups import best_first, lead, runs, select
from ragzip.compressors._layout import Layout
from ragzip.compressors._options import check_count, counter_of
from ragzip.errors import ConfigError
from ragzip.indexes import looks
from ragzip.models import Dtype, Judged, check_options
from ragzip.models.pruner import Seen
from ragzip.models.shipped import PROVENCE
from ragzip.protocols import Counter, runtime_field
from ragzip.types import Context, Query, TextSegment

if TYPE_CHECKING:
    from ragzip.models import Pruner

Order = Literal["original", "relevance"]

_WORD = re.compile(r"\w")


@dataclass(frozen=True)
class Provence(SentenceScorer):
    """Keeps the sentences that a cross-encoder marks, having read question and passage together.

    After Provence (https://arxiv.org/abs/2501.16214): a keep probability for every token, whose mean over a
    sentence is the sentence's score, and a relevance for the passage, from one pass. Each sentence is read within its
    own passage, so that "he" and "the film" are understood; long passages are read in windows. Unlike the published
    code it has a budget, needs no sentence splitter of one language, and truncates no passage and no question; of a
    title, which is read beside the passage and not judged, the first 32 tokens count. An empty question scores all
    sentences alike. For questions of several steps the passages are read again, the question together with the best
    sentence of the look before, and the higher score of each token counts.

    Attributes:
        threshold: From 0 to 1; sentences that score less are dropped. 0.1 drops what surely does not help, 0.5 keeps
            what more likely helps than not. None is 0.1, also beside keep and budget where these cut something: they
            are then the most that is kept, and less where less helps; only where no sentence reaches 0.1, the best
            ones fill them. 0 fills them always.
        model: ragzip's own weights, a folder made by ``ragzip train provence``, or a published checkpoint of
            Provence or OpenProvence, as a folder or hub id.
        order: ``original``, or ``relevance``: the best passage first, as a reranker would put them.
        top_k: Passages kept, the most relevant, and those with what must be kept by force; None keeps all.
        dtype: ``auto`` (bf16 where that is much faster, else fp32), ``fp32``, ``bf16`` or ``fp16``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``xpu``.
        hops: How often passages are read; from the second time on, the ten of other documents that have most words in
            common with the question and what was found. None is as often as the model was trained for: twice for
            ragzip's own weights and those of ``ragzip train provence`` from questions that several passages help,
            else once. It ends earlier where no sentence reaches 0.1, and where the question is so long (about 56
            tokens) that a sentence has no room beside it.
    """

    scale: ClassVar[tuple[float, float]] = (0.0, 1.0)
    default_threshold: ClassVar[float | None] = 0.1
    limited_threshold: ClassVar[float | None] = 0.1

    model: str = PROVENCE
    order: Order = "original"
    top_k: int | None = None
    dtype: Dtype = "auto"
    device: str = "auto"
    hops: int | None = None
    allowed: int | None = runtime_field()
    judged: Mapping[tuple[str, str], Judged] | None = runtime_field()
    seen: Seen | None = runtime_field()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in get_args(Order):
            raise ConfigError("order", f"must be one of {', '.join(get_args(Order))}, not {self.order!r}")
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError("model", f"must be the name or folder of a model, not {self.model!r}")
        check_count("hops", self.hops, least=1)
        check_count("top_k", self.top_k, least=1)
        check_options(self.dtype, self.device)

    def load(self) -> Pruner:
        """The model, loaded now unless it is already."""
        return models.load_pruner(self.model, dtype=self.dtype, device=self.device)

    def score(self, query: Query, groups: Sequence[Sentences]) -> Sequence[Sequence[float]]:
        """Mean keep probabilities, 0 to 1."""
        if not query.text.strip():
            return [[1.0] * len(group.texts) for group in groups]
        judged = self._judge(query, groups)
        return [means(group.texts, found) for group, found in zip(groups, judged, strict=True)]

    def compress(self, contexts: Sequence[Context[TextSegment]]) -> Sequence[Context[TextSegment]]:
        """Each context with its best sentences, and its passages in the order asked for."""
        if self.order == "original" and self.top_k is None:
            return super().compress(contexts)
        return [self._in_order(context) for context in contexts]

    def _share(self, keep: float, layout: Layout, counter: Counter) -> int:
        return super()._share(keep, layout, counter) if self.allowed is None else self.allowed

    def _judge(self, query: Query, groups: Sequence[Sentences]) -> list[Judged]:
        """The sentences of each group as one passage, all together: no score depends on another context."""
        texts = [(" ".join(group.texts), group.title) for group in groups]
        known = self.judged or {}
        if all(text in known for text in texts):
            return [known[text] for text in texts]
        given = [
            looks.Read(text, title, _places(group.texts), group.passage.id if group.passage else f"\0{number}")
            for number, ((text, title), group) in enumerate(zip(texts, groups, strict=True))
        ]
        return looks.judge(self.load(), query.text, given, hops=self.hops, seen=self.seen)

    def _in_order(self, context: Context[TextSegment]) -> Context[TextSegment]:
        """One context; what was found while its passages were ranked is used again for their sentences."""
        layout = Layout(context)
        blocks = runs(context)
        relevance: dict[int, float] = {}
        judged: dict[tuple[str, str], Judged] = {}
        if len(blocks) > 1 and layout.units and self.budget != 0 and context.query.text.strip():
            groups = groups_of(layout)
            found = self._judge(context.query, groups)
            shown = [segment for segment, units in enumerate(layout.of_segment) if units]
            relevance = {segment: one.relevance for segment, one in zip(shown, found, strict=True)}
            judged = {(" ".join(g.texts), g.title): one for g, one in zip(groups, found, strict=True)}
        scores = [max((relevance.get(i, -1.0) for i in block), default=-1.0) for block in blocks]
        ranked = best_first(scores)
        if self.top_k is not None:
            first = set(_first(ranked, [lead(context.segments[block[0]]) for block in blocks], self.top_k))
            must = {layout.units[unit].segment for unit in self._forced(layout)}
            ranked = [block for block in ranked if block in first or not must.isdisjoint(blocks[block])]
        # a share of the context, not of what top_k leaves
        whole = None if self.keep is None else self._share(self.keep, layout, counter_of(self.counter))
        method = replace(self, order="original", top_k=None, judged=judged, allowed=whole)

        def pruned(chosen: Sequence[int]) -> Context[TextSegment]:
            order = [segment for block in chosen for segment in blocks[block]]
            return method.compress([cast("Context[TextSegment]", select(context, order))])[0]

        if self.order == "original" or ranked == sorted(ranked):
            return pruned(sorted(ranked))
        moved, counter = pruned(ranked), counter_of(self.counter)
        # white space at borders can cost a token more in another order
        return moved if counter.context(moved) <= counter.context(context) else pruned(sorted(ranked))


def _first(ranked: Sequence[int], owners: Sequence[str | None], count: int) -> list[int]:
    """The blocks of the first so many passages; a block of no passage counts as one of its own."""
    names = {block: owners[block] or f"\0{block}" for block in ranked}
    chosen = set(list(dict.fromkeys(names[block] for block in ranked))[:count])
    return [block for block in ranked if names[block] in chosen]


def means(texts: Sequence[str], judged: Judged) -> list[float]:
    """The mean of the token probabilities of each text, given those of all texts joined by a space.

    A text without a word, or without a token, scores 0.
    """
    scores = looks.sentence_means(_places(texts), judged)
    return [float(score) if _WORD.search(text) else 0.0 for text, score in zip(texts, scores, strict=True)]


def _places(texts: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Where each of the texts stands when they are joined by a space."""
    starts = itertools.accumulate((len(text) + 1 for text in texts), initial=0)
    return tuple((start, start + len(text)) for start, text in zip(starts, texts, strict=False))
