"""Positions that are kept: the best by a score, and those at both ends that every method needs."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, ClassVar

from ragzip.errors import ConfigError
from ragzip.protocols import KVCompression

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.kv._seen import Seen


@dataclass(frozen=True)
class Eviction(KVCompression):
    """Keeps the positions of a prompt that score best, for each key head of each layer by itself.

    A method that says ``rotates`` takes the positions out of queries, and gets models that allow it only.

    Attributes:
        keep: Share of the positions that stay, above 0 and at most 1; None is a half where there is no budget.
        budget: Most positions that stay, or None. Both hold where both are given.
        sinks: The first so many positions always stay.
        window: The last so many positions always stay; where even these and the sinks are too many, the last ones do.
    """

    least_window: ClassVar[int] = 0
    rotates: ClassVar[bool] = False

    keep: float | None = None
    budget: int | None = None
    sinks: int = 4
    window: int = 32

    def __post_init__(self) -> None:
        share = self.keep if self.keep is not None else 1
        if isinstance(share, bool) or not isinstance(share, Real) or not 0 < share <= 1:
            raise ConfigError("keep", f"must be above 0 and at most 1, not {self.keep!r}")
        for name, value, least in (
            ("budget", self.budget, 1),
            ("sinks", self.sinks, 0),
            ("window", self.window, self.least_window),
        ):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ConfigError(name, f"must be a whole number from {least}, not {value!r}")

    @abstractmethod
    def scores(self, seen: Seen) -> Tensor:
        """``[key heads, n]``: what is greatest stays. Ends that always stay need no score."""

    def count(self, length: int) -> int:
        """How many of so many positions stay."""
        share = self.keep if self.keep is not None else 0.5 if self.budget is None else 1.0
        most = math.floor(share * length + 1e-9)
        return max(min(most, length if self.budget is None else self.budget), 1)

    def kept(self, seen: Seen) -> Tensor | None:
        """``[key heads, count]``: the positions that stay, rising; None where all do."""
        import torch

        length, count = seen.length, self.count(seen.length)
        if count >= length:
            return None
        scores = self.scores(seen).float().clone()
        scores[:, : self.sinks] = float("inf")
        if self.window:
            scores[:, -self.window :] = float("inf")
        ends = min(self.sinks + self.window, length)
        if ends >= count:  # no room for any other: the last ones, behind as many sinks as there is room for
            first = min(self.sinks, max(count - 1, 0))
            places = torch.cat([torch.arange(first), torch.arange(length - (count - first), length)])
            return places.to(seen.keys.device).expand(seen.keys.shape[0], -1)
        # equal scores: the earlier position, whatever the library does with ties
        order = scores.sort(dim=1, descending=True, stable=True).indices[:, :count]
        return order.sort(dim=1).values
