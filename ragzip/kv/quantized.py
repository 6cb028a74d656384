"""Caches of fewer bits: keys by channel, values by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ragzip.errors import ConfigError
from ragzip.protocols import KVCompression

if TYPE_CHECKING:
    from torch import Tensor

_GROUP = 64


@dataclass(frozen=True)
class QuantizedKV(KVCompression):
    """Stores the cache of the prompt in 8 or 4 bits a number, in groups with a scale and a least value each.

    After KIVI (https://arxiv.org/abs/2402.02750): keys differ by channel, so that a group is a stretch of positions of
    one channel; values differ by token, so that a group is a stretch of channels of one position. What is generated
    stays in full precision, as there is little of it. The bytes are really saved; at every step the cache is unpacked
    a layer at a time, which costs time. Positions stay, so it goes well behind any eviction.

    Attributes:
        bits: 8 or 4.
    """

    bits: Literal[8, 4] = 8

    def __post_init__(self) -> None:
        if self.bits not in (8, 4):
            raise ConfigError("bits", f"must be 8 or 4, not {self.bits!r}")


@dataclass(eq=False)
class Packed:
    """A tensor in fewer bits.

    Attributes:
        codes: ``[rows, groups, size]``, uint8; with 4 bits two numbers share one, and ``size`` is half a group's.
        scale: ``[rows, groups, 1]``, half precision.
        least: ``[rows, groups, 1]``, half precision.
        shape: Of the tensor, with the grouped dimension last.
        bits: 8 or 4.
    """

    codes: Tensor
    scale: Tensor
    least: Tensor
    shape: tuple[int, ...]
    bits: int

    @property
    def bytes(self) -> int:
        """That it takes."""
        return sum(t.numel() * t.element_size() for t in (self.codes, self.scale, self.least))


def pack(values: Tensor, bits: int) -> Packed:
    """Quantises along the last dimension, in groups of 64 or of a size that fits better: 80 numbers are two of 40."""
    import torch

    *_, last = values.shape
    flat = values.reshape(-1, last).float()
    size = -(-last // -(-last // _GROUP))
    size += size % 2  # two numbers of four bits share a byte
    short = -last % size
    padded = torch.cat([flat, flat[:, -1:].expand(-1, short)], dim=1) if short else flat
    groups = padded.view(len(flat), -1, size)
    least, most = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    least = least.half()
    scale = ((most - least.float()) / (2**bits - 1)).clamp_min(1e-7).half().clamp_min(6e-8)
    codes = ((groups - least.float()) / scale.float()).round().clamp(0, 2**bits - 1).to(torch.uint8)
    if bits == 4:
        codes = codes[..., ::2] | (codes[..., 1::2] << 4)
    return Packed(codes, scale, least, tuple(values.shape), bits)


def unpack(packed: Packed, dtype: Any) -> Tensor:
    """The tensor again, as near as its bits allow."""
    import torch

    codes = packed.codes
    if packed.bits == 4:
        codes = torch.stack([codes & 15, codes >> 4], dim=-1).flatten(-2)
    values = codes.float() * packed.scale.float() + packed.least.float()
    return values.flatten(1)[:, : packed.shape[-1]].reshape(packed.shape).to(dtype)


def packed_layer(bits: int) -> Any:
    """A layer of a ``transformers`` cache whose prompt is stored in so many bits once ``seal`` was called."""
    from transformers.cache_utils import DynamicLayer

    class PackedLayer(DynamicLayer):  # type: ignore[misc]
        """The prompt packed, what came after it as it is."""

        sealed: tuple[Packed, Packed] | None = None
        keys: Any
        values: Any

        def seal(self) -> None:
            """Packs what is here; from now on it is unpacked when it is needed, and then forgotten."""
            self._dtype = self.keys.dtype
            self.sealed = pack(self.keys.transpose(-1, -2), bits), pack(self.values, bits)
            self.keys, self.values = self.keys[..., :0, :].clone(), self.values[..., :0, :].clone()

        def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
            import torch

            keys, values = super().update(key_states, value_states, *args, **kwargs)
            if self.sealed is None:
                return keys, values
            old_keys = unpack(self.sealed[0], self._dtype).transpose(-1, -2)
            old_values = unpack(self.sealed[1], self._dtype)
            return torch.cat([old_keys, keys], dim=-2), torch.cat([old_values, values], dim=-2)

        def get_seq_length(self) -> int:
            """Positions, those that are packed included."""
            own = int(super().get_seq_length())
            return own + (self.sealed[1].shape[-2] if self.sealed is not None else 0)

    return PackedLayer()
