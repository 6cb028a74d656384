"""Prompts: what the generator reads is what was counted."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip import config
from ragzip.errors import ConfigError
from ragzip.generators.huggingface import HuggingFace
from ragzip.pipelines import Pipeline
from ragzip.pipelines.prompt import QA, LongForm, Plain, YesNo
from ragzip.protocols import Prompt
from ragzip.tokens import text_of
from ragzip.types import Context, Message, Passage, Query, TextSegment, context_of
from tests.pipelines.parts import PASSAGES

EXAMPLE_TOKENS = 180
"""Most tokens that the default examples add to a prompt of ``qa`` and ``yes_no``, their turns included."""

ANY: tuple[Prompt, ...] = (
    QA(),
    QA(titles=False),
    QA(examples=(), lead="", system=""),
    QA(instruction="", examples=(("{context}", "{query}"),)),
    YesNo(),
    LongForm(),
    Plain(),
    Plain("{query} then {context}", titles=False),
)
queries = st.text(min_size=1, max_size=30).filter(lambda t: t.strip())
passages_ = st.lists(
    st.builds(Passage, st.uuids().map(str), st.text(max_size=30), st.text(max_size=9)), max_size=3
).map(tuple)


def user(messages: tuple[Message[TextSegment], ...]) -> Message[TextSegment]:
    """The last turn of the user: the one that asks."""
    return [m for m in messages if m.role == "user"][-1]


@given(queries, passages_)
def test_the_whole_context_and_the_question_stand_in_the_users_last_turn(
    question: str, passages: tuple[Passage, ...]
) -> None:
    context = context_of(Query(question), passages)
    for prompt in ANY:
        said = str(user(prompt.render(context)))
        assert text_of(context, titles=prompt.titles) in said
        assert question.strip() in said
        assert prompt.render(context) == prompt.render(context)


@given(queries, passages_)
def test_nothing_before_or_after_that_turn_depends_on_context_or_question(
    question: str, passages: tuple[Passage, ...]
) -> None:
    other = context_of(Query("q"), PASSAGES)
    for prompt in ANY:
        turns, fixed = prompt.render(context_of(Query(question), passages)), prompt.render(other)
        asked = turns.index(user(turns))
        assert turns[:asked] == fixed[:asked] or not passages
        assert turns[asked + 1 :] == fixed[asked + 1 :]
        assert all(isinstance(p, str) for i, m in enumerate(turns) if i != asked for p in m.pieces)


@given(passages_)
def test_segments_stay_pieces_of_it_each_once_and_in_order(passages: tuple[Passage, ...]) -> None:
    context = context_of(Query("q"), passages)
    for prompt in ANY:
        pieces = user(prompt.render(context)).pieces
        assert [p for p in pieces if isinstance(p, TextSegment)] == [s for s in context.segments if s.text.strip()]


@pytest.mark.parametrize("prompt", [QA(), YesNo(), LongForm()])
@pytest.mark.parametrize("passages", [PASSAGES, ()])
def test_turns_alternate_and_begin_with_the_users(prompt: Prompt, passages: tuple[Passage, ...]) -> None:
    roles = [m.role for m in prompt.render(context_of(Query("Who?"), passages))]
    assert roles[0] == "system"
    assert roles[1::2] == ["user"] * len(roles[1::2])
    assert roles[2::2] == ["assistant"] * len(roles[2::2])


def test_without_examples_and_lead_there_is_one_plain_turn() -> None:
    context = context_of(Query(" Who? "), PASSAGES)
    prompt = QA(instruction="Answer in brief.\nQuestion:", system="Be kind.", examples=(), lead="")
    laid_out = text_of(context, titles=True)
    assert [(m.role, str(m)) for m in prompt.render(context)] == [
        ("system", "Be kind."),
        ("user", f"Context:\n{laid_out}\n\nAnswer in brief.\nQuestion: Who?"),
    ]
    assert [str(m) for m in prompt.render(context_of(Query("Who?"), ()))] == ["Be kind.", "Who?"]


def test_examples_are_earlier_turns_with_the_lead_that_the_answer_begins_with() -> None:
    prompt = QA("Question:", system="", examples=(("Where is Oslo?", "Norway"),), lead="Answer:")
    turns = [(m.role, str(m)) for m in prompt.render(context_of(Query("Who?"), PASSAGES))]
    assert turns[:2] == [("user", "Question: Where is Oslo?"), ("assistant", "Answer: Norway")]
    assert turns[2][1].endswith("\n\nQuestion: Who?")
    assert turns[3:] == [("assistant", "Answer:")]
    bare = context_of(Query("Who?"), ())
    assert str(dataclasses.replace(prompt, lead="").render(bare)[1]) == "Norway"
    assert str(dataclasses.replace(prompt, lead='It is "').render(bare)[1]) == 'It is "Norway".'


@pytest.mark.parametrize("prompt", [QA(), YesNo()])
def test_closed_book_is_asked_in_the_same_form_as_the_examples(prompt: QA | YesNo) -> None:
    turns = prompt.render(context_of(Query("Who?"), ()))
    asked = [str(m) for m in turns if m.role == "user"]
    assert asked == [f"Question: {q}" for q, _ in (*prompt.examples, ("Who?", ""))]
    assert not any("Context" in str(m) for m in turns)
    assert turns[-1] == Message("assistant", (prompt.lead,))


@pytest.mark.parametrize("prompt", [QA(), YesNo()])
def test_an_example_that_asks_the_very_question_is_left_out(prompt: QA | YesNo) -> None:
    for question, answer in prompt.examples:
        turns = prompt.render(context_of(Query(question.upper() + " "), ()))
        assert len([m for m in turns if m.role == "user"]) == len(prompt.examples)
        shown = [str(m) for m in turns if m.role == "user"][:-1]
        assert f"Question: {question}" not in shown, answer


def test_yes_no_shows_both_answers_and_long_form_shows_none() -> None:
    assert {answer for _, answer in YesNo().examples} == {"yes", "no"}
    assert LongForm().examples == ()
    assert [m.role for m in LongForm().render(context_of(Query("Why?"), PASSAGES))] == ["system", "user"]


def test_braces_in_texts_mean_nothing() -> None:
    context = context_of(Query("{context} {query} {0}"), (Passage("a", "{query}{x}"),))
    (message,) = Plain().render(context)
    assert str(message) == "{query}{x}\n\n{context} {query} {0}"


@pytest.mark.parametrize("template", ["", "{query}", "{context}", "{context}{query}{query}"])
def test_templates_need_both_places_once(template: str) -> None:
    with pytest.raises(ConfigError, match="exactly once"):
        Plain(template)


@pytest.mark.parametrize("examples", [(("a",),), (("a", "b", "c"),), (("a", " "),), ("ab",), ((1, "b"),)])
def test_an_example_is_a_question_and_an_answer(examples: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(ConfigError, match=r"examples\.0"):
        QA(examples=examples)


def test_examples_are_not_without_end() -> None:
    with pytest.raises(ConfigError, match="more than"):
        QA(examples=(("q", "a"),) * 1000)


def test_titles_stand_before_their_passage_once() -> None:
    context = context_of(Query("q"), PASSAGES)
    said = "".join(str(m) for m in QA().render(context))
    assert said.count("Cats\nThe cat") == 1
    assert "Cats\n" not in "".join(str(m) for m in QA(titles=False).render(context))


@pytest.mark.parametrize("prompt", ANY)
def test_a_config_says_the_whole_prompt(prompt: Prompt) -> None:
    assert config.from_config("prompt", config.to_config(prompt)) == prompt
    pipeline = Pipeline(HuggingFace(), prompt=prompt)
    assert Pipeline.from_yaml(pipeline.to_yaml()) == pipeline


def test_another_set_of_examples_is_another_config() -> None:
    prompts = [QA(), QA(examples=()), QA(examples=QA().examples[:2]), QA(lead=""), YesNo(), LongForm()]
    prompts += [QA(examples=(*QA().examples[:2], ("Who?", "he")))]
    said = [Pipeline(HuggingFace(), prompt=prompt).to_yaml() for prompt in prompts]
    assert len(set(said)) == len(said)
    changed = Pipeline.from_yaml(said[0], overrides=["prompt.examples=[]", "prompt.lead=''"])
    assert changed.prompt == QA(examples=(), lead="")


@pytest.mark.models
@pytest.mark.parametrize("prompt", [QA(), YesNo()])
def test_examples_cost_few_tokens(prompt: QA | YesNo) -> None:
    generator = HuggingFace(max_new_tokens=1)
    context: Context[TextSegment] = context_of(Query("Who?"), PASSAGES)
    bare = dataclasses.replace(prompt, examples=())
    shown, without = (made.prompt_tokens for made in generator.generate([p.render(context) for p in (prompt, bare)]))
    assert 0 < shown - without <= EXAMPLE_TOKENS


@pytest.mark.models
def test_the_built_in_model_answers_with_a_few_words() -> None:
    pipeline = Pipeline(HuggingFace(max_new_tokens=32))
    passages = (Passage("a", "The lighthouse of Skarv was built in 1884 by Ida Holm.", "Skarv"),)
    answer = pipeline.answer("Who built the lighthouse of Skarv?", passages=passages)
    assert answer.text == "Ida Holm"
