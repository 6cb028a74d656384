"""What a model folder holds: whole safetensors files, never pickles. Checked without reading the weights."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from ragzip.errors import ModelError

ADAPTER_CONFIG = "adapter_config.json"
"""What the ``peft`` library writes in place of a config.json."""

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.h5", "*.msgpack")
_MOST_HEADER = 100_000_000
_DAMAGED = "Get the files again; an interrupted download or copy leaves such files."


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter: changes of another model's weights, and not a whole model."""
    whole = (folder / "model.safetensors", folder / "model.safetensors.index.json")
    return (folder / ADAPTER_CONFIG).is_file() and not any(path.is_file() for path in whole)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model or an adapter, each whole.

    Raises:
        ModelError: There are none, one is missing or cut short, or the folder has pickled weights only.
    """
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    adapter = folder / "adapter_model.safetensors"
    if single.is_file():
        files = [single]
    elif is_adapter(folder) and adapter.is_file():
        files = [adapter]
    elif index.is_file():
        files = [folder / name for name in _shards(index)]
    else:
        raise _none(folder)
    for file in files:
        _whole(file)
    return files


def looks_complete(folder: Path) -> bool:
    """Whether a folder has a config and whole weights; the base of an adapter may still be missing."""
    try:
        return ((folder / "config.json").is_file() or is_adapter(folder)) and bool(weight_files(folder))
    except ModelError:
        return False


def _shards(index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (RecursionError, OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{index} cannot be read: {error}", hint=_DAMAGED) from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(
                f"{index} names {name!r}, which is no safetensors file beside it", hint="Use a model that you trust."
            )
    return names


def _none(folder: Path) -> ModelError:
    pickled = sorted(p.name for pattern in _PICKLES for p in folder.glob(pattern))
    if pickled:
        return ModelError(
            f"{folder} has pickled weights only ({', '.join(pickled[:3])}), which can run any code when opened",
            hint="Use a model with model.safetensors, or save this one as safetensors where you trust it.",
        )
    what = "adapter_model.safetensors" if is_adapter(folder) else "model.safetensors"
    return ModelError(f"{folder} has no {what}", hint="Give the folder that holds the model's weights.")


def _whole(path: Path) -> None:
    """A safetensors file says in its header how long it is."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(_MOST_HEADER, size):
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        ends = [int(entry["data_offsets"][1]) for key, entry in header.items() if key != "__metadata__"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, struct.error) as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged: {error}"
        raise ModelError(f"{path} {what}", hint=_DAMAGED) from error
    want = 8 + length + max(ends, default=0)
    if size != want:
        raise ModelError(f"{path} is damaged: {size} bytes, not {want}", hint=_DAMAGED)
