"""Chunks of a text -> one row of a generator's input embeddings each: REFRAG's light encoder, projection and policy."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ragzip.errors import ModelError
from ragzip.models.causal_lm import load_causal_lm
from ragzip.models.loading import open_model
from ragzip.models.locate import canonical, resolve
from ragzip.models.picking import WordTable, best, read_words
from ragzip.models.pooling import read_recipe
from ragzip.models.runtime import check_options, choose_device, choose_dtype, kept
from ragzip.models.soft_folder import deciding_state, open_soft, option
from ragzip.models.token_windows import batches, firsts, special_ids, windows
from ragzip.models.tokenizer import TextTokenizer, encode_batch, read_tokenizer, text_tokenizer, tokenizer_file
from ragzip.models.weights import weight_files
from ragzip.text import Stretch

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

ARCHITECTURE = "refrag"
Residual = Literal["none", "picked"]
BACKBONE = "backbone."
FEATURES = 3
"""Plain numbers that the policy reads beside the vectors of question and chunk: their cosine, the chunk's place in its
context (0 to 1), and the rank of its cosine (0 to 1)."""


@dataclass(frozen=True, eq=False)
class ChunkEncoder:
    """A loaded encoder of chunks.

    Attributes:
        name: As it was asked for.
        space: Whose input embeddings the rows are.
        dimensions: Width of a row.
        chunk: Most tokens of the generator in a chunk.
        device: Where it runs.
        folder: Its files.
    """

    name: str
    space: str
    dimensions: int
    chunk: int
    device: str
    folder: Path
    _backbone: Any = field(repr=False)
    _tokenizer: Tokenizer = field(repr=False)
    _text: TextTokenizer = field(repr=False)
    _projection: tuple[Any, Any] = field(repr=False)
    _policy: Mapping[str, Any] = field(repr=False)
    _scale: float = field(default=1.0, repr=False)
    _words: WordTable | None = field(default=None, repr=False)
    _dtype: str = field(default="auto", repr=False)

    @property
    def trained_policy(self) -> bool:
        """Whether the folder holds a policy."""
        return bool(self._policy)

    @property
    def width(self) -> int:
        """Of a chunk's vector."""
        return int(self._backbone.config.hidden_size)

    def cut(self, text: str) -> list[Stretch]:
        """Where the chunks of a text stand, in characters; together they cover it."""
        return cut(self._text, text, self.chunk)

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """``[n, encoder dimensions]``, float32: means of its last hidden states. Equal texts are read once.

        What is longer than the encoder's window, as some runs of signs are in its tokens, is read in parts.
        """
        import torch

        places, distinct = firsts(texts)
        some = [texts[place] for place in distinct]
        encodings = self._encoded(some)
        out = torch.zeros(len(some), self.width)
        with torch.inference_mode():
            for batch in batches([len(one.ids) for one in encodings], self.device.partition(":")[0]):
                out[batch] = pooled_whole(self._backbone, [encodings[i] for i in batch], self.device).float().cpu()
        return out[torch.from_numpy(places)]

    def _encoded(self, texts: Sequence[str]) -> Sequence[Any]:
        return encode_batch(self._tokenizer, texts, special=True)

    def parts(self, text: str) -> list[str]:
        """A text as parts that are read whole, between sentences if possible: itself where it fits the window."""
        import numpy as np

        (encoding,) = encode_batch(self._tokenizer, [text], special=True, offsets=True)
        if not encoding.overflowing:
            return [text]
        read = [encoding, *encoding.overflowing]
        places = [p for one in read for p, own in zip(one.offsets, one.special_tokens_mask, strict=True) if not own]
        room = len(encoding.ids) - sum(encoding.special_tokens_mask)
        return [text[places[start][0] : places[end - 1][1]] for start, end in windows(text, np.array(places), room)]

    def project(self, texts: Sequence[str], vectors: Tensor) -> Tensor:
        """Rows of chunks, from their texts and vectors: ``[n, encoder dimensions]`` -> ``[n, dimensions]``, float32.

        Raises:
            ModelError: Rows begin as words of the generator, and that is not here.
        """
        import torch

        with torch.inference_mode():
            rows = torch.nn.functional.linear(vectors * self._scale, *self._projection)
            if self._words is None or not texts:
                return rows
            words: Tensor = self._embedding()(best(self._words, self._text.encode(texts)).to(self.device))
            return rows + words.float().cpu()

    def check_policy(self) -> None:
        """Raises a ``ModelError`` where the folder holds no policy."""
        if not self._policy:
            raise ModelError(f"{self.folder} has no trained policy", hint="Use policy: provence, or train one.")

    def load_words(self) -> None:
        """Loads the generator now where rows begin as its words; otherwise the first ones do."""
        if self._words is not None:
            self._embedding()

    def _embedding(self) -> Any:
        return load_causal_lm(self.space, dtype=self._dtype, device=self.device).model.get_input_embeddings()

    def wish(self, question: Tensor, chunks: Tensor) -> Tensor:
        """What the trained policy thinks of each chunk as text rather than a row, as a logit.

        Args:
            question: ``[encoder dimensions]``.
            chunks: ``[n, encoder dimensions]``, all of one context, in order.

        Raises:
            ModelError: The folder holds no policy.
        """
        import torch

        self.check_policy()
        with torch.inference_mode():
            return preferences(self._policy, question, chunks)


def cut(tokenizer: TextTokenizer, text: str, size: int) -> list[Stretch]:
    """Stretches of characters with at most ``size`` tokens each, which cover the text.

    A character of several tokens stays whole: one of more than ``size`` is a chunk by itself.
    """
    ((_, places),) = tokenizer.encode_places([text])
    starts, count = [0], 0
    for first, tokens in itertools.groupby(place[0] for place in places):
        taken = len(list(tokens))
        if count and count + taken > size:
            starts.append(first)
            count = 0
        count += taken
    return [(a, b) for a, b in itertools.pairwise([*starts, len(text)]) if a < b]


def pooled(backbone: Any, rows: Sequence[Sequence[int]], device: str) -> Tensor:
    """Means of the last hidden states of rows of token ids: ``[n, d]``, differentiable."""
    import torch

    width = max(max(map(len, rows)), 1)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[number, : max(len(row), 1)] = 1
    ids, mask = ids.to(device), mask.to(device)
    hidden = backbone(input_ids=ids, attention_mask=mask).last_hidden_state
    shares = (mask / mask.sum(1, keepdim=True)).to(hidden.dtype)
    return torch.bmm(shares.unsqueeze(1), hidden).squeeze(1)


def pooled_whole(backbone: Any, encodings: Sequence[Any], device: str) -> Tensor:
    """As ``pooled``, of encodings; of those longer than the encoder's window the mean over all windows' tokens."""
    import torch

    rows = [[one.ids, *(more.ids for more in one.overflowing)] for one in encodings]
    found = pooled(backbone, [row for some in rows for row in some], device)
    if len(found) == len(rows):
        return found
    shares = [torch.tensor([float(len(row)) for row in some], device=found.device) for some in rows]
    parts: Any = torch.split_with_sizes(found, [len(some) for some in rows])
    return torch.stack([(s / s.sum()).to(p.dtype) @ p for p, s in zip(parts, shares, strict=True)])


def preferences(policy: Mapping[str, Any], question: Tensor, chunks: Tensor) -> Tensor:
    """Logits of a policy, differentiable: two layers over question, chunk, their product and three numbers."""
    import torch
    from torch.nn.functional import cosine_similarity, linear

    if not len(chunks):
        return torch.zeros(0)
    asked = torch.nn.functional.normalize(question, dim=-1).expand(len(chunks), -1)
    read = torch.nn.functional.normalize(chunks, dim=-1)
    close = cosine_similarity(asked, read)
    last = max(len(chunks) - 1, 1)
    place = torch.arange(len(chunks), dtype=close.dtype) / last
    rank = close.argsort(descending=True, stable=True).argsort().to(close.dtype) / last
    given = torch.cat([asked * read * asked.shape[1] ** 0.5, torch.stack([close, place, rank], dim=1)], dim=1)
    hidden = torch.tanh(linear(given, policy["policy.0.weight"], policy["policy.0.bias"]))
    return linear(hidden, policy["policy.2.weight"], policy["policy.2.bias"]).squeeze(1)


def load_chunks(name: str, *, dtype: str = "auto", device: str = "auto") -> ChunkEncoder:
    """An encoder of chunks, loaded once for each process, dtype and device.

    Args:
        name: A name of shipped weights, a folder, or a hub id.
        dtype: Of the encoder: "auto", "fp32", "bf16" or "fp16"; projection and policy compute in fp32.
        device: "auto", "cpu", "cuda", "cuda:N", "mps" or "xpu".

    Raises:
        ModelError: It is not here, damaged, or was trained with another generator or encoder.
        ConfigError: A dtype or device that does not exist.
    """
    check_options(dtype, device)
    folder = resolve(name)
    device = choose_device(device)
    number = choose_dtype(dtype, device)
    files = deciding_state(folder)

    def load() -> ChunkEncoder:
        found = open_soft(name, ARCHITECTURE)
        recipe = read_recipe(resolve(option(found.config, "encoder", str, folder)))
        backbone = open_model("AutoModel", recipe.folder, dtype=number, device=device, may_lack="pooler")
        own = backbone.state_dict()
        changed = {k.removeprefix(BACKBONE): v for k, v in found.tensors.items() if k.startswith(BACKBONE)}
        wrong = sorted(k for k, v in changed.items() if k not in own or own[k].shape != v.shape)
        if wrong:
            raise ModelError(
                f"{BACKBONE}{wrong[0]} in {folder} does not fit its encoder",
                hint="Config, weights and encoder do not belong together.",
            )
        backbone.load_state_dict({**own, **{k: v.to(number) for k, v in changed.items()}})
        width = int(backbone.config.hidden_size)
        tokenizer = read_tokenizer(tokenizer_file(recipe.folder))
        chunk = option(found.config, "chunk", int, folder, least=1)
        tokenizer.enable_truncation(check_chunk(chunk, recipe.max_tokens, tokenizer, recipe.folder))
        text = text_tokenizer(str(found.config["base"]))
        residual = option({"residual": "none", **found.config}, "residual", str, folder)
        if residual not in get_args(Residual):
            raise ModelError(f"{folder / 'config.json'} says residual: {residual!r}", hint="Train it again.")
        return ChunkEncoder(
            name=name,
            space=found.space,
            dimensions=found.dimensions,
            chunk=chunk,
            device=device,
            folder=folder,
            _backbone=backbone,
            _tokenizer=tokenizer,
            _text=text,
            _projection=(
                found.take("projection.weight", found.dimensions, width),
                found.take("projection.bias", found.dimensions),
            ),
            _policy=_policy(found, width),
            _scale=float(found.take("scale", 1)) if "scale" in found.tensors else 1.0,
            _words=read_words(found, text.words) if residual == "picked" else None,
            _dtype=dtype,
        )

    encoder: ChunkEncoder = kept(("chunks", canonical(name), *files, str(number), device), load)
    return encoder


def vector_width(name: str) -> int:
    """Width of the vectors that weights project, by the head of their file: the encoder is not loaded.

    Raises:
        ModelError: It cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    folder = resolve(name)
    for file in weight_files(folder):
        try:
            with safe_open(str(file), framework="pt") as opened:
                if "projection.weight" in opened.keys():  # noqa: SIM118 - it is no mapping
                    return int(opened.get_slice("projection.weight").get_shape()[1])
        except (OSError, SafetensorError, IndexError) as error:
            raise ModelError(f"{file} cannot be read: {error}", hint="Get the weights again.") from error
    raise ModelError(
        f"the weights in {folder} lack projection.weight", hint="Config and weights do not belong together."
    )


def check_chunk(chunk: int, window: int, tokenizer: Any, folder: Path) -> int:
    """The tokens that an encoder is given at most, its special ones included; of its own a chunk may have more.

    Args:
        chunk: Of the generator's tokens.
        window: The encoder's.
        tokenizer: The encoder's.
        folder: The encoder's, for the error.

    Raises:
        ModelError: A chunk is longer than the encoder's window: the rest of it would not be read.
    """
    around = sum(map(len, special_ids(tokenizer)))
    if chunk + around > max(window, around + 1):
        raise ModelError(
            f"a chunk of {chunk} tokens does not fit the encoder in {folder}, which reads {window} of its own with "
            f"{around} special ones",
            hint="Use smaller chunks, or an encoder with a longer window.",
        )
    return max(window, around + 1)


def _policy(found: Any, width: int) -> dict[str, Any]:
    """The tensors of a policy, checked; none where there is none."""
    bias = found.tensors.get("policy.0.bias")
    if bias is None:
        return {}
    hidden = len(bias)
    return {
        "policy.0.weight": found.take("policy.0.weight", hidden, width + FEATURES),
        "policy.0.bias": found.take("policy.0.bias", hidden),
        "policy.2.weight": found.take("policy.2.weight", 1, hidden),
        "policy.2.bias": found.take("policy.2.bias", 1),
    }
