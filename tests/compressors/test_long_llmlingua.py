"""LongLLMLingua: ranking, contrast and shifts by readers whose losses are known; limits with a real, tiny model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.compressors.long_llmlingua import LongLLMLingua, shifted
from ragzip.errors import ConfigError
from ragzip.models.perplexity import Reading
from ragzip.testing import CompressorContract
from ragzip.testing.contracts import count_words
from ragzip.tokens import TokenCounter
from ragzip.types import Passage, Query, context_of
from tests.compressors.hashed_reader import HashedReader
from tests.matrix import bpe_counter

COUNTER = TokenCounter(count_words)
STATEMENT = "We can get the answer to this question in the given documents."


class Scripted(HashedReader):
    """A word of a token loses 5 nats; with the question, as many fewer as its number says: ``b3`` loses 2.

    The question's loss behind a text is the number of its first word with capital Q; 9 without one.
    """

    def encode(self, texts):
        found = super().encode(texts)
        self.texts = getattr(self, "texts", {}) | {
            text.ids.tobytes(): given for text, given in zip(found, texts, strict=True)
        }
        return found

    def read(self, texts, *, prefix="", suffix=""):
        self.calls.append(("read", len(texts), prefix, suffix))
        return [self._reading(text, prefix) for text in texts]

    def _reading(self, text, prefix):
        given = self.texts[text.ids.tobytes()]
        numbers = [given[a:b].strip()[1:] for a, b in zip(text.starts, text.ends, strict=True)]
        gains = np.asarray([float(n) if n.isdigit() else 0.0 for n in numbers], dtype=np.float32)
        marked = [word for word in given.split() if word.startswith("Q")]
        return Reading(5.0 - gains if prefix else np.full_like(gains, 5.0), float(marked[0][1:]) if marked else 9.0)


@pytest.fixture
def scripted(monkeypatch):
    reader = Scripted()
    monkeypatch.setattr("ragzip.models.perplexity.load_perplexity", lambda name, **options: reader)
    return reader


def of(*texts, query="Who?"):
    return context_of(Query(query), tuple(Passage(f"p{i}", text) for i, text in enumerate(texts)))


def left(method, *texts, query="Who?", counter=COUNTER):
    return [s.text for s in method.bind(counter).compress([of(*texts, query=query)])[0].segments]


def test_keeps_the_words_that_the_question_makes_likelier(scripted):
    assert left(LongLLMLingua(keep=0.5), "a0 b3 c1 d2 e4 f0") == ["b3 d2 e4"]
    assert left(LongLLMLingua(threshold=0.9), "a0 b3 c1 d2 e4 f0") == ["b3 e4"]  # sigmoid(2.2) = 0.9


def test_reads_once_without_the_question_and_once_with_it(scripted):
    left(LongLLMLingua(budget=5, passage_room=1.0), "Q1 b1 c1", "Q7 e1 f1", "Q2 h1 i1", "k4 l4 m4")
    assert scripted.calls == [("read", 4, "", f"\n\nWho? {STATEMENT}"), ("read", 2, "Who?\n\n", "")]


def test_a_long_question_is_read_in_parts_of_which_the_best_counts(scripted, monkeypatch):
    scripted.longest = 60
    question = " ".join(f"word{i}" for i in range(60))
    names = lambda told: {w for w in told.split() if w.startswith("word")}  # noqa: E731
    monkeypatch.setattr(  # the question's last word alone makes b3 likelier, and the first passage lead to it
        scripted,
        "_reading",
        lambda text, prefix, of=scripted._reading: of(text, prefix if "word59" in prefix else ""),
    )
    assert left(LongLLMLingua(keep=0.5), "a0 b3 c1 d2 e4 f0", query=question) == ["b3 d2 e4"]
    for place in (2, 3):  # behind the passages, and before them
        told = [call[place] for call in scripted.calls if call[place]]
        assert len(told) > 3 and max(scripted.count(told)) <= scripted.longest
        assert set().union(*map(names, told)) == names(question)


def test_passages_behind_which_the_question_is_unlikely_are_left_out(scripted):
    texts = ("Q7 b4 c4", "Q1 e1 f1", "Q2 h0 i2")
    assert left(LongLLMLingua(budget=5, passage_room=1.0), *texts) == ["Q1 e1 f1", "Q2 i2"]
    assert left(LongLLMLingua(budget=3, passage_room=9.0, spread=0.0), *texts) == ["Q7 b4 c4"]


def test_poorer_passages_that_are_left_out_come_back_in_their_order(scripted):
    halves = TokenCounter(lambda texts: [(len(text.split()) + 1) // 2 for text in texts])
    texts = ("Q7 b4 c4 d4", "Q1 e1 f1 g1", "Q3 h0 i2 j1")
    found = left(LongLLMLingua(budget=4, passage_room=1.0), *texts, counter=halves)
    assert found[0] == "Q1 e1 f1 g1"
    assert found[1].startswith("Q3 h0")


def test_more_is_kept_of_better_passages(scripted):
    """With the same words in each, the best keeps the share and the spread, the worst the share without it."""
    words = " ".join(f"a{i} b{i} c{i} d{i}" for i in range(5))
    texts = (f"{words} Q2", f"{words} Q1", f"{words} Q3")
    found = left(LongLLMLingua(keep=0.5, spread=0.25, passage_room=9.0), *texts)
    for text, wanted in zip(found, (0.5, 0.75, 0.25), strict=True):
        assert abs(len(text.split()) - 21 * wanted) < 2
    even = left(LongLLMLingua(keep=0.5, spread=0.0, passage_room=9.0), *texts)
    assert max(len(text.split()) for text in even) - min(len(text.split()) for text in even) <= 5


def test_order_by_score_puts_the_best_passage_first(scripted):
    texts = ("Q7 b0 c4", "Q1 e1 f0", "Q2 h0 i2")
    found = left(LongLLMLingua(threshold=0.6, order="score", spread=0.0), *texts)
    assert found == ["Q1 e1", "Q2 i2", "Q7 c4"]
    assert left(LongLLMLingua(threshold=0.6, spread=0.0), *texts) == ["Q7 c4", "Q1 e1", "Q2 i2"]
    assert len(scripted.calls) == 4  # two each: nothing is read again for the order


def test_where_nothing_is_dropped_nothing_moves(scripted):
    context = of("Q7 b0 c4", "Q1 e1 f0")
    for method in (LongLLMLingua(threshold=0.0), LongLLMLingua(keep=1.0), LongLLMLingua(budget=500)):
        moved = LongLLMLingua(threshold=method.threshold, keep=method.keep, budget=method.budget, order="score")
        assert moved.bind(COUNTER).compress([context])[0] is context


def test_an_order_that_would_cost_more_is_left(scripted):
    """A counter that takes a token more wherever the best passage comes first."""

    def count(texts):
        return [len(text.split()) + 50 * text.startswith("Q1") for text in texts]

    found = left(LongLLMLingua(threshold=0.6, order="score", spread=0.0), "Q7 c4", "Q1 f0", counter=TokenCounter(count))
    assert found == ["Q7 c4", "Q1"]


def test_without_a_question_words_score_by_their_surprise(reader):
    (after,) = LongLLMLingua(keep=0.5, order="score").bind(COUNTER).compress([of("One two three. Four.", query=" ")])
    assert after.segments
    assert reader.calls == [("read", 1, "", "")]


def test_nothing_is_read_where_there_is_nothing_to_decide(reader):
    for method in (LongLLMLingua(budget=100), LongLLMLingua(keep=1.0), LongLLMLingua(budget=0, order="score")):
        left(method, "one two three")
    assert reader.calls == []


@pytest.mark.parametrize(
    "options",
    [
        {"model": ""},
        {"model": None},
        {"passage_room": 0.9},
        {"spread": -0.1},
        {"spread": 1.1},
        {"order": "best"},
        {"dtype": "int4"},
        {"device": "abacus"},
        {"budget": -1},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError) as caught:
        LongLLMLingua(**options)
    assert caught.value.path == next(iter(options))


def test_hands_on_its_model(monkeypatch):
    asked = []

    def load(name, **options):
        asked.append((name, options))
        return HashedReader()

    monkeypatch.setattr("ragzip.models.perplexity.load_perplexity", load)
    left(LongLLMLingua(model="folder/x", dtype="fp32", device="cpu", keep=0.5), "one two three")
    assert asked == [("folder/x", {"dtype": "fp32", "device": "cpu"})]


ROWS = st.lists(st.lists(st.floats(-40, 40), min_size=1, max_size=8), min_size=1, max_size=5)


@given(ROWS, st.floats(0, 1))
def test_shifts_keep_the_order_within_a_passage_and_favour_better_ones(rows, spread):
    contrasts = [np.asarray(row) for row in rows]
    found = shifted(contrasts, [np.ones(len(row), dtype=np.int64) for row in rows], spread)
    assert [len(row) for row in found] == [len(row) for row in rows]
    for before, after in zip(contrasts, found, strict=True):
        assert ((after >= 0) & (after <= 1)).all()
        assert (np.diff(after[np.argsort(before, kind="stable")]) >= -1e-12).all()
    for better, worse in zip(range(len(rows)), range(1, len(rows)), strict=False):
        for value in set(rows[better]) & set(rows[worse]):
            assert found[better][rows[better].index(value)] >= found[worse][rows[worse].index(value)] - 1e-12


@given(ROWS)
def test_without_a_spread_scores_are_probabilities(rows):
    contrasts = [np.asarray(row) for row in rows]
    found = shifted(contrasts, [np.ones(len(row), dtype=np.int64) for row in rows], 0.0)
    np.testing.assert_allclose(np.concatenate(found), 1 / (1 + np.exp(-np.concatenate(contrasts))), atol=1e-9)


def test_beyond_the_best_word_values_do_not_tie():
    first, last = shifted([np.array([0.0, 1.0, 2.0])] * 2, [np.ones(3, dtype=np.int64)] * 2, 0.5)
    assert 0 < last[0] < last[1] < last[2] < first[1] < first[2] < 1


class TestWithATinyModel(CompressorContract):
    """A real model with random weights."""

    examples = 6
    real_reader = True

    @pytest.fixture(autouse=True)
    def folder(self, tiny_lm_path):
        self.model = tiny_lm_path

    def make(self):
        return LongLLMLingua(model=self.model, dtype="fp32", keep=0.4, order="score")

    def test_takes_empty_odd_and_very_long_input(self):
        """Texts and a question beyond the window; those of 100,000 characters are tried in the matrix."""
        texts = ("word " * 1500, "x" * 6000, "字" * 900, "<|im_end|>" * 20, "\ud800 \x00", "It is so. " * 300)
        for text, query in zip(texts, ("Who?", "x" * 9000, " ", "<|im_end|>", "\ud800", "字"), strict=True):
            (after,) = self.make().bind(COUNTER).compress([of(text, "One fact.", query=query)])
            assert after.segments

    @pytest.mark.parametrize("budget", [1, 7, 60, 199])
    def test_a_small_budget_is_met_and_used(self, budget):
        counter = bpe_counter()
        context = of("The river ran to the sea in 1922, and nobody said why. " * 12, "It rained. " * 20)
        (after,) = LongLLMLingua(model=self.model, budget=budget).bind(counter).compress([context])
        assert 0.9 * budget - 2 <= counter.context(after) <= budget


@pytest.mark.models
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_real_model_finds_the_passage_and_the_words_that_answer(dtype):
    texts = (
        "Bread is baked from water, flour and often yeast. It is eaten all over the world.",
        "The Colosseum is an amphitheatre in Rome. Construction began under the emperor Vespasian in 72.",
        "The Eiffel Tower is a lattice tower in Paris. It was built by the company of Gustave Eiffel.",
    )
    context = of(*texts, query="Under which emperor did the building of the Colosseum begin?")
    (after,) = LongLLMLingua(keep=0.4, order="score", dtype=dtype).compress([context])
    assert after.segments[0].sources[0].passage_id == "p1"
    # small words between may go: which of them is a matter of the third decimal, and of the number format
    assert [w for w in after.segments[0].text.split() if w in ("began", "under", "emperor", "Vespasian")] == [
        "began",
        "under",
        "emperor",
        "Vespasian",
    ]
