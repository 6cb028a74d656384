"""SentenceKV: sentences are kept or dropped as wholes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ragzip.kv._eviction import Eviction

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.kv._seen import Seen


@dataclass(frozen=True)
class SentenceKV(Eviction):
    """Keeps whole sentences of the prompt: those whose mean key is closest to what the end of the prompt asks for.

    After SentenceKV (https://arxiv.org/abs/2504.00970): each sentence has one key, the mean of its tokens'; the last
    queries are compared with these. Sentences come back whole, the best first, until the positions that may stay are
    used up, where the last one that comes in is cut at its end. A row of soft compression is a sentence by itself.

    Attributes:
        keep: Share of the positions that stay, above 0 and at most 1; None is a half where there is no budget.
        budget: Most positions that stay, or None. Both hold where both are given.
        sinks: The first so many positions always stay.
        window: The last so many positions, which are asked and always stay.
    """

    least_window: ClassVar[int] = 1

    def scores(self, seen: Seen) -> Tensor:
        """A score a sentence; within one, the earlier tokens first, and no sentence is as good as another."""
        import torch

        first = max(seen.length - self.window, 0)
        numbers = torch.unique_consecutive(seen.sentences(), return_inverse=True)[1]
        count = int(numbers.max()) + 1
        sizes = torch.bincount(numbers, minlength=count).float()
        sums = torch.zeros(seen.keys.shape[0], count, seen.keys.shape[2], device=numbers.device)
        means = sums.index_add(1, numbers, seen.keys.float()) / sizes[None, :, None]
        asked = seen.queries[:, first:].float().mean(1)
        products = torch.einsum("hd,hsd->hs", asked, means.repeat_interleave(seen.groups, 0))
        best = seen.per_key_head(products)
        ranks = best.sort(dim=1, descending=True, stable=True).indices.argsort(dim=1)
        places = torch.arange(seen.length, device=numbers.device)
        return -(ranks[:, numbers].double() * seen.length + places).float()
