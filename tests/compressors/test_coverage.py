"""The submodular choice of sentences: its objective, its bound, and that lazy is exact."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip.compressors._submodular import Gains, Objective, better_greedy, lazy_greedy
from ragzip.compressors.coverage import Coverage, farthest_groups
from ragzip.compressors.sentence_filter import SentenceFilter
from ragzip.errors import ConfigError
from ragzip.testing import CompressorContract
from ragzip.testing.contracts import count_words
from ragzip.tokens import TokenCounter
from ragzip.types import Context, Passage, Query, TextSegment, context_of
from tests.matrix import bpe_counter

WORDS = TokenCounter(count_words)
shares = st.integers(0, 8).map(lambda number: number / 8)


@st.composite
def problems(draw: st.DrawFn, most: int = 7):
    """How to make an objective, and how many elements it has."""
    n = draw(st.integers(1, most))
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    rows = random.standard_normal((n, 3)) * (random.random((n, 1)) < 0.9)
    if draw(st.booleans()) and n > 1:
        rows[-1] = rows[0]  # two that say the same
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    alike = (rows @ rows.T).clip(0.0, 1.0)
    relevance = random.random(n) ** draw(st.sampled_from([0.5, 1, 6])) * (random.random(n) < 0.9)
    groups = random.integers(0, 3, n)
    weights = (draw(shares), draw(shares), draw(shares))
    return lambda: Objective(relevance, alike, groups, weights), n


def value(make, chosen: Sequence[int]) -> float:
    objective = make()
    for element in chosen:
        objective.add(element)
    return objective.value


def subsets(n: int):
    return itertools.chain.from_iterable(itertools.combinations(range(n), k) for k in range(n + 1))


def plain_greedy(gains: Gains, costs: Sequence[float], budget: float, scaling: float) -> list[int]:
    """Looks at every element at every step."""
    weights = [max(cost, 1e-12) ** scaling for cost in costs]
    left = [e for e in range(len(costs)) if costs[e] <= budget]
    alone = {e: gains.gain(e) for e in left}
    chosen, total = [], 0.0
    while left := [e for e in left if costs[e] <= budget]:
        best = max(left, key=lambda e: (gains.gain(e) / weights[e], -e))
        total += gains.gain(best)
        gains.add(best)
        chosen.append(best)
        left.remove(best)
        budget -= costs[best]
    single = max(alone, key=lambda e: (alone[e], -e), default=-1)
    return [single] if single >= 0 and alone[single] > total else chosen


@settings(max_examples=60)
@given(problems(most=5))
def test_the_objective_is_monotone_and_submodular(problem):
    make, n = problem
    for small in subsets(n):
        for large in subsets(n):
            if not set(small) <= set(large):
                continue
            for element in set(range(n)) - set(large):
                gain_small = value(make, (*small, element)) - value(make, small)
                gain_large = value(make, (*large, element)) - value(make, large)
                assert gain_large >= -1e-12
                assert gain_small >= gain_large - 1e-12


@given(problems(), st.data())
def test_the_value_of_a_set_has_no_order_and_gains_are_its_differences(problem, data):
    make, n = problem
    order = data.draw(st.permutations(range(n)))
    assert math.isclose(value(make, order), value(make, range(n)), abs_tol=1e-12)
    objective = make()
    for element in order:
        before, gain = objective.value, objective.gain(element)
        objective.add(element)
        assert math.isclose(objective.value - before, gain, abs_tol=1e-12)


@given(problems(), st.integers(0, 8))
def test_one_sentence_in_e_of_the_best_set_is_not_lost_when_costs_are_equal(problem, count):
    """At least 1-1/e of the best set of as many."""
    make, n = problem
    chosen = lazy_greedy(make(), [1.0] * n, count)
    best = max(value(make, subset) for subset in subsets(n) if len(subset) <= count)
    assert len(chosen) <= count
    assert value(make, chosen) >= (1 - 1 / math.e) * best - 1e-12


@given(problems(), st.data())
def test_under_a_budget_the_choice_is_within_the_proved_share_of_the_best(problem, data):
    make, n = problem
    costs = data.draw(st.lists(st.integers(1, 12), min_size=n, max_size=n))
    budget = data.draw(st.integers(0, 30))
    chosen = lazy_greedy(make(), costs, budget)
    assert sum(costs[e] for e in chosen) <= budget
    best = max(value(make, s) for s in subsets(n) if sum(costs[e] for e in s) <= budget)
    assert value(make, chosen) >= (1 - 1 / math.sqrt(math.e)) * best - 1e-12


@given(problems(), st.data(), st.sampled_from([0.0, 0.5, 1.0, 3.0]))
def test_the_better_of_two_choices_is_within_that_share_whatever_the_scaling(problem, data, scaling):
    make, n = problem
    costs = data.draw(st.lists(st.integers(1, 12), min_size=n, max_size=n))
    budget = data.draw(st.integers(0, 30))
    chosen = better_greedy(make, costs, budget, scaling=scaling)
    assert sum(costs[e] for e in chosen) <= budget
    best = max(value(make, s) for s in subsets(n) if sum(costs[e] for e in s) <= budget)
    assert value(make, chosen) >= (1 - 1 / math.sqrt(math.e)) * best - 1e-12
    assert value(make, chosen) >= value(make, lazy_greedy(make(), costs, budget, scaling=scaling)) - 1e-12


def test_the_default_scaling_alone_would_miss_many_short_sentences():
    relevance = np.array([10.0, *[0.9] * 100])
    make = lambda: Objective(relevance, np.eye(101), np.arange(101), (1.0, 0.0, 0.0))  # noqa: E731
    costs = [100, *[1] * 100]
    assert lazy_greedy(make(), costs, 100, scaling=0.5) == [0]
    assert len(better_greedy(make, costs, 100, scaling=0.5)) == 100


@settings(max_examples=120)
@given(problems(most=12), st.data(), st.sampled_from([0.0, 0.5, 1.0]))
def test_lazy_is_exactly_greedy(problem, data, scaling):
    make, n = problem
    costs = data.draw(st.lists(st.integers(1, 9), min_size=n, max_size=n))
    budget = data.draw(st.integers(0, 60))
    assert lazy_greedy(make(), costs, budget, scaling=scaling) == plain_greedy(make(), costs, budget, scaling)


def test_without_the_best_single_one_greed_would_lose_it():
    """A short sentence with the better ratio must not keep out a long one that says everything."""
    relevance = np.array([0.02, 1.0])
    make = lambda: Objective(relevance, np.eye(2), np.arange(2), (1.0, 0.0, 0.0))  # noqa: E731
    assert lazy_greedy(make(), [1, 100], 100) == [1]
    assert lazy_greedy(make(), [1, 100], 101) == [0, 1]


@given(problems(), st.data())
def test_what_is_there_from_the_start_is_counted_and_not_chosen(problem, data):
    make, n = problem
    start = data.draw(st.lists(st.integers(0, n - 1), unique=True))
    chosen = lazy_greedy(make(), [1.0] * n, n, start=start)
    assert sorted([*start, *chosen]) == list(range(n)) or len(chosen) == 1


@given(st.integers(0, 30), st.integers(0, 99))
def test_groups_are_a_fifth_and_none_is_empty(n, seed):
    rows = np.random.default_rng(seed).standard_normal((n, 4))
    rows[: n // 3] = rows[:1]
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    group = farthest_groups((rows @ rows.T).clip(0.0, 1.0))
    assert sorted(set(group.tolist())) == list(range(math.ceil(n / 5)))


def kept(context: Context[TextSegment]) -> list[str]:
    return [s.text for s in context.segments]


def test_two_that_say_the_same_count_once():
    same = "Rome is the capital of Italy."
    context = context_of(
        Query("the capital of Rome and an army"),
        (Passage("a", same), Passage("b", same), Passage("c", "The army of Italy is small.")),
    )
    limit = 15
    one_by_one = SentenceFilter(budget=limit).bind(WORDS).compress([context])[0]
    as_a_set = Coverage(budget=limit, relevance=0.0, diversity=0.0).bind(WORDS).compress([context])[0]
    assert kept(one_by_one) == [same, same]
    assert kept(as_a_set) == [same, "The army of Italy is small."]


def test_relevance_alone_with_equal_costs_is_a_sentence_filter():
    text = "Rome is old today. Ships pass at night. Kings of Rome ruled. Dogs bark at night. Rome has a king."
    context = context_of(Query("king of Rome"), (Passage("p", text),))
    for keep in (0.2, 0.4, 0.7):
        first = Coverage(keep=keep, coverage=0.0, diversity=0.0, scaling=0.0).bind(WORDS).compress([context])
        assert first == SentenceFilter(keep=keep).bind(WORDS).compress([context])


def test_a_threshold_alone_is_that_of_a_sentence_filter():
    context = context_of(Query("Rome"), (Passage("p", "Rome is old. Ships pass. Rome has a king."),))
    made = Coverage(threshold=0.3).bind(WORDS).compress([context])
    assert made == SentenceFilter(threshold=0.3).bind(WORDS).compress([context])


HEAD = "As everybody there had always known well"


@pytest.mark.usefixtures("narrow")
def test_long_sentences_are_read_to_their_ends():
    ships, rome = f"{HEAD} ships pass at night in spring.", f"{HEAD} Rome has seven old steep hills."
    context = context_of(Query("seven old steep hills."), (Passage("a", ships), Passage("b", rome)))
    assert kept(Coverage(budget=20).bind(WORDS).compress([context])[0]) == [rome]


@pytest.mark.usefixtures("narrow")
def test_long_sentences_are_alike_by_all_that_they_say():
    ships, rome = f"{HEAD} ships pass at night in spring.", f"{HEAD} Rome has seven old steep hills."
    passages = (Passage("a", ships), Passage("b", ships), Passage("c", rome))
    made = Coverage(budget=28, relevance=0.0, diversity=0.0).bind(WORDS)
    assert kept(made.compress([context_of(Query(""), passages)])[0]) == [ships, rome]


@pytest.mark.usefixtures("narrow")
def test_long_questions_are_read_to_their_ends():
    passages = (Passage("a", "Ships pass at night."), Passage("b", "Rome has seven hills."))
    for asks, answer in (("ships at night", "Ships pass at night."), ("Rome has hills", "Rome has seven hills.")):
        context = context_of(Query(f"{HEAD}. Nobody else ever told us. {asks}"), passages)
        assert kept(Coverage(budget=5).bind(WORDS).compress([context])[0]) == [answer]


@pytest.mark.usefixtures("narrow")
class TestTheLawsWithWindows(CompressorContract):
    """Most sentences are longer than what is read at once."""

    examples = 15

    def make(self):
        return Coverage(budget=25)


def test_five_hundred_sentences_take_a_moment():
    import time

    names = [f"w{i}" for i in range(300)]
    random = np.random.default_rng(0)
    text = " ".join(" ".join(random.choice(names, 8)).capitalize() + "." for _ in range(2500))
    context = context_of(Query("w1 w2 w3"), (Passage("p", text),))
    counter = bpe_counter()
    start = time.process_time()
    after = Coverage(keep=0.25).bind(counter).compress([context])[0]
    assert time.process_time() - start < 10
    assert 0.2 * counter.context(context) <= counter.context(after) <= 0.25 * counter.context(context)


@pytest.mark.parametrize(
    "options",
    [
        {"relevance": -1.0},
        {"coverage": math.nan},
        {"relevance": 0.0, "coverage": 0.0, "diversity": 0.0},
        {"scaling": 9.0},
        {"sharpness": -0.5},
        {"model": ""},
    ],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ConfigError):
        Coverage(**options)
