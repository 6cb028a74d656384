"""Compressors and their algebra: ``a >> b`` is a stack, and the type checker refuses the ones that cannot work."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Generic, Self, TypeVar, overload

from ragzip.errors import ConfigError
from ragzip.protocols._roles import Counter
from ragzip.protocols._run import Remembering, WordCounter, note, run_stack
from ragzip.types import CompressionResult, Context, Segment, Status

In_contra = TypeVar("In_contra", bound=Segment, contravariant=True)
Out_co = TypeVar("Out_co", bound=Segment, covariant=True)
Next = TypeVar("Next", bound=Segment)
In = TypeVar("In", bound=Segment)
Out = TypeVar("Out", bound=Segment)

_LONGEST = 1e15  # seconds that a step may take: some thirty million years


def runtime_field() -> Any:
    """A dataclass field that is no option: not compared, not shown, not written to configs (a token counter)."""
    return dataclasses.field(default=None, compare=False, repr=False, metadata={"runtime": True})


class Compressor(ABC, Generic[In_contra, Out_co]):
    """Makes contexts smaller.

    Implementations are frozen dataclasses whose fields are their options, and keep the laws that
    ``ragzip.testing.CompressorContract`` tests: same number of contexts in the same order, ``query`` and
    ``passages`` untouched, spans inside their passages, decisions independent of the batch, nothing mutated.
    ``In_contra`` and ``Out_co`` are ``TextSegment``, ``SoftSegment`` or their union; they are read by the type
    checker and, for stacks that came from YAML, at run time.

    A field made by ``runtime_field()`` and called ``counter`` is filled by ``bind`` with the generator's counter. By
    itself, and in a stack that has none, it is None: ragzip's own then take ``ragzip.models.default_counter()``.
    """

    @abstractmethod
    def compress(self, contexts: Sequence[Context[In_contra]]) -> Sequence[Context[Out_co]]:
        """One compressed context for each context given, in the same order."""

    def bind(self, counter: Counter) -> Self:
        """A copy of this component, parts included, that counts tokens with ``counter``."""
        changes: dict[str, Any] = {}
        fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(self) if dataclasses.is_dataclass(self) else ()
        for field in fields:
            value = getattr(self, field.name)
            if field.name == "counter" and field.metadata.get("runtime"):
                changes[field.name] = counter
            elif isinstance(value, Compressor):
                changes[field.name] = value.bind(counter)
            elif isinstance(value, tuple) and any(isinstance(v, Compressor) for v in value):
                changes[field.name] = tuple(v.bind(counter) if isinstance(v, Compressor) else v for v in value)
        return dataclasses.replace(self, **changes) if changes else self  # type: ignore[type-var]

    @overload
    def __rshift__(self, other: Selector) -> Stack[In_contra, Out_co]: ...
    @overload
    def __rshift__(self, other: Compressor[Out_co, Next]) -> Stack[In_contra, Next]: ...
    def __rshift__(self, other: Compressor[Any, Any]) -> Stack[Any, Any]:
        """This compressor, then ``other``. Stacks flatten, so ``>>`` is associative."""
        return _join(self, other) if isinstance(other, Compressor) else NotImplemented


class Selector(Compressor[Segment, Segment]):
    """Keeps, drops, shortens or reorders segments and never turns one kind into another, so it fits anywhere."""

    @overload
    def __rshift__(self, other: Selector) -> SelectorStack: ...
    @overload
    def __rshift__(self, other: Compressor[In, Out]) -> Stack[In, Out]: ...
    def __rshift__(self, other: Compressor[Any, Any]) -> Any:
        """This selector, then ``other``."""
        return _join(self, other) if isinstance(other, Compressor) else NotImplemented


def members(compressor: Compressor[Any, Any]) -> tuple[Compressor[Any, Any], ...]:
    """The compressors of a stack, or the compressor itself."""
    return compressor.compressors if isinstance(compressor, Stack) else (compressor,)


def walk(compressor: Compressor[Any, Any]) -> Iterator[Compressor[Any, Any]]:
    """The compressor and all that it is made of, whether in a stack or within one another; the outer ones first."""
    yield compressor
    fields: tuple[dataclasses.Field[Any], ...] = (
        dataclasses.fields(compressor) if dataclasses.is_dataclass(compressor) else ()
    )
    for field in fields:
        value = getattr(compressor, field.name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, Compressor):
                yield from walk(one)


def _join(first: Compressor[Any, Any], second: Compressor[Any, Any]) -> Stack[Any, Any]:
    """One flat stack; settings, and the counter, are those of the first of the two that has any."""
    settings: Stack[Any, Any] = next(
        (s for s in (first, second) if isinstance(s, Stack) and (s.timeout, s.min_tokens) != (None, 1)), Stack()
    )
    counter = next((s.counter for s in (first, second) if isinstance(s, Stack) and s.counter is not None), None)
    return dataclasses.replace(settings, compressors=(*members(first), *members(second)), counter=counter)


@dataclass(frozen=True)
class Stack(Compressor[In_contra, Out_co]):
    """Compressors in order. The empty stack changes nothing.

    Attributes:
        compressors: First to last.
        timeout: Seconds a step may take for its whole batch before its input goes on unchanged; None never.
        min_tokens: A context with fewer tokens than this skips the step (``skipped_short``); 1 skips only
            contexts that are empty.
    """

    compressors: tuple[Compressor[Any, Any], ...] = ()
    timeout: float | None = None
    min_tokens: int = 1
    counter: Counter | None = runtime_field()

    def __post_init__(self) -> None:
        parts: Any = self.compressors
        if not isinstance(parts, tuple):
            raise ConfigError("compressors", f"must be a tuple, not {parts!r:.80}", hint="Write (a, b), or a >> b.")
        for part in parts:
            if not isinstance(part, Compressor):
                raise ConfigError("compressors", f"{part!r:.80} is not a compressor", hint="Dedupe(), not Dedupe.")
        limit = 1 if self.timeout is None else self.timeout
        if isinstance(limit, bool) or not isinstance(limit, Real) or not 0 < limit <= _LONGEST:
            raise ConfigError("timeout", f"must be a number of seconds above 0, up to {_LONGEST:g}, not {limit!r:.40}")
        if isinstance(self.min_tokens, bool) or not isinstance(self.min_tokens, Integral) or self.min_tokens < 0:
            raise ConfigError("min_tokens", f"must be a whole number from 0, not {self.min_tokens!r}")

    def compress(self, contexts: Sequence[Context[In_contra]]) -> Sequence[Context[Out_co]]:
        """The contexts of ``run``. Without a bound counter text may not grow in words; budgets are each part's own."""
        results = self.run(contexts)
        failed = Tally(
            f"{step.name}: {step.status.value}: {step.detail}"
            for result in results
            for step in result.steps
            if step.status in (Status.ERROR, Status.TIMEOUT)
        )
        for said, count in failed.items():  # a part of something else: what goes wrong must not be passed over
            note(said if len(results) == 1 else f"{said} ({count} of {len(results)} contexts)")
        return [result.context for result in results]

    def run_within(
        self, contexts: Sequence[Context[In_contra]], counter: Counter, *, timeout: float | None, min_tokens: int
    ) -> list[CompressionResult[Out_co]]:
        """As ``run``, as a part of another stack: its steps are that one's, and of both limits the stricter holds.

        Args:
            contexts: A batch.
            counter: The other stack's. A counter of this one's own goes before it.
            timeout: Of a step, or None.
            min_tokens: As of a stack.
        """
        own = self.counter is not None and self.counter is not counter
        used = Remembering(self.counter) if own and self.counter is not None else counter
        parts = tuple(part.bind(used) for part in self.compressors) if own else self.compressors
        given = min((limit for limit in (self.timeout, timeout) if limit is not None), default=None)
        return run_stack(parts, contexts, used, timeout=given, min_tokens=max(self.min_tokens, min_tokens))

    def run(
        self, contexts: Sequence[Context[In_contra]], *, counter: Counter | None = None
    ) -> list[CompressionResult[Out_co]]:
        """Compresses and accounts for every step.

        Args:
            contexts: A batch.
            counter: Whose tokens are counted: the generator's. None takes the bound one, else counts words and leaves
                to each part the counter that it has by itself.

        Returns:
            One result per context, in order.

        Raises:
            ConfigError, ModelError, StoreError: A step that could never work (a missing model, say) is not passed
                over in silence; every other failure of a step falls open to its input with status ``error``.
        """
        given = counter or self.counter
        used = Remembering(given or WordCounter())
        parts = tuple(part.bind(used) for part in self.compressors) if given else self.compressors
        return run_stack(parts, contexts, used, timeout=self.timeout, min_tokens=self.min_tokens)


class SelectorStack(Selector, Stack[Segment, Segment]):
    """The type of a stack of selectors alone, which fits anywhere, too. At run time it is a plain ``Stack``."""
