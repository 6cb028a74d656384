"""Training of ``exit``: a low-rank adapter by which a language model says of each sentence whether it helps."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragzip.compressors._judge import Judge, load_judge
from ragzip.errors import ModelError, UsageError
from ragzip.models import EMBEDDER, GENERATOR, Dtype, load_encoder, prefill
from ragzip.models.locate import resolve
from ragzip.models.prefix import next_logits, twin
from ragzip.training._judged_data import Group, Judged, make_groups
from ragzip.training.baselines import of_groups
from ragzip.training.encoders import check_trainer, divide, numbers
from ragzip.training.examples import EXTRA, LABELLED, Example, fingerprint, read_examples
from ragzip.training.identity import identity
from ragzip.training.loop import LoopSettings, train
from ragzip.training.low_rank import Adaptable, LowRank, check_base, check_same, save_adapter
from ragzip.training.negatives import mine
from ragzip.training.options import OnEvent, TrainingEvent, TrainingReport
from ragzip.training.pairs import plan
from ragzip.training.starts import check_start, settled

if TYPE_CHECKING:
    from torch import Tensor

_DEFAULT_MOST = (
    "squad=3000",
    "squadshifts=2500",
    "fever_rationale=1500",
    "policyqa=800",
    "qmsum=200",
    "squad_sentences=800",
    "squad_paragraphs=800",
)
_WINDOW = 4096
_OTHERS = 2  # passages of a held-out group that do not help
_POOL = 10  # for each held-out example so many others, whose passages can be these
_PASS = 8192  # most tokens of a pass with several passages, padding included, on a GPU
_SAME = 1e-2  # of logits whose size is about ten; in bf16 rounding alone comes to a tenth


@dataclass(frozen=True)
class EXITTraining:
    """Yes or No for each sentence, after EXIT (https://arxiv.org/abs/2412.12559).

    The loss is the cross-entropy of p(Yes) against p(No) with what people marked, as the compressor asks: question and
    passage, then the sentence. All sentences of a passage are read behind one reading of question and passage, each
    blind to the others, so that a passage costs two or three times its own tokens instead of its sentences' number of
    times. The base never changes: only the adapter's matrices are trained. Few sentences help: ``positive`` makes up
    for it, as the balanced examples of the paper do, so that one half is where a doubtful sentence is kept.

    Attributes:
        base: A causal language model. It is asked as ``prompt: chat`` asks, and only so can be what comes out.
        sets: Training sets with marked sentences.
        most: ``set=number``: at most so many questions of a set.
        repeat: ``set=number``: so often the questions of a set, each time with other passages that do not help.
        negatives: Passages that do not help, beside each one that does.
        sentences: Most sentences of a passage that are judged in training.
        positive: Weight of a sentence that helps, where that of the others is 1.
        rank: Of the adapter.
        alpha: The adapter counts alpha / rank.
        max_tokens: Passages that take more, with their judged sentences, are left out.
        batch: Passages that help, in a step; those that do not stand beside them.
        steps: Optimiser steps.
        lr: Highest learning rate.
        eval_every: Steps between evaluations.
        patience: Evaluations without a better one before training stops; 0 never.
        held_out: Examples kept out of training; what helps one of them is in no other.
        seed: For every draw.
        dtype: Number format of the forward and backward passes.
        device: Where to train.
        start: An adapter that was trained before, with the same base, rank and alpha, to go on from: a folder, or the
            name of shipped weights, such as ``exit-smollm2``. None starts afresh. Held-out examples are new to it only
            where it was trained with the same sets, ``most``, ``held_out`` and ``seed``.
        start_sha256: Checksum of its file, which then must have it; the card fills it in.
    """

    base: str = GENERATOR
    sets: tuple[str, ...] = (*LABELLED, "musique", *EXTRA)
    most: tuple[str, ...] = _DEFAULT_MOST
    repeat: tuple[str, ...] = ("hotpotqa=3", "2wikimultihopqa=3", "musique=3", "nq_multidoc=2")
    negatives: int = 1
    sentences: int = 6
    positive: float = 3.0
    rank: int = 6
    alpha: int = 12
    max_tokens: int = 560
    batch: int = 3
    steps: int = 200
    lr: float = 8e-4
    eval_every: int = 200
    patience: int = 0
    held_out: int = 100
    seed: int = 0
    dtype: Dtype = "auto"
    device: str = "auto"
    start: str | None = None
    start_sha256: str | None = None

    def __post_init__(self) -> None:
        check_trainer(self)
        check_start(self.start, self.start_sha256)

    def run(
        self, out: Path, *, data: Path | None = None, resume: bool = True, on_event: OnEvent | None = None
    ) -> TrainingReport:
        """Trains, and leaves ``adapter_config.json``, ``adapter_model.safetensors`` and a model card in ``out``."""
        from ragzip.training.cards import write_result

        begun = settled(self, out, method="exit")
        if begun is not self:
            return begun.run(out, data=data, resume=resume, on_event=on_event)
        check_base(self.base)
        if self.start is not None:
            check_same(resolve(self.start), self.base, self.rank, self.alpha)
        judge = load_judge(self.base, "chat", _WINDOW, dtype=self.dtype, device=self.device)
        kept_examples, held_examples = self.examples(data, on_event)
        kept, held = self._groups(judge, kept_examples, held_examples)
        model = twin(judge.lm, judge.answers)
        check_packed(judge, model, max((j for group in (*kept, *held) for j in group.judged), key=lambda j: j.tokens))
        adapter = LowRank(Adaptable(self.base, model), self.rank, self.alpha, self.seed)
        if self.start is not None:
            adapter.go_on(resolve(self.start))
        order = plan([group.tokens for group in kept], self.batch, self.steps, self.seed)
        settings = LoopSettings.of(self, len(order), weight_decay=0.0, checkpoint_every=50)
        untrained = evaluate(model, held)
        if on_event:
            on_event(TrainingEvent("eval", 0, len(order), None, untrained, "before training"))
        result = train(
            adapter.named(),
            lambda step: losses(model, [kept[i] for i in order[step]], self.positive),
            lambda: evaluate(model, held),
            settings,
            out,
            config=identity(self, fingerprint(kept_examples), self.base),
            best="score",
            save=partial(save_adapter, out, self.base, adapter.targets, self.rank, self.alpha, task="CAUSAL_LM"),
            resume=resume,
            on_event=on_event,
        )
        shown = [(group.question, group.passages) for group in held]
        read = {kept[i].question for batch in order[: result.steps] for i in batch}
        write_result(
            out,
            self,
            result,
            untrained=untrained,
            baselines=of_groups(shown, EMBEDDER, self.seed, by_sentence=True, dtype=self.dtype, device=self.device),
            examples=[example for example in kept_examples if example.question in read],
            held=len(held),
            what=f"{len(held):,} held-out groups: a question with a passage that helps and up to {_OTHERS} that do "
            f"not, of at most {self.max_tokens:,} tokens, their sentences included",
        )
        return TrainingReport(out, result.steps, result.seconds, result.metrics, result.stopped)

    def examples(self, data: Path | None, on_event: OnEvent | None = None) -> tuple[list[Example], list[Example]]:
        """Examples to train on, no more than the steps can read, and held-out ones; with their hard negatives."""

        def tell(done: int, total: int) -> None:
            if on_event:
                message = f"passages read {done:,} of {total:,}"
                on_event(TrainingEvent("data", 0, self.steps, None, {}, message))

        found = read_examples(self.sets, data=data, seed=self.seed, most=numbers("most", self.most))
        held, kept = divide(found, self.held_out, self.seed)
        random.Random(f"{self.seed} order").shuffle(kept)  # noqa: S311 - no secret
        kept = kept[: 2 * self.steps * self.batch]
        dig = partial(
            mine, encoder=load_encoder(EMBEDDER, dtype=self.dtype, device=self.device), seed=self.seed, on_progress=tell
        )
        # apart: passages that are held out must not come into training as some that do not help
        mined = dig([*held, *kept[: _POOL * len(held)]], wanted=_OTHERS)
        ids = {example.id for example in held}
        return dig(kept, wanted=2 * self.negatives), [example for example in mined if example.id in ids]

    def _groups(
        self, judge: Judge, kept: Sequence[Example], held: Sequence[Example]
    ) -> tuple[list[Group], list[Group]]:
        """Groups to train on, those of sets that are repeated with other negatives each time, and held-out ones."""
        make = partial(make_groups, judge, max_tokens=min(self.max_tokens, judge.window))
        repeats = numbers("repeat", self.repeat)
        groups: list[Group] = []
        for turn in range(max([1, *repeats.values()])):
            some = [example for example in kept if turn == 0 or repeats.get(example.set_name, 1) > turn]
            groups += make(some, negatives=self.negatives, seed=self.seed + 1000 * turn, most=self.sentences)
        last = make(held, negatives=_OTHERS, seed=self.seed)
        if not groups or not last:
            raise UsageError(
                f"{len(groups)} passages to train on and {len(last)} held out fit {self.max_tokens} tokens",
                hint="Give more sets, another held_out, or a larger max_tokens.",
            )
        return groups, last


def logits(model: Any, some: Sequence[Judged]) -> list[Tensor]:
    """How much more Yes than No for each sentence, ``[n_sentences]`` a passage: the logit of what ``Judge.yes`` gives.

    One pass: the endings stand one after the other behind the beginning, at the positions they would have alone, and
    see it and themselves. Gradients flow through both.

    Args:
        model: A twin whose output layer is Yes and No, see ``ragzip.models.prefix.twin``.
        some: Passages with their sentences; they are padded to the longest.
    """
    import torch

    width = max(judged.tokens for judged in some)
    ids, places, owner = (torch.zeros(len(some), width, dtype=torch.long) for _ in range(3))
    ends = []
    for row, judged in enumerate(some):
        n, lengths = len(judged.beginning), torch.tensor([len(ending) for ending in judged.endings])
        flat = [*judged.beginning, *(token for ending in judged.endings for token in ending)]
        at = [*range(n), *(n + place for ending in judged.endings for place in range(len(ending)))]
        ids[row, : len(flat)], places[row, : len(flat)] = torch.tensor(flat), torch.tensor(at)
        owner[row, n : len(flat)] = torch.repeat_interleave(torch.arange(len(lengths)), lengths) + 1
        owner[row, len(flat) :] = -1  # padding, which nothing else sees
        ends.append(n + lengths.cumsum(0) - 1)
    ids, places, owner = (each.to(model.device) for each in (ids, places, owner))
    sees = ((owner[:, :, None] == owner[:, None, :]) | (owner[:, None, :] == 0)).tril()
    mask = sees[:, None]
    if model.config._attn_implementation not in ("sdpa", prefill.NAME):  # others add it to the scores
        mask = torch.zeros(mask.shape, dtype=model.dtype, device=model.device).masked_fill_(~mask, float("-inf"))
    found = model(input_ids=ids, position_ids=places, attention_mask=mask, use_cache=False).logits
    difference = found[..., 0] - found[..., 1]
    return [difference[row, last.to(model.device)] for row, last in enumerate(ends)]


def losses(model: Any, groups: Sequence[Group], positive: float = 1.0) -> Iterator[Tensor]:
    """The loss of some groups, in parts that add up to the mean over passages."""
    import torch
    from torch.nn import functional

    every = [judged for group in groups for judged in group.judged]
    weight = torch.tensor(positive, device=model.device)
    for some in _together(model, every):
        each = []
        for row, judged in zip(logits(model, some), some, strict=True):
            wanted = torch.tensor(judged.labels, device=model.device)
            each.append(functional.binary_cross_entropy_with_logits(row, wanted, pos_weight=weight))
        yield torch.stack(each).sum() / len(every)


def _together(model: Any, some: Sequence[Judged]) -> Iterator[list[Judged]]:
    """Passages for one pass: one at a time on a processor, which would pay for the padding."""
    most = 0 if model.device.type == "cpu" else _PASS
    batch: list[Judged] = []
    for judged in some:
        if batch and (len(batch) + 1) * max(each.tokens for each in (*batch, judged)) > most:
            yield batch
            batch = []
        batch.append(judged)
    if batch:
        yield batch


def evaluate(model: Any, groups: Sequence[Group]) -> dict[str, float]:
    """How well held-out groups are judged.

    Returns:
        ``sentence``: how often the sentence that is surest to help is one that does, over passages that hold both
        kinds; ``passage``: how often the surest sentence of a group is one of the passage that helps; ``score``: mean
        of these two; ``f1``: of the sentences that are kept at one half with those that help, over all passages.
    """
    import torch

    hits: list[bool] = []
    firsts: list[bool] = []
    both = kept = helping = 0
    with torch.inference_mode():
        for group in groups:
            rows = [row.cpu().tolist() for some in _together(model, group.judged) for row in logits(model, some)]
            labels = group.judged[0].labels
            if 0 < sum(labels) < len(labels):
                hits.append(labels[max(range(len(labels)), key=rows[0].__getitem__)] > 0)
            if len(rows) > 1:
                firsts.append(max(rows[0]) > max(map(max, rows[1:])))
            for row, judged in zip(rows, group.judged, strict=True):
                kept += sum(value >= 0 for value in row)
                helping += sum(label > 0 for label in judged.labels)
                both += sum(value >= 0 and label > 0 for value, label in zip(row, judged.labels, strict=True))
    sentence, passage = _mean(hits), _mean(firsts)
    return {
        "score": (sentence + passage) / 2,
        "sentence": sentence,
        "passage": passage,
        "f1": 2 * both / max(kept + helping, 1),
    }


def check_packed(judge: Judge, model: Any, judged: Judged) -> None:
    """Compares the one pass of training with those of the compressor, one for each sentence.

    Raises:
        ModelError: They differ: the architecture does something of its own with positions or masks.
    """
    import torch

    alone = next_logits(judge.lm, judged.beginning, judged.endings, judge.answers, shared=False)
    try:
        with torch.inference_mode():
            packed = logits(model, [judged])[0].cpu().numpy()
        far = float(abs(packed - (alone[:, 0] - alone[:, 1])).max())
        wrong = "" if far < (_SAME if judge.lm.dtype == "float32" else 30 * _SAME) else f"a logit differs by {far:.3g}"
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        wrong = str(error).strip()[:200]
    if wrong:
        raise ModelError(
            f"{judge.lm.name} cannot judge several sentences in one pass: {wrong}",
            hint="Train another model: one with full attention, such as those of the Llama family.",
        )


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 0.0
