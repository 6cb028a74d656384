"""Prompts: what the generator reads is what was counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.errors import ConfigError
from ragzip.pipelines.prompt import QA, Plain
from ragzip.tokens import text_of
from ragzip.types import Passage, Query, TextSegment, context_of
from tests.pipelines.parts import PASSAGES

queries = st.text(min_size=1, max_size=30).filter(lambda t: t.strip())


@given(
    queries, st.lists(st.builds(Passage, st.uuids().map(str), st.text(max_size=30), st.text(max_size=9)), max_size=3)
)
def test_the_whole_context_and_the_question_stand_in_the_prompt(question: str, passages: list[Passage]) -> None:
    context = context_of(Query(question), tuple(passages))
    for prompt in (QA(), QA(titles=False), Plain(), Plain("{query} then {context}", titles=False)):
        said = "".join(str(message) for message in prompt.render(context))
        assert text_of(context, titles=prompt.titles) in said
        assert question.strip() in said


def test_segments_stay_pieces() -> None:
    context = context_of(Query("q"), PASSAGES)
    for prompt in (QA(), Plain()):
        pieces = [p for message in prompt.render(context) for p in message.pieces]
        assert [p for p in pieces if isinstance(p, TextSegment)] == list(context.segments)


def test_closed_book_has_no_empty_context() -> None:
    (system, user) = QA().render(context_of(Query("Who?"), ()))
    assert system.role == "system"
    assert "Context" not in str(user)
    assert len(QA(system="").render(context_of(Query("Who?"), ()))) == 1


def test_braces_in_texts_mean_nothing() -> None:
    context = context_of(Query("{context} {query} {0}"), (Passage("a", "{query}{x}"),))
    (message,) = Plain().render(context)
    assert str(message) == "{query}{x}\n\n{context} {query} {0}"


@pytest.mark.parametrize("template", ["", "{query}", "{context}", "{context}{query}{query}"])
def test_templates_need_both_places_once(template: str) -> None:
    with pytest.raises(ConfigError, match="exactly once"):
        Plain(template)


def test_titles_stand_before_their_passage_once() -> None:
    context = context_of(Query("q"), PASSAGES)
    said = "".join(str(m) for m in QA().render(context))
    assert said.count("Cats\nThe cat") == 1
    assert "Cats\n" not in "".join(str(m) for m in QA(titles=False).render(context))
