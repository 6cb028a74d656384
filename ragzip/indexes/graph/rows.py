"""What the graph knows of single rows, in files that are only added to.

A file covers some rows: their words, titles, links, sources, nearest rows, and triples if there are any. The cells of
``neighbours`` are spread over the files in row order: those of a file go on where the file before ended, or, where it
has centroids, begin anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ragzip.indexes.files import FileEntry
from ragzip.indexes.graph import tensors
from ragzip.indexes.graph.links import key, links
from ragzip.indexes.graph.mentions import Stream
from ragzip.indexes.graph.neighbours import Cells
from ragzip.indexes.graph.tensors import Arrays
from ragzip.indexes.graph.words import names_of, words
from ragzip.indexes.table import PassageRow

OWNED = {"rows": "rows", "title_rows": "titles", "link_rows": "links", "triple_rows": "triples"}
"""Arrays of row numbers, and the arrays beside them."""

_OF_ROWS = ("counts", "sources", "near", "cosines")
_OF_WORDS = ("hashes", "flags")
_OF_CELLS = ("cells", "centroids", "trained")


def describe(passages: Sequence[PassageRow]) -> Arrays:
    """What the text of some rows says.

    Args:
        passages: In row order.
    """
    found = [words("\n".join((title.replace(" > ", "\n"), text))) for _, _, title, text, _ in passages]
    numbers = [row for row, *_ in passages]
    sources = [_source(metadata, passage_id) for _, passage_id, _, _, metadata in passages]
    titles = [sorted(names_of(title)) for _, _, title, _, _ in passages]
    targets = [links(text, source) for (_, _, _, text, _), source in zip(passages, sources, strict=True)]
    return {
        "rows": np.array(numbers, np.int64),
        "counts": np.array([len(one.hashes) for one in found], np.int32),
        "hashes": np.concatenate([np.empty(0, np.uint32), *(one.hashes for one in found)]),
        "flags": np.concatenate([np.empty(0, np.uint8), *(one.flags for one in found)]),
        "sources": np.array([key(source) for source in sources], np.uint64),
        **_pairs("title_rows", "titles", numbers, titles),
        **_pairs("link_rows", "links", numbers, targets),
        "triple_rows": np.empty(0, np.int64),
        "triples": np.empty((0, 2), np.uint64),
    }


def _source(metadata: str, passage_id: str) -> str:
    return str(json.loads(metadata).get("source", passage_id.rpartition("#")[0]))


def _pairs(owner: str, name: str, rows: Sequence[int], values: Sequence[Sequence[int]]) -> Arrays:
    counts = [len(some) for some in values]
    return {
        owner: np.repeat(np.array(rows, np.int64), counts),
        name: np.array([value for some in values for value in some], np.uint64),
    }


def stream(arrays: Arrays, positions: NDArray[np.int64]) -> Stream:
    """The words of the rows that are alive.

    Args:
        arrays: Of one file.
        positions: ``[rows]``, of each row among those alive; -1 for dead ones.
    """
    owners = np.repeat(positions, arrays["counts"])
    alive = owners >= 0
    return Stream(owners[alive], arrays["hashes"][alive], arrays["flags"][alive])


def cells(root: Path, files: Sequence[FileEntry]) -> Cells | None:
    """The cells of all rows so far, or None where there are none."""
    centroids: NDArray[np.float32] | None = None
    of: list[NDArray[np.int32]] = []
    trained = 0
    for file in files:
        found = tensors.read(root, file, "centroids", "cells", "trained")
        if len(found["centroids"]):
            centroids, of = found["centroids"], []
            trained = int(found["trained"][0])
        of.append(found["cells"])
    return None if centroids is None else Cells(centroids, np.concatenate(of), trained)


def cell_arrays(before: Cells | None, now: Cells) -> Arrays:
    """What a file says of the cells, after those before it."""
    if before is not None and now.centroids is before.centroids:
        return {"centroids": now.centroids[:0], "cells": now.of[len(before.of) :], "trained": np.empty(0, np.int64)}
    return {"centroids": now.centroids, "cells": now.of, "trained": np.array([now.trained], np.int64)}


def joined(parts: Sequence[Arrays]) -> Arrays:
    """Consecutive files as one."""
    begins = max((at for at, part in enumerate(parts) if len(part["centroids"])), default=0)
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name not in _OF_CELLS}
    whole["cells"] = np.concatenate([part["cells"] for part in parts[begins:]])
    return {**whole, **{name: parts[begins][name] for name in ("centroids", "trained")}}


def renumbered(arrays: Arrays, kept: NDArray[np.int64]) -> Arrays:
    """A file with only the rows that stay, under their new numbers; without cells.

    Args:
        arrays: As read.
        kept: Old numbers of all rows that stay, ascending: the place of each is its new number.
    """
    out: Arrays = {}
    for owner, name in OWNED.items():
        places, stays = moved(arrays[owner], kept)
        out[owner] = places[stays]
        if owner != "rows":
            out[name] = arrays[name][stays]
            continue
        for own in _OF_ROWS:
            out[own] = arrays[own][stays]
        in_words = np.repeat(stays, arrays["counts"])
        for own in _OF_WORDS:
            out[own] = arrays[own][in_words]
        places, stays = moved(out["near"], kept)
        out["near"] = np.where(stays, places, -1)
    return out


def moved(rows: NDArray[np.int64], kept: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where these rows are among those kept, and whether they are there at all."""
    places = np.searchsorted(kept, rows).clip(max=max(len(kept) - 1, 0))
    stays: NDArray[np.bool_] = kept[places] == rows if len(kept) else np.zeros(rows.shape, bool)
    return places.astype(np.int64), stays


def read_all(root: Path, files: Sequence[FileEntry]) -> Iterator[Arrays]:
    """The files, one after the other."""
    for file in files:
        yield tensors.read(root, file)
