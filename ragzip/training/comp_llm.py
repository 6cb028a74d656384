"""Training of ``comp_llm``: short segments to concept embeddings, by distillation on hidden states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ragzip.training._concept_training import ConceptTraining


@dataclass(frozen=True)
class CompLLMTraining(ConceptTraining):
    """Distillation of what the generator thinks at the answer, after CompLLM (https://arxiv.org/abs/2509.19228).

    The loss at the answer's tokens is the smooth L1 distance of the hidden states of every layer from those of the same
    generator reading the text, in units of their standard deviation. Unlike the paper, texts are told again first, the
    reference answer and the teacher's distribution count, too, and several rates are trained at once.

    Attributes:
        hidden: Weight of the distance of hidden states.
        kl: Weight of the divergence from the teacher's distribution.
        lr: Highest learning rate.
    """

    architecture: ClassVar[str] = "comp_llm"

    hidden: float = 1.0
    kl: float = 1.0
    lr: float = 1e-3
