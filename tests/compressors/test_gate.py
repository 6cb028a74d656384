from types import SimpleNamespace

import pytest
import torch

from ragzip.compressors._relevance import cut, relevance
from ragzip.compressors.gate import THRESHOLDS, Gate
from ragzip.errors import ConfigError
from ragzip.models import load_encoder
from ragzip.protocols import Stack
from ragzip.testing.contracts import count_words
from ragzip.tokens import TokenCounter
from ragzip.types import Context, Passage, Query, SoftSegment, Span, Status, context_of
from tests.matrix import HashedWords

COUNTER = TokenCounter(count_words)
ROME = Passage("r", "The 7 hills of Rome are old.", "Rome")
TEA = Passage("t", "Leaves from China in small cups.", "Tea")
QUERY = Query("hills of Rome")
BOTH, NEITHER = context_of(QUERY, (TEA, ROME)), context_of(QUERY, (TEA, TEA))


def run(context, **options):
    (after,) = Gate(**options).compress([context])
    return after


def test_a_context_stays_whole_or_goes_whole():
    assert run(BOTH) is BOTH
    after = run(NEITHER)
    assert after.segments == ()
    assert (after.query, after.passages) == (QUERY, NEITHER.passages)
    (result,) = Stack((Gate(),)).run([NEITHER], counter=COUNTER)
    assert (result.steps[0].status, result.tokens_out) == (Status.OK, 0)


def test_the_threshold_is_the_least_that_stays():
    found = Gate().helps(BOTH)
    assert run(BOTH, threshold=found) is BOTH
    assert run(BOTH, threshold=found + 1e-6).segments == ()
    assert Gate().helps(NEITHER) < THRESHOLDS["relevance"] < found


def test_a_threshold_of_0_loads_nothing(monkeypatch):
    monkeypatch.setattr("ragzip.models.load_encoder", None)
    assert run(NEITHER, threshold=0.0) is NEITHER


def test_what_cannot_be_judged_stays():
    empty = Context(Query(" "), NEITHER.segments, NEITHER.passages)
    soft = Context(QUERY, (*NEITHER.segments, SoftSegment(torch.zeros(1, 4), "some-model")), NEITHER.passages)
    for context in (empty, soft, context_of(QUERY, ())):
        for by in THRESHOLDS:
            assert run(context, by=by, threshold=1.0) is context


def test_soft_segments_are_judged_by_the_text_they_stand_for():
    def soft(passage):
        segment = SoftSegment(torch.zeros(1, 4), "some-model", (Span(passage.id, 0, len(passage.text)),))
        return Context(QUERY, (segment,), (passage,))

    kept = soft(ROME)
    assert run(kept) is kept
    assert run(soft(TEA)).segments == ()


def test_what_must_be_kept_stays_as_whole_segments():
    context = context_of(Query("leaves"), (ROME, Passage("n", "It is not."), Passage("x", "Nothing else.")))
    options = {"threshold": 0.99, "force_keep": ("numbers",), "force_pattern": "is not"}
    assert [segment.text for segment in run(context, **options).segments] == [ROME.text, "It is not."]


def test_perplexity_is_the_gain_on_the_question(monkeypatch):
    """3 nats without a context; less behind a passage that names the question's words."""
    asked = []

    class Reader:
        window, longest = 2048, 511

        def encode(self, texts):
            return list(texts)

        def count(self, texts):
            return [len(text) for text in texts]

        def read(self, texts, *, prefix="", suffix=""):
            asked.append((texts, suffix))
            losses = [0.5 if "Rome" in text else 3.5 if "Tea" in text else 3.0 for text in texts]
            return [SimpleNamespace(after=loss) for loss in losses]

    monkeypatch.setattr("ragzip.compressors.gate.load_perplexity", lambda name, **options: Reader())
    assert Gate("perplexity").helps(BOTH) == 2.5
    assert Gate("perplexity").helps(NEITHER) == -0.5
    assert asked[:2] == [
        (["Question:"], " hills of Rome"),
        ([f"Tea\n{TEA.text}\n\nQuestion:", f"Rome\n{ROME.text}\n\nQuestion:"], " hills of Rome"),
    ]
    assert run(BOTH, by="perplexity") is BOTH
    assert run(BOTH, by="perplexity", threshold=2.6).segments == ()
    assert run(NEITHER, by="perplexity").segments == ()
    assert run(NEITHER, by="perplexity", threshold=-0.5) is NEITHER


def test_perplexity_reads_long_passages_in_windows_and_long_questions_in_parts(monkeypatch):
    """Only behind a window with the needle, with the cue, is a part with the needle's name less surprising."""
    seen = []

    class Reader:
        window, longest = 200, 40

        def encode(self, texts):
            return list(texts)

        def count(self, texts):
            return [len(text) for text in texts]

        def read(self, texts, *, prefix="", suffix=""):
            seen.append((texts, suffix))
            near = ["Rome\n" in text and "seven hills" in text and "hills" in suffix for text in texts]
            return [SimpleNamespace(after=0.5 if hit else 3.0) for hit in near]

    monkeypatch.setattr("ragzip.compressors.gate.load_perplexity", lambda name, **options: Reader())
    for place in (0, 40, 79):
        words = ["filler"] * 80
        words[place] = "seven hills"
        for question in ("hills", "how many hills " + "and also this " * 20, "and also this " * 20 + "how many hills"):
            seen.clear()
            context = context_of(Query(question), (Passage("r", " ".join(words), "Rome"),))
            assert Gate("perplexity").helps(context) == 2.5, (place, question)
            windows = [text for texts, _ in seen for text in texts if text != "Question:"]
            assert len(windows) > 3 and all(text.endswith("\n\nQuestion:") for text in windows)
            assert all(len(text) + len(suffix) < Reader.window for texts, suffix in seen for text in texts)
            assert {word for _, suffix in seen for word in suffix.split()} == set(question.split())


class Words(HashedWords):
    max_tokens = 8  # six words and the two that an encoder puts around them


def test_passages_longer_than_the_window_count_by_their_best_window():
    words = [f"word{i}" for i in range(40)]
    text = " ".join(words) + " hills of Rome. The end."
    windows = cut(Words(), text, "")
    assert all(len(window.split()) <= 6 for window in windows)
    assert "".join("".join(windows).split()) == "".join(text.split())
    whole, best = relevance(Words(), "hills of Rome", [text, "hills of Rome"], ["", ""])
    assert 0.4 < whole < best == pytest.approx(1.0)
    assert relevance(Words(), "hills", [], []) == []
    assert relevance(Words(), "hills", [" \n"], [""]) == [0.0]


@pytest.mark.usefixtures("narrow")
def test_questions_longer_than_the_window_are_read_to_their_ends():
    passages = (Passage("r", "Rome has old hills."), Passage("t", "Leaves come from China."))
    asks = "Please do tell us now, all of you."
    context = context_of(Query(f"{asks} Rome has old hills."), passages)
    assert run(context, threshold=0.9) is context
    assert run(context_of(Query(f"{asks} What falls in winter?"), passages), threshold=0.5).segments == ()


def test_titles_stand_before_every_window_unless_they_take_half_of_it():
    text = "One two three. Four five six. Seven eight nine."
    assert cut(Words(), text, "Rome: ") == [f"Rome: {part}" for part in text.replace(". ", ".|").split("|")]
    assert not any("long title" in window for window in cut(Words(), text, "A very long title: "))


@pytest.mark.parametrize(
    "options",
    [
        {"by": "taste"},
        {"threshold": 1.5},
        {"threshold": float("nan")},
        {"model": ""},
        {"dtype": "int4"},
        {"force_keep": ("verbs",)},
        {"force_pattern": "("},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError) as caught:
        Gate(**options)
    assert caught.value.path == next(iter(options))
    Gate("perplexity", threshold=-3.0)


class TestWithTinyModels:
    real_encoder = real_writer = True

    @pytest.mark.parametrize("by", list(THRESHOLDS))
    def test_batches_and_repetitions_give_the_same(self, by, tiny_encoder_path, tiny_lm_path):
        made = Gate(by, model=tiny_encoder_path if by == "relevance" else tiny_lm_path, dtype="fp32")
        long = context_of(Query("Who?"), (Passage("l", "The river runs to the sea. " * 400, "River"), TEA))
        batch = [BOTH, long, NEITHER]
        alone = [made.helps(context) for context in batch]
        assert len(set(alone)) > 1
        assert [made.helps(context) for context in batch[::-1]] == alone[::-1]
        at = sorted(alone)[1]
        found = Gate(by, at, made.model, dtype="fp32").compress(batch)
        assert [bool(context.segments) for context in found] == [score >= at for score in alone]

    def test_no_window_is_longer_than_the_encoder_reads(self, tiny_encoder_path):
        encoder = load_encoder(tiny_encoder_path, dtype="fp32")
        for text in ("The river runs to the sea. " * 60, "x" * 3_000, "字" * 500):
            windows = cut(encoder, text, "Title: ")
            assert all(count + 2 <= encoder.max_tokens for count in encoder.count_tokens(windows))
            assert sum(map(len, windows)) >= len("".join(text.split()))


@pytest.mark.models
@pytest.mark.parametrize("by", list(THRESHOLDS))
def test_the_real_models_tell_what_helps_from_what_does_not(by):
    museum = Passage("a", "The museum opens at nine. Entry costs twelve euros for adults.", "Museum")
    bread = Passage("b", "Bakers mix flour, water and salt, and let the dough rest over night.", "Bread")
    query = Query("How much is a ticket to the museum?")
    helps, does_not = (Gate(by).helps(context_of(query, (passage,))) for passage in (museum, bread))
    assert helps > THRESHOLDS[by] > -1
    assert helps > does_not
