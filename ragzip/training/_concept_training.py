"""What the trainings of ``comp_llm`` and ``icae`` share: an adapter on the generator, slots, and a linear layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from ragzip.compressors._options import check_count
from ragzip.errors import ConfigError
from ragzip.models.concepts import Parts, Readout, Recipe, cut, read_out, rows_of
from ragzip.models.lora import TARGETS
from ragzip.models.soft_folder import save_soft
from ragzip.training.low_rank import LowRank
from ragzip.training.soft_options import SoftTraining

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.models import CausalLM
    from ragzip.training.soft_loop import RowWriter

_SAMPLE = "The river runs to the sea, and the town at its mouth was founded in 1290 by a merchant from the north."


@dataclass(frozen=True)
class ConceptTraining(SoftTraining):
    """The generator with an adapter writes; the generator without it reads.

    Attributes:
        rates: Text tokens for one row; every step draws one of them.
        segment: Most tokens of a segment.
        readout: ``tokens`` reads from appended rows, ``mean`` takes means of hidden states.
        residual: Whether a row begins as the mean embedding of the tokens it stands for.
        rank: Of the adapter.
        alpha: The adapter counts alpha / rank.
    """

    architecture: ClassVar[str] = ""
    many_slots: ClassVar[bool] = False
    by_sentence: ClassVar[bool] = True

    rates: tuple[int, ...] = (2, 4, 8)
    segment: int = 20
    readout: Readout = "tokens"
    residual: bool = True
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

    @property
    def eval_rates(self) -> tuple[int, ...]:
        """All that are trained, in order."""
        return tuple(sorted(self.rates))

    @property
    def recipe(self) -> Recipe:
        """How segments are read."""
        slots = rows_of(self.segment, min(self.rates)) if self.many_slots and self.readout == "tokens" else 1
        return Recipe(self.segment, self.rates, self.readout, slots, self.residual, self.by_sentence)

    def writer(self, lm: CausalLM) -> ConceptWriter:
        """A new adapter with its slots and linear layer."""
        return ConceptWriter(lm, self.recipe, self.rank, self.alpha, self.seed)

    def done(self, writer: RowWriter) -> None:
        """Takes the adapter off."""
        if isinstance(writer, ConceptWriter):
            writer.remove()

    def save(self, out: Path, lm: CausalLM, tensors: Mapping[str, Tensor]) -> None:
        """The adapter in the names of ``peft``, slots and linear layer."""
        save_soft(
            out,
            architecture=self.architecture,
            base=self.base,
            dimensions=lm.dimensions,
            tensors=tensors,
            segment=self.segment,
            rates=list(self.rates),
            readout=self.readout,
            slots=self.recipe.slots,
            residual=self.residual,
            by_sentence=self.by_sentence,
            rank=self.rank,
            alpha=self.alpha,
            targets=list(TARGETS),
        )


class ConceptWriter:
    """An adapter that is trained, on the generator itself."""

    def __init__(self, lm: CausalLM, recipe: Recipe, rank: int, alpha: int, seed: int) -> None:
        import torch

        self._lm, self._recipe = lm, recipe
        self._adapter = LowRank(lm, rank, alpha, seed)
        d, draw = lm.dimensions, torch.Generator().manual_seed(seed + 1)
        words = lm.model.get_input_embeddings().weight.detach().float().cpu()
        end = lm.tokenizer.eos_token_id
        start = words[int(end)] if end is not None else words.mean(0)
        slots = start.repeat(recipe.slots, 1)
        if recipe.slots > 1:
            slots = slots + torch.randn(recipe.slots, d, generator=draw) * words.std()
        weight = torch.zeros(d, d) if recipe.residual else torch.eye(d) * _shrink(lm)
        like = {"device": lm.device, "dtype": lm.model.dtype}
        self._parts = Parts(*(torch.nn.Parameter(v.to(**like)) for v in (slots, weight, torch.zeros(d))))

    @property
    def rates(self) -> tuple[int, ...]:
        """Those of the recipe."""
        return self._recipe.rates

    def named(self) -> list[tuple[str, Any]]:
        """The adapter, the appended rows where they are read, and the linear layer."""
        parts = [("head.weight", self._parts.weight), ("head.bias", self._parts.bias)]
        appended = [("appended", self._parts.appended)] if self._recipe.readout == "tokens" else []
        return [*self._adapter.named(), *appended, *parts]

    def counts(self, texts: Sequence[tuple[str, str]], rate: int) -> list[int]:
        """Rows of all segments of each text."""
        return [max(sum(rows_of(len(s), rate) for s in some), 1) for some in self._segments(texts)]

    def rows(self, texts: Sequence[tuple[str, str]], rate: int) -> list[Tensor]:
        """The rows of all segments of each text, which are read together."""
        import torch

        parts = [some or [(0,)] for some in self._segments(texts)]
        made = iter(read_out(self._lm.model, self._parts, self._recipe, [s for some in parts for s in some], rate))
        return [torch.cat([next(made) for _ in some]) for some in parts]

    def frozen(self) -> Any:
        """Without the adapter."""
        return self._adapter.off()

    def remove(self) -> None:
        """Takes the adapter off for good."""
        self._adapter.remove()

    def _segments(self, texts: Sequence[tuple[str, str]]) -> list[list[tuple[int, ...]]]:
        return cut(self._lm.text, [text for _, text in texts], self._recipe)


def _shrink(lm: CausalLM) -> float:
    """How much smaller word embeddings are than last hidden states."""
    import torch

    with torch.no_grad():
        ids = torch.tensor(lm.text.encode([_SAMPLE]), device=lm.device)
        hidden = lm.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        words = lm.model.get_input_embeddings()(ids)
        return float(words.float().std() / hidden.float().std())
