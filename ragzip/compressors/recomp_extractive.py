"""RECOMP, the extractive half: a dual encoder that was trained to find the sentences that help to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ragzip.compressors._extractive import Sentences, SentenceScorer
from ragzip.compressors.sentence_filter import says_something, titled
from ragzip.errors import ConfigError
from ragzip.models import Dtype, check_options, dual_encoder
from ragzip.models.shipped import RECOMP_EXTRACTIVE
from ragzip.types import Query

if TYPE_CHECKING:
    from ragzip.models.dual_encoder import DualEncoder


@dataclass(frozen=True)
class RecompExtractive(SentenceScorer):
    """Keeps the sentences with the greatest inner product with the question, in their order.

    After RECOMP (https://arxiv.org/abs/2310.04408): question and sentence go through the same encoder one by one, a
    vector is the mean of the last hidden states, and it is not scaled. ``sentence_filter`` does the same with an
    encoder that was trained to find similar texts; this one was trained to find helpful ones, which need not be
    similar. The paper keeps the best k sentences; here they share a budget. Unlike its public code and those made
    after it, sentences come out in the order of their passages, are cut at no number of tokens (a long one is read
    in windows, and its vector is the mean over all of its tokens), and are not made to stand behind the first
    sentence in place of a title: the shipped weights, whose vectors have length 1, read the title itself, and
    published ones read none.

    A product below 0 is ranked as it is and counts as 0 against a threshold, so ``threshold=0`` drops nothing. Products
    of published weights have no bounds: look at some before setting one. What has no word comes last. An empty question
    scores all sentences alike.

    Attributes:
        model: ragzip's own weights, or a folder or hub id of an encoder that is pooled by the mean:
            ``fangyuan/nq_extractive_compressor``, say.
        dtype: ``auto`` (bf16 where that is much faster, else fp32), ``fp32``, ``bf16`` or ``fp16``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``xpu``.
    """

    floor: ClassVar[float | None] = 0.0

    model: str = RECOMP_EXTRACTIVE
    dtype: Dtype = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError("model", f"must be the name or folder of a model, not {self.model!r}")
        check_options(self.dtype, self.device)

    def load(self) -> DualEncoder:
        """The encoder, loaded now unless it is already."""
        return dual_encoder.load_dual_encoder(self.model, dtype=self.dtype, device=self.device)

    def score(self, query: Query, groups: Sequence[Sentences]) -> Sequence[Sequence[float]]:
        """Inner products."""
        if not query.text.strip():
            return [[1.0] * len(group.texts) for group in groups]
        encoder = self.load()
        texts = titled(groups) if encoder.title else [text for group in groups for text in group.texts]
        # The question by itself and the sentences of one context together: no score depends on a batch.
        products = encoder.encode(texts) @ encoder.encode([query.text])[0]
        rest, least = iter(products.tolist()), min(float(products.min(initial=0.0)), 0.0)
        return [
            [score if says_something(text) else least for text, score in zip(group.texts, rest, strict=False)]
            for group in groups
        ]
