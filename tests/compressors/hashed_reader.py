"""A language model without weights that reads: stands in for ``ragzip.models.perplexity.Perplexity``."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from ragzip.models.perplexity import Reading, Tokens


class HashedReader:
    """Pieces of at most four characters, with the space before, are tokens; each has a loss for each context.

    Attributes:
        calls: What was asked, by name, with the number of texts or tokens.
    """

    window, longest = 2048, 511

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, str, str]] = []

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Ids that depend on the characters alone."""
        return [_encode(text) for text in texts]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens."""
        return [len(text) for text in self.encode(texts)]

    def read(self, texts: Sequence[Tokens], *, prefix: str = "", suffix: str = "") -> list[Reading]:
        """Losses from 0 to 10 that depend on token, prefix and what stands just before."""
        self.calls.append(("read", len(texts), prefix, suffix))
        return [
            Reading(_losses(text.ids, _hash(prefix)), _hash(suffix, text.ids.tobytes()) % 1000 / 100 if suffix else 0.0)
            for text in texts
        ]

    def iterate(self, text: Tokens, choose: Callable[[int, np.ndarray], np.ndarray], *, size: int = 200) -> np.ndarray:
        """Losses that depend on the last token chosen so far, too."""
        self.calls.append(("iterate", len(text), "", ""))
        found, last = np.zeros(len(text), dtype=np.float32), 0
        for first in range(0, len(text), size):
            ids = text.ids[first : first + size]
            found[first : first + size] = losses = _losses(ids, last)
            chosen = ids[choose(first, losses)]
            last = int(chosen[-1]) if len(chosen) else last
        return found


def _encode(text: str) -> Tokens:
    offsets = np.asarray([match.span() for match in re.finditer(r"\s?\S{1,4}|\s+", text)], dtype=np.int64).reshape(
        -1, 2
    )
    ids = [_hash(text[start:end]) for start, end in offsets.tolist()]
    return Tokens(np.asarray(ids, dtype=np.int64), offsets[:, 0], offsets[:, 1])


def _losses(ids: np.ndarray, salt: int) -> np.ndarray:
    before = np.concatenate([[salt], ids[:-1]])
    return ((ids * 31 + before * 7 + salt) % 1000 / 100).astype(np.float32)


def _hash(text: str, more: bytes = b"") -> int:
    return zlib.crc32(text.encode("utf-8", "replace") + more)
