import numpy as np
import pytest

from ragzip.compressors._tokenwise import Words
from ragzip.compressors.semantic_drop import SemanticDrop, _in_rounds, _Part
from ragzip.errors import ConfigError
from ragzip.models import load_encoder
from ragzip.protocols import Stack
from ragzip.testing.contracts import count_words
from ragzip.text import sentences, words
from ragzip.tokens import TokenCounter
from ragzip.types import Passage, Query, Status, context_of
from tests.matrix import HashedWords

COUNTER = TokenCounter(count_words)
TEXT = "The river runs to the sea. Numbers such as 22 and 333, are tokens too!  Which city is the capital?"


def group(text):
    return Words(text, tuple(words(text)))


@pytest.fixture
def rows(monkeypatch):
    """What the encoder was given, row by row."""
    seen = []

    class Recording(HashedWords):
        def encode_tokens(self, given):
            seen.extend(map(tuple, given))
            return super().encode_tokens(given)

    monkeypatch.setattr("ragzip.models.load_encoder", lambda name, **options: Recording())
    return seen


def test_each_sentence_is_encoded_whole_and_without_each_word(rows):
    SemanticDrop().score(Query("?"), [group("One two. Red green blue.")])
    assert len(rows) == (1 + 2) + (1 + 3)
    long, short = rows[:4], rows[4:]  # as pieces of four characters
    assert long[1:] == [long[0][1:], (long[0][0], *long[0][3:]), long[0][:3]]
    assert short[1:] == [short[0][1:], short[0][:1]]


def test_words_that_stand_for_each_other_do_not_go_together():
    def distances(parts):
        """Each of the first two words is needed once the other is gone."""
        return [np.array([0.5 if n > 1 else 0.1 if {0, 1} <= set(p.ids) else 0.9 for n in p.ids]) for p in parts]

    numbers = np.arange(4)
    part = _Part(numbers, numbers, numbers, 0, 4, (b"", b"", b""))
    assert _in_rounds([part], 1, distances)[0].tolist() == [0.1, 0.1, 0.5, 0.5]
    assert _in_rounds([part], 4, distances)[0].tolist() == [0.1, 0.9, 0.5, 0.5]


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("rounds", [2, 5, 10**9])
def test_the_word_that_goes_first_is_the_same_in_any_number_of_rounds(exact, rounds):
    scores = SemanticDrop(exact=exact, rounds=rounds).score(Query(""), [group(TEXT)])[0]
    first = SemanticDrop(exact=exact).score(Query(""), [group(TEXT)])[0]
    assert len(scores) == len(first) and scores != first
    for start, end in sentences(TEXT):
        own = [n for n, (a, b) in enumerate(words(TEXT)) if start <= a and b <= end]
        assert min(own, key=lambda n: scores[n]) == min(own, key=lambda n: first[n])


def test_more_rounds_look_at_what_is_left(rows):
    SemanticDrop(rounds=3).score(Query("?"), [group("One two. Red green blue.")])
    assert len(rows) == (1 + 2 + 1 + 1) + (1 + 3 + 1 + 2 + 1 + 1)
    with pytest.raises(ConfigError, match="rounds"):
        SemanticDrop(rounds=0)


def test_nothing_is_encoded_twice(rows):
    SemanticDrop().score(Query(""), [group("One two. One two."), group("One two.")])
    assert len(rows) == 3


def test_long_sentences_are_taken_in_parts(rows):
    text = " ".join(f"w{i}" for i in range(1000))
    (scores,) = SemanticDrop().score(Query(""), [group(text)])
    assert max(map(len, rows)) <= 64
    assert len(rows) == 1000 + 16
    assert min(scores) > 0
    (one,) = SemanticDrop().score(Query(""), [group("y" * 3000)])
    assert len(one) == 1 and one[0] > 0


def test_parts_are_no_longer_than_the_encoder_reads(rows, monkeypatch):
    monkeypatch.setattr(HashedWords, "max_tokens", 12)
    SemanticDrop().score(Query(""), [group(" ".join(f"w{i}" for i in range(100)))])
    assert max(map(len, rows)) == 10
    assert len(rows) == 100 + 10


def test_the_question_changes_nothing():
    assert SemanticDrop().score(Query("a"), [group(TEXT)]) == SemanticDrop().score(Query("b"), [group(TEXT)])


@pytest.mark.parametrize("exact", [True, False])
def test_text_without_tokens_scores_nothing(monkeypatch, exact):
    class Blind(HashedWords):
        def tokens(self, texts):
            return [(np.zeros(0, np.int64), np.zeros((0, 2), np.int64)) for _ in texts]

    monkeypatch.setattr("ragzip.models.load_encoder", lambda name, **options: Blind())
    assert SemanticDrop(exact=exact).score(Query(""), [group("a b")]) == [[0.0, 0.0]]


@pytest.mark.parametrize("options", [{"model": ""}, {"model": 3}, {"dtype": "int4"}, {"device": "abacus"}, {"keep": 2}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError) as caught:
        SemanticDrop(**options)
    assert caught.value.path == next(iter(options))


class TestWithATinyEncoder:
    real_encoder = True

    @pytest.fixture(autouse=True)
    def folder(self, tiny_encoder_path):
        self.encoder = load_encoder(tiny_encoder_path, dtype="fp32")
        self.options = {"model": tiny_encoder_path, "dtype": "fp32"}

    def test_scores_are_the_distances_to_the_sentence_without_the_word(self):
        (scores,) = SemanticDrop(**self.options).score(Query(""), [group(TEXT)])
        ((ids, offsets),) = self.encoder.tokens([TEXT])
        want = []
        starts = [first for first, _ in sentences(TEXT)]
        for first, last in zip(starts, [*starts[1:], len(TEXT)], strict=True):
            inside = [i for i, (a, b) in enumerate(offsets) if first < b <= last]
            whole = self.encoder.encode_tokens([ids[inside]])[0]
            for start, end in words(TEXT):
                if first <= start < last:
                    # a byte-level token has the space before its word
                    left = [i for i in inside if offsets[i][1] <= start or offsets[i][0] >= end]
                    want.append(1 - float(whole @ self.encoder.encode_tokens([ids[left]])[0]))
        np.testing.assert_allclose(scores, want, atol=1e-5)
        assert max(scores) > 1e-3

    def test_the_fast_way_leaves_the_words_vectors_out_of_the_mean(self):
        (scores,) = SemanticDrop(**self.options, exact=False).score(Query(""), [group("The river runs.")])
        ((ids, offsets),) = self.encoder.tokens(["The river runs."])
        ((own, around),) = self.encoder.token_vectors([ids])
        whole = own.sum(axis=0) + around
        for (start, end), score in zip(words("The river runs."), scores, strict=True):
            without = whole - own[[a < end and b > start for a, b in offsets]].sum(axis=0)
            cosine = without @ whole / np.linalg.norm(without) / np.linalg.norm(whole)
            assert score == pytest.approx(1 - cosine, abs=1e-5)

    @pytest.mark.parametrize("exact", [True, False])
    def test_odd_text_and_budgets(self, exact):
        odd = ["", " \n", "👩\u200d👧", "e\u0301 \u0301", "שלום עולם.", "\x00", "odd \ud800", "x" * 3000, "字" * 200]
        batch = [context_of(Query("q"), (Passage("p", text),)) for text in odd]
        for budget in (1, 7, 40):
            for after in SemanticDrop(**self.options, exact=exact, budget=budget).bind(COUNTER).compress(batch):
                assert COUNTER.context(after) <= budget


@pytest.mark.models
@pytest.mark.parametrize("exact", [True, False])
def test_the_real_model_drops_what_says_least(exact):
    text = "The British Museum, which is located in London, was opened to the public in the year 1759."
    context = context_of(Query(""), (Passage("p", text),))
    (result,) = Stack((SemanticDrop(keep=0.5, exact=exact),)).run([context], counter=COUNTER)
    assert result.steps[0].status is Status.OK
    kept = set(result.context.segments[0].text.split())
    assert {"British", "Museum,", "1759."} <= kept and not {"which", "is", "the"} & kept
