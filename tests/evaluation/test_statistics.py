from __future__ import annotations

import math
import time
import tracemalloc

import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ragzip.evaluation.statistics import (
    Interval,
    _student_quantile,
    holm,
    mean_interval,
    paired,
    ratio_interval,
    sign_flip,
)

numbers = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))
values = st.lists(numbers, min_size=1, max_size=40)


# --- intervals --------------------------------------------------------------------------------------------------


@given(values, st.integers(0, 5))
def test_interval_laws(x, seed):
    found = mean_interval(x, seed=seed, resamples=200)
    assert found.n == len(x)
    assert found.mean == pytest.approx(sum(x) / len(x), abs=1e-6)
    assert min(x) - 1e-6 <= found.low <= found.mean <= found.high <= max(x) + 1e-6
    assert mean_interval(x[::-1], seed=seed, resamples=200) == found
    wider = mean_interval(x, seed=seed, resamples=200, confidence=0.99)
    assert wider.low <= found.low and found.high <= wider.high
    assert all(type(v) is float for v in (found.mean, found.low, found.high))


@given(values)
def test_moves_and_stretches_with_the_values(x):
    plain = mean_interval(x, resamples=100)
    other = mean_interval([2 * v + 7 for v in x], resamples=100)
    assert (other.mean, other.low, other.high) == pytest.approx(
        tuple(2 * v + 7 for v in (plain.mean, plain.low, plain.high)), abs=1e-4
    )


def test_equal_values():
    assert mean_interval([0.1] * 7) == Interval(0.1, 0.1, 0.1, 7)
    assert mean_interval([3.0]) == Interval(3.0, 3.0, 3.0, 1)
    # nor are seven equal ones a certainty: a share of the others may be anywhere, unseen once in forty times
    unseen = scipy.stats.binomtest(0, 7).proportion_ci(method="exact").high
    some = mean_interval([0.3] * 7, bounds=(0, 1))
    assert (some.low, some.high) == pytest.approx((0.3 - unseen * 0.3, 0.3 + unseen * 0.7))
    # one value tells nothing about what lies within bounds
    assert mean_interval([0.3], bounds=(0, 1)) == Interval(0.3, 0, 1, 1)
    # the last digit of a division is no value out of bounds
    assert mean_interval([1.0000000000000002, 1.0], bounds=(0, 1)) == mean_interval([1.0, 1.0], bounds=(0, 1))


@pytest.mark.parametrize("n", [1, 2, 10, 30, 500])
def test_all_right_is_no_certainty(n):
    exact = scipy.stats.binomtest(n, n).proportion_ci(method="exact")
    found = mean_interval([1.0] * n, bounds=(0, 1))
    assert (found.low, found.high) == pytest.approx((exact.low, 1))
    none = mean_interval([0.0] * n, bounds=(0, 1))
    assert (none.low, none.high) == pytest.approx((0, 1 - exact.low))


def _coverage(draw, truth, n, tries=400, **options):
    rng = np.random.default_rng(7)
    hits = 0
    for number in range(tries):
        found = mean_interval(draw(rng, n), seed=number, resamples=500, **options)
        hits += found.low <= truth <= found.high
    return hits / tries


@pytest.mark.parametrize(
    ("draw", "truth", "n", "least"),
    [
        # 0.92: 0.95, less three standard errors of 400 tries. Less where no method of few values keeps its word.
        (lambda rng, n: (rng.random(n) < 0.5) * 1.0, 0.5, 20, 0.92),
        (lambda rng, n: (rng.random(n) < 0.3) * 1.0, 0.3, 20, 0.92),
        (lambda rng, n: (rng.random(n) < 0.3) * 1.0, 0.3, 200, 0.92),
        (lambda rng, n: (rng.random(n) < 0.1) * 1.0, 0.1, 10, 0.92),
        (lambda rng, n: rng.normal(3, 1, n), 3.0, 8, 0.88),
        (lambda rng, n: rng.normal(3, 1, n), 3.0, 100, 0.92),
        (lambda rng, n: rng.lognormal(0, 1, n), math.exp(0.5), 20, 0.84),
        (lambda rng, n: rng.lognormal(0, 1, n), math.exp(0.5), 300, 0.89),
    ],
)
def test_coverage(draw, truth, n, least):
    found = _coverage(draw, truth, n, bounds=(0, 1) if truth < 1 else None)
    assert least <= found
    assert found <= 0.995 or n <= 20  # few right or wrong answers have few intervals


def test_expanded_percentiles_beat_plain_ones_for_few_values():
    rng = np.random.default_rng(3)
    ours = plain = 0
    for number in range(200):
        x = rng.normal(0, 1, 6)
        found = mean_interval(x, seed=number, resamples=500)
        theirs = scipy.stats.bootstrap(
            (x,), np.mean, n_resamples=500, method="percentile", rng=np.random.default_rng(number)
        ).confidence_interval
        ours += found.low <= 0 <= found.high
        plain += theirs.low <= 0 <= theirs.high
    assert ours > plain + 5


def test_agrees_with_scipy_for_many_values():
    x = np.random.default_rng(0).lognormal(0, 1, 400)
    found = mean_interval(x, resamples=5000)
    theirs = scipy.stats.bootstrap(
        (x,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.05 * width)


def test_student_quantiles():
    for freedom in (1, 2, 3, 4, 7, 10, 33, 100, 5000, 20_000):
        for q in (0.6, 0.9, 0.975, 0.995):
            assert _student_quantile(q, freedom) == pytest.approx(scipy.stats.t.ppf(q, freedom), rel=1e-3)


# --- ratios -----------------------------------------------------------------------------------------------------


def test_ratio_is_that_of_the_sums():
    found = ratio_interval([100, 10, 40], [10, 10, 30])
    assert found.mean == 3 and found.n == 3
    assert found.low <= 3 <= found.high
    assert ratio_interval([40, 100, 10], [30, 10, 10]) == found
    assert ratio_interval([8, 2], [4, 1]) == Interval(2, 2, 2, 2)
    assert ratio_interval([8, 8], [4, 4]) == Interval(2, 2, 2, 2)
    assert ratio_interval([8], [4]) == Interval(2, 2, 2, 1)
    zeros = ratio_interval([5.0] * 10, [0.0] * 9 + [1.0])
    assert zeros.mean == 50 and math.isfinite(zeros.high)


def test_ratio_coverage():
    rng = np.random.default_rng(5)
    hits = 0
    for number in range(300):
        under = rng.lognormal(3, 0.5, 50)
        over = under * rng.lognormal(0, 0.5, 50)
        found = ratio_interval(over, under, seed=number, resamples=400)
        hits += found.low <= math.exp(0.125) <= found.high
    assert 0.9 <= hits / 300 <= 0.985


# --- tests ------------------------------------------------------------------------------------------------------


def _by_hand(differences):
    n = len(differences)
    observed = abs(sum(differences))
    hits = 0
    for way in range(2**n):
        signed = sum(d if way >> i & 1 else -d for i, d in enumerate(differences))
        hits += abs(signed) >= observed - 1e-9
    return hits / 2**n


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
@example([1, 1, 1, 1, 1])
@example([0, 0])
def test_exact_by_hand(differences):
    assert sign_flip(differences) == pytest.approx(_by_hand(differences))


@pytest.mark.parametrize("kind", ["continuous", "binary", "thirds"])
def test_exact_and_random_flips_agree(kind):
    rng = np.random.default_rng(11)
    for _ in range(6):
        d = {
            "continuous": rng.normal(0.4, 1, 14),
            "binary": rng.choice([-1.0, 1.0], 14, p=[0.25, 0.75]),
            "thirds": rng.choice([-1 / 3, 1 / 3, 2 / 3], 14),
        }[kind]
        exact = sign_flip(d)
        assert sign_flip(d, exact=0, flips=40_000) == pytest.approx(exact, abs=4 * math.sqrt(exact / 40_000) + 1e-3)


def test_agrees_with_scipy():
    rng = np.random.default_rng(2)
    for n in (10, 60):
        d = rng.normal(0.25, 1, n)
        theirs = scipy.stats.permutation_test(
            (d,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(0)
        ).pvalue
        assert sign_flip(d) == pytest.approx(theirs, abs=0.01)
    # for right and wrong it is the exact sign test
    d = [1.0] * 40 + [-1.0] * 22 + [0.0] * 100
    assert sign_flip(d, flips=100_000) == pytest.approx(scipy.stats.binomtest(40, 62).pvalue, abs=0.005)


def test_p_is_never_nothing():
    d = [1.0] * 500
    assert sign_flip(d, flips=999) == 1 / 1000
    assert sign_flip([0.1 * i for i in range(1, 400)], flips=999) == 1 / 1000
    assert sign_flip([1.0] * 14) == 2 / 2**14
    assert sign_flip([0.0] * 10) == sign_flip([5.0]) == 1


@pytest.mark.parametrize("kind", ["normal", "binary", "few"])
def test_errs_no_more_than_it_says(kind):
    rng = np.random.default_rng(4)
    tries, n = 600, 12 if kind == "few" else 40
    rejected = 0
    for number in range(tries):
        d = rng.choice([-1.0, 0, 0, 1.0], n) if kind == "binary" else rng.normal(0, 1, n)
        rejected += sign_flip(d, seed=number, flips=499) <= 0.05
    assert rejected / tries <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / tries)
    assert rejected / tries >= 0.02


def test_finds_what_is_there():
    rng = np.random.default_rng(6)
    found = sum(sign_flip(rng.normal(0.5, 1, 50), flips=499) <= 0.05 for _ in range(100))
    assert found >= 85  # Student's t: 0.93


def test_paired():
    rng = np.random.default_rng(1)
    a = {f"q{i}": float(v) for i, v in enumerate(rng.random(80))}
    b = {key: value - 0.2 + float(rng.normal(0, 0.1)) for key, value in a.items()}
    found = paired(a, b)
    assert found.difference == pytest.approx(0.2, abs=0.04)
    assert found.low < found.difference < found.high and found.low > 0.1
    assert found.p < 0.001 and found.n == 80
    back = paired(b, a)
    assert (back.difference, back.p) == pytest.approx((-found.difference, found.p))
    assert (-back.high, -back.low) == pytest.approx((found.low, found.high), abs=0.01)
    # other order and other names change nothing
    assert paired(dict(reversed(a.items())), b) == found
    assert paired({"x" + k: v for k, v in a.items()}, {"x" + k: v for k, v in b.items()}) == found
    # what only one has is left out
    assert paired({**a, "only a": 99.0}, {**b, "only b": -99.0}) == found
    same = paired(a, a)
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="in common"):
        paired(a, {"other": 1.0})


@pytest.mark.parametrize(("n", "value"), [(1, 0.0), (5, 0.0), (5, 1.0), (100, 0.0), (1, -1.0), (3, 0.25)])
def test_equal_differences_are_no_certainty(n, value):
    a = {str(i): max(value, 0.0) for i in range(n)}
    b = {str(i): max(-value, 0.0) for i in range(n)}
    found = paired(a, b, bounds=(0, 1))
    assert (found.difference, found.n) == (value, n)
    assert -1 <= found.low <= value <= found.high <= 1
    # the share of questions that may differ unseen, once in forty times
    unseen = scipy.stats.binomtest(0, n).proportion_ci(method="exact").high
    assert (value - found.low, found.high - value) == pytest.approx((unseen * (value + 1), unseen * (1 - value)))
    assert (found.low, found.high) == pytest.approx(tuple(-x for x in _limits(paired(b, a, bounds=(0, 1))))[::-1])
    assert paired(a, b).low == paired(a, b).high == value, "without bounds nothing is known of what is unseen"


def _limits(found):
    return found.low, found.high


def test_bounds_change_nothing_where_differences_vary():
    a, b = {"x": 1.0, "y": 0.0, "z": 1.0}, {"x": 0.0, "y": 0.0, "z": 0.5}
    assert paired(a, b, bounds=(0, 1)) == paired(a, b)
    with pytest.raises(ValueError, match="not within"):
        paired({"x": 2.0}, {"x": 0.0}, bounds=(0, 1))


def test_paired_sees_what_separate_intervals_do_not():
    rng = np.random.default_rng(8)
    hard = rng.random(60)
    a, b = ({str(i): float(v) for i, v in enumerate(hard + shift)} for shift in (0.02, 0.0))
    first, second = mean_interval(list(a.values())), mean_interval(list(b.values()))
    assert first.low < second.high
    assert paired(a, b).p < 0.001


@pytest.mark.parametrize(
    "call",
    [
        lambda: mean_interval([]),
        lambda: mean_interval([1.0, math.nan]),
        lambda: mean_interval([1.0, math.inf]),
        lambda: mean_interval([1.0], confidence=1.0),
        lambda: mean_interval([1.0, 2.0], resamples=0),
        lambda: mean_interval([1.0, 2.0], bounds=(0, 1)),
        lambda: ratio_interval([1.0], [1.0, 2.0]),
        lambda: ratio_interval([1.0], [0.0]),
        lambda: ratio_interval([1.0, 2.0], [-1.0, 2.0]),
        lambda: ratio_interval([], []),
        lambda: paired({"a": math.nan}, {"a": 1.0}),
        lambda: sign_flip([]),
        lambda: sign_flip([1.0], flips=0),
        lambda: sign_flip([1.0], exact=25),
        lambda: holm([0.5, 1.5]),
        lambda: holm([math.nan]),
    ],
)
def test_bad_input(call):
    with pytest.raises(ValueError):
        call()


def test_many_questions_take_little_memory():
    rng = np.random.default_rng(0)
    x = {str(i): float(v) for i, v in enumerate(rng.random(100_000))}
    y = {key: value * 0.99 for key, value in x.items()}
    start = time.perf_counter()
    tracemalloc.start()
    found = paired(x, y, resamples=100, flips=500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.n == 100_000 and found.p < 0.01
    assert peak < 250 * 2**20
    assert time.perf_counter() - start < 20


# --- Holm -------------------------------------------------------------------------------------------------------


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.2]) == [0.2]
    assert holm([0.6, 0.9]) == [1.0, 1.0]


@settings(max_examples=200)
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_laws(p):
    q = holm(p)
    assert len(q) == len(p)
    assert all(raw <= corrected <= 1 for raw, corrected in zip(p, q, strict=True))
    assert all(corrected <= min(1, raw * len(p)) for raw, corrected in zip(p, q, strict=True))
    for i in range(len(p)):
        for j in range(len(p)):
            if p[i] <= p[j]:
                assert q[i] <= q[j]
    assert holm(p[::-1]) == q[::-1]
    # the procedure as published: reject while each p is at most alpha over what is left
    order = sorted(p)
    rejected = 0
    while rejected < len(p) and order[rejected] * (len(p) - rejected) <= 0.05:
        rejected += 1
    assert sum(corrected <= 0.05 for corrected in q) == rejected
