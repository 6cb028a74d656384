"""A small set of our own, and pipelines over it that need no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ragzip import BM25Sentences, Pipeline, Plain
from ragzip.errors import GenerationError, PromptTooLong
from ragzip.evaluation.folder import Run
from ragzip.evaluation.record import DataSet, Record
from ragzip.evaluation.rows import plan
from ragzip.protocols import Compressor, Generator, Retriever, WordCounter
from ragzip.types import Context, Generation, Message, Passage, Query, Span, TextSegment

PROMPT = Plain(system="")

_PLACES = ("harbour", "orchard", "library", "station", "bakery", "museum", "garden", "bridge")
_OWNERS = ("Ada", "Boris", "Clara", "Dmitri", "Elena", "Farid", "Greta", "Hugo")


def record(number: int) -> Record:
    """A question about who owns a place, with one passage that says it and two that do not."""
    place, owner = _PLACES[number % 8] + str(number), _OWNERS[number % 8] + str(number)
    fact = f"The {place} belongs to {owner}."
    passages = (
        Passage(f"{number}-a", f"Rain fell all week. {fact} Nobody was surprised by it.", "Owners"),
        Passage(f"{number}-b", "A cat slept on the wall. The wall was warm in the sun. Dogs barked far away.", "Cats"),
        Passage(f"{number}-c", f"The {place} is old. It was built of stone by many hands.", ""),
    )
    start = passages[0].text.index(fact)
    span = Span(f"{number}-a", start, start + len(fact))
    return Record(f"q{number}", f"Who does the {place} belong to?", (owner,), passages, (span,))


def small_set(n: int = 6) -> DataSet:
    return DataSet("small", tuple(record(i) for i in range(n)), source="made", split="dev", labels="sentences")


DOWN: set[str] = set()
"""Words of questions for which ``Reader``'s server is down."""


@dataclass(frozen=True)
class Reader(Generator[TextSegment]):
    """Answers with the word after ``belongs to`` in its prompt, else with ``unknown``: right when the fact is kept."""

    model: str = "reader"
    fails_over: int = 10_000

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return WordCounter().texts(texts)

    def generate(self, prompts: Sequence[Sequence[Message[TextSegment]]], *, on_text=None) -> list[Generation]:
        texts = ["\n".join(str(m) for m in prompt) for prompt in prompts]
        made = []
        if DOWN and any(word in text for word in DOWN for text in texts):
            raise GenerationError("the server is down")
        for text in texts:
            size = self.count_tokens([text])[0]
            if size > self.fails_over:
                raise PromptTooLong(f"a prompt of {size} tokens")
            _, found, rest = text.partition("belongs to ")
            answer = rest.partition(".")[0] if found else "unknown"
            made.append(Generation(answer, size, 1, 0.001 * size, 0.001 * size + 0.001))
        return made


@dataclass
class Calls:
    """How often each step ran."""

    made: dict[str, int] = field(default_factory=dict)

    def add(self, name: str) -> None:
        self.made[name] = self.made.get(name, 0) + 1


CALLS = Calls()


@dataclass(frozen=True)
class Counted(Compressor[TextSegment, TextSegment]):
    """Drops the last segment, and is counted."""

    name: str = "counted"

    def compress(self, contexts: Sequence[Context[TextSegment]]) -> list[Context[TextSegment]]:
        CALLS.add(self.name)
        return [Context(c.query, c.segments[:-1], c.passages) for c in contexts]


@dataclass(frozen=True)
class Finding(Retriever):
    """Gives two passages for any question, and is counted."""

    top_k: int = 2

    def retrieve(self, queries: Sequence[Query], *, top_k: int | None = None) -> list[list[Passage]]:
        CALLS.add("retrieve")
        number = [int(q.id[1:]) for q in queries]
        return [list(record(n).passages[: top_k or self.top_k]) for n in number]


@dataclass(frozen=True)
class Pieces(Retriever):
    """Gives the first passage of ``record(number)`` in two pieces with ids of its own, as an index would."""

    number: int = 0
    cut: int = 20

    def retrieve(self, queries: Sequence[Query], *, top_k: int | None = None) -> list[list[Passage]]:
        text = record(self.number).passages[0].text
        cut = [Passage("kb#0", text[: self.cut]), Passage("kb#1", text[self.cut :]), Passage("kb#2", "Cows eat grass.")]
        return [cut for _ in queries]


def reading(*parts: Compressor, **options) -> Pipeline:
    return Pipeline(Reader(), compressors=tuple(parts), prompt=PROMPT, **options)


TIMES = ("seconds", "ttft", "memory")


def rows_of(*parts):
    return plan([("mine", reading(*(parts or (BM25Sentences(budget=14),))))])


def steady(run: Run) -> dict:
    """The metrics without those that differ from run to run."""
    return {
        name: {metric: value for metric, value in found.items() if not any(t in metric for t in TIMES)}
        for name, found in run.metrics.items()
    }
