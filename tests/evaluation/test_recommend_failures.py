"""Recommendations where rows fail, where nothing is to be lost, and over several generators."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip.errors import UsageError
from ragzip.evaluation.loss import Loss
from ragzip.evaluation.noninferiority import evidence
from ragzip.evaluation.recommend import choose
from tests.evaluation.fakes import run_with

POINT = Loss(0.01, relative=False)


# ---- what fails


def failing(run, name, ids):
    for line in run.lines[name]:
        if int(line["id"][1:]) in ids:
            line.update(error="out of memory", metrics=dict.fromkeys(line["metrics"]))
    return run


def test_failures_count_as_the_worst():
    base = [1.0] * 1000
    assert choose(run_with({"half": (100, base)}, base), metric="em", max_loss=POINT).name == "half"
    run = failing(run_with({"half": (100, base)}, base), "half", range(400, 1000))
    found = choose(run, metric="em", max_loss=POINT)
    assert found.name == "no_compression"
    row = found.others[0]
    assert (row.loss, row.n, row.failed) == (pytest.approx(0.6), 1000, 600)
    assert "half to 600 of 1000 questions" in found.message
    few = choose(failing(run_with({"half": (100, base)}, base), "half", [7]), metric="em", max_loss=POINT)
    assert few.name == "half"
    assert few.qualified[0].loss == pytest.approx(0.001)
    assert "half to 1 of 1000 questions" in few.message


@given(st.sets(st.integers(0, 59), max_size=50), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_failing_is_as_bad_as_being_wrong(ids, seed):
    base = (np.random.default_rng(seed).random(60) < 0.7).astype(float)
    wrong = np.where([i in ids for i in range(60)], 0.0, base)
    one = choose(failing(run_with({"p": (100, base)}, base), "p", ids), metric="em", max_loss=POINT, draws=500)
    other = choose(run_with({"p": (100, wrong)}, base), metric="em", max_loss=POINT, draws=500)
    rows = [[(row.loss, row.low, row.p) for row in (*found.qualified, *found.others)] for found in (one, other)]
    assert rows[0] == rows[1]


def test_costs_are_of_questions_that_both_answered():
    base = [1.0] * 1000
    run = run_with({"dear": (300, base)}, base)
    for name, size in (("no_compression", 200), ("dear", 250)):
        for line in run.lines[name][:400]:
            line["metrics"]["tokens_out"] = size
    # on average 680 and 280 tokens; on the short ones that it answered the baseline has fewer
    assert choose(run, metric="em", max_loss=POINT).name == "dear"
    assert choose(failing(run, "no_compression", range(400, 1000)), metric="em", max_loss=POINT).name == (
        "no_compression"
    )


def test_what_fails_everywhere_is_named():
    base = [1.0] * 20
    found = choose(failing(run_with({"p": (1, base)}, base), "p", range(20)), metric="em", max_loss=POINT)
    assert found.name == "no_compression"
    assert "Not tested: p, since it has no em and tokens_out" in found.message


def test_failures_of_the_baseline_and_of_compressors_are_named():
    base = [1.0] * 1000
    run = failing(run_with({"p": (100, base)}, base), "no_compression", range(5))
    for line in run.lines["p"][:3]:
        line["steps"] = [{"name": "filter", "status": "error"}]
    run.lines["p"][3]["steps"] = [{"name": "filter", "status": "timeout"}, {"name": "filter", "status": "ok"}]
    said = choose(run, metric="em", max_loss=POINT).message
    assert "no_compression to 5 questions" in said
    assert "p (filter: error, 3 times, filter: timeout, 1 times)" in said
    assert "failed" not in choose(run_with({"p": (100, base)}, base), metric="em", max_loss=POINT).message


# ---- limits of nothing, and shares of nothing


@pytest.mark.parametrize("limit", ["0%", "0pt"])
def test_no_loss_at_all_cannot_be_proven(limit):
    base = [1.0, 0.0] * 100
    said = choose(run_with({"same": (10, base)}, base), metric="em", max_loss=Loss.parse(limit)).message
    assert "exactly 0 can never be proven" in said
    assert "All lost" not in said and "-0" not in said
    better = choose(run_with({"up": (10, [1.0] * 200)}, base), metric="em", max_loss=Loss.parse(limit))
    assert better.name == "up"


def test_just_what_is_allowed():
    base = [1.0] * 100
    said = choose(run_with({"p": (10, [0.0, *base[1:]])}, base), metric="em", max_loss=POINT).message
    assert "p lost just what is allowed" in said
    assert "All lost" not in said


def test_a_share_of_nothing_means_nothing():
    base = [0.0] * 200
    run = run_with({"same": (10, base)}, base)
    found = choose(run, metric="em", max_loss=Loss.parse("1%"))
    assert (found.name, found.others) == ("no_compression", ())
    assert "no_compression scores 0 in em, and a share of 0 means nothing" in found.message
    assert choose(run, metric="em", max_loss=Loss.parse("2pt")).name == "same"
    with pytest.raises(ValueError, match="share"):
        evidence(base, base, Loss.parse("1%"))


# ---- several generators and baselines


def two(generators):
    """Two pipelines, each with its own row without compression, the second's being the better."""
    good, bad = [1.0] * 1000, [1.0, 0.0] * 500
    rows = {"p": (300, bad), "q": (200, bad), "no_compression [q]": (1000, good)}
    kinds = {
        name: {"pipeline": {"generator": {"model": model}}, "baseline": base}
        for name, model, base in (
            ("no_compression", generators[0], "no_compression"),
            ("p", generators[0], "no_compression"),
            ("no_compression [q]", generators[1], "no_compression [q]"),
            ("q", generators[1], "no_compression [q]"),
        )
    }
    return run_with(rows, bad, settings=kinds)


def test_each_row_against_its_own_baseline():
    found = choose(two("aa"), metric="em", max_loss=POINT)
    assert found.name == "p", "q is as good as the first baseline, and half as good as its own"
    assert {row.name: row.baseline for row in (*found.qualified, *found.others)} == {
        "p": "no_compression",
        "q": "no_compression [q]",
    }
    assert "each row against its own baseline" in found.message
    assert choose(two("aa"), metric="em", max_loss=POINT, baseline="no_compression").name == "q"


def test_generators_are_not_held_against_each_other():
    with pytest.raises(UsageError, match="2 generators"):
        choose(two("ab"), metric="em", max_loss=POINT)
    with pytest.raises(UsageError, match="tokenizer"):
        choose(two("ab"), metric="em", max_loss=POINT, baseline="no_compression")
    assert choose(two("ab"), metric="em", max_loss=POINT, candidates=["p"]).name == "p"
