"""Options that the trainers of soft compressors share, and their run."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ragzip.compressors._options import check_count, check_number
from ragzip.errors import ConfigError
from ragzip.models import GENERATOR, check_options, load_causal_lm, unload
from ragzip.registry import suggest
from ragzip.training.encoders import numbers
from ragzip.training.loop import LoopSettings
from ragzip.training.options import OnEvent, TrainingReport
from ragzip.training.ranks import ranks
from ragzip.training.soft_data import ANSWERED, PLAIN, read_soft
from ragzip.training.soft_loop import RowWriter, SoftPlan, train_soft

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.models import CausalLM


def check_sets(sets: Sequence[str], texts: Sequence[str], most: Sequence[str]) -> None:
    """Refuses sets that are not known, and none at all.

    Raises:
        ConfigError: With the option's name.
    """
    given = {"sets": sets, "texts": texts, "most": tuple(numbers("most", most))}
    for option, known in (("sets", ANSWERED), ("texts", PLAIN), ("most", (*ANSWERED, *PLAIN))):
        strange = [name for name in given[option] if name not in known]
        if strange:
            raise ConfigError(option, f"unknown set {strange[0]!r}", hint=suggest(strange[0], list(known)))
    if not sets:
        raise ConfigError("sets", "must name at least one set", hint=f"Known: {', '.join(ANSWERED)}.")


@dataclass(frozen=True)
class SoftTraining:
    """Texts told again, then questions answered, by a frozen generator that reads rows in the place of text.

    Attributes:
        base: The generator: a causal language model with a chat template.
        sets: Sets of questions with passages and short answers.
        texts: Sets of plain text, told again beside the passages.
        most: ``set=number``: at most so many questions, or documents, of a set.
        passages: Most passages of a question.
        telling: Share of the steps in which texts are told again, before questions are answered: 0 to 1.
        nll: Weight of the loss of the reference answer.
        kl: Weight of the divergence from what the generator says when it reads the text.
        hidden: Weight of the distance from its hidden states then, layer by layer.
        batch: Examples in a step.
        steps: Optimiser steps.
        lr: Highest learning rate.
        eval_every: Steps between evaluations.
        patience: Evaluations without a better one before training stops; 0 never.
        checkpoint_every: Steps between checkpoints.
        held_out: So many questions and so many texts are kept out of training.
        seed: For every draw.
        dtype: Number format of the forward and backward passes.
        device: Where to train.
    """

    shared: ClassVar[bool] = True
    """Several processes can train it together."""

    base: str = GENERATOR
    sets: tuple[str, ...] = ANSWERED
    texts: tuple[str, ...] = ("lm_corpus",)
    most: tuple[str, ...] = ()
    passages: int = 4
    telling: float = 0.5
    nll: float = 1.0
    kl: float = 2.0
    hidden: float = 0.0
    batch: int = 8
    steps: int = 400
    lr: float = 1e-3
    eval_every: int = 100
    patience: int = 0
    checkpoint_every: int = 50
    held_out: int = 100
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        check_sets(self.sets, self.texts, self.most)
        for option in ("batch", "steps", "eval_every", "checkpoint_every", "held_out", "passages"):
            check_count(option, getattr(self, option), least=1)
        check_count("patience", self.patience)
        check_number("telling", self.telling, low=0.0, high=1.0)
        for option in ("nll", "kl", "hidden"):
            check_number(option, getattr(self, option), low=0.0)
        if not 0 < self.lr < math.inf:
            raise ConfigError("lr", f"must be a number above 0, not {self.lr!r}")
        if not self.nll + self.kl + self.hidden > 0:
            raise ConfigError("nll", "and kl and hidden are all 0: there is nothing to learn from")
        check_options(self.dtype, self.device)

    @property
    def gist(self) -> bool:
        """Whether texts are asked for by their meaning rather than word for word."""
        return False

    @property
    def curriculum(self) -> int:
        """Characters of the first texts that are told again; 0 for their full length from the beginning."""
        return 0

    @property
    def eval_rates(self) -> tuple[int, ...]:
        """Rates that held-out data are read at."""
        return (0,)

    @abstractmethod
    def writer(self, lm: CausalLM) -> RowWriter:
        """What is trained, new."""

    @abstractmethod
    def save(self, out: Path, lm: CausalLM, tensors: Mapping[str, Tensor]) -> None:
        """Writes the weights with what the method needs to use them."""

    def done(self, writer: RowWriter) -> None:
        """Takes off the generator what the writer put on it."""

    def run(
        self, out: Path, *, data: Path | None = None, resume: bool = True, on_event: OnEvent | None = None
    ) -> TrainingReport:
        """Trains, and leaves ``config.json``, ``model.safetensors`` and a model card in ``out``."""
        from ragzip.training.soft_card import write_soft_card

        found = read_soft(self.sets, self.texts, most=self.most, held_out=self.held_out, data=data, seed=self.seed)
        lm = load_causal_lm(self.base, dtype=self.dtype, device=self.device)
        writer = self.writer(lm)
        plan = SoftPlan(
            batch=self.batch,
            telling=self.telling,
            gist=self.gist,
            passages=self.passages,
            nll=self.nll,
            kl=self.kl,
            hidden=self.hidden,
            eval_rates=self.eval_rates,
            curriculum=self.curriculum,
        )
        settings = LoopSettings(
            steps=self.steps,
            lr=self.lr,
            weight_decay=0.0,
            eval_every=self.eval_every,
            patience=self.patience,
            checkpoint_every=self.checkpoint_every,
        )
        try:
            outcome = train_soft(
                self,
                lm,
                writer,
                found,
                plan,
                settings,
                out,
                save=lambda tensors: self.save(out, lm, tensors),
                resume=resume,
                on_event=on_event,
            )
        finally:
            self.done(writer)
            unload()  # nobody else may get the model that was trained on
        if ranks().first:
            write_soft_card(out, self, outcome, found)
        result = outcome.result
        return TrainingReport(out, result.steps, result.seconds, result.metrics, result.stopped)
