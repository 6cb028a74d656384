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
_PASSAGES = ("document", "passage", "corpus")  # what a prompt of passages is called
_MANY = 1 << 20  # tokens
_PAD_OFFSET = ("roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to encode with a model.

    Attributes:
        folder: The one with the transformer's config and weights.
        mode: How token vectors are pooled.
        max_tokens: Longest input, special tokens included.
        query_prompt: What stands before a question, and before no passage.
    """

    folder: Path
    mode: Mode
    max_tokens: int
    query_prompt: str = ""


def read_recipe(folder: Path) -> Recipe:
    """Reads ``modules.json``, the pooling config and the window; a plain folder is pooled by the mean.

    Raises:
        ModelError: A file cannot be read, or asks for what is not supported.
    """
    prompt = query_prompt(folder)
    inner, mode = folder, "mean"
    for kind, part in read_modules(folder, _KNOWN):
        if kind == "Transformer":
            inner = part
        elif kind == "Pooling":
            mode = _mode(part / "config.json")
    return Recipe(inner, mode, window(folder, inner), prompt)  # type: ignore[arg-type]


def query_prompt(folder: Path) -> str:
    """What a folder of sentence-transformers puts before questions alone: "" where passages have a prompt, too.

    Raises:
        ModelError: All its texts are to be read behind a prompt, which would be left out in silence; or its prompts
            are no texts by name.
    """
    path = folder / "config_sentence_transformers.json"
    settings = read_json(path) if path.is_file() else {}
    prompts = settings.get("prompts") or {} if isinstance(settings, dict) else None
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise ModelError(f"{path} names no prompts by their texts", hint="Get the model's files again.")
    prompt = prompts.get(settings.get("default_prompt_name"))
    if prompt:
        raise ModelError(f"{folder} reads texts behind the prompt {prompt!r:.60}", hint="Use a model without prompts.")
    if any(prompts.get(name) for name in _PASSAGES):
        return ""
    return prompts.get("query") or ""


def read_modules(folder: Path, known: tuple[str, ...]) -> list[tuple[str, Path]]:
    """Kind and folder of each module in ``modules.json``; none for a plain folder.

    Raises:
        ModelError: It cannot be read, names a module that is not known, or does not begin with a Transformer.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return []
    modules = read_json(path)
    try:
        kinds = [str(m.get("type", "")).rpartition(".")[2] for m in modules]
    except AttributeError as error:
        raise ModelError(f"{path} is no list of modules", hint="Get the model's files again.") from error
    unknown = [kind for kind in kinds if kind not in known]
    if unknown or kinds[:1] != ["Transformer"]:
        raise ModelError(
            f"{folder} needs the sentence-transformers modules {', '.join(unknown or kinds)}",
            hint=f"Supported are models made of {', '.join(known[:-1])} and {known[-1]}.",
        )
    return [(kind, _inside(folder, str(m.get("path", "")))) for kind, m in zip(kinds, modules, strict=True)]


def _mode(path: Path) -> Mode:
    config = read_json(path)
    asked = [flag for flag, on in config.items() if flag.startswith("pooling_mode_") and on is True]
    if isinstance(config.get("pooling_mode"), str):
        asked = [config["pooling_mode"]]
    names: dict[str, Mode] = {**_FLAGS, "mean": "mean", "cls": "cls", "lasttoken": "lasttoken"}
    if len(asked) != 1 or asked[0] not in names:
        raise ModelError(
            f"{path} asks for the pooling {' + '.join(asked) or 'none'}", hint="Supported: mean, cls, lasttoken."
        )
    return names[asked[0]]


def window(folder: Path, inner: Path) -> int:
    """What sentence-transformers was told, else what the tokenizer says, never more than there are positions."""
    limits = [positions(inner)]
    for base in dict.fromkeys((folder, inner)):
        if (base / "sentence_bert_config.json").is_file():
            limits.append(read_json(base / "sentence_bert_config.json").get("max_seq_length") or limits[0])
    if len(limits) < 2 and (inner / "tokenizer_config.json").is_file():
        limits.append(read_json(inner / "tokenizer_config.json").get("model_max_length") or limits[0])
    return max(int(min(limits)), 3)


def positions(inner: Path) -> int:
    """Most tokens that a transformer has positions for; many where it does not say."""
    config = read_json(inner / "config.json")
    found = config.get("max_position_embeddings")
    if not isinstance(found, int) or found <= 0:
        return _MANY
    return found - (int(config.get("pad_token_id") or 0) + 1 if config.get("model_type") in _PAD_OFFSET else 0)


def _inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ModelError(f"{folder / 'modules.json'} points outside its folder: {name!r}", hint="Use another model.")
    return folder / name if name else folder


def read_json(path: Path) -> Any:
    """A JSON file of a model; ModelError where it cannot be read."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint="Get the model's files again.") from error
