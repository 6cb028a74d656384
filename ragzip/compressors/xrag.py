"""xRAG: one token for a passage, made from its retrieval embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ragzip.compressors._relevance import led
from ragzip.compressors._soft import PassageEncoder
from ragzip.indexes.soft_store import Unit
from ragzip.models.bridge import ARCHITECTURE, Bridge, load_bridge
from ragzip.models.shipped import XRAG as SHIPPED_XRAG

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class XRAG(PassageEncoder):
    """Each passage becomes one row: its retrieval embedding, through a small perceptron, as if it were a word.

    After xRAG (https://arxiv.org/abs/2405.13792): the retriever's vector is taken for another modality, and a bridge
    of two layers turns it into the input space of a generator that never changes. A passage longer than what the
    encoder reads at once is cut at ends of sentences, and becomes a row a piece. Unlike the published code it works for
    any encoder and generator that a bridge was trained for, and in batches. Far smaller than ``comp_llm`` and ``icae``,
    and it keeps the gist of a passage, not its words: names and numbers are lost first. Embeddings are those of the
    index's encoder; with ``store`` nothing is encoded when a question is asked, without it every passage is. The
    bridge that comes with ragzip was trained for an hour on two processor cores, and is weak: see its card.

    Attributes:
        model: The bridge that comes with ragzip, for the built-in models; a folder made by ``ragzip train xrag``, or a
            hub id.
        store: A folder that ``ragzip index compress`` filled, or the index it was filled for: what is in it is not
            computed again. "" computes everything.
        dtype: Of the encoder: ``auto`` (bf16 where that is much faster, else fp32), ``fp32``, ``bf16`` or
            ``fp16``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``xpu``.
    """

    architecture: ClassVar[str] = ARCHITECTURE

    model: str = SHIPPED_XRAG

    def load(self) -> Bridge:
        """The bridge and its encoder, loaded now unless they are already."""
        return load_bridge(self.model, dtype=self.dtype, device=self.device)

    def units(self, texts: Sequence[str], titles: Sequence[str]) -> list[list[Unit]]:
        """Pieces that the encoder reads at once, each text behind its title as in an index."""
        bridge = self.load()
        return [list(bridge.pieces(led(text, title))) for text, title in zip(texts, titles, strict=True)]

    def whole(self, text: str, title: str) -> Unit | None:
        """The text behind its title: most passages are one piece."""
        return led(text, title)

    def compute(self, units: Sequence[Unit]) -> Sequence[Tensor]:
        """A row each."""
        return [row[None] for row in self.load().rows([str(unit) for unit in units])]
