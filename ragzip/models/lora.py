"""LoRA adapters in the format of the ``peft`` library, merged into the model that they were trained on.

A folder with ``adapter_config.json`` and ``adapter_model.safetensors`` holds low-rank changes of some weights of a base
model: ``W + s·B·A`` with ``s = alpha / r``, or ``alpha / √r`` where it is rank-stabilised (LoRA: arXiv 2106.09685,
rsLoRA: arXiv 2312.03732). Merged once at loading, they cost nothing while the model runs. What an adapter asks for and
this does not do is refused by its name, never passed over: a model that is half adapted gives answers that look fine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragzip.errors import ModelError
from ragzip.models.loading import open_model
from ragzip.models.locate import resolve
from ragzip.models.weights import ADAPTER_CONFIG, is_adapter, weight_files

if TYPE_CHECKING:
    from torch import Tensor

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of Llama-like models: what ragzip's own adapters change."""

_MOST_CONFIG = 1_000_000
_PREFIX, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
_READ = (
    "peft_type",
    "base_model_name_or_path",
    "ragzip_base",
    "ragzip_base_sha256",
    "ragzip_window",
    "r",
    "lora_alpha",
    "target_modules",
    "use_rslora",
)
# What says nothing about the merged weights: how it was trained, what wrote it, how to quantise the start.
_NO_MATTER = (
    "auto_mapping",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",  # of use_qalora, which is refused
    "revision",
    "runtime_config",
    "task_type",
)
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")  # the others change the base, too
_TOGETHER = "The adapter and its base do not belong together, or a file is not whole; get them again."


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an adapter's config says.

    Attributes:
        base: Name of the model it was trained on: built-in, a folder, or a hub id.
        rank: Width of the low-rank product.
        scale: What the product is multiplied by.
        targets: Last parts of the names of the adapted modules; None for every linear one but the output layer.
        window: Most tokens of a text that it was trained on; None where it does not say.
        base_sha256: Fingerprint of that model, see ``identity``; None where it does not say.
    """

    base: str
    rank: int
    scale: float
    targets: tuple[str, ...] | None
    window: int | None = None
    base_sha256: str | None = None


def read_adapter(folder: Path) -> Adapter:
    """The config of an adapter's folder, checked.

    Its base is ``ragzip_base`` where that key stands beside those of ``peft``, else ``base_model_name_or_path``; its
    window is ``ragzip_window``, and ``ragzip_base_sha256`` tells one base from another of the same shape.

    Raises:
        ModelError: It cannot be read, or asks for what is not done here (DoRA, trained biases, ``modules_to_save``,
            ranks by module, ...), which is named.
    """
    path = folder / ADAPTER_CONFIG
    try:
        if path.stat().st_size > _MOST_CONFIG:
            raise ValueError("it is too long to be a config")
        config = json.loads(path.read_text("utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint="Get the adapter again.") from error
    if config.get("peft_type") != "LORA":
        raise _refused(path, f"is of the kind {config.get('peft_type')!r}; only LORA is supported")
    for key, value in config.items():
        off = value in (None, False, "", 0, [], {}) or key in _READ or key in _NO_MATTER
        if key == "bias":
            off = value == "none"
        if key == "init_lora_weights":
            off = value in _PLAIN_STARTS
        if not off:
            raise _refused(path, f"uses {key}: {str(value)[:80]}, which is not supported")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise _refused(path, f"has r {rank!r} and lora_alpha {alpha!r}")
    base = config.get("ragzip_base") or config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base.strip():
        raise ModelError(f"{path} names no base model", hint='Add "ragzip_base" with its name or folder.')
    scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    window = config.get("ragzip_window")
    if window is not None and (type(window) is not int or window < 1):
        raise _refused(path, f"has ragzip_window {window!r}")
    checksum = config.get("ragzip_base_sha256")
    if checksum is not None and (not isinstance(checksum, str) or not checksum):
        raise _refused(path, f"has ragzip_base_sha256 {str(checksum)[:80]!r}")
    return Adapter(base, rank, scale, _targets(path, config.get("target_modules")), window, checksum)


def check_adapter(folder: Path) -> None:
    """Refuses an adapter whose base is another model here than the one it was trained on, where it says which.

    Raises:
        ModelError: It is; both are named. Or its config or its base cannot be read.
    """
    from ragzip.models.identity import folder_fingerprint  # which reads the bases of adapters

    adapter = read_adapter(folder)
    if adapter.base_sha256 and (found := folder_fingerprint(base_folder(folder))) != adapter.base_sha256:
        raise ModelError(
            f"the adapter {folder} was trained on {adapter.base!r} of checksum {adapter.base_sha256[:12]}; the one here"
            f" has {found[:12]}",
            hint="Use the model it was trained on, or train it again.",
        )


def trained_window(folder: Path) -> int | None:
    """Most tokens of a text that an adapter was trained on; None where it does not say, or the folder has none."""
    return read_adapter(folder).window if is_adapter(folder) else None


def base_folder(folder: Path) -> Path:
    """The folder with the config and whole weights that a model folder stands on: its own, or its base's.

    Raises:
        ModelError: The base of an adapter is not here, or is an adapter itself.
    """
    if not is_adapter(folder):
        return folder
    name = read_adapter(folder).base
    try:
        base = resolve(name)
    except ModelError as error:
        raise ModelError(
            f"the adapter {folder} needs its base: {error.message}",
            hint=f'{error.hint} Or name another place of it as "ragzip_base" in {ADAPTER_CONFIG}.',
        ) from error
    if is_adapter(base):
        raise ModelError(f"the base of the adapter {folder} is an adapter, too: {base}", hint="Merge that one first.")
    return base


def tokenizer_folder(folder: Path) -> Path:
    """Where the tokenizer of a model folder lies: an adapter may bring one, with its config, or use its base's."""
    own = not is_adapter(folder) or all((folder / n).is_file() for n in ("tokenizer.json", "tokenizer_config.json"))
    return folder if own else base_folder(folder)


def deciding_files(folder: Path, settings: Iterable[str]) -> list[Path]:
    """The files by which a loaded model is known: weights and settings, with those of an adapter's base.

    Args:
        folder: A model's or an adapter's.
        settings: Names of files that count where they are there.
    """
    places = dict.fromkeys((folder, base_folder(folder), tokenizer_folder(folder)))
    names = (*settings, ADAPTER_CONFIG)
    weights = [file for place in dict.fromkeys((folder, base_folder(folder))) for file in weight_files(place)]
    return [*weights, *(place / name for place in places for name in names if (place / name).is_file())]


def open_merged(auto_class: str, folder: Path, *, dtype: Any, device: str) -> Any:
    """``open_model`` for a folder that may hold an adapter, which is merged into its base.

    Args:
        auto_class: Which class of ``transformers`` opens the base.
        folder: A model's or an adapter's.
        dtype: A torch dtype.
        device: Where to.

    Raises:
        ModelError: As ``open_model`` and ``merge`` do.
    """
    model = open_model(auto_class, base_folder(folder), dtype=dtype, device=device)
    if is_adapter(folder):
        merge(model, folder)
    return model


def merge(model: Any, folder: Path) -> None:
    """Adds an adapter to the weights of its base, in place: computed in fp32, then rounded to the weights' format.

    Args:
        model: The base, as ``transformers`` opened it.
        folder: The adapter's.

    Raises:
        ModelError: Tensors that are missing, that no module takes, or of the wrong shape, by name; or it is for another
            base. Nothing is changed then.
    """
    check_adapter(folder)
    merge_tensors(model, read_adapter(folder), read_tensors(folder), str(folder))


def merge_tensors(model: Any, adapter: Adapter, tensors: Mapping[str, Tensor], where: str) -> None:
    """``merge`` of tensors that are here already.

    Args:
        model: The base, as ``transformers`` opened it.
        adapter: What its config says.
        tensors: By the names that ``peft`` gives them.
        where: Where they come from, for errors.

    Raises:
        ModelError: As ``merge`` does.
    """
    import torch

    modules = dict(model.named_modules())
    linear = {name: module for name, module in modules.items() if isinstance(module, torch.nn.Linear)}
    expected = _expected(where, adapter, modules, linear, model.get_output_embeddings())
    wanted = {_PREFIX + name + end for name in expected for end in (_A, _B)}
    missing, unexpected = sorted(wanted - tensors.keys()), sorted(tensors.keys() - wanted)
    if missing or unexpected:
        parts = [f"lack {_some(missing)}"] * bool(missing) + [f"hold {_some(unexpected)}"] * bool(unexpected)
        raise ModelError(f"the adapter weights in {where} {' and '.join(parts)}", hint=_TOGETHER)
    with torch.no_grad():
        pairs = {name: (tensors[_PREFIX + name + _A], tensors[_PREFIX + name + _B]) for name in expected}
        for name, (a, b) in pairs.items():
            out, into = linear[name].weight.shape
            if a.shape != (adapter.rank, into) or b.shape != (out, adapter.rank):
                shapes = f"{list(b.shape)} x {list(a.shape)} for {[out, into]} of rank {adapter.rank}"
                raise ModelError(f"the adapter weights in {where} do not fit {name}: {shapes}", hint=_TOGETHER)
            if not bool(torch.isfinite(a).all() and torch.isfinite(b).all()):
                raise ModelError(f"the adapter weights in {where} are not finite: {name}", hint=_TOGETHER)
        for name, (a, b) in pairs.items():
            old = linear[name].weight
            delta = b.to(old.device, torch.float32) @ a.to(old.device, torch.float32)
            new = (old.float() + adapter.scale * delta).to(old.dtype)
            # a parameter of its own: an output layer that shares its weights with the embedding must leave those alone
            linear[name].weight = torch.nn.Parameter(new, requires_grad=False)


def _expected(
    where: str, adapter: Adapter, modules: Iterable[str], linear: dict[str, Any], output: Any
) -> dict[str, None]:
    """Names of the modules that the config wants adapted, in the model's order."""
    if adapter.targets is None:
        return {name: None for name, module in linear.items() if module is not output}
    found: dict[str, None] = {}
    lonely = set(adapter.targets)
    for name in modules:
        hits = [target for target in adapter.targets if name == target or name.endswith(f".{target}")]
        lonely -= set(hits)
        if hits and name not in linear:
            raise ModelError(f"the adapter {where} adapts {name}, which is no linear layer", hint="Not supported.")
        if hits:
            found[name] = None
    if lonely:
        raise ModelError(
            f"the adapter {where} adapts {_some(sorted(lonely))}, which its base does not have", hint=_TOGETHER
        )
    return found


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """The matrices of an adapter's folder, by the names that ``peft`` gives them.

    Raises:
        ModelError: The file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    (file,) = weight_files(folder)
    try:
        return load_file(str(file))
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} cannot be read: {error}", hint="Get the adapter again.") from error


def _targets(path: Path, value: Any) -> tuple[str, ...] | None:
    if value == "all-linear":
        return None
    if not isinstance(value, list) or not value or not all(isinstance(name, str) and name for name in value):
        raise _refused(path, f"has target_modules {str(value)[:80]!r}; a list of names or all-linear is supported")
    return tuple(sorted(set(value)))


def _refused(path: Path, what: str) -> ModelError:
    return ModelError(f"{path} {what}", hint="Merge it with the peft library where you trust it, and use the result.")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
