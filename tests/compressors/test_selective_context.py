"""SelectiveContext: phrases by example and by law, scores against a plain reading."""

import doctest
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.compressors._tokenwise import Words
from ragzip.compressors.selective_context import SelectiveContext, phrases
from ragzip.errors import ConfigError
from ragzip.models.perplexity import load_perplexity
from ragzip.testing import CompressorContract
from ragzip.testing.contracts import count_words
from ragzip.testing.strategies import texts
from ragzip.text import sentences, words
from ragzip.tokens import TokenCounter
from ragzip.types import Passage, Query, context_of
from tests.compressors.hashed_reader import HashedReader

COUNTER = TokenCounter(count_words)


def of(*given_texts):
    return context_of(Query("?"), tuple(Passage(f"p{i}", text) for i, text in enumerate(given_texts)))


def cut(text, level="phrase"):
    return [text[start:end] for start, end in SelectiveContext(level=level).units(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "The old museum, said to be haunted, is in the (small) town of Bath.",
            ["The old museum,", "said", "to", "be", "haunted,", "is", "in", "the", "(small)", "town", "of", "Bath."],
        ),
        (
            "Der alte Turm der Stadt wurde von einem Grafen gebaut.",
            ["Der alte Turm", "der Stadt", "wurde", "von", "einem Grafen gebaut."],
        ),
        ("La vieille ville est sur la colline.", ["La vieille ville", "est", "sur", "la colline."]),
        ("El castillo viejo es de los reyes.", ["El castillo viejo", "es", "de", "los reyes."]),
        ("La torre della città è sul colle.", ["La torre", "della", "città", "è", "sul", "colle."]),
        ("O castelo velho é do rei e da rainha.", ["O castelo velho", "é", "do", "rei", "e", "da", "rainha."]),
        ("De oude toren van de stad is van een graaf.", ["De oude toren", "van", "de stad", "is", "van", "een graaf."]),
        ("a b c d e f g h of the", ["a b c d e", "f g h", "of", "the"]),
        ("The line\nends of it here", ["The line", "ends", "of", "it", "here"]),
    ],
)
def test_phrases(text, expected):
    assert cut(text) == expected


@pytest.mark.parametrize(
    "text", ["Vanha torni seisoo mäellä.", "Старая башня стоит на холме.", "古い塔が丘の上に立つ。", "Bath"]
)
def test_texts_in_other_languages_are_taken_word_by_word(text):
    assert phrases(text) == words(text)


ENGLISH = st.lists(
    st.sampled_from(
        [
            "the",
            "of",
            "a",
            "museum",
            "(old)",
            "town,",
            "is\n",
            "and",
            "Bath.",
            "'tis",
            "it",
            "古",
            "—",
            "3.5",
            "in",
            "\u200f",
            "é",
        ]
    ),
    max_size=30,
).map(" ".join)


@given(st.one_of(texts(), ENGLISH))
def test_phrases_are_runs_of_words(text):
    found, plain = phrases(text), words(text)
    assert found == sorted(found)
    starts, ends = [start for start, _ in plain], [end for _, end in plain]
    inside = []
    for start, end in found:
        first, last = starts.index(start), ends.index(end)
        assert last - first < 5
        assert first == last or "\n" not in text[start:end]
        inside += plain[first : last + 1]
    assert inside == plain


def test_levels():
    text = "The old tower of Bath fell. Nobody saw it."
    assert cut(text, "sentence") == ["The old tower of Bath fell.", "Nobody saw it."]
    assert cut(text, "word") == text.split()
    method = SelectiveContext(level="sentence", keep=0.6).bind(COUNTER)
    assert method.compress([of(text)])[0].segments[0].text in cut(text, "sentence")


def test_the_example_in_the_docstring():
    result = doctest.testmod(sys.modules[SelectiveContext.__module__])
    assert result.attempted
    assert not result.failed


def test_all_sentences_of_a_context_are_read_at_once(reader):
    SelectiveContext(keep=0.5).bind(COUNTER).compress([of("One two. Three four.", "Five. Six seven.")])
    assert reader.calls == [("read", 4, "", "")]


def test_nothing_is_read_where_there_is_nothing_to_decide(reader):
    for method in (SelectiveContext(budget=100), SelectiveContext(keep=1.0), SelectiveContext(budget=0)):
        method.bind(COUNTER).compress([of("one two three")])
    assert reader.calls == []


def test_the_question_makes_no_difference():
    one, other = (
        SelectiveContext(keep=0.5).bind(COUNTER).compress([context_of(Query(query), of("One two. Three.").passages)])[0]
        for query in ("Who?", "")
    )
    assert one.segments == other.segments


@pytest.mark.parametrize(
    "options", [{"level": "token"}, {"model": ""}, {"dtype": "int4"}, {"device": "abacus"}, {"threshold": float("nan")}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError) as caught:
        SelectiveContext(**options)
    assert caught.value.path == next(iter(options))


def test_hands_on_its_model(monkeypatch):
    asked = []

    def load(name, **options):
        asked.append((name, options))
        return HashedReader()

    monkeypatch.setattr("ragzip.models.perplexity.load_perplexity", load)
    SelectiveContext(model="folder/x", dtype="fp32", device="cpu").bind(COUNTER).compress([of("one two three")])
    assert asked == [("folder/x", {"dtype": "fp32", "device": "cpu"})]


class TestWithATinyModel(CompressorContract):
    """A real model with random weights."""

    examples = 6
    real_reader = True

    @pytest.fixture(autouse=True)
    def folder(self, tiny_lm_path):
        self.model = tiny_lm_path

    def make(self):
        return SelectiveContext(model=self.model, dtype="fp32", keep=0.4)

    def test_takes_empty_odd_and_very_long_input(self):
        """Sentences beyond the window; those of 100,000 characters are tried in the matrix."""
        for text in ("word " * 1500, "x" * 6000, "字" * 900, "<|im_end|>" * 20, "\ud800 \x00", "It is so. " * 300):
            (after,) = self.make().bind(COUNTER).compress([of(text, "One fact.")])
            assert after.segments

    def test_a_phrase_scores_the_mean_loss_of_its_tokens_in_its_sentence(self):
        method = self.make()
        text = "The old tower of the town fell. Nobody in the town saw it."
        group = Words(text, tuple(method.units(text)))
        (found,) = method.score(Query("?"), [group])
        reader = load_perplexity(self.model, dtype="fp32")
        wanted = []
        for begin, end in sentences(text):
            (tokens,) = reader.encode([text[begin:end]])
            (reading,) = reader.read([tokens])
            for start, stop in group.spans:
                if begin <= start < end:
                    inside = (tokens.ends + begin > start) & (tokens.starts + begin < stop)
                    wanted.append(reading.losses[inside].mean())
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.models
def test_the_real_model_drops_what_it_can_guess():
    context = of("The Statue of Liberty stands in New York City, in the United States of America, and hums softly.")
    (after,) = SelectiveContext(keep=0.5).compress([context])
    assert "hums" in after.segments[0].text
    assert "States" not in after.segments[0].text
