"""Parts for pipeline tests: no model, no index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragzip.protocols import Compressor, Generator, Retriever
from ragzip.types import Context, Generation, Message, Passage, Query, SoftSegment, TextSegment

PASSAGES = (
    Passage("a", "The cat sat on the mat. It was a black cat.", "Cats", 3.0, {"source": "cats.md"}),
    Passage("b", "Dogs bark at night. The moon is far away from the dog.", "Dogs", 2.0),
    Passage("c", "Rain falls mainly on the plain.", "", 1.0),
)


@dataclass(frozen=True)
class Fixed(Retriever):
    """Gives the same passages for every query."""

    top_k: int = 20

    def retrieve(self, queries: Sequence[Query], *, top_k: int | None = None) -> list[list[Passage]]:
        return [list(PASSAGES[: top_k or self.top_k]) for _ in queries]


@dataclass(frozen=True)
class FirstWords(Compressor[TextSegment, TextSegment]):
    """Keeps the first two words of each segment."""

    def compress(self, contexts: Sequence[Context[TextSegment]]) -> list[Context[TextSegment]]:
        return [Context(c.query, tuple(_cut(s) for s in c.segments), c.passages) for c in contexts]


def _cut(segment: TextSegment) -> TextSegment:
    from ragzip.types import Span

    text = " ".join(segment.text.split(" ")[:2])
    source = segment.sources[0]
    return TextSegment(text, (Span(source.passage_id, source.start, source.start + len(text)),))


@dataclass(frozen=True)
class ToSoft(Compressor[TextSegment, SoftSegment]):
    """Turns text into rows of another space."""

    space: str = "tiny"

    def compress(self, contexts: Sequence[Context[TextSegment]]) -> list[Context[SoftSegment]]:
        import torch

        return [
            Context(
                c.query, tuple(SoftSegment(torch.zeros(1, 4), self.space, s.sources) for s in c.segments), c.passages
            )
            for c in contexts
        ]


@dataclass(frozen=True)
class Failing(Compressor[TextSegment, TextSegment]):
    """Raises for contexts whose query holds ``bad``."""

    def compress(self, contexts: Sequence[Context[TextSegment]]) -> list[Context[TextSegment]]:
        if any("bad" in c.query.text for c in contexts):
            raise RuntimeError("cannot do this one")
        return FirstWords().compress(contexts)


@dataclass(frozen=True)
class TextOnly(Generator[TextSegment]):
    """Answers with the first words of its prompt; like a server that takes text alone."""

    model: str = "text-only"
    seed: int = 0

    def generate(self, prompts: Sequence[Sequence[Message[TextSegment]]], *, on_text=None) -> list[Generation]:
        made = []
        for i, prompt in enumerate(prompts):
            text = f"seed {self.seed}: " + " ".join("".join(str(m) for m in prompt).split()[-4:])
            if on_text:
                for word in text.split(" "):
                    on_text(i, word + " ")
            made.append(Generation(text, len(str(prompt[-1]).split()), len(text.split()), 0.25, 0.5))
        return made

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]
