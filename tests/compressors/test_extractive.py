"""The helper base: what a method that only scores sentences gets for free."""

import re
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.compressors._extractive import Sentences, SentenceScorer, groups_of
from ragzip.compressors._layout import Layout
from ragzip.compressors.bm25_sentences import BM25Sentences
from ragzip.compressors.random_sentences import RandomSentences
from ragzip.errors import ConfigError
from ragzip.protocols import Stack
from ragzip.testing import CompressorContract
from ragzip.testing.contracts import count_words
from ragzip.tokens import TokenCounter
from ragzip.types import Context, Passage, Query, Span, Status, TextSegment, context_of
from tests.matrix import bpe_counter

COUNTER = TokenCounter(count_words)


@dataclass(frozen=True)
class Marked(SentenceScorer):
    """Scores a sentence by the number that stands in it."""

    bonus: float = 0.0

    def score(self, query, groups):
        return [[self.bonus + max(map(int, re.findall("[0-9]+", t)), default=0) for t in g.texts] for g in groups]


def of(*texts, title=""):
    return context_of(Query("?"), tuple(Passage(f"p{i}", text, title) for i, text in enumerate(texts)))


def texts(compressor, context, counter=COUNTER):
    return [segment.text for segment in compressor.bind(counter).compress([context])[0].segments]


TWO = of("Nine 9 here. One 1 here. Eight 8 here.", "Two 2 there. Seven 7 there.")


class TestContract(CompressorContract):
    def make(self):
        return Marked(budget=14)


def test_threshold_keeps_sentences_at_or_above_it():
    assert texts(Marked(threshold=7), TWO) == ["Nine 9 here. Eight 8 here.", "Seven 7 there."]
    assert texts(Marked(threshold=9.5), TWO) == []


def test_budget_takes_the_best_across_passages_in_their_order():
    assert texts(Marked(budget=8), TWO) == ["Nine 9 here. Eight 8 here."]
    assert texts(Marked(budget=12), TWO) == ["Nine 9 here. Eight 8 here.", "Seven 7 there."]
    assert texts(Marked(budget=0), TWO) == []


def test_keep_is_a_share_of_tokens():
    assert texts(Marked(keep=0.6), TWO) == ["Nine 9 here. Eight 8 here.", "Seven 7 there."]
    assert texts(Marked(keep=0.4), TWO) == ["Nine 9 here. Eight 8 here."]


def test_keep_leaves_the_best_sentence_whole():
    assert texts(Marked(keep=0.01), TWO) == ["Nine 9 here."]
    assert texts(Marked(keep=0.01, budget=2), TWO) == ["Nine 9"]  # but a budget is a budget


@pytest.mark.parametrize("keep", [0.05, 0.2, 0.35, 0.5, 0.65])
def test_the_best_sentence_stays_whatever_else_would_fit(keep):
    context = of("Short 1 one here. Very 9 " + "long " * 20 + "sentence. Short 2 two here.")
    assert any("Very 9" in text for text in texts(Marked(keep=keep), context))


def test_where_the_best_sentence_is_over_the_budget_others_fill_the_share():
    context = of("Very 9 " + "long " * 20 + "sentence. Short 2 two here. Short 1 one here.")
    assert texts(Marked(keep=0.35, budget=20), context) == ["Short 2 two here. Short 1 one here."]
    assert texts(Marked(keep=0.02, budget=20), context)[0].startswith("Very 9 long")  # nothing else fits either


def test_without_limits_half_is_kept():
    assert texts(Marked(), TWO) == texts(Marked(keep=0.5), TWO) == ["Nine 9 here. Eight 8 here."]


def test_all_limits_hold_together():
    assert texts(Marked(threshold=8.5, budget=12, keep=0.9), TWO) == ["Nine 9 here."]
    assert texts(Marked(threshold=1, budget=4, keep=0.9), TWO) == ["Nine 9 here."]
    assert texts(Marked(threshold=1, budget=16, keep=0.25), TWO) == ["Nine 9 here."]


def test_titles_and_separators_count():
    titled = of("Nine 9 here. One 1 here.", "Two 2 there.", title="A long title of seven words")
    assert texts(Marked(budget=4), titled) == []  # the title alone is longer
    assert texts(Marked(budget=10), titled) == ["Nine 9 here."]
    untitled = TokenCounter(count_words, titles=False)
    assert texts(Marked(budget=4), titled, untitled) == ["Nine 9 here."]


def test_neighbours_keep_their_white_space_and_one_span():
    context = of("First 5 one.\n\n  Second 6 one.  Third 1 one. Fourth 7 one.")
    (segment,) = Marked(threshold=5).compress([context])[0].segments
    assert segment.text == "First 5 one.\n\n  Second 6 one. Fourth 7 one."
    assert segment.sources == (Span("p0", 0, 29), Span("p0", 44, 57))


def test_an_untouched_segment_is_given_back_as_it_is():
    context = of("  All 5 of it. Stays 6 as it is.\n", "Gone 1.")
    (segment,) = Marked(threshold=5).compress([context])[0].segments
    assert segment is context.segments[0]


@pytest.mark.parametrize("neutral", [Marked(keep=1.0), Marked(threshold=-1.0), Marked(budget=21), Marked(budget=10**9)])
def test_keeping_everything_is_no_gain(neutral):
    assert neutral.bind(COUNTER).compress([TWO])[0] is TWO
    (result,) = Stack((neutral,)).run([TWO], counter=COUNTER)
    assert result.steps[0].status is Status.NO_GAIN


def test_a_context_that_fits_is_not_scored():
    @dataclass(frozen=True)
    class Never(Marked):
        def score(self, query, groups):
            raise AssertionError("scored for nothing")

    assert Never(budget=1000).bind(COUNTER).compress([TWO])[0] is TWO
    assert Never(budget=0).bind(COUNTER).compress([TWO])[0].segments == ()
    assert Never(keep=1.0).bind(COUNTER).compress([TWO])[0] is TWO


def test_compressing_again_keeps_spans_exact():
    once = Marked(threshold=2).compress([TWO])[0]
    twice = Marked(threshold=8).compress([once])[0]
    assert [s.text for s in twice.segments] == ["Nine 9 here. Eight 8 here."]
    assert [twice.expand(span) for span in twice.segments[0].sources] == ["Nine 9 here.", "Eight 8 here."]


def test_abstractive_text_is_cut_and_keeps_what_it_was_written_from():
    passage = Passage("p", "Long original text, quite another.")
    source = (Span("p", 0, 20),)
    context = Context(Query("?"), (TextSegment("Written 9 anew. Dull 1 part. Also 8 new.", source),), (passage,))
    (segment,) = Marked(threshold=5).compress([context])[0].segments
    assert segment == TextSegment("Written 9 anew. Also 8 new.", source)


def test_a_sentence_longer_than_the_budget_is_cut_at_a_word():
    context = of("Short 1 one.", "Very 9 " + "long " * 50 + "sentence.")
    (segment,) = Marked(budget=7).bind(COUNTER).compress([context])[0].segments
    assert segment.text == "Short 1 one."  # one that fits is better than a piece of a better one
    (segment,) = Marked(threshold=5, budget=7).bind(COUNTER).compress([context])[0].segments
    assert segment.text == "Very 9 long long long long long"
    assert segment.sources == (Span("p1", 0, len(segment.text)),)


def test_a_word_longer_than_the_budget_is_cut_between_letters():
    letters = TokenCounter(lambda texts: [len(text) for text in texts])
    assert texts(Marked(budget=7), of("9e\u0301e\u0301e\u0301e\u0301e\u0301"), letters) == ["9e\u0301e\u0301e\u0301"]


def test_the_best_of_equal_scores_is_the_first():
    same = of("One 5 cat. Two 5 dogs.", "Three 5 birds.")
    assert texts(Marked(budget=4), same) == ["One 5 cat."]


@pytest.mark.parametrize(
    ("bad", "message"),
    [([[1.0]], "another number of scores"), ([[1, 2, float("nan")], [1, 2]], "not finite"), ([[1, 2, 3]], "another")],
)
def test_wrong_scores_are_errors(bad, message):
    @dataclass(frozen=True)
    class Wrong(SentenceScorer):
        def score(self, query, groups):
            return bad

    with pytest.raises(ValueError, match=message):
        Wrong(threshold=0.0).compress([TWO])
    (result,) = Stack((Wrong(threshold=0.0),)).run([TWO], counter=COUNTER)
    assert result.steps[0].status is Status.ERROR
    assert result.context is TWO


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"keep": 0.0}, "keep"),
        ({"keep": 1.5}, "keep"),
        ({"keep": float("nan")}, "keep"),
        ({"budget": -1}, "budget"),
        ({"budget": 2.5}, "budget"),
        ({"budget": float("inf")}, "budget"),
        ({"threshold": float("nan")}, "threshold"),
        ({"threshold": float("inf")}, "threshold"),
    ],
)
def test_options_out_of_range_are_refused(options, path):
    with pytest.raises(ConfigError) as caught:
        Marked(**options)
    assert caught.value.path == path


def test_scorers_see_sentences_in_their_passages():
    seen = []

    @dataclass(frozen=True)
    class Sees(SentenceScorer):
        def score(self, query, groups):
            seen.append((query, groups))
            return [[0.0] * len(group.texts) for group in groups]

    bare = TextSegment("No source.")
    context = Context(TWO.query, (*TWO.segments, TextSegment(" "), bare), (Passage("p0", "", "Title"), *TWO.passages))
    Sees(threshold=1.0).compress([context])
    ((query, groups),) = seen
    assert query is context.query
    assert [len(group.texts) for group in groups] == [3, 2, 1]
    assert groups[0].title == "Title"
    assert groups[2] == Sentences(("No source.",), None)


def test_very_long_sentences_are_scored_in_parts():
    long = "word 3 " * 400 + "needle 99 " + "word 3 " * 400
    (left,) = texts(Marked(budget=320), of(long))
    assert "needle 99" in left
    assert 200 <= count_words([left])[0] <= 320


SENTENCES = st.lists(st.integers(1, 12).map(lambda n: "word " * n + "5."), min_size=30, max_size=80)


@pytest.mark.parametrize("counter", [COUNTER, bpe_counter()], ids=["words", "bpe"])
@given(SENTENCES, st.integers(60, 400))
def test_what_is_left_of_a_budget_is_less_than_a_sentence(counter, sentences, budget):
    context = of(*(" ".join(sentences[i : i + 10]) for i in range(0, len(sentences), 10)), title="Some title")
    after = Marked(budget=budget).bind(counter).compress([context])[0]
    used, whole = counter.context(after), counter.context(context)
    longest = max(counter.texts([f"\n\nSome title\n{sentence}" for sentence in sentences]))
    assert min(budget, whole) - longest - budget // 50 - 2 <= used <= budget


@pytest.mark.parametrize("counter", [COUNTER, bpe_counter()], ids=["words", "bpe"])
@given(st.lists(st.integers(3, 9).map(lambda n: "word " * n + "5."), min_size=150, max_size=200))
def test_a_budget_is_used_to_nine_tenths(counter, sentences):
    context = of(*(" ".join(sentences[i : i + 15]) for i in range(0, len(sentences), 15)), title="Some title")
    after = Marked(budget=400).bind(counter).compress([context])[0]
    assert 360 <= counter.context(after) <= 400


def test_where_nothing_was_asked_no_threshold_holds():
    context = context_of(Query(" "), (Passage("p", "One is here. Two is there."),))
    assert BM25Sentences(threshold=2.0).compress([context])[0] == context
    assert BM25Sentences(threshold=2.0).compress([replace(context, query=Query("lamp"))])[0].segments == ()
    assert RandomSentences(threshold=1.0).compress([context])[0].segments == ()  # what it draws says nothing of it


def test_text_of_several_passages_is_read_under_none_of_their_titles():
    paris, rome = Passage("a", "Paris is in France.", "Paris"), Passage("b", "Rome is in Italy.", "Rome")
    both = TextSegment("It is in Italy.", (Span("a", 0, 19), Span("b", 0, 17)))
    (group,) = groups_of(Layout(Context(Query("Where?"), (both,), (paris, rome))))
    assert (group.title, group.passage) == ("", None)
    alike = replace(rome, title="Paris")
    (group,) = groups_of(Layout(Context(Query("Where?"), (both,), (paris, alike))))
    assert (group.title, group.passage) == ("Paris", paris)


def test_each_passages_title_is_kept_in_text_of_several():
    paris, rome = Passage("a", "Paris is in France.", "Paris"), Passage("b", "Rome is in Italy.", "Rome")
    text = f"{rome.text} {paris.text} It rains."
    context = Context(Query("?"), (TextSegment(text, (Span("b", 0, 17), Span("a", 0, 19))),), (paris, rome))
    (after,) = BM25Sentences(keep=0.01, force_keep=("titles",)).bind(COUNTER).compress([context])
    assert [segment.text for segment in after.segments] == [f"{rome.text} {paris.text}"]
