"""Training of ``jpq``: the centroids of an index's codes, and its encoder for questions, together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ragzip.errors import ConfigError, UsageError
from ragzip.indexes import Index, open_cached
from ragzip.indexes.files import new_file
from ragzip.indexes.jpq.quantizer import CENTROIDS, FILE
from ragzip.models import Encoder, load_encoder
from ragzip.training._coded import Coded, Places, found_by, learned
from ragzip.training.encoders import check_trainer
from ragzip.training.examples import Example, Marked, fingerprint
from ragzip.training.identity import identity
from ragzip.training.loop import LoopResult, LoopSettings, train
from ragzip.training.low_rank import save_adapter
from ragzip.training.options import OnEvent, TrainingEvent, TrainingReport
from ragzip.training.pairs import plan
from ragzip.training.retriever import Adapted, RetrieverTraining, whole_model
from ragzip.training.self_supervised import Item, Task, hold_out_passages, make_items

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_TASKS: tuple[Task, ...] = ("cloze", "body", "next")
_LEAST = 16  # items to train on
_HIDDEN = -1e4
_MOVED = "pq.moved"


@dataclass(frozen=True)
class JPQTraining:
    """Joint optimisation of query encoding and product quantisation (https://arxiv.org/abs/2108.00644), without labels.

    Vectors of an index are cut into pieces, and each piece becomes one byte: the number of a centroid. Codes and
    passages' vectors then stay; trained are what the centroids are worth to a question, and a low-rank adapter of the
    encoder that questions alone go through. Each question, made from a passage as for ``retriever``, is to find it
    among those of its batch and those that the codes put first, now, over the whole index. Beside that passage the
    order by whole vectors is a target (``teacher``), which the paper, having labels, does without.

    With ``balanced``, codes are made about equally frequent, the error of the codes is part of the loss, and they are
    chosen anew in the end, after RepCONC (https://arxiv.org/abs/2110.05789), where passages are trained, too.

    Attributes:
        corpus: The index folder.
        tasks: Out of ``cloze``, ``body`` and ``next``.
        pieces: Bytes of a code; must divide the width of the vectors.
        rotate: Whether vectors are rotated first so that codes lose less (OPQ).
        balanced: Whether codes are balanced.
        error: Of ``balanced``: how much the squared error of the codes counts in the loss.
        teacher: Share of the target that is the order by whole vectors and the untrained encoder.
        negatives: Passages that codes put first, for each question.
        scale: Inner products are multiplied by this.
        rank: Of the adapter.
        alpha: The adapter counts alpha / rank.
        max_tokens: Longest question in training.
        batch: Questions in a step.
        steps: Optimiser steps.
        lr: Highest learning rate of the adapter.
        centroid_lr: That of the centroids.
        eval_every: Steps between evaluations.
        patience: Evaluations without a better one before training stops; 0 never.
        held_out: Passages that no question to train with is made from, at most a fifth of all.
        seed: For every draw.
        dtype: Number format of the forward and backward passes.
        device: Where to train.
    """

    corpus: str = ""
    tasks: tuple[Task, ...] = _TASKS
    pieces: int = 48
    rotate: bool = True
    balanced: bool = False
    error: float = 1.0
    teacher: float = 0.5
    negatives: int = 16
    scale: float = 20.0
    rank: int = 8
    alpha: int = 16
    max_tokens: int = 64
    batch: int = 32
    steps: int = 200
    lr: float = 2e-4
    centroid_lr: float = 5e-4
    eval_every: int = 50
    patience: int = 2
    held_out: int = 200
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        known = _TASKS
        strange = [task for task in self.tasks if task not in known]
        if strange or not self.tasks:
            problem = f"unknown task {strange[0]!r}" if strange else "must name at least one task"
            raise ConfigError("tasks", problem, hint=f"Known: {', '.join(known)}.")
        if self.pieces < 1:
            raise ConfigError("pieces", f"must be at least 1, not {self.pieces!r}")
        for name, least, most in (("teacher", 0.0, 1.0), ("error", 0.0, 1e6), ("centroid_lr", 0.0, 1e3)):
            if not least <= getattr(self, name) <= most:
                raise ConfigError(name, f"must be from {least:g} to {most:g}, not {getattr(self, name)!r}")
        check_trainer(self)

    def run(
        self, out: Path, *, data: Path | None = None, resume: bool = True, on_event: OnEvent | None = None
    ) -> TrainingReport:
        """Trains, and leaves the adapter, ``pq.safetensors`` and a model card in ``out``.

        Raises:
            UsageError: No corpus, or one that is too small.
            StoreError: The index cannot be opened, or has no vectors.
            ModelError: Its encoder is not here, or an adapter already.
        """
        index, encoder = self._opened()
        passages = list(index)
        held, free = hold_out_passages(passages, self.held_out, self.seed)
        items, asked = make_items(free, self.tasks, self.seed), make_items(held, self.tasks, self.seed)
        if len(items) < _LEAST or not asked:
            raise UsageError(
                f"{self.corpus}: {len(passages)} passages give {len(items)} questions to train on and {len(asked)} to "
                "measure with, too few",
                hint="Index more documents, with passages of several sentences.",
            )
        order = plan([0] * len(items), self.batch, self.steps, self.seed)
        places = Places(passages)
        apart = np.zeros(len(passages), bool)
        apart[[places.of[passage.id] for passage in held]] = True
        like = RetrieverTraining(
            rank=self.rank, alpha=self.alpha, seed=self.seed, max_tokens=self.max_tokens,
            dtype=self.dtype, device=self.device,
        )  # fmt: skip
        start = learned(index, self.pieces, rotate=self.rotate, balanced=self.balanced)
        adapted = Adapted(like, encoder.name)
        try:
            rate = self.centroid_lr / self.lr
            coded = Coded(index, start, rate=rate, balanced=self.balanced, device=adapted.device)
            used = sorted({i for step in order for i in step}) if self.teacher else []
            model = Joint(self, adapted, coded, places, apart, asked)
            model.taught = dict(
                zip(used, encoder.encode(encoder.asking([items[i].question for i in used])), strict=True)
            )
            plain = self._plain(index, encoder, asked, places)
            untrained = model.evaluate()
            if on_event:
                on_event(TrainingEvent("eval", 0, len(order), None, untrained, "before training"))
            result = train(
                model.named(),
                lambda step: model.loss(items, order[step]),
                model.evaluate,
                LoopSettings.of(self, len(order), weight_decay=0.0, checkpoint_every=50),
                out,
                config=identity(
                    self,
                    fingerprint([_example(item) for item in items]),
                    index=[index.manifest.digest, encoder.fingerprint],
                ),
                best="mrr@10",
                save=partial(self._save, out, model, encoder.name),
                resume=resume,
                on_event=on_event,
            )  # fmt: skip
        finally:
            adapted.close()
        self._card(out, encoder.name, result, {"product quantisation": untrained, "whole vectors": plain}, items, asked)
        return TrainingReport(out, result.steps, result.seconds, result.metrics, result.stopped)

    def _opened(self) -> tuple[Index, Encoder]:
        if not self.corpus:
            raise UsageError("no corpus to train on", hint="Give the folder of an index: --corpus kb/")
        index = open_cached(self.corpus)
        base = whole_model(index, self.corpus)
        encoder = load_encoder(base, dtype=self.dtype, device=self.device)
        index.check_model(encoder)
        if len(index) < CENTROIDS:
            raise UsageError(
                f"{self.corpus}: {len(index)} passages, fewer than the {CENTROIDS} centroids of a piece",
                hint="Index more documents first; so few passages need no codes.",
            )
        if encoder.dimensions % self.pieces:
            fit = max(n for n in range(1, self.pieces) if encoder.dimensions % n == 0)
            raise ConfigError(
                "pieces", f"{self.pieces} does not divide vectors of {encoder.dimensions}", hint=f"Use {fit}."
            )
        return index, encoder

    def _plain(self, index: Index, encoder: Encoder, asked: Sequence[Item], places: Places) -> dict[str, float]:
        """The metrics of the index's own vectors with the encoder as it is."""
        hits = index.search_vectors(encoder.encode(encoder.asking([item.question for item in asked])), places.depth)
        found = np.stack([np.searchsorted(index.rows, hit.rows) for hit in hits])
        return places.ranked(found, np.asarray([places.of[item.passage] for item in asked]))

    def _save(self, out: Path, model: Joint, base: str, tensors: Mapping[str, Tensor]) -> None:
        adapter = {name: tensor for name, tensor in tensors.items() if name != _MOVED}
        with new_file(out / FILE) as file:
            file.write(model.coded.settled()[0].dump())
        save_adapter(out, base, model.adapted.targets, self.rank, self.alpha, adapter)

    def _card(
        self,
        out: Path,
        base: str,
        result: LoopResult,
        before: Mapping[str, Mapping[str, float]],
        items: Sequence[Item],
        asked: Sequence[Item],
    ) -> None:
        from ragzip.training.card import Row, write_card
        from ragzip.training.cards import card_of, results_of

        what = f"{len(asked):,} questions made from held-out passages, among all passages of the index"
        untrained, plain = before["product quantisation"], before["whole vectors"]
        card = card_of(
            self, result, untrained=untrained, examples=[_example(item) for item in items], held=len(asked), base=base
        )
        table = results_of(what, {"jpq": result.metrics, "product quantisation": untrained})
        reference = Row("whole vectors", "reference", tuple(plain[metric] for metric in table.metrics))
        table = dataclasses.replace(table, rows=(*table.rows, reference))
        command = "ragzip train jpq CONFIG.yaml --corpus INDEX --out FOLDER"
        write_card(out, dataclasses.replace(card, licence="unknown", command=command, results=(table,)))


def _example(item: Item) -> Example:
    """As the fingerprint and the card take it."""
    positive = Marked(item.positive, relevant=True, known=False)
    return Example(f"{item.task}:{item.passage}", item.task, item.question, (positive,))


class Joint:
    """Centroids and adapter while they are trained.

    Attributes:
        taught: The untrained encoder's vectors of questions, by the number of the item; empty without a teacher.
    """

    def __init__(
        self,
        settings: JPQTraining,
        adapted: Adapted,
        coded: Coded,
        places: Places,
        apart: NDArray[np.bool_],
        asked: Sequence[Item],
    ) -> None:
        self.settings, self.adapted, self.coded, self.places = settings, adapted, coded, places
        self.taught: dict[int, NDArray[np.float32]] = {}
        self._apart, self._asked = apart, asked

    def named(self) -> list[tuple[str, Any]]:
        """What is trained: the adapter's matrices, and how far the centroids have moved."""
        return [*self.adapted.named(), (_MOVED, self.coded.moved)]

    def loss(self, items: Sequence[Item], chosen: Sequence[int]) -> Tensor:
        """Cross-entropy over the passages of the batch and those that codes put first.

        Passages of a question's own document do not compete, and held-out ones are never looked at.
        """
        import torch
        from torch.nn.functional import one_hot

        settings, device = self.settings, self.adapted.device
        asked = self.adapted.vectors([items[i].question for i in chosen], settings.max_tokens) @ self.coded.rotation
        own = np.asarray([self.places.of[items[i].passage] for i in chosen])
        first = self.coded.nearest(asked, settings.negatives).ravel()
        rows = np.unique(np.concatenate([own, first[~self._apart[first]]]))
        documents = self.places.documents
        right = np.searchsorted(rows, own)
        same = documents[own][:, None] == documents[rows][None]
        same[np.arange(len(own)), right] = False
        hidden = torch.from_numpy(same).to(device)
        passages = self.coded.decoded(rows)
        scores = (asked @ passages.T * settings.scale).masked_fill(hidden, _HIDDEN)
        target = one_hot(torch.from_numpy(right).to(device), len(rows)).float()
        if settings.teacher:
            vectors = torch.from_numpy(np.stack([self.taught[i] for i in chosen])).to(device)
            wanted = (vectors @ self.coded.whole(rows).T * settings.scale).masked_fill(hidden, _HIDDEN)
            target = torch.lerp(target, wanted.softmax(-1), settings.teacher)
        loss = -(target * scores.log_softmax(-1)).sum(-1).mean()
        if settings.balanced and settings.error:
            gap = self.coded.whole(rows) @ self.coded.rotation - passages
            loss = loss + settings.error * gap.square().sum(-1).mean()
        return loss

    def evaluate(self) -> dict[str, float]:
        """``mrr@10`` and ``recall@10`` of the held-out questions' own passages, among all of the index."""
        import torch

        searched = self.coded.settled()[1]
        with torch.inference_mode():
            vectors = self.adapted.vectors([item.question for item in self._asked], self.adapted.window)
            found = found_by(searched, vectors @ self.coded.rotation, self.places.depth)
        return self.places.ranked(found, np.asarray([self.places.of[item.passage] for item in self._asked]))
