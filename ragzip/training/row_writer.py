"""What the trainings of soft compressors train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

Piece = tuple[int, int, bool]
"""A stretch of a passage, from one character up to another, and whether it stays text."""


class RowWriter(Protocol):
    """It writes rows for texts."""

    @property
    def rates(self) -> tuple[float, ...]:
        """What it is trained at: text tokens for one row, or shares of the chunks that stay text; ``(0,)`` for neither.

        The other methods get one of them.
        """
        ...

    def named(self) -> list[tuple[str, Any]]:
        """Its parameters, by the names under which they are saved."""
        ...

    def fixed(self) -> Mapping[str, Tensor]:
        """What is saved beside its parameters, and is not trained."""
        ...

    def fix(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes these in the place of what ``fixed`` gives."""
        ...

    def pieces(self, question: str, texts: Sequence[tuple[str, str]], rate: float) -> list[list[Piece]]:
        """The pieces that each of a question's passages, given with their titles, is read in: together all of it."""
        ...

    def counts(self, texts: Sequence[tuple[str, str]], rate: float) -> list[int]:
        """How many rows each text, given with its title, will have: at least one."""
        ...

    def rows(self, texts: Sequence[tuple[str, str]], rate: float) -> list[Tensor]:
        """``[count, d]`` of each text, differentiable."""
        ...

    def frozen(self) -> Any:
        """A context manager within which the generator is itself, without any adapter."""
        ...


class RowsAlone:
    """Of a writer that leaves nothing as text."""

    def pieces(self, question: str, texts: Sequence[tuple[str, str]], rate: float) -> list[list[Piece]]:
        """Each passage as one piece."""
        return [[(0, len(text), False)] for _, text in texts]


class NothingFixed(RowsAlone):
    """Of a writer that has nothing beside its parameters, either."""

    def fixed(self) -> Mapping[str, Tensor]:
        """Nothing."""
        return {}

    def fix(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes nothing."""
