"""Training of ``refrag``: chunks to one row each, by telling texts again from few chunks to many, then answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ragzip.compressors._options import check_count
from ragzip.models import EMBEDDER
from ragzip.models.chunks import BACKBONE, cut, pooled
from ragzip.models.locate import resolve
from ragzip.models.pooling import read_recipe
from ragzip.models.token_windows import special_ids
from ragzip.models.tokenizer import encode_batch, read_tokenizer, tokenizer_file
from ragzip.training.encoders import trainable
from ragzip.training.row_writer import NothingFixed
from ragzip.training.soft_options import SoftTraining

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.models import CausalLM
    from ragzip.training.soft_data import SoftData


@dataclass(frozen=True)
class REFRAGTraining(SoftTraining):
    """Reconstruction with a curriculum, then answers, after REFRAG (https://arxiv.org/abs/2509.01092).

    The encoder's last layers and the projection are trained; the generator never is, where the paper goes on to train
    it. Texts are told again from one chunk at first, and from more and more in the first half of these steps.

    Attributes:
        encoder: The light encoder to begin with.
        chunk: Most tokens of the generator in a chunk.
        layers: How many of the encoder's last layers are trained.
        lr: Highest learning rate.
    """

    architecture: ClassVar[str] = "refrag"

    encoder: str = EMBEDDER
    chunk: int = 16
    layers: int = 3
    lr: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("chunk", self.chunk, least=1)
        check_count("layers", self.layers, least=1)

    @property
    def curriculum(self) -> int:
        """Characters of a text of one chunk, from which texts grow."""
        return 4 * self.chunk

    def writer(self, lm: CausalLM, data: SoftData | None = None) -> ChunkWriter:
        """The encoder with a new projection, whose rows begin as large as word embeddings are, around their mean."""
        return ChunkWriter(lm, self)

    def values(self) -> dict[str, Any]:
        """The encoder, of which what changed is saved, and the size of a chunk."""
        return {"encoder": self.encoder, "chunk": self.chunk}


class ChunkWriter(NothingFixed):
    """An encoder of chunks that is trained."""

    rates = (0,)

    def __init__(self, lm: CausalLM, options: REFRAGTraining) -> None:
        import torch

        self._lm, self._chunk = lm, options.chunk
        self._backbone, self._device = trainable(
            options.encoder, dtype=options.dtype, device=options.device, layers=options.layers
        )
        recipe = read_recipe(resolve(options.encoder))
        self._tokenizer = read_tokenizer(tokenizer_file(recipe.folder))
        before, after = special_ids(self._tokenizer)
        self._tokenizer.enable_truncation(max(recipe.max_tokens, len(before) + len(after) + 1))
        width, draw = int(self._backbone.config.hidden_size), torch.Generator().manual_seed(options.seed)
        words = lm.model.get_input_embeddings().weight.detach().float().cpu()
        with torch.no_grad():
            sample = self._vectors(["The river runs to the sea.", "It was founded in 1290.", "Count Alba"])
        scale = words.std() / (sample.float().cpu().std() * width**0.5)
        weight = torch.randn(lm.dimensions, width, generator=draw) * scale
        self._weight = torch.nn.Parameter(weight.to(self._device))
        self._bias = torch.nn.Parameter(words.mean(0).to(self._device))

    def named(self) -> list[tuple[str, Any]]:
        """The encoder's layers that are trained, and the projection."""
        own = [(f"{BACKBONE}{name}", p) for name, p in self._backbone.named_parameters() if p.requires_grad]
        return [*own, ("projection.weight", self._weight), ("projection.bias", self._bias)]

    def counts(self, texts: Sequence[tuple[str, str]], rate: int) -> list[int]:
        """One for each chunk."""
        return [len(some) for some in self._chunks(texts)]

    def rows(self, texts: Sequence[tuple[str, str]], rate: int) -> list[Tensor]:
        """The vectors of the chunks, projected."""
        import torch

        parts = self._chunks(texts)
        vectors = self._vectors([chunk for some in parts for chunk in some]).float()
        rows = torch.nn.functional.linear(vectors, self._weight, self._bias)
        return list(torch.split(rows, [len(some) for some in parts]))

    def frozen(self) -> Any:
        """Nothing stands on the generator."""
        return nullcontext()

    def _chunks(self, texts: Sequence[tuple[str, str]]) -> list[list[str]]:
        return [
            [text[a:b] for a, b in cut(self._lm.text, text, self._chunk) if text[a:b].strip()] or [""]
            for _, text in texts
        ]

    def _vectors(self, texts: Sequence[str]) -> Tensor:
        ids = [encoding.ids for encoding in encode_batch(self._tokenizer, list(texts), special=True)]
        return pooled(self._backbone, ids, self._device)
