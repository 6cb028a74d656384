"""Budgets are met for every counter, in few calls of it."""

import re

import pytest
import torch

from ragzip.compressors._allocate import fit
from ragzip.compressors._layout import Layout
from ragzip.compressors.bm25_sentences import BM25Sentences
from ragzip.compressors.budget import Budget
from ragzip.compressors.truncate import Truncate
from ragzip.testing.contracts import count_words
from ragzip.tokens import TokenCounter, text_of
from ragzip.types import Context, Passage, Query, SoftSegment, Span, context_of


def corpus(passages=20, sentences=8, title="Some title"):
    body = " ".join(f"Sentence number {i} says a few more words about it." for i in range(sentences))
    return context_of(Query("?"), tuple(Passage(f"p{i}", body, title, 1.0 - i / 100) for i in range(passages)))


STRANGE = {
    "squares": lambda text: len(text) ** 2 // 50,
    "much more together": lambda text: len(text) // 4 + (100 if len(text) > 200 else 0),
    "less together": lambda text: len(text) // 40 + bool(text),
    "steps": lambda text: -(-len(text) // 64) * 64,
    "a constant": lambda text: 37 if text else 0,
    "everything is long": lambda text: 10**6 if text else 0,
    "characters": len,
    "up and down": lambda text: len(text) // (3 + len(text) % 5),
    "nothing costs": lambda text: 0,
    "one by one cheap": lambda text: len(text) if len(text) > 100 else 0,
    "one by one dear": lambda text: len(text) // 8 if len(text) > 100 else 10**4,
}


@pytest.mark.parametrize("limit", [1, 5, 50, 400, 3000])
@pytest.mark.parametrize("name", STRANGE)
def test_a_budget_is_met_for_any_counter(name, limit):
    calls = []

    def count(texts):
        calls.append(len(texts))
        return [STRANGE[name](text) for text in texts]

    counter, context = TokenCounter(count), corpus()
    for compressor in (Budget(limit), Truncate(tokens=limit)):
        calls.clear()
        after = compressor.bind(counter).compress([context])[0]
        assert len(calls) < 80
        assert counter.context(after) <= limit


@pytest.mark.parametrize("name", ["squares", "steps", "characters", "less together", "up and down"])
def test_strange_counters_still_leave_something(name):
    counter = TokenCounter(lambda texts: [STRANGE[name](text) for text in texts])
    after = Budget(400).bind(counter).compress([corpus()])[0]
    assert counter.context(after) > 150


@pytest.mark.parametrize("long", ["=" * 900, " \u00a0" * 700 + "x", "-=" * 600])
def test_what_fits_is_not_cut_where_its_tokens_are_long(long):
    def count(texts):
        return [len(re.findall(r"\w+|[^\w]+", text)) for text in texts]

    counter = TokenCounter(count)
    context = context_of(Query("?"), (Passage("a", f"{long}\nAnn has 91."), Passage("b", "Ann lives in Rome.")))
    assert counter.context(context) < 30
    for made in (Budget(30), BM25Sentences(budget=30), Truncate(tokens=30)):
        assert made.bind(counter).compress([context])[0] == context


def test_few_calls_for_an_ordinary_counter():
    calls = []

    def count(texts):
        calls.append(sum(map(len, texts)))
        return count_words(texts)

    context = corpus()
    Budget(400).bind(TokenCounter(count)).compress([context])
    assert len(calls) <= 8
    assert sum(calls) < len(text_of(context))  # less than counting everything once


def test_text_whose_length_says_nothing_about_its_tokens():
    """Long runs of white space: a sentence far too long by its characters that fits all the same."""
    context = context_of(Query("?"), (Passage("p", "One" + " " * 20_000 + "two."), Passage("q", "a " * 400)))
    counter = TokenCounter(count_words)
    after = Budget(5).bind(counter).compress([context])[0]
    assert 3 <= counter.context(after) <= 5


def test_nothing_ranked_is_nothing_kept():
    layout = Layout(corpus())
    counter = TokenCounter(count_words)
    assert fit(layout, [], 100, counter).segments == ()
    assert fit(layout, [3], 0, counter).segments == ()
    assert layout.context.segments  # the input is as it was


def test_what_is_passed_over():
    first, second = "One two three four five. Six. Seven eight nine ten.", "Red. Blue green pink gray. Black."
    context = context_of(Query("?"), (Passage("p", first), Passage("q", second)))
    layout, counter = Layout(context), TokenCounter(count_words)

    def left(skip, limit):
        made = fit(layout, range(len(layout.units)), limit, counter, skip=skip, cut=False)
        return [segment.text for segment in made.segments]

    assert left("unit", 4) == ["Six.", "Red."]
    assert left("segment", 4) == ["Red."]
    assert left("all", 4) == []
    assert left("all", 12) == ["One two three four five. Six."]


def soft(rows, name="p0"):
    return SoftSegment(torch.zeros(rows, 4), "m", (Span(name, 0, 1),))


@pytest.mark.parametrize("rows", [1, 4, 16, 64, 100, 128])
def test_a_soft_segment_that_fits_exactly_is_kept(rows):
    counter = TokenCounter(count_words)
    context = Context(Query("?"), (soft(rows), soft(rows)), (Passage("p0", "A text."),))
    for made in (Budget(rows), Truncate(tokens=rows)):
        assert made.bind(counter).compress([context])[0].segments == (soft(rows),)


@pytest.mark.parametrize("more", [0, 1, 2, 3])
def test_the_best_sentence_that_fits_gives_way_to_none(more):
    counter = TokenCounter(lambda texts: [len(text.split()) for text in texts])
    best, other = "lamp " * 99 + "lamp.", "Word " * 97 + "word."
    context = context_of(Query("Which lamp?"), (Passage("p", f"{other} {best}"),))
    after = BM25Sentences(budget=100 + more).bind(counter).compress([context])[0]
    assert [segment.text for segment in after.segments] == [best]


@pytest.mark.parametrize(("fill", "cut"), [(1, True), (5, True), (6, False), (15, False)])
def test_next_to_nothing_does_not_stand_for_the_best_sentence(fill, cut):
    counter = TokenCounter(lambda texts: [len(text.split()) for text in texts])
    best, other = "Lamp " + "lamp " * 30 + "lamp.", " ".join(["Word", *["word"] * (fill - 2), "word."][:fill])
    context = context_of(Query("Which lamp?"), (Passage("p", f"{best} {other}"),))
    after = BM25Sentences(budget=20).bind(counter).compress([context])[0]
    assert [segment.text for segment in after.segments] == [("Lamp " + "lamp " * 19).strip() if cut else other]


@pytest.mark.parametrize("lacking", [0, 3, 20])
def test_a_sentence_is_cut_where_others_have_titles_that_are_too_long(lacking):
    long = "An enormous title " * 15
    passages = [Passage(f"p{i}", "fox " * 40, long) for i in range(lacking)]
    last = Passage("q", "the quick brown animals go " * 12 + "fox.")
    counter = TokenCounter(count_words)
    (after,) = BM25Sentences(budget=20, counter=counter).compress([context_of(Query("fox"), (*passages, last))])
    assert 10 < counter.context(after) <= 20


WORDS = TokenCounter(count_words)
LONG = ", ".join(f"thing {number} is sold for {number} crowns" for number in range(40)) + "."


@pytest.mark.parametrize("made", [Truncate(tokens=100), Truncate(keep=0.4), Budget(tokens=100)])
@pytest.mark.parametrize("heading", ["Abstract\n\n", "Article 5. Payment.\n\n", "1. "])
def test_a_short_beginning_does_not_stand_alone(made, heading):
    """What comes behind it is too long for the budget: its head fills what is left."""
    context = context_of(Query("Who pays?"), (Passage("p", heading + LONG, "Law"),))
    (found,) = made.bind(WORDS).compress([context])
    used = WORDS.context(found)
    limit = 100 if made != Truncate(keep=0.4) else WORDS.context(context) * 0.4
    assert 0.9 * limit <= used <= limit
    (segment,) = found.segments
    assert (heading + LONG).startswith(segment.text)


def test_no_more_than_the_first_that_is_passed_over_is_cut():
    whole = context_of(Query("Who?"), (Passage("a", "One.\n\n" + LONG), Passage("b", "Two. Three four.")))
    (found,) = Truncate(tokens=60).bind(WORDS).compress([whole])
    assert [segment.sources[0].passage_id for segment in found.segments] == ["a"]
    (dealt,) = Budget(tokens=60).bind(WORDS).compress([whole])
    assert WORDS.context(dealt) <= 60
    assert {segment.sources[0].passage_id for segment in dealt.segments} == {"a", "b"}
    assert "Three four." in dealt.segments[-1].text
