"""Questions put together from others: two steps, both needed, and nothing of what is held out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from ragzip.evaluation.data import open_set
from ragzip.text import sentences
from ragzip.training.composed import NAME, SOURCES, as_phrase, composed, put, read_composed
from ragzip.training.examples import Example, Marked, plain, read_examples, steps_of_dev
from ragzip.training.negatives import holds, mine

FILM = Marked("The film is long. Ann Bell directed it in Rome.", "The Film", ((18, 47),), True)
ANN = Marked("Ann Bell was born in Alba, by the sea. She is tall.", "Ann Bell", ((0, 38),), True)
LATE = Marked("Ann Bell died in May 1950. Her house is a museum.", "Bell House", ((0, 26),), True)
TOWN = Marked("Alba has 900 houses. It is old.", "Alba", ((0, 20),), True)
WHO = Example("a:1", "squad", "Who directed The Film?", (FILM,), (), ("Ann Bell",))
WHERE = Example("a:2", "squad", "In which town was Ann Bell born?", (ANN,), (), ("Alba",))
WHEN = Example("a:4", "squad", "When did Ann Bell die?", (LATE,), (), ("May 1950",))
HOW = Example("a:3", "squad", "How many houses has Alba?", (TOWN,), (), ("900 houses",))


@pytest.mark.parametrize(
    ("question", "phrase"),
    [
        ("Who directed The Film?", "the person who directed The Film"),
        ("Who was elected in Alba?", "the person who was elected in Alba"),
        ("Who is the mayor of Alba?", "the mayor of Alba"),
        ("What is Alba's oldest bridge called?", "Alba's oldest bridge"),
        ("Who did Ann Bell marry?", "the person that Ann Bell marry"),
        ("Where was Ann Bell born?", "the place of Ann Bell born"),
        ("Where did Ann Bell  die ?", "the place where Ann Bell die"),
        ("In which town did Ann Bell live?", "the town that Ann Bell live in"),
        ("In which town was Ann Bell born?", "the town that Ann Bell born was in"),
        ("What long French film did Ann Bell direct?", "the long French film that Ann Bell direct"),
        ("Which film has won the Golden Bear?", "the film that has won the Golden Bear"),
        ("Which person directed The Film?", "the person that directed The Film"),
        ("What old company owns The Film?", "the old company that owns The Film"),
        ("What river north of Alba?", ""),  # no verb that is known
        ("What films show Alba?", ""),
        ("On what did Ann Bell spend $5?", ""),
        ("How many houses has Alba?", ""),  # a number is named nowhere
        ("Did Ann Bell direct it?", ""),
        ("Where do these people of Alba live?", ""),  # who?
        ("Who directed the film?", ""),  # which?
        ("What is Alba?", ""),
        ("", ""),
        ("?", ""),
        ("Who " + "really " * 30 + "directed The Film?", ""),
    ],
)
def test_a_question_as_a_phrase(question, phrase):
    assert as_phrase(question) == phrase


@pytest.mark.parametrize(
    ("question", "answer", "whole"),
    [
        ("Where was Ann Bell born?", "Ann Bell", "Where was the X born?"),
        ("What is the Nile's length?", "Nile", "What is the X's length?"),
        ("The Nile is how long?", "Nile", "the X is how long?"),
        ("When did Alba and Borgo make peace?", "Alba", "When did the X and Borgo make peace?"),
        ("Who, besides Ann Bell, was born in Alba?", "Ann Bell", "Who, besides the X, was born in Alba?"),
        ("Who lives in Alba?", "Alba", "Who lives in the X?"),
        ("Who plays in New York City?", "New York", ""),  # part of a longer name
        ("Who was Mary Ann Bell?", "Ann Bell", ""),
        ("New Alba is where?", "Alba", ""),
        ("Where is the Élysée Alba?", "Alba", ""),
        ("Who reads The Sunday Times?", "Sunday", ""),
        ("Who was born in Alba-on-Sea?", "Alba", ""),
        ("Where is the University of Alba?", "Alba", ""),
        ("Where is the Bank of the Nile?", "Nile", ""),
        ("How old are the United States of America?", "United States", ""),
        ("Where was U.S. Grant born?", "U.S", ""),
        ("Which French magazine wrote about it?", "French", ""),  # says what kind of magazine
        ("Who is a Greek?", "Greek", ""),
        ("What of the Greek word is kept?", "Greek", ""),
        ("How many Greek are there?", "Greek", ""),
        ("Is Alba larger than Alba was?", "Alba", ""),  # named twice: one would tell the other
        ("Where is Albany?", "Alba", ""),
        ("Where is C++?", "C+", ""),
        ("", "Alba", ""),
    ],
)
def test_a_phrase_in_place_of_a_name(question, answer, whole):
    assert put(question, answer, "the X") == whole


def test_two_and_three_steps():
    found = {one.question: one for one in composed([WHO, WHERE, HOW, WHEN], most=20, seed=0)}
    assert set(found) == {
        "In which town was the person who directed The Film born?",
        "How many houses has the town that Ann Bell born was in?",
        "When did the person who directed The Film die?",
        "How many houses has the town that the person who directed The Film born was in?",
    }
    two = found["In which town was the person who directed The Film born?"]
    assert (two.positives, two.negatives, two.set_name) == ((FILM, ANN), (), NAME)
    assert two.answers == ("Alba", "Ann Bell")  # the last one's first
    three = found["How many houses has the town that the person who directed The Film born was in?"]
    assert {marked.title for marked in three.positives} == {"The Film", "Ann Bell", "Alba"}
    assert three.answers[0] == "900 houses"
    assert set(three.answers) == {"900 houses", "Alba", "Ann Bell"}
    assert len({one.id for one in found.values()}) == 4
    assert {len(one.positives) for one in composed([WHO, WHERE, HOW], most=20, seed=0, rounds=1)} == {2}


@pytest.mark.parametrize(
    ("who", "where"),
    [
        ({"positives": (Marked("Ann Bell of Alba directed it.", "The Film", ((0, 29),), True),)}, {}),  # one would do
        ({"positives": (ANN,)}, {}),
        ({"question": "Who directed The Film of Alba?"}, {}),  # tells the last answer
        ({"answers": ("Ann Bell", "John Smith")}, {}),  # one of two
        ({"answers": ()}, {}),
        ({}, {"answers": ()}),
        ({}, {"positives": (Marked("She was born in Alba, by the sea.", "The Star", ((0, 33),), True),)}),  # who?
        ({}, {"positives": (Marked(ANN.text, ANN.title, (), True, False),)}),  # what helps is not known
        ({}, {"positives": (ANN, TOWN)}),
    ],
)
def test_what_are_not_two_steps_is_not_put_together(who, where):
    assert composed([replace(WHO, **who), replace(WHERE, **where)], most=9, seed=0) == []


def test_an_answer_may_be_given_in_more_or_fewer_words():
    more = replace(WHO, answers=("Ann Bell", "Ann Bell of Rome"))
    assert [one.question for one in composed([more, WHERE], most=9, seed=0)] == [
        "In which town was the person who directed The Film born?"
    ]


@pytest.mark.parametrize("most", [0, 1, 2, 3])
def test_no_more_than_asked_for(most):
    assert len(composed([WHO, WHERE, HOW, WHEN], most=most, seed=0)) == most


def test_no_more_than_a_third_have_three_steps():
    films = [Marked(f"Ann Bell directed Film {i} in Rome.", f"Film {i}", ((0, 20),), True) for i in range(6)]
    first = [replace(WHO, id=f"f:{i}", question=f"Who directed Film {i}?", positives=(m,)) for i, m in enumerate(films)]
    found = composed([*first, WHERE, HOW], most=200, seed=0)
    counts = [len(one.positives) for one in found]
    assert counts.count(3) >= 1
    assert counts.count(3) <= counts.count(2) / 2
    assert len({one.question for one in found}) == len(found)
    assert composed([], most=9, seed=0) == []


@pytest.fixture(scope="module")
def many():
    """Of the real sets: what rules make of made-up questions says little."""
    from ragzip.evaluation.data import data_dir

    if data_dir(None) is None:
        pytest.skip("the data folder is not here: set RAGZIP_DATA")
    return read_examples(("squad", "squadshifts"), data=None, seed=0, most={"squadshifts": 4000})


@pytest.fixture(scope="module")
def some(many):
    """Put together without a look at what is held out or stands in a development set."""
    return composed(many, most=900, seed=0)


def sources(one):
    """The ids of the questions it was made from."""
    return one.id.removeprefix(f"{NAME}:").split("+")


def test_laws_on_real_questions(many, some):
    assert len(some) > 600
    assert some == composed(many, most=900, seed=0)
    assert some != composed(many, most=900, seed=1)
    assert len({one.id for one in some}) == len({one.question for one in some}) == len(some)
    by_id = {example.id: example for example in many}
    uses: Counter[str] = Counter()
    for one in some:
        steps = [by_id[part] for part in sources(one)]
        assert {m.text for m in one.positives} == {m.text for step in steps for m in step.positives}
        assert len({m.text for m in one.positives}) == len(one.positives) == len(steps) in (2, 3)
        assert set(one.answers) == {answer for step in steps for answer in step.answers}
        assert one.answers[: len(steps[-1].answers)] == steps[-1].answers
        assert not holds(one.question.lower(), one.answers)  # of no step is the answer told
        assert not any(holds(m.text.lower(), steps[-1].answers) for m in one.positives[:-1])
        uses.update(sources(one)[:-1])
    assert {len(one.positives) for one in some} == {2, 3}
    assert max(uses.values()) <= 9


def test_no_negative_holds_the_answer_of_a_step(some):
    mined = mine(some[:150], None, wanted=4, seed=0)
    negatives = [(one, marked) for one in mined for marked in one.negatives]
    assert len(negatives) > 400
    assert not [1 for one, marked in negatives if holds(marked.text.lower(), one.answers)]


def test_what_is_held_out_takes_no_part(many, some):
    held = many[::5]
    texts = {marked.text for example in held for marked in example.positives}
    assert texts & {marked.text for one in some for marked in one.positives}  # they would be taken
    found = read_composed(("squad", "squadshifts", "medquad"), held, most=300, data=None, seed=0)
    assert len(found) > 100
    assert not texts & {marked.text for one in found for marked in one.positives}
    assert read_composed(("medquad",), held, most=300, data=None, seed=0) == []
    assert read_composed(("squad",), held, most=0, data=None, seed=0) == []


def test_a_sentence_that_is_held_out_is_in_no_passage(some):
    shown = some[0].positives[0]
    start, end = shown.support[0]
    sentence = shown.text[start:end]
    text = f"{sentence} It is told in two sentences."  # both of which help, as one stretch
    held = Example("h", "squad_sentences", "What of it?", (Marked(text, "", ((0, len(text)),), True),))
    names = ("squad", "squadshifts")
    with_it, without = (
        {m.text for one in read_composed(names, h, most=400, data=None, seed=0) for m in one.positives}
        for h in ([], [held])
    )
    assert any(sentence in text for text in with_it)
    assert not any(sentence in text for text in without)


def test_no_question_of_a_development_set_is_put_together_again(many):
    """MuSiQue is made of some of the same questions: without the check, some of its development set come back."""
    asked, told = steps_of_dev(None)
    assert len(asked) > 100
    assert len(told) > 1000
    found = read_composed(SOURCES, [], most=3000, data=None, seed=0)
    dev = {frozenset(words(record.question)) for record in open_set("musique", data=None, split="dev").records}
    for one in found:
        assert not any(len(own & words(one.question)) >= 0.8 * len(own | words(one.question)) for own in dev)
    for text in {marked.text for one in found for marked in one.positives}:
        assert not told & {plain(text[a:b]) for a, b in sentences(text)}


def words(text):
    return {word.strip(".,?!'\"").lower() for word in text.split()}
