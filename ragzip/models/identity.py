"""A model's fingerprint: equal exactly when the files that decide its output are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ragzip.errors import ModelError
from ragzip.models import layers
from ragzip.models.cache import digest_memory
from ragzip.models.digests import digest
from ragzip.models.locate import resolve
from ragzip.models.lora import base_folder
from ragzip.models.weights import ADAPTER_CONFIG, is_adapter, weight_files

_DECIDING = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "chat_template.jinja",
)
_NOISE = (
    "transformers_version",
    "_name_or_path",
    "_model_name_or_path",
    "torch_dtype",
    "dtype",
    # of an adapter's config: where its base was, which counts by what is in it, and how it was trained
    "base_model_name_or_path",
    "ragzip_base",
    "ragzip_base_sha256",
    "revision",
    "peft_version",
    "inference_mode",
    "lora_dropout",
)


def fingerprint(name: str) -> str:
    """SHA-256, in hex, over a model's config, tokenizer, pooling and weights.

    The same for the same files wherever they lie. The weights are read once; later calls compare sizes and times.

    Raises:
        ModelError: The model is not here or damaged.
    """
    whole, depth = layers.split(name)
    return layers.fingerprint_of(folder_fingerprint(resolve(whole)), depth)


def folder_fingerprint(folder: Path) -> str:
    """``fingerprint`` of a model folder; that of an adapter includes its base's."""
    adapter = is_adapter(folder)
    lines = [f"config {_config(folder / (ADAPTER_CONFIG if adapter else 'config.json'))}"]
    if adapter:
        lines.append(f"base {folder_fingerprint(base_folder(folder))}")
    try:
        for file in _files(folder):
            lines.append(f"{file.relative_to(folder).as_posix()} {digest(file, digest_memory())}")
    except OSError as error:
        raise ModelError(f"{folder} cannot be read: {error}", hint="Get the model's files again.") from error
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def model_files(folder: Path) -> list[Path]:
    """The files that decide a model folder's fingerprint, with those of an adapter's base.

    Raises:
        ModelError: There are no weights.
    """
    adapter = is_adapter(folder)
    own = [folder / (ADAPTER_CONFIG if adapter else "config.json"), *_files(folder)]
    return [*own, *model_files(base_folder(folder))] if adapter else own


def _files(folder: Path) -> list[Path]:
    return [*(folder / n for n in _DECIDING if (folder / n).is_file()), *weight_files(folder)]


def _config(path: Path) -> str:
    """Checksum of the config without what differs between versions of the library that wrote it."""
    try:
        config = json.loads(path.read_text("utf-8"))
        kept = {key: value for key, value in config.items() if key not in _NOISE}
    except (RecursionError, OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint="Get the model's files again.") from error
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
