"""Rotary embeddings of the usual kind, in halves: taken back, and put in again for other places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ragzip.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.models import CausalLM

_AT = 23  # where a few tokens are read a second time
_known: WeakKeyDictionary[CausalLM, bool] = WeakKeyDictionary()


def check_rotary(lm: CausalLM, what: str) -> None:
    """Refuses a model whose keys do not turn with their places as its rotary embedding says: tried once for each.

    Some turn pairs of neighbours in the place of halves, some do not turn in every layer.

    Args:
        lm: The model; its lock is held, and nothing of it is running.
        what: The method that turns them, for the message.

    Raises:
        ModelError: It is one.
    """
    if lm not in _known:
        _known[lm] = _tried(lm)
    if not _known[lm]:
        raise ModelError(
            f"the rotary embedding of {lm.name!r} is of another kind than {what} can turn", hint="Use it without kv."
        )


def angles(lm: CausalLM, like: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines at places ``[n]``, each ``[n, width]`` in fp32, on the device of ``like``."""
    rotary = lm.model.base_model.rotary_emb
    cosines, sines = (
        part[0].float().to(like.device) for part in rotary(like.to(lm.device), places[None].to(lm.device))
    )
    return cosines, sines


def half_turned(vectors: Tensor) -> Tensor:
    """Vectors ``[..., width]`` turned by a quarter of a circle, in halves."""
    import torch

    middle = vectors.shape[-1] // 2
    return torch.cat([-vectors[..., middle:], vectors[..., :middle]], dim=-1)


def taken_back(vectors: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Vectors ``[..., n, width]`` in fp32 as they were before their places were put in.

    The cosines may carry a scale of their own: it cancels in cos^2 + sin^2.
    """
    scale = (cosines**2 + sines**2).clamp_min(1e-12)
    plain = vectors.float()
    found: Tensor = (plain * cosines - half_turned(plain) * sines) / scale
    return found


def keys_at(lm: CausalLM, ids: list[int], place: int) -> list[Tensor]:
    """The keys of each layer, ``[key heads, n, width]``, of tokens that begin at a place."""
    import torch
    from transformers.cache_utils import DynamicCache

    cache: Any = DynamicCache()
    with torch.inference_mode():
        places = torch.arange(place, place + len(ids), device=lm.device)[None]
        tokens = torch.tensor([ids], device=lm.device)
        lm.model.base_model(input_ids=tokens, position_ids=places, past_key_values=cache, use_cache=True)
    return [layer.keys[0] for layer in cache.layers]


def _tried(lm: CausalLM) -> bool:
    import torch

    ids = [3, 5, 7, 11]
    near = 1e-3 if lm.dtype == "float32" else 0.1
    try:
        for first, second in zip(keys_at(lm, ids, 0), keys_at(lm, ids, _AT), strict=True):
            places = torch.arange(len(ids))
            here, there = (taken_back(k, *angles(lm, k, places + at)) for k, at in ((first, 0), (second, _AT)))
            if not bool((here - there).abs().max() <= near * here.abs().max().clamp_min(1e-6)):
                return False
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False  # whatever else an architecture does with its places
    return True
