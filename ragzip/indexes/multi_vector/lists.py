"""Which passages have a token at each centroid: inverted lists, in which a question's tokens find candidates.

PLAID's first stage (https://arxiv.org/abs/2205.09707), scored as in WARP (https://arxiv.org/abs/2501.17788): each token
of a question looks into the lists of its nearest centroids, and a passage that is in none of them counts as much as the
best centroid that was left out, which is the most that it can have.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import StoreDamaged
from ragzip.indexes.files import FileEntry, mend_hint
from ragzip.indexes.multi_vector.tokens import Tokens, read_array, write_array
from ragzip.indexes.ranking import among, top

Matrix = NDArray[np.float32]
_BLOCK = 4096  # passages whose codes are sorted at once
_PROBED = 16  # lists that each token of a question looks into


def build(root: Path, stem: str, tokens: Tokens, rows: NDArray[np.int64]) -> tuple[FileEntry, FileEntry]:
    """Writes where each list ends, and the lists: places in ``rows``, ascending, each once."""
    sizes = np.zeros(len(tokens.codec.centroids), np.int64)
    for _, codes, _ in _pairs(tokens, rows):
        sizes += np.bincount(codes, minlength=len(sizes))
    ends = np.cumsum(sizes)
    free = ends - sizes
    places = np.empty(int(ends[-1]), np.uint32)
    for start, codes, owners in _pairs(tokens, rows):
        counts = np.bincount(codes, minlength=len(sizes))
        within = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
        places[free[codes] + within] = owners + start
        free += counts
    return write_array(root, f"{stem}_ends.npy", ends), write_array(root, f"{stem}.npy", places)


def _pairs(tokens: Tokens, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """Blocks of passages: where each begins, and by centroid which of its passages have a token there."""
    for start in range(0, len(rows), _BLOCK):
        codes, counts = tokens.codes(rows[start : start + _BLOCK])
        order = np.argsort(codes, kind="stable")
        codes, owners = codes[order].astype(np.int64), np.repeat(np.arange(len(counts)), counts)[order]
        again = np.zeros(len(codes), bool)  # a passage with several tokens at a centroid
        again[1:] = (codes[1:] == codes[:-1]) & (owners[1:] == owners[:-1])
        yield start, codes[~again], owners[~again]


class Lists:
    """Searches the files.

    Args:
        root: The index folder.
        files: The manifest's entries, as ``build`` gave them.
        rows: The rows alive, in the order of the lists.
        centroids: How many there are.

    Raises:
        FileNotFoundError: One is gone.
        StoreDamaged: They are not what the manifest says.
    """

    def __init__(self, root: Path, files: tuple[FileEntry, FileEntry], rows: NDArray[np.int64], centroids: int) -> None:
        ends, places = np.array(read_array(root, files[0].name)), read_array(root, files[1].name)
        self._path, self._hint = root / files[1].name, mend_hint(root)
        whole = ends.dtype.kind == "i" and places.dtype.kind == "u" and places.ndim == 1
        if not whole or ends.shape != (centroids,) or ends[-1] != len(places) or (np.diff(ends, prepend=0) < 0).any():
            raise StoreDamaged(f"{self._path}: these are not the lists of centroids.", hint=self._hint)
        self._starts, self._ends = np.concatenate([[0], ends[:-1]]), ends
        self._places = places
        self._rows = rows

    def search(self, products: Matrix, k: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows that score most by the lists that are looked into, ascending; fewer where these hold fewer.

        Args:
            products: ``[n, centroids]``, of a question's tokens with all centroids.
            k: How many at most.
            rows: Only these, ascending.

        Raises:
            StoreDamaged: A list names a passage that is not there.
        """
        try:
            gains = self._gains(products)
        except IndexError as error:
            raise StoreDamaged(f"{self._path}: names passages that are not there.", hint=self._hint) from error
        there = np.flatnonzero(gains)
        there = there[among(self._rows[there], rows)]  # as many rows may be others: what went, what came
        return np.sort(top(self._rows[there], gains[there], k).rows)

    def _gains(self, products: Matrix) -> Matrix:
        """By how much each passage is above one that is in none of the lists; 0 for those that are."""
        gains, best = np.zeros(len(self._rows), np.float32), np.empty(len(self._rows), np.float32)
        probed = min(_PROBED, products.shape[1])
        for token in products:
            # the best centroid that is left out; where none is, a passage without tokens, as in MaxSim
            least = np.partition(token, -probed - 1)[-probed - 1] if probed < len(token) else np.float32(-1)
            chosen = np.flatnonzero(token > least)
            chosen = chosen[np.argsort(token[chosen], kind="stable")]
            lists = [self._places[self._starts[one] : self._ends[one]] for one in chosen]
            for one, gain in zip(lists, token[chosen] - least, strict=True):
                best[one] = gain  # of a passage in several lists, that of the best centroid, which comes last
            if lists:
                places = np.concatenate(lists)
                gains[places] += best[places]  # the same for a passage however often it is there
        return gains
