from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
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


# --- an index of one's own --------------------------------------------------------------------------------------

LONG = Passage(
    "d1",
    "The first lighthouse of the coast was built in the spring of 1801. It burned for a hundred years without pause. "
    "A keeper lived below the lamp with his family. The second lighthouse replaced it after the great storm.",
    "Lights",
)
OTHER = Passage("d2", "A harbour lies to the north of the town walls. Its quay is longer than any other there.", "")
L = [Span("d1", *stretch) for stretch in text.sentences(LONG.text)]


def cut(first: int, last: int, number: int = 0, **metadata) -> Passage:
    """A passage as an index would cut it from the document."""
    return Passage(f"corpus.jsonl#d1#{number}", LONG.text[first:last], "", None, metadata)


def whole(*passages: Passage) -> tuple[TextSegment, ...]:
    return tuple(TextSegment(p.text, (Span(p.id, 0, len(p.text)),)) for p in passages)


def indexed(found, relevant, *, record_passages=(LONG, OTHER), kept=None):
    segments = whole(*(found if kept is None else kept))
    return outcome((), relevant, record_passages=record_passages, retrieved=tuple(found), segments=segments)


HALVES = (cut(0, L[1].end, 0, start=0, end=L[1].end), cut(L[2].start, len(LONG.text), 1, start=L[2].start, end=9999))


@pytest.mark.parametrize("key", ["id", "_id", "doc_id", "docid", "other"])
@pytest.mark.parametrize("with_start", [True, False])
def test_documents_cut_into_passages_are_known_by_document_or_text(key, with_start):
    found = [
        replace(half, metadata={key: "d1", **(half.metadata if with_start else {}), "source": "x"}) for half in HALVES
    ]
    assert scores(indexed(found, [L[1], L[3]])) == pytest.approx((1 / 2, 1, 2 / 3))
    assert scores(indexed(found, [L[1], L[3]], kept=found[:1])) == (1 / 2, 1 / 2, 1 / 2)
    assert scores(indexed(found[:1], [L[1], L[3]])) == (1 / 2, 1 / 2, 1 / 2)
    assert scores(indexed(found[1:], [L[1]])) == (0, 0, 0)  # known, and missed


def test_passages_that_overlap_count_a_sentence_once():
    found = (cut(0, L[2].end, 0), cut(L[1].start, len(LONG.text), 1))
    assert counts(indexed(found, [L[2]])) == (1, 4, 1)


def test_a_passage_that_holds_a_labelled_one_and_more():
    around = Passage("file#0", f"Something else stands before it. {LONG.text} {OTHER.text}")
    span = Span("file#0", around.text.index("A keeper"), around.text.index("The second"))
    case = outcome((), [L[2]], record_passages=(LONG, OTHER), retrieved=(around,), segments=(TextSegment("", (span,)),))
    assert scores(case) == (1, 1, 1)
    assert counts(indexed([around], [L[2]])) == (1, 7, 1)


def test_a_passage_across_the_border_of_two_is_known_by_its_sentences():
    across = Passage("file#0", f"{LONG.text[L[3].start :]}\n\n{OTHER.text[:46]} Not in the set at all, this one.")
    assert counts(indexed([across], [L[3]])) == (1, 3, 1)
    assert counts(indexed([across], [L[0], Span("d2", 0, 46)])) == (1, 3, 2)


def test_passages_of_no_known_id_and_text_say_nothing():
    foreign = Passage("zz", "Nothing of this stands in any passage of the set.", metadata={"id": "77"})
    assert scores(indexed([foreign], [L[0]])) == (None, None, None)
    assert scores(indexed([foreign], [L[0]], kept=())) == (None, None, None)
    # nothing retrieved at all is evidence missed, and so is a passage of the set that holds none
    assert scores(indexed([], [L[0]])) == (0, 0, 0)
    assert scores(indexed([foreign, OTHER], [L[0]])) == (0, 0, 0)


def test_the_same_id_with_another_text_is_another_passage():
    # sets number their passages, and so do indexes
    namesake = Passage("d1", "Nothing of this stands in any passage of the set.")
    assert scores(indexed([namesake], [L[0]])) == (None, None, None)
    assert scores(indexed([namesake, OTHER], [L[0]])) == (0, 0, 0)
    wrong = Passage("x", "Nothing of this stands in any passage of the set.", metadata={"id": "d1", "start": 0})
    assert scores(indexed([wrong], [L[0]])) == (None, None, None)


def test_documents_whose_text_the_record_does_not_bring():
    def scored(found, relevant):
        return counts(indexed([replace(p, metadata={**p.metadata, "id": "d1"}) for p in found], relevant))

    def bare(found, relevant):
        named = [replace(p, metadata={**p.metadata, "id": "d1"}) for p in found]
        return counts(indexed(named, relevant, record_passages=()))

    overlapping = (
        cut(L[1].start, L[2].end, 1, start=L[1].start),
        cut(0, L[1].end, 0, start=0),
        cut(L[3].start, L[3].end, 2, start=L[3].start),
    )
    for found in (HALVES, overlapping, HALVES[1:], overlapping[1:]):
        for relevant in ([L[1]], [L[1], L[3]], [L[0], L[2]]):
            assert bare(found, relevant) == scored(found, relevant)
    far = Passage("far", LONG.text, metadata={"id": "d1", "start": 10**15})
    assert bare([far], [L[0]]) == (0, 4, 1)
    unknown = indexed([replace(HALVES[0], metadata={"id": "d9"})], [L[0]], record_passages=())
    assert scores(unknown) == (None, None, None)
    judged = replace(unknown, record=replace(unknown.record, qrels={"d1": 1, "d9": 0}))
    assert scores(judged) == (0, 0, 0)


def test_of_two_passages_alike_the_labelled_one_counts():
    twin = replace(LONG, id="twin")
    foreign = Passage("zz", LONG.text)
    case = indexed([foreign], [Span("twin", L[0].start, L[0].end)], record_passages=(LONG, twin))
    assert counts(case) == (1, 4, 1)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 120)), min_size=1, max_size=5), st.data())
def test_where_an_index_cuts_changes_nothing(stretches, data):
    """The same characters kept give the same counts, whatever passages they were retrieved in."""
    spans = [Span("d1", start, min(start + size, len(LONG.text))) for start, size in stretches]
    assume(any(LONG.text[span.start : span.end].strip() for span in spans))  # of white space alone nothing is known
    relevant = data.draw(st.lists(st.sampled_from(L), min_size=1))
    direct = outcome(spans, relevant, record_passages=(LONG,), retrieved=(LONG,))
    found = [cut(s.start, s.end, n, id="d1", start=s.start) for n, s in enumerate(spans)]
    assert counts(indexed(found, relevant, record_passages=(LONG,))) == counts(direct)


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
