"""What ``comp_llm`` and ``icae`` share: the generator, with an adapter, reads segments and writes fewer rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ragzip.compressors._options import check_count
from ragzip.compressors._soft import PassageEncoder
from ragzip.indexes.soft_store import Unit
from ragzip.models.concepts import ConceptEncoder, load_concepts, segments_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SegmentEncoder(PassageEncoder):
    """Rows of the segments of each text.

    Attributes:
        rate: Text tokens for one row.
    """

    rate: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("rate", self.rate, least=1)

    def load(self) -> ConceptEncoder:
        """The encoder, loaded now unless it is already."""
        return load_concepts(self.model, self.architecture, dtype=self.dtype, device=self.device)

    def units(self, texts: Sequence[str], titles: Sequence[str]) -> list[list[Unit]]:
        """Segments as token ids, found without loading the model; titles stay text in the prompt, and are not read."""
        return [list(some) for some in segments_of(self.model, self.architecture, texts)]

    def compute(self, units: Sequence[Unit]) -> Sequence[Tensor]:
        """A row for every ``rate`` tokens of each segment."""
        return self.load().rows([unit for unit in units if isinstance(unit, tuple)], self.rate)
