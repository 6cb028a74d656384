"""Passages to vectors while indexing: the encoder, loaded when the first passage needs it, and checks on its output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import ModelError, StoreMismatch
from ragzip.indexes.manifest import ModelEntry
from ragzip.indexes.table import clean
from ragzip.indexes.terms import count_words
from ragzip.indexes.text import searched_text
from ragzip.models import canonical
from ragzip.types import Passage

Progress = Callable[[int, int], None]


class Encoder(Protocol):
    """What indexing needs of an encoder; ``ragzip.models.load_encoder`` gives one."""

    @property
    def name(self) -> str:
        """As it is loaded by."""
        ...

    @property
    def dimensions(self) -> int:
        """Width of its vectors."""
        ...

    @property
    def max_tokens(self) -> int:
        """How much of a text it reads."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of its weights."""
        ...

    def encode(
        self, texts: Sequence[str], *, batch_size: int = 32, on_progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Unit vectors ``[n, dimensions]``, in the order of the texts."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Tokens of each text."""
        ...


def check_model(entry: ModelEntry, name: str, fingerprint: str, *, where: str, hint: str) -> None:
    """Makes sure that a model is the one that an index was made with, whatever it is called.

    Raises:
        StoreMismatch: It is not; says which is which.
    """
    if fingerprint != entry.fingerprint:
        raise StoreMismatch(
            f"{where}: made with {entry.name} ({entry.fingerprint[:12]}), not with {name} ({fingerprint[:12]}).",
            hint=hint,
        )


class LazyEncoder:
    """The encoder of one indexing run.

    Args:
        name: What to load, or "" for an index without vectors.
        given: An encoder to use instead of loading one.
        on_progress: Told how many passages have been encoded in this run, and 0 for a total nobody knows.
    """

    def __init__(self, name: str, given: Encoder | None = None, on_progress: Progress | None = None) -> None:
        self.name = name and (given.name if given is not None else canonical(name))
        self.done = 0
        self._encoder = given if name else None
        self._on_progress = on_progress

    @property
    def encoder(self) -> Encoder:
        """Loaded now if it was not before."""
        if self._encoder is None:
            from ragzip.models import load_encoder

            self._encoder = load_encoder(self.name)
        return self._encoder

    def entry(self) -> ModelEntry | None:
        """What a new manifest says about it."""
        if not self.name:
            return None
        return ModelEntry(self.name, self.fingerprint, self.encoder.dimensions)

    @property
    def fingerprint(self) -> str:
        """Of its weights; needs its files, but does not load them."""
        if self._encoder is not None:
            return self._encoder.fingerprint
        from ragzip.models import fingerprint

        return fingerprint(self.name)

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Sizes of texts for chunking: in the encoder's tokens, or in words where there is none."""
        return self.encoder.count_tokens(texts) if self.name else [count_words(text) for text in texts]

    def vectors(self, passages: Sequence[Passage], size: int) -> Iterator[NDArray[np.float32]]:
        """Vectors of passages in order, ``[n, dimensions]`` a slice of ``size``.

        Raises:
            ModelError: The encoder gave something that is no vector for each text.
        """
        mine = self.encoder
        for start in range(0, len(passages), size):
            texts = [clean(searched_text(passage)) for passage in passages[start : start + size]]
            block = np.asarray(mine.encode(texts, on_progress=self._tell), dtype=np.float32)
            if block.shape != (len(texts), mine.dimensions):
                raise ModelError(
                    f"{mine.name}: gave {block.shape} for {len(texts)} texts of {mine.dimensions} dimensions.",
                    hint="Check the model.",
                )
            finite = np.isfinite(block).all(axis=1)
            if not finite.all():
                which = passages[start + int(np.argmin(finite))].id
                raise ModelError(
                    f"{mine.name}: gave a vector that is not finite for passage {which}.",
                    hint="Check the model, or load it with dtype float32.",
                )
            self.done += len(texts)
            yield block

    def _tell(self, done: int, total: int) -> None:
        if self._on_progress is not None:
            self._on_progress(self.done + done, 0)
