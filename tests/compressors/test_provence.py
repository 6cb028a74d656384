"""Provence: sentences by the mean of their tokens, passages by their relevance, both from one pass."""

from __future__ import annotations

import dataclasses
import itertools
import re
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip.compressors.provence import Provence, means
from ragzip.errors import ConfigError
from ragzip.models.pruner import Judged
from ragzip.models.tokenizer import default_counter
from ragzip.protocols import Stack
from ragzip.testing import CompressorContract
from ragzip.testing.contracts import count_words
from ragzip.testing.pruners import tiny_pruner
from ragzip.testing.strategies import contexts, texts
from ragzip.tokens import TokenCounter
from ragzip.types import Context, Passage, Query, Span, TextSegment, context_of
from tests.compressors.knowing import Knowing

COUNTER = TokenCounter(count_words)
ROME = Passage("r", "Rome has seven hills. Bread is made of flour. The hills of Rome are old.", "Rome")
TEA = Passage("t", "Tea comes from China. Many people drink it.", "Tea")
FOX = Passage("f", "A fox is red.")
CONTEXT = context_of(Query("hills of Rome"), (TEA, ROME, FOX))


@pytest.fixture
def knowing(monkeypatch):
    """Which passages the model was asked about, and with which options it was loaded."""
    made = Knowing(rome=0.9, hills=0.8, seven=0.4, old=1.0, tea=0.3, china=0.2, fox=0.5)
    made.loaded = []

    def load(name, **options):
        made.loaded.append((name, options))
        return made

    monkeypatch.setattr("ragzip.models.load_pruner", load)
    return made


def kept(compressor, context=CONTEXT):
    (after,) = compressor.bind(COUNTER).compress([context])
    return [segment.text for segment in after.segments]


class Following(Knowing):
    """It reads twice, and knows tea once it has read of Rome."""

    hops = 2

    def room(self, question):
        return 50

    def judge(self, question, given_texts, titles, *, found="", seen=None):
        table, self.table = self.table, {"tea": 0.9, "comes": 0.9} if found else self.table
        try:
            return super().judge(f"{question} {found}".strip(), given_texts, titles)
        finally:
            self.table = table


@pytest.mark.parametrize("order", ["original", "relevance"])
def test_a_second_look_keeps_what_the_first_one_makes_known(monkeypatch, order):
    made = Following(rome=0.9, hills=0.8)
    monkeypatch.setattr("ragzip.models.load_pruner", lambda name, **options: made)
    rome = ["Rome has seven hills. The hills of Rome are old."]
    assert kept(Provence(hops=1, order=order)) == rome
    assert [question for question, *_ in made.calls] == ["hills of Rome"]
    made.calls.clear()
    found = kept(Provence(order=order))
    assert sorted(found) == sorted(["Tea comes from China.", *rome])
    assert [question for question, *_ in made.calls] == ["hills of Rome", "hills of Rome Rome: Rome has seven hills."]
    assert made.calls[1][2] == ["Tea", ""]  # the titles of the passages that are read again
    made.calls.clear()
    kept(Provence(hops=3, order=order))
    assert len(made.calls) == 3


def test_a_sentence_scores_the_mean_of_its_tokens(knowing):
    # Rome has seven hills: 2.1 / 4; The hills of Rome are old: 2.7 / 6; A fox is red: 0.5 / 4
    assert kept(Provence(threshold=0.5)) == ["Rome has seven hills."]
    assert kept(Provence(threshold=0.4)) == ["Rome has seven hills. The hills of Rome are old."]
    assert kept(Provence(threshold=0.12)) == [
        "Tea comes from China.",
        kept(Provence(threshold=0.4))[0],
        "A fox is red.",
    ]
    assert kept(Provence(budget=7)) == ["Rome has seven hills."]
    assert kept(Provence(threshold=0.9)) == []


def test_a_limit_is_not_filled_with_what_surely_does_not_help(knowing):
    # the rest scores less than 0.1: "Bread is made of flour.", "Many people drink it."
    whole, all_ = COUNTER.context(CONTEXT), [TEA.text, ROME.text, FOX.text]
    helping = kept(Provence(threshold=0.1))
    assert not {"flour", "drink"} & set(re.findall(r"\w+", " ".join(helping)))
    for limit in ({"budget": whole - 1}, {"keep": 0.95}, {"budget": whole - 1, "keep": 0.95}):
        assert kept(Provence(**limit)) == helping
        filled = kept(Provence(threshold=0.0, **limit))  # one more sentence fits
        assert len({"flour", "drink"} & set(re.findall(r"\w+", " ".join(filled)))) == 1
    assert kept(Provence(budget=whole)) == kept(Provence(keep=1.0)) == all_  # cut nothing: nothing to decide


def test_where_no_sentence_helps_a_limit_is_filled(knowing):
    knowing.table = {"drink": 0.2, "fox": 0.1}  # 0.05 and 0.025
    assert kept(Provence(threshold=0.1)) == kept(Provence()) == []
    assert kept(Provence(budget=11)) == ["Many people drink it.", "A fox is red."]
    assert kept(Provence(budget=10, threshold=0.1)) == []


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.8])
def test_a_share_is_one_of_the_context_however_many_passages_stay(knowing, keep):
    same = tuple(Passage(f"p{i}", f"Rome {i} has hills. Old is Rome {i}. Some fox {i} here.") for i in range(4))
    context = context_of(Query("hills of Rome"), same)
    limit = int(keep * COUNTER.context(context))
    for top_k in (1, 2, 3):
        (after,) = Provence(keep=keep, top_k=top_k, threshold=0.0).bind(COUNTER).compress([context])
        all_of_them = COUNTER.context(context_of(Query(""), same[:top_k]))
        used = COUNTER.context(after)
        assert used <= limit and used > min(limit, all_of_them) - 6


@pytest.mark.parametrize("top_k", [None, 2])
def test_what_must_be_kept_is_not_what_reaches_the_threshold(knowing, top_k):
    knowing.table = {"drink": 0.2, "fox": 0.1}
    found = kept(Provence(budget=16, force_pattern="flour", top_k=top_k))
    assert any("flour" in text for text in found) and len(found) > 1


def test_a_context_is_asked_about_once_with_titles(knowing):
    Provence(model="some/model", threshold=0.1, dtype="fp32", device="cpu").compress([CONTEXT, CONTEXT])
    bodies = [TEA.text, ROME.text, FOX.text]
    assert knowing.calls == [("hills of Rome", bodies, ["Tea", "Rome", ""])] * 2
    assert knowing.loaded[0] == ("some/model", {"dtype": "fp32", "device": "cpu"})


def test_the_most_relevant_passage_comes_first(knowing):
    assert kept(Provence(keep=1.0, order="relevance")) == [ROME.text, FOX.text, TEA.text]
    assert kept(Provence(threshold=0.5, order="relevance")) == ["Rome has seven hills."]
    assert kept(Provence(keep=1.0, top_k=2)) == [ROME.text, FOX.text]
    assert kept(Provence(keep=1.0, top_k=1, order="relevance")) == [ROME.text]
    assert kept(Provence(keep=1.0, top_k=9)) == [TEA.text, ROME.text, FOX.text]


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 0.1},
        {"budget": 9},
        {"threshold": 0.1, "order": "relevance"},
        {"budget": 9, "order": "relevance", "top_k": 2},
        {"keep": 0.5, "top_k": 1},
        {"keep": 1.0, "order": "relevance"},
    ],
)
def test_ranking_and_pruning_are_one_pass(knowing, options):
    Provence(**options).bind(COUNTER).compress([CONTEXT])
    assert len(knowing.calls) == 1
    Provence(**options).bind(COUNTER).compress([CONTEXT, context_of(Query("Tea?"), (TEA, FOX))])
    assert len(knowing.calls) == 3


def test_nothing_is_loaded_where_there_is_nothing_to_decide(knowing):
    none = context_of(Query("q"), ())
    for made in (Provence(), Provence(order="relevance"), Provence(top_k=1)):
        made.bind(COUNTER).compress([none, context_of(Query(" "), (ROME, TEA))])
        dataclasses.replace(made, budget=0).bind(COUNTER).compress([CONTEXT])
    Provence(keep=1.0).compress([CONTEXT])
    Provence(budget=1000).bind(COUNTER).compress([CONTEXT])
    assert knowing.loaded == []


@pytest.mark.parametrize("order", ["original", "relevance"])
@pytest.mark.parametrize("question", ["hills of Rome", " "])
@pytest.mark.parametrize("budget", [0, 1])
def test_budgets_of_nothing_and_of_one_token(knowing, order, question, budget):
    context = context_of(Query(question), (TEA, ROME, FOX))
    (after,) = Provence(budget=budget, order=order).bind(COUNTER).compress([context])
    assert COUNTER.context(after) <= budget


def test_an_empty_question_keeps_the_order_and_the_first_passages(knowing):
    context = context_of(Query(""), (TEA, ROME, FOX))
    assert kept(Provence(keep=1.0, order="relevance"), context) == [TEA.text, ROME.text, FOX.text]
    assert kept(Provence(keep=1.0, top_k=2, order="relevance"), context) == [TEA.text, ROME.text]
    assert kept(Provence(budget=9), context) == ["Tea comes from China."]


def test_segments_of_one_passage_move_together_and_count_once(knowing):
    hills, rome = Span("r", 0, 21), Span("r", 46, len(ROME.text))
    parts = [TextSegment(ROME.text[s.start : s.end], (s,)) for s in (hills, rome)]
    tea = TextSegment(TEA.text, (Span("t", 0, len(TEA.text)),))
    context = Context(Query("Rome"), (tea, *parts), (TEA, ROME))
    assert kept(Provence(keep=1.0, order="relevance"), context) == [parts[0].text, parts[1].text, TEA.text]
    assert kept(Provence(keep=1.0, top_k=1), context) == [parts[0].text, parts[1].text]
    apart = Context(Query("Rome"), (parts[0], tea, parts[1]), (TEA, ROME))
    assert kept(Provence(keep=1.0, top_k=1), apart) == [parts[0].text, parts[1].text]


def test_what_is_forced_stays(knowing):
    assert kept(Provence(threshold=0.9, force_pattern="flour")) == ["Bread is made of flour."]


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"threshold": -0.1}, "threshold"),
        ({"threshold": 1.01}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"model": ""}, "model"),
        ({"order": "score"}, "order"),
        ({"hops": 0}, "hops"),
        ({"hops": 2.0}, "hops"),
        ({"hops": True}, "hops"),
        ({"top_k": 0}, "top_k"),
        ({"dtype": "int4"}, "dtype"),
        ({"device": "abacus"}, "device"),
        ({"keep": 0}, "keep"),
        ({"budget": -1}, "budget"),
    ],
)
def test_options_out_of_range_are_refused(options, path):
    with pytest.raises(ConfigError) as caught:
        Provence(**options)
    assert caught.value.path == path


parts = st.lists(texts(30).map(str.strip).filter(bool), min_size=1, max_size=6)


@given(parts, st.randoms(use_true_random=False))
def test_every_token_counts_for_the_text_it_ends_in(given_parts, random):
    joined = " ".join(given_parts)
    edges = sorted({0, len(joined), *(random.randrange(len(joined) + 1) for _ in range(9))})
    offsets = np.asarray(list(itertools.pairwise(edges)), dtype=np.int64).reshape(-1, 2)
    keep = np.asarray([random.random() for _ in offsets], dtype=np.float32)
    found = means(given_parts, Judged(offsets, keep, 0.0))
    start = 0
    for part, score in zip(given_parts, found, strict=True):
        inside = [k for (_, b), k in zip(offsets, keep, strict=True) if start <= b - 1 <= start + len(part)]
        expected = float(np.mean(inside)) if inside and re.search(r"\w", part) else 0.0
        assert score == pytest.approx(expected, abs=1e-6)
        start += len(part) + 1


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory, tiny_encoder_path):
    return str(tiny_pruner(tmp_path_factory.mktemp("pruner"), tiny_encoder_path))


class TestTiny(CompressorContract):
    """The laws with a real cross-encoder, of random weights."""

    real_pruner: ClassVar[bool] = True
    examples: ClassVar[int] = 8
    model: ClassVar[str] = ""

    @pytest.fixture(autouse=True)
    def tiny(self, tiny_model):
        type(self).model = tiny_model

    def make(self):
        return Provence(threshold=0.4, budget=20, model=self.model, dtype="fp32", device="cpu")

    def test_takes_empty_odd_and_very_long_input(self):
        long = "one. " * 90 + "\ud800 [SEP] 漢字です。 " + "x" * 200
        batch = [context_of(Query(q), (Passage("p", long, "T"),)) for q in ("Who?", "x" * 150, "谁?", "\udfff")]
        made = self._bound()
        alone = [made.compress([context])[0] for context in batch]
        assert list(made.compress(batch)) == alone

    def test_pickles(self):
        """The matrix has it, with the fakes."""
        pytest.skip("runs in the matrix, on the fakes: here it would take long")

    test_works_from_two_threads = test_pickles

    @settings(max_examples=8)
    @given(contexts())
    def test_relevance_orders_as_the_model_says(self, context):
        made = dataclasses.replace(self.make(), threshold=None, budget=None, keep=1.0, order="relevance")
        (after,) = made.bind(COUNTER).compress([context])
        assert sorted(map(repr, after.segments)) == sorted(map(repr, context.segments))

    def test_the_end_of_a_long_passage_is_found(self):
        pruner = self.make().load()
        assert pruner.max_tokens == 64
        filler = "The river runs to the sea. " * 40
        needle = "Which city is the capital of the country?"
        (alone,) = pruner.judge("railway?", [filler + needle], [""])
        scores = means([filler.strip(), needle], alone)
        made = Provence(threshold=scores[1], model=self.model, dtype="fp32", device="cpu")
        (after,) = made.compress([context_of(Query("railway?"), (Passage("p", filler + needle),))])
        assert any(needle in segment.text for segment in after.segments)


@pytest.mark.models
def test_no_order_costs_tokens(knowing):
    knowing.table = {"bar": 1.0}
    before, after = ("", "\n", " "), ("", "\n", "\n\n", " ", ".")
    for first, second in itertools.product(itertools.product(before, after), repeat=2):
        texts_ = [first[0] + "foo" + first[1], second[0] + "bar" + second[1]]
        context = context_of(Query("q"), tuple(Passage(f"p{i}", text) for i, text in enumerate(texts_)))
        (found,) = Provence(keep=1.0, order="relevance").bind(default_counter()).compress([context])
        assert default_counter().context(found) <= default_counter().context(context), texts_
        assert sorted(segment.text for segment in found.segments) == sorted(texts_)


@pytest.mark.parametrize("order", ["original", "relevance"])
def test_what_must_be_kept_stays_beyond_the_first_passages(knowing, order):
    tower = Passage("e", "It was built in 1889. Nobody minds.")
    context = context_of(Query("hills of Rome"), (tower, TEA, ROME))
    made = Provence(threshold=0.35, top_k=1, order=order, force_keep=("numbers",))
    (after,) = made.compress([context])
    assert sorted(segment.text for segment in after.segments) == [
        "It was built in 1889.",
        "Rome has seven hills. The hills of Rome are old.",
    ]
    (without,) = dataclasses.replace(made, force_keep=()).compress([context])
    assert [segment.sources[0].passage_id for segment in without.segments] == ["r"]


def test_stacks_with_others(knowing):
    stack = Provence(threshold=0.1, order="relevance", top_k=2) >> Provence(threshold=0.5)
    assert isinstance(stack, Stack)
    assert kept(stack) == ["Rome has seven hills."]


@pytest.mark.models
def test_the_shipped_weights_find_the_sentence_that_answers():
    from ragzip.models.shipped import PROVENCE, find

    spec = find(PROVENCE)
    if spec is None or not spec.here:
        pytest.skip("the weights are not in this checkout")
    (after,) = Provence(budget=25, order="relevance").compress(
        [context_of(Query("How many hills has Rome?"), (TEA, ROME))]
    )
    assert after.segments[0].text.startswith("Rome has seven hills.")
