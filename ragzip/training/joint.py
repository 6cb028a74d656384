"""The cross-encoder of ``provence`` while it is trained: its two heads, its loss, and how well it judges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ragzip.errors import ModelError
from ragzip.models import load_tokenizer
from ragzip.models.pruner import pair_tokens
from ragzip.models.tuned import resume_from
from ragzip.training.encoders import new_head, trainable
from ragzip.training.pairs import IGNORED, Group, Pair, by_length, stack

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.training.provence import ProvenceTraining

_CHUNK = (512, 12)  # pairs that share a forward pass, on a GPU and on a processor


class Joint:
    """The encoder with its two heads while it is trained."""

    def __init__(self, backbone: Any, keep: Any, rank: Any, device: str) -> None:
        self.backbone, self.keep, self.rank, self.device = backbone, keep, rank, device

    @classmethod
    def start(cls, settings: ProvenceTraining) -> Joint:
        """The base with fresh heads, or the weights that training goes on from.

        Raises:
            ModelError: The base cannot tell a question from a passage, or the weights are others.
        """
        backbone, device = trainable(settings.base, dtype=settings.dtype, device=settings.device)
        pair_tokens(settings.base, load_tokenizer(settings.base), backbone.config)
        width, like = backbone.config.hidden_size, backbone.dtype
        if settings.start is not None:
            heads = resume_from(settings.start, backbone)
            if sorted(heads) != ["keep", "rank"] or any(head.out_features != 1 for head in heads.values()):
                raise ModelError(f"{settings.start} has other heads than keep and rank", hint="Train from the base.")
            keep, rank = (heads[name].requires_grad_(True) for name in ("keep", "rank"))
            return cls(backbone, keep, rank, device)
        keep, rank = (new_head(width, seed=settings.seed + n, like=like, device=device) for n in range(2))
        return cls(backbone, keep, rank, device)

    def logits(self, pairs: Sequence[Pair]) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Keep logits ``[n_tokens]`` and labels of each pair, padding included, and relevance logits ``[n_pairs]``."""
        import torch

        keep: dict[int, Tensor] = {}
        labels: dict[int, Tensor] = {}
        rank: dict[int, Tensor] = {}
        for rows in by_length(pairs, _CHUNK[self.device == "cpu"]):
            batch = stack([pairs[i] for i in rows], self.device)
            hidden = self.backbone(
                input_ids=batch["ids"], attention_mask=batch["mask"], token_type_ids=batch["types"]
            ).last_hidden_state
            found, ranks = self.keep(hidden).squeeze(-1).float(), self.rank(hidden[:, 0]).squeeze(-1).float()
            for place, row in enumerate(rows):
                keep[row], labels[row], rank[row] = found[place], batch["labels"][place], ranks[place]
        order = range(len(pairs))
        return [keep[i] for i in order], [labels[i] for i in order], torch.stack([rank[i] for i in order])

    def loss(self, groups: Sequence[Group], rank_weight: float) -> Tensor:
        """Mean loss of some groups."""
        import torch
        from torch.nn import functional

        pairs = [pair for group in groups for pair in group]
        keep, labels, rank = self.logits(pairs)
        each = []
        for logits, wanted in zip(keep, labels, strict=True):
            known = wanted != IGNORED
            if bool(known.any()):
                each.append(functional.binary_cross_entropy_with_logits(logits[known], wanted[known]))
        marked = torch.stack(each).mean() if each else rank.sum() * 0.0
        relevant = torch.tensor([float(pair.relevant) for pair in pairs], device=self.device)
        by_itself = functional.binary_cross_entropy_with_logits(rank, relevant)
        among, start = [], 0
        for group in groups:
            if group[0].relevant:
                first = rank.new_zeros((), dtype=torch.long)
                among.append(functional.cross_entropy(rank[start : start + len(group)], first))
            start += len(group)
        against = torch.stack(among).mean() if among else rank.sum() * 0.0
        return marked + rank_weight * (by_itself + against)


def evaluate(model: Joint, groups: Sequence[Group], size: int = 16) -> dict[str, float]:
    """How well held-out groups are judged.

    Returns:
        ``sentence``: how often the sentence with the highest mean score is one that helps, over passages that hold
        both kinds; ``passage``: how often the passage that helps is first in its group; ``margin``: mean score of
        tokens that help minus that of others; ``score``: mean of the first two.
    """
    import numpy as np
    import torch

    order = sorted(range(len(groups)), key=lambda i: sum(len(pair.ids) for pair in groups[i]))
    hits: list[float] = []
    firsts: list[float] = []
    inside: list[float] = []
    outside: list[float] = []
    for start in range(0, len(order), size):
        some = [groups[i] for i in order[start : start + size]]
        with torch.inference_mode():
            keep, _, rank = model.logits([pair for group in some for pair in group])
        ranks, row = rank.cpu().numpy(), 0
        for group in some:
            if len(group) > 1:
                firsts.append(float(ranks[row] > ranks[row + 1 : row + len(group)].max()))
            for place, pair in enumerate(group):
                part = keep[row + place].sigmoid().cpu().numpy()[: len(pair.ids)]
                known = pair.labels != IGNORED
                inside += part[known & (pair.labels > 0)].tolist()
                outside += part[known & (pair.labels == 0)].tolist()
                numbers_ = pair.sentences[known]
                if pair.relevant and known.any() and 0 < pair.labels[known].mean() < 1 and len(set(numbers_)) > 1:
                    sums = np.bincount(numbers_, weights=part[known])
                    best = int((sums / np.maximum(np.bincount(numbers_), 1)).argmax())
                    hits.append(float(pair.labels[known][numbers_ == best].mean() > 0.5))
            row += len(group)
    sentence, passage = _mean(hits), _mean(firsts)
    return {
        "score": (sentence + passage) / 2,
        "sentence": sentence,
        "passage": passage,
        "margin": _mean(inside) - _mean(outside),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
