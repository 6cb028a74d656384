"""Training of ``lexsem``: multipliers for questions' vectors, with the encoder and all passages' vectors frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ragzip.errors import ConfigError
from ragzip.indexes.text import searched_text
from ragzip.models import EMBEDDER, load_encoder
from ragzip.models.lexsem import ARCHITECTURE, KINDS, UNTRAINED, Bridge, spread, word_matrix
from ragzip.models.tuned import HEADS, save_tuned
from ragzip.training import examples as sets
from ragzip.training.encoders import check_trainer, divide, numbers
from ragzip.training.identity import identity
from ragzip.training.loop import LoopSettings, train
from ragzip.training.options import OnEvent, TrainingEvent, TrainingReport
from ragzip.training.pairs import plan
from ragzip.types import Passage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from ragzip.models import Encoder

_HIDDEN = -1e4


@dataclass(frozen=True)
class LexSemTraining:
    """Contrastive training against all passages of the training sets at once, each of which is encoded only once.

    After LexSemBridge (https://arxiv.org/abs/2508.17858), with the encoder frozen, so that an index stays as it is, and
    with maps through the encoder's word embeddings. At the start every multiplier is 1.

    Attributes:
        base: The encoder of the indexes it is for.
        kind: ``slr``, from the question's tokens, or ``llr``, from its vector.
        sets: Training sets.
        most: ``set=number``: at most so many questions of a set.
        negatives: Passages that do not help, of each question's, that join the passages that help one.
        scale: Cosines are multiplied by this.
        batch: Questions in a step.
        steps: Optimiser steps.
        lr: Highest learning rate.
        eval_every: Steps between evaluations.
        patience: Evaluations without a better one before training stops; 0 never.
        held_out: Questions kept out of training, with their passages.
        seed: For every draw.
        dtype: Number format of the encoder.
        device: Where to train.
    """

    base: str = EMBEDDER
    kind: Literal["slr", "llr"] = "slr"
    sets: tuple[str, ...] = ("squad", "nq_multidoc", "scifact")
    most: tuple[str, ...] = ("squad=6000",)
    negatives: int = 2
    scale: float = 20.0
    batch: int = 128
    steps: int = 600
    lr: float = 1e-3
    eval_every: int = 50
    patience: int = 4
    held_out: int = 600
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError("kind", f"must be one of {', '.join(KINDS)}, not {self.kind!r}")
        check_trainer(self)

    def run(
        self, out: Path, *, data: Path | None = None, resume: bool = True, on_event: OnEvent | None = None
    ) -> TrainingReport:
        """Trains, and leaves ``config.json``, ``model.safetensors`` and a model card in ``out``."""
        from ragzip.training.cards import write_result

        found = sets.read_examples(self.sets, data=data, seed=self.seed, most=numbers("most", self.most))
        held, kept = divide(found, self.held_out, self.seed)
        encoder = load_encoder(self.base, dtype=self.dtype, device=self.device)
        pool = Pool(encoder, kept, held, self.negatives, on_event)
        asked, helping = _asked(encoder, kept), [pool.rows(example) for example in kept]
        items = [(row, place) for row, places in enumerate(helping) for place in places]
        model = Modulation(self, encoder, pool)
        order = plan([0] * len(items), self.batch, self.steps, self.seed)
        settings = LoopSettings.of(self, len(order), checkpoint_every=200)
        again = _asked(encoder, held)
        wanted = [pool.rows(example) for example in held]
        untrained = model.evaluate(again, wanted)
        if on_event:
            on_event(TrainingEvent("eval", 0, len(order), None, untrained, "before training"))
        result = train(
            model.named(),
            lambda step: model.loss(asked, [items[i] for i in order[step]], helping),
            lambda: model.evaluate(again, wanted),
            settings,
            out,
            config=identity(self, sets.fingerprint(kept), self.base),
            best="mrr",
            save=partial(self._save, out, encoder),
            resume=resume,
            on_event=on_event,
        )
        plain = Bridge("slr", model.words).modulate(again.vectors, again.tokens, UNTRAINED)
        others = {"slr without training": pool.scores(plain, wanted)}
        write_result(out, self, result, untrained=untrained, baselines=others, examples=kept, held=len(held))
        return TrainingReport(out, result.steps, result.seconds, result.metrics, result.stopped)

    def _save(self, out: Path, encoder: Encoder, tensors: Mapping[str, Tensor]) -> None:
        save_tuned(
            out,
            architecture=ARCHITECTURE,
            base=self.base,
            max_tokens=encoder.max_tokens,
            tensors=tensors,
            kind=self.kind,
            base_fingerprint=encoder.fingerprint,
        )


@dataclass(frozen=True, eq=False)
class Asked:
    """Questions as vectors ``[n, d]`` and as token ids."""

    vectors: npt.NDArray[np.float32]
    tokens: list[npt.NDArray[np.int64]]


def _asked(encoder: Encoder, examples: Sequence[sets.Example]) -> Asked:
    questions = [example.question for example in examples]
    return Asked(
        encoder.encode(encoder.asking(questions)), [ids[: encoder.room] for ids, _ in encoder.tokens(questions)]
    )


class Pool:
    """Every passage that helps a question, and some that do not: what questions are ranked against."""

    def __init__(
        self,
        encoder: Encoder,
        kept: Sequence[sets.Example],
        held: Sequence[sets.Example],
        negatives: int,
        on_event: OnEvent | None = None,
    ) -> None:
        self.places: dict[str, int] = {}
        self.kept = 0  # the first so many are those of questions to train on
        for examples in (kept, held):
            for example in examples:
                for marked in (*example.positives, *example.negatives[:negatives]):
                    self.places.setdefault(_text(marked), len(self.places))
            self.kept = self.kept or len(self.places)

        def tell(done: int, total: int) -> None:
            if on_event:
                on_event(TrainingEvent("data", 0, 0, message=f"{done:,} of {total:,} passages encoded"))

        self.vectors = encoder.encode(list(self.places), on_progress=tell)

    def rows(self, example: sets.Example) -> list[int]:
        """Where the passages that help a question are."""
        return sorted({self.places[_text(marked)] for marked in example.positives})

    def scores(self, vectors: npt.NDArray[np.float32], wanted: Sequence[Sequence[int]]) -> dict[str, float]:
        """``mrr`` and ``recall@10`` of the first passage that helps, among all."""
        import numpy as np

        ranks = []
        for start in range(0, len(vectors), 256):
            products = vectors[start : start + 256] @ self.vectors.T
            for row, places in zip(products, wanted[start : start + 256], strict=True):
                ranks.append(1 + int((row > row[list(places)].max()).sum()))
        found = np.asarray(ranks, dtype=np.float64)
        return {"mrr": float((1 / found).mean()), "recall@10": float((found <= 10).mean())}


def _text(marked: sets.Marked) -> str:
    return searched_text(Passage("", marked.text, marked.title))


class Modulation:
    """The multipliers while they are trained."""

    def __init__(self, settings: LexSemTraining, encoder: Encoder, pool: Pool) -> None:
        import torch

        self.settings, self.pool, self.device = settings, pool, encoder.device
        self.words = word_matrix(encoder)
        width = encoder.dimensions
        values = {"out.weight": torch.zeros(width, width), "out.bias": torch.zeros(width)}
        if settings.kind == "llr":
            values |= {"into.weight": torch.eye(width), "into.bias": torch.zeros(1)}
        self.values = {name: torch.nn.Parameter(value.to(self.device)) for name, value in values.items()}
        self._words = torch.from_numpy(self.words).to(self.device) if settings.kind == "llr" else None
        self._pool = torch.from_numpy(pool.vectors).to(self.device)

    def named(self) -> list[tuple[str, Tensor]]:
        """The parameters, as ``save_tuned`` names them."""
        return [(HEADS + name, value) for name, value in self.values.items()]

    def vectors(self, asked: Asked, rows: Sequence[int]) -> Tensor:
        """Questions' vectors times their multipliers, ``[n, d]`` of length 1."""
        import numpy as np
        import torch

        vectors = torch.from_numpy(asked.vectors[list(rows)]).to(self.device)
        if self._words is None:
            summed = np.stack([self.words[np.unique(asked.tokens[row])].sum(axis=0) for row in rows])
            lexical = torch.from_numpy(summed).to(self.device)
        else:
            logits = vectors @ self.values["into.weight"] @ self._words.T + self.values["into.bias"]
            lexical = torch.log1p(torch.relu(logits)) @ self._words
        logits = spread(lexical) @ self.values["out.weight"] + self.values["out.bias"]
        return torch.nn.functional.normalize(vectors * logits.softmax(dim=-1), dim=-1)

    def loss(self, asked: Asked, items: Sequence[tuple[int, int]], helping: Sequence[Sequence[int]]) -> Tensor:
        """Cross-entropy of a passage that helps among those to train on but the others that help."""
        import torch

        pool = self._pool[: self.pool.kept]
        scores = self.vectors(asked, [row for row, _ in items]) @ pool.T * self.settings.scale
        hidden = torch.zeros_like(scores, dtype=torch.bool)
        for place, (row, own) in enumerate(items):
            hidden[place, [other for other in helping[row] if other != own]] = True
        right = torch.tensor([place for _, place in items], device=self.device)
        return torch.nn.functional.cross_entropy(scores.masked_fill(hidden, _HIDDEN), right)

    def evaluate(self, asked: Asked, wanted: Sequence[Sequence[int]]) -> dict[str, float]:
        """The metrics of ``Pool.scores``."""
        import numpy as np
        import torch

        parts = []
        with torch.inference_mode():
            for start in range(0, len(wanted), 256):
                rows = range(start, min(start + 256, len(wanted)))
                parts.append(self.vectors(asked, rows).cpu().numpy())
        return self.pool.scores(np.concatenate(parts), wanted)
