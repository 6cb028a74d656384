"""Sentence filtering by embedding similarity: the plain extractive baseline, and a strong one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ragzip import models
from ragzip.compressors._extractive import Sentences, SentenceScorer
from ragzip.compressors._relevance import Reading, asked, led, read
from ragzip.errors import ConfigError
from ragzip.models import EMBEDDER, Dtype, check_options
from ragzip.types import Query

_WORD = re.compile(r"\w")

if TYPE_CHECKING:
    from ragzip.models import Encoder


@dataclass(frozen=True)
class SentenceFilter(SentenceScorer):
    """Keeps the sentences whose embeddings are closest to the question's, in their order.

    A sentence's score is the cosine of its embedding, made with its passage's title before it, and that of the
    question; negative cosines count as 0, so ``threshold=0`` drops nothing. Without threshold, keep and budget,
    half of the tokens are kept. An empty question scores all sentences alike. A sentence or a question longer than the
    encoder's window is read in windows, of which the closest count.

    Attributes:
        model: A sentence encoder: a name that ``ragzip models`` lists, a folder, or a model of the hub.
        dtype: ``auto`` (bf16 where that is much faster, else fp32), ``fp32``, ``bf16`` or ``fp16``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``xpu``.
    """

    scale: ClassVar[tuple[float, float]] = (0.0, 1.0)

    model: str = EMBEDDER
    dtype: Dtype = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError("model", f"must be the name or folder of a model, not {self.model!r}")
        check_options(self.dtype, self.device)

    def load(self) -> Encoder:
        """The encoder, loaded now unless it is already."""
        return models.load_encoder(self.model, dtype=self.dtype, device=self.device)

    def score(self, query: Query, groups: Sequence[Sentences]) -> Sequence[Sequence[float]]:
        """Cosines, 0 to 1."""
        if not query.text.strip():
            return [[1.0] * len(group.texts) for group in groups]
        encoder = self.load()
        # The question by itself and the sentences of one context together: no score depends on a batch.
        question = asked(encoder, query.text)
        rest = iter(read_groups(encoder, groups).closeness(question).tolist())
        return [
            [score if says_something(text) else 0.0 for text, score in zip(g.texts, rest, strict=False)] for g in groups
        ]


def titled(groups: Sequence[Sentences]) -> list[str]:
    """All sentences of all groups, each with its passage's title before it."""
    return [led(text, group.title) for group in groups for text in group.texts]


def read_groups(encoder: Encoder, groups: Sequence[Sentences]) -> Reading:
    """All sentences of all groups as the encoder reads them, each with its passage's title before it."""
    texts = [text for group in groups for text in group.texts]
    return read(encoder, texts, [group.title for group in groups for _ in group.texts])


def says_something(text: str) -> bool:
    """Whether there is a word; rules of tables say nothing, whatever an encoder makes of their titles."""
    return _WORD.search(text) is not None
