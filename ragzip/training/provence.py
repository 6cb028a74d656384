"""Training of ``provence``: one cross-encoder that marks what helps in a passage and judges the passage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ragzip.compressors._options import check_number
from ragzip.errors import ConfigError
from ragzip.models import EMBEDDER, load_encoder
from ragzip.models.tuned import save_tuned
from ragzip.training.baselines import of_groups
from ragzip.training.composed import SOURCES, read_composed
from ragzip.training.encoders import check_trainer, divide, longest, named, numbers, read_further
from ragzip.training.examples import EXTRA, LABELLED, RANKED, Example, fingerprint, read_examples
from ragzip.training.identity import identity
from ragzip.training.joint import Joint, evaluate
from ragzip.training.loop import LoopSettings, train
from ragzip.training.negatives import mine, mine_apart
from ragzip.training.options import OnEvent, TrainingEvent, TrainingReport
from ragzip.training.pairs import Group, drawn, make_groups, plan
from ragzip.training.provence_card import AGAIN, steps_of, write
from ragzip.training.second_looks import second_looks
from ragzip.training.starts import check_start, settled

if TYPE_CHECKING:
    from torch import Tensor

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
        again: Share of the questions with one passage that helps that are asked again, together with a sentence of
            it, when nothing else helps. Questions with several such passages are always asked again, after a
            sentence of each. 0 asks none again.
        composed: Questions of two and three steps that are put together from questions of one, at most; see
            ``ragzip.training.composed``. Held-out examples are no part of them; questions beyond ``most`` may be.
        further: ``set=number``: at most so many more questions of a set than ``most`` takes, to train on only: the same
            is held out with them as without.
        start: Weights of an earlier training from the same base, to go on from: a folder, or the name of shipped ones,
            such as ``provence-minilm-l6``. None starts with fresh heads. Held-out examples are new to them only
            where they were trained with the same sets, ``most``, ``held_out`` and ``seed``.
        start_sha256: Checksum of their file, which then must have it; the card fills it in.
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
    again: float = 0.1
    composed: int = 0
    further: tuple[str, ...] = ()
    start: str | None = None
    start_sha256: str | None = None

    def __post_init__(self) -> None:
        check_trainer(self)
        check_number("again", self.again, low=0.0, high=1.0)
        if self.composed and not set(SOURCES) & set(self.sets):
            raise ConfigError("composed", f"needs one of the sets {', '.join(SOURCES)}", hint="Name one in 'sets'.")
        check_start(self.start, self.start_sha256)

    def run(
        self, out: Path, *, data: Path | None = None, resume: bool = True, on_event: OnEvent | None = None
    ) -> TrainingReport:
        """Trains, and leaves ``config.json``, ``model.safetensors`` and a model card in ``out``."""
        begun = settled(self, out, method="provence")
        if begun is not self:
            return begun.run(out, data=data, resume=resume, on_event=on_event)
        model = Joint.start(self)  # before hours of reading: it may not do
        examples = self.examples(data, on_event)
        kept, held, later = self.groups(*examples)
        order = plan([sum(len(pair.ids) for pair in group) for group in kept], self.batch, self.steps, self.seed)
        settings = LoopSettings.of(self, len(order), checkpoint_every=250)
        untrained = self._metrics(model, held, later)
        if on_event:
            on_event(TrainingEvent("eval", 0, len(order), None, untrained, "before training"))
        result = train(
            named(model.backbone, keep=model.keep, rank=model.rank),
            lambda step: model.loss([kept[i] for i in order[step]], self.rank_weight),
            lambda: self._metrics(model, held, later),
            settings,
            out,
            config=identity(self, fingerprint(examples[0]), self.base),
            best="score",
            save=partial(self._save, out, 2 if self.again and steps_of(examples[0]) else 1),
            resume=resume,
            on_event=on_event,
        )
        asked = [examples[1], *([self._later(examples[1])] if later else [])]
        shown = [drawn(some, negatives=self.negatives, seed=self.seed) for some in asked]
        others = [of_groups(some, self.base, self.seed, dtype=self.dtype, device=self.device) for some in shown]
        groups = (len(held), len(later))
        write(out, self, result, untrained, groups, examples=examples[0], baselines=others)
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
        held, kept = divide(found, self.held_out, self.seed)
        kept += read_further(numbers("further", self.further), found, held, data=data, seed=self.seed)
        several = read_composed(self.sets, held, most=self.composed, data=data, seed=self.seed)
        wanted = 2 * self.negatives
        dig = partial(
            mine,
            encoder=load_encoder(self.base, dtype=self.dtype, device=self.device),
            wanted=wanted,
            seed=self.seed,
            on_progress=tell,
        )
        kept, held = mine_apart(kept, held, dig, self.seed)
        kept += dig(several)
        return kept, held

    def groups(self, kept: Sequence[Example], held: Sequence[Example]) -> tuple[list[Group], list[Group], list[Group]]:
        """Groups to train on, those of sets that are repeated with other negatives each time, and held-out ones.

        The last ones are those of held-out questions that are asked again.
        """
        from ragzip.models import load_tokenizer

        make = partial(
            make_groups,
            tokenizer=load_tokenizer(self.base),
            negatives=self.negatives,
            max_tokens=longest(self.base, self.max_tokens),
        )
        repeats = numbers("repeat", self.repeat)
        groups: list[Group] = []
        for turn in range(max(repeats.values(), default=1)):
            seed = self.seed + 1000 * turn
            some = [example for example in kept if turn == 0 or repeats.get(example.set_name, 1) > turn]
            groups += make(some, seed=seed)
            if self.again:
                groups += make(second_looks(some, share=self.again, seed=seed), seed=seed)
        return groups, make(held, seed=self.seed), make(self._later(held), seed=self.seed)

    def _later(self, held: Sequence[Example]) -> list[Example]:
        """The questions that are asked again, and that something helps then."""
        return second_looks(held, share=0.0, seed=self.seed) if self.again else []

    def _metrics(self, model: Joint, held: Sequence[Group], later: Sequence[Group]) -> dict[str, float]:
        found = evaluate(model, held)
        return {**found, AGAIN: evaluate(model, later)["passage"]} if later else found

    def _save(self, out: Path, hops: int, tensors: Mapping[str, Tensor]) -> None:
        save_tuned(
            out,
            architecture="provence",
            base=self.base,
            max_tokens=longest(self.base, self.window),
            tensors=tensors,
            hops=hops,
        )
