"""Training of ``refrag``: chunks to one row each, by telling texts again from few chunks to many, then answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from ragzip.compressors._options import check_count, check_number
from ragzip.errors import ConfigError
from ragzip.models import EMBEDDER
from ragzip.models.chunks import BACKBONE, Residual, check_chunk, cut, pooled_whole
from ragzip.models.locate import resolve
from ragzip.models.picking import WordTable, best
from ragzip.models.pooling import read_recipe
from ragzip.models.tokenizer import encode_batch, read_tokenizer, tokenizer_file
from ragzip.training.encoders import trainable
from ragzip.training.row_writer import Piece, Told
from ragzip.training.soft_options import SoftTraining
from ragzip.training.words import GENTLE, counted, sizes

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.models import CausalLM
    from ragzip.training.soft_data import SoftData

_SAMPLE = ("The river runs to the sea.", "It was founded in 1290.", "Count Alba")


@dataclass(frozen=True)
class REFRAGTraining(SoftTraining):
    """Reconstruction with a curriculum, then answers, after REFRAG (https://arxiv.org/abs/2509.01092).

    The encoder's last layers and the projection are trained; the generator never is, where the paper goes on to train
    it. Texts are told again from one chunk at first, and from more and more in the first half of these steps. Questions
    are read as the method gives them: of their passages' chunks a share stays text, those closest to the question.

    Attributes:
        encoder: The light encoder to begin with.
        chunk: Most tokens of the generator in a chunk.
        layers: How many of the encoder's last layers are trained; 0 for the projection alone, which leaves vectors as
            the policy ``similarity`` needs them. With more, ``start`` may name weights that were trained without.
        expand: Shares of the chunks that stay text; every step with questions draws one of them.
        residual: What a row begins as, to which what is projected is added: ``none``, or the embedding of a ``picked``
            token of the chunk: of the word that is rare and often asked for.
        lr: Highest learning rate.
    """

    architecture: ClassVar[str] = "refrag"
    fresh: ClassVar[str] = BACKBONE

    encoder: str = EMBEDDER
    chunk: int = 16
    layers: int = 0
    expand: tuple[float, ...] = (0.0, 0.25)
    residual: Residual = "picked"
    lr: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("chunk", self.chunk, least=1)
        check_count("layers", self.layers)
        if not self.expand:
            raise ConfigError("expand", "must name at least one share", hint="Example: [0, 0.25].")
        for share in self.expand:
            check_number("expand", share, low=0.0, high=0.99)
        if self.residual not in get_args(Residual):
            raise ConfigError("residual", f"must be one of {', '.join(get_args(Residual))}, not {self.residual!r}")

    @property
    def curriculum(self) -> int:
        """Characters of a text of one chunk, from which texts grow."""
        return 4 * self.chunk

    @property
    def eval_rates(self) -> tuple[float, ...]:
        """All shares, in order."""
        return tuple(sorted(self.expand))

    def writer(self, lm: CausalLM, data: SoftData | None = None) -> ChunkWriter:
        """The encoder with a new projection; words are counted in the data where they are picked.

        Rows begin as picked words, or as large as word embeddings are, around their mean.
        """
        if self.residual == "none":
            return ChunkWriter(lm, self, None)

        def read(texts: Sequence[str]) -> list[list[list[int]]]:
            return [lm.text.encode([text[a:b] for a, b in cut(lm.text, text, self.chunk)]) for text in texts]

        return ChunkWriter(lm, self, counted(lm, read, data))

    def values(self) -> dict[str, Any]:
        """The encoder, of which what changed is saved, the size of a chunk, and what rows begin as, if anything."""
        begin = {} if self.residual == "none" else {"residual": self.residual}
        return {"encoder": self.encoder, "chunk": self.chunk, **begin}


class ChunkWriter:
    """An encoder of chunks that is trained."""

    def __init__(self, lm: CausalLM, options: REFRAGTraining, words: WordTable | None) -> None:
        import torch

        self._lm, self._chunk, self._words = lm, options.chunk, words
        self.rates = options.expand
        self._backbone, self._device = trainable(
            options.encoder, dtype=options.dtype, device=options.device, layers=options.layers
        )
        recipe = read_recipe(resolve(options.encoder))
        self._tokenizer = read_tokenizer(tokenizer_file(recipe.folder))
        most = check_chunk(options.chunk, recipe.max_tokens, self._tokenizer, recipe.folder)
        self._tokenizer.enable_truncation(most)
        width, draw = int(self._backbone.config.hidden_size), torch.Generator().manual_seed(options.seed)
        mean, deviation = sizes(lm)
        with torch.no_grad():
            sample = self._vectors(_SAMPLE)
        ratio = deviation / sample.float().cpu().std()
        weight, bias, self._scale = torch.randn(lm.dimensions, width, generator=draw), mean, 1.0
        weight = weight * ratio / width**0.5
        if words is not None:
            weight, bias, self._scale = weight * 0, bias * 0, float((GENTLE * ratio).half())
        self._weight = torch.nn.Parameter(weight.to(self._device))
        self._bias = torch.nn.Parameter(bias.to(self._device))

    def named(self) -> list[tuple[str, Any]]:
        """The encoder's layers that are trained, and the projection."""
        own = [(f"{BACKBONE}{name}", p) for name, p in self._backbone.named_parameters() if p.requires_grad]
        return [*own, ("projection.weight", self._weight), ("projection.bias", self._bias)]

    def fixed(self) -> Mapping[str, Tensor]:
        """The table by which words are picked and what vectors are multiplied by, where rows begin as words."""
        import torch

        return {} if self._words is None else {"scale": torch.tensor([self._scale]), "words": self._words.values}

    def fix(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes both of these."""
        if self._words is not None:
            self._words, self._scale = WordTable(tensors["words"].float()), float(tensors["scale"])

    def pieces(self, question: str, texts: Sequence[tuple[str, str]], rate: float) -> list[list[Piece]]:
        """Runs of chunks, of which the share ``rate`` that is closest to the question stays text."""
        import torch

        places = [(number, place) for number, (_, text) in enumerate(texts) for place in self._places(text)]
        count = math.floor(rate * len(places) + 1e-9)
        kept: set[int] = set()
        if count:
            with torch.no_grad():
                vectors = self._vectors([question, *(texts[n][1][a:b] for n, (a, b) in places)]).float()
            close = torch.nn.functional.cosine_similarity(vectors[:1], vectors[1:])
            kept = set(close.argsort(descending=True, stable=True)[:count].tolist())
        found: list[list[Piece]] = [[] for _ in texts]
        units = [(number, unit in kept, place) for unit, (number, place) in enumerate(places)]
        for (number, text), run in groupby(units, key=lambda unit: unit[:2]):
            stretches = [place for _, _, place in run]
            title, whole = texts[number]
            start, end = stretches[0][0], stretches[-1][1]
            chunks = tuple(whole[a:b] for a, b in stretches)
            found[number].append(Piece(start, end, None if text else Told(title, whole[start:end], chunks)))
        return found

    def told_at(self, rates: Sequence[float]) -> Sequence[float]:
        """One: a whole text has the same rows whatever share of a question's chunks is text."""
        return rates[:1]

    def counts(self, texts: Sequence[Told], rate: float) -> list[int]:
        """One for each chunk."""
        return [len(some) for some in self._chunks(texts)]

    def rows(self, texts: Sequence[Told], rate: float) -> list[Tensor]:
        """The vectors of the chunks, projected, with what they begin as."""
        import torch

        parts = self._chunks(texts)
        chunks = [chunk for some in parts for chunk in some]
        if not chunks:
            return []
        rows = torch.nn.functional.linear(self._vectors(chunks).float() * self._scale, self._weight, self._bias)
        if self._words is not None:
            picked = best(self._words, self._lm.text.encode(chunks)).to(self._lm.device)
            rows = rows + self._lm.model.get_input_embeddings()(picked).float().to(rows.device)
        return list(torch.split(rows, [len(some) for some in parts]))

    def frozen(self) -> Any:
        """Nothing stands on the generator."""
        return nullcontext()

    def _places(self, text: str) -> list[tuple[int, int]]:
        return [(a, b) for a, b in cut(self._lm.text, text, self._chunk) if text[a:b].strip()]

    def _chunks(self, texts: Sequence[Told]) -> list[Sequence[str]]:
        return [one.chunks or [one.text[a:b] for a, b in self._places(one.text)] or [""] for one in texts]

    def _vectors(self, texts: Sequence[str]) -> Tensor:
        return pooled_whole(self._backbone, encode_batch(self._tokenizer, list(texts), special=True), self._device)
