"""One training for all soft compressors: texts told again, then questions answered as with the text at hand.

The generator is frozen, and is its own teacher: where it reads the rows, it is to answer as it does reading the text.
Gradients reach what writes the rows, and nothing else; that the generator's parameters are the same bits after as
before is checked.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ragzip.errors import ModelError
from ragzip.training.identity import identity
from ragzip.training.loop import LoopResult, LoopSettings, train
from ragzip.training.options import OnEvent, TrainingEvent
from ragzip.training.ranks import ranks
from ragzip.training.row_writer import Piece, RowWriter, Told, strange
from ragzip.training.soft_data import Asking, SoftData, Telling
from ragzip.training.soft_fit import fitting
from ragzip.training.soft_losses import checksum, cycle, device_positions, distance, divergence, nll
from ragzip.training.soft_prompts import SAME, TELL, Framed, Frames, Reader

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.models import CausalLM

_LEAST = 0.01  # nats a token that the text must add, for a share of it to mean anything


@dataclass(frozen=True)
class SoftPlan:
    """How training goes on.

    Attributes:
        batch: Examples in a step.
        telling: Share of the steps, from the first one on, in which texts are told again; after these, questions.
        gist: Whether texts are asked for by their meaning rather than word for word.
        passages: Most passages of a question.
        nll: Weight of the loss of the reference answer.
        kl: Weight of the divergence from the teacher's distribution.
        hidden: Weight of the distance from the teacher's hidden states, layer by layer.
        eval_rates: What held-out data are read at, of the writer's ``rates``.
        curriculum: Characters of the first texts that are told again; they grow to their full length over the first
            half of the steps in which texts are told. 0 gives them in full length from the beginning.
    """

    batch: int
    telling: float
    gist: bool
    passages: int
    nll: float
    kl: float
    hidden: float
    eval_rates: tuple[float, ...]
    curriculum: int = 0


@dataclass(frozen=True)
class SoftOutcome:
    """What training came to.

    Attributes:
        result: How it ended.
        untrained: Metrics before it.
        closed: Likelihood of a held-out answer's token without any passage.
        text: With the passages as text.
        tokens: Of texts and passages that were compressed in training, as far as a sample of them says.
        data: What was trained on and held out, without what does not fit the window.
    """

    result: LoopResult
    untrained: Mapping[str, float]
    closed: float
    text: float
    tokens: int = 0
    data: SoftData | None = None


@dataclass(frozen=True, eq=False)
class _Laid:
    """A question whose passages are rows, or text and rows: what is to be written as rows, and how many each has."""

    shown: Sequence[tuple[str, str]]
    pieces: Sequence[Sequence[Piece]]
    soft: Sequence[Told]
    counts: Sequence[int]
    framed: Framed


class _Run:
    """Losses of steps and metrics of held-out data, for one generator and one writer."""

    def __init__(
        self, lm: CausalLM, writer: RowWriter, data: SoftData, plan: SoftPlan, steps: int, seed: int, start: str = ""
    ) -> None:
        self.lm, self.writer, self.data, self.plan, self.steps, self.seed = lm, writer, data, plan, steps, seed
        self.order = f"{seed} {start}".strip()  # going on, not those that were read first come first
        self.ranks, self.frames = ranks(), Frames(lm)
        most = device_positions(lm.device)
        sample = [self.frames.telling(Telling("a", ""), 1, request) for request in (*TELL, *SAME)]
        one = Asking("a", "a", (("", "a"),), (), "")
        other = Asking("Why?", "b", (("t", "b"),), (), "")
        asked = [self.frames.asking(a, a.positives, rows) for a in (one, other) for rows in ([1], None)]
        asked += [self.frames.asking(a, (), []) for a in (one, other)]
        with writer.frozen():
            self.tell, self.ask = Reader(lm, sample, most=most), Reader(lm, asked, most=most)
        self._told = [Told("", telling.text) for telling in data.held_tellings]
        self._floor: tuple[list[float], list[float]] | None = None

    def losses(self, step: int) -> Iterator[Tensor]:
        """The parts of a step's loss that are this process's."""
        draw = random.Random(f"{self.order} step {step}")  # noqa: S311 - no secret
        rate = draw.choice(self.writer.rates)
        if self._tells(step):
            some = cycle(self.data.tellings, step, self.plan.batch, self.order)
            yield from self._tellings([self._cut(telling, step) for telling in some], rate, draw)
        else:
            yield from self._askings(cycle(self.data.askings, step, self.plan.batch, self.order), rate, draw)

    def _cut(self, telling: Telling, step: int) -> Telling:
        """As much of a text as the curriculum allows at this step, up to the end of a word."""
        if not self.plan.curriculum:
            return telling
        done = step / max(self.plan.telling * self.steps, 1.0)
        size = max(round(len(telling.text) * min(2 * done, 1.0)), self.plan.curriculum)
        head = telling.text[:size]
        cut = len(telling.text) > size and head.rfind(" ")
        return Telling(head[:cut] if cut and cut > 0 else head, telling.source)

    def _tellings(self, some: Sequence[Telling], rate: float, draw: random.Random) -> Iterator[Tensor]:
        import torch

        texts = [Told("", telling.text) for telling in some]
        counts = self.writer.counts(texts, rate)
        ways = SAME if self.plan.gist else TELL
        framed = [self.frames.telling(t, n, draw.choice(ways)) for t, n in zip(some, counts, strict=True)]
        total = sum(len(prompt.answer) for prompt in framed)
        mine = self.ranks.share(len(some))
        for numbers in self.tell.batches([framed[i] for i in mine], [[counts[i]] for i in mine]):
            batch = [mine[number] for number in numbers]
            rows = self.writer.rows([texts[i] for i in batch], rate)
            with self.writer.frozen():
                read = self.tell.read([framed[i] for i in batch], [[row] for row in rows])
            parts = [nll(logits, framed[i]) for i, (logits, _) in zip(batch, read, strict=True)]
            yield torch.stack(parts).sum() / total

    def _askings(self, some: Sequence[Asking], rate: float, draw: random.Random) -> Iterator[Tensor]:
        import torch

        plan = self.plan
        shown = [self._shown(asking, draw) for asking in some]
        teach = [self.frames.asking(a, p, None) for a, p in zip(some, shown, strict=True)]
        total = sum(len(prompt.answer) for prompt in teach)
        hidden = plan.hidden > 0
        mine = self.ranks.share(len(some))
        laid = {i: self._laid(some[i], shown[i], rate) for i in mine}
        for numbers in self.ask.batches([teach[i] for i in mine], [[] for _ in mine]):
            batch = [mine[number] for number in numbers]
            given = self._given([laid[i] for i in batch], rate)
            with self.writer.frozen():
                taught: list[Any] = [None for _ in batch]
                if plan.kl or hidden:
                    with torch.no_grad():
                        taught = list(self.ask.read([teach[i] for i in batch], [[] for _ in batch], hidden=hidden))
                read = self.ask.read([laid[i].framed for i in batch], given, hidden=hidden)
            parts = []
            for i, (logits, layers), teacher in zip(batch, read, taught, strict=True):
                loss = plan.nll * nll(logits, teach[i])
                if plan.kl:
                    loss = loss + plan.kl * divergence(logits, teacher[0])
                if hidden:
                    loss = loss + plan.hidden * len(logits) * distance(layers, teacher[1])
                parts.append(loss)
            yield torch.stack(parts).sum() / total

    def _laid(self, asking: Asking, shown: Sequence[tuple[str, str]], rate: float) -> _Laid:
        """A question on passages, of which what is no text becomes rows."""
        pieces = self.writer.pieces(asking.question, shown, rate)
        return self._framed(asking, shown, pieces, rate)

    def _framed(
        self, asking: Asking, shown: Sequence[tuple[str, str]], pieces: Sequence[Sequence[Piece]], rate: float
    ) -> _Laid:
        soft = [piece.told for some in pieces for piece in some if piece.told is not None]
        counts = self.writer.counts(soft, rate)
        return _Laid(shown, pieces, soft, counts, self.frames.asking(asking, shown, counts, pieces))

    def _strange(
        self, asking: Asking, shown: Sequence[tuple[str, str]], pieces: Sequence[Sequence[Piece]], rate: float
    ) -> _Laid:
        """A question on strange pieces; where they do not fit the window, the shortest of them stands for all."""
        try:
            return self._framed(asking, shown, pieces, rate)
        except ModelError:
            short = min((p.told for some in pieces for p in some if p.told), key=lambda told: len(told.text))
            pieces = [[p._replace(told=short) if p.told else p for p in some] for some in pieces]
            return self._framed(asking, shown, pieces, rate)

    def _given(self, laid: Sequence[_Laid], rate: float) -> list[list[Tensor]]:
        """The rows of each question, which are written together."""
        rows = iter(self.writer.rows([text for one in laid for text in one.soft], rate))
        return [[next(rows) for _ in one.soft] for one in laid]

    def _shown(self, asking: Asking, draw: random.Random) -> list[tuple[str, str]]:
        """Passages of a question, those that help among others that do not."""
        size = draw.randint(min(len(asking.positives), self.plan.passages), self.plan.passages)
        helping = list(asking.positives[: self.plan.passages])
        others = list(asking.negatives)
        draw.shuffle(others)
        found = [*helping, *others[: max(size - len(helping), 0)]]
        draw.shuffle(found)
        return found

    def evaluate(self) -> dict[str, float]:
        """Metrics of held-out data.

        Returns:
            ``gain``: how much of what the text adds to the log-likelihood of answers the rows add, 0 where it adds
            nothing; ``right``: share of the tokens of held-out texts that come first when they are told again from
            rows; ``answer``: likelihood of an answer's token, geometric mean; ``other``: the same with rows of other
            passages, as a control; ``alone``: where some text stays, the same with that and no rows. With several rates
            those of the middle one, and of each, ``gain@4``.
        """
        import torch

        closed, text = self.floor()
        metrics: dict[str, float] = {}
        rates, told = self.plan.eval_rates, self.writer.told_at(self.plan.eval_rates)
        gains, answers = [], []
        helps = _mean(closed) - _mean(text)
        middle = len(rates) // 2
        with torch.inference_mode():
            for rate in rates:
                losses = self._answered(rate)
                gain = (_mean(closed) - _mean(losses)) / helps if helps > _LEAST else 0.0
                gains.append(gain)
                answers.append(math.exp(-_mean(losses)))
                if len(rates) > 1:
                    metrics[f"gain@{rate:g}"] = gain
            rights = {rate: self._right(rate) for rate in told}
            if len(told) > 1:
                metrics |= {f"right@{rate:g}": right for rate, right in rights.items()}
            other, alone = self._answered(rates[middle], "strange"), self._answered(rates[middle], "alone")
        found = {"gain": gains[middle], "right": rights[told[len(told) // 2]], "answer": answers[middle]}
        found["other"] = math.exp(-_mean(other))
        if alone:
            found["alone"] = math.exp(-_mean(alone))
        return {**found, **metrics}

    def floor(self) -> tuple[list[float], list[float]]:
        """Losses of held-out answers, per token, without passages and with them as text; read once."""
        import torch

        if self._floor is None:
            with torch.inference_mode(), self.writer.frozen():
                held = self.data.held_askings
                shown = [self._held(number) for number in range(len(held))]
                bare = [self.frames.asking(a, (), []) for a in held]
                full = [self.frames.asking(a, p, None) for a, p in zip(held, shown, strict=True)]
                self._floor = (self._of(bare), self._of(full))
        return self._floor

    def _of(self, framed: Sequence[Framed]) -> list[float]:
        found = [0.0] * len(framed)
        for batch in self.ask.batches(framed, [[] for _ in framed]):
            read = self.ask.read([framed[i] for i in batch], [[] for _ in batch])
            for i, (logits, _) in zip(batch, read, strict=True):
                found[i] = float(nll(logits, framed[i])) / len(framed[i].answer)
        return found

    def _held(self, number: int) -> list[tuple[str, str]]:
        draw = random.Random(f"{self.seed} held {number}")  # noqa: S311 - no secret
        return self._shown(self.data.held_askings[number], draw)

    def tokens(self, steps: int) -> int:
        """Tokens of what was compressed in so many steps, from the mean over the texts of up to eight of them."""
        told = 0.0
        for step in range(0, steps, max(steps // 8, 1)):
            draw = random.Random(f"{self.order} step {step}")  # noqa: S311 - no secret
            if self._tells(step):
                some = cycle(self.data.tellings, step, self.plan.batch, self.order)
                texts = [self._cut(telling, step).text for telling in some]
            else:
                asked = cycle(self.data.askings, step, self.plan.batch, self.order)
                texts = [text for asking in asked for _, text in self._shown(asking, draw)]
            told += sum(self.lm.text.count(texts))
        return round(told / max(len(range(0, steps, max(steps // 8, 1))), 1) * steps)

    def _tells(self, step: int) -> bool:
        """Whether texts are told again in a step, rather than questions answered."""
        telling = step < self.plan.telling * self.steps or not self.data.askings
        return telling and bool(self.data.tellings)

    def _answered(self, rate: float, rows: Literal["own", "strange", "alone"] = "own") -> list[float]:
        """Losses of held-out answers, per token: with the passages' own rows, with strange ones, or with none.

        Nothing where no text stays beside none.
        """
        held = self.data.held_askings
        laid = [self._laid(asking, self._held(number), rate) for number, asking in enumerate(held)]
        if rows == "strange":
            others = strange([one.pieces for one in laid], random.Random(f"{self.seed} strange"))  # noqa: S311
            laid = [self._strange(a, o.shown, p, rate) for a, o, p in zip(held, laid, others, strict=True)]
        if rows == "alone":
            kept = [[[p for p in some if p.told is None] for some in one.pieces] for one in laid]
            if not any(some for one in kept for some in one):
                return []
            laid = [self._framed(a, o.shown, p, rate) for a, o, p in zip(held, laid, kept, strict=True)]
        framed = [one.framed for one in laid]
        found = [0.0] * len(held)
        for batch in self.ask.batches(framed, [one.counts for one in laid]):
            given = self._given([laid[i] for i in batch], rate)
            with self.writer.frozen():
                read = self.ask.read([framed[i] for i in batch], given)
            for i, (logits, _) in zip(batch, read, strict=True):
                found[i] = float(nll(logits, framed[i])) / len(framed[i].answer)
        return found

    def _right(self, rate: float) -> float:
        held, texts = self.data.held_tellings, self._told
        counts = self.writer.counts(texts, rate)
        request = (SAME if self.plan.gist else TELL)[0]
        framed = [self.frames.telling(t, n, request) for t, n in zip(held, counts, strict=True)]
        right = total = 0
        for batch in self.tell.batches(framed, [[n] for n in counts]):
            rows = self.writer.rows([texts[i] for i in batch], rate)
            with self.writer.frozen():
                read = self.tell.read([framed[i] for i in batch], [[row] for row in rows])
            for i, (logits, _) in zip(batch, read, strict=True):
                right += sum(a == b for a, b in zip(logits.argmax(-1).tolist(), framed[i].answer, strict=True))
                total += len(framed[i].answer)
        return right / max(total, 1)


def train_soft(
    trainer: Any,
    lm: CausalLM,
    writer: RowWriter,
    data: SoftData,
    plan: SoftPlan,
    settings: LoopSettings,
    out: Path,
    *,
    save: Callable[[Mapping[str, Tensor]], None],
    resume: bool,
    on_event: OnEvent | None,
) -> SoftOutcome:
    """Trains a writer, and leaves the best of it saved.

    Raises:
        ModelError: No data to train on or to hold out; or the generator's parameters changed.
    """
    data, long = fitting(data, lm, writer, plan.passages)
    said = f"{long:,} examples left out that may not fit the window of {lm.window:,} tokens" if long else ""
    if not (data.tellings or data.askings) or not data.held_askings or not data.held_tellings:
        few = f"there are not enough examples to train on and to hold out{f': {said}' * bool(said)}"
        raise ModelError(few, hint="Lower held_out, or use a generator with a longer window.")
    if said and on_event:
        on_event(TrainingEvent("data", 0, settings.steps, None, {}, said))
    writer.fix(ranks().same({name: tensor.cpu() for name, tensor in writer.fixed().items()}))
    before = checksum(lm.model)
    run = _Run(lm, writer, data, plan, settings.steps, trainer.seed, trainer.start_sha256 or "")
    first = run.ranks.first
    untrained = run.ranks.same(run.evaluate() if first else None)
    floor = run.ranks.same(run.floor() if first else None)
    closed, text = (math.exp(-_mean(losses)) for losses in floor)
    if on_event:
        note = f"before training; without passages {closed:.3f}, with their text {text:.3f}"
        on_event(TrainingEvent("eval", 0, settings.steps, None, untrained, note))
    result = train(
        writer.named(),
        run.losses,
        run.evaluate,
        settings,
        out,
        config=identity(
            trainer,
            data.fingerprint,
            *(getattr(trainer, key, "") for key in ("base", "encoder")),
            **({"order": run.order} if trainer.start else {}),
        ),
        best="answer" if plan.telling < 1 else "right",
        save=lambda tensors: save({**tensors, **writer.fixed()}),
        resume=resume,
        on_event=on_event,
    )
    if checksum(lm.model) != before:
        raise ModelError("the generator's parameters changed while a compressor was trained", hint="Report this.")
    return SoftOutcome(result, untrained, closed, text, run.tokens(result.steps), data)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)
