"""Rotary embeddings of the usual kind, in halves: taken back, and put in again for other places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ragzip.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.models import CausalLM

_TOKENS = (3, 5, 7, 11)
_AT = 23  # where they are read a second time
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


def _keys_at(lm: CausalLM, place: int) -> list[Tensor]:
    """The keys of each layer, ``[n, key heads, 1, width]``, of tokens that are read alone at a place.

    What each token is does not hang on the place then, but for the rotation.
    """
    import torch
    from transformers.cache_utils import DynamicCache

    cache: Any = DynamicCache()
    with torch.inference_mode():
        tokens = torch.tensor([[token] for token in _TOKENS], device=lm.device)
        places = torch.full_like(tokens, place)
        lm.model.base_model(input_ids=tokens, position_ids=places, past_key_values=cache, use_cache=True)
    return [layer.keys for layer in cache.layers]


def _tried(lm: CausalLM) -> bool:
    import torch

    near = 1e-3 if lm.dtype == "float32" else 0.05
    try:
        for both in zip(_keys_at(lm, 0), _keys_at(lm, _AT), strict=True):
            read = zip(both, (0, _AT), strict=True)
            here, there = (taken_back(keys, *angles(lm, keys[0], torch.tensor([at]))) for keys, at in read)
            if not bool((here - there).abs().max() <= near * here.abs().max().clamp_min(1e-6)):
                return False
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False  # whatever else an architecture does with its places
    return True
