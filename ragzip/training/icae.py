"""Training of ``icae``: a passage to memory slots, by auto-encoding and then answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ragzip.models.concepts import Residual
from ragzip.training._concept_training import ConceptTraining


@dataclass(frozen=True)
class ICAETraining(ConceptTraining):
    """Auto-encoding, then answers, after the in-context autoencoder (https://arxiv.org/abs/2307.06945).

    Every slot has a learned row of its own. Unlike the paper, answers come with the divergence from the same generator
    reading the text, and the slots go through a linear layer, which begins as the identity, as large as embeddings are.

    Attributes:
        rates: Text tokens for one slot; every step draws one of them.
        segment: Most tokens that are read at once.
        residual: What a row begins as, as for ``comp_llm``; ``none`` in the paper.
        kl: Weight of the divergence from the teacher's distribution.
        lr: Highest learning rate.
    """

    architecture: ClassVar[str] = "icae"
    many_slots: ClassVar[bool] = True
    by_sentence: ClassVar[bool] = False

    rates: tuple[int, ...] = (4, 8)
    segment: int = 256
    residual: Residual = "none"
    kl: float = 1.0
    lr: float = 5e-4
