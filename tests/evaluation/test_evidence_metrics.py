from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ragzip import text
from ragzip.evaluation.metrics import AnswerInContext, Sentences
from ragzip.evaluation.metrics.evidence import counts
from ragzip.evaluation.outcome import Outcome
from ragzip.evaluation.record import Record
from ragzip.types import CompressionResult, Context, Passage, Query, SoftSegment, Span, TextSegment

PRECISION, RECALL, F1 = Sentences("precision"), Sentences("recall"), Sentences("f1")
A = Passage("a", "One is here. Two is there. Three is far.", "Title of A")
B = Passage("b", "Four was small. Five was large.")
S = {p.id: [Span(p.id, *stretch) for stretch in text.sentences(p.text)] for p in (A, B)}


def outcome(kept, relevant=(), *, record_passages=(A, B), retrieved=(A, B), answers=(), segments=None) -> Outcome:
    passages = {p.id: p for p in (*retrieved, *record_passages)}
    if segments is None:
        segments = tuple(TextSegment(passages[s.passage_id].text[s.start : s.end], (s,)) for s in kept)
    context = Context(Query("q"), tuple(segments), tuple(retrieved))
    record = Record("1", "q", tuple(answers), tuple(record_passages), tuple(relevant))
    return Outcome(record, tuple(retrieved), CompressionResult(context, (), 10, 5))


def scores(case):
    return tuple(metric.score(case) for metric in (PRECISION, RECALL, F1))


def test_by_hand():
    gold = (S["a"][0], S["b"][1])
    assert scores(outcome(gold, gold)) == (1, 1, 1)
    assert scores(outcome([S["a"][0], S["a"][1]], gold)) == (1 / 2, 1 / 2, 1 / 2)
    assert scores(outcome([*S["a"], *S["b"]], gold)) == pytest.approx((2 / 5, 1, 4 / 7))
    assert scores(outcome([S["a"][1]], gold)) == (0, 0, 0)
    assert scores(outcome([], gold)) == (0, 0, 0)
    assert scores(outcome([S["a"][0]], ())) == (None, None, None)


def test_half_a_sentence_is_a_sentence():
    first = S["a"][0]  # "One is here.": ten characters that are seen
    half = Span("a", 0, 6)  # "One is": five of them
    less = Span("a", 0, 5)
    assert scores(outcome([half], [first])) == (1, 1, 1)
    assert scores(outcome([less], [first])) == (0, 0, 0)
    # two pieces make one sentence; a piece that is there twice counts once
    assert scores(outcome([less, Span("a", 7, 8)], [first])) == (1, 1, 1)
    assert scores(outcome([less, less], [first])) == (0, 0, 0)


def test_a_short_label_still_marks_its_sentence():
    two = S["a"][1]
    label = Span("a", two.start, two.start + 3)
    assert counts(outcome([two], [label])) == (1, 1, 1)
    # beside a whole one in the same sentence it marks no other
    assert counts(outcome([two], [label, two])) == (1, 1, 1)
    assert counts(outcome([two], [Span("a", 12, 13)])) == (0, 1, 0)  # white space


def test_evidence_that_was_not_retrieved_was_missed():
    gold = (S["a"][0], S["b"][0], S["b"][1])
    case = outcome([S["a"][0]], gold, retrieved=(A,))
    assert scores(case) == pytest.approx((1, 1 / 3, 1 / 2))
    # also where nobody has its text
    unknown = outcome([S["a"][0]], gold, retrieved=(A,), record_passages=())
    assert scores(unknown) == scores(case)


def test_retrieved_passages_beyond_the_record_count_as_kept():
    case = outcome([S["a"][0], S["b"][0]], [S["a"][0]], record_passages=(A,))
    assert scores(case) == pytest.approx((1 / 2, 1, 2 / 3))


def test_soft_segments_count_by_their_sources():
    soft = SoftSegment(torch.zeros(2, 4), "some", (S["a"][0],))
    assert scores(outcome((), [S["a"][0]], segments=(soft,))) == (1, 1, 1)


spans = st.builds(
    lambda p, x, y: (
        Span(p.id, min(x, y) % (len(p.text) + 1), max(x, y) % (len(p.text) + 1))
        if min(x, y) % (len(p.text) + 1) <= max(x, y) % (len(p.text) + 1)
        else Span(p.id, 0, 1)
    ),
    st.sampled_from([A, B]),
    st.integers(0, 60),
    st.integers(0, 60),
)


@given(st.lists(spans), st.lists(spans))
def test_laws(kept, relevant):
    case = outcome(kept, relevant)
    right, mine, gold = counts(case)
    assert 0 <= right <= min(mine, gold) <= max(mine, gold) <= 5
    assert counts(outcome(list(reversed(kept)), list(reversed(relevant)))) == (right, mine, gold)
    p, r, f = scores(case)
    if gold:
        assert f == pytest.approx(2 * p * r / (p + r) if p + r else 0)
        everything = outcome([*S["a"], *S["b"]], relevant)
        assert RECALL.score(everything) == 1
    else:
        assert p is r is f is None


def test_overlong_spans_and_unknown_passages_do_no_harm():
    odd = TextSegment("x", (Span("a", 0, 10_000), Span("nowhere", 0, 5)))
    assert scores(outcome((), [S["a"][0]], segments=(odd,))) == pytest.approx((1 / 3, 1, 1 / 2))


# --- answer in context ------------------------------------------------------------------------------------------

IN_CONTEXT = AnswerInContext()


@pytest.mark.parametrize(
    ("kept", "answers", "score"),
    [
        (S["a"], ("two",), 1),
        (S["a"], ("tw",), 0),
        (S["a"], ("nine", "is the far!"), 1),
        (S["a"][:1], ("two",), 0),
        ([], ("two",), 0),
        (S["a"], ("title of A",), 1),
        (S["a"], ("yes",), None),
        (S["a"], ("No.", "maybe"), None),
        (S["a"], ("no", "two"), 1),
        (S["a"], ("yes", "nine"), 0),
        (S["a"], ("",), None),
        (S["a"], (), None),
    ],
)
def test_answer_in_context(kept, answers, score):
    assert IN_CONTEXT.score(outcome(kept, answers=answers)) == score


def test_answer_in_context_says_nothing_about_soft_rows():
    text_part = TextSegment("two", ())
    soft = SoftSegment(torch.zeros(1, 4), "some")
    none = SoftSegment(torch.zeros(0, 4), "some")
    assert IN_CONTEXT.score(outcome((), answers=("two",), segments=(text_part, soft))) is None
    assert IN_CONTEXT.score(outcome((), answers=("two",), segments=(text_part, none))) == 1


def test_answer_is_not_needed():
    case = replace(outcome(S["a"], answers=("two",)), answer=None)
    assert IN_CONTEXT.score(case) == 1
    assert IN_CONTEXT.needs == {"answers"} and F1.needs == {"sentences"}
