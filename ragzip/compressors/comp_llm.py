"""CompLLM: short segments, each compressed alone, so that the cost is linear and what was read once is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ragzip.compressors._concepts import SegmentEncoder
from ragzip.models.shipped import COMP_LLM as SHIPPED_COMP_LLM


@dataclass(frozen=True)
class CompLLM(SegmentEncoder):
    """Every segment of at most 20 tokens becomes a few concept embeddings that the generator reads as tokens.

    After CompLLM (https://arxiv.org/abs/2509.19228): the generator itself, with a low-rank adapter and a linear layer,
    reads a segment and, behind it, as many rows as concept embeddings are wanted; the generator that answers never
    changes. Unlike the paper, each of these rows, and each concept embedding, begins as the embedding of a word of the
    segment that is rare and often asked for (``residual: picked`` at training), and the first ``layers`` of the
    generator may read alone: those that come with ragzip are read by ten of thirty. Segments do not see each other: the
    cost is linear in the context, and a segment that was read before, in whatever document and for whatever question,
    is not read again. ``readout: mean`` at training takes means of hidden states instead
    (https://arxiv.org/abs/2510.20797). It keeps more of the words than ``xrag`` and ``refrag`` do, for more rows;
    ``icae`` reads whole passages at once.

    Attributes:
        model: The weights that come with ragzip, for the built-in generator; a folder made by ``ragzip train
            comp_llm``, or a hub id.
        store: A folder that ``ragzip index compress`` filled, or the index it was filled for: what is in it is not
            computed again. "" computes everything.
        dtype: ``auto`` (bf16 where that is much faster, else fp32), ``fp32``, ``bf16`` or ``fp16``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``xpu``.
        rate: Text tokens for one row: one of those that were trained. With the weights that come with ragzip answers
            are of use at 2, and hardly at 4 and 8.
    """

    architecture: ClassVar[str] = "comp_llm"

    model: str = SHIPPED_COMP_LLM
    rate: int = 2
