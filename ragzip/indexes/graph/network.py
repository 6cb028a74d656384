"""Reading a graph: how a walk goes on at each node, and which entities a question names."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import StoreDamaged
from ragzip.indexes.files import FileEntry, mend_hint
from ragzip.indexes.graph import tensors
from ragzip.indexes.graph.edges import KINDS
from ragzip.indexes.graph.mentions import Phrasebook, Stream
from ragzip.indexes.graph.words import words

if TYPE_CHECKING:
    from ragzip.indexes.index import Index
    from ragzip.indexes.manifest import PartEntry

_MOST_SHARES = 8


class Network:
    """A graph that is open.

    Args:
        root: The index folder.
        file: The manifest's entry.
        rows: Of its passages, ascending.

    Attributes:
        rows: The same.
        passages: Nodes ``0`` to ``passages`` are the passages, by their place in ``rows``.
        entities: The nodes after these.
        documents: The nodes after those.
        indptr: ``[nodes + 1]`` int64.
        indices: ``[edges]`` int32.
        spread: ``[entities]``, in how many passages each is.
    """

    def __init__(self, root: Path, file: FileEntry, rows: NDArray[np.int64]) -> None:
        self.rows = rows
        arrays = tensors.read(root, file)
        try:
            shape = [int(number) for number in arrays["shape"]]
            self.passages, self.entities, self.documents = shape
            self.indptr, self.indices = arrays["indptr"], arrays["indices"]
            self._kinds, self._weights = arrays["kinds"], arrays["weights"]
            self.spread = arrays["spread"]
            self._book = Phrasebook(arrays["keys"])
            sound = (
                self.passages == len(rows)
                and len(self.indptr) == sum(shape) + 1
                and self.indptr[-1] == len(self.indices) == len(self._kinds) == len(self._weights)
                and len(self._book.keys) == len(self.spread) == self.entities
                and self.indptr[0] == 0
                and (np.diff(self.indptr) >= 0).all()
                and self.indices.min(initial=0) >= 0
                and self.indices.max(initial=0) < sum(shape)
                and self._kinds.max(initial=0) < len(KINDS)
                and bool(np.isfinite(self._weights).all())
            )
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise StoreDamaged(f"{root / file.name}: is no graph: {error!r}.", hint=mend_hint(root)) from error
        if not sound:
            raise StoreDamaged(f"{root / file.name}: is not this index's graph.", hint=mend_hint(root))
        self._lock = threading.Lock()
        self._steps: dict[tuple[float, ...], NDArray[np.float32]] = {}

    @property
    def nodes(self) -> int:
        """Of all kinds."""
        return len(self.indptr) - 1

    def steps(self, shares: Sequence[float]) -> NDArray[np.float32]:
        """The probability of each edge, ``[edges]``.

        Args:
            shares: How much each of ``KINDS`` counts; those that a node has share its walks in this proportion.
        """
        key = tuple(shares)
        with self._lock:
            found = self._steps.get(key)
            if found is None:
                found = self._weights * np.asarray(key, np.float32)[self._kinds]
                owners = np.repeat(np.arange(self.nodes), np.diff(self.indptr))
                sums = np.bincount(owners, found, minlength=self.nodes)
                np.divide(found, sums[owners], out=found, where=sums[owners] > 0, casting="unsafe")
                while len(self._steps) >= _MOST_SHARES:
                    self._steps.pop(next(iter(self._steps)))
                self._steps[key] = found
            return found

    def places(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The nodes of passages, and which of them have one: those that came later do not."""
        found = np.minimum(np.searchsorted(self.rows, rows), self.passages - 1)
        return found, self.rows[found] == rows

    def named(self, text: str) -> NDArray[np.int64]:
        """The entities whose phrases a text has, none that is part of a longer one; ascending."""
        found = words(text)
        whole = Stream(np.zeros(len(found.hashes), np.int64), found.hashes, found.flags)
        places, _ = self._book.at(self._book.find(whole).keys)
        return np.unique(places)

    def counts(self) -> dict[str, int]:
        """How many edges there are of each kind, both directions counted."""
        numbers = np.bincount(self._kinds, minlength=len(KINDS))
        return {kind: int(number) for kind, number in zip(KINDS, numbers, strict=True)}


def open_network(index: Index, entry: PartEntry) -> Network:
    """For ``Index.opened``."""
    return Network(index.path, next(iter(entry.whole or ())), index.rows_of(entry))
