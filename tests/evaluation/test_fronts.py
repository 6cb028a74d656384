import math
import random

from hypothesis import assume, given
from hypothesis import strategies as st

from ragzip.evaluation.fronts import fronts, pareto
from tests.evaluation.fakes import run_of

value = st.one_of(st.integers(0, 6).map(float), st.floats(0, 10))
clouds = st.dictionaries(st.text(min_size=1, max_size=3), st.tuples(value, value), max_size=14)


def dominates(one, other):
    return one[0] <= other[0] and one[1] >= other[1] and one != other


@given(clouds)
def test_the_front_is_what_nothing_dominates(points):
    front = pareto(points)
    assert len(set(front)) == len(front)
    for name, point in points.items():
        beaten = [other for other in points if dominates(points[other], point)]
        assert (name in front) == (not beaten)
        if beaten:
            assert any(dominates(points[other], point) for other in front)


@given(clouds)
def test_it_is_cheapest_first_and_better_the_dearer(points):
    front = [points[name] for name in pareto(points)]
    assert front == sorted(front)


@given(clouds, st.randoms())
def test_order_does_not_matter(points, rng: random.Random):
    names = list(points)
    rng.shuffle(names)
    assert pareto({name: points[name] for name in names}) == pareto(points)


@given(clouds.filter(bool), st.floats(0, 3), st.floats(0, 3), st.data())
def test_a_dominated_point_changes_nothing(points, dearer, worse, data):
    cost, quality = points[data.draw(st.sampled_from(sorted(points)))]
    added = (cost + dearer, quality - worse)
    assume(dominates((cost, quality), added))
    assert pareto({**points, "longer name": added}) == pareto(points)


def test_equal_points_stand_together():
    assert pareto({"b": (1.0, 0.5), "a": (1.0, 0.5), "c": (2.0, 0.5)}) == ["a", "b"]


def test_what_is_not_finite_is_nowhere():
    assert pareto({"a": (1.0, 0.5), "b": (math.nan, 0.9), "c": (0.5, math.nan), "d": (math.inf, 1.0)}) == ["a"]


def rows():
    return {
        "no_compression": {"em": [1, 1, 0], "tokens_out": [100] * 3, "ttft": [1.0] * 3},
        "closed_book": {"em": [0, 0, 0], "tokens_out": [0] * 3, "ttft": [0.1] * 3},
        "oracle_sentences@50": {"em": [1, 1, 1], "tokens_out": [20] * 3, "ttft": [0.2] * 3},
        "good": {"em": [1, 1, 0], "tokens_out": [50] * 3, "ttft": [2.0] * 3},
        "bad": {"em": [0, 0, 0], "tokens_out": [60] * 3, "ttft": [1.5] * 3},
    }


def test_fronts_of_a_run():
    kinds = {name: {"kind": "baseline"} for name in ("no_compression", "closed_book", "oracle_sentences@50")}
    found = fronts(run_of(rows(), settings=kinds))
    assert found == {"em": {"tokens_out": ["closed_book", "good"], "ttft": ["closed_book", "no_compression"]}}


def test_a_pipeline_of_ones_own_is_no_oracle_by_its_name():
    found = fronts(run_of(rows()))
    assert found["em"]["tokens_out"] == ["closed_book", "oracle_sentences@50"]


def test_only_what_was_measured():
    assert fronts(run_of({"p": {"em": [1], "tokens_out": [5]}})) == {"em": {"tokens_out": ["p"]}}
    assert fronts(run_of({"p": {"em": [None], "tokens_out": [5]}})) == {}
    assert fronts(run_of(rows()), metrics=["em"], costs=["ttft"]).keys() == {"em"}


def failing(run, name, count):
    """``run`` in which the row fails on the last questions."""
    for line in run.lines[name][-count:]:
        line.update(error="out of memory", metrics=dict.fromkeys(line["metrics"]))
    return run


def three(n=10):
    return run_of(
        {
            "no_compression": {"em": [1] * n, "tokens_out": [*[100] * 6, *[900] * 4]},
            "half": {"em": [1] * n, "tokens_out": [*[80] * 6, *[700] * 4]},
            "tenth": {"em": [1] * 6 + [0] * 4, "tokens_out": [10] * n},
        }
    )


def test_failures_count_as_the_worst():
    assert fronts(three())["em"]["tokens_out"] == ["tenth", "half"]
    # right on all six that it answered, and cheap on them: no better than one that gets four wrong
    assert fronts(failing(three(), "half", 4))["em"]["tokens_out"] == ["tenth", "no_compression"]


def test_costs_are_compared_on_the_same_questions():
    # failing on the long ones makes nothing cheap
    found = fronts(failing(three(), "no_compression", 4))["em"]["tokens_out"]
    assert found == ["tenth", "half"]
    run = run_of({"a": {"em": [1] * 10, "ttft": [*[1.0] * 6, *[9.0] * 4]}, "b": {"em": [1] * 10, "ttft": [2.0] * 10}})
    assert fronts(run)["em"]["ttft"] == ["b"]
    assert fronts(failing(run, "b", 4))["em"]["ttft"] == ["a"], "on the six that both answered a is the faster"


def test_what_fails_on_most_questions_is_nowhere():
    run = failing(three(), "tenth", 6)
    assert fronts(run)["em"]["tokens_out"] == ["half"]
    assert fronts(failing(run, "half", 10))["em"]["tokens_out"] == ["no_compression"]
