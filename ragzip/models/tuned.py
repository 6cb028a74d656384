"""Encoders that were trained further by ragzip, with small heads on top: what its own weights are made of.

A folder holds ``config.json``, ``model.safetensors`` and a model card. The file has only what differs from the base
model (``backbone.*``, named as in the base) and the heads (``heads.<name>.weight``, ``heads.<name>.bias``), so that
a trained encoder of 23 million parameters, half of which are word embeddings that did not change, takes 21 MB.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragzip.errors import ModelError
from ragzip.models.identity import fingerprint, model_files
from ragzip.models.loading import open_model
from ragzip.models.locate import canonical, resolve
from ragzip.models.pooling import positions, read_recipe
from ragzip.models.runtime import check_options, choose_device, choose_dtype, kept, state
from ragzip.models.tokenizer import read_tokenizer, tokenizer_file
from ragzip.models.weights import weight_files

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

FORMAT = 1
BACKBONE, HEADS = "backbone.", "heads."
_HINT = "Give a folder made by `ragzip train`, or a published checkpoint of the method."


@dataclass(frozen=True, eq=False)
class Tuned:
    """A loaded encoder with its heads.

    Attributes:
        name: As it was asked for.
        architecture: What it was trained to be: ``provence``, ``token_classifier`` or ``dual_encoder``.
        config: The folder's config.json.
        backbone: The ``transformers`` encoder, in evaluation mode and frozen.
        heads: Linear layers by name, in the backbone's number format.
        tokenizer: Of the base, without padding and truncation.
        max_tokens: Longest input, special tokens included.
        device: Where it runs.
        dtype: The number format it computes in.
        folder: Its files.
    """

    name: str
    architecture: str
    config: Mapping[str, Any] = field(repr=False)
    backbone: Any = field(repr=False)
    heads: Mapping[str, Any] = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    max_tokens: int
    device: str
    dtype: str
    folder: Path


def read_tuned_config(folder: Path) -> dict[str, Any] | None:
    """The config of a folder in ragzip's own format, or None where it is of another format.

    Raises:
        ModelError: It cannot be read, or was written by a later version.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint=_HINT) from error
    if not isinstance(config, dict) or "ragzip_format" not in config:
        return None
    if config["ragzip_format"] != FORMAT:
        raise ModelError(f"{path} has format {config['ragzip_format']!r}, not {FORMAT}", hint="Update ragzip.")
    for key, kind in (("architecture", str), ("base", str), ("max_tokens", int)):
        if not isinstance(config.get(key), kind):
            raise ModelError(f"{path} lacks {key!r}", hint=_HINT)
    return config


def deciding_state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of the files that decide what a folder computes: its own, and those of its base, if any.

    Raises:
        ModelError: Some of them are not here, or cannot be read.
    """
    own = state(*weight_files(folder), folder / "config.json")

    def read() -> list[Path]:
        config = read_tuned_config(folder)
        return [] if config is None else model_files(read_recipe(resolve(config["base"])).folder)

    try:
        return (*own, *state(*kept(("base files", *own), read)))
    except ModelError:  # the base may be somewhere else by now
        return (*own, *state(*read()))


def open_tuned(name: str, *, architecture: str, dtype: str = "auto", device: str = "auto") -> Tuned:
    """A trained encoder, loaded once for each process, dtype and device.

    Args:
        name: A name of shipped weights, a folder, or a hub id.
        architecture: What it must have been trained to be.
        dtype: "auto", "fp32", "bf16" or "fp16".
        device: "auto", "cpu", "cuda", "cuda:N", "mps" or "xpu".

    Raises:
        ModelError: It is not here, damaged, of another architecture, or lacks tensors (which are named).
        ConfigError: A dtype or device that does not exist.
    """
    check_options(dtype, device)
    folder = resolve(name)
    config = read_tuned_config(folder)
    if config is None:
        raise ModelError(f"{folder} is not in ragzip's format of trained encoders", hint=_HINT)
    if config["architecture"] != architecture:
        raise ModelError(f"{folder} was trained to be a {config['architecture']}, not a {architecture}", hint=_HINT)
    device = choose_device(device)
    number = choose_dtype(dtype, device)
    files = deciding_state(folder)

    def load() -> Tuned:
        _check_base(folder, config)
        backbone = open_base(config["base"], number, device)
        heads = _fill(folder, backbone, number, device)
        base = read_recipe(resolve(config["base"])).folder
        return Tuned(
            name=name,
            architecture=architecture,
            config=config,
            backbone=backbone,
            heads=heads,
            tokenizer=read_tokenizer(tokenizer_file(base)),
            max_tokens=min(int(config["max_tokens"]), positions(base)),
            device=device,
            dtype=str(number).removeprefix("torch."),
            folder=folder,
        )

    tuned: Tuned = kept(("tuned", canonical(name), *files, str(number), device), load)
    return tuned


def _check_base(folder: Path, config: Mapping[str, Any]) -> None:
    """Whether the base is the one that the weights are a change of, where their config has its checksum.

    Raises:
        ModelError: It has other files; both are named.
    """
    wanted = config.get("base_sha256")
    if isinstance(wanted, str) and (found := fingerprint(config["base"])) != wanted:
        raise ModelError(
            f"{folder} was trained from {config['base']!r} of checksum {wanted[:12]}; the one here has {found[:12]}",
            hint="Use the model it was trained from, or train it again.",
        )


def resume_from(name: str, backbone: Any) -> dict[str, Any]:
    """Puts trained weights into their base, a module of the caller's own, to be trained further; gives the heads.

    Raises:
        ModelError: They are not here, damaged, or of another base.
    """
    folder = resolve(name)
    _check_base(folder, read_tuned_config(folder) or {})
    return _fill(folder, backbone, backbone.dtype, str(backbone.device))


def open_base(name: str, dtype: Any, device: str) -> Any:
    """The encoder that weights are a change of, as a module of the caller's own."""
    folder = read_recipe(resolve(name)).folder
    return open_model("AutoModel", folder, dtype=dtype, device=device, may_lack="pooler")


def _fill(folder: Path, backbone: Any, dtype: Any, device: str) -> dict[str, Any]:
    """Puts the folder's tensors into the backbone and returns the heads."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for file in weight_files(folder):
        try:
            tensors.update(load_file(str(file)))
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file} cannot be read: {error}", hint=_HINT) from error
    own = backbone.state_dict()
    changed = {key.removeprefix(BACKBONE): value for key, value in tensors.items() if key.startswith(BACKBONE)}
    heads = {key.removeprefix(HEADS): value for key, value in tensors.items() if key.startswith(HEADS)}
    strange = sorted({*tensors} - {BACKBONE + key for key in changed} - {HEADS + key for key in heads})
    strange += [BACKBONE + key for key in sorted(changed) if key not in own or own[key].shape != changed[key].shape]
    declared = read_tuned_config(folder) or {}
    named = declared.get("tensors")
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise ModelError(f"{folder / 'config.json'} names no tensors", hint=_HINT)
    lacking = sorted({*named} - {*tensors})
    if strange or lacking:
        what = f"lack {', '.join(lacking[:3])}" if lacking else f"hold {', '.join(strange[:3])}, unknown to the base"
        raise ModelError(f"the weights in {folder} {what}", hint="Config, weights and base do not belong together.")
    backbone.load_state_dict({**own, **{key: value.to(dtype) for key, value in changed.items()}})
    found: dict[str, Any] = {}
    for key in sorted(heads):
        if not key.endswith(".weight"):
            continue
        head, weight = key.removesuffix(".weight"), heads[key]
        if weight.dim() != 2 or weight.shape[1] != backbone.config.hidden_size:
            raise ModelError(f"head {head!r} in {folder} has shape {tuple(weight.shape)}", hint=_HINT)
        bias = heads.get(f"{head}.bias")
        if bias is not None and bias.shape != weight.shape[:1]:
            raise ModelError(f"the bias of head {head!r} in {folder} has shape {tuple(bias.shape)}", hint=_HINT)
        with torch.device("meta"):  # not drawn at random first: that would move the process's generator
            linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        linear = linear.to_empty(device="cpu")
        linear.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
        found[head] = linear.to(device=device, dtype=dtype).train(False).requires_grad_(False)
    return found


def save_tuned(
    folder: Path, *, architecture: str, base: str, max_tokens: int, tensors: Mapping[str, Tensor], **extra: Any
) -> None:
    """Writes a folder that ``open_tuned`` reads; half precision, whole or not at all.

    Args:
        folder: Made where it is missing.
        architecture: What the model was trained to be.
        base: The name of the base model.
        max_tokens: Longest input, special tokens included.
        tensors: ``backbone.*`` that differ from the base, and ``heads.*``.
        extra: More plain values for config.json.
    """
    import torch
    from safetensors.torch import save

    base = canonical(base)  # a folder is to be found from other working folders
    folder.mkdir(parents=True, exist_ok=True)
    half = {key: value.detach().to("cpu", torch.float16).contiguous() for key, value in tensors.items()}
    if not all(bool(torch.isfinite(value).all()) for value in half.values()):
        raise ModelError("the trained weights hold values that are not finite", hint="Lower the learning rate.")
    config = {
        "ragzip_format": FORMAT,
        "architecture": architecture,
        "base": base,
        "base_sha256": fingerprint(base),
        "max_tokens": max_tokens,
        **extra,
        "tensors": sorted(half),
    }
    parts = [folder / f"{name}.part" for name in ("model.safetensors", "config.json")]
    parts[0].write_bytes(save(half, metadata={"format": "pt"}))  # save_file would let nobody else read it
    parts[1].write_text(json.dumps(config, indent=1) + "\n", "utf-8")
    for part in parts:
        part.replace(part.with_suffix(""))
