"""What one attention layer shows of a prompt, and what can be computed from it without the whole matrix of weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_SLAB = 256  # queries whose weights are held at once


@dataclass(frozen=True, eq=False)
class Seen:
    """A layer, after it read a prompt of ``n`` positions.

    Attributes:
        layer: Its number, from 0.
        queries: ``[heads, n, width]``, as they are compared with keys.
        keys: ``[key heads, n, width]``.
        values: ``[key heads, n, width]``.
        scaling: Of the products of queries and keys.
        sentences: Gives ``[n]``: for each position the number of the sentence it belongs to, never falling.
        unrotated: Gives queries as they were before their positions were put in, ``[heads, n, width]``, and for later
            positions the cosines and sines by which they would be, ``[m, width]`` each. Only methods that say
            ``rotates`` may ask.
    """

    layer: int
    queries: Tensor
    keys: Tensor
    values: Tensor
    scaling: float
    sentences: Callable[[], Tensor]
    unrotated: Callable[[Tensor, int], tuple[Tensor, Tensor, Tensor]]

    @property
    def length(self) -> int:
        """Positions of the prompt."""
        return int(self.keys.shape[1])

    @property
    def groups(self) -> int:
        """Query heads that share a key head."""
        return int(self.queries.shape[0] // self.keys.shape[0])

    def per_key_head(self, values: Tensor) -> Tensor:
        """The mean over the query heads that share a key head: ``[heads, n]`` -> ``[key heads, n]``."""
        return values.view(self.keys.shape[0], self.groups, *values.shape[1:]).mean(1)

    def weights(self, first: int) -> Tensor:
        """Attention of the queries from a position on to all keys up to their own: ``[heads, n - first, n]``, fp32."""
        return self._weights(first, self.length)

    def over_queries(self, reduce: Callable[[Tensor, int], Any]) -> None:
        """Shows the whole matrix, some rows at a time: ``[heads, rows, n]`` and the position of the first row."""
        for first in range(0, self.length, _SLAB):
            reduce(self._weights(first, min(first + _SLAB, self.length)), first)

    def _weights(self, first: int, last: int) -> Tensor:
        import torch

        keys = self.keys.repeat_interleave(self.groups, dim=0)
        scores = torch.matmul(self.queries[:, first:last], keys.transpose(1, 2)).float() * self.scaling
        rows = torch.arange(first, last, device=keys.device)
        ahead = torch.arange(self.length, device=keys.device)[None, :] > rows[:, None]
        return scores.masked_fill(ahead, float("-inf")).softmax(-1)
