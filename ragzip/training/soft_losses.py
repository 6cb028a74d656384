"""Losses against a frozen generator, the bits that must not change, and whose turn an example is."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ragzip.training.soft_prompts import Framed

if TYPE_CHECKING:
    from torch import Tensor

_POSITIONS = {"cpu": 1200}  # of one forward pass: on a processor, batches save little
_POSITIONS_ELSEWHERE = 24_000


def checksum(model: Any) -> str:
    """SHA-256 over the bits of all parameters of a model."""
    import hashlib

    import torch

    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def device_positions(device: str) -> int:
    """Positions of one forward pass on a device."""
    return _POSITIONS.get(device.partition(":")[0], _POSITIONS_ELSEWHERE)


def cycle(items: Sequence[Any], step: int, batch: int, seed: int | str) -> list[Any]:
    """A step's share of the items, in an order of its own for each pass over them."""
    found = []
    for place in range(step * batch, (step + 1) * batch):
        turn, number = divmod(place, len(items))
        order = random.Random(f"{seed} pass {turn}")  # noqa: S311 - no secret
        found.append(items[_permuted(number, len(items), order)])
    return found


def _permuted(number: int, size: int, draw: random.Random) -> int:
    """One place of a permutation that is not written out: a step by a number that has no divisor in common."""
    start, stride = draw.randrange(size), draw.randrange(1, size + 1)
    while math.gcd(stride, size) != 1:
        stride = stride % size + 1
    return (start + number * stride) % size


def nll(logits: Tensor, prompt: Framed) -> Tensor:
    """The loss of a prompt's answer, summed over its tokens, in nats."""
    import torch

    wanted = torch.tensor(prompt.answer, device=logits.device)
    return torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")


def divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    """How far the distribution is from the teacher's, summed over tokens, in nats."""
    from torch.nn.functional import kl_div, log_softmax

    return kl_div(log_softmax(logits, -1), log_softmax(teacher, -1), reduction="sum", log_target=True)


def distance(layers: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Smooth L1 between hidden states, in units of the teacher's standard deviation, the mean over layers."""
    import torch

    parts = []
    for mine, theirs in zip(layers, teacher, strict=True):
        scale = theirs.float().std().clamp_min(1e-6)
        parts.append(torch.nn.functional.smooth_l1_loss(mine.float() / scale, theirs.float() / scale))
    return torch.stack(parts).mean()
