"""Hard negatives come close to the question, and help nobody who asks it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip.training.encoders import hold_out
from ragzip.training.examples import Example, Marked, read_examples
from ragzip.training.negatives import holds, mine
from tests.matrix import HashedWords
from tests.training.data import TOWNS


class Words(HashedWords):
    """Counts what it encodes."""

    def __init__(self):
        self.seen = []

    def encode(self, texts, on_progress=None, **_):
        self.seen += texts
        if on_progress:
            on_progress(len(texts), len(texts))
        return super().encode(texts)


def mined(examples, wanted=3, seed=0):
    return mine(examples, Words(), wanted=wanted, seed=seed)


SENTENCES = [
    f"{name} is a place of {number} people and more." for name in ("Alba", "Borgo", "Cella") for number in range(4)
]


@st.composite
def collections(draw):
    """Examples over few passages, so that one's help is another's negative, in several cuts."""
    found = []
    for number in range(draw(st.integers(1, 12))):
        units = draw(st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=3, unique=True))
        text = " ".join(units)
        place = text.index(units[-1])
        known = draw(st.booleans())
        support = ((place, place + len(units[-1])),) if known else ()
        positive = Marked(text, draw(st.sampled_from(["", "T"])), support, True, known)
        others = tuple(Marked(s) for s in draw(st.lists(st.sampled_from(SENTENCES), max_size=2)) if s not in text)
        answers = tuple(draw(st.lists(st.sampled_from(["Borgo", "3", "yes", "place of 2"]), max_size=2)))
        name = draw(st.sampled_from(["one", "two"]))
        found.append(Example(f"{number}", name, f"question {units[-1]}", (positive,), others, answers))
    return found


@settings(max_examples=60)
@given(collections(), st.integers(1, 4), st.integers(0, 3))
def test_no_negative_helps_or_holds_an_answer(examples, wanted, seed):
    found = mined(examples, wanted, seed)
    assert sorted(e.id for e in found) == sorted(e.id for e in examples)
    given_examples = {e.id: e for e in examples}
    for example in found:
        before = given_examples[example.id]
        assert example.positives == before.positives
        assert example.negatives[: len(before.negatives)] == before.negatives
        new = example.negatives[len(before.negatives) :]
        assert len(new) <= max(wanted - len(before.negatives), 0)
        assert len({m.text for m in new}) == len(new)
        assert not {m.text for m in new} & {m.text for m in (*before.positives, *before.negatives)}
        pool = {m.text for e in examples if e.set_name == example.set_name for m in (*e.positives, *e.negatives)}
        for marked in new:
            assert marked.text in pool
            assert (marked.support, marked.relevant, marked.known) == ((), False, True)
            low = marked.text.lower()
            for positive in before.positives:
                parts = [positive.text[a:b] for a, b in positive.support] or re.split(r"(?<=\.) ", positive.text)
                assert not any(part.lower() in low for part in parts)
            assert "borgo" not in low or "Borgo" not in before.answers
            assert not re.search(r"\b3\b", low) or "3" not in before.answers
    assert mined(examples, wanted, seed) == found


@pytest.mark.parametrize(
    ("text", "answers", "held"),
    [
        ("in 1912 it sank", ["1912"], True),
        ("room 12 is here", ["12"], True),
        ("room 112 is here", ["12"], False),
        ("there is no room", ["no"], False),
        ("yes, there is", ["yes", ""], False),
        ("the city of ur.", ["Ur"], True),
        ("pour it out", ["Ur"], False),
        ("count albason", ["Count Albason"], True),
    ],
)
def test_what_holds_an_answer(text, answers, held):
    assert holds(text, answers) is held


def test_passages_that_come_closest_are_taken(small_data):
    examples = read_examples(["squad"], data=small_data, seed=0, most={})
    found = mined(examples, wanted=4)
    assert all(len(e.negatives) == 4 for e in found)
    assert all(TOWNS[i] not in m.text for i, e in enumerate(found) for m in e.negatives)


def test_sets_with_enough_of_their_own_are_not_encoded(small_data):
    examples = read_examples(["hotpotqa"], data=small_data, seed=0, most={})
    words, told = Words(), []
    assert mine(examples, words, wanted=2, seed=0) == examples
    assert words.seen == []
    mine(examples, words, wanted=3, seed=0, on_progress=lambda *progress: told.append(progress))
    assert len(words.seen) == len(set(words.seen))
    assert told


def test_single_sentences_stand_among_close_ones(small_data):
    examples = read_examples(["squad_sentences"], data=small_data, seed=0, most={})
    single = {e.positives[0].text for e in examples}
    found = mined(examples, wanted=1)
    for before, after in zip(examples, found, strict=True):
        (positive,) = after.positives
        own = before.positives[0].text
        assert [positive.text[a:b] for a, b in positive.support] == [own]
        for marked in (positive, *after.negatives):
            parts = re.split(r"(?<=it\.) ", marked.text)
            assert set(parts) <= single
            assert len(set(parts)) == len(parts) >= 3
            assert (own in parts) == marked.relevant
        assert not set(re.split(r"(?<=it\.) ", positive.text)) & {
            part for m in after.negatives for part in re.split(r"(?<=it\.) ", m.text)
        }
    assert any(e.negatives for e in found)


@settings(max_examples=60)
@given(collections(), st.integers(0, 8), st.integers(0, 3))
def test_what_helps_a_held_out_question_is_in_no_other_example(examples, count, seed):
    held, kept = hold_out(examples, count, seed)
    assert len(held) == min(count, len(examples))
    assert not {e.id for e in held} & {e.id for e in kept}
    texts = [(e.set_name, m) for e in held for m in e.positives]
    for example in kept:
        (before,) = [e for e in examples if e.id == example.id]
        assert example.positives == before.positives
        assert set(example.negatives) <= set(before.negatives)
        for marked in (*example.positives, *example.negatives):
            for name, other in texts:
                assert marked.text != other.text
                if name == example.set_name and marked.title == other.title:
                    assert marked.text not in other.text
                    assert other.text not in marked.text
    helping = {m.text[a:b] for e in held for m in e.positives if m.known for a, b in m.support}
    for example in kept:
        assert example.question not in {e.question for e in held}
        assert not helping & {m.text[a:b] for m in example.positives if m.known for a, b in m.support}
    taken = {m.text for _, m in texts}
    alone = [e for e in examples if e not in held and not _near(e, taken)]
    assert {e.id for e in alone} <= {e.id for e in kept}
    assert hold_out(examples, count, seed) == (held, kept)


def _near(example, texts):
    """Whether a passage that helps shares a sentence with one of these."""
    return any(s in m.text and any(s in text for text in texts) for m in example.positives for s in SENTENCES)


def test_a_question_that_two_sets_ask_is_held_out_of_both():
    """With another id, other white space, and without the passage."""
    answer = "It was founded by Count Borgoson in 1203."
    whole = Marked(f"Borgo is a town by the sea. {answer} Many like it.", "Borgo", ((28, 28 + len(answer)),), True)
    examples = [
        Example("a", "squad", "Who founded Borgo?", (whole,)),
        Example("b", "squad_sentences", "Who founded  borgo?", (Marked(answer, "", ((0, len(answer)),), True),)),
        Example("c", "squad_sentences", "What did the Count found?", (Marked(answer, "", ((0, len(answer)),), True),)),
        Example(
            "d",
            "squad",
            "What is a harbour?",
            (
                Marked(
                    "A harbour is for ships. They rest there.",
                ),
            ),
        ),
    ]
    for seed in range(6):
        held, kept = hold_out(examples, 1, seed)
        alone = held[0].id == "d"
        assert {e.id for e in kept} == ({"a", "b", "c"} if alone else {"d"})


def test_cuts_of_one_passage_are_held_out_together():
    text = " ".join(f"This is sentence number {n} of a long paragraph about it." for n in range(40))
    cuts = [Marked(text[start : start + 1000], "Same", ((0, 50),), True) for start in (0, 56, 560)]
    far = Marked(text[-400:], "Same", ((0, 50),), True)
    examples = [Example(str(n), "squad", "?", (cut,)) for n, cut in enumerate((*cuts, far))]
    held, kept = hold_out(examples[:3], 1, seed=0)
    assert len(held) == 1
    assert len(kept) < 2
    assert np.isin([e.id for e in kept], ["0", "1", "2"]).all()
