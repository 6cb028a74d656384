"""Questions asked again after a sentence: what helped before and is known now helps no more."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace

import pytest

from ragzip.training.examples import Example, Marked, read_examples
from ragzip.training.second_looks import second_looks

FILM = Marked("The film is long and slow. Ann Bell directed it in Rome.", "The Film", ((27, 56),), True)
ANN = Marked("Ann Bell was born in Alba, by the sea. She is tall.", "Ann Bell", ((0, 38),), True)
TEA = Marked("Tea comes from China and from India.", "Tea")
TWO = Example("two", "hotpotqa", "Where was the director of The Film born?", (FILM, ANN), (TEA,), ("Alba",))
ONE = Example("one", "squad", "Who directed The Film?", (FILM,), (TEA,), ("Ann Bell",))


def of(examples, share=1.0):
    """Over many draws."""
    return [one for seed in range(60) for one in second_looks(examples, share=share, seed=seed)]


def test_each_passage_that_helps_leads_to_the_others():
    asked = {(one.question, one.positives) for one in of([TWO])}
    assert asked == {
        (f"{TWO.question} The Film: Ann Bell directed it in Rome.", (ANN,)),
        (f"{TWO.question} Ann Bell: Ann Bell was born in Alba, by the sea.", (FILM,)),
        (f"{TWO.question} Tea: Tea comes from China and from India.", (FILM, ANN)),  # astray: all is to be found yet
    }
    for one in of([TWO]):
        assert all(passage.text not in one.question for passage in (*one.positives, *one.negatives))


def test_nothing_helps_a_question_whose_only_passage_is_known():
    assert {(one.question, one.positives, one.negatives) for one in of([ONE])} == {
        (f"{ONE.question} The Film: Ann Bell directed it in Rome.", (), (TEA,))
    }
    assert of([ONE], share=0.0) == []
    assert 0 < len(of([ONE], share=0.5)) < 60


def test_only_sentences_that_are_known_to_help_are_followed():
    unknown = Marked(FILM.text, FILM.title, (), True, False)
    assert of([Example("u", "musique", "Who?", (unknown,), (TEA,))]) == []
    assert {one.positives for one in of([Example("u", "musique", "Who?", (unknown, ANN), ())])} == {(unknown,)}
    short = Marked("It is.", "", ((0, 6),), True)
    assert of([Example("s", "squad", "Who?", (short,), (TEA,))]) == []


def test_the_same_seed_asks_the_same(small_data):
    found = read_examples(("hotpotqa", "squad", "squad_sentences"), data=small_data, seed=0, most={})
    assert second_looks(found, share=0.5, seed=3) == second_looks(found, share=0.5, seed=3)
    assert second_looks(found, share=0.5, seed=3) != second_looks(found, share=0.5, seed=4)
    untitled = replace(TWO, positives=tuple(replace(m, title="") for m in TWO.positives))
    for seed in range(20):
        ids = [one.id for one in second_looks([*found, untitled], share=0.5, seed=seed)]
        assert len(set(ids)) == len(ids)
        assert sum("Tea" in one.question for one in second_looks([TWO], share=0.5, seed=seed)) <= 1  # astray once


def test_steps_of_musique_mark_what_they_answer(small_data):
    (one,) = read_examples(("musique",), data=small_data, seed=0, most={})
    marks = {m.title: [m.text[start:end] for start, end in m.support] for m in one.positives}
    assert marks["Alba Bell"] == ["Alba Bell was born in Alba."]
    assert marks["Alba"] == ["It was founded by Count Albason."]
    assert all(m.known for m in one.positives)


def test_musique_without_steps_or_with_odd_ones_is_read_as_well(small_data, tmp_path):
    shutil.copytree(small_data, tmp_path, dirs_exist_ok=True)
    packed = tmp_path / "musique" / "train.jsonl.gz"
    row = json.loads(gzip.decompress(packed.read_bytes()))
    for steps in (None, [], [{"answer": "Alba", "paragraph_support_idx": None}], [{"paragraph_support_idx": 0}]):
        packed.with_suffix("").write_text(json.dumps({**row, "question_decomposition": steps}) + "\n")
        packed.unlink(missing_ok=True)
        (one,) = read_examples(("musique",), data=tmp_path, seed=0, most={})
        assert {m.title: m.known for m in one.positives} == {"Alba Bell": False, "Alba": True}  # by the answer alone


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_no_examples_give_none(share):
    assert second_looks([], share=share, seed=0) == []
