import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.errors import UsageError
from ragzip.evaluation.savings import savings
from tests.evaluation.fakes import run_of


def small(**columns):
    base = {"prompt_tokens": [1000, 2000, 3000], "new_tokens": [10, 10, 10], "tokens_out": [900, 1900, 2900]}
    return run_of({"no_compression": base, "p": {**base, **columns}})


def test_what_is_saved_is_the_difference_of_what_is_paid():
    found = savings(small(prompt_tokens=[500, 1000, 1500]), price_in=2.0, price_out=10.0)
    row, base = found["rows"]["p"], found["rows"]["no_compression"]
    assert base["cost_per_1000"] == pytest.approx(1000 * (2000 * 2.0 + 10 * 10.0) / 1e6)
    assert row["per_1000"] == pytest.approx(1000 * 1000 * 2.0 / 1e6)
    assert row["cost_per_1000"] + row["per_1000"] == pytest.approx(base["cost_per_1000"])
    assert base["per_1000"] == base["low"] == base["high"] == 0.0
    assert row["low"] <= row["per_1000"] <= row["high"]
    assert found["baseline"] == "no_compression"
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 99)), min_size=2, max_size=20))
def test_prices_scale_and_add_up(rows):
    before, after, new = (list(column) for column in zip(*rows, strict=True))
    run = run_of(
        {
            "no_compression": {"prompt_tokens": before, "new_tokens": new},
            "p": {"prompt_tokens": after, "new_tokens": [0] * len(rows)},
        }
    )
    read, written, both = (
        savings(run, price_in=a, price_out=b)["rows"]["p"]["per_1000"] for a, b in ((1, 0), (0, 1), (3, 2))
    )
    assert both == pytest.approx(3 * read + 2 * written, abs=1e-9)
    assert read == pytest.approx(1000 * (math.fsum(before) - math.fsum(after)) / len(rows) / 1e6, abs=1e-9)


def test_longer_answers_cost():
    assert savings(small(new_tokens=[50] * 3), price_in=1, price_out=1)["rows"]["p"]["per_1000"] < 0


def test_without_prompts_the_context_stands_for_them_on_both_sides():
    run = small(prompt_tokens=[0, 1000, 1500], tokens_out=[400, 900, 1400], new_tokens=[None, 10, 10])
    saved = savings(run, price_in=1.0, price_out=1.0)["rows"]["p"]["per_1000"]
    assert saved == pytest.approx(1000 * (500 + 1000 + 1500) / 3 / 1e6), "the first by context, the others by prompt"


def test_records_that_only_one_has_do_not_count():
    run = run_of(
        {
            "no_compression": {"prompt_tokens": {"a": 1000, "b": 9000}},
            "p": {"prompt_tokens": {"a": 400, "c": 1}},
            "empty": {"prompt_tokens": {"z": 5}},
        }
    )
    rows = savings(run, price_in=1)["rows"]
    assert rows["p"]["per_1000"] == pytest.approx(0.6)
    assert rows["p"]["n"] == 1
    assert "empty" not in rows


def test_each_row_against_its_own_baseline_or_the_one_named():
    rows = {"no_compression": [1000], "no_compression [b]": [2000], "p": [500]}
    run = run_of(
        {name: {"prompt_tokens": value} for name, value in rows.items()},
        settings={"p": {"baseline": "no_compression [b]"}},
    )
    assert savings(run, price_in=1)["rows"]["p"]["per_1000"] == pytest.approx(1.5)
    named = savings(run, price_in=1, baseline="no_compression")
    assert named["rows"]["p"]["per_1000"] == pytest.approx(0.5)


@pytest.mark.parametrize("price", [-1, float("nan"), float("inf"), "1", None, True])
def test_prices_that_are_none(price):
    with pytest.raises(UsageError, match="--price-in"):
        savings(small(), price_in=price)
    with pytest.raises(UsageError, match="--price-out"):
        savings(small(), price_in=1, price_out=price)


def test_a_baseline_that_is_not_there():
    with pytest.raises(UsageError, match="no row called 'x'"):
        savings(small(), price_in=1, baseline="x")


def test_the_interval_shrinks_with_more_questions():
    def width(n):
        after = [i % 7 * 100 for i in range(n)]
        rows = {"no_compression": {"prompt_tokens": [1000] * n}, "p": {"prompt_tokens": [100 + x for x in after]}}
        row = savings(run_of(rows), price_in=1)["rows"]["p"]
        return row["high"] - row["low"]

    assert width(400) < width(30) / 2
