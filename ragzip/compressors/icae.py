"""ICAE: a passage read at once, and told to a few memory slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ragzip.compressors._concepts import SegmentEncoder
from ragzip.models.shipped import ICAE as SHIPPED_ICAE


@dataclass(frozen=True)
class ICAE(SegmentEncoder):
    """Every passage becomes memory slots: rows that are read out behind it, one for every ``rate`` of its tokens.

    After the in-context autoencoder (https://arxiv.org/abs/2307.06945): the generator with a low-rank adapter reads the
    passage and then learned rows, a different one for each slot; its last hidden states there, through a linear layer,
    are what the unchanged generator reads in the passage's place. Longer passages are read in windows. The baseline of
    soft compression: a slot knows the whole passage, where a concept embedding of ``comp_llm`` knows its segment of 20
    tokens; in return nothing can be used again but for the very same passage, and the cost grows faster.

    Attributes:
        model: Weights made by ``ragzip train icae``: a name of shipped ones, a folder, or a hub id.
        store: A folder that ``ragzip index compress`` filled, or the index it was filled for: what is in it is not
            computed again. "" computes everything.
        dtype: ``auto`` (bf16 where that is much faster, else fp32), ``fp32``, ``bf16`` or ``fp16``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``xpu``.
        rate: Text tokens for one row: one of those that were trained.
    """

    architecture: ClassVar[str] = "icae"

    model: str = SHIPPED_ICAE
