import timeit
from dataclasses import replace

import pytest

from ragzip.compressors._abstractive import WINDOW, missing
from ragzip.compressors._writer import Block, render
from ragzip.compressors.recomp_abstractive import RecompAbstractive, ask, blocks_of, said
from ragzip.errors import ConfigError, ModelError
from ragzip.models import GENERATOR
from ragzip.protocols import Stack
from ragzip.testing.contracts import count_words
from ragzip.testing.seq2seq import tiny_seq2seq
from ragzip.tokens import TokenCounter, text_of
from ragzip.types import Context, Passage, Query, Span, Status, TextSegment, context_of
from tests.compressors.scripted import install

COUNTER = TokenCounter(count_words)
ROME = Passage("r", "Rome has 7 hills. Bread is made of flour. It was never founded in 1999.", "Rome")
TEA = Passage("t", "Tea comes from China. Many people drink it.", "Tea")
CONTEXT = context_of(Query("How many hills?"), (ROME, TEA))
ALL = (Span("r", 0, len(ROME.text)), Span("t", 0, len(TEA.text)))


def run(context=CONTEXT, **options):
    (after,) = RecompAbstractive(**options).bind(COUNTER).compress([context])
    return after


def test_the_summary_takes_the_place_of_all_passages(monkeypatch):
    writer = install(monkeypatch, "Rome has seven hills.")
    after = run()
    assert after.segments == (TextSegment("Rome has seven hills.", ALL),)
    assert (after.query, after.passages) == (CONTEXT.query, CONTEXT.passages)
    assert len(writer.asked) == 1
    assert f"Rome\n{ROME.text}\n\nTea\n{TEA.text}" in writer.asked[0]
    assert writer.asked[0].startswith("Question: How many hills?\n")


@pytest.mark.parametrize(
    "silence",
    [
        *("", " \n", ".", "NONE", "None.", "[none]", "N/A", "No relevant information.", "Empty string"),
        "This passage doesn't contain relevant information to the question.",
    ],
)
def test_a_summary_that_says_nothing_empties_the_context(monkeypatch, silence):
    install(monkeypatch, silence)
    assert run().segments == ()
    (result,) = Stack((RecompAbstractive(),)).run([CONTEXT], counter=COUNTER)
    assert (result.steps[0].status, result.tokens_out) == (Status.OK, 0)


@pytest.mark.parametrize("text", ["None of the kings.", "Nothing is known of him.", "No", "42", "Nobody."])
def test_short_answers_are_no_silence(text):
    assert said(text) == text


def test_encoder_decoders_get_the_published_prompt():
    request = ask("Who?", [Block("One.", "Title"), Block("Two.")])
    assert request.plain == "Question: Who?\n Document: One.\nTwo.\n Summary: "


def test_a_summary_longer_than_the_passages_is_not_used(monkeypatch):
    install(monkeypatch, "word " * 50)
    assert run() is CONTEXT
    (result,) = Stack((RecompAbstractive(),)).run([CONTEXT], counter=COUNTER)
    assert result.steps[0].status is Status.NO_GAIN


def test_passages_beyond_the_window_are_all_read_and_each_part_is_a_segment(monkeypatch):
    facts = [f"Fact number {i} is about topic {i}." for i in range(60)]
    text = " ".join(facts)
    context = context_of(Query("Topics?"), (Passage("p", text, "List"),))
    writer = install(monkeypatch, lambda prompt: prompt.split("List\n")[1].split(". ")[0] + ".", room=200)
    after = run(context)
    asked = "".join(writer.asked)
    assert len(writer.asked) > 2
    assert all(asked.count(fact) == 1 for fact in facts)
    assert len(after.segments) == len(writer.asked)
    for segment, prompt in zip(after.segments, writer.asked, strict=True):
        (span,) = segment.sources
        assert text[span.start : span.end] in prompt
        assert segment.text in text[span.start : span.end]
    read = [text[s.sources[0].start : s.sources[0].end] for s in after.segments]
    assert " ".join(read) == text


def test_every_part_shows_the_title_of_its_passage(monkeypatch):
    passage = Passage("p", " ".join(f"Fact number {i} is about topic {i}." for i in range(60)), "List")
    half = len(passage.text) // 2
    segments = tuple(
        TextSegment(passage.text[a:b], (Span("p", a, b),)) for a, b in ((0, half), (half, len(passage.text)))
    )
    writer = install(monkeypatch, "Some.", room=250)
    run(Context(Query("Topics?"), segments, (passage,)))
    assert len(writer.asked) > 1
    assert [prompt.count("List\n") for prompt in writer.asked] == [1] * len(writer.asked)


def test_titles_are_shown_as_they_are_laid_out():
    told = TextSegment("Told of both.", (Span("r", 0, 4), Span("t", 0, 3)))
    own = TextSegment(ROME.text, (Span("r", 0, len(ROME.text)),))
    context = Context(Query("?"), (told, own, own), (ROME, TEA))
    assert render(blocks_of(context)) == text_of(context)


def test_passages_are_read_whole_where_the_window_allows(monkeypatch):
    passages = tuple(
        Passage(f"p{i}", f"Passage {i} begins here. And here it ends, {i}.", f"Name {i}") for i in range(12)
    )
    writer = install(monkeypatch, lambda prompt: prompt.split("Name ")[1][:20] + ".", room=90)
    after = run(context_of(Query("Topics?"), passages))
    assert len(writer.asked) > 2
    assert [span for segment in after.segments for span in segment.sources] == [
        Span(p.id, 0, len(p.text)) for p in passages
    ]


def test_a_part_that_does_not_help_leaves_nothing_and_the_same_twice_is_once(monkeypatch):
    passages = tuple(Passage(f"p{i}", f"Passage {i} is this long and goes on. " * 9) for i in range(4))
    install(monkeypatch, lambda p: "Two." if "Passage 2" in p else "NONE" if "Passage 1" in p else "Same.", room=120)
    after = run(context_of(Query("?"), passages))
    read = [(segment.text, [span.passage_id for span in segment.sources]) for segment in after.segments]
    assert read == [("Same.", ["p0", "p3"]), ("Two.", ["p2"])]


def test_the_part_that_is_surest_to_help_goes_first_where_not_all_fits(monkeypatch):
    passages = tuple(Passage(f"p{i}", f"Passage {i} is this long and goes on. " * 9) for i in range(3))
    doubts = {"0": 0.7, "1": 0.1, "2": 0.4}

    def number(prompt):
        return prompt.split("Passage ")[1][0]

    install(
        monkeypatch, lambda p: f"Summary of {number(p)}. More.", room=120, doubt=lambda prompt: doubts[number(prompt)]
    )
    context = context_of(Query("?"), passages)
    after = run(context)
    assert len(after.segments) == 3
    for kept in ([1], [1, 2], [0, 1, 2]):
        expected = replace(after, segments=tuple(after.segments[i] for i in kept))
        assert run(context, budget=COUNTER.context(expected)) == expected


def test_the_window_is_the_models_own_where_none_is_given(monkeypatch):
    words = context_of(Query("Topics?"), (Passage("p", "A fact is told. " * 1_000),))

    def longest(**options):
        writer = install(monkeypatch, "Some.", room=8_000)
        run(words, **options)
        return max(len(prompt) // 4 for prompt in writer.asked)

    assert 300 < longest() <= 640
    assert 640 < longest(window=1024) <= 1024
    assert 1024 < longest(model=GENERATOR) <= WINDOW


def test_a_long_question_gets_as_much_room_for_passages(monkeypatch):
    writer = install(monkeypatch, "Some.", room=8_000)
    question = "why is it so " * 100  # twice in the prompt: more than the window of the default model
    run(Context(Query(question), CONTEXT.segments, CONTEXT.passages))
    assert len(writer.asked) == 1
    assert question in writer.asked[0]


def test_a_question_that_fills_the_window_leaves_the_passages(monkeypatch):
    writer = install(monkeypatch, "Rome.")
    context = Context(Query("why " * 5_000), CONTEXT.segments, CONTEXT.passages)
    assert run(context) is context
    assert writer.asked == []
    cut = run(context, budget=9)
    assert 0 < COUNTER.context(cut) <= 9


def test_what_must_be_kept_is_added_with_exact_spans(monkeypatch):
    install(monkeypatch, "Rome has hills.")
    (summary, added) = run(force_keep=("numbers",)).segments
    assert summary.text == "Rome has hills."
    assert added.text == "Rome has 7 hills. It was never founded in 1999."
    assert [ROME.text[span.start : span.end] for span in added.sources] == [
        "Rome has 7 hills.",
        "It was never founded in 1999.",
    ]


def test_what_the_summary_says_is_not_added(monkeypatch):
    install(monkeypatch, "Rome: 7 hills, never 1999.")
    assert len(run(force_keep=("numbers", "negations")).segments) == 1
    install(monkeypatch, "Rome: 17 hills.")
    assert "Rome has 7 hills." in run(force_pattern=r"\b7\b").segments[-1].text


def test_what_another_summary_says_does_not_stand_for_a_sentence():
    shop, drug = Passage("s", "The shop is not open. It has 3 doors."), Passage("d", "The drug is not safe at 3 mg.")
    context = context_of(Query("?"), (shop, drug))
    said = TextSegment("The shop is not open, 3 doors.", (Span("s", 0, len(shop.text)),))
    false = TextSegment("The drug is safe.", (Span("d", 0, len(drug.text)),))
    (added,) = missing(context, (said, false), ("negations", "numbers"), None)
    assert (added.text, added.sources) == (drug.text, (Span("d", 0, len(drug.text)),))
    assert missing(context, (said, replace(false, text="It is not safe at 3 mg.")), ("negations",), None) == ()
    assert missing(context, (TextSegment("not 3 mg"),), ("negations", "numbers"), None) == ()  # of no known source


def test_a_share_is_the_most_that_is_left(monkeypatch):
    install(monkeypatch, f"{'long ' * 30}sentence here. One two. Three four.")
    context = context_of(Query("q"), (Passage("p", "word " * 100),))
    after = run(context, keep=0.1)
    assert 0 < COUNTER.context(after) <= 10


def test_long_passages_with_much_that_must_be_kept_take_no_longer_than_they_are():
    def seconds(count):
        text = " ".join(f"It did not open in {number}." for number in range(count))
        context = context_of(Query("?"), (Passage("p", text),))
        return min(timeit.repeat(lambda: missing(context, (), ("numbers", "negations"), None), number=1, repeat=3))

    seconds(10)
    assert seconds(16_000) < 60 * seconds(1_000)  # 16 times as long; in squares it would be 256 times


def test_silence_leaves_only_what_must_be_kept(monkeypatch):
    install(monkeypatch, "NONE")
    assert [s.text for s in run(force_pattern="China").segments] == ["Tea comes from China."]


@pytest.mark.parametrize("budget", range(12))
def test_a_budget_is_met_between_sentences(monkeypatch, budget):
    install(monkeypatch, "One two three. Four five. Six.")
    plain = Context(CONTEXT.query, (TextSegment(ROME.text), TextSegment(TEA.text)))
    after = run(plain, budget=budget)
    assert COUNTER.context(after) <= budget
    if budget in (4, 7, 9):  # what the first, the first two and all sentences cost
        text = {4: "One two three.", 7: "One two three. Four five.", 9: "One two three. Four five. Six."}[budget]
        assert [segment.text for segment in after.segments] == [text]


def test_a_budget_is_stronger_than_what_must_be_kept(monkeypatch):
    install(monkeypatch, "One two three.")
    assert COUNTER.context(run(budget=3, force_keep=("numbers",))) <= 3
    kept = run(budget=8, force_pattern="7 hills")
    assert [segment.text for segment in kept.segments] == ["Rome has 7 hills."]


def test_a_share_keeps_the_first_sentence_at_least(monkeypatch):
    install(monkeypatch, "One two three. Four five.")
    assert [s.text for s in run(keep=0.05).segments] == ["One two three."]


def test_the_model_is_asked_for_no_more_than_the_limits_leave(monkeypatch):
    writer = install(monkeypatch, "Rome.")
    run(budget=10)
    run(max_new_tokens=20)
    assert writer.limits == [36, 20]


def test_nothing_is_loaded_where_there_is_nothing_to_write(monkeypatch):
    monkeypatch.setattr("ragzip.compressors._writer.load_writer", None)
    run(context_of(Query("q"), ()))
    run(context_of(Query("q"), (Passage("p", " \n"),)))
    run(keep=1.0)
    run(budget=0)


@pytest.mark.parametrize(
    "options",
    [
        *({"model": ""}, {"model": 3}, {"dtype": "int4"}, {"keep": 2}, {"budget": -1}, {"max_new_tokens": 0}),
        *({"window": 255}, {"force_keep": ("verbs",)}, {"force_pattern": "("}, {"device": "abacus"}),
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError) as caught:
        RecompAbstractive(**options)
    assert caught.value.path == next(iter(options))


class TestWithTinyModels:
    real_writer = True

    @pytest.fixture(params=["causal", "seq2seq"])
    def made(self, request, tiny_lm_path, tiny_seq2seq_path):
        name = tiny_lm_path if request.param == "causal" else tiny_seq2seq_path
        return RecompAbstractive(name, max_new_tokens=12, window=1024, dtype="fp32").bind(COUNTER)

    def test_batches_and_repetitions_give_the_same(self, made):
        long = context_of(Query("Who?"), (Passage("l", "The river runs to the sea. " * 200, "River"), TEA))
        batch = [CONTEXT, long, context_of(Query("?"), (TEA,))]
        alone = [made.compress([context])[0] for context in batch]
        assert made.compress(batch[::-1]) == alone[::-1]
        assert all(COUNTER.context(a) <= COUNTER.context(b) for a, b in zip(alone, batch, strict=True))
        assert alone[1] != long

    def test_a_silent_model_empties_the_context(self, tmp_path):
        silent = RecompAbstractive(str(tiny_seq2seq(tmp_path / "m", silent=True)), dtype="fp32")
        assert silent.bind(COUNTER).compress([CONTEXT])[0].segments == ()

    def test_a_missing_model_is_no_falling_open(self, tmp_path):
        with pytest.raises(ModelError, match="does not exist"):
            Stack((RecompAbstractive(str(tmp_path / "gone")),)).run([CONTEXT], counter=COUNTER)


@pytest.mark.models
def test_the_built_in_generator_writes_a_shorter_context():
    passages = (
        Passage("a", "The museum opened in 1759. Its café sells cakes. Entry costs twelve euros for adults.", "Museum"),
        Passage("b", "The river is long. Ships carry grain on it. Floods come in spring and autumn.", "River"),
    )
    context = context_of(Query("How much is a ticket to the museum?"), passages)
    (result,) = Stack((RecompAbstractive(GENERATOR, budget=30),)).run([context], counter=COUNTER)
    assert result.tokens_out <= 30
    assert result.steps[0].status is Status.OK
