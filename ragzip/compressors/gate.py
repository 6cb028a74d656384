"""Selective augmentation as a step: a context that does not help is dropped as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ragzip import models
from ragzip.compressors._abstractive import check_model
from ragzip.compressors._forced import Force, check_forced, forced_units
from ragzip.compressors._groups import select, shown
from ragzip.compressors._layout import Layout
from ragzip.compressors._options import check_number
from ragzip.compressors._relevance import relevance, titles_of
from ragzip.compressors._surroundings import in_parts
from ragzip.errors import ConfigError
from ragzip.models import EMBEDDER, GENERATOR, Dtype, check_options
from ragzip.models.perplexity import load_perplexity
from ragzip.protocols import Selector
from ragzip.types import Context, Segment, TextSegment

if TYPE_CHECKING:
    from ragzip.models import Encoder
    from ragzip.models.perplexity import Perplexity

By = Literal["relevance", "perplexity"]

THRESHOLDS = {"relevance": 0.3, "perplexity": 1.0}
"""What ``threshold=None`` means: a cosine, and nats a token. Set with the built-in models on training questions of
NQ (30 and 15 of them), so that no context with the right passage goes: those had at least 0.46 and 1.23, contexts of
unrelated passages at most 0.22 and, nine in ten, 1.29."""

_ASKS = "Question:"


@dataclass(frozen=True)
class Gate(Selector):
    """All of a context or nothing: it goes where it does not help to answer, so that the model answers by itself.

    Selective augmentation, as RECOMP (https://arxiv.org/abs/2310.04408) does it by writing an empty summary, for any
    retriever and stack. ``relevance`` asks a sentence encoder: the context stays if the cosine of its best passage to
    the question reaches the threshold. ``perplexity`` asks the language model that is to answer: the context stays if
    the question's tokens surprise it less after its best passage than without any, by at least the threshold. Unrelated
    text makes a question less surprising, too, so that 0 would keep nearly everything; the encoder tells the two better
    apart, and faster. Passages longer than a model's window are read in several windows, and questions that leave too
    little of it in parts; the best window and part count. An empty question, and soft segments that name no passage,
    say nothing against a context, and it stays.

    Attributes:
        by: ``relevance`` or ``perplexity``.
        threshold: Least relevance, 0 to 1, or least gain in nats a token, for a context to stay. None is 0.3 for
            relevance and 1.0 for perplexity: of the built-in models. Other encoders may give unrelated texts cosines
            of 0.7: look at some of ``helps``, and name a threshold.
        model: The sentence encoder, or the language model: a built-in one, a folder, or a hub id. None is the
            built-in one of the kind that is needed.
        force_keep: Segments with these stay even so: ``titles``, ``numbers``, ``negations``.
        force_pattern: A regular expression; segments in which it is found stay even so.
        dtype: ``auto`` (bf16 where that is much faster, else fp32), ``fp32``, ``bf16`` or ``fp16``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``xpu``.
    """

    by: By = "relevance"
    threshold: float | None = None
    model: str | None = None
    force_keep: tuple[Force, ...] = ()
    force_pattern: str | None = None
    dtype: Dtype = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.by not in THRESHOLDS:
            raise ConfigError("by", f"must be relevance or perplexity, not {self.by!r}")
        if self.by == "relevance":
            check_number("threshold", self.threshold, low=0.0, high=1.0)
        else:
            check_number("threshold", self.threshold)
        if self.model is not None:
            check_model("model", self.model)
        check_forced(self.force_keep, self.force_pattern)
        check_options(self.dtype, self.device)

    def reads(self) -> list[str]:
        """The models that it reads with, named or not."""
        return [self.model or (EMBEDDER if self.by == "relevance" else GENERATOR)]

    def load(self) -> Encoder | Perplexity:
        """The model, loaded now unless it is already."""
        if self.by == "relevance":
            return models.load_encoder(self.model or EMBEDDER, dtype=self.dtype, device=self.device)
        return load_perplexity(self.model or GENERATOR, dtype=self.dtype, device=self.device)

    def compress(self, contexts: Sequence[Context[Segment]]) -> Sequence[Context[Segment]]:
        """Each context as it is, or what must be kept of it."""
        return [self._compress(context) for context in contexts]

    def helps(self, context: Context[Segment]) -> float | None:
        """How much a context helps: its relevance or its gain; None where that cannot be told."""
        both = zip(context.segments, titles_of(context), strict=True)
        read = [(_text(context, segment), title) for segment, title in both if shown(segment)]
        texts, titles = [text for text, _ in read], [title for _, title in read]
        if not context.query.text.strip() or not texts or not all(text.strip() for text in texts):
            return None
        if self.by == "relevance":
            encoder = models.load_encoder(self.model or EMBEDDER, dtype=self.dtype, device=self.device)
            return max(relevance(encoder, context.query.text, texts, titles))
        reader = load_perplexity(self.model or GENERATOR, dtype=self.dtype, device=self.device)
        return _gain(reader, context.query.text, texts, titles)

    def _compress(self, context: Context[Segment]) -> Context[Segment]:
        least = THRESHOLDS[self.by] if self.threshold is None else self.threshold
        if self.by == "relevance" and least <= 0:
            return context  # nothing to decide: spare the encoder
        found = self.helps(context)
        if found is None or found >= least:
            return context
        layout = Layout(context)
        must = {layout.units[unit].segment for unit in forced_units(layout, self.force_keep, self.force_pattern)}
        return select(context, sorted(must))


def _gain(reader: Perplexity, question: str, texts: Sequence[str], titles: Sequence[str]) -> float:
    """How many nats a token the question is less surprising after the best passage than before: more is better."""
    most = reader.longest
    told = reader.encode(
        [
            f"{window}\n\n{_ASKS}"
            for text, title in zip(texts, titles, strict=True)
            for window in _windows(reader, text, title, reader.window - most - 2)
        ]
    )
    gains: list[float] = []
    asked = question.strip()
    for start, end in in_parts(asked, most - 1, reader.count):
        suffix = f" {asked[start:end].strip()}"
        without = reader.read(reader.encode([_ASKS]), suffix=suffix)[0].after
        gains.append(without - min(reading.after for reading in reader.read(told, suffix=suffix)))
    return max(gains)


def _windows(reader: Perplexity, text: str, title: str, room: int) -> list[str]:
    """A passage in pieces that the model reads whole, each behind the title unless that takes half of the room."""
    lead = f"{title}\n" if title else ""
    taken, asks = reader.count([lead, f"\n\n{_ASKS}"])
    if 2 * taken > room:
        lead, taken = "", 0
    return [lead + text[start:end] for start, end in in_parts(text, max(room - taken - asks, 1), reader.count)]


def _text(context: Context[Segment], segment: Segment) -> str:
    """What a segment says; for a soft one the text that it stands for, "" where that is not known."""
    if isinstance(segment, TextSegment):
        return segment.text
    texts = {passage.id: passage.text for passage in reversed(context.passages)}
    return " ".join(texts.get(span.passage_id, "")[span.start : span.end] for span in segment.sources)
