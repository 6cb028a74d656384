"""What the search structures of an index weigh and took to make, and which of them a retriever reads."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragzip.indexes import manifest
from ragzip.indexes.manifest import Manifest

VECTORS, FAISS, BM25 = "vectors", "faiss", "bm25"


@dataclass(frozen=True)
class Weight:
    """Of what a retriever reads beside the passages themselves.

    Attributes:
        bytes: On the disk, for each passage; where it reads several indexes, the sum.
        seconds: That making it took, over all runs that brought its indexes up to date, encoding included; None where
            an index was begun by an older ragzip.
    """

    bytes: float
    seconds: float | None


def structures(entry: Manifest) -> dict[str, int]:
    """The bytes of each search structure of a commit: ``vectors``, ``faiss``, ``bm25``, and the kinds of its parts."""
    sizes = {
        VECTORS: [*(shard.file for shard in entry.shards), *([entry.codec] if entry.codec else [])],
        FAISS: [entry.faiss] if entry.faiss else [],
        BM25: entry.bm25,
        **{part.kind: [*part.files, *(part.whole or ())] for part in entry.parts},
    }
    return {name: sum(file.bytes for file in files) for name, files in sizes.items() if files}


def weight(retriever: Any) -> Weight | None:
    """Of a retriever and those in it; None where none of them reads an index.

    Raises:
        StoreError: An index cannot be read.
    """
    read: dict[str, set[str]] = {}
    for one in _all(retriever):
        read.setdefault(str(Path(one.index).resolve()), set()).update(one.structures)
    if not read:
        return None
    size, seconds = 0.0, 0.0
    known = True
    for path, names in read.items():
        entry = manifest.read(Path(path))
        size += sum(value for name, value in structures(entry).items() if name in names) / max(entry.passages, 1)
        known = known and entry.seconds is not None
        seconds += sum(value for name, value in (entry.seconds or {}).items() if name in names)
    return Weight(size, seconds if known else None)


def lacking(retriever: Any) -> list[str]:
    """What one retriever reads and its index does not have, in words; of an empty index nothing is said.

    Raises:
        StoreError: The index cannot be read.
    """
    entry = manifest.read(Path(retriever.index))
    # vectors are scanned where they have no FAISS file, and words counted at opening where they have none
    finished = {part.kind for part in entry.parts if part.whole is not None}
    begun = {part.kind for part in entry.parts}
    there = {FAISS, BM25, *structures(entry)} - (begun - finished)
    missing = [name for name in retriever.structures if name not in there] if entry.passages else []
    return [f"{retriever.index} was made for {entry.retriever} and has no {name}" for name in missing]


def spent(before: Mapping[str, float] | None, now: Mapping[str, float]) -> dict[str, float] | None:
    """Seconds by structure, added up; None where those before are not known."""
    if before is None:
        return None
    return {name: round(value, 3) for name, value in (Counter(before) + Counter(now)).items()}


def _all(part: Any) -> Iterator[Any]:
    """Everything in a component that says which structures it reads."""
    if hasattr(part, "structures") and hasattr(part, "index"):
        yield part
    if isinstance(part, tuple | list):
        for one in part:
            yield from _all(one)
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        for field in dataclasses.fields(part):
            yield from _all(getattr(part, field.name))
