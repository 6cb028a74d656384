"""Training of ``llmlingua2``: which words to keep of any text, without a question."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragzip.models import EMBEDDER, GENERATOR, load_tokenizer
from ragzip.models.tuned import save_tuned
from ragzip.text import words
from ragzip.training import examples as sets
from ragzip.training import word_labels
from ragzip.training.encoders import check_trainer, longest, named, new_head, numbers, trainable
from ragzip.training.identity import identity
from ragzip.training.loop import LoopSettings, train
from ragzip.training.options import OnEvent, TrainingEvent, TrainingReport
from ragzip.training.pairs import plan
from ragzip.training.word_labels import Paragraph

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

_SETS = ("squad", "squadshifts", "squad_paragraphs", "policyqa", "qed", "hotpotqa", "2wikimultihopqa", "nq_multidoc")


@dataclass(frozen=True)
class Text:
    """A paragraph as token ids with the word and the label of each token; special tokens have word -1."""

    ids: npt.NDArray[np.int32]
    word: npt.NDArray[np.int32]
    labels: npt.NDArray[np.float32]


@dataclass(frozen=True)
class LLMLingua2Training:
    """Token labels without a question, after LLMLingua-2 (https://arxiv.org/abs/2403.12968), without GPT-4's labels.

    A word is to be kept if it stands in an answer that people gave about its passage, or in what answers a question
    and in the question; the others by how much they surprise the teacher, a language model that reads the passage
    from the left. Only the last layers are trained.

    Attributes:
        base: The encoder to start from.
        teacher: The causal language model whose surprise is distilled; "" for none.
        sets: Training sets with marked sentences and answers.
        paragraphs: At most so many passages, those with most questions first.
        layers: How many of the last layers to train.
        keep: Share of characters at which held-out passages are judged.
        max_tokens: Longest text in training.
        batch: Passages in a step.
        steps: Optimiser steps.
        lr: Highest learning rate.
        eval_every: Steps between evaluations.
        patience: Evaluations without a better one before training stops; 0 never.
        held_out: Passages kept out of training, with all other cuts of them.
        seed: For every draw.
        dtype: Number format of the forward and backward passes.
        device: Where to train.
    """

    base: str = EMBEDDER
    teacher: str = GENERATOR
    sets: tuple[str, ...] = _SETS
    most: tuple[str, ...] = ()
    paragraphs: int = 5000
    layers: int = 4
    keep: float = 0.5
    max_tokens: int = 320
    batch: int = 24
    steps: int = 700
    lr: float = 1e-4
    eval_every: int = 175
    patience: int = 0
    held_out: int = 400
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        check_trainer(self)

    def run(
        self, out: Path, *, data: Path | None = None, resume: bool = True, on_event: OnEvent | None = None
    ) -> TrainingReport:
        """Trains, and leaves ``config.json``, ``model.safetensors`` and a model card in ``out``."""
        from ragzip.models.perplexity import load_perplexity
        from ragzip.training.cards import write_result

        found = sets.read_examples(self.sets, data=data, seed=self.seed, most=numbers("most", self.most))
        given = sorted(word_labels.paragraphs(found), key=lambda p: -len(p.questions))[: self.paragraphs]
        random.Random(f"{self.seed} held out").shuffle(given)  # noqa: S311 - no secret
        held = given[: self.held_out]
        kept = word_labels.apart(given[self.held_out :], held)
        common = word_labels.common_words([p.text for p in kept])
        reader = load_perplexity(self.teacher, dtype=self.dtype, device=self.device) if self.teacher else None

        def tell(done: int, total: int) -> None:
            if on_event:
                on_event(TrainingEvent("data", 0, self.steps, None, {}, f"passages labelled {done:,} of {total:,}"))

        texts = self._texts(kept, word_labels.labels(kept, reader, common, tell))
        model = Classifier(self)
        order = plan([len(text.ids) for text in texts], self.batch, self.steps, self.seed)
        settings = LoopSettings.of(self, len(order), checkpoint_every=175)
        judged = self._texts(held, [_nothing(p) for p in held])
        untrained = model.evaluate(held, judged, self.keep)
        counts = word_labels.word_counts([p.text for p in kept])
        others = word_labels.baselines(held, reader, counts, self.keep, self.seed)
        if on_event:
            on_event(TrainingEvent("eval", 0, len(order), None, {**untrained, **others}, "before training, others"))
        result = train(
            named(model.backbone, keep=model.head),
            lambda step: model.loss([texts[i] for i in order[step]]),
            lambda: model.evaluate(held, judged, self.keep),
            settings,
            out,
            config=identity(self, sets.fingerprint(found), self.base, self.teacher),
            best="answer_recall",
            save=partial(self._save, out),
            resume=resume,
            on_event=on_event,
        )
        baselines = {name: {"answer_recall": value} for name, value in others.items()}
        read = {p.text for p in kept}
        used = [example for example in found if any(marked.text in read for marked in example.positives)]
        write_result(out, self, result, untrained=untrained, baselines=baselines, examples=used, held=len(held))
        return TrainingReport(out, result.steps, result.seconds, result.metrics, result.stopped)

    def _save(self, out: Path, tensors: Mapping[str, Tensor]) -> None:
        save_tuned(
            out, architecture="token_classifier", base=self.base, max_tokens=longest(self.base, 384), tensors=tensors
        )

    def _texts(self, given: Sequence[Paragraph], labels: Sequence[npt.NDArray[np.float32]]) -> list[Text]:
        import numpy as np

        tokenizer, most = load_tokenizer(self.base), longest(self.base, self.max_tokens)
        found = []
        encodings = tokenizer.encode_batch([p.text for p in given])
        for paragraph, encoding, label in zip(given, encodings, labels, strict=True):
            starts = np.array([start for start, _ in words(paragraph.text)])
            places = np.array([end - 1 for _, end in encoding.offsets])
            word = (np.searchsorted(starts, places, side="right") - 1).astype(np.int32)
            word[np.array(encoding.special_tokens_mask, dtype=bool)] = -1
            cut = slice(0, most)
            wanted = np.where(word >= 0, label[np.maximum(word, 0)], 0.0).astype(np.float32)
            found.append(Text(np.array(encoding.ids, dtype=np.int32)[cut], word[cut], wanted[cut]))
        return found


def _nothing(paragraph: Paragraph) -> npt.NDArray[np.float32]:
    import numpy as np

    return np.zeros(len(words(paragraph.text)), dtype=np.float32)


class Classifier:
    """The encoder with its head while it is trained."""

    def __init__(self, settings: LLMLingua2Training) -> None:
        self.backbone, self.device = trainable(
            settings.base, dtype=settings.dtype, device=settings.device, layers=settings.layers
        )
        width = self.backbone.config.hidden_size
        self.head = new_head(width, seed=settings.seed, like=self.backbone.dtype, device=self.device)

    def logits(self, texts: Sequence[Text]) -> tuple[Tensor, Any]:
        """Logits ``[n, n_tokens]`` and which of them are of words, a mask of the same shape."""
        import numpy as np
        import torch

        width = max(len(text.ids) for text in texts)
        ids = np.zeros((len(texts), width), dtype=np.int64)
        mask = np.zeros((len(texts), width), dtype=np.int64)
        real = np.zeros((len(texts), width), dtype=bool)
        for row, text in enumerate(texts):
            ids[row, : len(text.ids)], mask[row, : len(text.ids)] = text.ids, 1
            real[row, : len(text.ids)] = text.word >= 0
        hidden = self.backbone(
            input_ids=torch.from_numpy(ids).to(self.device), attention_mask=torch.from_numpy(mask).to(self.device)
        ).last_hidden_state
        return self.head(hidden).squeeze(-1).float(), real

    def loss(self, texts: Sequence[Text]) -> Tensor:
        """Mean cross-entropy of the words' tokens with their labels, which may lie between 0 and 1."""
        import numpy as np
        import torch

        logits, real = self.logits(texts)
        labels = np.concatenate([text.labels[text.word >= 0] for text in texts])
        wanted = torch.from_numpy(labels).to(self.device)
        chosen = logits[torch.from_numpy(real).to(self.device)]
        return torch.nn.functional.binary_cross_entropy_with_logits(chosen, wanted)

    def evaluate(
        self, held: Sequence[Paragraph], texts: Sequence[Text], keep: float, size: int = 24
    ) -> dict[str, float]:
        """``answer_recall``: share of the answers that survive whole at this share of the characters."""
        import numpy as np
        import torch

        scores: list[Any] = [None] * len(held)
        order = sorted(range(len(held)), key=lambda i: len(texts[i].ids))
        for start in range(0, len(order), size):
            some = order[start : start + size]
            with torch.inference_mode():
                logits, _ = self.logits([texts[i] for i in some])
            for row, number in enumerate(some):
                word = texts[number].word
                values = logits[row, : len(word)].sigmoid().cpu().numpy()[word >= 0]
                count = len(words(held[number].text))
                sums = np.bincount(word[word >= 0], weights=values, minlength=count)
                scores[number] = sums / np.maximum(np.bincount(word[word >= 0], minlength=count), 1)
        return {"answer_recall": word_labels.answer_recall(held, scores, keep)}
