"""Retrieval embeddings -> rows of a generator's input embeddings, through a small perceptron: xRAG's bridge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragzip.errors import ModelError
from ragzip.models.encoder import Encoder, load_encoder
from ragzip.models.locate import canonical, resolve
from ragzip.models.runtime import check_options, choose_device, choose_dtype, kept
from ragzip.models.soft_folder import deciding_state, open_soft, option
from ragzip.models.token_windows import windows

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    Floats = npt.NDArray[np.float32]

ARCHITECTURE = "xrag"
LAYERS = ("bridge.0", "bridge.2")


@dataclass(frozen=True, eq=False)
class Bridge:
    """A loaded bridge with the encoder whose vectors it reads.

    Attributes:
        name: As it was asked for.
        space: Whose input embeddings the rows are.
        dimensions: Width of a row.
        encoder: The retrieval encoder.
        piece: Most tokens of the encoder for one row.
        folder: Its files.
    """

    name: str
    space: str
    dimensions: int
    encoder: Encoder
    piece: int
    folder: Path
    _layers: tuple[Any, Any, Any, Any] = field(repr=False)

    def project(self, vectors: Floats) -> Tensor:
        """Rows of retrieval embeddings, one each: ``[n, encoder dimensions]`` -> ``[n, dimensions]``, float32."""
        import torch

        with torch.inference_mode():
            return perceptron(torch.as_tensor(vectors), *self._layers)

    def pieces(self, text: str) -> list[str]:
        """A text, cut at ends of sentences into as few parts as the encoder can read; none where it has no token."""
        return pieces(self.encoder, text, self.piece)

    def rows(self, pieces: Sequence[str]) -> Tensor:
        """``[n, dimensions]``, a row for each piece; none hangs on another one, but for rounding."""
        return self.project(self.encoder.encode(pieces)).clone()


def pieces(encoder: Encoder, text: str, most: int) -> list[str]:
    """A text, cut at ends of sentences into as few parts of at most so many tokens; none where it has no token."""
    ((_, offsets),) = encoder.tokens([text])
    found = windows(text, offsets, most)
    if len(found) < 2:
        return [text] if found else []
    return [text[int(offsets[start, 0]) : int(offsets[end - 1, 1])] for start, end in found]


def perceptron(vectors: Tensor, first: Tensor, first_bias: Tensor, second: Tensor, second_bias: Tensor) -> Tensor:
    """Linear, GELU, linear, as in xRAG: ``[n, e]`` -> ``[n, d]``; the weights are ``[h, e]`` and ``[d, h]``."""
    from torch.nn.functional import gelu, linear

    return linear(gelu(linear(vectors, first, first_bias)), second, second_bias)


def load_bridge(name: str, *, dtype: str = "auto", device: str = "auto") -> Bridge:
    """A bridge, loaded once for each process, dtype and device. The bridge itself computes in fp32.

    Args:
        name: A name of shipped weights, a folder, or a hub id.
        dtype: Of the encoder: "auto", "fp32", "bf16" or "fp16".
        device: Of the encoder: "auto", "cpu", "cuda", "cuda:N", "mps" or "xpu".

    Raises:
        ModelError: It is not here, damaged, or was trained with another generator or encoder.
        ConfigError: A dtype or device that does not exist.
    """
    check_options(dtype, device)
    folder = resolve(name)
    device = choose_device(device)
    files = deciding_state(folder)

    def load() -> Bridge:
        found = open_soft(name, ARCHITECTURE)
        encoder = load_encoder(str(found.config.get("encoder", "")), dtype=dtype, device=device)
        hidden = found.tensors.get(f"{LAYERS[0]}.bias")
        if hidden is None or hidden.dim() != 1:
            raise ModelError(f"the weights in {folder} lack {LAYERS[0]}.bias", hint="Train the bridge again.")
        width = len(hidden)
        layers = (
            found.take(f"{LAYERS[0]}.weight", width, encoder.dimensions),
            found.take(f"{LAYERS[0]}.bias", width),
            found.take(f"{LAYERS[1]}.weight", found.dimensions, width),
            found.take(f"{LAYERS[1]}.bias", found.dimensions),
        )
        return Bridge(
            name=name,
            space=found.space,
            dimensions=found.dimensions,
            encoder=encoder,
            piece=min(option(found.config, "piece", int, folder, least=1), encoder.room),
            folder=folder,
            _layers=layers,
        )

    key = ("bridge", canonical(name), *files, str(choose_dtype(dtype, device)), device)
    bridge: Bridge = kept(key, load)
    return bridge
