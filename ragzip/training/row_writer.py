"""What the trainings of soft compressors train."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Told(NamedTuple):
    """A text that becomes rows.

    Attributes:
        title: Its passage's.
        text: Its words.
        chunks: What it is cut in, where that is settled; else the writer cuts it.
    """

    title: str
    text: str
    chunks: tuple[str, ...] | None = None


class Piece(NamedTuple):
    """A stretch of a passage.

    Attributes:
        start: Its first character.
        end: The one behind its last.
        told: What becomes rows, or None where it stays text.
    """

    start: int
    end: int
    told: Told | None


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

    def told_at(self, rates: Sequence[float]) -> Sequence[float]:
        """Those of ``rates`` at which the rows of a whole text differ."""
        ...

    def pieces(self, question: str, texts: Sequence[tuple[str, str]], rate: float) -> list[list[Piece]]:
        """The pieces that each of a question's passages, given with their titles, is read in: all that is not blank."""
        ...

    def counts(self, texts: Sequence[Told], rate: float) -> list[int]:
        """How many rows each text will have: at least one."""
        ...

    def rows(self, texts: Sequence[Told], rate: float) -> list[Tensor]:
        """``[count, d]`` of each text, differentiable."""
        ...

    def frozen(self) -> Any:
        """A context manager within which the generator is itself, without any adapter."""
        ...


class RowsAlone:
    """Of a writer that leaves nothing as text."""

    def pieces(self, question: str, texts: Sequence[tuple[str, str]], rate: float) -> list[list[Piece]]:
        """Each passage as one piece."""
        return [[Piece(0, len(text), Told(title, text))] for title, text in texts]

    def told_at(self, rates: Sequence[float]) -> Sequence[float]:
        """All of them."""
        return rates


class NothingFixed(RowsAlone):
    """Of a writer that has nothing beside its parameters, either."""

    def fixed(self) -> Mapping[str, Tensor]:
        """Nothing."""
        return {}

    def fix(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes nothing."""


def strange(pieces: Sequence[Sequence[Sequence[Piece]]], draw: random.Random) -> list[list[list[Piece]]]:
    """The same pieces of the passages of questions, those that become rows with the words of others.

    Whole passages are drawn from all. Chunks are those of other questions, where there are any, and as many.

    Args:
        pieces: Of each passage of each question.
        draw: Draws them.
    """
    whole = [piece.told.text for one in pieces for some in one for piece in some if piece.told]
    chunks = [[chunk for some in one for p in some if p.told for chunk in p.told.chunks or ()] for one in pieces]

    def other(number: int, told: Told) -> Told:
        if told.chunks is None:
            return Told(told.title, draw.choice(whole))
        pool = [c for place, some in enumerate(chunks) if place != number for c in some] or chunks[number]
        start = draw.randrange(len(pool))
        taken = tuple(pool[(start + i) % len(pool)] for i in range(len(told.chunks)))
        return Told(told.title, "".join(taken), taken)

    return [
        [[p._replace(told=other(number, p.told)) if p.told else p for p in some] for some in one]
        for number, one in enumerate(pieces)
    ]
