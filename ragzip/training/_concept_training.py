"""What the trainings of ``comp_llm`` and ``icae`` share: an adapter on the generator, slots, and a linear layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from ragzip.compressors._options import check_count
from ragzip.errors import ConfigError
from ragzip.models.concepts import Parts, Readout, Recipe, Residual, check_segment, cut, read_out, rows_of
from ragzip.models.layers import first_layers
from ragzip.models.lora import TARGETS
from ragzip.models.picking import WordTable
from ragzip.training.low_rank import LowRank
from ragzip.training.row_writer import RowsAlone, Told
from ragzip.training.soft_options import SoftTraining
from ragzip.training.words import GENTLE, counted

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.models import CausalLM
    from ragzip.training.row_writer import RowWriter
    from ragzip.training.soft_data import SoftData

_SAMPLE = "The river runs to the sea, and the town at its mouth was founded in 1290 by a merchant from the north."


@dataclass(frozen=True)
class ConceptTraining(SoftTraining):
    """The generator with an adapter writes; the generator without it reads.

    Attributes:
        rates: Text tokens for one row; every step draws one of them.
        segment: Most tokens of a segment.
        readout: ``tokens`` reads from appended rows, ``mean`` takes means of hidden states.
        residual: What a row begins as, to which what is read out is added: ``none``, the ``mean`` embedding of the
            tokens it stands for, or the embedding of a ``picked`` one: of words that are rare and often asked for.
        layers: So many of the generator's layers read segments, the first ones; None for all.
        rank: Of the adapter.
        alpha: The adapter counts alpha / rank.
    """

    many_slots: ClassVar[bool] = False
    by_sentence: ClassVar[bool] = True

    rates: tuple[int, ...] = (2, 4, 8)
    segment: int = 20
    readout: Readout = "tokens"
    residual: Residual = "picked"
    layers: int | None = None
    rank: int = 16
    alpha: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("segment", "rank", "alpha"):
            check_count(option, getattr(self, option), least=1)
        if not self.rates:
            raise ConfigError("rates", "must name at least one rate", hint="Example: [2, 4, 8].")
        for rate in self.rates:
            check_count("rates", rate, least=1)
        if self.readout not in get_args(Readout):
            raise ConfigError("readout", f"must be one of {', '.join(get_args(Readout))}, not {self.readout!r}")
        if self.residual not in get_args(Residual):
            raise ConfigError("residual", f"must be one of {', '.join(get_args(Residual))}, not {self.residual!r}")
        if self.layers is not None:
            check_count("layers", self.layers, least=1)

    @property
    def eval_rates(self) -> tuple[int, ...]:
        """All that are trained, in order."""
        return tuple(sorted(self.rates))

    @property
    def recipe(self) -> Recipe:
        """How segments are read."""
        slots = rows_of(self.segment, min(self.rates)) if self.many_slots and self.readout == "tokens" else 1
        return Recipe(self.segment, self.rates, self.readout, slots, self.residual, self.by_sentence, self.layers or 0)

    def writer(self, lm: CausalLM, data: SoftData | None = None) -> ConceptWriter:
        """A new adapter with its slots and linear layer; words are counted in the data where they are picked."""
        check_segment(self.recipe, lm)
        words = None
        if self.residual == "picked":
            words = counted(lm, partial(cut, lm.text, recipe=self.recipe), data)
        return ConceptWriter(lm, self.recipe, words, self.rank, self.alpha, self.seed)

    def done(self, writer: RowWriter) -> None:
        """Takes the adapter off."""
        if isinstance(writer, ConceptWriter):
            writer.remove()

    def values(self) -> dict[str, Any]:
        """The recipe, and the adapter's, which is saved in the names of ``peft``."""
        recipe = {**dataclasses.asdict(self.recipe), "rates": list(self.rates)}
        return {**recipe, "rank": self.rank, "alpha": self.alpha}

    def seen(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """The layers that the adapter changes."""
        found = {key.partition(".lora_")[0].rpartition(".")[2] for key in tensors if ".lora_" in key}
        return {"targets": sorted(found, key=lambda name: (TARGETS.index(name) if name in TARGETS else -1, name))}


class ConceptWriter(RowsAlone):
    """An adapter that is trained, on the generator itself."""

    def __init__(self, lm: CausalLM, recipe: Recipe, words: WordTable | None, rank: int, alpha: int, seed: int) -> None:
        import torch

        self._lm, self._recipe, self._words = lm, recipe, words
        with first_layers(lm.model.base_model, recipe.layers, lm.name):
            self._adapter = LowRank(lm, rank, alpha, seed)
        d, draw = lm.dimensions, torch.Generator().manual_seed(seed + 1)
        embeddings = lm.model.get_input_embeddings().weight.detach().float().cpu()
        end = lm.tokenizer.eos_token_id
        start = embeddings[int(end)] if end is not None else embeddings.mean(0)
        slots = torch.zeros(recipe.slots, d) if words else start.repeat(recipe.slots, 1)
        if recipe.slots > 1:
            slots = slots + torch.randn(recipe.slots, d, generator=draw) * embeddings.std()
        # one step of Adam changes a whole row of the layer: it has to be small beside an embedding
        scale = float(torch.tensor(_shrink(lm, recipe.layers) * (1.0 if recipe.residual == "none" else GENTLE)).half())
        weight = torch.eye(d) if recipe.residual == "none" else torch.zeros(d, d)
        like = {"device": lm.device, "dtype": lm.model.dtype}
        appended, head, bias = (torch.nn.Parameter(v.to(**like)) for v in (slots, weight, torch.zeros(d)))
        self._parts = Parts(appended, head, bias, scale, words)

    @property
    def rates(self) -> tuple[int, ...]:
        """Those of the recipe."""
        return self._recipe.rates

    def named(self) -> list[tuple[str, Any]]:
        """The adapter, the appended rows where they are read, and the linear layer."""
        parts = [("head.weight", self._parts.weight), ("head.bias", self._parts.bias)]
        appended = [("appended", self._parts.appended)] if self._recipe.readout == "tokens" else []
        return [*self._adapter.named(), *appended, *parts]

    def fixed(self) -> Mapping[str, Tensor]:
        """What hidden states are multiplied by, and the table by which words are picked."""
        import torch

        table = {} if self._words is None else {"words": self._words.values}
        return {"scale": torch.tensor([self._parts.scale]), **table}

    def fix(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes both of these."""
        words = WordTable(tensors["words"].float()) if self._words is not None else None
        self._words = words
        self._parts = replace(self._parts, scale=float(tensors["scale"]), words=words)

    def counts(self, texts: Sequence[Told], rate: float) -> list[int]:
        """Rows of all segments of each text."""
        return [max(sum(rows_of(len(s), int(rate)) for s in some), 1) for some in self._segments(texts)]

    def rows(self, texts: Sequence[Told], rate: float) -> list[Tensor]:
        """The rows of all segments of each text, which are read together."""
        import torch

        parts = [some or [(0,)] for some in self._segments(texts)]
        made = iter(read_out(self._lm.model, self._parts, self._recipe, [s for some in parts for s in some], int(rate)))
        return [torch.cat([next(made) for _ in some]) for some in parts]

    def frozen(self) -> Any:
        """Without the adapter."""
        return self._adapter.off()

    def remove(self) -> None:
        """Takes the adapter off for good."""
        self._adapter.remove()

    def _segments(self, texts: Sequence[Told]) -> list[list[tuple[int, ...]]]:
        return cut(self._lm.text, [one.text for one in texts], self._recipe)


def _shrink(lm: CausalLM, layers: int) -> float:
    """How much smaller word embeddings are than the hidden states behind the layers that read, 0 for all."""
    import torch

    with torch.no_grad():
        ids = torch.tensor(lm.text.encode([_SAMPLE]), device=lm.device)
        with first_layers(lm.model.base_model, layers, lm.name):
            hidden = lm.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        words = lm.model.get_input_embeddings()(ids)
        return float(words.float().std() / hidden.float().std())
