"""What a config's names stand for: the very weights and the very index, by their hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ragzip.errors import RagzipError
from ragzip.evaluation.rows import Row
from ragzip.indexes.files import checksum
from ragzip.indexes.manifest import read
from ragzip.indexes.soft_store import stores_identity
from ragzip.models import fingerprint, layers, resolve
from ragzip.models.lora import base_folder
from ragzip.protocols import walk

_ASKED = {
    "tokenizer_config.json": ("chat_template", "add_bos_token"),
    "generation_config.json": ("bos_token_id", "eos_token_id"),
}
_KINDS = {"model": "model", "encoder": "model", "tokenizer": "model", "index": "index", "path": "file"}


def identities(rows: Sequence[Row]) -> dict[str, str]:
    """``model NAME``, ``index FOLDER``, ``file PATH`` and ``store of METHOD FOLDER`` -> hash, for every one here.

    ``asked NAME`` is that of a language model's chat template and end tokens, which its fingerprint leaves out.

    A server's model has none, and is not looked for: it may have the name of one that a hub has.
    """
    found: dict[str, str] = {}
    for row in rows:
        for part in _parts(row.to_config()["pipeline"]):
            for option, value in part.items():
                kind = _KINDS.get(option, "")
                served = option == "model" and "base_url" in part
                if kind and value and isinstance(value, str) and not served and f"{kind} {value}" not in found:
                    found[f"{kind} {value}"] = _identity(kind, value)
                    if option == "model":
                        found[f"asked {value}"] = _asked(value)
                if option == "store" and value and isinstance(value, str):
                    method = str(part.get("type", ""))
                    found[f"store of {method} {value}"] = stores_identity(value, method)
        for component in walk(row.pipeline.stack):  # models that no option names
            for name in getattr(component, "reads", list)():
                found.setdefault(f"model {name}", _identity("model", name))
    return {key: value for key, value in sorted(found.items()) if value}


def window_of(rows: Sequence[Row]) -> int | None:
    """The smallest window of the local generators, in prompt tokens, or None where none is known."""
    found: list[int] = []
    for row in rows:
        generator = row.pipeline.generator
        name = None if hasattr(generator, "base_url") else getattr(generator, "model", None)
        try:
            config = (
                json.loads((base_folder(resolve(name)) / "config.json").read_text(encoding="utf-8")) if name else {}
            )
        except (RagzipError, OSError, ValueError):
            continue
        window = config.get("max_position_embeddings")
        if isinstance(window, int) and window > 0:
            found.append(window - int(getattr(generator, "max_new_tokens", 0)))
    return min(found, default=None)


def _identity(kind: str, value: str) -> str:
    try:
        if kind == "file":
            return checksum(Path(value))
        return fingerprint(value) if kind == "model" else f"{read(Path(value)).commit} {_index_hash(value)}"
    except (RagzipError, OSError):
        return ""  # something that fails with its own words when it is used


def _asked(name: str) -> str:
    """A hash of how a language model is asked and where it ends; "" for other models."""
    try:
        folder = base_folder(resolve(layers.split(name)[0]))
        said = [_settings(folder / file, keys) for file, keys in _ASKED.items()]
    except (RagzipError, OSError):
        return ""
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16] if any(said) else ""


def _settings(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        return {}
    return {key: found[key] for key in keys if key in found} if isinstance(found, dict) else {}


def _index_hash(value: str) -> str:
    return hashlib.sha256("".join(entry.sha256 for entry in read(Path(value)).files).encode()).hexdigest()[:16]


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _parts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _parts(inner)
