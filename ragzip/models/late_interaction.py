"""Texts -> a unit vector for every token, to be compared by MaxSim: ColBERT (https://arxiv.org/abs/2004.12832).

A query's score for a document is the sum, over the tokens of the query, of the largest cosine to a token of the
document. Where ``load_encoder`` makes one vector of a text, this keeps them all, made narrower by a projection where
the model has one. Every query has a forward pass of its own, so that no score depends on who else asked; documents
are sorted by length, and share passes as in ``ragzip.models.encoder``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ragzip.errors import ModelError
from ragzip.models.cache import digest_memory
from ragzip.models.digests import digest
from ragzip.models.identity import folder_fingerprint
from ragzip.models.late_layers import Layers, attention_received, open_layers
from ragzip.models.late_recipe import ARCHITECTURE, HEAD, LateRecipe, read_late_recipe
from ragzip.models.loading import open_model
from ragzip.models.locate import canonical, resolve
from ragzip.models.lora import base_folder, merge
from ragzip.models.pooling import read_json
from ragzip.models.runtime import check_options, choose_device, choose_dtype, kept, state
from ragzip.models.token_windows import batches, special_ids
from ragzip.models.tokenizer import TextTokenizer, read_tokenizer, tokenizer_file
from ragzip.models.tuned import open_tuned
from ragzip.models.weights import ADAPTER_CONFIG, is_adapter, weight_files

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_BLOCK = 8192  # texts tokenised at once: bounds memory
_HINT = "The tokenizer and the settings do not belong together; get the model again."


class TokenVectors(NamedTuple):
    """What a model says of one document.

    Attributes:
        vectors: ``[n, dimensions]``, float32, of length 1, in the order of the tokens; none for a text without tokens.
        weights: ``[n]``, float32: how much each token matters, for those who keep only some of them. In encoders
            like BERT, the attention that it receives from all tokens in the last layer, of which each gives 1; in
            others, the length of its vector before that was made 1. To be compared within a document only.
    """

    vectors: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LateInteraction:
    """A loaded late-interaction model.

    Attributes:
        name: As it was asked for.
        dimensions: Width of a vector.
        max_tokens: Longest document in tokens, special tokens included; longer ones are cut at the end.
        device: Where it runs.
        dtype: The number format its encoder computes in; projections and vectors are float32.
        folder: Its files.
    """

    name: str
    dimensions: int
    max_tokens: int
    device: str
    dtype: str
    folder: Path
    _recipe: LateRecipe = field(repr=False)
    _model: Any = field(repr=False)
    _layers: Layers = field(repr=False)
    _text: TextTokenizer = field(repr=False)
    _query: _Frame = field(repr=False)
    _document: _Frame = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over its files: equal for equal models."""
        lines = [folder_fingerprint(self.folder)]
        if self._recipe.own:
            lines.append(folder_fingerprint(self._recipe.folder))
        files = [*self._recipe.settings, *(file for dense in self._recipe.dense for file in dense.files)]
        lines += [digest(file, digest_memory()) for file in files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest() if lines[1:] else lines[0]

    def encode_queries(self, texts: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        """Vectors of the tokens of queries, each from a forward pass of its own.

        Args:
            texts: Any strings, the empty one included.

        Returns:
            For each ``[n_tokens, dimensions]``, float32, of length 1: also those of special tokens, of the model's
            marker for queries and, where the model wants them, of mask tokens up to its length of queries.
        """
        found = []
        for ids in self._text.encode(texts):
            whole = self._query.around(ids)
            seen = len(whole)
            if self._query.filling is not None:
                whole += [self._query.filling] * (self._query.length - seen)
            vectors, _ = self._forward([whole], [len(whole) if self._recipe.attend else seen], weigh=False)
            found.append(vectors[0])
        return found

    def encode_documents(
        self, texts: Sequence[str], *, weigh: bool = True, on_progress: Callable[[int, int], None] | None = None
    ) -> list[TokenVectors]:
        """Vectors of the tokens of documents, and what each token matters.

        Args:
            texts: Any strings, the empty one included.
            weigh: False for those who keep all tokens: weights are lengths then, and attention is not looked at.
            on_progress: Told texts done and texts in all, after every batch.

        Returns:
            One for each text. The vectors of special tokens and of the model's marker for documents are among them;
            those of tokens that the model leaves out, mostly punctuation, are not.
        """
        import numpy as np

        nothing = TokenVectors(np.zeros((0, self.dimensions), np.float32), np.zeros(0, np.float32))
        found = [nothing] * len(texts)
        done = 0
        for first in range(0, len(texts), _BLOCK):
            encoded = self._text.encode(texts[first : first + _BLOCK])
            filled = [number for number, ids in enumerate(encoded) if ids]
            rows = [self._document.around(encoded[number]) for number in filled]
            done += len(encoded) - len(filled)
            for batch in batches([len(row) for row in rows], self.device):
                ids = [rows[row] for row in batch]
                vectors, weights = self._forward(ids, [len(row) for row in ids], weigh=weigh)
                for row, one, vector, weight in zip(batch, ids, vectors, weights, strict=True):
                    kept = np.fromiter((token not in self._document.skipped for token in one), bool, len(one))
                    found[first + filled[row]] = TokenVectors(vector[: len(one)][kept], weight[: len(one)][kept])
                done += len(batch)
                if on_progress:
                    on_progress(done, len(texts))
        return found

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each whole text, without special tokens and without cutting."""
        return self._text.count(texts)

    def _forward(
        self, ids: Sequence[Sequence[int]], seen: Sequence[int], *, weigh: bool = True
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Vectors ``[b, n, dimensions]`` and weights ``[b, n]`` of one batch.

        Args:
            ids: Rows of tokens, not empty.
            seen: How many of each row's tokens, from its first, the others see.
            weigh: Whether attention is looked at; else weights are lengths of vectors.
        """
        import torch

        width = max(map(len, ids))
        tokens = torch.tensor([[*row, *[0] * (width - len(row))] for row in ids], device=self.device)
        mask = torch.tensor([[1] * count + [0] * (width - count) for count in seen], device=self.device)
        with torch.inference_mode():
            out = self._model(input_ids=tokens, attention_mask=mask, output_hidden_states=weigh)
            projected = self._layers(out.last_hidden_state.float())
            weights = attention_received(self._model, out.hidden_states[-2], mask) if weigh else None
            if weights is None:
                weights = projected.norm(dim=-1)
            unit = torch.nn.functional.normalize(projected, dim=-1)
            return unit.cpu().numpy(), weights.float().cpu().numpy()


@dataclass(frozen=True, slots=True)
class _Frame:
    """What is put around the tokens of a text.

    Attributes:
        before: Special tokens and the marker.
        after: Special tokens.
        length: Most tokens, these included.
        filling: What queries are filled up with, if they are.
        skipped: Tokens whose vectors are left out.
    """

    before: list[int]
    after: list[int]
    length: int
    filling: int | None = None
    skipped: frozenset[int] = frozenset()

    def around(self, ids: Sequence[int]) -> list[int]:
        """The tokens of a text with these around them, cut at the end to the length."""
        return [*self.before, *ids[: max(self.length - len(self.before) - len(self.after), 1)], *self.after]


def load_late_interaction(name: str, *, dtype: str = "auto", device: str = "auto") -> LateInteraction:
    """A late-interaction model, loaded once for each process, dtype and device.

    Args:
        name: A name of shipped weights, a built-in encoder, a folder (of PyLate, sentence-transformers, ColBERT,
            ``transformers`` or ragzip, or with a LoRA adapter), or a hub id. An encoder that was not trained for it
            gives the vectors of its last layer.
        dtype: "auto", "fp32", "bf16" or "fp16".
        device: "auto", "cpu", "cuda", "cuda:N", "mps" or "xpu".

    Raises:
        ModelError: It is not here, damaged, not of a kind that is supported, or lacks tensors (named).
        ConfigError: A dtype or device that does not exist.
    """
    check_options(dtype, device)
    folder = resolve(name)
    recipe = read_late_recipe(base_folder(folder))
    device = choose_device(device)
    number = choose_dtype(dtype, device)
    inner = folder if recipe.own else recipe.folder
    files = [*weight_files(inner), inner / "config.json", tokenizer_file(recipe.folder)]
    files += [file for dense in recipe.dense for file in dense.files]
    if is_adapter(folder):
        files += [*weight_files(folder), folder / ADAPTER_CONFIG]

    def load() -> LateInteraction:
        if recipe.own:
            tuned = open_tuned(name, architecture=ARCHITECTURE, dtype=dtype, device=device)
            if HEAD not in tuned.heads:
                raise ModelError(f"the weights in {folder} lack heads.{HEAD}.weight", hint="Get the model again.")
            model, layers = tuned.backbone, Layers(((tuned.heads[HEAD].float(), "identity", None),))
        else:
            model = open_model("AutoModel", recipe.folder, dtype=number, device=device, may_lack="pooler")
            if is_adapter(folder):
                merge(model, folder)
            layers = open_layers(recipe.dense, int(model.config.hidden_size), device)
        text = TextTokenizer(read_tokenizer(tokenizer_file(recipe.folder)))
        query, document = _frames(folder, recipe, text)
        return LateInteraction(
            name=name,
            dimensions=layers.width or int(model.config.hidden_size),
            max_tokens=recipe.document_length,
            device=device,
            dtype=str(number).removeprefix("torch."),
            folder=folder,
            _recipe=recipe,
            _model=model,
            _layers=layers,
            _text=text,
            _query=query,
            _document=document,
        )

    key = ("late_interaction", canonical(name), recipe, *state(*files), str(number), device)
    loaded: LateInteraction = kept(key, load)
    return loaded


def _frames(folder: Path, recipe: LateRecipe, text: TextTokenizer) -> tuple[_Frame, _Frame]:
    """What comes around queries and documents, as token ids."""
    tokenizer = text.tokenizer
    before, after = special_ids(tokenizer)

    def token(content: str, what: str) -> int:
        found = tokenizer.token_to_id(content)
        if found is None:
            raise ModelError(f"the tokenizer of {folder} does not know its {what} {content!r}", hint=_HINT)
        return found

    def marked(marker: str) -> list[int]:
        return [*before[:1], token(marker, "marker"), *before[1:]] if marker else before

    filling = token(_filler(recipe.folder), "mask token") if recipe.expand else None
    skipped = frozenset(i for i in map(tokenizer.token_to_id, recipe.skipped) if i is not None)
    return (
        _Frame(marked(recipe.query_marker), after, recipe.query_length, filling),
        _Frame(marked(recipe.document_marker), after, recipe.document_length, skipped=skipped),
    )


def _filler(folder: Path) -> str:
    """What queries are filled up with: the mask token, else, in a language model, the token that ends a text."""
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    for name in ("mask_token", "eos_token"):
        value = config.get(name)
        content = value.get("content") if isinstance(value, dict) else value
        if isinstance(content, str):
            return content
    return "[MASK]"
