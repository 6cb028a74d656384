"""Trained parts that write rows into a frozen generator's input embeddings: their folder, and whose rows they write.

A folder holds ``config.json``, ``model.safetensors`` in half precision and a model card. The config names the
generator and the checksum of its files, so that parts which were trained for another one are refused before anything
is generated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragzip.errors import ModelError
from ragzip.models import layers
from ragzip.models.identity import fingerprint, model_files
from ragzip.models.locate import canonical, resolve, status
from ragzip.models.runtime import kept, state
from ragzip.models.weights import weight_files

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
SOFT_ARCHITECTURES = ("xrag", "comp_llm", "icae", "refrag")
_HINT = "Give a folder made by `ragzip train`."
_MOST_CONFIG = 1_000_000
_NEEDED: tuple[tuple[str, type], ...] = (
    ("architecture", str),
    ("base", str),
    ("base_sha256", str),
    ("dimensions", int),
    ("tensors", list),
)


@dataclass(frozen=True, eq=False)
class SoftFolder:
    """What a folder of soft compression says and holds.

    Attributes:
        name: As it was asked for.
        folder: Its files.
        config: Its config.json.
        tensors: Its weights, by name, in half precision.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def space(self) -> str:
        """Whose input embeddings the rows are."""
        return canonical(str(self.config["base"]))

    @property
    def dimensions(self) -> int:
        """Width of a row."""
        return int(self.config["dimensions"])

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor in fp32; its shape is checked, and so is that it is finite.

        Raises:
            ModelError: It is missing, of another shape, or holds values that are not finite.
        """
        import torch

        found = self.tensors.get(name)
        if found is None:
            raise ModelError(f"the weights in {self.folder} lack {name}", hint=_HINT)
        if tuple(found.shape) != shape:
            raise ModelError(
                f"{name} in {self.folder} has shape {list(found.shape)}, not {list(shape)}",
                hint="Config, weights and generator do not belong together.",
            )
        if not bool(torch.isfinite(found).all()):
            raise ModelError(
                f"{name} in {self.folder} holds values that are not finite", hint="Train again with a lower lr."
            )
        return found.float()


def read_soft_config(folder: Path, architecture: str = "") -> dict[str, Any]:
    """The config of a folder of soft compression.

    Args:
        folder: Its place.
        architecture: What it must have been trained to be; "" takes any.

    Raises:
        ModelError: It cannot be read, is of another format, or of another architecture.
    """
    path = folder / "config.json"
    try:
        if path.stat().st_size > _MOST_CONFIG:
            raise ValueError("it is too long to be a config")
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint=_HINT) from error
    known = SOFT_ARCHITECTURES
    if not isinstance(config, dict) or config.get("architecture") not in known or "ragzip_format" not in config:
        raise ModelError(f"{folder} holds no weights of soft compression", hint=_HINT)
    if config["ragzip_format"] != FORMAT:
        raise ModelError(f"{path} has format {config['ragzip_format']!r}, not {FORMAT}", hint="Update ragzip.")
    for key, kind in _NEEDED:
        if not isinstance(config.get(key), kind) or isinstance(config[key], bool):
            raise ModelError(f"{path} lacks {key!r}", hint=_HINT)
    if not all(isinstance(name, str) for name in config["tensors"]) or not isinstance(config.get("rates", []), list):
        raise ModelError(f"{path} holds no lists of names and rates", hint=_HINT)
    if architecture and config["architecture"] != architecture:
        raise ModelError(
            f"{folder} was trained to be a {config['architecture']}, not a {architecture}",
            hint=f"Use the compressor {config['architecture']!r}, or train {architecture!r}.",
        )
    return config


def deciding_state(folder: Path, keys: tuple[str, ...] = ("base", "encoder")) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of the files that decide what a folder's weights write: its own, its models' as well.

    Args:
        folder: Of the weights.
        keys: Which of its models.

    Raises:
        ModelError: Some of them are not here.
    """
    own = state(*weight_files(folder), folder / "config.json")

    def read() -> list[Path]:
        config = read_soft_config(folder)
        names = [str(config[key]) for key in keys if config.get(key)]
        return [file for name in names for file in model_files(resolve(layers.split(name)[0]))]

    return (*own, *state(*kept(("soft models", keys, *own), read)))


def space_of(name: str, architecture: str) -> str:
    """Whose input embeddings a folder's rows are, or "" where it is not here; reads its config and fetches nothing."""
    if not status(name):
        return ""
    try:
        return canonical(str(read_soft_config(resolve(name), architecture)["base"]))
    except ModelError:
        return ""


def open_soft(name: str, architecture: str) -> SoftFolder:
    """A folder's config and tensors, with its generator checked.

    Raises:
        ModelError: It is not here, damaged, of another architecture, lacks tensors (which are named), or was trained
            for a generator that has other files than the one that is here under its name.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = resolve(name)
    config = read_soft_config(folder, architecture)
    tensors: dict[str, Tensor] = {}
    for file in weight_files(folder):
        try:
            tensors.update(load_file(str(file)))
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file} cannot be read: {error}", hint="Get the weights again.") from error
    lacking = sorted(set(config["tensors"]) - tensors.keys())
    strange = sorted(tensors.keys() - set(config["tensors"]))
    if lacking or strange:
        what = f"lack {_some(lacking)}" if lacking else f"hold {_some(strange)}, unknown to their config"
        raise ModelError(f"the weights in {folder} {what}", hint="Config and weights do not belong together.")
    for key in ("base", "encoder"):
        if config.get(key):
            check_same(folder, str(config[key]), str(config.get(f"{key}_sha256", "")))
    return SoftFolder(name, folder, config, tensors)


def check_same(folder: Path, name: str, sha256: str) -> None:
    """Whether the model of this name is the one that the weights were trained with.

    Raises:
        ModelError: It has other files; both are named.
    """
    found = fingerprint(name)
    if found != sha256:
        raise ModelError(
            f"{folder} was trained with {name!r} of checksum {sha256[:12]}, but the one here has {found[:12]}",
            hint="Use the model it was trained with, or train for this one.",
        )


def save_soft(
    folder: Path,
    *,
    architecture: str,
    base: str,
    dimensions: int,
    tensors: Mapping[str, Tensor],
    encoder: str = "",
    **extra: Any,
) -> None:
    """Writes a folder that ``open_soft`` reads; half precision, each file whole or not at all.

    Args:
        folder: Made where it is missing.
        architecture: One of ``SOFT_ARCHITECTURES``.
        base: The generator's name.
        dimensions: Width of its input embeddings.
        tensors: By name.
        encoder: The encoder's name, where there is one.
        extra: More plain values for config.json.

    Raises:
        ModelError: A value is not finite in half precision.
    """
    import torch
    from safetensors.torch import save

    base, encoder = canonical(base), canonical(encoder) if encoder else ""  # to be found from other working folders
    folder.mkdir(parents=True, exist_ok=True)
    half = {key: value.detach().to("cpu", torch.float16).contiguous() for key, value in tensors.items()}
    bad = sorted(key for key, value in half.items() if not bool(torch.isfinite(value).all()))
    if bad:
        raise ModelError(f"{_some(bad)} of the trained weights is not finite", hint="Lower the learning rate.")
    config = {
        "ragzip_format": FORMAT,
        "architecture": architecture,
        "base": base,
        "base_sha256": fingerprint(base),
        **({"encoder": encoder, "encoder_sha256": fingerprint(encoder)} if encoder else {}),
        "dimensions": dimensions,
        **extra,
        "tensors": sorted(half),
    }
    parts = [folder / f"{name}.part" for name in ("model.safetensors", "config.json")]
    parts[0].write_bytes(save(half, metadata={"format": "pt"}))
    parts[1].write_text(json.dumps(config, indent=1) + "\n", "utf-8")
    for part in parts:
        part.replace(part.with_suffix(""))


def option(config: Mapping[str, Any], key: str, kind: type, folder: Path, *, least: int | None = None) -> Any:
    """A plain value of a config, of the type it must have, and no smaller than it may be.

    Raises:
        ModelError: It is missing or of another type.
    """
    value = config.get(key)
    if isinstance(value, list) and kind is tuple:
        return tuple(value)
    small = least is not None and isinstance(value, int) and value < least
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool) or small:
        raise ModelError(f"{folder / 'config.json'} says {key}: {value!r}", hint=_HINT)
    return value


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
