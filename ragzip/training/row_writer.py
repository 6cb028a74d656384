"""What the trainings of soft compressors train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class RowWriter(Protocol):
    """It writes rows for texts."""

    @property
    def rates(self) -> tuple[int, ...]:
        """The rates it is trained at; ``(0,)`` where it has none."""
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

    def counts(self, texts: Sequence[tuple[str, str]], rate: int) -> list[int]:
        """How many rows each text, given with its title, will have: at least one."""
        ...

    def rows(self, texts: Sequence[tuple[str, str]], rate: int) -> list[Tensor]:
        """``[count, d]`` of each text, differentiable."""
        ...

    def frozen(self) -> Any:
        """A context manager within which the generator is itself, without any adapter."""
        ...


class NothingFixed:
    """Of a writer that has nothing beside its parameters."""

    def fixed(self) -> Mapping[str, Tensor]:
        """Nothing."""
        return {}

    def fix(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes nothing."""
