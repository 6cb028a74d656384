"""A tiny cross-encoder that marks tokens and judges passages: random weights over a tiny encoder, no download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def tiny_pruner(folder: str | Path, base: str | Path, *, window: int = 64, seed: int = 0, **extra: Any) -> Path:
    """Writes weights in ragzip's own format, as ``ragzip train provence`` does.

    Args:
        folder: Where to; made if need be.
        base: The encoder they belong to, the folder of ``tiny_encoder`` say.
        window: Most tokens it reads at once, special tokens included.
        seed: Of its weights.
        extra: More plain values for its config.

    Returns:
        The folder.
    """
    import torch

    from ragzip.models.tuned import save_tuned

    folder = Path(folder)
    width = int(json.loads((Path(base) / "config.json").read_text("utf-8"))["hidden_size"])
    draw = torch.Generator().manual_seed(seed)
    tensors = {"backbone.encoder.layer.0.output.LayerNorm.bias": torch.randn(width, generator=draw)}
    for name in ("keep", "rank"):
        tensors[f"heads.{name}.weight"] = torch.randn(1, width, generator=draw) * 0.3
        tensors[f"heads.{name}.bias"] = torch.randn(1, generator=draw) * 0.3
    save_tuned(folder, architecture="provence", base=str(base), max_tokens=window, tensors=tensors, **extra)
    return folder
