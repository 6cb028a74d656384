"""Options that the trainers of soft compressors share, and their run."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ragzip.compressors._options import check_count, check_number
from ragzip.errors import ConfigError, ModelError
from ragzip.models import GENERATOR, canonical, load_causal_lm, unload
from ragzip.models.soft_folder import open_soft, save_soft
from ragzip.registry import suggest
from ragzip.training.encoders import check_format, numbers
from ragzip.training.loop import LoopSettings
from ragzip.training.options import OnEvent, TrainingReport, trainer_config
from ragzip.training.ranks import ranks
from ragzip.training.row_writer import RowWriter
from ragzip.training.soft_data import ANSWERED, PLAIN, SoftData, read_soft
from ragzip.training.soft_loop import SoftPlan, train_soft
from ragzip.training.starts import check_start, settled, went_on

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.models import CausalLM


_FREE = ("rates", "slots")  # rates may differ, and slots with them where they have the same shape


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
        patience: Evaluations without a better one, once questions are answered, before training stops; 0 never.
        checkpoint_every: Steps between checkpoints.
        held_out: So many questions and so many texts are kept out of training.
        seed: For every draw.
        start: Weights of an earlier training with the same options, to go on from: a folder, or the name of shipped
            ones. None starts afresh. Held-out examples are new to them only if they held out the same ones.
        start_sha256: Checksum of their file, which then must have it; the card fills it in.
        dtype: Number format of the forward and backward passes.
        device: Where to train.
    """

    architecture: ClassVar[str] = ""
    shared: ClassVar[bool] = True
    """Several processes can train it together."""
    fresh: ClassVar[str] = ""
    """What the names of parameters begin with that weights to go on from may lack, if anything does."""

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
    start: str | None = None
    start_sha256: str | None = None
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
        check_start(self.start, self.start_sha256)
        check_format(self.dtype, self.device)

    @property
    def gist(self) -> bool:
        """Whether texts are asked for by their meaning rather than word for word."""
        return False

    @property
    def curriculum(self) -> int:
        """Characters of the first texts that are told again; 0 for their full length from the beginning."""
        return 0

    @property
    def eval_rates(self) -> tuple[float, ...]:
        """What held-out data are read at: rates, or shares that stay text."""
        return (0,)

    @abstractmethod
    def writer(self, lm: CausalLM, data: SoftData | None = None) -> RowWriter:
        """What is trained, new.

        Args:
            lm: The generator.
            data: What will be trained on, for what is counted in it before.
        """

    @abstractmethod
    def values(self) -> dict[str, Any]:
        """What the method needs to use the weights, for their config."""

    def save(self, out: Path, lm: CausalLM, tensors: Mapping[str, Tensor]) -> None:
        """Writes the weights with what the method needs to use them."""
        save_soft(
            out,
            architecture=self.architecture,
            base=self.base,
            dimensions=lm.dimensions,
            tensors=tensors,
            **self.values(),
            **self.seen(tensors),
        )

    def seen(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """More for their config, which the tensors say."""
        return {}

    def take_up(self, writer: RowWriter) -> None:
        """Puts the weights that training goes on from into a writer, all of them or, after an error, none.

        Raises:
            ModelError: They were made for another generator, or with other options: which, where their config says.
        """
        import torch

        if self.start is None:
            return
        found = open_soft(self.start, self.architecture)
        for key, value in self.values().items():
            theirs = found.config.get(key)
            same = canonical(str(theirs)) == canonical(value) if key == "encoder" else theirs == value
            if not same and key not in _FREE:
                raise ModelError(
                    f"{found.folder} has {key}: {theirs!r}, not {value!r}",
                    hint="Go on with the options it was trained with.",
                )
        fixed = writer.fixed()
        named = [
            (n, p) for n, p in writer.named() if n in found.tensors or not (self.fresh and n.startswith(self.fresh))
        ]
        other = sorted(({name for name, _ in named} | fixed.keys()) ^ found.tensors.keys())
        if other:
            raise ModelError(
                f"{found.folder} was trained with other options, by its tensors {', '.join(other[:3])}",
                hint="Go on from what this very training made, with the same options.",
            )
        taken = {name: found.take(name, *parameter.shape) for name, parameter in named}
        kept = {name: found.take(name, *tensor.shape) for name, tensor in fixed.items()}
        with torch.no_grad():
            for name, parameter in named:
                parameter.copy_(taken[name])
        writer.fix(kept)

    def done(self, writer: RowWriter) -> None:
        """Takes off the generator what the writer put on it."""

    def run(
        self, out: Path, *, data: Path | None = None, resume: bool = True, on_event: OnEvent | None = None
    ) -> TrainingReport:
        """Trains, and leaves ``config.json``, ``model.safetensors`` and a model card in ``out``."""
        from ragzip.training.soft_card import write_soft_card

        begun = settled(self, out, method=self.architecture)
        if begun is not self:
            return begun.run(out, data=data, resume=resume, on_event=on_event)
        found = read_soft(self.sets, self.texts, most=self.most, held_out=self.held_out, data=data, seed=self.seed)
        lm = load_causal_lm(self.base, dtype=self.dtype, device=self.device, own=True)
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
        settings = LoopSettings.of(
            self,
            self.steps,
            weight_decay=0.0,
            checkpoint_every=self.checkpoint_every,
            patient_until=round(self.telling * self.steps) if self.telling < 1 and found.tellings else 0,
        )
        writer = self.writer(lm, found if self.start is None else None)
        try:
            self.take_up(writer)
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
            more = went_on(self.start, self.start_sha256 or "", trainer_config(self)) if self.start else ""
            write_soft_card(out, self, outcome, outcome.data or found, more=more)
        result = outcome.result
        return TrainingReport(out, result.steps, result.seconds, result.metrics, result.stopped)
