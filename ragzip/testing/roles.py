"""The laws of retrievers and generators, as pytest classes to inherit from."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, ClassVar

from ragzip import config, registry
from ragzip.protocols import Generator, Retriever
from ragzip.registry import Kind
from ragzip.testing.contracts import expect
from ragzip.types import Message, Passage, Query, Segment, TextSegment


class RetrieverContract:
    """What every retriever keeps. Inherit, name the class ``Test…``, and say how to make one.

    Attributes:
        tolerance: Most difference of a score between a batch and its singles.
    """

    tolerance: ClassVar[float] = 1e-5

    def make(self) -> Retriever:
        """The retriever under test, over a corpus of at least three passages."""
        raise NotImplementedError("say which retriever to test: def make(self): return ...")

    def queries(self) -> list[Query]:
        """Questions to try; the defaults cover odd text."""
        texts = ["Who was in Rome?", "", " ", "a", "漢字 😀 e\u0301", "מה שלומך?", "\x00", "word " * 5_000]
        return [Query(text, id=str(number)) for number, text in enumerate(texts)]

    def test_gives_one_list_a_query_best_first_and_no_longer_than_asked(self) -> None:
        """Sequences in, sequences out; scored, sorted, without repeats."""
        made, queries = self.make(), self.queries()
        for top_k in (1, 2, 10_000):
            found = made.retrieve(queries, top_k=top_k)
            expect(len(found) == len(queries), f"{len(found)} lists for {len(queries)} queries")
            for passages in found:
                expect(len(passages) <= top_k, f"{len(passages)} passages for top_k={top_k}")
                scores = [p.score for p in passages if p.score is not None]
                expect(len(scores) == len(passages), "a passage has no score")
                expect(scores == sorted(scores, reverse=True), f"not best first: {scores}")
                expect(len({p.id for p in passages}) == len(passages), "a passage comes twice")
        expect(list(made.retrieve([])) == [], "no queries give something")

    def test_own_top_k_is_the_default(self) -> None:
        """``top_k=None`` takes the component's own."""
        made, queries = self.make(), self.queries()[:1]
        top_k = getattr(made, "top_k", None)
        if top_k is not None:
            self._same(made.retrieve(queries), made.retrieve(queries, top_k=top_k))

    def test_a_batch_gives_what_its_queries_give_alone(self) -> None:
        """No result depends on the rest of its batch or on its order."""
        made, queries = self.make(), self.queries()
        alone = [made.retrieve([query])[0] for query in queries]
        self._same(made.retrieve(queries), alone)
        self._same(list(made.retrieve(queries[::-1]))[::-1], alone)

    def test_is_deterministic(self) -> None:
        """The same call gives the same passages, and so does an equal component."""
        made, queries = self.make(), self.queries()
        first = made.retrieve(queries)
        self._same(made.retrieve(queries), first)
        self._same(self.make().retrieve(queries), first)

    def test_pickles_and_has_a_config(self) -> None:
        """Copies through pickle and config are equal."""
        check_copies(self.make(), "retriever")

    def _same(self, found: Sequence[Sequence[Passage]], expected: Sequence[Sequence[Passage]]) -> None:
        expect([[p.id for p in ps] for ps in found] == [[p.id for p in ps] for ps in expected], "other passages")
        for passages, others in zip(found, expected, strict=True):
            for one, other in zip(passages, others, strict=True):
                gap = abs((one.score or 0.0) - (other.score or 0.0))
                expect(gap <= self.tolerance, f"scores of {one.id!r} differ by {gap}")


class GeneratorContract:
    """What every generator keeps. Inherit, name the class ``Test…``, and say how to make one (greedy, few tokens)."""

    def make(self) -> Generator[Any]:
        """The generator under test."""
        raise NotImplementedError("say which generator to test: def make(self): return ...")

    def prompts(self) -> list[tuple[Message[Segment], ...]]:
        """Prompts to try: short and long, one with a system turn, one with a text segment."""
        rome = TextSegment("Rome is the capital of Italy.")
        return [
            (Message("user", ("Hello!",)),),
            (Message("system", ("Be brief.",)), Message("user", (rome, "\n\nWhat is the capital of Italy?"))),
            (Message("user", ("Count: " + "one two three 漢字 😀 e\u0301 " * 20,)),),
        ]

    def test_gives_one_answer_a_prompt_with_its_account(self) -> None:
        """Sequences in, sequences out, with counts and times that make sense."""
        prompts = self.prompts()
        found = self.make().generate(prompts)
        expect(len(found) == len(prompts), f"{len(found)} answers for {len(prompts)} prompts")
        for answer in found:
            expect(answer.text == answer.text.strip(), "the answer has white space around it")
            expect(answer.prompt_tokens > 0, "prompt tokens are not counted")
            expect(answer.new_tokens >= 0, "negative new tokens")
            expect(0 <= answer.first_token_seconds <= answer.seconds, "the first token came after the last")
        expect(list(self.make().generate([])) == [], "no prompts give something")

    def test_an_answer_does_not_depend_on_its_batch(self) -> None:
        """Padding and order change nothing."""
        made, prompts = self.make(), self.prompts()
        alone = [made.generate([prompt])[0].text for prompt in prompts]
        expect([g.text for g in made.generate(prompts)] == alone, "a batch changes an answer")
        expect([g.text for g in made.generate(prompts[::-1])] == alone[::-1], "the order of a batch changes an answer")

    def test_streams_what_it_answers(self) -> None:
        """The pieces add up to the answers."""
        prompts = self.prompts()
        streamed = [""] * len(prompts)

        def on_text(place: int, piece: str) -> None:
            streamed[place] += piece

        found = self.make().generate(prompts, on_text=on_text)
        expect([text.strip() for text in streamed] == [g.text for g in found], "streams something else")

    def test_counts_tokens(self) -> None:
        """One count a text, by itself."""
        made = self.make()
        texts = ["", "a", "Rome is the capital of Italy.", "漢字 😀 e\u0301", "word " * 1000]
        counts = list(made.count_tokens(texts))
        expect(len(counts) == len(texts), "not one count a text")
        expect(counts[0] == 0, "an empty text has tokens")
        expect(all(isinstance(n, int) and n >= 0 for n in counts), "counts are no whole numbers")
        expect([made.count_tokens([text])[0] for text in texts] == counts, "a count depends on its batch")
        expect(list(made.count_tokens([])) == [], "no texts give something")

    def test_pickles_and_has_a_config(self) -> None:
        """Copies through pickle and config are equal."""
        check_copies(self.make(), "generator")


def check_copies(made: Any, kind: Kind) -> None:
    """A component equals its pickled copy and, where a registry names it, what its config builds."""
    loaded = pickle.loads(pickle.dumps(made))  # noqa: S301 - our own bytes
    expect(loaded == made, "is not equal to its pickled copy")
    if registry.kind_of(made) is not None:
        expect(config.from_config(kind, config.to_config(made)) == made, "its config builds another")
