"""Training of ``xrag``: a bridge from retrieval embeddings to the input space of a frozen generator."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ragzip.compressors._options import check_count
from ragzip.compressors._relevance import led
from ragzip.models import EMBEDDER, load_encoder
from ragzip.models.bridge import LAYERS, perceptron, pieces
from ragzip.training.row_writer import NothingFixed, Told
from ragzip.training.soft_options import SoftTraining
from ragzip.training.words import sizes

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.models import CausalLM, Encoder
    from ragzip.training.soft_data import SoftData


@dataclass(frozen=True)
class XRAGTraining(SoftTraining):
    """Paraphrase, then context-aware tuning with self-distillation, after xRAG (https://arxiv.org/abs/2405.13792).

    Only the bridge is trained: the encoder is that of the index, and stays. As in the paper a text is asked for by its
    meaning and answers weigh 1 beside 2 for the divergence from the same generator reading the text.

    Attributes:
        encoder: Whose vectors the bridge reads: that of the index.
        width: Of the hidden layer; 0 is that of the generator.
        passages: Most passages of a question, each of which is one row.
        lr: Highest learning rate.
    """

    architecture: ClassVar[str] = "xrag"

    encoder: str = EMBEDDER
    width: int = 0
    passages: int = 5
    lr: float = 2e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("width", self.width)

    @property
    def gist(self) -> bool:
        """A vector does not hold the words."""
        return True

    def writer(self, lm: CausalLM, data: SoftData | None = None) -> BridgeWriter:
        """A new bridge, whose rows begin as large as word embeddings are, around their mean."""
        encoder = load_encoder(self.encoder, dtype=self.dtype, device=self.device)
        return BridgeWriter(lm, encoder, self.width or lm.dimensions, self.seed)

    def values(self) -> dict[str, Any]:
        """The encoder, and what it reads at once."""
        encoder = load_encoder(self.encoder, dtype=self.dtype, device=self.device)
        return {"encoder": self.encoder, "piece": encoder.room}


class BridgeWriter(NothingFixed):
    """A bridge that is trained."""

    rates = (0,)

    def __init__(self, lm: CausalLM, encoder: Encoder, width: int, seed: int) -> None:
        import torch

        draw = torch.Generator().manual_seed(seed)
        mean, deviation = sizes(lm)
        first = torch.randn(width, encoder.dimensions, generator=draw)
        second = torch.randn(lm.dimensions, width, generator=draw) * (deviation / (0.6 * width**0.5))
        values = (first, torch.zeros(width), second, mean)
        self._parameters = [torch.nn.Parameter(value.to(lm.device)) for value in values]
        self._encoder = encoder

    def named(self) -> list[tuple[str, Any]]:
        """The two layers."""
        names = [f"{layer}.{part}" for layer in LAYERS for part in ("weight", "bias")]
        return list(zip(names, self._parameters, strict=True))

    def counts(self, texts: Sequence[Told], rate: float) -> list[int]:
        """One for each piece that the encoder reads at once."""
        return [max(len(some), 1) for some in self._pieces(texts)]

    def rows(self, texts: Sequence[Told], rate: float) -> list[Tensor]:
        """The vectors of the pieces, through the bridge."""
        import torch

        parts = [some or [""] for some in self._pieces(texts)]
        vectors = torch.from_numpy(self._encoder.encode([piece for some in parts for piece in some]))
        rows = perceptron(vectors.to(self._parameters[0].device), *self._parameters)
        return list(torch.split(rows, [len(some) for some in parts]))

    def frozen(self) -> Any:
        """Nothing stands on the generator."""
        return nullcontext()

    def _pieces(self, texts: Sequence[Told]) -> list[list[str]]:
        return [pieces(self._encoder, led(one.text, one.title), self._encoder.room) for one in texts]
