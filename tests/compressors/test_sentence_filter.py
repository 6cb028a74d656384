import numpy as np
import pytest

from ragzip.compressors.sentence_filter import SentenceFilter
from ragzip.errors import ConfigError
from ragzip.protocols import Stack
from ragzip.testing import CompressorContract
from ragzip.testing.contracts import count_words
from ragzip.tokens import TokenCounter
from ragzip.types import Passage, Query, Status, context_of
from tests.matrix import HashedWords

COUNTER = TokenCounter(count_words)
ROME = Passage("r", "Rome has seven hills. Bread is made of flour. The hills of Rome are old.", "Rome")
TEA = Passage("t", "Tea comes from China. Many people drink it.", "Tea")
CONTEXT = context_of(Query("hills of Rome"), (ROME, TEA))


@pytest.fixture
def calls(encoder, monkeypatch):
    """What the encoder was asked, and how."""
    seen = []

    class Recording(HashedWords):
        def encode(self, texts, **options):
            seen.append(list(texts))
            return encoder.encode(texts)

    def load(name, **options):
        seen.append((name, options))
        return Recording()

    monkeypatch.setattr("ragzip.models.load_encoder", load)
    return seen


def test_keeps_the_closest_sentences():
    (after,) = SentenceFilter(budget=8).bind(COUNTER).compress([CONTEXT])
    assert [s.text for s in after.segments] == ["The hills of Rome are old."]


def test_asks_once_a_context_with_titles(calls):
    SentenceFilter(threshold=0.1).compress([CONTEXT, CONTEXT])
    assert calls[:3] == [
        ("all-minilm-l6-v2", {"dtype": "auto", "device": "auto"}),
        ["hills of Rome"],
        [
            "Rome: Rome has seven hills.",
            "Rome: Bread is made of flour.",
            "Rome: The hills of Rome are old.",
            "Tea: Tea comes from China.",
            "Tea: Many people drink it.",
        ],
    ]
    assert calls[3:] == calls[:3]


def test_hands_on_its_model(calls):
    SentenceFilter(model="folder/x", dtype="fp32", device="cpu", threshold=0.1).compress([CONTEXT])
    assert calls[0] == ("folder/x", {"dtype": "fp32", "device": "cpu"})


@pytest.mark.parametrize("options", [{"model": ""}, {"model": 3}, {"dtype": "int4"}, {"device": "abacus"}, {"keep": 2}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError) as caught:
        SentenceFilter(**options)
    assert caught.value.path == next(iter(options))


def test_nothing_is_loaded_where_there_is_nothing_to_decide(calls):
    empty = context_of(Query("q"), ())
    SentenceFilter().compress([empty])
    SentenceFilter(budget=1000).bind(COUNTER).compress([CONTEXT])
    SentenceFilter(keep=1.0).compress([CONTEXT])
    SentenceFilter(budget=5).bind(COUNTER).compress([context_of(Query(" "), (ROME,))])
    assert calls == []


def test_an_empty_question_keeps_the_head():
    (after,) = SentenceFilter(budget=10).bind(COUNTER).compress([context_of(Query(""), (ROME, TEA))])
    assert [s.text for s in after.segments] == ["Rome has seven hills."]


def test_negative_cosines_count_as_zero(monkeypatch):
    class Opposite(HashedWords):
        def encode(self, texts, **options):
            return np.array([[1.0, 0.0]] if texts == ["hills of Rome"] else [[-1.0, 0.0]] * len(texts), np.float32)

    monkeypatch.setattr("ragzip.models.load_encoder", lambda name, **options: Opposite())
    assert SentenceFilter(threshold=0.0).compress([CONTEXT])[0] is CONTEXT
    assert SentenceFilter(threshold=0.01).compress([CONTEXT])[0].segments == ()


def test_a_missing_model_is_no_falling_open(monkeypatch, tmp_path):
    from ragzip.errors import ModelError

    def missing(name, **options):
        raise ModelError(f"model {name!r} is not here")

    monkeypatch.setattr("ragzip.models.load_encoder", missing)
    with pytest.raises(ModelError, match="is not here"):
        Stack((SentenceFilter(),)).run([CONTEXT], counter=COUNTER)


@pytest.mark.usefixtures("narrow")
def test_sentences_questions_and_titles_longer_than_the_window_are_read_to_their_ends():
    head = "As everybody there had always known well"
    ships, rome = f"{head} ships pass at night.", f"{head} Rome has seven hills."
    for question in ("Rome has seven hills.", f"{head}. {head}. Rome has seven hills."):
        for title in ("", "A title of eight words fills the window"):
            context = context_of(Query(question), (Passage("a", ships, title), Passage("b", rome, title)))
            (after,) = SentenceFilter(threshold=0.9).compress([context])
            assert [s.text for s in after.segments] == [rome]


class TestWithATinyEncoder(CompressorContract):
    """A real encoder with random weights: padding, truncation and sorting as in the real one."""

    examples = 10
    real_encoder = True

    @pytest.fixture(autouse=True)
    def folder(self, tiny_encoder_path):
        self.model = tiny_encoder_path

    def make(self):
        return SentenceFilter(model=self.model, keep=0.5)


@pytest.mark.models
def test_the_real_model_finds_the_answer():
    passages = (
        Passage("a", "The museum opens at nine. Its café sells cakes. Entry costs twelve euros for adults.", "Museum"),
        Passage("b", "The river is long. Ships carry grain on it. Floods come in spring.", "River"),
    )
    context = context_of(Query("How much is a ticket to the museum?"), passages)
    (result,) = Stack((SentenceFilter(keep=0.4),)).run([context], counter=COUNTER)
    assert result.steps[0].status is Status.OK
    assert "Entry costs twelve euros" in " ".join(s.text for s in result.context.segments)
    assert result.ratio > 2
