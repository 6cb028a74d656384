"""Scissorhands: what was pivotal lately stays pivotal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ragzip.errors import ConfigError
from ragzip.kv._eviction import Eviction

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.kv._seen import Seen


@dataclass(frozen=True)
class Scissorhands(Eviction):
    """Keeps the positions that were more than averagely important most often in a recent stretch of queries.

    After Scissorhands (https://arxiv.org/abs/2305.17118): each of the last ``history`` queries votes for the keys that
    it gives more than an even share of its attention; what had most votes stays. Votes are counted where ``h2o`` adds
    up attention, so that a single query's peak weighs no more than one.

    Attributes:
        keep: Share of the positions that stay, above 0 and at most 1; None is a half where there is no budget.
        budget: Most positions that stay, or None. Both hold where both are given.
        sinks: The first so many positions always stay; none in the paper.
        window: The last so many positions always stay.
        history: Queries that vote, the last ones.
    """

    sinks: int = 0
    history: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.history, bool) or not isinstance(self.history, int) or self.history < 1:
            raise ConfigError("history", f"must be a whole number from 1, not {self.history!r}")

    def scores(self, seen: Seen) -> Tensor:
        """Votes; among equals, what has more attention."""
        import torch

        first = max(seen.length - self.history, 0)
        weights = seen.weights(first)
        shares = 1.0 / torch.arange(first + 1, seen.length + 1, device=weights.device)
        votes = (weights > shares[None, :, None]).float().sum(1)
        return seen.per_key_head(votes + 0.5 * weights.mean(1))
