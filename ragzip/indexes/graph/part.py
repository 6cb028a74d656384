"""The part of an index that the ``graph`` retriever searches: how it is made, added to, and cleared of what is gone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import ConfigError
from ragzip.indexes.files import FileEntry
from ragzip.indexes.graph import edges, rows, tensors
from ragzip.indexes.graph.neighbours import nearest, placed

if TYPE_CHECKING:
    from ragzip.indexes.index import Index
    from ragzip.indexes.manifest import PartEntry

ROWS = 16_384
"""Taken in at a time."""

MOST_FILES = 64
_SMALL = 4096
TRIPLES = "triples_until"
"""Among the settings: the first row that no language model has read."""


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
        file = tensors.write(index.path, f"{folder}/rows.safetensors", arrays)
        return dataclasses.replace(entry, rows=last, files=(*entry.files, file), whole=None)

    def finish(self, index: Index, entry: PartEntry, folder: str) -> PartEntry:
        """Makes the graph over the passages alive; joins small files first, where they have become many."""
        files = self._joined(index.path, entry.files, folder)
        graph = edges.assemble(
            lambda: rows.read_all(index.path, files),
            index.rows,
            most_passages=self.most_passages,
            rare_in=self.rare_in,
        )
        whole = tensors.write(index.path, f"{folder}/graph.safetensors", graph)
        return dataclasses.replace(entry, files=files, whole=(whole,))

    def compact(self, index: Index, entry: PartEntry, rows: NDArray[np.int64], folder: str) -> PartEntry:
        """The files under the new numbers."""
        files = _renumbered(index.path, entry.files, rows, folder)
        settings = dict(entry.settings)
        if TRIPLES in settings:
            settings[TRIPLES] = int(np.searchsorted(rows, settings[TRIPLES]))
        return dataclasses.replace(entry, rows=len(rows), settings=settings, files=files, whole=None)

    def _joined(self, root: Path, files: tuple[FileEntry, ...], folder: str) -> tuple[FileEntry, ...]:
        if len(files) <= MOST_FILES:
            return files
        sizes = [len(tensors.read(root, file, "rows")["rows"]) for file in files]
        first = len(files)
        while first and sizes[first - 1] < _SMALL:
            first -= 1
        if len(files) - first < 2:
            return files
        made = rows.joined(list(rows.read_all(root, files[first:])))
        return (*files[:first], tensors.write(root, f"{folder}/rows.safetensors", made))


def _renumbered(root: Path, files: Sequence[FileEntry], kept: NDArray[np.int64], folder: str) -> tuple[FileEntry, ...]:
    cells = rows.cells(root, files)
    made: list[FileEntry] = []
    for number, arrays in enumerate(rows.read_all(root, files)):
        new = rows.renumbered(arrays, kept)
        if cells is not None:
            placed_now = dataclasses.replace(cells, of=cells.of[kept], trained=min(cells.trained, max(len(kept), 1)))
            new |= rows.cell_arrays(placed_now if made else None, placed_now)
        made.append(tensors.write(root, f"{folder}/rows{number:06d}.safetensors", new))
    return tuple(made)
