"""What an indexing run did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ragzip.ingest import Skipped


@dataclass(frozen=True)
class BuildReport:
    """What an indexing run did, in documents unless said otherwise.

    Attributes:
        path: The index folder.
        added: New ones.
        updated: Whose content, or way of being cut, changed.
        unchanged: Left as they were.
        removed: Gone.
        documents: In the index now.
        passages: In the index now.
        written: Passages stored in this run.
        skipped: What could not be read, with reasons; old versions of these stay.
        seconds: Wall time of each stage: read, chunk, encode, store, finish.
    """

    path: str
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    documents: int = 0
    passages: int = 0
    written: int = 0
    skipped: tuple[Skipped, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
