"""The part of an index that the ``graph`` retriever searches: how it is made, added to, and cleared of what is gone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import ConfigError
from ragzip.indexes import parts
from ragzip.indexes.files import FileEntry
from ragzip.indexes.graph import edges, rows, tensors
from ragzip.indexes.graph.neighbours import nearest, placed

if TYPE_CHECKING:
    from ragzip.indexes.encoding import LazyEncoder
    from ragzip.indexes.graph.network import Network
    from ragzip.indexes.index import Index
    from ragzip.indexes.manifest import PartEntry

ROWS = 16_384
"""Taken in at a time."""

MOST_SMALL = 64
SMALL_BYTES = 1 << 22
TRIPLES = "triples_until"
"""Among the settings: the first row that no language model has read."""
LOST = "triples_lost"
"""Among the settings: facts were lost with a damaged file, and have not been found again."""


@dataclass(frozen=True)
class GraphPart:
    """Makes the graph.

    Attributes:
        neighbours: How many nearest passages each is tied to; ties from the other side come on top.
        most_passages: A name in more passages than this ties nothing together and is left out.
        rare_in: A word in at least two and at most so many passages is a rare term; 0 for no such edges.
    """

    kind: ClassVar[str] = "graph"

    neighbours: int = 10
    most_passages: int = 200
    rare_in: int = 5

    def __post_init__(self) -> None:
        for name, least in (("neighbours", 0), ("most_passages", 2), ("rare_in", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(name, f"must be a whole number of at least {least}, not {value!r}")

    def ready(self, encoder: LazyEncoder) -> None:
        """It needs nothing beyond the index."""

    def extend(self, index: Index, entry: PartEntry, folder: str) -> PartEntry:
        """Reads the next rows, and finds the nearest of each among all there are."""
        alive = index.rows
        ahead = alive[np.searchsorted(alive, entry.rows) :]
        mine = ahead[:ROWS]
        last = index.manifest.rows if len(mine) == len(ahead) else int(mine[-1]) + 1
        before = rows.cells(index.path, entry.files)
        now = before
        if now is None or len(now.of) < index.manifest.rows:
            now = placed(index.vectors, alive, before)
        near, cosines = nearest(index.vectors, alive, now, mine, self.neighbours)
        found = index.table.some(mine.tolist())
        arrays = {
            **rows.describe([found[row] for row in mine.tolist()]),
            "near": near,
            "cosines": cosines.astype(np.float16),
            **rows.cell_arrays(before, now),
        }
        files = appended(index.path, entry.files, arrays, folder)
        return dataclasses.replace(entry, rows=last, files=files)

    def finish(self, index: Index, entry: PartEntry, folder: str) -> PartEntry:
        """Makes the graph over the passages alive."""
        graph = edges.assemble(
            lambda: rows.read_all(index.path, entry.files),
            index.rows,
            most_passages=self.most_passages,
            rare_in=self.rare_in,
        )
        whole = tensors.write(index.path, f"{folder}/graph.safetensors", graph)
        return dataclasses.replace(entry, whole=(whole,))

    def open(self, index: Index, entry: PartEntry) -> Network:
        """What walks go over."""
        from ragzip.indexes.graph.network import open_network

        return open_network(index, entry)

    def without(self, entry: PartEntry, damaged: Set[str]) -> PartEntry:
        """Nothing: it is read from passages again."""
        return parts.empty(self)

    def compact(self, index: Index, entry: PartEntry, rows: NDArray[np.int64], folder: str) -> PartEntry:
        """The files under the new numbers."""
        files = _renumbered(index.path, entry.files, rows, folder)
        settings = dict(entry.settings)
        if TRIPLES in settings:
            settings[TRIPLES] = int(np.searchsorted(rows, settings[TRIPLES]))
        return dataclasses.replace(entry, rows=len(rows), settings=settings, files=files)


def appended(root: Path, files: tuple[FileEntry, ...], arrays: tensors.Arrays, folder: str) -> tuple[FileEntry, ...]:
    """The files and one more; when many small ones have come together, they are put into it.

    The new folder holds just this file, so that it goes when the file is joined to others.
    """
    first = len(files)
    while first and files[first - 1].bytes < SMALL_BYTES:
        first -= 1
    if len(files) - first >= MOST_SMALL:
        arrays = rows.joined([*rows.read_all(root, files[first:]), arrays])
        files = files[:first]
    return (*files, tensors.write(root, f"{folder}/rows.safetensors", arrays))


def _renumbered(root: Path, files: Sequence[FileEntry], kept: NDArray[np.int64], folder: str) -> tuple[FileEntry, ...]:
    """All files under new numbers, small ones joined."""
    cells = rows.cells(root, files)
    if cells is None:
        return ()
    now = dataclasses.replace(cells, of=cells.of[kept], trained=max(min(cells.trained, len(kept)), 1))
    made: list[FileEntry] = []
    waiting: list[tensors.Arrays] = []
    left = sum(file.bytes for file in files)
    for number, arrays in enumerate(rows.read_all(root, files)):
        first = not made and not waiting
        waiting.append(rows.renumbered(arrays, kept) | rows.cell_arrays(None if first else now, now))
        left -= files[number].bytes
        if left and (_bytes(waiting) < SMALL_BYTES or left < SMALL_BYTES):
            continue
        made.append(tensors.write(root, f"{folder}/rows{len(made):06d}.safetensors", rows.joined(waiting)))
        waiting = []
    return tuple(made)


def _bytes(parts: Sequence[tensors.Arrays]) -> int:
    return sum(array.nbytes for arrays in parts for array in arrays.values())
