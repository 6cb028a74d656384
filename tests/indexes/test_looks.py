"""Several looks at the same passages: what was found is read beside the question, and no score ever falls."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip.errors import ModelError
from ragzip.indexes.looks import Read, judge, sentence_means, told
from ragzip.models import load_pruner
from ragzip.models.pruner import Judged
from ragzip.testing.pruners import tiny_pruner
from ragzip.testing.strategies import texts

FILM, ANN, TEA = "Ann Bell directed it. It is long.", "Ann Bell was born in Alba.", "Tea is hot. And it is green."
GIVEN = (
    Read(FILM, "The Film", ((0, 21), (22, 33)), "film"),
    Read(ANN, "Ann Bell", ((0, 26),), "ann"),
    Read(TEA, "", ((0, 28),), "tea"),
)


class Linked:
    """A pruner that knows a passage by a word of the question or of what was found; it notes what it reads."""

    hops = 2

    def __init__(self, **links):
        self.links, self.calls, self.left = links, [], 90

    def room(self, question):
        return self.left if question else 90

    def judge(self, question, given_texts, titles, *, found="", seen=None):
        self.calls.append((found, list(given_texts), list(titles)))
        out = []
        for text in given_texts:
            hit = max(
                (
                    score
                    for word, (score, starts) in self.links.items()
                    if word in (found or question) and text.startswith(starts)
                ),
                default=0.0,
            )
            offsets = np.asarray([(i, i + 1) for i in range(len(text))])
            keep = np.full(len(text), hit, dtype=np.float32)
            keep[21:] *= 0.5
            out.append(Judged(offsets, keep, hit))
        return out


def linked():
    return Linked(Film=(0.9, "Ann Bell directed"), directed=(0.8, "Ann Bell was"), born=(0.7, "Tea"))


def test_the_second_look_reads_what_the_first_one_found():
    model = linked()
    found = judge(model, "Where was the director of the Film born?", GIVEN[:2])
    assert [one.relevance for one in found] == [0.9, 0.8]
    assert model.calls == [
        ("", [FILM, ANN], ["The Film", "Ann Bell"]),
        ("The Film: Ann Bell directed it.", [ANN], ["Ann Bell"]),
    ]


@pytest.mark.parametrize(("hops", "scores"), [(1, [0.9, 0, 0]), (2, [0.9, 0.8, 0]), (3, [0.9, 0.8, 0.7]), (9, None)])
def test_as_many_looks_as_hops(hops, scores):
    model = linked()
    found = judge(model, "Which Film?", GIVEN, hops=hops)
    if scores:
        assert [one.relevance for one in found] == pytest.approx(scores)
        assert len(model.calls) == hops
    said = [told for told, *_ in model.calls]
    assert len(set(said)) == len(said)  # no sentence is followed twice


def test_it_ends_where_nothing_is_found_or_all_of_it_in_one_passage():
    model = Linked(Film=(0.09, "Ann"))
    judge(model, "Which Film?", GIVEN, hops=5)
    assert len(model.calls) == 1
    alone = linked()
    judge(alone, "Which Film?", [dataclasses.replace(one, owner="same") for one in GIVEN], hops=5)
    assert len(alone.calls) == 1
    judge(alone, "Which Film?", [], hops=5)
    assert len(alone.calls) == 2


def test_only_a_sentence_with_a_word_and_some_length_is_followed():
    for text, sentence in (("-" * 30, ""), ("Yes. It is so.", ""), ("Yes. It is really so.", "It is really so.")):
        model = Linked(Q=(0.9, text))
        ends = (0, 4, 5, len(text)) if " " in text else (0, len(text))
        places = tuple(zip(ends[::2], ends[1::2], strict=True))
        judge(model, "Q", [Read(text, "", places, "a"), Read(TEA, "", ((0, 28),), "b")])
        assert [found for found, *_ in model.calls] == ["", *([sentence] if sentence else [])]


def test_a_copy_is_not_read_with_its_own_sentence():
    model = linked()
    copy = dataclasses.replace(GIVEN[0], owner="copy")
    found = judge(model, "Which Film?", [GIVEN[0], copy, GIVEN[1]])
    assert model.calls[1][1] == [ANN]
    assert (found[0].keep == found[1].keep).all()


def test_of_many_passages_those_are_read_again_that_share_words():
    model = linked()
    many = [Read(f"Number {i} is a thing that Bell says.", "", ((0, 20),), str(i)) for i in range(30)]
    given_ = [*many[:15], *GIVEN, *many[15:]]
    found = judge(model, "Which Film?", given_)
    assert [one.relevance for one in found[15:18]] == [0.9, 0.8, 0]
    assert ANN in model.calls[1][1]
    assert len(model.calls[1][1]) == 10  # all of them have a word of it, and it has two
    alone = linked()
    other = [dataclasses.replace(one, text=one.text.replace("Bell", "no one")) for one in many]
    judge(alone, "Film", [dataclasses.replace(GIVEN[0], title=""), *other])
    assert len(alone.calls) == 1  # no other passage has a word of it


def test_a_question_that_leaves_no_room_is_read_once():
    model = linked()
    model.left = 35
    judge(model, "Which Film?", GIVEN, hops=4)
    assert len(model.calls) == 1


def test_a_sentence_is_told_with_the_beginning_of_its_title():
    assert (told("", "It is."), told("Tea", "It is.")) == ("It is.", "Tea: It is.")
    assert told("very " * 50, "It is.").endswith("very : It is.")
    assert len(told("very " * 50, "It is.")) < 90


@given(st.lists(st.floats(0, 1, width=32), max_size=30), st.lists(st.integers(1, 6), min_size=1, max_size=6))
def test_sentence_means_are_those_of_the_tokens_inside(keep, lengths):
    ends = np.cumsum(lengths)
    places = tuple((int(end - length), int(end)) for end, length in zip(ends, lengths, strict=True))
    count = min(len(keep), int(ends[-1]))
    offsets = np.asarray([(i, i + 1) for i in range(count)], dtype=np.int64).reshape(-1, 2)
    scores = sentence_means(places, Judged(offsets, np.asarray(keep[:count], dtype=np.float32), 0.0))
    for (start, end), score in zip(places, scores, strict=True):
        inside = keep[:count][start:end]
        assert score == pytest.approx(sum(inside) / len(inside) if inside else 0.0, abs=1e-6)
    assert len(sentence_means((), Judged(offsets, np.zeros(count, np.float32), 0.0))) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_encoder_path):
    return tiny_pruner(tmp_path_factory.mktemp("looks"), tiny_encoder_path, hops=2)


@settings(max_examples=40)
@given(question=texts(60), given_texts=st.lists(texts(120), min_size=1, max_size=4))
def test_more_looks_lower_no_score(folder, question, given_texts):
    pruner = load_pruner(str(folder), dtype="fp32", device="cpu")
    assert pruner.hops == 2
    given_ = [Read(text, f"t{i}", ((0, len(text)),), str(i)) for i, text in enumerate(given_texts)]
    rows = [judge(pruner, question, given_, hops=hops) for hops in (1, 2, 3)]
    for fewer, more in itertools.pairwise(rows):
        for before, after in zip(fewer, more, strict=True):
            assert (after.keep >= before.keep).all()
            assert after.relevance >= before.relevance
            assert (after.offsets == before.offsets).all()
    assert all((a.keep == b.keep).all() for a, b in zip(rows[1], judge(pruner, question, given_), strict=True))


def test_a_second_look_says_something_new(folder):
    pruner = load_pruner(str(folder), dtype="fp32", device="cpu")
    given_ = [Read(f"The {i} rivers are open and old.", f"t{i}", ((0, 31),), str(i)) for i in range(6)]
    once, twice = (judge(pruner, "which river?", given_, hops=hops) for hops in (1, 2))
    assert any((after.keep > before.keep).any() for before, after in zip(once, twice, strict=True))


def test_what_was_found_takes_only_the_room_that_is_left(folder):
    pruner = load_pruner(str(folder), dtype="fp32", device="cpu")
    rows = []

    def forward(ids, mask, types):
        rows.extend(ids.tolist())
        return ids.float() * 0, ids[:, 0].float() * 0

    noting = dataclasses.replace(pruner, _forward=forward)
    most = pruner.max_tokens // 3
    noting.judge("the fox", ["text"], [""], found="word " * 500)
    head = len(noting._text.encode(["the fox"])[0])
    (row,) = rows
    assert 1 + most + 1 < len(row) < pruner.max_tokens
    assert len(row) > head + most - 5
    assert noting.room("the fox") == most - head
    assert noting.room("fox " * 500) == 0
    rows.clear()
    noting.judge("fox " * 500, ["text"], [""], found="word")
    with_found = list(rows)
    rows.clear()
    noting.judge("fox " * 500, ["text"], [""])
    assert rows == with_found  # no room at all


@pytest.mark.parametrize("hops", [0, -1, "2", 1.5, True, None])
def test_a_config_with_wrong_hops_is_refused(tmp_path, tiny_encoder_path, hops):
    with pytest.raises(ModelError, match="hops"):
        load_pruner(str(tiny_pruner(tmp_path, tiny_encoder_path, hops=hops)), dtype="fp32", device="cpu")
