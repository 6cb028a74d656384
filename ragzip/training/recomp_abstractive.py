"""Training of ``recomp_abstractive``: a low-rank adapter by which a language model writes what helps, or nothing."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ragzip.compressors._writer import Writer, tidy
from ragzip.compressors.recomp_abstractive import NOTHING, SURE, said
from ragzip.errors import ModelError, UsageError
from ragzip.models import EMBEDDER, GENERATOR, load_causal_lm, unload
from ragzip.models.locate import resolve
from ragzip.training._summary_data import SETS, Pair, make_pairs
from ragzip.training.baselines import of_summaries, summary_scores
from ragzip.training.encoders import check_trainer, divide, numbers
from ragzip.training.examples import fingerprint, read_examples
from ragzip.training.identity import identity
from ragzip.training.loop import LoopSettings, train
from ragzip.training.low_rank import LowRank, check_base, check_same, save_adapter
from ragzip.training.options import OnEvent, TrainingEvent, TrainingReport
from ragzip.training.pairs import plan
from ragzip.training.starts import check_start, settled

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.models import CausalLM

_WRITTEN = 96  # most tokens of what is written; targets have at most 80
_DEFAULT_MOST = ("squad=2500", "squadshifts=2500")


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids of a prompt with its completion, and where the completion begins."""

    ids: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class RecompAbstractiveTraining:
    """Imitation of marked sentences, or of silence, after RECOMP (https://arxiv.org/abs/2310.04408).

    RECOMP imitates summaries that a large model wrote, empty where they do not improve the answer. Here people's
    marks take the place of the large model, and passages that do not help that of the answers. The base never
    changes: only the adapter's matrices are trained, by the loss of what is to be written.

    Attributes:
        base: A causal language model with a chat template.
        sets: Training sets with marked sentences.
        most: ``set=number``: at most so many questions of a set.
        passages: Most passages of a prompt.
        empty: Share of the examples in which none helps.
        partial: Share of those with several that help in which only some of these are shown: long contexts are read in
            parts.
        filtered: Share of the examples whose passages are shown as what ``bm25_sentences`` leaves of them: long
            contexts are cheaper to read, and better understood, behind a filter.
        wide: Most passages of these, before the filter.
        rank: Of the adapter.
        alpha: The adapter counts alpha / rank.
        max_tokens: Examples that are longer are left out; the compressor reads longer contexts in parts of so many.
        batch: Examples in a step.
        steps: Optimiser steps.
        lr: Highest learning rate.
        eval_every: Steps between evaluations.
        patience: Evaluations without a better one before training stops; 0 never.
        held_out: Examples kept out of training, with their passages.
        written: For so many of them an evaluation has the model write.
        seed: For every draw.
        dtype: Number format of the forward and backward passes.
        device: Where to train.
        start: An adapter that was trained before, with the same base, rank and alpha, to go on from: a folder, or the
            name of shipped weights, such as ``recomp-abstractive-smollm2``. None starts afresh. Held-out examples are
            new to it only where it was trained with the same sets, ``most``, ``held_out`` and ``seed``.
        start_sha256: Checksum of its file, which then must have it; the card fills it in.
    """

    base: str = GENERATOR
    sets: tuple[str, ...] = SETS
    most: tuple[str, ...] = _DEFAULT_MOST
    passages: int = 4
    empty: float = 0.2
    partial: float = 0.0
    filtered: float = 0.0
    wide: int = 10
    rank: int = 16
    alpha: int = 32
    max_tokens: int = 900
    batch: int = 6
    steps: int = 350
    lr: float = 5e-4
    eval_every: int = 175
    patience: int = 0
    held_out: int = 120
    written: int = 80
    seed: int = 0
    dtype: str = "auto"
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

        begun = settled(self, out, method="recomp_abstractive")
        if begun is not self:
            return begun.run(out, data=data, resume=resume, on_event=on_event)
        check_base(self.base)
        if self.start is not None:
            check_same(resolve(self.start), self.base, self.rank, self.alpha)
        found = read_examples(self.sets, data=data, seed=self.seed, most=numbers("most", self.most))
        held_examples, kept_examples = divide(found, self.held_out, self.seed)
        make = functools.partial(
            make_pairs,
            seed=self.seed,
            passages=self.passages,
            empty=self.empty,
            partial=self.partial,
            filtered=self.filtered,
            wide=self.wide,
        )
        random.Random(f"{self.seed} order").shuffle(kept_examples)  # noqa: S311 - no secret
        wanted = 2 * self.steps * self.batch
        lm = load_causal_lm(self.base, dtype=self.dtype, device=self.device, own=True)
        made = self._prompts(lm, make(kept_examples[:wanted]))
        kept, ids = [prompt for prompt, _ in made], {pair.id for _, pair in made}
        pairs = self._prompts(lm, make(held_examples))
        random.Random(f"{self.seed} written").shuffle(pairs)  # noqa: S311 - no secret
        held, judged = [prompt for prompt, _ in pairs], [pair for _, pair in pairs[: self.written]]
        if not kept or not held:
            raise UsageError(
                f"{len(kept)} prompts to train on and {len(held)} held out fit {self.max_tokens} tokens",
                hint="Give more sets, another held_out, fewer passages, or a larger max_tokens.",
            )
        adapter = LowRank(lm, self.rank, self.alpha, self.seed)
        if self.start is not None:
            adapter.go_on(resolve(self.start))
        order = plan([len(prompt.ids) for prompt in kept], self.batch, self.steps, self.seed)
        settings = LoopSettings.of(self, len(order), weight_decay=0.0, checkpoint_every=50)
        try:
            untrained = evaluate(lm, held, judged)
            if on_event:
                on_event(TrainingEvent("eval", 0, len(order), None, untrained, "before training"))
            result = train(
                adapter.named(),
                lambda step: loss(lm, [kept[i] for i in order[step]]),
                lambda: evaluate(lm, held, judged),
                settings,
                out,
                config=identity(self, fingerprint(kept_examples), self.base),
                best="likelihood",
                save=functools.partial(self._save, out, adapter.targets),
                resume=resume,
                on_event=on_event,
            )
        finally:
            adapter.remove()
            unload()  # nobody else may get the model that was trained on
        others = of_summaries(
            [(p.question, p.passages, p.target) for p in judged],
            EMBEDDER,
            self.seed,
            dtype=self.dtype,
            device=self.device,
        )
        write_result(
            out,
            self,
            result,
            untrained=untrained,
            baselines=others,
            examples=[example for example in kept_examples[:wanted] if example.id in ids],
            held=len(held),
            what=f"{len(held):,} training examples that were held out; overlap and gate on {len(judged):,}",
        )
        return TrainingReport(out, result.steps, result.seconds, result.metrics, result.stopped)

    def _save(self, out: Path, targets: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
        task: Literal["CAUSAL_LM"] = "CAUSAL_LM"
        save_adapter(out, self.base, targets, self.rank, self.alpha, tensors, task=task, window=self.max_tokens)

    def _prompts(self, lm: CausalLM, pairs: Sequence[Pair]) -> list[tuple[Prompt, Pair]]:
        writer, end = Writer(lm), lm.tokenizer.eos_token_id
        found = []
        for pair in pairs:
            head = writer.encode(pair.request).ids
            if head is None or end is None:
                raise ModelError(f"{self.base} has no chat template that ends a turn", hint="Use an instruct model.")
            ids = (*head, *lm.text.encode([pair.completion])[0], int(end))
            if len(ids) <= min(self.max_tokens, lm.window) and len(head) + _WRITTEN <= lm.window:
                found.append((Prompt(ids, len(head)), pair))
        return found


def loss(lm: CausalLM, prompts: Sequence[Prompt]) -> Tensor:
    """Mean loss of the completions' tokens; logits are made for these alone."""
    import torch

    total, count = [], 0
    for prompt in prompts:  # one by one: prompts differ in length, and attention would be paid for padding
        ids = torch.tensor([prompt.ids], device=lm.device)
        keep = len(prompt.ids) - prompt.start
        logits = lm.model(input_ids=ids, logits_to_keep=keep + 1, use_cache=False).logits[0, :-1].float()
        total.append(torch.nn.functional.cross_entropy(logits, ids[0, prompt.start :], reduction="sum"))
        count += keep
    return torch.stack(total).sum() / count


def evaluate(lm: CausalLM, held: Sequence[Prompt], judged: Sequence[Pair]) -> dict[str, float]:
    """How well held-out examples are done.

    Returns:
        ``overlap``: F1 of the words that are written with those of the target, 1 where both are empty; ``gate``: mean
        of how often nothing is written where nothing helps and something where something does; ``likelihood``: of a
        completion's token, geometric mean; ``right``: share of its tokens that come first.
    """
    import torch

    losses, right, count = 0.0, 0, 0
    with torch.inference_mode():
        for prompt in held:
            ids = torch.tensor([prompt.ids], device=lm.device)
            keep = len(prompt.ids) - prompt.start
            logits = lm.model(input_ids=ids, logits_to_keep=keep + 1, use_cache=False).logits[0, :-1].float()
            wanted = ids[0, prompt.start :]
            losses += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))
            right += int((logits.argmax(-1) == wanted).sum())
            count += keep
    writer = Writer(lm)
    told = [
        writer.write_unless([writer.encode(pair.request)], max_new_tokens=_WRITTEN, word=NOTHING, least=SURE)[0][0]
        for pair in judged
    ]
    written = summary_scores([said(tidy(text)) for text in told], [pair.target for pair in judged])
    return {**written, "likelihood": math.exp(-losses / max(count, 1)), "right": right / max(count, 1)}
