"""Multipliers for a question's vector, made from the tokens of the question: LexSemBridge (arXiv 2508.17858).

A vector over the vocabulary, ``log(1 + 1[t in q])`` (SLR) or ``log(1 + ReLU(h U + b))`` of the question's vector ``h``
(LLR), goes through a linear map to the width of the encoder, and its softmax multiplies the question's vector
element by element. Passages are left alone, and so is the index.

Both maps between vocabulary and vectors go through the encoder's own word embeddings, ``E``: ``U`` is ``Q E'`` and the
map back is ``E P``. So what is trained are small square matrices, which also know of words that training did not see,
and SLR works without training, with the identity for ``P``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragzip.errors import ModelError
from ragzip.models.locate import canonical, resolve
from ragzip.models.runtime import kept, state
from ragzip.models.tuned import HEADS, read_tuned_config
from ragzip.models.weights import weight_files

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ragzip.models.encoder import Encoder

    Floats = npt.NDArray[np.float32]

ARCHITECTURE = "lexsem"
KINDS = ("slr", "llr")
UNTRAINED = 0.02
"""The strength without trained weights: the best on training questions, where it is no better than 0 to speak of."""

_HINT = "Give a folder made by `ragzip train lexsem` from the encoder of the index."


@dataclass(frozen=True, eq=False)
class Bridge:
    """What turns a question's tokens into multipliers.

    Attributes:
        kind: ``slr`` or ``llr``.
        words: ``[vocabulary, d]``: the encoder's word embeddings, less their mean.
        out: ``P``, ``[d, d]``; None is the identity.
        bias: ``[d]``, added before the softmax.
        into: ``Q``, ``[d, d]``, for ``llr``.
        threshold: ``b``, for ``llr``.
    """

    kind: str
    words: Floats = field(repr=False)
    out: Floats | None = field(default=None, repr=False)
    bias: Floats | None = field(default=None, repr=False)
    into: Floats | None = field(default=None, repr=False)
    threshold: float = 0.0

    def modulate(self, vectors: Floats, tokens: Sequence[npt.NDArray[np.int64]], strength: float = 1.0) -> Floats:
        """Questions' vectors times their multipliers, again of length 1.

        Args:
            vectors: ``[n, d]``, of length 1.
            tokens: The ids of each question, without special tokens.
            strength: What goes into the softmax is multiplied by this; with 0 all multipliers are 1.
        """
        import numpy as np

        found = vectors * self.multipliers(vectors, tokens, strength)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        scaled: Floats = np.where(lengths > 0, found / np.maximum(lengths, 1e-30), vectors).astype(np.float32)
        return scaled

    def multipliers(self, vectors: Floats, tokens: Sequence[npt.NDArray[np.int64]], strength: float = 1.0) -> Floats:
        """``[n, d]``, above 0 with mean 1; all 1 for a question without tokens."""
        import numpy as np

        out = np.ones_like(vectors)
        for row, (vector, ids) in enumerate(zip(vectors, tokens, strict=True)):
            if len(ids) == 0:
                continue
            # One at a time: matrices times matrices would round differently with what else is asked.
            given = spread(self._lexical(vector, ids))
            given = given if self.out is None else given @ self.out
            given = strength * (given if self.bias is None else given + self.bias)
            powers = np.exp(given - given.max())
            out[row] = powers * (len(powers) / powers.sum())
        return out

    def _lexical(self, vector: Floats, ids: npt.NDArray[np.int64]) -> Floats:
        """``[d]``: the weights over the vocabulary, as the sum of the word embeddings that they belong to."""
        import numpy as np

        if self.into is None:
            found: Floats = np.log(2.0).astype(np.float32) * self.words[np.unique(ids)].sum(axis=0)
            return found
        weights = np.log1p(np.maximum(self.words @ (vector @ self.into) + self.threshold, 0))
        summed: Floats = weights.astype(np.float32) @ self.words
        return summed


def spread(values: Any) -> Any:
    """Values less their mean, divided by their standard deviation; numpy or torch, along the last axis."""
    centred = values - values.mean(-1, keepdims=True)
    return centred / ((centred * centred).mean(-1, keepdims=True) ** 0.5 + 1e-12)


def word_matrix(encoder: Encoder) -> Floats:
    """The encoder's word embeddings less their mean, ``[vocabulary, d]``, made once for each encoder.

    Raises:
        ModelError: They are of another width than its vectors.
    """

    def make() -> Floats:
        words: Floats = encoder.word_embeddings()
        if words.shape[1] != encoder.dimensions:
            raise ModelError(
                f"{encoder.name} has word embeddings of width {words.shape[1]} and vectors of {encoder.dimensions}",
                hint="Use an encoder whose word embeddings are as wide as its vectors.",
            )
        centred: Floats = words - words.mean(axis=0)
        return centred

    words: Floats = kept(("lexsem words", encoder.fingerprint, encoder.dtype), make)
    return words


def load_bridge(name: str | None, encoder: Encoder) -> Bridge:
    """The multipliers of an encoder's questions.

    Args:
        name: A folder made by ``ragzip train lexsem``; None is SLR without training.
        encoder: Whose vectors they are for.

    Raises:
        ModelError: It is not here, damaged, of another method, or trained for another encoder.
    """
    words = word_matrix(encoder)
    if name is None:
        return Bridge("slr", words)
    folder = resolve(name)
    config = read_tuned_config(folder)
    if config is None or config["architecture"] != ARCHITECTURE or config.get("kind") not in KINDS:
        raise ModelError(f"{folder} was not made by `ragzip train lexsem`", hint=_HINT)
    if config.get("base_fingerprint") != encoder.fingerprint:
        raise ModelError(f"{folder} was trained for {config['base']}, not for {encoder.name} as it is", hint=_HINT)
    files = (*weight_files(folder), folder / "config.json")

    def load() -> Bridge:
        width, kind = encoder.dimensions, str(config["kind"])
        shapes = {"out.weight": (width, width), "out.bias": (width,)}
        shapes |= {"into.weight": (width, width), "into.bias": (1,)} if kind == "llr" else {}
        found = _tensors(folder, shapes)
        threshold = float(found["into.bias"][0]) if kind == "llr" else 0.0
        return Bridge(kind, words, found["out.weight"], found["out.bias"], found.get("into.weight"), threshold)

    bridge: Bridge = kept((ARCHITECTURE, canonical(name), *state(*files), encoder.fingerprint, encoder.dtype), load)
    return bridge


def _tensors(folder: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Floats]:
    """The folder's heads in float32; exactly those that are wanted."""
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    found: dict[str, Any] = {}
    for file in weight_files(folder):
        try:
            found.update(load_file(str(file)))
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file} cannot be read: {error}", hint=_HINT) from error
    there = {name: tuple(values.shape) for name, values in found.items()}
    wanted = {HEADS + name: shape for name, shape in shapes.items()}
    if there != wanted:
        wrong = sorted(name for name in {**there, **wanted} if there.get(name) != wanted.get(name))
        raise ModelError(f"the weights in {folder} do not fit the encoder: {', '.join(wrong[:3])}", hint=_HINT)
    return {name: found[HEADS + name].astype(np.float32) for name in shapes}
