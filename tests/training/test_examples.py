"""Training sets as marked passages: the right characters, and nothing of a development set."""

from __future__ import annotations

import gzip
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.errors import IngestError, UsageError
from ragzip.evaluation.data import data_dir, open_set
from ragzip.testing.strategies import texts
from ragzip.text import merge, sentences
from ragzip.training.examples import EXTRA, Example, Marked, cut_out, joined, read_examples, with_answer
from tests.training import data
from tests.training.data import TOWNS, town


def read(folder, *names, seed=0, **most):
    return read_examples(names, data=folder, seed=seed, most=most)


def marks(marked):
    return [marked.text[start:end] for start, end in marked.support]


def test_sentences_that_annotators_marked(small_data):
    found = read(small_data, "hotpotqa")
    assert [example.id for example in found] == [f"hotpotqa:h{n}" for n in range(len(TOWNS))]
    example = found[1]
    assert example.question == "Which count founded the town where Borgo Bell was born?"
    assert [(m.title, marks(m), m.relevant, m.known) for m in example.positives] == [
        ("Borgo Bell", ["Borgo Bell was born in Borgo."], True, True),
        ("Borgo", ["It was founded by Count Borgoson."], True, True),
    ]
    assert [(m.title, m.support, m.relevant, m.known) for m in example.negatives] == [
        ("Bread", (), False, True),
        ("Tea", (), False, True),
    ]
    assert example.answers == ("Count Borgoson",)


def test_sentences_that_hold_the_answer(small_data):
    found = read(small_data, "squad")
    assert len(found) == len(TOWNS)
    assert found[0] == Example(
        found[0].id,
        "squad",
        "Who founded Alba?",
        (Marked(town("Alba"), "Alba", ((27, 59),), True),),
        (),
        ("Count Albason",),
    )
    assert marks(found[0].positives[0]) == ["It was founded by Count Albason."]


def test_paragraphs_of_a_development_set_are_left_out(small_data):
    (example,) = read(small_data, "musique")
    assert [(m.title, marks(m), m.known) for m in example.positives] == [
        ("Alba Bell", ["Alba Bell was born in Alba."], True),  # answers the first step
        ("Alba", ["It was founded by Count Albason."], True),
    ]
    assert [m.title for m in example.negatives] == ["Tea"]


def test_the_two_more_files_of_squad(small_data):
    single, more = read(small_data, "squad_sentences"), read(small_data, "squad_paragraphs")
    assert [marks(e.positives[0]) for e in single] == [[f"{name} lies in the north of it."] for name in TOWNS]
    assert [(e.id, e.question, e.answers, marks(e.positives[0])) for e in more] == [
        ("squad_paragraphs:0.0", "What does it cross?", ("river Po",), ["It crosses the river Po."]),
        ("squad_paragraphs:0.1", "What is old?", ("The",), ["The bridge is old."]),
    ]


def test_a_share_is_drawn_with_the_seed_and_keeps_the_order(small_data):
    everything = read(small_data, "squad", "hotpotqa")
    some = read(small_data, "squad", "hotpotqa", squad=5)
    assert [e for e in everything if e in some] == some
    assert [e.set_name for e in some] == ["squad"] * 5 + ["hotpotqa"] * len(TOWNS)
    assert read(small_data, "squad", "hotpotqa", squad=5) == some
    assert any(read(small_data, "squad", squad=5, seed=seed) != some[:5] for seed in range(1, 5))
    assert read(small_data, "squad", squad=500) == everything[: len(TOWNS)]


def test_what_cannot_be_read(tmp_path, small_data, monkeypatch):
    with pytest.raises(UsageError, match="unknown training set 'squid'") as caught:
        read(small_data, "squid")
    assert "squad_sentences" in caught.value.hint
    monkeypatch.setenv("RAGZIP_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="not here"):
        read(None, "squad_sentences")
    with pytest.raises(IngestError, match="cannot be read"):
        read(tmp_path, "squad_sentences")
    path = tmp_path / "squad" / "train-answer-sentences.jsonl.gz"
    data.lines(path, {"question": "?"})
    with pytest.raises(IngestError, match="'squad_sentences' is not in its form"):
        read(tmp_path, "squad_sentences")
    data.lines(path, {"question": "?", "answer_sentence": " ", "question_id": "0"})
    with pytest.raises(IngestError, match="'squad_sentences' holds no example"):
        read(tmp_path, "squad_sentences")
    path.write_bytes(gzip.compress(b'{"question'))
    with pytest.raises(IngestError, match="cannot be read"):
        read(tmp_path, "squad_sentences")


@st.composite
def marked(draw, size=30):
    """A passage of which some sentences help."""
    text = " ".join(draw(st.lists(texts(60), min_size=1, max_size=size)))
    units = sentences(text)
    chosen = draw(st.lists(st.sampled_from(units), max_size=4)) if units else []
    return Marked(text, "T", tuple(merge(chosen)), bool(chosen))


@given(marked(), st.integers(0, 99), st.integers(20, 200))
def test_a_cut_is_a_stretch_of_whole_sentences_with_the_same_marks(given_passage, seed, least):
    most = 2 * least
    cut = cut_out(given_passage, random.Random(seed), least=least, most=most)
    text, units = given_passage.text, sentences(given_passage.text)
    if len(text) <= most:
        assert cut == given_passage
        return
    assert (cut.title, cut.relevant) == (given_passage.title, given_passage.relevant)
    places = [at for at in range(len(text)) if text.startswith(cut.text, at)]
    assert any(all(_same(given_passage, cut, at, i) for i in range(len(cut.text))) for at in places)
    if units:
        assert len(cut.text) <= max(2 * most, max(end - start for start, end in units))
        assert any(start in places for start, _ in units)
    if given_passage.support and cut.known:
        assert cut.support


def _same(whole, cut, at, place):
    inside = any(start <= place < end for start, end in cut.support)
    return inside == any(start <= at + place < end for start, end in whole.support)


def test_what_helps_beyond_the_end_of_a_cut_is_not_called_useless():
    endless = "x" * 5000
    cut = cut_out(Marked(endless, "", ((4000, 5000),), True), random.Random(0))
    assert (cut.support, cut.relevant, cut.known) == ((), True, False)
    blank = Marked(" " * 5000)
    assert cut_out(blank, random.Random(0)) == blank


@given(st.lists(marked(3), min_size=1, max_size=4))
def test_joined_passages_keep_their_marks(units):
    whole = joined(units)
    assert whole.relevant == any(unit.relevant for unit in units)
    wanted = [unit.text[i] for unit in units for a, b in unit.support for i in range(a, b)]
    assert [c for text in marks(whole) for c in text if not c.isspace()] == [c for c in wanted if not c.isspace()]


@given(texts(200), st.lists(st.text(max_size=8), max_size=3))
def test_sentences_with_an_answer(text, answers):
    found = {i for start, end in with_answer(text, answers) for i in range(start, end)}
    for start, end in sentences(text):
        holds = any(len(a) > 3 and a.lower() in text.lower()[start:end] for a in answers)
        assert holds == (start in found)


@pytest.mark.skipif(data_dir() is None, reason="no data folder: set RAGZIP_DATA to run this")
def test_nothing_of_a_development_set_is_trained_on():
    both = ("hotpotqa", "squad", "nq_multidoc", "2wikimultihopqa", "musique")
    found = read_examples((*both, *EXTRA), data=None, seed=0, most={})
    counts = Counter(example.set_name for example in found)
    assert all(
        counts[name] > least
        for name, least in zip((*both, *EXTRA), (490, 11_000, 1_100, 490, 90, 9_000, 3_000), strict=True)
    )
    asked = {_plain(example.question) for example in found}
    held = {_plain(r.question) for name in both for r in open_set(name, split="dev").records}
    assert not asked & held
    dev = {_plain(p.text) for r in open_set("squad", split="dev").records for p in r.passages}
    shown = {_plain(m.text) for example in found for m in (*example.positives, *example.negatives)}
    assert not shown & dev
    long = [text for text in dev if len(text) > 1200]  # such passages are cut
    assert long
    assert not any(text[:400] in other for text in long for other in shown if len(other) > 400)


def _plain(text):
    return " ".join(text.lower().split())
