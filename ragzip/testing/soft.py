"""Weights of soft compressors made in a moment, over tiny models: random values in the real format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ragzip.models.lora import TARGETS
from ragzip.models.soft_folder import SOFT_ARCHITECTURES, save_soft

_RANK = 2


def tiny_soft(
    folder: str | Path, architecture: str, *, base: str | Path, encoder: str | Path = "", seed: int = 0
) -> Path:
    """Writes random weights of a soft compressor.

    Args:
        folder: Where to; made if need be.
        architecture: ``xrag``, ``comp_llm``, ``icae`` or ``refrag``.
        base: A Llama-like generator's folder, as ``tiny_causal_lm`` writes it.
        encoder: An encoder's folder, as ``tiny_encoder`` writes it; for ``xrag`` and ``refrag``.
        seed: Of the weights.

    Returns:
        The folder.

    Raises:
        ValueError: No such architecture.
    """
    if architecture not in SOFT_ARCHITECTURES:
        raise ValueError(f"{architecture!r} is none of {', '.join(SOFT_ARCHITECTURES)}")
    import torch

    draw = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Any:
        return torch.randn(*shape, generator=draw) * 0.3

    config = _config(base)
    d = int(config["hidden_size"])
    e = int(_config(encoder)["hidden_size"]) if encoder else 0
    extra: dict[str, Any]
    if architecture == "xrag":
        shapes = {"bridge.0.weight": (d, e), "bridge.0.bias": (d,), "bridge.2.weight": (d, d), "bridge.2.bias": (d,)}
        extra = {"piece": 100}
    elif architecture == "refrag":
        shapes = {"projection.weight": (d, e), "projection.bias": (d,)}
        shapes |= {"policy.0.weight": (8, e + 3), "policy.0.bias": (8,)}
        shapes |= {"policy.2.weight": (1, 8), "policy.2.bias": (1,), "scale": (1,)}
        extra = {"chunk": 4, "residual": "picked"}
    else:
        segments = architecture == "comp_llm"
        slots, layers = (1, 1) if segments else (16, 0)
        shapes = {"appended": (slots, d), "head.weight": (d, d), "head.bias": (d,), "scale": (1,)}
        shapes |= _low_rank(config, layers)
        extra = {"segment": 8 if segments else 32, "rates": [2, 4], "readout": "tokens", "slots": slots}
        extra |= {"residual": "picked" if segments else "none", "by_sentence": segments, "layers": layers}
        extra |= {"rank": _RANK, "alpha": 4, "targets": list(TARGETS)}
    tensors = {name: random(*shape) for name, shape in shapes.items()}
    if extra.get("residual") == "picked":
        words = random(3, int(config["vocab_size"]))
        tensors["words"] = torch.cat([words[:1], (words[1:] > 0.3).float()])
    save_soft(
        Path(folder),
        architecture=architecture,
        base=str(base),
        dimensions=d,
        tensors=tensors,
        encoder=str(encoder) if architecture in ("xrag", "refrag") else "",
        **extra,
    )
    return Path(folder)


def _low_rank(config: dict[str, Any], layers: int) -> dict[str, tuple[int, ...]]:
    """The shapes of an adapter for the first layers, 0 for all, of a Llama whose heads are all key and value heads."""
    d, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(layers or int(config["num_hidden_layers"])):
        for target in TARGETS:
            part = "self_attn" if target[0] in "qkvo" else "mlp"
            into, out = (inner if target == "down_proj" else d), (inner if target in ("gate_proj", "up_proj") else d)
            name = f"base_model.model.model.layers.{layer}.{part}.{target}"
            shapes[f"{name}.lora_A.weight"], shapes[f"{name}.lora_B.weight"] = (_RANK, into), (out, _RANK)
    return shapes


def _config(folder: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(folder) / "config.json").read_text("utf-8"))
    return found
