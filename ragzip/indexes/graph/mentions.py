"""Which phrases stand in which passages, found over streams of hashed words, all of a file at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ragzip.indexes.graph.words import CAPITAL, JOINED, LINK, MOST_WORDS, NUMBER, SHORT, START, phrases

_SIEVE_BITS = 22


class Stream(NamedTuple):
    """The words of many passages, one after the other.

    Attributes:
        owners: ``[n]`` int64, the passage of each word, ascending.
        hashes: ``[n]`` uint32.
        flags: ``[n]`` uint8.
    """

    owners: NDArray[np.int64]
    hashes: NDArray[np.uint32]
    flags: NDArray[np.uint8]


class Found(NamedTuple):
    """Phrases where they stand.

    Attributes:
        owners: ``[n]`` int64, the passages.
        keys: ``[n]`` uint64, the phrases.
        sure: ``[n]`` bool, whether it is written as a name is, where that can be seen.
    """

    owners: NDArray[np.int64]
    keys: NDArray[np.uint64]
    sure: NDArray[np.bool_]


def together(parts: Sequence[Found]) -> Found:
    """One after the other."""
    return Found(
        np.concatenate([np.empty(0, np.int64), *(part.owners for part in parts)]),
        np.concatenate([np.empty(0, np.uint64), *(part.keys for part in parts)]),
        np.concatenate([np.empty(0, bool), *(part.sure for part in parts)]),
    )


class Phrasebook:
    """Finds known phrases.

    Args:
        keys: Their numbers, sorted, each once.
    """

    def __init__(self, keys: NDArray[np.uint64]) -> None:
        self.keys = keys
        self._sieve = np.zeros(1 << _SIEVE_BITS, bool)
        self._sieve[self._short(keys)] = True

    def find(self, stream: Stream) -> Found:
        """Every phrase that is no part of a longer one that is known, too."""
        return together([Found(*found) for found in self._places(stream)])

    def at(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Where these keys are among its own, and whether they are."""
        places = np.searchsorted(self.keys, keys).clip(max=max(len(self.keys) - 1, 0))
        here = self.keys[places] == keys if len(self.keys) else np.zeros(len(keys), bool)
        return places.astype(np.int64), here

    def _places(self, stream: Stream) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.bool_]]]:
        covered = np.zeros(len(stream.hashes) + 1, np.int64)  # how many words before this one are in a phrase
        for size, values in sorted(enumerate(phrases(stream.hashes), 1), reverse=True, key=lambda pair: pair[0]):
            maybe = np.flatnonzero(self._sieve[self._short(values)])
            inside = stream.owners[maybe] == stream.owners[maybe + size - 1]
            open_ = covered[maybe + size] - covered[maybe] < size
            maybe = maybe[inside & open_]
            starts = maybe[self.at(values[maybe])[1]]
            if len(starts) == 0:
                continue
            flags = stream.flags[starts]
            sure = (flags & CAPITAL > 0) & ((flags & START == 0) if size == 1 else True)
            yield stream.owners[starts], values[starts], sure
            edges = np.zeros(len(stream.hashes) + 1, np.int64)
            np.add.at(edges, starts, 1)
            np.add.at(edges, starts + size, -1)
            mine = np.cumsum(edges)[:-1] > 0
            before = np.diff(covered) > 0
            covered = np.concatenate([[0], np.cumsum(mine | before)])

    @staticmethod
    def _short(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        return (keys >> np.uint64(64 - _SIEVE_BITS)).astype(np.int64)


def names(stream: Stream) -> Found:
    """Runs of capitalised words, "of" and the like between them: what may be names.

    A single word at the start of a sentence is not sure to be one; a longer run that begins there is given with its
    first word and without.
    """
    flags, owners = stream.flags, stream.owners
    capital = flags & (CAPITAL | NUMBER) == CAPITAL
    inside = capital | ((flags & LINK > 0) & (flags & NUMBER == 0))
    goes_on = np.zeros(len(flags), bool)
    goes_on[1:] = inside[1:] & inside[:-1] & (flags[1:] & JOINED > 0) & (owners[1:] == owners[:-1])
    starts = np.flatnonzero(inside & ~goes_on)
    if len(starts) == 0:
        return together(())
    places = np.arange(len(flags))
    firsts = np.minimum.reduceat(np.where(capital, places, len(flags)), starts)
    ends = np.append(starts[1:], len(flags))
    lasts = np.maximum.reduceat(np.where(capital, places, -1), starts)
    lasts = np.minimum(lasts, ends - 1)
    real = firsts <= lasts
    firsts, sizes = firsts[real], (lasts - firsts + 1)[real]
    opening = flags[firsts] & START > 0
    shorter = opening & (sizes > 1) & capital[np.minimum(firsts + 1, len(flags) - 1)]
    sure = ~opening | (sizes > 1)
    firsts = np.concatenate([firsts, firsts[shorter] + 1])
    sizes = np.concatenate([sizes, sizes[shorter] - 1])
    sure = np.concatenate([sure, np.ones(int(shorter.sum()), bool)])
    keys = np.zeros(len(firsts), np.uint64)
    for size, values in enumerate(phrases(stream.hashes), 1):
        mine = sizes == size
        keys[mine] = values[firsts[mine]]
    fits = sizes <= MOST_WORDS
    return Found(owners[firsts[fits]], keys[fits], sure[fits])


def rare_candidates(stream: Stream) -> NDArray[np.bool_]:
    """Which words may be rare terms: long enough, no numbers."""
    found: NDArray[np.bool_] = stream.flags & (NUMBER | SHORT) == 0
    return found
