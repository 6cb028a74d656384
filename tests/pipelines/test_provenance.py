"""Citations and highlights."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ragzip.pipelines.provenance import cite, highlight, kept_spans
from ragzip.types import Context, Passage, Query, Span, TextSegment, context_of
from tests.pipelines.parts import PASSAGES

QUERY = Query("Where did the cat sit?")


def test_the_supporting_sentence_is_cited() -> None:
    (citation,) = cite("The cat sat on the mat.", context_of(QUERY, PASSAGES))
    assert (citation.passage_id, citation.source) == ("a", "cats.md")
    assert citation.text == "The cat sat on the mat."
    assert PASSAGES[0].text[citation.start : citation.end] == citation.text


def test_an_answer_from_two_sentences_cites_both() -> None:
    found = cite("The mat, and dogs that bark at night.", context_of(QUERY, PASSAGES))
    assert {c.passage_id for c in found} == {"a", "b"}


def test_an_unsupported_answer_has_no_citation() -> None:
    assert cite("Quantum chromodynamics.", context_of(QUERY, PASSAGES)) == ()
    assert cite("", context_of(QUERY, PASSAGES)) == ()
    assert cite("The cat.", Context(QUERY, ())) == ()


def test_of_passages_with_one_id_the_first_counts() -> None:
    same = (Passage("a", "The first one is long enough."), Passage("a", "Short."))
    context = Context(Query("?"), (TextSegment(same[0].text, (Span("a", 0, len(same[0].text)),)),), same)
    assert kept_spans(context) == {"a": [(0, len(same[0].text))]}


def test_only_what_the_generator_read_is_cited() -> None:
    kept = TextSegment("It was a black cat.", (Span("a", 24, 43),))
    (citation,) = cite("A black cat.", Context(QUERY, (kept,), PASSAGES))
    assert citation.text == "It was a black cat."
    assert cite("The cat sat on the mat.", Context(QUERY, (kept,), PASSAGES)) == ()  # one shared word is no support


@st.composite
def contexts(draw: st.DrawFn) -> Context[TextSegment]:
    texts = draw(st.lists(st.text(max_size=40), max_size=4))
    passages = tuple(Passage(str(i), text) for i, text in enumerate(texts))
    segments = []
    for passage in passages:
        for _ in range(draw(st.integers(0, 3))):
            ends = sorted(draw(st.tuples(*[st.integers(0, len(passage.text))] * 2)))
            segments.append(TextSegment(passage.text[ends[0] : ends[1]], (Span(passage.id, *ends),)))
    return Context(Query("q"), tuple(segments), passages)


@given(contexts())
def test_stretches_join_to_the_passage_and_tell_the_truth(context: Context[TextSegment]) -> None:
    for passage, stretches in highlight(context):
        assert "".join(s.text for s in stretches) == passage.text
        marks = [s.kept for s in stretches for _ in s.text]
        inside = [
            any(sp.start <= i < sp.end for s in context.segments for sp in s.sources if sp.passage_id == passage.id)
            for i in range(len(passage.text))
        ]
        assert marks == inside


@given(contexts(), st.text(max_size=60))
def test_citations_are_true_of_any_text(context: Context[TextSegment], answer: str) -> None:
    kept = kept_spans(context)
    for citation in cite(answer, context):
        assert context.passage(citation.passage_id).text[citation.start : citation.end] == citation.text
        assert any(a <= citation.start and citation.end <= b for a, b in kept[citation.passage_id])
