"""How a folder says that a text becomes one vector a token: three layouts, read without their libraries.

Models of PyLate (https://github.com/lightonai/pylate) and of sentence-transformers have a ``modules.json`` with a
transformer and dense layers; those of ColBERT (https://arxiv.org/abs/2112.01488) have a projection among the weights
of the transformer and an ``artifact.metadata``; ragzip's own are what ``ragzip train late_interaction`` writes. Any
other encoder is read as one without a projection.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ragzip.errors import ModelError
from ragzip.models.locate import resolve
from ragzip.models.pooling import positions, read_json, read_modules, read_recipe, window
from ragzip.models.tuned import read_tuned_config
from ragzip.models.weights import weight_files

ARCHITECTURE, HEAD = "late_interaction", "projection"
PUNCTUATION = tuple(string.punctuation)
"""Tokens whose vectors models leave out of documents, mostly."""
_SETTINGS, _METADATA = "config_sentence_transformers.json", "artifact.metadata"
_KINDS = ("Transformer", "Dense", "Pooling", "Normalize")
_ACTIVATIONS = ("identity", "tanh", "relu", "gelu", "sigmoid", "silu")
_QUERY_LENGTH, _DOCUMENT_LENGTH = 32, 180  # of both libraries, where a model does not say
_LEAST = 4  # two special tokens, a marker, and one of the text
_HINT = "Give a model of PyLate, sentence-transformers or ColBERT, or a folder made by `ragzip train late_interaction`."


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer over token vectors.

    Attributes:
        files: Safetensors files, of which one holds ``linear.weight`` and, where it has one, ``linear.bias``.
        activation: Name of the function after it, "identity" for none.
        residual: Whether what goes in is added to what comes out, through ``residual.weight`` where widths differ.
    """

    files: tuple[Path, ...]
    activation: str = "identity"
    residual: bool = False


@dataclass(frozen=True, slots=True)
class LateRecipe:
    """How to encode with a model.

    Attributes:
        folder: The one with the transformer's config and tokenizer; the base's where the model is ragzip's own.
        query_length: Most tokens of a query, special ones and the marker included.
        document_length: The same for documents.
        own: Whether the model is in ragzip's own format.
        dense: Linear layers, in order; those of ragzip's own format are not among them.
        query_marker: Token put before the text of a query, after the tokenizer's own first ones; "" for none.
        document_marker: The same for documents.
        expand: Whether queries are filled up with mask tokens to ``query_length``.
        attend: Whether a query's other tokens see those.
        skipped: Tokens of documents whose vectors are left out.
        settings: The files that say all this, beside those that every model has.
    """

    folder: Path
    query_length: int
    document_length: int
    own: bool = False
    dense: tuple[Dense, ...] = ()
    query_marker: str = ""
    document_marker: str = ""
    expand: bool = False
    attend: bool = False
    skipped: tuple[str, ...] = ()
    settings: tuple[Path, ...] = ()


def read_late_recipe(folder: Path) -> LateRecipe:
    """Reads what a folder says.

    Raises:
        ModelError: A file cannot be read, or asks for what is not supported.
    """
    path = folder / "config.json"
    config = _Said(path) if path.is_file() else None
    if config and "ragzip_format" in config.values:
        return _own(folder, config)
    if (folder / _METADATA).is_file() or (config and "HF_ColBERT" in (config.values.get("architectures") or ())):
        return _stanford(folder)
    return _modules(folder)


def _own(folder: Path, config: _Said) -> LateRecipe:
    read = read_tuned_config(folder) or {}
    if read.get("architecture") != ARCHITECTURE:
        raise ModelError(f"{folder} was trained to be a {read.get('architecture')}, not a {ARCHITECTURE}", hint=_HINT)
    inner = read_recipe(resolve(read["base"])).folder
    longest = max(min(int(read["max_tokens"]), positions(inner)), _LEAST)
    return LateRecipe(
        inner, config.length("query_length", longest, longest), longest, own=True, skipped=config.words("skipped", [])
    )


def _stanford(folder: Path) -> LateRecipe:
    path = folder / _METADATA
    said = _Said(path) if path.is_file() else _Said(path, {})
    most = positions(folder)
    if said.values.get("similarity", "cosine") != "cosine":
        raise ModelError(f"{path} asks for the similarity {said.values['similarity']!r}, not cosine", hint=_HINT)
    punctuation = said.flag("mask_punctuation", True)
    return LateRecipe(
        folder,
        said.length("query_maxlen", _QUERY_LENGTH, most),
        said.length("doc_maxlen", _DOCUMENT_LENGTH, most),
        dense=(Dense(tuple(weight_files(folder))),),
        query_marker=said.text("query_token_id", "[unused0]"),
        document_marker=said.text("doc_token_id", "[unused1]"),
        expand=True,
        attend=said.flag("attend_to_mask_tokens", False),
        skipped=PUNCTUATION if punctuation else (),
        settings=(path,) if path.is_file() else (),
    )


def _modules(folder: Path) -> LateRecipe:
    """Of PyLate or sentence-transformers: pooling is passed over, as it makes one vector of those wanted here."""
    modules = read_modules(folder, _KINDS)
    kinds = [kind for kind, _ in modules]
    if "Dense" in kinds and "Pooling" in kinds[: kinds.index("Dense")]:
        raise ModelError(f"the dense layer of {folder} comes after its pooling: it makes one vector a text", hint=_HINT)
    inner = dict(reversed(modules)).get("Transformer", folder)
    path = folder / _SETTINGS
    said = _Said(path) if path.is_file() else _Said(path, {})
    dense = tuple(_dense(part) for kind, part in modules if kind == "Dense")
    if not dense and "query_length" not in said.values:
        longest = window(folder, inner)
        return LateRecipe(inner, longest, longest)
    most = positions(inner)  # what sentence-transformers was told is the length of what PyLate encoded last
    expand = said.flag("do_query_expansion", True)
    return LateRecipe(
        inner,
        said.length("query_length", _QUERY_LENGTH, most),
        said.length("document_length", _DOCUMENT_LENGTH, most),
        dense=dense,
        query_marker=said.text("query_prefix", "[Q] "),
        document_marker=said.text("document_prefix", "[D] "),
        expand=expand,
        attend=expand and said.flag("attend_to_expansion_tokens", False),
        skipped=said.words("skiplist_words", list(PUNCTUATION)),
        settings=(*(p for p in (path,) if p.is_file()), *(p / "config.json" for k, p in modules if k == "Dense")),
    )


def _dense(part: Path) -> Dense:
    said = _Said(part / "config.json")
    full = said.text("activation_function", "identity")
    name = full.rpartition(".")[2].lower()
    if name not in _ACTIVATIONS:
        raise ModelError(f"{said.path} asks for the activation {full!r}", hint=f"Supported: {', '.join(_ACTIVATIONS)}.")
    return Dense(tuple(weight_files(part)), name, said.flag("use_residual", False))


class _Said:
    """A JSON object of settings, whose values are checked as they are asked for; null is as if it was not there."""

    def __init__(self, path: Path, values: Mapping[str, Any] | None = None) -> None:
        found = read_json(path) if values is None else values
        if not isinstance(found, Mapping):
            raise ModelError(f"{path} holds no object", hint="Get the model's files again.")
        self.path = path
        self.values = {key: value for key, value in found.items() if value is not None}

    def text(self, key: str, default: str) -> str:
        value = self.values.get(key, default)
        return value if isinstance(value, str) else self._refuse(key, "text")

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        return value if isinstance(value, bool) else self._refuse(key, "true or false")

    def length(self, key: str, default: int, most: int) -> int:
        """A number of tokens, but no more than there can be."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < _LEAST:
            self._refuse(key, f"a number of tokens from {_LEAST}")
        return max(min(value, most), _LEAST)

    def words(self, key: str, default: list[str]) -> tuple[str, ...]:
        value = self.values.get(key, default)
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            self._refuse(key, "a list of words")
        return tuple(value)

    def _refuse(self, key: str, wanted: str) -> NoReturn:
        raise ModelError(f"{self.path}: {key} must be {wanted}, not {self.values[key]!r}"[:300], hint=_HINT)
