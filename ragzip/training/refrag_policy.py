"""Training of the policy of ``refrag``: which chunks to expand, by policy gradient."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragzip.compressors._expansion import most_as_text
from ragzip.compressors._options import check_count, check_number
from ragzip.compressors.refrag import mixed
from ragzip.errors import ConfigError, ModelError, UsageError
from ragzip.models import load_causal_lm
from ragzip.models.chunks import FEATURES, ChunkEncoder, load_chunks, preferences
from ragzip.models.soft_folder import open_soft, save_soft
from ragzip.training.encoders import check_format
from ragzip.training.identity import identity
from ragzip.training.loop import LoopSettings, train
from ragzip.training.options import OnEvent, TrainingEvent, TrainingReport, trainer_config
from ragzip.training.soft_data import ANSWERED, Asking, read_soft
from ragzip.training.soft_fit import fitting
from ragzip.training.soft_loop import SoftOutcome
from ragzip.training.soft_losses import checksum, cycle, device_positions, nll
from ragzip.training.soft_options import check_sets
from ragzip.training.soft_prompts import Frames, Reader
from ragzip.training.starts import same_split
from ragzip.types import Context, Passage, Query, SoftSegment, context_of

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.models import CausalLM

_SHARP = 8.0  # what a whole of a cosine counts in the first logits, against noise whose deviation is 1.3
_KEPT = ("ragzip_format", "architecture", "base", "base_sha256", "encoder", "encoder_sha256", "dimensions", "tensors")


@dataclass(frozen=True)
class REFRAGPolicyTraining:
    """REINFORCE over choices of chunks, after REFRAG (https://arxiv.org/abs/2509.01092).

    The reward is the negative loss of the reference answer, the logarithm of its perplexity, when the chosen chunks are
    text and the others rows. Several choices are drawn for each question, by Gumbel noise on the policy's logits, and
    their mean reward is the baseline. Encoder, projection and generator stay as they are. The policy begins as
    ``similarity``: by the cosine to the question.

    Attributes:
        model: Weights made by ``ragzip train refrag``: the policy is added to them, in a folder of its own.
        sets: Sets of questions with passages and short answers.
        most: ``set=number``: at most so many questions of a set.
        passages: Most passages of a question.
        expand: Share of the chunks that are chosen.
        draws: Choices for each question.
        width: Of the policy's hidden layer.
        batch: Questions in a step.
        steps: Optimiser steps.
        lr: Highest learning rate.
        eval_every: Steps between evaluations.
        patience: Evaluations without a better one before training stops; 0 never.
        checkpoint_every: Steps between checkpoints.
        held_out: Questions kept out of training.
        seed: For every draw.
        dtype: Number format of the generator.
        device: Where to train.
    """

    model: str = ""
    sets: tuple[str, ...] = ANSWERED
    most: tuple[str, ...] = ()
    passages: int = 4
    expand: float = 0.25
    draws: int = 4
    width: int = 64
    batch: int = 4
    steps: int = 300
    lr: float = 1e-3
    eval_every: int = 100
    patience: int = 0
    checkpoint_every: int = 25
    held_out: int = 100
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        check_sets(self.sets, (), self.most)
        check_format(self.dtype, self.device)
        for option, least in (("draws", 2), ("width", 1), ("batch", 1), ("steps", 1), ("eval_every", 1)):
            check_count(option, getattr(self, option), least=least)
        for option in ("held_out", "passages", "checkpoint_every"):
            check_count(option, getattr(self, option), least=1)
        check_count("patience", self.patience)
        check_number("expand", self.expand, low=0, high=1)
        if not 0 < self.expand < 1:
            raise ConfigError("expand", f"must be between 0 and 1, not {self.expand!r}")
        if not 0 < self.lr < math.inf:
            raise ConfigError("lr", f"must be a number above 0, not {self.lr!r}")

    def run(
        self, out: Path, *, data: Path | None = None, resume: bool = True, on_event: OnEvent | None = None
    ) -> TrainingReport:
        """Trains, and leaves the weights with their policy and a model card in ``out``."""
        from ragzip.training.soft_card import write_soft_card

        if not self.model:
            raise ConfigError("model", "is missing", hint="Give the folder of weights made by: ragzip train refrag")
        found = read_soft(self.sets, (), most=self.most, held_out=self.held_out, data=data, seed=self.seed)
        if not found.askings or not found.held_askings:
            raise UsageError(
                f"of {len(found.askings) + len(found.held_askings):,} questions none is left to train on, or none is "
                "held out",
                hint="Give more sets, or another held_out.",
            )
        old = open_soft(self.model, "refrag")
        encoder = load_chunks(self.model, dtype=self.dtype, device=self.device)
        lm = load_causal_lm(str(old.config["base"]), dtype=self.dtype, device=self.device)
        found, long = fitting(found, lm, None, self.passages)
        said = f"{long:,} examples left out that may not fit the window of {lm.window:,} tokens" if long else ""
        if not found.askings or not found.held_askings:
            few = f"there are not enough examples to train on and to hold out: {said}"
            raise ModelError(few, hint="Lower held_out, or use a generator with a longer window.")
        if said and on_event:
            on_event(TrainingEvent("data", 0, self.steps, None, {}, said))
        before = checksum(lm.model)
        policy = _Policy(self, lm, encoder)
        settings = LoopSettings.of(self, self.steps, weight_decay=0.0, checkpoint_every=self.checkpoint_every)
        untrained, floor = policy.evaluate(found.held_askings, "similarity"), policy.floor(found.held_askings)
        if on_event:
            note = "chunks closest to the question expanded"
            on_event(TrainingEvent("eval", 0, self.steps, None, untrained, note))

        def save(tensors: Mapping[str, Tensor]) -> None:
            extra = {key: value for key, value in old.config.items() if key not in _KEPT}
            same = {key: value for key, value in old.tensors.items() if not key.startswith("policy.")}
            base, encoder_name = str(old.config["base"]), str(old.config["encoder"])
            save_soft(
                out,
                architecture="refrag",
                base=base,
                dimensions=old.dimensions,
                tensors={**same, **tensors},
                encoder=encoder_name,
                **extra,
            )

        result = train(
            policy.named(),
            lambda step: policy.losses(cycle(found.askings, step, self.batch, self.seed), step),
            lambda: policy.evaluate(found.held_askings, "trained"),
            settings,
            out,
            config=identity(self, found.fingerprint, self.model),
            best="answer",
            save=save,
            resume=resume,
            on_event=on_event,
        )
        if checksum(lm.model) != before:
            raise ModelError("the generator's parameters changed", hint="This is a defect of ragzip: please report it.")
        outcome = SoftOutcome(result, untrained, *floor)
        write_soft_card(out, self, outcome, found, base=str(old.config["base"]), more=self._split())
        return TrainingReport(out, result.steps, result.seconds, result.metrics, result.stopped)

    def _split(self) -> str:
        """What the card has to say where the rows may have been trained on what is held out here."""
        if same_split(self.model, trainer_config(self)):
            return ""
        return "Its rows may have been trained on some of the questions that are held out here."


class _Policy:
    """The policy, and what choices come to."""

    def __init__(self, options: REFRAGPolicyTraining, lm: CausalLM, encoder: ChunkEncoder) -> None:
        import torch

        self._options, self._lm, self._encoder = options, lm, encoder
        self._held_reads: list[_Read] = []
        self._frames = Frames(lm)
        one = Asking("a", "a", (("", "a"),), (), "")
        other = Asking("Why?", "b", (("t", "b"),), (), "")
        framed = [self._frames.asking(a, a.positives, None) for a in (one, other)]
        framed += [self._frames.asking(a, (), []) for a in (one, other)]
        self._reader = Reader(lm, framed, most=device_positions(lm.device))
        e, h = int(encoder.vectors(["a"]).shape[1]), options.width
        draw = torch.Generator().manual_seed(options.seed)
        first, last = torch.randn(h, e + FEATURES, generator=draw) / e**0.5, torch.zeros(1, h)
        first[0], last[0, 0] = 0, _SHARP  # it begins as the policy "similarity"
        first[0, e] = 1
        values = {"0.weight": first, "0.bias": torch.zeros(h), "2.weight": last, "2.bias": torch.zeros(1)}
        self._tensors = {f"policy.{name}": torch.nn.Parameter(value) for name, value in values.items()}

    def named(self) -> list[tuple[str, Any]]:
        """Two layers."""
        return list(self._tensors.items())

    def losses(self, some: Sequence[Asking], step: int) -> Iterator[Tensor]:
        """The policy gradient of each question."""
        import torch

        for number, asking in enumerate(some):
            draw = random.Random(f"{self._options.seed} policy {step} {number}")  # noqa: S311 - no secret
            read = self._read(asking, draw)
            logits = preferences(self._tensors, read.question, read.vectors)
            count = min(max(most_as_text(self._options.expand, len(logits)), 1), len(logits))  # none teaches nothing
            noise = torch.Generator().manual_seed(draw.getrandbits(48))
            choices = []
            for _ in range(self._options.draws):
                uniform = torch.rand(len(logits), generator=noise).clamp(1e-9, 1 - 1e-9)
                order = (logits.detach() - torch.log(-torch.log(uniform))).argsort(descending=True)
                choices.append(order[:count].tolist())
            with torch.no_grad():
                rewards = -torch.tensor(self._losses([asking] * len(choices), [read] * len(choices), choices))
            gains = (rewards - rewards.mean()) / rewards.std().clamp_min(0.05)
            likely = torch.stack([log_likelihood(logits, choice) for choice in choices])
            yield -(gains * likely).mean() / (len(some) * max(count, 1))

    def evaluate(self, held: Sequence[Asking], how: str) -> dict[str, float]:
        """``answer``: likelihood of a held-out answer's token with the best chunks as text, geometric mean."""
        import torch

        choices = []
        with torch.no_grad():
            for read in self._held(held):
                if how == "trained":
                    scores = preferences(self._tensors, read.question, read.vectors)
                else:
                    scores = torch.nn.functional.cosine_similarity(read.question[None], read.vectors)
                best = scores.argsort(descending=True, stable=True)[: most_as_text(self._options.expand, len(scores))]
                choices.append(best.tolist())
            return {"answer": _likelihood(self._losses(held, self._held(held), choices))}

    def floor(self, held: Sequence[Asking]) -> tuple[float, float]:
        """Likelihood of a held-out answer's token without passages, and with all of them as text."""
        import torch

        answers = [asking.answer for asking in held]
        whole: list[Context[Any]] = [read.context for read in self._held(held)]
        empty: list[Context[Any]] = [Context(context.query, (), context.passages) for context in whole]
        with torch.no_grad():
            return _likelihood(self._of(empty, answers)), _likelihood(self._of(whole, answers))

    def _held(self, held: Sequence[Asking]) -> list[_Read]:
        """Held-out questions, read once: the encoder stays as it is."""
        while len(self._held_reads) < len(held):
            number = len(self._held_reads)
            draw = random.Random(f"{self._options.seed} held {number}")  # noqa: S311 - no secret
            self._held_reads.append(self._read(held[number], draw))
        return self._held_reads

    def _read(self, asking: Asking, draw: random.Random) -> _Read:
        others = list(asking.negatives)
        draw.shuffle(others)
        chosen = [*asking.positives[: self._options.passages], *others][: self._options.passages]
        draw.shuffle(chosen)
        passages = tuple(Passage(str(i), text, title) for i, (title, text) in enumerate(chosen))
        context = context_of(Query(asking.question), passages)
        chunks = mixed(context, self._encoder)
        return _Read(context, chunks, self._encoder.vectors([asking.question])[0], chunks.vectors)

    def _losses(
        self, askings: Sequence[Asking], reads: Sequence[_Read], choices: Sequence[Sequence[int]]
    ) -> list[float]:
        """Losses of answers with some chunks of each context as text."""
        built: list[Context[Any]] = []
        for read, choice in zip(reads, choices, strict=True):
            units = read.chunks.units
            built.append(read.chunks.build(units, {units[i] for i in choice}))
        return self._of(built, [asking.answer for asking in askings])

    def _of(self, contexts: Sequence[Context[Any]], answers: Sequence[str]) -> list[float]:
        """Losses of answers on contexts, per token; contexts of similar length are read together."""
        framed = [self._frames.context(context, answer) for context, answer in zip(contexts, answers, strict=True)]
        rows = [[s.embeddings for s in context.segments if isinstance(s, SoftSegment)] for context in contexts]
        found = [0.0] * len(framed)
        for batch in self._reader.batches(framed, [[len(row) for row in some] for some in rows]):
            read = self._reader.read([framed[i] for i in batch], [rows[i] for i in batch])
            for i, (logits, _) in zip(batch, read, strict=True):
                found[i] = float(nll(logits, framed[i])) / len(framed[i].answer)
        return found


def _likelihood(losses: Sequence[float]) -> float:
    """The geometric mean of what the losses say."""
    return math.exp(-sum(losses) / max(len(losses), 1))


@dataclass(frozen=True, eq=False)
class _Read:
    context: Context[Any]
    chunks: Any
    question: Tensor
    vectors: Tensor


def log_likelihood(logits: Tensor, choice: Sequence[int]) -> Tensor:
    """Of drawing these, one after the other, without putting any back (Plackett-Luce)."""
    import torch

    order = torch.tensor([*choice, *sorted(set(range(len(logits))) - set(choice))])
    ordered = logits[order]
    left = ordered.flip(0).logcumsumexp(0).flip(0)  # of each and all that come after it
    return (ordered - left)[: len(choice)].sum()
