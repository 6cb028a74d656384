"""Low-rank matrices beside the linear layers of a frozen model, while they are trained (arXiv 2106.09685)."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ragzip.errors import ModelError
from ragzip.models.identity import folder_fingerprint
from ragzip.models.locate import canonical, resolve
from ragzip.models.lora import TARGETS, read_adapter, read_tensors
from ragzip.models.weights import ADAPTER_CONFIG, is_adapter

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.models import CausalLM


_SAME = "Go on with the options that it was trained with; they stand on its card."


@dataclass(frozen=True, eq=False, slots=True)
class Adaptable:
    """A model of ``transformers`` and what it is called."""

    name: str
    model: Any


class LowRank:
    """Matrices of a rank for each target; they count from the start on, unless they are switched off.

    Targets are linear layers, by their names or the last parts of these. Where none are named, they are those of a
    Llama-like model, or, of a model that has not all of these, all layers but the output's: half adapted, models give
    answers that only look fine.

    Attributes:
        targets: As named, or found.
    """

    def __init__(
        self, lm: CausalLM | Adaptable, rank: int, alpha: int, seed: int, targets: Collection[str] = ()
    ) -> None:
        import torch

        self.targets = tuple(targets) or _targets(lm.model)
        generator = torch.Generator().manual_seed(seed)
        self._named: list[tuple[str, Any]] = []
        self._hooks = []
        self._on = True
        for name, module in lm.model.named_modules():
            if not isinstance(module, torch.nn.Linear) or {name, name.rpartition(".")[2]}.isdisjoint(self.targets):
                continue
            down = torch.randn(rank, module.in_features, generator=generator) / math.sqrt(module.in_features)
            a = torch.nn.Parameter(down.to(module.weight))
            b = torch.nn.Parameter(torch.zeros(module.out_features, rank).to(module.weight))
            key = f"base_model.model.{name}"
            self._named += [(f"{key}.lora_A.weight", a), (f"{key}.lora_B.weight", b)]
            self._hooks.append(module.register_forward_hook(partial(self._add, a, b, alpha / rank)))
        if not self._named:
            raise ModelError(
                f"{lm.name} has none of the layers {', '.join(self.targets or TARGETS)}", hint="Use a Llama-like model."
            )

    def named(self) -> list[tuple[str, Any]]:
        """The matrices, as ``peft`` names them."""
        return self._named

    @contextmanager
    def off(self) -> Iterator[None]:
        """Within it the model is the frozen one."""
        before, self._on = self._on, False
        try:
            yield
        finally:
            self._on = before

    def go_on(self, folder: Path) -> None:
        """Takes up an adapter that was trained with the same rank, alpha and targets; see ``check_same``, too.

        Raises:
            ModelError: It has other layers, numbers that are none, or cannot be read.
        """
        import torch

        tensors = read_tensors(folder)
        shapes = {key: tuple(parameter.shape) for key, parameter in self._named}
        if {key: tuple(value.shape) for key, value in tensors.items()} != shapes:
            raise ModelError(f"the adapter in {folder} is one of other layers", hint=_SAME)
        if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
            raise ModelError(f"the adapter in {folder} is not finite", hint="Go on from another one.")
        with torch.no_grad():
            for key, parameter in self._named:
                parameter.copy_(tensors[key])

    def remove(self) -> None:
        """Leaves the model as it was."""
        for hook in self._hooks:
            hook.remove()

    def _add(self, a: Any, b: Any, scale: float, _: Any, given: tuple[Any, ...], out: Any) -> Any:
        from torch.nn.functional import linear

        return out + linear(linear(given[0], a), b) * scale if self._on else out


def _targets(model: Any) -> tuple[str, ...]:
    import torch

    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    linear = [n for n, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module is not head]
    names = {name.rpartition(".")[2] for name in linear}
    return TARGETS if names.issuperset(TARGETS) else tuple(sorted(names))


def check_base(name: str) -> None:
    """Refuses an adapter as the model that another one is to be trained on.

    Raises:
        ModelError: It is one, or is not to be had.
    """
    if is_adapter(resolve(name)):
        raise ModelError(f"{name} is an adapter itself", hint="Train from its base, or from the merged model.")


def check_same(folder: Path, base: str, rank: int, alpha: int) -> None:
    """Refuses an adapter to go on from that was trained with another base, rank or alpha.

    Raises:
        ModelError: It was, or its config cannot be read.
    """
    adapter = read_adapter(folder)
    if adapter.base_sha256 and folder_fingerprint(resolve(base)) != adapter.base_sha256:
        raise ModelError(f"the adapter in {folder} was trained on another model than {base}", hint=_SAME)
    if (adapter.rank, adapter.scale) != (rank, alpha / rank):
        raise ModelError(f"the adapter in {folder} has another rank or alpha than {rank} and {alpha}", hint=_SAME)


def save_adapter(
    out: Path,
    base: str,
    targets: Sequence[str],
    rank: int,
    alpha: int,
    tensors: Mapping[str, Tensor],
    *,
    task: Literal["FEATURE_EXTRACTION", "CAUSAL_LM"] = "FEATURE_EXTRACTION",
    window: int | None = None,
) -> None:
    """Writes an adapter in half precision, as ``load_encoder`` or ``load_causal_lm`` and ``peft`` read it."""
    import torch
    from safetensors.torch import save

    base = canonical(base)  # a folder is to be found from other working folders
    half = {key: value.detach().to("cpu", torch.float16).contiguous() for key, value in tensors.items()}
    config = {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": base,
        "ragzip_base": base,
        "ragzip_base_sha256": folder_fingerprint(resolve(base)),
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": list(targets),
        "bias": "none",
        "use_rslora": False,
        "inference_mode": True,
        **({} if window is None else {"ragzip_window": window}),
    }
    out.mkdir(parents=True, exist_ok=True)
    parts = [out / f"{name}.part" for name in ("adapter_model.safetensors", ADAPTER_CONFIG)]
    parts[0].write_bytes(save(half, metadata={"format": "pt"}))
    parts[1].write_text(json.dumps(config, indent=1) + "\n", "utf-8")
    for part in parts:
        part.replace(part.with_suffix(""))
