"""Training of ``recomp_extractive``: question and sentence to vectors, close where the sentence helps."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ragzip.errors import UsageError
from ragzip.models import EMBEDDER, load_tokenizer
from ragzip.models.tuned import save_tuned
from ragzip.text import sentences
from ragzip.training import examples as sets
from ragzip.training.baselines import of_items
from ragzip.training.encoders import check_trainer, divide, longest, named, numbers, trainable
from ragzip.training.identity import identity
from ragzip.training.loop import LoopSettings, train
from ragzip.training.options import OnEvent, TrainingEvent, TrainingReport
from ragzip.training.pairs import plan

if TYPE_CHECKING:
    from torch import Tensor

_DEFAULT_MOST = ("squad=7000", "fever_rationale=4500", "policyqa=2500", "qmsum=400")
_LEAST = 10  # characters of a sentence that can be wrong


@dataclass(frozen=True, slots=True)
class Item:
    """A question, a sentence that helps and sentences near it that do not, with their passages' titles before them."""

    question: str
    positive: str
    negatives: tuple[str, ...]


@dataclass(frozen=True)
class RecompExtractiveTraining:
    """Contrastive training with the other sentences of the same passages as negatives.

    After RECOMP (https://arxiv.org/abs/2310.04408), with two differences: which sentences help was marked by people,
    not by a language model's answers; and every other sentence of the batch is a negative, too. Vectors have length
    1, and only the last layers are trained.

    Attributes:
        base: The encoder to start from.
        sets: Training sets with marked sentences.
        most: ``set=number``: at most so many questions of a set.
        layers: How many of the last layers to train.
        negatives: Other sentences for a question.
        scale: Cosines are multiplied by this.
        max_tokens: Longest sentence in training, title included.
        batch: Questions in a step.
        steps: Optimiser steps.
        lr: Highest learning rate.
        eval_every: Steps between evaluations.
        patience: Evaluations without a better one before training stops; 0 never.
        held_out: Questions kept out of training, with their passages.
        seed: For every draw.
        dtype: Number format of the forward and backward passes.
        device: Where to train.
    """

    base: str = EMBEDDER
    sets: tuple[str, ...] = (*sets.LABELLED, *sets.EXTRA)
    most: tuple[str, ...] = _DEFAULT_MOST
    layers: int = 3
    negatives: int = 4
    scale: float = 20.0
    max_tokens: int = 96
    batch: int = 48
    steps: int = 800
    lr: float = 1e-4
    eval_every: int = 200
    patience: int = 0
    held_out: int = 600
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        check_trainer(self)

    def run(
        self, out: Path, *, data: Path | None = None, resume: bool = True, on_event: OnEvent | None = None
    ) -> TrainingReport:
        """Trains, and leaves ``config.json``, ``model.safetensors`` and a model card in ``out``."""
        from ragzip.training.cards import write_result

        found = sets.read_examples(self.sets, data=data, seed=self.seed, most=numbers("most", self.most))
        held_examples, kept_examples = divide(found, self.held_out, self.seed)
        kept, held = (items(e, self.negatives, self.seed) for e in (kept_examples, held_examples))
        if not any(item.negatives for item in held):
            raise UsageError(
                f"of {len(held)} held-out sentences that help, none has others beside it",
                hint="Give more sets, of passages with several sentences, or a larger held_out.",
            )
        model = Dual(self)
        order = plan([0] * len(kept), self.batch, self.steps, self.seed)
        settings = LoopSettings.of(self, len(order), checkpoint_every=200)
        untrained = model.evaluate(held)
        if on_event:
            on_event(TrainingEvent("eval", 0, len(order), None, untrained, "before training"))
        result = train(
            named(model.backbone),
            lambda step: model.loss([kept[i] for i in order[step]]),
            lambda: model.evaluate(held),
            settings,
            out,
            config=identity(self, sets.fingerprint(kept_examples), self.base),
            best="sentence",
            save=partial(self._save, out),
            resume=resume,
            on_event=on_event,
        )
        others = of_items(
            [(i.question, i.positive, i.negatives) for i in held],
            self.base,
            self.seed,
            dtype=self.dtype,
            device=self.device,
        )
        judged = sum(bool(item.negatives) for item in held)  # one without others beside it is always first
        write_result(out, self, result, untrained=untrained, baselines=others, examples=kept_examples, held=judged)
        return TrainingReport(out, result.steps, result.seconds, result.metrics, result.stopped)

    def _save(self, out: Path, tensors: Mapping[str, Tensor]) -> None:
        save_tuned(
            out,
            architecture="dual_encoder",
            base=self.base,
            max_tokens=longest(self.base, 256),
            tensors=tensors,
            normalize=True,
            title=True,
        )


def items(examples: Sequence[sets.Example], negatives: int, seed: int) -> list[Item]:
    """One item for every sentence that helps, of passages where it is known which do."""
    draw = random.Random(f"{seed} items")  # noqa: S311 - no secret
    found = []
    for example in examples:
        helping: list[str] = []
        others: list[str] = []
        for marked in (*example.positives, *example.negatives):
            if not marked.known:
                continue
            lead = f"{marked.title}: " if marked.title else ""
            for start, end in sentences(marked.text):
                inside = sum(max(min(end, b) - max(start, a), 0) for a, b in marked.support)
                if 2 * inside > end - start:
                    helping.append(lead + marked.text[start:end])
                elif not inside and end - start >= _LEAST:
                    others.append(lead + marked.text[start:end])
        others = [text for text in others if text not in helping]  # who speaks may say the same twice
        for text in helping[:3]:
            found.append(Item(example.question, text, tuple(draw.sample(others, min(negatives, len(others))))))
    return found


class Dual:
    """The encoder while it is trained."""

    def __init__(self, settings: RecompExtractiveTraining) -> None:
        self.settings = settings
        self.backbone, self.device = trainable(
            settings.base, dtype=settings.dtype, device=settings.device, layers=settings.layers
        )
        self.tokenizer, self.longest = load_tokenizer(settings.base), longest(settings.base, settings.max_tokens)

    def vectors(self, texts: Sequence[str], size: int = 64) -> Tensor:
        """``[n, d]`` of length 1, in the order of the texts; batches hold texts of like length."""
        import torch

        encoded = [e.ids[: self.longest] for e in self.tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))
        parts = []
        for start in range(0, len(order), size):
            rows = [encoded[i] for i in order[start : start + size]]
            width = max(map(len, rows))
            ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=self.device)
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self.device)
            hidden = self.backbone(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            shares = mask.float() / mask.sum(1, keepdim=True)
            parts.append(torch.nn.functional.normalize(torch.bmm(shares.unsqueeze(1), hidden).squeeze(1), dim=-1))
        back = torch.empty(len(order), dtype=torch.long, device=self.device)
        back[torch.tensor(order, device=self.device)] = torch.arange(len(order), device=self.device)
        return torch.cat(parts)[back]

    def loss(self, batch: Sequence[Item]) -> Tensor:
        """Cross-entropy of each question's own sentence among all sentences of the batch."""
        import torch

        texts = list(dict.fromkeys([i.positive for i in batch] + [t for i in batch for t in i.negatives]))
        place = {text: number for number, text in enumerate(texts)}
        scores = self.vectors([i.question for i in batch]) @ self.vectors(texts).T * self.settings.scale
        right = torch.tensor([place[i.positive] for i in batch], device=self.device)
        same: dict[str, set[int]] = {}
        for item in batch:  # another sentence that helps the same question is no negative
            same.setdefault(item.question, set()).add(place[item.positive])
        hidden = torch.zeros_like(scores, dtype=torch.bool)
        for row, item in enumerate(batch):
            for column in same[item.question] - {place[item.positive]}:
                hidden[row, column] = True
        return torch.nn.functional.cross_entropy(scores.masked_fill(hidden, -1e4), right)

    def evaluate(self, held: Sequence[Item]) -> dict[str, float]:
        """``sentence``: how often the sentence that helps comes before the others of its passages; ``mrr``."""
        import torch

        some = [item for item in held if item.negatives]
        with torch.inference_mode():
            asked = self.vectors([item.question for item in some])
            found = self.vectors([t for item in some for t in (item.positive, *item.negatives)])
        firsts, ranks, row = 0, 0.0, 0
        for number, item in enumerate(some):
            scores = (found[row : row + 1 + len(item.negatives)] @ asked[number]).tolist()
            row += 1 + len(item.negatives)
            rank = 1 + sum(score >= scores[0] for score in scores[1:])
            firsts += rank == 1
            ranks += 1 / rank
        count = max(len(some), 1)
        return {"sentence": firsts / count, "mrr": ranks / count}
