"""StreamingLLM: attention sinks and a window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ragzip.kv._eviction import Eviction

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.kv._seen import Seen


@dataclass(frozen=True)
class StreamingLLM(Eviction):
    """Keeps the first positions, which attention needs to rest on, and the last ones; nothing in between.

    After StreamingLLM (https://arxiv.org/abs/2309.17453). It looks at no number, and is the baseline of the others: in
    a prompt with its question at the end, the passages go, the oldest first.

    Attributes:
        keep: Share of the positions that stay, above 0 and at most 1; None is a half where there is no budget.
        budget: Most positions that stay, or None. Both hold where both are given.
        sinks: The first so many positions always stay.
        window: The last so many positions always stay, and as many more before them as there is room for.
    """

    def scores(self, seen: Seen) -> Tensor:
        """The later, the better."""
        import torch

        return torch.arange(seen.length, device=seen.keys.device).float().expand(seen.keys.shape[0], -1)
