"""Training of ``retriever``: an adapter for an index's encoder, from the passages of the index and without labels."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ragzip.errors import ConfigError, ModelError, UsageError
from ragzip.indexes import Index, open_cached
from ragzip.indexes.text import searched_text
from ragzip.models import GENERATOR, Encoder, layers, load_encoder
from ragzip.models.locate import resolve
from ragzip.models.pooling import read_recipe
from ragzip.models.tokenizer import encode_batch, read_tokenizer, tokenizer_file
from ragzip.models.weights import is_adapter
from ragzip.training.encoders import check_trainer, trainable
from ragzip.training.examples import Example, Marked, fingerprint
from ragzip.training.identity import identity
from ragzip.training.loop import LoopSettings, train
from ragzip.training.low_rank import Adaptable, LowRank, save_adapter
from ragzip.training.options import OnEvent, TrainingEvent, TrainingReport
from ragzip.training.pairs import plan
from ragzip.training.self_supervised import Item, Task, hold_out_passages, make_items, near, write_items
from ragzip.types import Passage

if TYPE_CHECKING:
    from torch import Tensor

_LEAST = 16  # items to train on
_SAME = -1e4


@dataclass(frozen=True)
class RetrieverTraining:
    """Adapts an encoder to a corpus by questions that are made from it; see ``ragzip.training.self_supervised``.

    A low-rank adapter (LoRA, https://arxiv.org/abs/2106.09685) on the linear layers of the encoder, trained to find a
    question's own text among those of the batch and one that is close and of another document. The folder serves as
    a model: ``ragzip index PATHS --index kb --model FOLDER --rebuild``. Held-out passages are never trained on.

    Attributes:
        corpus: The index folder whose passages are read and whose encoder is adapted.
        tasks: Out of ``cloze``, ``body``, ``next`` and ``link``, which finds something only where documents link to
            each other, and is not measured with.
        questions: For so many passages a language model writes a question besides; 0 for none.
        generator: That language model.
        rank: Of the adapter.
        alpha: The adapter counts alpha / rank.
        near: Whether each question has a negative that the base encoder finds close.
        scale: Cosines are multiplied by this.
        max_tokens: Longest text in training.
        batch: Questions in a step.
        steps: Optimiser steps.
        lr: Highest learning rate.
        eval_every: Steps between evaluations.
        patience: Evaluations without a better one before training stops; 0 never.
        held_out: Passages kept out of training, at most a fifth of all.
        others: So many other passages among which the texts of held-out ones have to be found.
        seed: For every draw.
        dtype: Number format of the forward and backward passes.
        device: Where to train.
    """

    corpus: str = ""
    tasks: tuple[Task, ...] = get_args(Task)
    questions: int = 0
    generator: str = GENERATOR
    rank: int = 8
    alpha: int = 16
    near: bool = True
    scale: float = 20.0
    max_tokens: int = 128
    batch: int = 32
    steps: int = 200
    lr: float = 5e-4
    eval_every: int = 50
    patience: int = 2
    held_out: int = 100
    others: int = 400
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        known = get_args(Task)
        strange = [task for task in self.tasks if task not in known]
        if strange:
            raise ConfigError("tasks", f"unknown task {strange[0]!r}", hint=f"Known: {', '.join(known)}.")
        if self.questions < 0:
            raise ConfigError("questions", f"must be at least 0, not {self.questions!r}")
        if not self.tasks and not self.questions:
            raise ConfigError("tasks", "must name at least one task", hint=f"Known: {', '.join(known)}.")
        if self.others < 0:
            raise ConfigError("others", f"must be at least 0, not {self.others!r}")
        check_trainer(self)

    def run(
        self, out: Path, *, data: Path | None = None, resume: bool = True, on_event: OnEvent | None = None
    ) -> TrainingReport:
        """Trains, and leaves ``adapter_config.json``, ``adapter_model.safetensors`` and a model card in ``out``.

        Raises:
            UsageError: No corpus, or one that is too small.
            StoreError: The index cannot be opened, or has no vectors.
            ModelError: Its encoder is not here, or an adapter already.
        """
        if not self.corpus:
            raise UsageError("no corpus to adapt to", hint="Give the folder of an index: --corpus kb/")
        index = open_cached(self.corpus)
        base = whole_model(index, self.corpus)
        encoder = load_encoder(base, dtype=self.dtype, device=self.device)
        index.check_model(encoder)
        found = list(index)
        held, kept = hold_out_passages(found, self.held_out, self.seed)
        measured: list[Task] = [task for task in self.tasks if task != "link"] or ["cloze"]
        items, asked = self._items(kept, on_event), make_items(held, measured, self.seed)
        if len(items) < _LEAST or not asked:
            raise UsageError(
                f"{self.corpus}: {len(found)} passages give {len(items)} questions to train on and {len(asked)} to "
                "measure with, too few",
                hint="Index more documents, with passages of several sentences.",
            )
        order = plan([0] * len(items), self.batch, self.steps, self.seed)
        if on_event:
            message = f"{len(items):,} questions made from {len(kept):,} passages"
            on_event(TrainingEvent("data", 0, len(order), message=message))
        negatives = self._negatives(items, order, index, encoder, {passage.id for passage in held})
        others = random.Random(f"{self.seed} others").sample(kept, min(self.others, len(kept)))  # noqa: S311 - no secret
        task = Search(asked, [searched_text(passage) for passage in others])
        settings = LoopSettings.of(self, len(order), weight_decay=0.0, checkpoint_every=50)
        model = Adapted(self, base)
        try:
            untrained = model.evaluate(task)
            if on_event:
                on_event(TrainingEvent("eval", 0, len(order), None, untrained, "before training"))
            result = train(
                model.named(),
                lambda step: model.loss([items[i] for i in order[step]], [negatives[i] for i in order[step]]),
                lambda: model.evaluate(task),
                settings,
                out,
                config=identity(self, fingerprint([_example(item) for item in items]), base),
                best="mrr",
                save=partial(save_adapter, out, base, model.targets, self.rank, self.alpha),
                resume=resume,
                on_event=on_event,
            )
        finally:
            model.close()
        self._card(out, base, result, untrained, items, task)
        return TrainingReport(out, result.steps, result.seconds, result.metrics, result.stopped)

    def _items(self, kept: Sequence[Passage], on_event: OnEvent | None) -> list[Item]:
        items = make_items(kept, self.tasks, self.seed)
        if not self.questions:
            return items
        from ragzip.generators.huggingface import HuggingFace

        def tell(done: int, total: int) -> None:
            if on_event:
                on_event(TrainingEvent("data", 0, 0, message=f"{done:,} of {total:,} questions written"))

        some = random.Random(f"{self.seed} written").sample(kept, min(self.questions, len(kept)))  # noqa: S311 - no secret
        writer = HuggingFace(self.generator, max_new_tokens=40, device=self.device)
        return items + write_items(some, writer, on_progress=tell)

    def _negatives(
        self, items: Sequence[Item], order: Sequence[Sequence[int]], index: Index, encoder: Encoder, held: set[str]
    ) -> dict[int, tuple[str, str]]:
        """A close passage for each item that some step reads, or "", and its document."""
        used = sorted({i for step in order for i in step})
        if not self.near:
            return dict.fromkeys(used, ("", ""))
        return dict(zip(used, near([items[i] for i in used], index, encoder.encode, held), strict=True))

    def _card(
        self, out: Path, base: str, result: Any, untrained: Mapping[str, float], items: Sequence[Item], task: Search
    ) -> None:
        from ragzip.training.card import write_card
        from ragzip.training.cards import card_of

        what = f"{len(task.asked):,} questions made from held-out passages, among {len(task.texts):,} texts"
        card = card_of(
            self,
            result,
            untrained=untrained,
            baselines={"bm25": task.by_words()},
            examples=[_example(item) for item in items],
            held=len(task.asked),
            what=what,
            base=base,
        )
        command = "ragzip train retriever CONFIG.yaml --corpus INDEX --out FOLDER"
        write_card(out, dataclasses.replace(card, licence="unknown", command=command))


def whole_model(index: Index, corpus: str) -> str:
    """The name of the encoder that an index was made with.

    Raises:
        ModelError: It is an adapter, or a part of a model.
    """
    base = index.model_name()
    if layers.split(base)[1] is not None:
        raise ModelError(f"{corpus} was made with {base}, a part of a model", hint="Index it with the whole one.")
    if is_adapter(resolve(base)):
        raise ModelError(f"{corpus} was made with {base}, an adapter", hint="Index it with its base first.")
    return base


def _example(item: Item) -> Example:
    """As the fingerprint and the card take it."""
    positive = Marked(item.positive, relevant=True, known=False)
    return Example(f"{item.task}:{item.passage}", item.task, item.question, (positive,))


@dataclass(frozen=True, eq=False)
class Search:
    """Questions from held-out passages, each of which has to find its own text among those of the others and more.

    Texts of the question's own document do not compete: one of them may hold the question word for word.

    Attributes:
        asked: The questions.
        others: Passages that none of them is made from.
    """

    asked: Sequence[Item]
    others: Sequence[str]

    @property
    def texts(self) -> list[str]:
        """Everything that can be found, the questions' own texts first, in their order."""
        return [*(item.positive for item in self.asked), *self.others]

    def competing(self, place: int) -> list[int]:
        """The texts that a question is ranked over, its own included."""
        own = self.asked[place].document
        firsts = [i for i, item in enumerate(self.asked) if i == place or item.document != own]
        return [*firsts, *range(len(self.asked), len(self.asked) + len(self.others))]

    def by_words(self) -> dict[str, float]:
        """The metrics of BM25."""
        import numpy as np

        from ragzip.indexes.bm25 import build

        texts, ranks = self.texts, []
        postings = build(texts)
        for place, item in enumerate(self.asked):
            allowed = np.asarray(self.competing(place))
            found = postings.search(item.question, len(texts), allowed).rows.tolist()
            ranks.append(1 + found.index(place) if place in found else len(allowed))
        return metrics(ranks)


def metrics(ranks: Sequence[int]) -> dict[str, float]:
    """``mrr`` and ``recall@10``."""
    count = max(len(ranks), 1)
    return {"mrr": sum(1 / rank for rank in ranks) / count, "recall@10": sum(rank <= 10 for rank in ranks) / count}


class Adapted:
    """The encoder with its adapter while that is trained."""

    def __init__(self, settings: RetrieverTraining, base: str) -> None:
        import torch

        self.settings = settings
        self.backbone, self.device = trainable(base, dtype=settings.dtype, device=settings.device)
        self.backbone.requires_grad_(False)
        self.targets = [
            name
            for name, module in self.backbone.named_modules()
            if isinstance(module, torch.nn.Linear) and not name.startswith("pooler")
        ]
        self._adapter = LowRank(
            Adaptable(base, self.backbone), settings.rank, settings.alpha, settings.seed, self.targets
        )
        recipe = read_recipe(resolve(base))
        self.mode, self.window = recipe.mode, recipe.max_tokens
        self._tokenizer = read_tokenizer(tokenizer_file(recipe.folder))

    def named(self) -> list[tuple[str, Any]]:
        """The adapter's matrices, as ``peft`` names them."""
        return self._adapter.named()

    def close(self) -> None:
        """Takes the adapter off."""
        self._adapter.remove()

    def vectors(self, texts: Sequence[str], longest: int, size: int = 64) -> Tensor:
        """``[n, d]`` of length 1, in the order of the texts; batches hold texts of like length."""
        import torch

        self._tokenizer.enable_truncation(min(longest, self.window))
        encoded = [encoding.ids or [0] for encoding in encode_batch(self._tokenizer, texts, special=True)]
        order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))
        parts = []
        for start in range(0, len(order), size):
            rows = [encoded[i] for i in order[start : start + size]]
            width = max(map(len, rows))
            ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=self.device)
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self.device)
            hidden = self.backbone(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            parts.append(torch.nn.functional.normalize(self._pooled(hidden, mask), dim=-1))
        back = torch.empty(len(order), dtype=torch.long, device=self.device)
        back[torch.tensor(order, device=self.device)] = torch.arange(len(order), device=self.device)
        return torch.cat(parts)[back]

    def _pooled(self, hidden: Tensor, mask: Tensor) -> Tensor:
        import torch

        if self.mode == "cls":
            return hidden[:, 0]
        if self.mode == "lasttoken":
            return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(dim=1) - 1]
        return torch.bmm((mask.float() / mask.sum(1, keepdim=True)).unsqueeze(1), hidden).squeeze(1)

    def loss(self, items: Sequence[Item], negatives: Sequence[tuple[str, str]]) -> Tensor:
        """Cross-entropy of each question's own text among all of the batch that are not of its documents."""
        import torch

        more = [(text, document) for text, document in negatives if text]
        texts = [*(item.positive for item in items), *(text for text, _ in more)]
        longest = self.settings.max_tokens
        asked = self.vectors([item.question for item in items], longest)
        scores = asked @ self.vectors(texts, longest).T * self.settings.scale
        documents = [*(item.document for item in items), *(document for _, document in more)]
        own = [(item.document, item.asker) for item in items]
        same = [[i != j and b in a for j, b in enumerate(documents)] for i, a in enumerate(own)]
        hidden = torch.tensor(same, device=self.device)
        right = torch.arange(len(items), device=self.device)
        return torch.nn.functional.cross_entropy(scores.masked_fill(hidden, _SAME), right)

    def evaluate(self, task: Search) -> dict[str, float]:
        """``mrr`` and ``recall@10`` of the questions' own texts."""
        import torch

        ranks = []
        with torch.inference_mode():
            asked = self.vectors([item.question for item in task.asked], self.window)
            scores = asked @ self.vectors(task.texts, self.window).T
            for place, row in enumerate(scores.cpu()):
                ranks.append(1 + int((row[task.competing(place)] > row[place]).sum()))
        return metrics(ranks)
