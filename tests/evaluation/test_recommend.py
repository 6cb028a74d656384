import json
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ragzip.errors import UsageError
from ragzip.evaluation.loss import Loss
from ragzip.evaluation.noninferiority import evidence
from ragzip.evaluation.recommend import choose
from tests.evaluation.fakes import run_with

POINT = Loss(0.01, relative=False)


# ---- what may be lost


@pytest.mark.parametrize(
    ("text", "limit", "relative"),
    [
        *(("1%", 0.01, True), (" 2.5 % ", 0.025, True), ("0%", 0.0, True), ("1pt", 0.01, False)),
        *(("0.5pts", 0.005, False), ("0.01", 0.01, False), ("1e-2", 0.01, False), (".02", 0.02, False)),
        *(("0", 0.0, False), ("2PT", 0.02, False), ("+1%", 0.01, True)),
    ],
)
def test_losses_parse(text, limit, relative):
    found = Loss.parse(text)
    assert found.limit == pytest.approx(limit)
    assert found.relative is relative


@pytest.mark.parametrize(
    "text", ["", "1", "5", "-1%", "100%", "100pt", "1.0", "nan", "inf", "1%%", "one", "1 2", "%", "1e999", "1e-2e1"]
)
def test_what_is_no_loss(text):
    with pytest.raises(UsageError) as error:
        Loss.parse(text)
    assert "1%" in error.value.hint


@given(st.integers(0, 9999), st.booleans())
def test_losses_print_as_they_parse(parts, relative):
    loss = Loss(parts / 10_000, relative)
    found = Loss.parse(str(loss))
    assert found.relative is relative
    assert found.limit == pytest.approx(loss.limit, abs=1e-12)


# ---- the test


@pytest.mark.parametrize(("n", "losses"), [(100, 0), (300, 0), (300, 2), (1000, 3)])
def test_losses_alone_give_the_exact_binomial_p(n, losses):
    """d is -1 or 0: the chance of so few losses, if one question in a hundred were lost."""
    wanted = sum(math.comb(n, k) * 0.01**k * 0.99 ** (n - k) for k in range(losses + 1))
    found = evidence([0.0] * losses + [1.0] * (n - losses), [1.0] * n, POINT, draws=100_000)
    assert found.p == pytest.approx(wanted, abs=0.006)


def test_with_many_questions_it_is_the_normal_test():
    rng = np.random.default_rng(0)
    base = (rng.random(8000) < 0.5).astype(float)
    mine = np.where(rng.random(8000) < 0.3, 1 - base, base)
    difference = mine - base
    error = difference.std() / math.sqrt(8000)
    limit = Loss(float(1.8 * error - difference.mean()), relative=False)
    assert evidence(mine, base, limit).p == pytest.approx(NormalDist().cdf(-1.8), abs=0.005)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30),
    st.floats(0, 0.3),
    st.booleans(),
    st.floats(0.005, 0.5),
)
@settings(max_examples=60, deadline=None)
def test_the_bound_and_p_say_the_same(pairs, limit, relative, level):
    mine, base = zip(*pairs, strict=True)
    assume(not relative or np.mean(base) > 0)  # else it says so, see below
    found = evidence(mine, base, Loss(limit, relative), draws=500)
    assert (found.p <= level) == (found.low(level) > -limit)
    assert 0 < found.p <= 1
    higher = evidence([min(x + 0.2, 1.0) for x in mine], base, Loss(limit, relative), draws=500)
    assert higher.difference >= found.difference


@pytest.mark.parametrize("count", [1, 30])
def test_a_share_of_nothing_is_refused(count):
    with pytest.raises(ValueError, match="baseline of 0"):
        evidence([0.5] * count, [0.0] * count, Loss(0.1, relative=True))


def test_a_relative_limit_counts_from_the_baseline():
    base = [1.0] * 100 + [0.0] * 900
    mine = [1.0] * 99 + [0.0] * 901  # 1 % of the baseline's 0.1
    assert evidence(mine, base, Loss(0.01, relative=True)).difference == pytest.approx(-0.01)
    assert evidence(mine, base, Loss(0.01, relative=False)).p < 0.001 < 0.3 < evidence(mine, base, Loss.parse("1%")).p


# ---- the choice


def test_the_cheapest_of_those_that_qualify():
    base = [1.0, 0.0] * 500
    run = run_with({"half": (500, base), "fifth": (200, base), "bad": (100, [0.0] * 1000)}, base)
    found = choose(run, metric="em", max_loss=Loss.parse("2pt"))
    assert found.name == "fifth"
    assert [row.name for row in found.qualified] == ["fifth", "half"]
    assert [row.name for row in found.others] == ["bad"]
    assert all(row.low > -0.02 and row.p <= 0.05 for row in found.qualified)
    assert "fifth is the cheapest of 2 rows" in found.message
    assert "95% confidence for all 3 rows tested" in found.message
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["max_loss"] == "2pt"


def test_too_few_questions_prove_nothing():
    base = [1.0, 0.0] * 40
    found = choose(run_with({"same": (200, base)}, base), metric="em", max_loss=POINT)
    assert found.name == "no_compression"
    assert found.qualified == ()
    assert "same would need roughly 300 questions instead of 80" in found.message
    assert "within the limit as far as seen is same: it lost nothing here" in found.message
    enough = [1.0, 0.0] * 160
    assert choose(run_with({"same": (200, enough)}, enough), metric="em", max_loss=POINT).name == "same"


def test_the_number_needed_is_about_right():
    rng = np.random.default_rng(1)

    def one(n):
        base = rng.random(n) < 0.6
        flip = rng.random(n)
        mine = np.where(flip < 0.05, ~base, base)  # 5 % change, a fifth more of them for the worse
        return evidence(mine.astype(float), base.astype(float), Loss(0.03, relative=False), draws=2000)

    needed = one(20_000).needed(0.05)
    qualified = np.mean([one(int(needed)).p <= 0.05 for _ in range(200)])
    assert 0.65 < qualified < 0.92


def test_all_lose_too_much():
    base = [1.0] * 300
    found = choose(run_with({"a": (10, [0.0] * 300), "b": (20, [1.0, 0.0] * 150)}, base), metric="em", max_loss=POINT)
    assert found.name == "no_compression"
    assert "All lost more than that on these questions, b least: 50 points" in found.message


def test_a_cheaper_one_that_is_not_proven_is_named():
    base = [1.0, 0.0] * 300
    unsure = list(base)
    unsure[0:40] = [0.0, 1.0] * 20
    found = choose(run_with({"sure": (500, base), "unsure": (100, unsure)}, base), metric="em", max_loss=POINT)
    assert found.name == "sure"
    assert "unsure is cheaper and lost nothing here, but" in found.message


def test_closed_book_says_what_it_means():
    base = [1.0, 0.0] * 300
    run = run_with({"closed_book": (0, base)}, base, settings={"closed_book": {"kind": "baseline"}})
    found = choose(run, metric="em", max_loss=POINT)
    assert found.name == "closed_book"
    assert "compression is not the question" in found.message


def test_rows_that_read_labels_or_cost_more_take_no_part():
    base = [1.0, 0.0] * 300
    rows = {"oracle_sentences@100": (50, base), "dear": (1000, base), "p": (300, base)}
    run = run_with(rows, base, settings={"oracle_sentences@100": {"kind": "baseline"}})
    found = choose(run, metric="em", max_loss=POINT)
    assert [row.name for row in (*found.qualified, *found.others)] == ["p"]
    only_dear = run_with({"dear": (1000, base)}, base)
    found = choose(only_dear, metric="em", max_loss=POINT)
    assert (found.name, found.qualified, found.message) == (
        "no_compression",
        (),
        "No row is cheaper than no_compression.",
    )


def test_more_candidates_need_more():
    base = [1.0, 0.0] * 160
    many = {f"p{i}": (i + 1, base) for i in range(8)}
    run = run_with(many, base)
    assert choose(run, metric="em", max_loss=POINT).qualified == ()
    assert choose(run, metric="em", max_loss=POINT, candidates=["p3"]).name == "p3"


def test_holm_goes_on_where_bonferroni_stops():
    base = [1.0] * 1000
    rows = {"clear": (500, base), "close": (100, [0.0] * 4 + [1.0] * 996)}
    run = run_with(rows, base)
    found = choose(run, metric="em", max_loss=POINT)  # p of close is 0.029: above 0.025, below 0.05
    assert found.name == "close"
    assert all(row.low > -0.01 for row in found.qualified)


def test_it_is_the_same_every_time():
    rng = np.random.default_rng(0)
    base = (rng.random(200) < 0.5).astype(float)
    run = run_with({"p": (10, (rng.random(200) < 0.5).astype(float))}, base)
    assert choose(run, metric="em", max_loss=POINT, seed=5) == choose(run, metric="em", max_loss=POINT, seed=5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metric": "ttft"}, "no quality"),
        ({"metric": "nothing"}, "nknown metric"),
        ({"metric": "f1"}, "has no f1"),
        ({"cost": "em"}, "no cost"),
        ({"cost": "ttft"}, "has no ttft"),
        ({"confidence": 95}, "between 0 and 1"),
        ({"baseline": "x"}, "no row called 'x'"),
        ({"candidates": ["x"]}, "no row called 'x'"),
        ({"candidates": []}, "no row to recommend"),
    ],
)
def test_bad_input(options, words):
    run = run_with({"p": (10, [1.0])}, [1.0])
    with pytest.raises(UsageError, match=words):
        choose(run, **{"metric": "em", "max_loss": POINT, **options})


# ---- what it promises


def _rare(rng, base):
    """The same but for one loss in fifty: where a t-test is certain far too often."""
    return np.where(rng.random(len(base)) < 0.04, 0.0, base)


def _mixed(rng, base):
    """Gains on 4 % of all questions, losses on 6 %."""
    flip = rng.random(len(base))
    return np.where((base == 0) & (flip < 0.08), 1.0, np.where((base == 1) & (flip < 0.12), 0.0, base))


def _graded(rng, base):
    """Another value, of mean 0.3 instead of 0.5, on a tenth of the questions."""
    return np.where(rng.random(len(base)) < 0.1, rng.beta(0.3, 0.7, len(base)).round(1), base)


@pytest.mark.parametrize("make", [_rare, _mixed, _graded])
@pytest.mark.parametrize("limit", [Loss(0.02, relative=False), Loss(0.04, relative=True)], ids=str)
def test_the_family_is_right_nineteen_times_in_twenty(make, limit):
    """Five candidates that all truly lose 2 points of 50, just what is not allowed: in at most 5 % one qualifies."""
    runs, wrong = 200, 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(40, 300))
        base = rng.beta(0.5, 0.5, n).round(1) if make is _graded else (rng.random(n) < 0.5).astype(float)
        rows = {f"p{i}": (i + 1, make(rng, base)) for i in range(5)}
        wrong += bool(choose(run_with(rows, base), metric="em", max_loss=limit, draws=1000).qualified)
    assert wrong / runs <= 0.05 + 2.3 * math.sqrt(0.05 * 0.95 / runs)


def test_it_finds_what_is_there():
    """The other side: where a candidate loses nothing in truth, it mostly qualifies."""
    found = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        base = (rng.random(600) < 0.5).astype(float)
        mine = np.where(rng.random(600) < 0.04, 1 - base, base)
        run = run_with({"p": (10, mine)}, base)
        found += choose(run, metric="em", max_loss=Loss(0.03, relative=False), draws=1000).name == "p"
    assert found >= 54
