"""What another compressor within ``structured`` is asked, and where its answer goes."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from ragzip.compressors._extractive import SentenceScorer
from ragzip.compressors._tokenwise import TokenScorer
from ragzip.compressors.bm25_sentences import BM25Sentences
from ragzip.compressors.structured import Structured
from ragzip.protocols import Compressor, Stack
from ragzip.types import Context, Passage, Query, Span, TextSegment, context_of
from tests.compressors.test_structured import WORDS, compress
from tests.compressors.test_structures import PROSE


def test_the_inner_compressor_sees_the_prose_of_a_passage_as_one():
    seen: list[Context[TextSegment]] = []

    @dataclass(frozen=True)
    class Looks(Compressor[TextSegment, TextSegment]):
        def compress(self, contexts):
            seen.extend(contexts)
            return list(contexts)

    text = "Before it.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nAfter it."
    compress(context_of(Query("q"), (Passage("p", text, "Title", 2.0),)), Looks())
    (passage,) = seen[0].passages
    assert (passage.text, passage.title, passage.score) == ("Before it.\n\nAfter it.", "Title", 2.0)
    assert [segment.text for segment in seen[0].segments] == ["Before it.\n\nAfter it."]


def test_prose_around_a_structure_is_judged_together():
    text = "Marie lit the lamp.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nShe won twice. She left in 1934."

    @dataclass(frozen=True)
    class Together(SentenceScorer):
        def score(self, query, groups):
            return [[float("Marie" in " ".join(g.texts) and "left" in t) for t in g.texts] for g in groups]

    after = compress(context_of(Query("When did Marie leave?"), (Passage("p", text),)), Together(threshold=0.5))
    assert [s.text for s in after.segments] == ["| a | b |\n|---|---|\n| 1 | 2 |", "She left in 1934."]


CHINESE = "罗马是意大利的首都，也是最大的城市。台伯河流过，历史悠久，人口众多。" * 3


@pytest.mark.parametrize("made", ["- a\n- b\n\n{}", '{{"says": "{}", "n": 1}}'], ids=["text", "json"])
def test_what_joins_the_inner_compressor_s_words_joins_them_here(made):
    @dataclass(frozen=True)
    class EveryOther(TokenScorer):
        def score(self, query, groups):
            return [[float(number % 3 > 0) for number in range(len(group.spans))] for group in groups]

    (alone,) = EveryOther(threshold=0.5).compress([context_of(Query("q"), (Passage("p", CHINESE),))])
    after = compress(context_of(Query("q"), (Passage("p", made.format(CHINESE)),)), EveryOther(threshold=0.5))
    assert alone.segments[0].text in after.segments[-1].text
    assert " " not in alone.segments[0].text


def test_the_budget_of_a_stack_within_is_that_of_the_context():
    context = context_of(Query("lamp"), (Passage("a", f"- x\n- y\n\n{PROSE} {PROSE} {PROSE}"),))
    limit = WORDS.context(context) // 2
    for inner in (
        Stack((BM25Sentences(budget=limit),)),
        Stack((BM25Sentences(budget=limit), BM25Sentences(threshold=0.0))),
        Stack((BM25Sentences(threshold=0.0), BM25Sentences(budget=limit))),
    ):
        (after,) = Structured(inner).bind(WORDS).compress([context])
        assert 0 < WORDS.context(after) <= limit
        assert "- x\n- y" in after.segments[0].text


@dataclass(frozen=True)
class Writes(Compressor[TextSegment, TextSegment]):
    """Writes one word for each segment, naming what it read."""

    def compress(self, contexts):
        return [
            Context(c.query, tuple(TextSegment("Short.", s.sources) for s in c.segments), c.passages) for c in contexts
        ]


def test_what_an_abstractive_compressor_writes_stands_where_it_read():
    text = f"{PROSE}\n\n```\ncode\n```\n\n{PROSE}"
    after = compress(context_of(Query("q"), (Passage("p", text),)), Writes())
    assert [segment.text for segment in after.segments] == ["Short.", "```\ncode\n```"]
    end = len(PROSE)
    assert after.segments[0].sources == (Span("p", 0, end), Span("p", len(text) - end, len(text)))


def test_what_is_written_for_a_value_of_json_stays_there():
    says = {
        key: f"{key} says this at length. It says it again, and more. And some more of it stands here." for key in "ab"
    }
    after = compress(context_of(Query("q"), (Passage("p", json.dumps({**says, "n": 3})),)), Writes())
    assert json.loads(after.segments[0].text) == {"a": "Short.", "b": "Short.", "n": 3}


def test_what_is_kept_beside_what_is_written_stays_in_its_order():
    @dataclass(frozen=True)
    class Half(Compressor[TextSegment, TextSegment]):
        def compress(self, contexts):
            (context,) = contexts
            (span,) = context.segments[0].sources
            end = context.segments[0].text.index(".") + 1
            kept = TextSegment(context.segments[0].text[:end], (Span(span.passage_id, 0, end),))
            made = TextSegment("Anew.", (Span(span.passage_id, end + 1, span.end),))
            return [Context(context.query, (made, kept), context.passages)]

    after = compress(context_of(Query("q"), (Passage("p", "First one. Second one here. Third.\n\n- a\n- b"),)), Half())
    assert [s.text for s in after.segments] == ["First one.\nAnew.", "- a\n- b"]
