"""What soft compressors share: each text segment becomes rows of the generator's input embeddings, span by span."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ragzip.compressors._groups import shown
from ragzip.compressors._relevance import titles_of
from ragzip.errors import ConfigError, ModelError
from ragzip.models import Dtype, check_options
from ragzip.models.soft_folder import space_of
from ragzip.protocols import Compressor
from ragzip.types import Context, Passage, Query, SoftSegment, TextSegment, context_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PassageEncoder(Compressor[TextSegment, SoftSegment]):
    """A soft compressor to whom the question does not matter: each segment's rows hang on its text and title alone.

    Attributes:
        model: Trained weights: a name, a folder made by ``ragzip train``, or a hub id.
        dtype: ``auto`` (bf16 where the hardware computes in it, else fp32), ``fp32``, ``bf16`` or ``fp16``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``xpu``.
    """

    architecture: ClassVar[str] = ""

    model: str = ""
    dtype: Dtype = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        check_soft(self.model, self.dtype, self.device, self.architecture)

    @property
    def space(self) -> str:
        """Whose input embeddings the rows are, or "" where the weights are not here."""
        return space_of(self.model, self.architecture)

    @abstractmethod
    def rows(self, texts: Sequence[str], titles: Sequence[str]) -> Sequence[Tensor]:
        """``[n, d_model]`` of each text, none of which is blank; no text's rows hang on another one."""

    def compress(self, contexts: Sequence[Context[TextSegment]]) -> Sequence[Context[SoftSegment]]:
        """Each context as rows, a soft segment for every text segment that shows anything."""
        wanted: dict[tuple[str, str], None] = {}
        keys = [list(zip((s.text for s in c.segments), titles_of(c), strict=True)) for c in contexts]
        for context, of_context in zip(contexts, keys, strict=True):
            wanted.update(dict.fromkeys(k for s, k in zip(context.segments, of_context, strict=True) if shown(s)))
        found = dict(zip(wanted, self._checked([k[0] for k in wanted], [k[1] for k in wanted]), strict=True))
        space = self.space
        return [
            Context(
                context.query,
                tuple(
                    SoftSegment(found[key], space, segment.sources)
                    for segment, key in zip(context.segments, of_context, strict=True)
                    if key in found
                ),
                context.passages,
            )
            for context, of_context in zip(contexts, keys, strict=True)
        ]

    def compress_passages(self, passages: Sequence[Passage]) -> Sequence[SoftSegment]:
        """One segment a passage, for a store that is filled at index time; without rows where it has no text."""
        import torch

        out = []
        for passage in passages:
            (context,) = self.compress([context_of(Query(""), (passage,))])
            rows = [segment.embeddings for segment in context.segments]
            found = rows[0] if rows else torch.zeros(0, 0)
            out.append(SoftSegment(found, self.space, context_of(Query(""), (passage,)).segments[0].sources))
        return out

    def _checked(self, texts: Sequence[str], titles: Sequence[str]) -> Sequence[Tensor]:
        if not texts:
            return []
        return check_rows(self.rows(texts, titles), self.model)


def check_rows(rows: Sequence[Tensor], model: str) -> Sequence[Tensor]:
    """Rows that are fit to be read.

    Raises:
        ModelError: A value is not finite: the weights are broken.
    """
    if not all(bool(some.isfinite().all()) for some in rows):
        raise ModelError(
            f"{model!r} wrote rows with values that are not finite",
            hint="Its weights are broken, or dtype is too narrow for them: try dtype: fp32.",
        )
    return rows


def check_soft(model: str, dtype: str, device: str, architecture: str) -> None:
    """Checks the options that soft compressors have in common.

    Raises:
        ConfigError: With the option's name.
    """
    if not isinstance(model, str) or not model.strip():
        raise ConfigError(
            "model", "is missing", hint=f"Give the folder of trained weights: ragzip train {architecture} --help"
        )
    check_options(dtype, device)
