"""Tokens of long texts in windows that a model can read, and windows in batches that waste little on padding."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from ragzip.text import Stretch, sentences, words

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from tokenizers import Tokenizer

    Ints = npt.NDArray[np.int64]

_PADDED_TOKENS = {"cpu": 4096}  # of one forward pass: enough to be fast, little enough to stay in the cache
_PADDED_ELSEWHERE = 65_536


def windows(text: str, offsets: Ints, room: int) -> list[Stretch]:
    """Cuts the tokens of a text into as few stretches of at most ``room`` tokens as sentences allow.

    They are of similar length, cut at ends of sentences, else at words, else anywhere, and cover every token.

    Args:
        text: What was encoded.
        offsets: ``[n_tokens, 2]``, in characters.
        room: Most tokens of a window, special tokens not counted.
    """
    count = len(offsets)
    if count <= room:
        return [(0, count)] if count else []
    ways = (lambda: borders(sentences(text), offsets)), (lambda: borders(words(text), offsets))
    return split((0, count), room, [cache(way) for way in ways])


def borders(stretches: Sequence[Stretch], offsets: Ints) -> Ints:
    """The tokens, but for the first, with which another of the stretches of characters begins."""
    import numpy as np

    starts = np.asarray([start for start, _ in stretches], dtype=np.int64)
    unit = np.searchsorted(starts, offsets[:, 1] - 1, side="right")  # a token may begin with the space before it
    return np.flatnonzero(np.diff(unit) > 0) + 1


def split(tokens: Stretch, room: int, places: Sequence[Callable[[], Ints]]) -> list[Stretch]:
    """Cuts a stretch of tokens into parts of similar length and at most ``room``.

    Args:
        tokens: First and one past the last.
        room: Most tokens of a part.
        places: Where to cut, in order; later ones are asked for where none of the earlier ones will do.
    """
    import numpy as np

    found = []
    start, last = tokens
    while last - start > room:
        left = last - start
        aim = end = start - (-left // -(-left // room))
        for place in (ask() for ask in places):
            first, after = np.searchsorted(place, [start + room // 2 + 1, start + room + 1])
            if first < after:
                near = place[first:after]
                end = int(near[np.argmin(np.abs(near - aim))])
                break
        found.append((start, end))
        start = end
    return [*found, (start, last)]


def batches(lengths: Sequence[int], device: str) -> list[list[int]]:
    """Rows of similar length together, longest first, as many as a forward pass on the device should have."""
    most = _PADDED_TOKENS.get(device, _PADDED_ELSEWHERE)
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    found: list[list[int]] = []
    for row in order:
        longest = lengths[found[-1][0]] if found else 0
        if not found or (len(found[-1]) + 1) * longest > most or lengths[row] < longest * 3 // 4:
            found.append([row])
        else:
            found[-1].append(row)
    return found


def firsts(items: Sequence[Hashable]) -> tuple[Ints, list[int]]:
    """What is to be read where equal items need reading only once.

    Returns:
        For each item its place among the distinct ones, ``[n]``, and for each of these where it stands first.
    """
    import numpy as np

    known: dict[Hashable, int] = {}
    places = np.fromiter((known.setdefault(item, len(known)) for item in items), dtype=np.int64, count=len(items))
    order = np.unique(places, return_index=True)[1]
    return places, [int(first) for first in order]


def special_ids(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and after a text."""
    sample = tokenizer.encode("a", add_special_tokens=True)
    inside = [place for place, special in enumerate(sample.special_tokens_mask) if not special] or [len(sample.ids)]
    return sample.ids[: inside[0]], sample.ids[inside[-1] + 1 :]
