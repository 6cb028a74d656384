"""H2O: heavy hitters, which gather most attention over the whole prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ragzip.kv._eviction import Eviction

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.kv._seen import Seen


@dataclass(frozen=True)
class H2O(Eviction):
    """Keeps the positions that all queries of the prompt together attend to most, and the last ones.

    After H2O (https://arxiv.org/abs/2306.14048): attention added up over queries. Positions that came late were seen by
    few, so the last ones stay by themselves, as in the paper. ``scissorhands`` counts how often, not how much. The
    matrix of weights is computed once more, some rows at a time.

    Attributes:
        keep: Share of the positions that stay, above 0 and at most 1; None is a half where there is no budget.
        budget: Most positions that stay, or None. Both hold where both are given.
        sinks: The first so many positions always stay; none in the paper.
        window: The last so many positions always stay.
    """

    sinks: int = 0

    def scores(self, seen: Seen) -> Tensor:
        """Attention added up over all queries."""
        import torch

        total = torch.zeros(seen.queries.shape[0], seen.length, device=seen.keys.device)
        seen.over_queries(lambda weights, first: total.add_(weights.sum(1)))
        return seen.per_key_head(total)
