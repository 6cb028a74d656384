"""Training of ``provence``: one cross-encoder that marks what helps in a passage and judges the passage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragzip.errors import UsageError
from ragzip.models import EMBEDDER, load_encoder
from ragzip.models.tuned import save_tuned
from ragzip.training.baselines import of_groups
from ragzip.training.encoders import check_trainer, hold_out, longest, named, new_head, numbers, trainable
from ragzip.training.examples import EXTRA, LABELLED, RANKED, Example, fingerprint, read_examples
from ragzip.training.loop import LoopSettings, train
from ragzip.training.negatives import mine
from ragzip.training.options import OnEvent, TrainingEvent, TrainingReport, trainer_config
from ragzip.training.pairs import IGNORED, Group, Pair, by_length, drawn, make_groups, plan, stack

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = (512, 12)  # pairs that share a forward pass, on a GPU and on a processor
_DEFAULT_MOST = (
    "squad=7000",
    "fever_rationale=4500",
    "squad_sentences=8000",
    "medquad=2000",
    "fairytaleqa=1200",
    "qmsum=400",
    "policyqa=2500",
)


@dataclass(frozen=True)
class ProvenceTraining:
    """Token labels and passage relevance together, after Provence (https://arxiv.org/abs/2501.16214).

    The labels come from people, not from a language model: sentences that annotators marked, sentences that hold
    the answer they gave. The loss is the cross-entropy of every passage token's label, plus that of the passage's
    relevance by itself and against the other passages of its question. Word and position embeddings stay as they
    are.

    Attributes:
        base: The encoder to start from.
        sets: Training sets, as ``ragzip.training.examples`` names them.
        most: ``set=number``: at most so many questions of a set.
        repeat: ``set=number``: so often the groups of a set, each time with other negatives.
        negatives: Passages that do not help, beside each one that does.
        max_tokens: Longest pair in training.
        window: Longest pair at run time.
        batch: Groups in a step.
        steps: Optimiser steps.
        lr: Highest learning rate.
        eval_every: Steps between evaluations.
        patience: Evaluations without a better one before training stops; 0 never.
        held_out: Examples kept out of training; what helps one of them is in no other.
        rank_weight: Weight of the passage's part in the loss.
        seed: For every draw.
        dtype: Number format of the forward and backward passes.
        device: Where to train.
    """

    base: str = EMBEDDER
    sets: tuple[str, ...] = (*LABELLED, *RANKED, *EXTRA)
    most: tuple[str, ...] = _DEFAULT_MOST
    repeat: tuple[str, ...] = ("hotpotqa=3", "2wikimultihopqa=3", "musique=3", "scifact=2")
    negatives: int = 2
    max_tokens: int = 320
    window: int = 384
    batch: int = 12
    steps: int = 3000
    lr: float = 1e-4
    eval_every: int = 500
    patience: int = 0
    held_out: int = 600
    rank_weight: float = 0.5
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        check_trainer(self)

    def run(
        self, out: Path, *, data: Path | None = None, resume: bool = True, on_event: OnEvent | None = None
    ) -> TrainingReport:
        """Trains, and leaves ``config.json``, ``model.safetensors`` and a model card in ``out``."""
        from ragzip.training.provence_card import write

        examples = self.examples(data, on_event)
        kept, held = self.groups(*examples)
        model = Joint.start(self)
        order = plan([sum(len(pair.ids) for pair in group) for group in kept], self.batch, self.steps, self.seed)
        settings = LoopSettings(
            steps=len(order), lr=self.lr, eval_every=self.eval_every, patience=self.patience, checkpoint_every=250
        )
        untrained = evaluate(model, held)
        if on_event:
            on_event(TrainingEvent("eval", 0, len(order), None, untrained, "before training"))
        result = train(
            named(model.backbone, keep=model.keep, rank=model.rank),
            lambda step: model.loss([kept[i] for i in order[step]], self.rank_weight),
            lambda: evaluate(model, held),
            settings,
            out,
            config={**trainer_config(self), "data": fingerprint(examples[0])},
            best="score",
            save=partial(self._save, out),
            resume=resume,
            on_event=on_event,
        )
        others = of_groups(drawn(examples[1], negatives=self.negatives, seed=self.seed), self.base, self.seed)
        write(out, self, result, untrained, len(kept), len(held), examples=examples[0], baselines=others)
        return TrainingReport(out, result.steps, result.seconds, result.metrics, result.stopped)

    def examples(self, data: Path | None, on_event: OnEvent | None = None) -> tuple[list[Example], list[Example]]:
        """Examples to train on, and examples that are held out, with their hard negatives.

        Raises:
            UsageError: The data are not there, or too few to hold some out.
        """

        def tell(done: int, total: int) -> None:
            if on_event:
                message = f"passages read {done:,} of {total:,}"
                on_event(TrainingEvent("data", 0, self.steps, None, {}, message))

        found = read_examples(self.sets, data=data, seed=self.seed, most=numbers("most", self.most))
        encoder = load_encoder(self.base)
        found = mine(found, encoder, wanted=2 * self.negatives, seed=self.seed, on_progress=tell)
        held, kept = hold_out(found, self.held_out, self.seed)
        if not kept:
            raise UsageError(
                f"all {len(found):,} examples are held out, and none is left to train on",
                hint="Give more sets, or a smaller held_out.",
            )
        return kept, held

    def groups(self, kept: Sequence[Example], held: Sequence[Example]) -> tuple[list[Group], list[Group]]:
        """Groups to train on, those of sets that are repeated with other negatives each time, and held-out ones."""
        from ragzip.models import load_tokenizer

        make = partial(
            make_groups,
            tokenizer=load_tokenizer(self.base),
            negatives=self.negatives,
            max_tokens=longest(self.base, self.max_tokens),
        )
        repeats = numbers("repeat", self.repeat)
        groups = make(kept, seed=self.seed)
        for again in range(1, max(repeats.values(), default=1)):
            some = [example for example in kept if repeats.get(example.set_name, 1) > again]
            groups += make(some, seed=self.seed + 1000 * again)
        return groups, make(held, seed=self.seed)

    def _save(self, out: Path, tensors: Mapping[str, Tensor]) -> None:
        save_tuned(
            out, architecture="provence", base=self.base, max_tokens=longest(self.base, self.window), tensors=tensors
        )


class Joint:
    """The encoder with its two heads while it is trained."""

    def __init__(self, backbone: Any, keep: Any, rank: Any, device: str) -> None:
        self.backbone, self.keep, self.rank, self.device = backbone, keep, rank, device

    @classmethod
    def start(cls, settings: ProvenceTraining) -> Joint:
        """The base with fresh heads."""
        backbone, device = trainable(settings.base, dtype=settings.dtype, device=settings.device)
        width, like = backbone.config.hidden_size, backbone.dtype
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
            among.append(
                functional.cross_entropy(rank[start : start + len(group)], rank.new_zeros((), dtype=torch.long))
            )
            start += len(group)
        return marked + rank_weight * (by_itself + torch.stack(among).mean())


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
