"""Folders that gave nothing this time are more often not mounted than empty: an index is not emptied for them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from ragzip.errors import IngestError
from ragzip.indexes.table import clean
from ragzip.ingest import Skipped

if TYPE_CHECKING:
    from ragzip.indexes.writer import Writer


def silent(writer: Writer, roots: Sequence[str], came: Collection[str]) -> list[str]:
    """The roots that the index has documents of, and from which neither one came nor a file that was emptied."""
    return [
        root
        for root in roots
        if clean(root) not in came and next(iter(writer.table.unseen([clean(root)])), None) is not None
    ]


def refused(where: str, roots: Sequence[str], skipped: Sequence[Skipped]) -> IngestError:
    """The error where nothing came at all, and everything would go."""
    reasons = "".join(f"\n  {item.source}: {item.reason}" for item in skipped[:10])
    return IngestError(
        f"no document found in {', '.join(roots) or 'what was given'}; what {where} has of it stays{reasons}",
        hint="Nothing was removed. If it is to be: ragzip index remove SOURCE",
    )


def spared(roots: Sequence[str]) -> list[Skipped]:
    """What is said of them where others gave something."""
    return [Skipped(root, "no document found; what the index has of it stays", root) for root in roots]
