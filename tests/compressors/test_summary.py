import math
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ragzip.compressors._layout import Layout
from ragzip.compressors._scope import chunks, deal, keywords
from ragzip.compressors._writer import Block
from ragzip.compressors.summary import Summary, shorten, summarise
from ragzip.errors import ConfigError
from ragzip.models import EMBEDDER, GENERATOR
from ragzip.protocols import Stack
from ragzip.testing import texts
from ragzip.testing.contracts import count_words
from ragzip.tokens import TokenCounter
from ragzip.types import Context, Passage, Query, Span, Status, TextSegment, context_of
from tests.compressors.scripted import install
from tests.matrix import HashedWords

COUNTER = TokenCounter(count_words)
HILLS = "The old hills of Rome number seven and are all steep. The hills of Rome were all settled in 753."
BREAD = "Bakers mix flour with water and a bit of salt. Bakers mix flour with yeast for a softer loaf."
ROME = Passage("r", f"{HILLS} {BREAD}", "Rome")
TEA = Passage("t", "Tea comes from China, where people drink it from small cups. Tea comes in bags, too.", "Tea")
CONTEXT = context_of(Query("hills of Rome"), (ROME, TEA))
UNTITLED = context_of(Query("hills of Rome"), (Passage("r", ROME.text), Passage("t", TEA.text)))


def run(context=CONTEXT, **options):
    (after,) = Summary(**options).bind(COUNTER).compress([context])
    return after


def of(context):
    return [segment.text for segment in context.segments]


def test_each_chunk_is_rewritten_by_itself(monkeypatch):
    writer = install(monkeypatch, lambda prompt: "Short: " + prompt.split("Text:\n")[1].split()[0])
    after = run(keep=0.75, keywords=0)
    read = [prompt.split("Text:\n")[1] for prompt in writer.asked]
    assert set(read) <= {HILLS, BREAD, TEA.text}
    assert len(read) >= 2
    assert all(text.startswith("Short: ") or text in ROME.text for text in of(after))
    for segment in after.segments:
        assert segment.sources
        assert {span.passage_id for span in segment.sources} <= {"r", "t"}


def test_what_is_closer_to_the_question_keeps_more(monkeypatch):
    writer = install(monkeypatch, "x")
    after = run(keep=0.75)
    allowed = {p.split("Text:\n")[1]: int(re.search(r"at most (\d+) words", p)[1]) for p in writer.asked}
    assert of(after)[0] == HILLS  # word for word
    assert 0 < max(allowed.values()) < count_words([HILLS])[0]
    assert HILLS in of(run(keep=0.4))  # where not all find room, the others go


def test_keywords_stand_in_the_prompt_and_lost_ones_behind_the_text(monkeypatch):
    writer = install(monkeypatch, "They were settled.")
    after = run(context_of(Query("hills of Rome"), (Passage("r", HILLS),)), keep=0.5, keywords=2)
    assert "Keep these words: Rome, 753." in writer.asked[0]
    assert of(after) == ["They were settled (Rome, 753)."]
    assert after.segments[0].sources == (Span("r", 0, len(HILLS)),)


def test_a_chunk_whose_rewriting_is_no_shorter_stays_word_for_word(monkeypatch):
    install(monkeypatch, lambda prompt: "and so on " * 30 if "hills" in prompt else "Less.")
    after = run(keep=0.8, keywords=0)
    assert any(HILLS in text for text in of(after))
    for segment in after.segments:
        if HILLS in segment.text:
            assert segment.text == " ".join(ROME.text[s.start : s.end] for s in segment.sources)
    install(monkeypatch, "")
    assert run(keep=0.9).segments


def test_a_step_that_gains_nothing_is_seen(monkeypatch):
    install(monkeypatch, "and so on " * 90)
    (result,) = Stack((Summary(),)).run([context_of(Query("hills"), (Passage("r", HILLS),))], counter=COUNTER)
    assert result.steps[0].status is Status.NO_GAIN


@pytest.mark.parametrize("objective", ["scope", "color"])
@pytest.mark.parametrize("budget", [0, 1, 5, 14, 30])
def test_budgets_are_met_and_the_relevant_stays(monkeypatch, budget, objective):
    install(monkeypatch, lambda prompt: "About hills of Rome. " * 2 if "hills" in prompt else "Other things told.")
    after = run(budget=budget, objective=objective)
    assert COUNTER.context(after) <= budget
    if budget >= 14:
        assert "hills of Rome" in " ".join(of(after))


def test_what_must_be_kept_is_added(monkeypatch):
    install(monkeypatch, "Short.")
    after = run(keep=0.4, keywords=0, force_pattern="small cups")
    assert "Tea comes from China, where people drink it from small cups." in of(after)


def test_color_takes_the_shortest_beginning_with_which_the_passage_is_found(monkeypatch):
    install(monkeypatch, lambda p: "Saucers. The hills of Rome. More of it." if "hills" in p else "Cups.")
    after = run(UNTITLED, objective="color")
    assert of(after) == ["Saucers. The hills of Rome.", "Cups."]
    assert [segment.sources for segment in after.segments] == [s.sources for s in UNTITLED.segments]


def test_color_leaves_a_passage_whose_summaries_would_not_be_found(monkeypatch):
    """The last of all can become anything, as it cannot come later."""
    install(monkeypatch, lambda p: "Cups. Saucers." if "hills" in p else "Bags.")
    after = run(UNTITLED, objective="color")
    assert of(after) == [ROME.text, "Bags."]
    assert after.segments[0] is UNTITLED.segments[0]
    install(monkeypatch, "")
    assert run(UNTITLED, objective="color") is UNTITLED


def test_color_asks_with_the_published_prompt(monkeypatch):
    writer = install(monkeypatch, "Cups.")
    run(objective="color")
    assert writer.asked[1] == f"Summarize the following content. \nContent:\n{TEA.text}\n Summary:"
    assert summarise([Block("a", "b")]).system == ""


def test_an_empty_question_has_no_shortest_summary_but_chunks(monkeypatch):
    install(monkeypatch, "Short.")
    empty = Context(Query(" "), CONTEXT.segments, CONTEXT.passages)
    assert run(empty, objective="color") is empty
    assert COUNTER.context(run(empty)) < COUNTER.context(empty)


def test_nothing_is_loaded_where_there_is_nothing_to_do(monkeypatch):
    monkeypatch.setattr("ragzip.compressors._writer.load_writer", None)
    monkeypatch.setattr("ragzip.models.load_encoder", None)
    run(keep=1.0)
    run(budget=0)
    run(budget=1_000)
    run(context_of(Query("q"), ()))
    run(context_of(Query("q"), (Passage("p", "\n"),)), objective="color")


def test_the_prompt_names_length_and_words():
    request = shorten([Block("One two.")], words=["One"], tokens=20)
    assert request.user == "Shorten this text to at most 15 words. Keep these words: One.\n\nText:\nOne two."
    assert "Keep these" not in shorten([Block("One two.")], words=[], tokens=20).user


@given(
    chunk=st.lists(st.tuples(st.integers(0, 300), st.floats(0, 1)), max_size=8),
    total=st.integers(0, 800),
)
@example(chunk=[(3, 0.5084315854110831)], total=3)
def test_shares_are_within_the_total_and_each_size(chunk, total):
    sizes, weights = [size for size, _ in chunk], [weight for _, weight in chunk]
    shares = deal(sizes, weights, total)
    assert sum(shares) <= total
    assert all(0 <= share <= size for share, size in zip(shares, sizes, strict=True))
    if total >= sum(sizes):
        assert shares == sizes
    given_ = [i for i, share in enumerate(shares) if share]
    if len(given_) == len(sizes) and len(set(sizes)) == 1:
        order = sorted(given_, key=lambda i: weights[i])
        assert [shares[i] for i in order] == sorted(shares)


@given(parts=st.lists(texts(200), max_size=3), similarity=st.floats(-1, 1))
def test_chunks_hold_every_sentence_once_in_order(parts, similarity):
    layout = Layout(Context(Query("q"), tuple(TextSegment(text) for text in parts)))
    vectors = HashedWords().encode([layout.text(unit) for unit in range(len(layout.units))] or [""])
    found = chunks(layout, vectors, [0.5] * len(layout.units), similarity)
    assert [unit for chunk in found for unit in chunk.units] == list(range(len(layout.units)))
    for chunk in found:
        assert chunk.text in parts[chunk.segment]
        assert {layout.units[unit].segment for unit in chunk.units} == {chunk.segment}


def test_chunks_end_where_the_subject_changes_and_short_ones_join_what_they_resemble():
    context = context_of(Query("q"), (Passage("p", f"{HILLS} Yes. {BREAD}"),))
    layout = Layout(context)
    vectors = np.array([[1, 0], [1, 0], [0.6, 0.8], [0, 1], [0, 1]], dtype=np.float32)
    found = chunks(layout, vectors, [0.1, 0.9, 0.2, 0.3, 0.4], 0.9)
    assert [chunk.text for chunk in found] == [HILLS, f"Yes. {BREAD}"]
    assert [chunk.relevance for chunk in found] == [0.9, 0.4]


def test_long_sentences_and_questions_are_read_to_their_ends(narrow):
    head = "As everybody there had always known well"
    ships, rome = (
        f"{head} cargo ships come past at night in springtime.",
        f"{head} Rome has seven hills, all of them steep.",
    )
    for question in ("all of them steep.", "Please do tell us now, all of you. all of them steep."):
        context = context_of(Query(question), (Passage("p", f"{ships} {ships} {rome}"),))
        found = Summary(similarity=0.9)._chunks(Layout(context), narrow, 1200)
        assert [chunk.text for chunk in found] == [f"{ships} {ships}", rome]
        assert found[0].relevance < 0.5 < found[1].relevance


def test_keywords_are_numbers_names_and_the_question_s_words():
    found = keywords([HILLS, BREAD], "Which hills?", 3)
    assert found[0] == ["hills", "Rome", "753"]
    assert keywords([HILLS], "", 0) == [[]]
    assert keywords(["罗马是意大利的首都,有2个。", "面包。"], "意大利的首都?", 9)[0] == ["2"]
    assert keywords(["It was La Scala, in a year."], "La Scala", 9) == [["Scala"]]
    assert keywords(["漢字。京都", "茶"], "京都", 9) == [[], []]
    assert keywords(["Кот сидел в доме и на диване. А потом я ушёл."], "", 8)[0] == []
    assert not {"в", "и", "А", "я"} & set(keywords(["Кот в доме и А я.", "Пёс у дома."], "кот", 8)[0])
    assert set(keywords(["물 은 좋다 서울", "강 이 흐른다"], "물 강", 5)[0]) >= {"물"}


@pytest.mark.parametrize(
    "options",
    [
        *({"model": ""}, {"encoder": ""}, {"objective": "both"}, {"similarity": math.nan}, {"keywords": -1}),
        *({"batch_size": 0}, {"keep": 0}, {"dtype": "int4"}),
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError) as caught:
        Summary(**options)
    assert caught.value.path == next(iter(options))


class TestWithTinyModels:
    real_writer = real_encoder = True

    @pytest.mark.parametrize("objective", ["scope", "color"])
    @pytest.mark.parametrize("kind", ["causal", "seq2seq"])
    def test_batches_and_repetitions_give_the_same(
        self, objective, kind, tiny_lm_path, tiny_seq2seq_path, tiny_encoder_path
    ):
        name = tiny_lm_path if kind == "causal" else tiny_seq2seq_path
        options = {"max_new_tokens": 12, "window": 1024, "dtype": "fp32", "objective": objective}
        made = Summary(name, tiny_encoder_path, **options).bind(COUNTER)
        long = context_of(Query("Who?"), (Passage("l", "The river runs to the sea. " * 200, "River"), TEA))
        batch = [CONTEXT, long, context_of(Query("?"), (TEA,))]
        alone = [made.compress([context])[0] for context in batch]
        assert made.compress(batch[::-1]) == alone[::-1]
        assert all(COUNTER.context(a) <= COUNTER.context(b) for a, b in zip(alone, batch, strict=True))
        assert alone[1] != long


@pytest.mark.models
@pytest.mark.parametrize("objective", ["scope", "color"])
def test_the_built_in_models_write_a_shorter_context(objective):
    made = Summary(GENERATOR, EMBEDDER, objective=objective, max_new_tokens=48)
    (result,) = Stack((made,)).run([CONTEXT], counter=COUNTER)
    assert result.tokens_out <= result.tokens_in
    assert result.steps[0].status in (Status.OK, Status.NO_GAIN)


def test_what_was_not_written_to_its_end_is_not_shown(monkeypatch):
    """A beginning would pass for the whole chunk."""
    install(monkeypatch, "The hills. And so", stopped=False)
    after = run(keep=0.75, keywords=0)
    assert not any("And so" in text or text == "The hills." for text in of(after))
    passages = {passage.id: passage.text for passage in (ROME, TEA)}
    for segment in after.segments:
        assert segment.text == segment.joiner.join(passages[s.passage_id][s.start : s.end] for s in segment.sources)
    assert COUNTER.context(after) <= 0.75 * COUNTER.context(CONTEXT)


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("most", [40, 128])
def test_no_chunk_is_asked_for_more_than_can_be_written(monkeypatch, keep, most):
    writer = install(monkeypatch, "Short.")
    text = " ".join(f"The hills of Rome have name number {n} and are steep and old." for n in range(60))
    run(context_of(Query("hills of Rome"), (Passage("r", text),)), keep=keep, max_new_tokens=most)
    words = [int(re.search(r"at most (\d+) words", prompt)[1]) for prompt in writer.asked]
    assert words
    assert max(words) <= 0.75 * 0.8 * most + 1
    chunk = max(len(prompt.split("Text:\n")[1]) for prompt in writer.asked)
    assert chunk * keep <= 4 * most


@pytest.mark.parametrize(
    ("text", "piece", "found"),
    [
        ("1,500 visitors came", "500", False),
        ("It costs 3.5 dollars", "5 dollars", False),
        ("It costs 3.5 dollars", "3", False),
        ("fell by -5 %", "5 %", False),
        ("v1.3.5", "3", False),
        ("500 visitors came", "500", True),
        ("In 1995, 500 came.", "500", True),
        ("It was 500.", "500", True),
        ("not 1,500 but 500", "500", True),
        ("fell by -5 %", "-5 %", True),
        ("a well-known man", "well", True),
        *(("The war of 1914-1918 was long.", year, True) for year in ("1914", "1918", "1914-1918")),
        *(("On 1999-05-17 at 10:30", piece, True) for piece in ("1999", "17", "10", "30")),
        *(("1995,1996 and 2010/11", piece, True) for piece in ("1995", "1996", "2010")),
        ("a 747-400 flew", "747", True),
        ("12,345,678 people", "345", False),
    ],
)
def test_a_number_within_another_is_not_said(text, piece, found):
    from ragzip.compressors._abstractive import says

    assert says(text, piece) is found
