"""Protocols of every role but the compressor. Sequences in, sequences out, same length, same order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from ragzip.types import Context, Generation, Message, Passage, Query, S_co, Segment

S_contra = TypeVar("S_contra", bound=Segment, contravariant=True)

OnText = Callable[[int, str], None]
"""Called with the index of the prompt in its batch and the next piece of its answer, as it is generated."""


@runtime_checkable
class Retriever(Protocol):
    """Finds passages. Implementations are frozen dataclasses with a ``top_k`` option."""

    def retrieve(self, queries: Sequence[Query], *, top_k: int | None = None) -> Sequence[Sequence[Passage]]:
        """At most ``top_k`` passages a query, best first, scored; None takes the component's own ``top_k``."""
        ...


class Generator(Protocol[S_contra]):
    """A frozen language model. ``Generator[TextSegment]`` reads text only; ``Generator[Segment]`` soft rows too."""

    def generate(
        self, prompts: Sequence[Sequence[Message[S_contra]]], *, on_text: OnText | None = None
    ) -> Sequence[Generation]:
        """One answer a prompt. An answer does not depend on what else is in the batch."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Tokens of each text, without special tokens, as this generator's own tokenizer cuts them."""
        ...


class KVCompression:
    """Makes the key-value cache of a prompt smaller, once a generator has read the prompt; see ``ragzip.kv``.

    Implementations are frozen dataclasses of options.
    """


class Prompt(Protocol):
    """Puts a context and its question into chat turns."""

    @property
    def titles(self) -> bool:
        """Whether the title of each passage is rendered; token counts include it then."""
        ...

    def render(self, context: Context[S_co]) -> tuple[Message[S_co], ...]:
        """The chat turns, with the context's segments as pieces."""
        ...


class Counter(Protocol):
    """Counts tokens as the frozen generator consumes them; the one place where tokens are counted.

    It may be asked from other threads than the one that made it, though from one at a time.
    """

    def texts(self, texts: Sequence[str]) -> Sequence[int]:
        """Tokens of each text on its own."""
        ...

    def context(self, context: Context[Segment]) -> int:
        """Tokens of the whole context as rendered: titles and separators included, one per soft row."""
        ...


class Metric(Protocol):
    """Scores one evaluation outcome. A metric is a value: it prints as its name, and ``parse`` gives it back."""

    @property
    def name(self) -> str:
        """As printed and parsed."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Which way is up."""
        ...

    def score(self, outcome: Any) -> float | None:
        """The outcome's value, or None where the metric says nothing about it: a label that is not there."""
        ...


@runtime_checkable
class SupportsCounting(Protocol):
    """A generator for which finding its tokenizer takes a moment, so that many counts are better made in one go."""

    def counting(self) -> Callable[[Sequence[str]], Sequence[int]]:
        """``count_tokens`` with its tokenizer at hand; good for one run, not to be kept."""
        ...


@runtime_checkable
class SupportsOffline(Protocol):
    """Query-independent soft compression that can fill a store at index time.

    Implement it only when the same passage gives the same segment for every query.
    """

    def compress_passages(self, passages: Sequence[Passage]) -> Sequence[Segment]:
        """One segment a passage."""
        ...


@runtime_checkable
class SupportsSpace(Protocol):
    """A soft compressor that can say, before loading anything, whose embedding space it writes."""

    @property
    def space(self) -> str:
        """The generator's model name."""
        ...


@runtime_checkable
class SupportsFuse(Protocol):
    """A part that can run as one pass with a later one, as a reranker and a pruner over the same encoder."""

    def fuse(self, following: Any) -> tuple[Any, Any] | None:
        """Both parts as they share their work in one run, not to be kept; None where the two do not fuse."""
        ...
