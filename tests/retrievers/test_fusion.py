"""Fusion by weighted ranks and by normalised scores, against plain arithmetic and by the laws it promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ragzip.config import from_config, to_config
from ragzip.errors import ConfigError
from ragzip.retrievers import BM25, Dense, Fusion
from ragzip.types import Passage, Query


class Scored:
    """Gives one list for every question: ids with their scores, as they come."""

    def __init__(self, found: dict[str, float | None]) -> None:
        self.found, self.asked = found, 0

    def retrieve(self, queries, *, top_k=None):
        self.asked += 1
        return [[Passage(i, f"text {i}", score=s) for i, s in list(self.found.items())[:top_k]] for _ in queries]


def ranked(pairs) -> dict[str, float]:
    return dict(sorted(pairs, key=lambda pair: -pair[1]))


SCORES = st.floats(-50, 50).map(lambda x: round(x, 2)) | st.sampled_from([0.0, 1.0])
LISTS = st.dictionaries(st.sampled_from("abcdefgh"), SCORES, max_size=8).map(lambda found: ranked(found.items()))
WEIGHTS = st.floats(0.1, 9).map(lambda x: round(x, 2))
BY_SCORE = st.sampled_from(["minmax", "zscore"])
EVERY = st.sampled_from(["rank", "minmax", "zscore"])


def fused(lists, **options) -> dict[str, float]:
    (got,) = Fusion(tuple(map(Scored, lists)), **options).retrieve([Query("q")])
    scores = [passage.score for passage in got]
    assert scores == sorted(scores, reverse=True)
    assert all(math.isfinite(score) for score in scores)
    return {passage.id: passage.score for passage in got}


def plain(found: dict[str, float], how: str) -> tuple[dict[str, float], float]:
    """What a list's passages are worth, and others: the same once more, with numpy."""
    values = np.array(list(found.values()))
    if how == "rank":
        return {i: 1 / (60 + place) for place, i in enumerate(found, 1)}, 0.0
    if len(values) == 0 or np.ptp(values) == 0:
        return dict.fromkeys(found, 1.0), 0.0
    scaled = (values - values.min()) / np.ptp(values) if how == "minmax" else (values - values.mean()) / values.std()
    return dict(zip(found, scaled, strict=True)), float(scaled.min())


@given(st.lists(st.tuples(LISTS, WEIGHTS), min_size=1, max_size=4), EVERY)
def test_weighted_sums_of_what_passages_are_worth(given_lists, how):
    lists, weights = [found for found, _ in given_lists], tuple(weight for _, weight in given_lists)
    worths = [plain(found, how) for found in lists]
    expected = {
        i: sum(weight * worth.get(i, missing) for weight, (worth, missing) in zip(weights, worths, strict=True))
        for found in lists
        for i in found
    }
    got = fused(lists, weights=weights, normalize=how)
    assert got == {i: pytest.approx(score, abs=1e-9) for i, score in expected.items()}


@given(st.lists(LISTS, min_size=1, max_size=4))
def test_without_options_it_is_reciprocal_rank_fusion_to_the_bit(lists):
    expected: dict[str, float] = {}
    for found in lists:
        for rank, i in enumerate(found, start=1):
            expected[i] = expected.get(i, 0.0) + 1 / (60 + rank)
    wanted = sorted(expected.items(), key=lambda pair: -pair[1])
    assert list(fused(lists).items()) == wanted
    assert list(fused(lists, weights=(1,) * len(lists)).items()) == wanted


@given(LISTS, LISTS, st.floats(0.01, 100), st.floats(-1000, 1000), WEIGHTS, BY_SCORE)
def test_scales_of_scores_do_not_matter(one, other, scale, shift, weight, how):
    moved = {i: scale * score + shift for i, score in other.items()}
    assume(len(set(moved.values())) == len(set(other.values())))  # rounding must not make scores equal
    options = {"weights": (1.0, weight), "normalize": how}
    assert fused([one, moved], **options) == pytest.approx(fused([one, other], **options), abs=1e-6)


@given(LISTS, LISTS, EVERY, st.booleans())
def test_a_weight_of_zero_leaves_the_other_list(one, other, how, first):
    lists, weights = ([one, other], (1, 0)) if first else ([other, one], (0.0, 2.5))
    retrievers = tuple(map(Scored, lists))
    (got,) = Fusion(retrievers, weights=weights, normalize=how).retrieve([Query("q")])
    assert [passage.id for passage in got] == list(one)
    assert [r.asked for r in retrievers] == [int(weight > 0) for weight in weights]


@given(st.lists(LISTS, min_size=2, max_size=4), WEIGHTS, EVERY)
def test_only_the_proportions_of_weights_matter(lists, factor, how):
    weights = tuple(float(number + 1) for number in range(len(lists)))
    one = fused(lists, weights=weights, normalize=how)
    other = fused(lists, weights=tuple(factor * weight for weight in weights), normalize=how)
    assert {i: factor * score for i, score in one.items()} == pytest.approx(other)


@given(LISTS, LISTS, EVERY)
def test_more_weight_never_hurts_the_best_of_a_list(one, other, how):
    assume(one and list(one.values()).count(max(one.values())) == 1)
    best = next(iter(one))

    def place(weight: float) -> int:
        got = fused([one, other], weights=(weight, 1.0), normalize=how)
        return sum(score > got[best] + 1e-9 for score in got.values())

    assert place(1.0) >= place(3.0) >= place(1000.0) == 0


@given(BY_SCORE, st.floats(-1e308, 1e308))
def test_one_passage_and_equal_scores_count_as_found(how, score):
    assert fused([{"a": score}], normalize=how) == {"a": 1.0}
    assert fused([{"a": score, "b": score}, {"c": 1.0}], normalize=how) == {"a": 1.0, "b": 1.0, "c": 1.0}
    assert fused([{}, {"a": 2.0, "b": 1.0}], normalize=how)["a"] > 0
    assert fused([{}, {}], normalize=how) == {}


@pytest.mark.parametrize("how", ["minmax", "zscore"])
def test_huge_and_tiny_differences(how):
    assert list(fused([{"a": 1.7e308, "b": 0.0, "c": -1.7e308}], normalize=how)) == ["a", "b", "c"]
    assert list(fused([{"a": 5e-324, "b": 0.0}], normalize=how)) == ["a", "b"]


def test_a_score_can_decide_what_ranks_cannot():
    words, meaning = {"a": 30.0, "b": 3.0, "c": 2.0}, {"b": 0.8, "c": 0.79, "a": 0.78}
    assert next(iter(fused([words, meaning], weights=(0.6, 0.4), normalize="minmax"))) == "a"
    assert next(iter(fused([words, meaning]))) == "b"


@pytest.mark.parametrize("how", ["minmax", "zscore"])
@pytest.mark.parametrize("score", [None, math.nan, math.inf])
def test_scores_that_are_none(how, score):
    with pytest.raises(ConfigError, match=r"scored gives .*'a'.*normalize: rank"):
        fused([{"b": 1.0}, {"a": score}], normalize=how)
    assert list(fused([{"b": 1.0}, {"a": score}])) == ["b", "a"]


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"weights": (1.0,)}, "weights"),
        ({"weights": (1.0, 2.0, 3.0)}, "weights"),
        ({"weights": [1.0, 1.0]}, "weights"),
        ({"weights": (0.0, 0)}, "weights"),
        ({"weights": (1.0, -0.5)}, "weights.1"),
        ({"weights": (math.nan, 1.0)}, "weights.0"),
        ({"weights": (1.0, math.inf)}, "weights.1"),
        ({"weights": (True, 1.0)}, "weights.0"),
        ({"weights": ("1", 1.0)}, "weights.0"),
        ({"normalize": "softmax"}, "normalize"),
    ],
)
def test_options_that_cannot_be(options, path):
    with pytest.raises(ConfigError) as error:
        Fusion((BM25("kb"), Dense("kb")), **options)
    assert error.value.path == path


def test_config_round_trip():
    made = Fusion((BM25("kb"), Dense("kb")), weights=(0.3, 0.7), normalize="minmax")
    assert from_config("retriever", to_config(made)) == made


@given(
    st.lists(st.lists(st.tuples(st.sampled_from(["a", "a (2)", "b"]), st.sampled_from("xyz")), max_size=5), max_size=3)
)
def test_no_passage_is_lost_to_one_of_the_same_id(lists):
    """Two indexes of folders that have files of the same names."""

    class Fixed:
        def __init__(self, found):
            self.found = found

        def retrieve(self, queries, *, top_k=None):
            return [self.found[:top_k] for _ in queries]

    given_lists = [[Passage(i, text, score=1.0) for i, text in found] for found in lists]
    (got,) = Fusion((*map(Fixed, given_lists), Fixed([]))).retrieve([Query("q")])
    assert len({passage.id for passage in got}) == len(got)
    distinct = {(passage.id, passage.text) for found in given_lists for passage in found}
    assert len(got) == len(distinct)
    assert sorted(passage.text for passage in got) == sorted(text for _, text in distinct)
    first = dict(reversed([(passage.id, passage.text) for found in given_lists for passage in found]))
    assert {passage.id: passage.text for passage in got}.items() >= first.items()  # who came first keeps the name
