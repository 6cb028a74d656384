"""How a folder of sentence-transformers says token vectors become one vector, read without that library."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ragzip.errors import ModelError

Mode = Literal["mean", "cls", "lasttoken"]
_FLAGS: dict[str, Mode] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
}
_KNOWN = ("Transformer", "Pooling", "Normalize")
_PAD_OFFSET = ("roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to encode with a model.

    Attributes:
        folder: The one with the transformer's config and weights.
        mode: How token vectors are pooled.
        max_tokens: Longest input, special tokens included.
    """

    folder: Path
    mode: Mode
    max_tokens: int


def read_recipe(folder: Path) -> Recipe:
    """Reads ``modules.json``, the pooling config and the window; a plain folder is pooled by the mean.

    Raises:
        ModelError: A file cannot be read, or asks for what is not supported.
    """
    inner, mode = folder, "mean"
    if (folder / "modules.json").is_file():
        modules = _json(folder / "modules.json")
        kinds = [str(m.get("type", "")).rpartition(".")[2] for m in modules]
        unknown = [kind for kind in kinds if kind not in _KNOWN]
        if unknown or kinds[:1] != ["Transformer"]:
            raise ModelError(
                f"{folder} needs the sentence-transformers modules {', '.join(unknown or kinds)}",
                hint="Supported are models made of Transformer, Pooling and Normalize.",
            )
        for kind, module in zip(kinds, modules, strict=True):
            part = _inside(folder, str(module.get("path", "")))
            if kind == "Transformer":
                inner = part
            elif kind == "Pooling":
                mode = _mode(part / "config.json")
    return Recipe(inner, mode, token_limit(folder, inner))  # type: ignore[arg-type]


def _mode(path: Path) -> Mode:
    config = _json(path)
    asked = [flag for flag, on in config.items() if flag.startswith("pooling_mode_") and on is True]
    if isinstance(config.get("pooling_mode"), str):
        asked = [config["pooling_mode"]]
    names: dict[str, Mode] = {**_FLAGS, "mean": "mean", "cls": "cls", "lasttoken": "lasttoken"}
    if len(asked) != 1 or asked[0] not in names:
        raise ModelError(
            f"{path} asks for the pooling {' + '.join(asked) or 'none'}", hint="Supported: mean, cls, lasttoken."
        )
    return names[asked[0]]


def token_limit(folder: Path, inner: Path) -> int:
    """What sentence-transformers was told, else what the tokenizer says, never more than there are positions."""
    config = _json(inner / "config.json")
    positions = config.get("max_position_embeddings")
    limits = [1 << 20]
    if isinstance(positions, int) and positions > 0:
        offset = int(config.get("pad_token_id") or 0) + 1 if config.get("model_type") in _PAD_OFFSET else 0
        limits.append(positions - offset)
    for base in dict.fromkeys((folder, inner)):
        if (base / "sentence_bert_config.json").is_file():
            limits.append(_json(base / "sentence_bert_config.json").get("max_seq_length") or limits[0])
    if len(limits) < 3 and (inner / "tokenizer_config.json").is_file():
        limits.append(_json(inner / "tokenizer_config.json").get("model_max_length") or limits[0])
    return max(int(min(limits)), 3)


def _inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ModelError(f"{folder / 'modules.json'} points outside its folder: {name!r}", hint="Use another model.")
    return folder / name if name else folder


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint="Get the model's files again.") from error
