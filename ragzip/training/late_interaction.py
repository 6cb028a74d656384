"""Training of ``late_interaction``: a vector for every token, whose best matches say which passage helps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ragzip.compressors._options import check_number
from ragzip.errors import ConfigError
from ragzip.models import EMBEDDER
from ragzip.models.late_recipe import ARCHITECTURE, PUNCTUATION
from ragzip.models.shipped import PROVENCE
from ragzip.models.tuned import save_tuned
from ragzip.training.encoders import check_trainer, divide, longest, numbers
from ragzip.training.examples import Example, fingerprint, read_examples
from ragzip.training.identity import identity
from ragzip.training.late_data import Pool, by_encoder, confused, items
from ragzip.training.late_model import Late, judged_by
from ragzip.training.loop import LoopSettings, train
from ragzip.training.negatives import by_words, mine, mine_apart
from ragzip.training.options import OnEvent, TrainingEvent, TrainingReport
from ragzip.training.pairs import plan

if TYPE_CHECKING:
    from torch import Tensor

_SETS = (
    "squad",
    "squadshifts",
    "policyqa",
    "qed",
    "hotpotqa",
    "2wikimultihopqa",
    "nq_multidoc",
    "fever_rationale",
    "scifact",
    "selqa",
    "musique",
)
_DEFAULT_MOST = (
    "squad=350",
    "squadshifts=250",
    "policyqa=120",
    "qed=200",
    "hotpotqa=160",
    "2wikimultihopqa=60",
    "nq_multidoc=250",
    "fever_rationale=300",
    "scifact=400",
    "selqa=250",
    "musique=20",
)
_WINDOW = 256
_NEAR, _MINED = 12, 6  # of so many passages that share most words with a question, how many are kept as negatives


@dataclass(frozen=True)
class LateInteractionTraining:
    """Contrastive training of token vectors, with hard negatives and a judge to learn from.

    After ColBERTv2 (https://arxiv.org/abs/2112.01488), on an encoder that compares texts already: a projection is
    trained, which begins as the directions in which token vectors are longest, and the last layers if that is wanted.
    The score of a passage is the mean over the question's tokens of the largest cosine to one of its tokens.
    Negatives are the other passages of the batch, one that came with the question or shares its words (BM25), and
    those that the encoder finds closest; how close these should come is learned from a cross-encoder.

    Attributes:
        base: The encoder to start from.
        sets: Training sets.
        most: ``set=number``: at most so many questions of a set.
        dimensions: Width of a vector.
        layers: How many of the last layers to train; None for the projection alone, for which each text is read once.
        negatives: Passages beside the one that helps that a question brings into its batch.
        scale: Scores are multiplied by this.
        judge: The pruner whose judgement of a question's own passages is learned: a name or a folder; None for none.
        judge_weight: Weight of that part of the loss.
        max_tokens: Longest passage in training, title included.
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
    sets: tuple[str, ...] = _SETS
    most: tuple[str, ...] = _DEFAULT_MOST
    dimensions: int = 96
    layers: int | None = None
    negatives: int = 3
    scale: float = 32.0
    judge: str | None = PROVENCE
    judge_weight: float = 1.0
    max_tokens: int = 128
    batch: int = 64
    steps: int = 400
    lr: float = 1e-3
    eval_every: int = 50
    patience: int = 4
    held_out: int = 160
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        check_trainer(self)
        check_number("judge_weight", self.judge_weight, low=0.0, high=100.0)
        if self.dimensions < 1:
            raise ConfigError("dimensions", f"must be at least 1, not {self.dimensions}")
        if self.judge == "":
            raise ConfigError("judge", "must name a pruner", hint="Leave it null to learn from none.")

    def run(
        self, out: Path, *, data: Path | None = None, resume: bool = True, on_event: OnEvent | None = None
    ) -> TrainingReport:
        """Trains, and leaves ``config.json``, ``model.safetensors`` and a model card in ``out``."""
        from ragzip.training.cards import write_result

        examples, held_examples = self._examples(data)
        kept, held = items(examples, self.negatives, self.seed), items(held_examples, _MINED, self.seed)
        model = Late(self)
        if self.dimensions > int(model.backbone.config.hidden_size):
            wide = model.backbone.config.hidden_size
            raise ConfigError("dimensions", f"{self.base} has {wide}, fewer than {self.dimensions}")
        texts = dict.fromkeys(text for item in kept for text in item.texts)
        model.prepare([*texts, *(item.question for item in kept)], self._tell(on_event))
        model.begin(list(texts))
        kept = confused(kept, model.pooled, self.seed)
        order = plan([0] * len(kept), self.batch, self.steps, self.seed)
        judge = None
        if self.judge and self.judge_weight:
            judge = judged_by(self.judge, self.max_tokens, dtype=self.dtype, device=self.device)
        settings = LoopSettings.of(self, len(order), checkpoint_every=50)
        pool = Pool.of(held)
        untrained = pool.metrics(model.rank)
        if on_event:
            on_event(TrainingEvent("eval", 0, len(order), None, untrained, "before training"))
        result = train(
            model.parameters(),
            lambda step: model.loss([kept[i] for i in order[step]], judge),
            lambda: pool.metrics(model.rank),
            settings,
            out,
            config=identity(self, fingerprint(examples), self.base, self.judge),
            best="ndcg@10",
            save=partial(self._save, out),
            resume=resume,
            on_event=on_event,
        )
        what = f"{len(pool.questions):,} held-out questions over the {len(pool.texts):,} passages that came with them"
        others = {"dense, the same encoder": pool.metrics(by_encoder(self.base, dtype=self.dtype, device=self.device))}
        others["bm25"] = pool.metrics(lambda questions, texts: by_words(texts)(questions))
        write_result(
            out, self, result, untrained=untrained, baselines=others, examples=examples, held=len(held), what=what
        )
        return TrainingReport(out, result.steps, result.seconds, result.metrics, result.stopped)

    def _examples(self, data: Path | None) -> tuple[list[Example], list[Example]]:
        """Examples to train on, and examples that are held out, with their hard negatives."""
        found = read_examples(self.sets, data=data, seed=self.seed, most=numbers("most", self.most))
        held, kept = divide(found, self.held_out, self.seed)
        dig = partial(mine, encoder=None, wanted=max(self.negatives, _MINED), seed=self.seed, near=_NEAR)
        return mine_apart(kept, held, dig, self.seed)

    def _tell(self, on_event: OnEvent | None) -> Callable[[int, int], None]:
        def tell(done: int, total: int) -> None:
            if on_event:
                on_event(TrainingEvent("data", 0, self.steps, None, {}, f"texts read {done:,} of {total:,}"))

        return tell

    def _save(self, out: Path, tensors: Mapping[str, Tensor]) -> None:
        save_tuned(
            out,
            architecture=ARCHITECTURE,
            base=self.base,
            max_tokens=longest(self.base, _WINDOW),
            tensors=tensors,
            skipped=list(PUNCTUATION),
        )
