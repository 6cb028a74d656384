"""What a run accounts for, and the rule that a failing or useless step falls open to its input."""

import re
import threading
import time
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.compressors.bm25_sentences import BM25Sentences
from ragzip.compressors.structured import Structured
from ragzip.compressors.top_k import TopK
from ragzip.errors import ConfigError, ModelError, UsageError
from ragzip.protocols import Stack
from ragzip.protocols._run import WordCounter
from ragzip.text import words as cut_words
from ragzip.tokens import TokenCounter
from ragzip.types import Passage, Query, Status, context_of
from tests.protocols.parts import CONTEXT, Backwards, Fails, First, Gives, Slow, Soft, Upper, context, words


def by_words(texts):
    return [len(text.split()) for text in texts]


COUNTER = TokenCounter(by_words)


def run(stack, *contexts, counter=COUNTER):
    return (stack if isinstance(stack, Stack) else Stack((stack,))).run(list(contexts), counter=counter)


def statuses(result):
    return [step.status for step in result.steps]


def test_steps_say_what_happened():
    (result,) = run(First(2) >> First(1), CONTEXT)
    first, second = result.steps
    assert (first.name, first.status, first.detail) == ("first", Status.OK, "")
    assert (result.tokens_in, first.tokens_in) == (17, 17)  # 15 words and two titles
    assert first.tokens_out == second.tokens_in == 15
    assert second.tokens_out == result.tokens_out == 10
    assert result.ratio == pytest.approx(1.7)
    assert all(step.seconds >= 0 for step in result.steps)
    assert result.seconds == first.seconds + second.seconds


def test_a_reordering_of_equal_length_is_ok():
    (result,) = run(Backwards(), CONTEXT)
    assert statuses(result) == [Status.OK]
    assert words(result)[0] == "Rain falls."


def test_an_unchanged_context_is_no_gain():
    (result,) = run(First(9), CONTEXT)
    assert statuses(result) == [Status.NO_GAIN]
    assert result.context is CONTEXT


def test_a_longer_output_falls_open():
    (result,) = run(Upper(suffix=" and so on"), CONTEXT)
    assert statuses(result) == [Status.NO_GAIN]
    assert "26 tokens is longer than its input of 17" in result.steps[0].detail
    assert result.context is CONTEXT


def test_empty_and_short_contexts_skip_the_step():
    empty, short = context(), context("two words")
    results = Stack((Fails(),), min_tokens=3).run([empty, short, CONTEXT], counter=COUNTER)
    assert [statuses(r) for r in results] == [[Status.SKIPPED_SHORT], [Status.SKIPPED_SHORT], [Status.ERROR]]
    assert results[0].steps[0].detail == "nothing to compress"
    assert results[1].steps[0].detail == "fewer than 3 tokens"
    assert results[0].ratio == 1.0


def test_an_emptied_context_skips_what_follows():
    (result,) = run(First(0) >> Fails(), CONTEXT)
    assert statuses(result) == [Status.OK, Status.SKIPPED_SHORT]
    assert result.ratio == float("inf")


def test_a_failing_step_falls_open_and_says_why():
    (result,) = run(Fails() >> First(1), CONTEXT)
    assert statuses(result) == [Status.ERROR, Status.OK]
    assert result.steps[0].detail == "ValueError: no such luck"
    assert result.steps[0].tokens_out == result.steps[0].tokens_in
    assert words(result) == [CONTEXT.segments[0].text]


def test_running_out_of_memory_falls_open():
    (result,) = run(Fails(kind="memory"), CONTEXT)
    assert statuses(result) == [Status.ERROR]
    assert result.steps[0].detail == "MemoryError"


def test_one_bad_context_costs_one():
    batch = [context("a b", "c", query=name) for name in ("good", "bad", "fine")]
    results = run(Fails(on="bad"), *batch)
    assert [statuses(r)[0] for r in results] == [Status.OK, Status.ERROR, Status.OK]
    assert [len(r.context.segments) for r in results] == [1, 2, 1]
    assert [r.context.query.text for r in results] == ["good", "bad", "fine"]


@pytest.mark.parametrize(
    "what",
    ["none", "one too few", "another query", "other passages", "a list of segments", "strings", "text"],
)
def test_nonsense_falls_open(what):
    results = run(Gives(what), CONTEXT, CONTEXT)
    assert [statuses(r) for r in results] == [[Status.ERROR], [Status.ERROR]]
    assert all(r.context is CONTEXT for r in results)


@pytest.mark.parametrize(
    ("kind", "error"),
    [("config", ConfigError), ("model", ModelError), ("usage", UsageError), ("interrupt", KeyboardInterrupt)],
)
@pytest.mark.parametrize("timeout", [None, 10.0])
def test_what_can_never_work_is_raised(kind, error, timeout):
    with pytest.raises(error):
        Stack((Fails(kind=kind),), timeout=timeout).run([CONTEXT], counter=COUNTER)


def test_a_step_that_takes_too_long_falls_open():
    start = time.monotonic()
    stack = Stack((Slow(5.0), First(1)), timeout=0.1)
    results = stack.run([CONTEXT, CONTEXT], counter=COUNTER)
    assert time.monotonic() - start < 4.0
    assert [statuses(r) for r in results] == [[Status.TIMEOUT, Status.OK]] * 2
    assert results[0].steps[0].detail == "took longer than 0.1 s"


def test_a_step_in_time_is_ok_and_its_errors_fall_open():
    (result,) = Stack((Slow(0.0), Fails()), timeout=30.0).run([CONTEXT], counter=COUNTER)
    assert statuses(result) == [Status.OK, Status.ERROR]


def test_a_failing_batch_is_tried_again_within_its_time():
    batch = [context("a b", "c", query=name) for name in ("good", "bad")]
    results = Stack((Fails(on="bad"),), timeout=30.0).run(batch, counter=COUNTER)
    assert [statuses(r)[0] for r in results] == [Status.OK, Status.ERROR]


def test_soft_rows_count_as_one_token_each():
    (result,) = run(First(2) >> Soft() >> Backwards(), CONTEXT)
    assert statuses(result) == [Status.OK] * 3
    assert result.tokens_out == 2 + 2  # two rows and two titles


def test_no_contexts_give_no_results():
    assert Stack((Fails(),)).run([]) == []


def test_each_context_is_counted_once():
    seen = []

    class Counting:
        titles = True

        def texts(self, texts):
            return by_words(texts)

        def context(self, value):
            seen.append(value)
            return COUNTER.context(value)

    batch = [CONTEXT, context("a b c", "d")]
    run(First(9) >> First(2) >> First(1), *batch, counter=Counting())
    assert len({id(value) for value in seen}) == len(seen)


def test_an_unbound_stack_judges_growth_in_words():
    result = Stack((Upper(suffix=" and so on"),)).run([CONTEXT])[0]
    assert statuses(result) == [Status.NO_GAIN]
    assert result.tokens_in == 19  # words and full stops, without titles


def test_parts_of_an_unbound_stack_count_as_they_do_alone():
    part = BM25Sentences(budget=9).bind(COUNTER)
    passages = tuple(Passage(f"p{i}", "Rain fell on the town. The mill stood still.", "A long title") for i in range(4))
    given = context_of(Query("Where did rain fall?"), passages)
    alone = part.compress([given])
    assert COUNTER.context(alone[0]) <= 9
    assert (TopK(9) >> part).compress([given]) == alone
    twice = TokenCounter(lambda texts: [2 * n for n in by_words(texts)])
    assert (TopK(9) >> part).bind(twice).compress([given]) != alone


@pytest.mark.parametrize(
    ("option", "value"),
    [("timeout", v) for v in (0, -1.0, float("inf"), float("nan"), True, "1")] + [("min_tokens", v) for v in (-1, 1.5)],
)
def test_limits_that_cannot_be_are_refused_by_name(option, value):
    with pytest.raises(ConfigError) as caught:
        Stack((First(1),), **{option: value})
    assert caught.value.path == option


def test_a_timeout_longer_than_clocks_can_wait_is_none():
    (result,) = Stack((Slow(0.0),), timeout=1e12).run([CONTEXT], counter=COUNTER)
    assert statuses(result) == [Status.OK]


def test_the_steps_of_a_stack_within_are_told_one_by_one():
    inner = Stack((First(2), Fails()), min_tokens=3)
    (result,) = run(Stack((inner, First(1))), CONTEXT)
    assert [(step.name, step.status) for step in result.steps] == [
        ("first", Status.OK),
        ("fails", Status.ERROR),
        ("first", Status.OK),
    ]
    assert result.tokens_in == result.steps[0].tokens_in
    assert result.tokens_out == result.steps[-1].tokens_out
    assert run(Stack((First(2), Fails(), First(1))), CONTEXT)[0].context == result.context


def test_a_stack_within_keeps_its_limits_and_takes_the_others():
    inner = Stack((Slow(),), timeout=0.05)
    assert statuses(run(Stack((inner,)), CONTEXT)[0]) == [Status.TIMEOUT]
    assert statuses(run(Stack((Stack((Slow(),)),), timeout=0.05), CONTEXT)[0]) == [Status.TIMEOUT]
    assert statuses(run(Stack((Stack((First(1),), min_tokens=99),)), CONTEXT)[0]) == [Status.SKIPPED_SHORT]
    assert statuses(run(Stack((Stack((First(1),)),), min_tokens=99), CONTEXT)[0]) == [Status.SKIPPED_SHORT]


def test_what_fails_within_another_compressor_is_told():
    (result,) = run(Structured(Stack((Fails(), BM25Sentences(budget=9)))), CONTEXT)
    assert [step.status for step in result.steps] == [Status.OK]
    assert "fails: error: " in result.steps[0].detail


def test_the_stricter_limit_holds_within():
    for outer, inner in ((0.05, 100.0), (100.0, 0.05)):
        (result,) = run(Stack((Stack((Slow(),), timeout=inner),), timeout=outer), CONTEXT)
        assert statuses(result) == [Status.TIMEOUT]


def test_a_stack_within_that_has_a_counter_counts_by_it():
    inner = Stack((BM25Sentences(budget=30),), counter=TokenCounter(lambda texts: [len(text) for text in texts]))
    (alone,) = inner.run([CONTEXT])
    (within,) = Stack((inner, First(9))).run([CONTEXT])
    assert within.context == alone.context != CONTEXT
    # what comes after it is counted as what came before it
    words_of = WordCounter().context
    assert (within.tokens_in, within.tokens_out) == (words_of(CONTEXT), words_of(within.context))
    assert within.steps[-1].tokens_in == within.tokens_out


def test_how_many_failed_within_another_compressor_is_told():
    results = run(Structured(Stack((Fails(), First(1)))), CONTEXT, CONTEXT)
    assert all("(2 of 2 contexts)" in result.steps[0].detail for result in results)


@given(st.text("今天天氣かなカ\u3099は。, -abc1é\n ", max_size=60), st.data(), st.sampled_from(["", " "]))
def test_the_words_of_an_unbound_stack_never_grow_by_dropping_some(text, data, joiner):
    """However what is left is joined: in scripts without spaces, too."""
    found = [text[start:end] for start, end in cut_words(text)]
    kept = [word for word in found if data.draw(st.booleans())]
    before, after = WordCounter().texts([text, joiner.join(kept)])
    assert after <= before


def test_rows_are_not_compared_with_words():
    """An IBAN is one word and a dozen tokens: an unbound stack must not fall open for it."""
    given = context("DE89370400440532013000 +491701234567")
    (result,) = Stack((Soft(rows=9),)).run([given])
    assert statuses(result) == [Status.OK]
    assert result.tokens_out > result.tokens_in
    (longer,) = Stack((Soft(more="word " * 20),)).run([given])
    assert statuses(longer) == [Status.NO_GAIN]
    (bound,) = Stack((Soft(rows=9),)).run([given], counter=COUNTER)
    assert statuses(bound) == [Status.NO_GAIN]


def test_the_first_step_begins_while_its_input_is_counted():
    begun, waited = threading.Event(), []

    class Waiting(TokenCounter):
        def context(self, context):
            if not waited:
                waited.append(begun.wait(20))
            return super().context(context)

    @dataclass(frozen=True)
    class Begins(First):
        def compress(self, contexts):
            begun.set()
            return super().compress(contexts)

    (result,) = Stack((Begins(1),)).run([CONTEXT], counter=Waiting(by_words))
    assert waited == [True]
    assert (result.tokens_in, result.steps[0].tokens_in) == (17, 17)


@pytest.mark.parametrize("text", ["", " \n", "...", "a", "\u5b57"])
def test_what_may_have_no_token_is_counted_before(text):
    """A step is skipped or not as by the count, whatever was known without it."""
    counter = TokenCounter(lambda texts: [len(re.findall(r"\w", text)) for text in texts])
    (result,) = Stack((First(1),)).run([context(text)], counter=counter)
    skipped = statuses(result) == [Status.SKIPPED_SHORT]
    assert skipped == (not re.search(r"\w", text))


def test_a_counter_that_fails_is_heard():
    def broken(texts):
        raise OSError("no tokenizer")

    with pytest.raises(OSError, match="no tokenizer"):
        Stack((First(1),)).run([CONTEXT], counter=TokenCounter(broken))
