import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.compressors.llmlingua2 import LLMLingua2, word_scores
from ragzip.errors import ConfigError, ModelError
from ragzip.models.token_classifier import TokenScores
from ragzip.protocols import Stack
from ragzip.testing import CompressorContract
from ragzip.testing.contracts import count_words
from ragzip.testing.token_classifiers import tiny_token_classifier
from ragzip.text import words
from ragzip.tokens import TokenCounter
from ragzip.types import Passage, Query, Status, context_of

COUNTER = TokenCounter(count_words)
ROME = Passage("r", "Rome has seven hills. The hills of Rome are old.", "Rome")
CONTEXT = context_of(Query("hills?"), (ROME, Passage("t", "Tea comes from China.")))


class Letters:
    """One token a character; greater letters are better."""

    def __init__(self):
        self.seen = []

    def scores(self, texts):
        self.seen.append(list(texts))
        return [
            TokenScores(
                np.asarray([(i, i + 1) for i in range(len(text))]).reshape(-1, 2),
                np.asarray([ord(c) % 256 / 256 for c in text], dtype=np.float32),
            )
            for text in texts
        ]


@pytest.fixture
def letters(monkeypatch):
    made, asked = Letters(), []

    def load(name, **options):
        asked.append((name, options))
        return made

    monkeypatch.setattr("ragzip.models.token_classifier.load_token_classifier", load)
    made.asked = asked
    return made


def test_every_context_is_one_call_of_whole_passages_without_the_question(letters):
    LLMLingua2(threshold=0.1).compress([CONTEXT, CONTEXT])
    assert letters.seen == [[ROME.text, "Tea comes from China."]] * 2
    assert letters.asked[0] == ("llmlingua2-minilm-l6", {"dtype": "auto", "device": "auto"})
    other = context_of(Query("something else"), CONTEXT.passages)
    first, second = LLMLingua2(keep=0.5).compress([CONTEXT, other])
    assert first.segments == second.segments


def test_hands_on_its_model(letters):
    LLMLingua2(model="folder/x", dtype="fp32", device="cpu", keep=0.5).compress([CONTEXT])
    assert letters.asked[0] == ("folder/x", {"dtype": "fp32", "device": "cpu"})


@pytest.mark.parametrize(("how", "kept"), [("mean", "zz"), ("first", "zz za"), ("max", "zz za az")])
def test_the_score_of_a_word(letters, how, kept):
    context = context_of(Query(""), (Passage("p", "zz za az aa"),))
    (after,) = LLMLingua2(threshold=(ord("z") - 1) / 256, word=how).compress([context])
    assert after.segments[0].text == kept


@given(st.text(st.sampled_from("ab .字"), max_size=30), st.data())
def test_word_scores_are_those_of_a_plain_loop(text, data):
    edges = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=15)))
    offsets = list(itertools.pairwise(edges))
    keep = [data.draw(st.integers(0, 100)) / 100 for _ in offsets]
    tokens = TokenScores(np.asarray(offsets, dtype=np.int64).reshape(-1, 2), np.asarray(keep, dtype=np.float32))
    spans = words(text)
    for how in ("mean", "first", "max"):
        found = word_scores(tokens, spans, how)
        assert len(found) == len(spans)
        for (c, d), score in zip(spans, found, strict=True):
            own = [k for (a, b), k in zip(offsets, keep, strict=True) if max(a, c) < min(b, d)] or [0.0]
            want = {"mean": sum(own) / len(own), "first": own[0], "max": max(own)}[how]
            assert score == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize(
    "options", [{"model": ""}, {"model": 3}, {"word": "last"}, {"dtype": "int4"}, {"device": "abacus"}, {"keep": 2}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError) as caught:
        LLMLingua2(**options)
    assert caught.value.path == next(iter(options))


def test_a_missing_model_is_no_falling_open(monkeypatch):
    def missing(name, **options):
        raise ModelError(f"model {name!r} is not here")

    monkeypatch.setattr("ragzip.models.token_classifier.load_token_classifier", missing)
    with pytest.raises(ModelError, match="is not here"):
        Stack((LLMLingua2(),)).run([CONTEXT], counter=COUNTER)


class TestWithATinyBert(CompressorContract):
    """Real models with random weights: windows, padding, and special tokens as in the real ones."""

    examples = 8
    real_classifier = True
    family = "bert"

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path_factory):
        folder = tmp_path_factory.getbasetemp() / f"tiny-{self.family}"
        self.model = str(folder if folder.exists() else tiny_token_classifier(folder, family=self.family))

    def make(self):
        return LLMLingua2(model=self.model, keep=0.5)


class TestWithATinyXLMRoberta(TestWithATinyBert):
    family = "xlm-roberta"

    def test_a_budget_is_shared_by_the_whole_context(self):
        texts = ("Rome has seven hills, and the river is old.", "Passage of the muse. " * 9)
        context = context_of(Query(""), tuple(Passage(str(i), text) for i, text in enumerate(texts)))
        (after,) = LLMLingua2(model=self.model, threshold=0.0, keep=0.3).bind(COUNTER).compress([context])
        scored = LLMLingua2(model=self.model).load().scores(texts)
        spans = [words(text) for text in texts]
        kept = {(s.passage_id, i) for segment in after.segments for s in segment.sources
                for i, (a, b) in enumerate(spans[int(s.passage_id)]) if s.start <= a and b <= s.end}  # fmt: skip
        flat = {(str(p), i): score for p, tokens in enumerate(scored)
                for i, score in enumerate(word_scores(tokens, spans[p], "mean"))}  # fmt: skip
        costs = {(str(p), i): count_words([texts[p][a:b]])[0] for p in (0, 1) for i, (a, b) in enumerate(spans[p])}
        worst = min(flat[word] for word in kept)
        left_out = sorted((word for word in flat if word not in kept), key=flat.__getitem__, reverse=True)
        assert all(flat[word] <= worst or costs[word] > 1 for word in left_out)


@pytest.mark.models
def test_the_shipped_weights_keep_what_says_something():
    text = (
        "Well, you know, as I was saying, the museum, which I really do like a lot, was opened in 1759 by King George. "
        "And so, basically, that is what I wanted to tell you about it."
    )
    context = context_of(Query(""), (Passage("p", text),))
    (result,) = Stack((LLMLingua2(keep=0.5),)).run([context], counter=COUNTER)
    assert result.steps[0].status is Status.OK
    kept = result.context.segments[0].text
    assert "1759" in kept and "museum" in kept
    assert result.ratio >= 2
