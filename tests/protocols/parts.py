"""Compressors for tests of the stack."""

import time
from dataclasses import dataclass

from ragzip.errors import ConfigError, ModelError, UsageError
from ragzip.protocols import Compressor, Counter, Selector, runtime_field
from ragzip.types import Context, Passage, Query, SoftSegment, TextSegment, context_of

PASSAGES = (
    Passage("a", "The cat sat on the mat. It was black.", "Cats", 3.0),
    Passage("b", "Dogs bark at night.", "Dogs", 2.0),
    Passage("c", "Rain falls.", "", 1.0),
)
CONTEXT = context_of(Query("Who sat?"), PASSAGES)


def context(*texts, query="Who sat?"):
    return context_of(Query(query), tuple(Passage(f"p{i}", text) for i, text in enumerate(texts)))


def words(result):
    """What is left, as text."""
    return [segment.text for segment in result.context.segments]


@dataclass(frozen=True)
class First(Selector):
    """Keeps the first segments."""

    count: int = 1

    def compress(self, contexts):
        return [Context(c.query, c.segments[: self.count], c.passages) for c in contexts]


@dataclass(frozen=True)
class Backwards(Selector):
    def compress(self, contexts):
        return [Context(c.query, c.segments[::-1], c.passages) for c in contexts]


@dataclass(frozen=True)
class Upper(Compressor[TextSegment, TextSegment]):
    """Rewrites text without making it shorter."""

    suffix: str = ""

    def compress(self, contexts):
        return [
            Context(
                c.query, tuple(TextSegment(s.text.upper() + self.suffix, s.sources) for s in c.segments), c.passages
            )
            for c in contexts
        ]


@dataclass(frozen=True)
class Fails(Compressor[TextSegment, TextSegment]):
    """Fails on contexts whose query is ``on``; on all where that is empty."""

    on: str = ""
    kind: str = "value"

    def compress(self, contexts):
        for c in contexts:
            if not self.on or c.query.text == self.on:
                raise {
                    "value": ValueError("no such luck\nsecond line"),
                    "memory": MemoryError(),
                    "config": ConfigError("model", "is wrong"),
                    "model": ModelError("is not here"),
                    "usage": UsageError("is not right"),
                    "interrupt": KeyboardInterrupt(),
                }[self.kind]
        return First().compress(contexts)


@dataclass(frozen=True)
class Slow(Compressor[TextSegment, TextSegment]):
    seconds: float = 0.5

    def compress(self, contexts):
        time.sleep(self.seconds)
        return First().compress(contexts)


@dataclass(frozen=True)
class Gives(Compressor[TextSegment, TextSegment]):
    """Gives what it should not."""

    what: str = "none"

    def compress(self, contexts):
        c = contexts[0]
        return {
            "none": None,
            "one too few": [*contexts][1:],
            "another query": [Context(Query("other"), k.segments, k.passages) for k in contexts],
            "other passages": [Context(k.query, k.segments[:1], k.passages[:1]) for k in contexts],
            "a list of segments": [Context(k.query, [k.segments[0]], k.passages) for k in contexts],
            "strings": [Context(k.query, ("text",), k.passages) for k in contexts],
            "text": [c.query.text for _ in contexts],
        }[self.what]


@dataclass(frozen=True)
class Soft(Compressor[TextSegment, SoftSegment]):
    """One row a segment, or more, and text behind them."""

    space: str = "tiny"
    rows: int = 1
    more: str = ""

    def compress(self, contexts):
        import torch

        rows, more = torch.ones(self.rows, 4), (TextSegment(self.more),) if self.more else ()
        return [
            Context(c.query, (*(SoftSegment(rows, self.space, s.sources) for s in c.segments), *more), c.passages)
            for c in contexts
        ]


@dataclass(frozen=True)
class Holder(Compressor[TextSegment, TextSegment]):
    """Has a counter, and parts that have one."""

    inner: Compressor | None = None
    parts: tuple = ()
    counter: Counter | None = runtime_field()

    def compress(self, contexts):
        return list(contexts)
