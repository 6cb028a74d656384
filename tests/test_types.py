import copy
import pickle

import pytest
import torch

from ragzip.compressors.budget import Budget
from ragzip.types import (
    CompressionResult,
    Context,
    Message,
    Passage,
    Query,
    SoftSegment,
    Span,
    Status,
    Step,
    TextSegment,
    context_of,
)

PASSAGES = (Passage("a", "One. Two.", "Title", 0.5, {"source": "x.md"}), Passage("b", "Three."))
CONTEXT = context_of(Query("q?"), PASSAGES)


def soft(value=1.0, space="m", sources=()):
    return SoftSegment(torch.full((2, 3), value), space, sources)


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 2), (-2, -1)])
def test_spans_refuse_nonsense(start, end):
    with pytest.raises(ValueError, match="0 <= start <= end"):
        Span("a", start, end)


def test_spans_are_ordered_and_have_a_length():
    assert len(Span("a", 2, 5)) == 3
    assert sorted([Span("b", 0, 1), Span("a", 4, 5), Span("a", 1, 9)])[0] == Span("a", 1, 9)


def test_the_uncompressed_context_holds_each_passage_whole():
    assert [s.text for s in CONTEXT.segments] == ["One. Two.", "Three."]
    assert CONTEXT.segments[0].sources == (Span("a", 0, 9),)
    assert CONTEXT.passages == PASSAGES
    assert context_of(Query(""), ()).segments == ()


def test_expand_gives_the_original_characters():
    assert CONTEXT.expand(Span("a", 5, 9)) == "Two."
    assert CONTEXT.passage("b") is PASSAGES[1]
    with pytest.raises(KeyError):
        CONTEXT.passage("c")


def test_the_first_passage_counts_where_ids_repeat():
    context = Context(Query(""), (), (Passage("a", "first"), Passage("a", "second")))
    assert context.passage("a").text == "first"


def test_soft_segments_compare_by_value():
    assert soft() == soft()
    assert hash(soft()) == hash(soft(2.0))
    assert soft() != soft(2.0)
    assert soft() != soft(space="n")
    assert soft() != soft(sources=(Span("a", 0, 1),))
    assert soft() != SoftSegment(torch.ones(3, 3), "m")
    assert soft() != TextSegment("x")
    assert len({soft(), soft(), soft(2.0)}) == 2


@pytest.mark.parametrize(
    "value",
    [
        Query("q", "1"),
        PASSAGES[0],
        Span("a", 0, 1),
        TextSegment("x", (Span("a", 0, 1),), "\n"),
        soft(),
        CONTEXT,
        Step("s", Status.OK, 2, 1, 0.1),
        CompressionResult(CONTEXT, (), 3, 2),
        Message("user", ("a", TextSegment("b"))),
    ],
)
def test_values_pickle_copy_and_are_frozen(value):
    assert pickle.loads(pickle.dumps(value)) == value
    assert copy.deepcopy(value) == value
    name = next(iter(value.__slots__))
    with pytest.raises(AttributeError):
        setattr(value, name, None)
    with pytest.raises((AttributeError, TypeError)):
        value.something_else = 1


def test_passages_hash_without_their_metadata():
    assert hash(PASSAGES[0]) == hash(Passage("a", "One. Two.", "Title", 0.5, {}))
    assert len({CONTEXT, CONTEXT}) == 1


@pytest.mark.parametrize(("before", "after", "ratio"), [(10, 4, 2.5), (0, 0, 1.0), (3, 0, float("inf")), (3, 3, 1.0)])
def test_ratio(before, after, ratio):
    assert CompressionResult(CONTEXT, (), before, after).ratio == ratio


def test_seconds_add_up():
    steps = (Step("a", Status.OK, 9, 5, 0.25), Step("b", Status.NO_GAIN, 5, 5, 0.5, "why"))
    assert CompressionResult(CONTEXT, steps, 9, 5).seconds == 0.75


def test_messages_print_as_text():
    assert str(Message("user", ("a ", TextSegment("b"), soft()))) == "a b⟨2 soft tokens⟩"


def test_statuses_print_as_words():
    assert [str(status) for status in Status] == ["ok", "skipped_short", "no_gain", "timeout", "error"]


@pytest.mark.parametrize(("query", "passages"), [("q?", PASSAGES), (Query("q?"), ("a", "b")), (Query("q?"), "a text")])
def test_contexts_of_something_else_are_refused(query, passages):
    with pytest.raises(TypeError, match="a context needs"):
        context_of(query, passages)


def test_passages_of_a_context_may_come_one_by_one():
    assert context_of(Query("q?"), (p for p in PASSAGES)) == context_of(Query("q?"), list(PASSAGES)) == CONTEXT
    for wrong in ("", PASSAGES[0]):
        with pytest.raises(TypeError, match="a tuple of passages"):
            context_of(Query("q?"), wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: context_of(Query(None), PASSAGES),
        lambda: context_of(Query("q?"), (Passage("a", "text", None),)),
        lambda: context_of(Query("q?"), (Passage("a", None),)),
        lambda: context_of(Query("q?"), (Passage(3, "text"),)),
    ],
)
def test_what_is_no_text_is_refused_by_name(wrong):
    with pytest.raises(TypeError, match=r"the (id|text|title) of passage|a question is a text"):
        wrong()


def test_only_what_is_there_is_expanded():
    assert CONTEXT.expand(Span("a", 0, 4)) == "One."
    with pytest.raises(ValueError, match="passage 'a' has 9 characters; 999 is beyond its end"):
        CONTEXT.expand(Span("a", 0, 999))
    with pytest.raises(TypeError, match="can be expanded, not 3"):
        CONTEXT.expand(3)


def test_a_context_in_the_place_of_a_list_is_told_so():
    with pytest.raises(TypeError, match=r"compress\(\[context\]\)"):
        Budget(3).compress(CONTEXT)
