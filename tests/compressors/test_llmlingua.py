"""LLMLingua: its stages by readers whose losses are known, its limits with a real, tiny model."""

import doctest
import re

import numpy as np
import pytest

from ragzip.compressors import llmlingua
from ragzip.compressors.llmlingua import LLMLingua, first_until, tokens_to_keep
from ragzip.errors import ConfigError
from ragzip.models.perplexity import Reading, Tokens
from ragzip.testing import CompressorContract
from ragzip.testing.contracts import count_words
from ragzip.tokens import TokenCounter
from ragzip.types import Passage, Query, context_of
from tests.compressors.hashed_reader import HashedReader
from tests.matrix import bpe_counter

COUNTER = TokenCounter(count_words)


class Scripted(HashedReader):
    """A token a word, whose loss is the number in the word: ``b7.`` has 7. Remembers what each step was behind."""

    def __init__(self):
        super().__init__()
        self.names, self.steps = {}, []

    def encode(self, texts):
        found = []
        for text in texts:
            places = [match.span() for match in re.finditer(r"\s?\S+|\s+", text)]
            names = [text[start:end].strip() for start, end in places]
            ids = [self.names.setdefault(name, len(self.names)) for name in names]
            edges = np.asarray(places, dtype=np.int64).reshape(-1, 2)
            found.append(Tokens(np.asarray(ids, dtype=np.int64), edges[:, 0], edges[:, 1]))
        return found

    def loss(self, ids):
        names = {number: name for name, number in self.names.items()}
        return np.asarray([float("".join(re.findall(r"\d", names[int(i)])) or 0) for i in ids], dtype=np.float32)

    def read(self, texts, *, prefix="", suffix=""):
        self.calls.append(("read", len(texts), prefix, suffix))
        return [Reading(self.loss(text.ids), 0.0) for text in texts]

    def iterate(self, text, choose, *, size=200):
        self.calls.append(("iterate", len(text), "", ""))
        names = {number: name for name, number in self.names.items()}
        losses = self.loss(text.ids)
        for first in range(0, len(text), size):
            chosen = choose(first, losses[first : first + size])
            ids = text.ids[first : first + size]
            self.steps.append((" ".join(names[int(i)] for i in ids), " ".join(names[int(i)] for i in ids[chosen])))
        return losses


@pytest.fixture
def scripted(monkeypatch):
    reader = Scripted()
    monkeypatch.setattr("ragzip.models.perplexity.load_perplexity", lambda name, **options: reader)
    return reader


def of(*texts):
    return context_of(Query("?"), tuple(Passage(f"p{i}", text) for i, text in enumerate(texts)))


def left(method, *texts, counter=COUNTER):
    return [segment.text for segment in method.bind(counter).compress([of(*texts)])[0].segments]


def test_keeps_the_words_that_surprise_most(scripted):
    assert left(LLMLingua(keep=0.5), "a1 b9 c2 d8 e7 f3 g1 h6") == ["b9 d8 e7 h6"]
    assert left(LLMLingua(threshold=6.5), "a1 b9 c2 d8 e7 f3 g1 h6") == ["b9 d8 e7"]


def test_passages_that_surprise_little_are_left_out_first(scripted):
    texts = ("a1 b9 c1 d1", "e6 f6 g6 h6", "i2 j2 k2 l9")
    # The budget is that of a passage and a half: the two that surprise most. b9 does, too, but its passage does not.
    assert left(LLMLingua(keep=0.5, passage_room=1.0), *texts) == ["e6 f6 g6 h6", "i2 l9"]
    assert left(LLMLingua(budget=5, passage_room=1.0, sentence_room=9.0), *texts) == ["e6 f6 g6 h6", "l9"]
    assert left(LLMLingua(budget=5, passage_room=9.0, sentence_room=9.0), *texts) == ["b9", "e6 f6 g6", "l9"]


def test_sentences_that_surprise_little_are_left_out_next(scripted):
    text = "A1 b1 c9. D6 e6 f6. G5 h5 i5."
    assert left(LLMLingua(budget=3, passage_room=9.0, sentence_room=9.0), text) == ["c9. D6"]
    found = left(LLMLingua(budget=5, passage_room=9.0, sentence_room=1.0), text)
    assert "c9" not in found[0]
    assert found[0].startswith("D6 e6 f6.")


def test_words_left_out_early_come_back_before_the_budget_is_wasted(scripted):
    """The reader's tokens are not the generator's: what it takes for enough may leave room."""
    halves = TokenCounter(lambda texts: [(len(text.split()) + 1) // 2 for text in texts])
    found = left(LLMLingua(budget=3, passage_room=1.0, sentence_room=1.0), "a1 b9 c1 d1", "e6 f6 g6 h6", counter=halves)
    assert found[-1] == "e6 f6 g6 h6"
    assert "b9" in found[0]


def test_each_step_is_read_behind_what_was_kept_of_those_before(scripted):
    left(LLMLingua(keep=0.5, step=4, passage_room=9.0, sentence_room=9.0), "a1 b9 c2 d8 e7 f3 g1 h6 i5 j4")
    assert scripted.steps == [("a1 b9 c2 d8", "b9 d8"), ("e7 f3 g1 h6", "e7 h6"), ("i5 j4", "i5")]
    scripted.steps.clear()
    left(LLMLingua(threshold=6.5, step=4), "a1 b9 c2 d8 e7 f3 g1 h6 i5 j4")
    assert scripted.steps == [("a1 b9 c2 d8", "b9 d8"), ("e7 f3 g1 h6", "e7"), ("i5 j4", "")]


def test_borders_between_passages_are_always_read(scripted):
    left(LLMLingua(threshold=6.5, step=50), "a1 b2", "c1 d9", "e2")
    assert scripted.steps == [("a1 b2  c1 d9  e2", " d9 ")]


def test_the_last_step_is_compressed_like_the_others(scripted):
    words = [f"{chr(97 + i % 26)}{i % 10}" for i in range(430)]
    (found,) = left(LLMLingua(keep=0.3, step=100, passage_room=9.0, sentence_room=9.0), " ".join(words))
    assert {word[1] for word in found.split()} == set("789")
    assert len(found.split()) >= 0.97 * 129
    assert [len(kept.split()) for _, kept in scripted.steps] == [30, 30, 30, 30, 9]


def test_with_a_threshold_alone_every_word_is_read_once(scripted):
    left(LLMLingua(threshold=2.0), "a1 b9. C2 d8.", "e1 f1")
    assert [name for name, *_ in scripted.calls] == ["iterate"]


def test_what_earlier_stages_left_out_is_not_read_again(scripted):
    left(LLMLingua(budget=4, passage_room=1.0), "a1 b1 c1 d1", "e6 f6 g6 h6")
    assert [(name, number) for name, number, *_ in scripted.calls] == [("read", 2), ("iterate", 5)]


def test_hands_on_its_model(monkeypatch):
    asked = []

    def load(name, **options):
        asked.append((name, options))
        return HashedReader()

    monkeypatch.setattr("ragzip.models.perplexity.load_perplexity", load)
    left(LLMLingua(model="folder/x", dtype="fp32", device="cpu", keep=0.5), "one two three")
    assert asked == [("folder/x", {"dtype": "fp32", "device": "cpu"})]


def test_nothing_is_read_where_there_is_nothing_to_decide(reader):
    left(LLMLingua(budget=100), "one two three")
    left(LLMLingua(keep=1.0), "one two three")
    left(LLMLingua(budget=0), "one two three")
    left(LLMLingua(), " \n")
    assert reader.calls == []


@pytest.mark.parametrize(
    "options",
    [
        {"model": ""},
        {"model": 3},
        {"step": 0},
        {"step": 1.5},
        {"passage_room": 0.5},
        {"passage_room": float("nan")},
        {"sentence_room": 0.0},
        {"dtype": "int4"},
        {"device": "abacus"},
        {"keep": 0},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError) as caught:
        LLMLingua(**options)
    assert caught.value.path == next(iter(options))


def test_how_many_tokens_limits_leave():
    assert tokens_to_keep(LLMLingua(), 100) == 50
    assert tokens_to_keep(LLMLingua(keep=0.3), 100) == 30
    assert tokens_to_keep(LLMLingua(budget=20, keep=0.3), 100) == 20
    assert tokens_to_keep(LLMLingua(budget=2000), 100) == 100
    assert tokens_to_keep(LLMLingua(threshold=1.0), 100) == 100
    assert tokens_to_keep(LLMLingua(threshold=1.0, keep=0.3), 100) == 30


def test_first_until():
    assert first_until([], [], 5) == set()
    assert first_until([1, 0], [3, 3], 0) == {1}
    assert first_until([1, 0], [3, 3], 3) == {1}
    assert first_until([1, 0], [3, 3], 3.5) == {0, 1}
    result = doctest.testmod(llmlingua)
    assert result.attempted
    assert not result.failed


class WithATinyModel:
    """A real model with random weights."""

    real_reader = True
    prose = "The river ran to the sea in 1922, and nobody said why it did (see below). "

    @pytest.fixture(autouse=True)
    def folder(self, tiny_lm_path):
        self.model = tiny_lm_path


class TestWithATinyModel(WithATinyModel, CompressorContract):
    examples = 6

    def make(self):
        return LLMLingua(model=self.model, dtype="fp32", keep=0.4, step=60)

    def test_takes_empty_odd_and_very_long_input(self):
        """Texts beyond the window; those of 100,000 characters are tried in the matrix, with a stand-in."""
        for text in ("word " * 1500, "x" * 6000, "字" * 900, "<|im_end|>" * 20, "\ud800 \x00", self.prose * 80):
            (after,) = self.make().bind(COUNTER).compress([of(text, "One fact.")])
            assert after.segments


class TestBudgetsWithATinyModel(WithATinyModel):
    @pytest.mark.parametrize("budget", [1, 2, 7, 30, 90, 150, 199])
    @pytest.mark.parametrize("words", [60, 199, 200, 201, 401])
    def test_a_small_budget_is_met_and_used_up_to_the_last_window(self, budget, words):
        """Where the public code keeps everything below 200 tokens, and everything of the last window."""
        counter = bpe_counter()
        context = of(" ".join((self.prose * 30).split()[:words]), self.prose)
        (after,) = LLMLingua(model=self.model, budget=budget).bind(counter).compress([context])
        count = counter.context(after)
        assert count <= budget
        assert count >= min(0.9 * budget - 2, 0.9 * counter.context(context))

    def test_numbers_are_kept_by_force(self):
        context = of(self.prose * 3)
        method = LLMLingua(model=self.model, keep=0.3, force_keep=("numbers",), force_pattern="nobody")
        (after,) = method.bind(COUNTER).compress([context])
        assert after.segments[0].text.count("1922") == 3
        assert after.segments[0].text.count("nobody") == 3


@pytest.mark.models
def test_the_real_model_drops_what_it_can_guess():
    text = "The capital of France is Paris. Its mayor keeps eleven tame otters in a bathtub of the town hall."
    (after,) = LLMLingua(keep=0.5).compress([of(text)])
    assert "otters" in after.segments[0].text
