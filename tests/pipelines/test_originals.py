"""From any compressed context back to the original text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip import text as text_
from ragzip.compressors.random_sentences import RandomSentences
from ragzip.errors import UsageError
from ragzip.pipelines.originals import context_dict, context_from_dict, expand
from ragzip.protocols import WordCounter
from ragzip.testing.strategies import contexts
from ragzip.types import Context, Passage, Query, SoftSegment, Span, TextSegment, context_of

TEXT = "One two. Three four. Five six. Seven eight."
CONTEXT = context_of(Query("q"), (Passage("a", TEXT, "Title"), Passage("b", "Nine.")))


def texts(*arguments, **options):
    return [excerpt.text for excerpt in expand(*arguments, **options)]


@given(contexts(), st.integers(0, 3), st.integers(0, 30))
def test_every_kept_character_is_found_again_with_what_stands_around(context, sentences, characters):
    after = RandomSentences(keep=0.4).bind(WordCounter()).compress([context])[0]
    for segment in after.segments:
        if not segment.sources:
            continue
        excerpts = expand(after, segment, sentences=sentences, characters=characters)
        for excerpt in excerpts:
            assert excerpt.text == context.passage(excerpt.passage_id).text[excerpt.start : excerpt.end]
        for span in segment.sources:
            assert any(e.passage_id == span.passage_id and e.start <= span.start <= span.end <= e.end for e in excerpts)
        if not sentences and not characters:
            got = sum(len(excerpt.text) for excerpt in excerpts)
            assert got == sum(
                b - a
                for p in {s.passage_id for s in segment.sources}
                for a, b in text_.merge((s.start, s.end) for s in segment.sources if s.passage_id == p)
            )


def test_empty_spans_are_found_where_they_stand():
    context = context_of(Query(""), (Passage("p", "0123456789"),))
    spans = tuple(Span("p", a, b) for a, b in ((0, 0), (2, 4), (3, 3), (4, 4), (7, 7), (7, 7)))
    segment = TextSegment(" 23    ", spans, " ")
    found = expand(Context(context.query, (segment,), context.passages), segment)
    assert [(e.start, e.end) for e in found] == [(0, 0), (2, 4), (7, 7)]


@given(st.text(max_size=60), st.data(), st.integers(0, 3))
def test_more_around_is_never_less(text, data, more):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    context = context_of(Query(""), (Passage("p", text),))
    (narrow,) = expand(context, Span("p", start, end), sentences=more, characters=more)
    (wide,) = expand(context, Span("p", start, end), sentences=more + 1, characters=more + 1)
    assert wide.start <= narrow.start <= start
    assert end <= narrow.end <= wide.end


def test_sentences_and_characters_around():
    three = Span("a", 9, 14)
    assert texts(CONTEXT, three) == ["Three"]
    assert texts(CONTEXT, three, sentences=1) == ["One two. Three four. Five six."]
    assert texts(CONTEXT, three, characters=4) == ["wo. Three fou"]
    assert texts(CONTEXT, Span("a", 8, 9), sentences=1) == ["One two. Three four."]
    assert texts(CONTEXT, "b") == ["Nine."]


def test_stretches_of_a_segment_grow_together():
    segment = TextSegment("One Five", (Span("a", 0, 3), Span("a", 21, 25), Span("b", 0, 4)))
    assert texts(CONTEXT, segment) == ["One", "Five", "Nine"]
    assert texts(CONTEXT, segment, sentences=1) == ["One two. Three four. Five six. Seven eight.", "Nine."]


def test_a_passage_is_split_once_for_all_spans(monkeypatch):
    asked, split = [], text_.sentences
    monkeypatch.setattr(text_, "sentences", lambda text: asked.append(text) or split(text))
    segment = TextSegment("One Five Nine", (Span("a", 0, 3), Span("a", 21, 25), Span("b", 0, 4), Span("a", 9, 14)))
    expand(CONTEXT, segment, sentences=1)
    assert sorted(asked) == ["Nine.", TEXT]


def test_soft_and_abstractive_segments_name_what_they_read():
    import torch

    soft = SoftSegment(torch.zeros(2, 3), "m", (Span("a", 0, 8),))
    context = Context(CONTEXT.query, (soft, TextSegment("In short.", (Span("b", 0, 5),))), CONTEXT.passages)
    assert [texts(context, segment) for segment in context.segments] == [["One two."], ["Nine."]]
    assert context.expand(soft) == "One two."
    again = context_from_dict(json.loads(json.dumps(context_dict(context))))
    assert [segment.sources for segment in again.segments] == [segment.sources for segment in context.segments]


def test_a_context_expands_by_itself():
    assert CONTEXT.expand("b") == "Nine."
    assert CONTEXT.expand(TextSegment("x", (Span("a", 0, 3), Span("b", 0, 4)))) == "One\n\nNine"
    with pytest.raises(KeyError):
        CONTEXT.expand("c")


@given(contexts())
def test_plain_values_hold_all_that_expand_needs(context):
    plain = json.loads(json.dumps(context_dict(context)))
    again = context_from_dict(plain)
    assert context_dict(again)["segments"] == plain["segments"]
    assert [(p.id, p.title, p.text) for p in again.passages] == [(p.id, p.title, p.text) for p in context.passages]
    assert context_dict(again) == plain  # scores, too, by which some compressors choose


def test_metadata_and_the_id_of_the_question_are_held():
    metadata = {"source": "contract.pdf", "page": 3, "tags": ["a", 1], "odd": float("nan"), "set": {1}}
    context = context_of(Query("Who?", "q7"), (Passage("a", TEXT, "T", 0.5, metadata),))
    again = context_from_dict(json.loads(json.dumps(context_dict(context), allow_nan=False)))
    assert again.query == context.query
    assert again.segments == context.segments
    assert again.passages[0].metadata == {"source": "contract.pdf", "page": 3, "tags": ["a", 1]}


def test_spans_beyond_their_passage_are_refused():
    plain = context_dict(CONTEXT)
    plain["segments"][0]["spans"][0]["end"] = 999
    with pytest.raises(UsageError, match=r"segments\[0\]: passage 'a' has \d+ characters, not 999"):
        context_from_dict(plain)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("c", "no passage 'c' There are: a, b."),
        (Span("c", 0, 1), "no passage 'c'"),
        (Span("a", 0, 99), "99 is beyond its end"),
        (TextSegment("x"), "names no source"),
    ],
)
def test_what_is_not_there_is_said(what, message):
    with pytest.raises(UsageError) as caught:
        expand(CONTEXT, what)
    assert message in str(caught.value)


def test_long_lists_of_passages_are_cut_short():
    context = context_of(Query(""), tuple(Passage(str(i), "x") for i in range(30)))
    with pytest.raises(UsageError, match="7 and 22 more"):
        expand(context, "none")
    with pytest.raises(UsageError, match="at least 0"):
        expand(context, "1", sentences=-1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"passages": 3}, "passages should be a list of objects"),
        ({"passages": [{"id": "a"}]}, r"passages\[0\] has no 'text'"),
        ({"segments": [{"spans": [{"passage_id": "a", "start": 2, "end": 1}]}]}, r"segments\[0\].spans\[0\] needs"),
        ({"segments": [{"spans": [{"start": 1, "end": 2}]}]}, r"segments\[0\].spans\[0\] has no 'passage_id'"),
        ({"segments": [{"spans": [3]}]}, r"segments\[0\].spans should be a list"),
    ],
)
def test_what_is_no_context_is_refused_with_its_place(value, message):
    with pytest.raises(UsageError, match=message):
        context_from_dict(value)


def test_what_joins_spans_goes_through_plain_values():
    passage = Passage("p", "甲乙丙丁")
    kept = TextSegment("甲丁", (Span("p", 0, 1), Span("p", 3, 4)), "")
    plain = context_dict(Context(Query("q"), (kept, TextSegment("甲", (Span("p", 0, 1),))), (passage,)))
    assert [segment.get("joiner") for segment in plain["segments"]] == ["", None]
    assert context_from_dict(plain).segments[0] == kept
    plain["segments"][0]["joiner"] = 3
    with pytest.raises(UsageError, match="joiner must be a text"):
        context_from_dict(plain)
