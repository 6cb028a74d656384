"""SnapKV: what the end of the prompt looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ragzip.errors import ConfigError
from ragzip.kv._eviction import Eviction

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.kv._seen import Seen


@dataclass(frozen=True)
class SnapKV(Eviction):
    """Keeps what the last positions of the prompt, where the question stands, attend to; with its neighbours.

    After SnapKV (https://arxiv.org/abs/2404.14469): attention of the last ``window`` queries, mean over these, smoothed
    over ``kernel`` neighbouring keys, mean over the query heads that share a key head. Beside ``h2o``, which asks all
    queries, it costs a window's worth of attention.

    Attributes:
        keep: Share of the positions that stay, above 0 and at most 1; None is a half where there is no budget.
        budget: Most positions that stay, or None. Both hold where both are given.
        sinks: The first so many positions always stay; none in the paper.
        window: The last so many positions, which are asked and always stay.
        kernel: Neighbouring keys that are averaged, an odd number.
    """

    least_window: ClassVar[int] = 1

    sinks: int = 0
    window: int = 64
    kernel: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.kernel, bool) or not isinstance(self.kernel, int) or self.kernel < 1 or not self.kernel % 2:
            raise ConfigError("kernel", f"must be an odd number from 1, not {self.kernel!r}")

    def scores(self, seen: Seen) -> Tensor:
        """Smoothed attention of the window."""
        import torch

        first = max(seen.length - self.window, 0)
        asked = seen.weights(first).mean(1)[:, :first]
        if first:
            pooled = torch.nn.functional.avg_pool1d(asked[None], self.kernel, stride=1, padding=self.kernel // 2)[0]
            asked = pooled
        found = seen.per_key_head(asked)
        return torch.nn.functional.pad(found, (0, seen.length - first))
