"""Expected attention: what queries that are still to come will look at, by their statistics so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ragzip.errors import ConfigError
from ragzip.kv._eviction import Eviction

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.kv._seen import Seen


@dataclass(frozen=True)
class ExpectedAttention(Eviction):
    """Keeps what future queries are expected to attend to, weighed by how large the values are.

    After expected attention (https://arxiv.org/abs/2510.00636): queries before their positions are put in are taken for
    Gaussian; their mean and covariance, rotated to the next positions on average, give the expected weight of every key
    in closed form. It needs no question at the end of the prompt, unlike ``snapkv``.

    Attributes:
        keep: Share of the positions that stay, above 0 and at most 1; None is a half where there is no budget.
        budget: Most positions that stay, or None. Both hold where both are given.
        sinks: The first so many positions always stay, and do not count for the statistics.
        window: The last so many positions always stay; none in the paper.
        future: Positions to come that are averaged over.
        covariance: Whether the spread of the queries counts beside their mean.
        by_values: Whether the length of each value counts.
    """

    rotates: ClassVar[bool] = True

    window: int = 8
    future: int = 512
    covariance: bool = True
    by_values: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.future, bool) or not isinstance(self.future, int) or self.future < 1:
            raise ConfigError("future", f"must be a whole number from 1, not {self.future!r}")

    def scores(self, seen: Seen) -> Tensor:
        """Expected weights times lengths of values."""
        import torch

        queries, cosines, sines = seen.unrotated(seen.queries, self.future)
        some = queries[:, min(self.sinks, seen.length - 1) :].float()
        mean = some.mean(1)
        rotation = _rotation(cosines.float(), sines.float())
        ahead = mean @ rotation.T
        keys = seen.keys.repeat_interleave(seen.groups, dim=0).float()
        logits = torch.einsum("hd,hnd->hn", ahead, keys) * seen.scaling
        if self.covariance:
            centred = some - mean[:, None]
            spread = torch.einsum("hnd,hne->hde", centred, centred) / some.shape[1]
            spread = rotation @ spread @ rotation.T
            logits = logits + torch.einsum("hnd,hde,hne->hn", keys, spread, keys) * seen.scaling**2 / 2
        logits[:, : min(self.sinks, seen.length - 1)] = float("-inf")  # they stay anyway, and would take most of it
        found = seen.per_key_head(logits.softmax(-1))
        return found * seen.values.float().norm(dim=-1) if self.by_values else found


def _rotation(cosines: Tensor, sines: Tensor) -> Tensor:
    """The mean of the rotations by positions to come, as a matrix ``[width, width]``."""
    import torch

    width = cosines.shape[1]
    turn = torch.zeros(width, width, device=cosines.device)
    half = width // 2
    turn[:half, half:] = -torch.eye(half, device=turn.device)
    turn[half:, :half] = torch.eye(half, device=turn.device)
    return torch.diag(cosines.mean(0)) + torch.diag(sines.mean(0)) @ turn
