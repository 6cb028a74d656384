import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ragzip.evaluation.lines import fit, refit, spread


def points(n=200, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(50, 2000, n).astype(float), rng


def test_a_line_is_found_exactly_where_there_is_no_noise():
    x, _ = points()
    line = fit(x, 0.02 + 3e-4 * x, curved=True)
    assert line.intercept == pytest.approx(0.02)
    assert line.slope == pytest.approx(3e-4)
    assert line.curve == 0.0
    assert line.residual < 1e-9


def test_outliers_hardly_move_it():
    x, rng = points(300)
    y = (0.02 + 3e-4 * x) * (1 + 0.02 * rng.standard_normal(300))
    y[rng.choice(300, 36, replace=False)] *= 20
    line = fit(x, y)
    assert line.slope == pytest.approx(3e-4, rel=0.05)
    assert np.polyfit(x, y, 1)[0] > 1.5 * 3e-4, "least squares is moved, or this tests nothing"


def test_the_residual_is_the_scatter():
    x, rng = points(2000)
    assert fit(x, 1.0 + 1e-3 * x + 0.05 * rng.standard_normal(2000)).residual == pytest.approx(0.05, rel=0.1)


def test_a_curve_only_where_the_data_ask_for_one():
    x, rng = points(300)
    noise = 1 + 0.02 * rng.standard_normal(300)
    bent = fit(x, (0.02 + 3e-4 * x + 1e-7 * x**2) * noise, curved=True)
    assert bent.curve == pytest.approx(1e-7, rel=0.2)
    assert fit(x, (0.02 + 3e-4 * x + 1e-7 * x**2) * noise).curve == 0.0
    wrongly = sum(
        fit(x, 0.02 + 3e-4 * x + 0.01 * np.random.default_rng(i).standard_normal(300), curved=True).curve > 0
        for i in range(100)
    )
    assert wrongly <= 3


@example([(0, 0.0), (1, 0.0), (1, 0.21875)])
@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 10)), min_size=1, max_size=60))
@settings(max_examples=150, deadline=None)
def test_no_cost_is_ever_negative_and_none_is_beyond_what_was_seen(pairs):
    x, y = np.array(pairs, dtype=float).T
    for curved in (False, True):
        line = fit(x, y, curved=curved)
        assert min(line.coefficients) >= 0
        assert np.all(np.isfinite(line.coefficients))
        assert line.intercept <= y.max() * 1.001 + 1e-9


def test_falling_cost_is_a_constant():
    x, _ = points()
    line = fit(x, 1.0 - 1e-4 * x)
    assert line.slope == 0.0
    assert 0.8 < line.intercept < 1.0


def test_refitting_with_equal_weights_is_the_fit():
    x, rng = points(200)
    for curve in (0.0, 1e-7):
        y = (0.02 + 3e-4 * x + curve * x**2) * (1 + 0.02 * rng.standard_normal(200))
        line = fit(x, y, curved=True)
        again = refit(x, y, line, np.stack([np.ones(200), 2 * np.ones(200)]))
        assert again == pytest.approx(np.stack([line.coefficients] * 2), rel=1e-3, abs=1e-12)


def test_weights_choose_the_points():
    x, _ = points(100)
    y = np.where(np.arange(100) < 50, 1e-4, 3e-4) * x
    line = fit(x, y)
    weights = np.zeros((2, 100))
    weights[0, :50], weights[1, 50:] = 1, 1
    found = refit(x, y, line, weights, rounds=30)
    assert found[:, 1] == pytest.approx([1e-4, 3e-4], rel=1e-6)


def test_the_standard_error_is_honest():
    x, _ = points(100)
    found = [fit(x, 0.02 + 3e-4 * x + 0.02 * np.random.default_rng(i).standard_normal(100)) for i in range(200)]
    spread_of_slopes = np.std([line.slope for line in found])
    assert np.mean([line.error for line in found]) == pytest.approx(spread_of_slopes, rel=0.25)


@pytest.mark.parametrize(
    ("x", "word"),
    [([500.0] * 50, "same size, 500"), ([500.0, 600.0], "only 2"), ([500.0 + i % 9 for i in range(50)], "nearly all")],
)
def test_sizes_that_tell_no_slope_say_so(x, word):
    assert word in spread(np.array(x))


def test_sizes_that_tell_a_slope():
    assert spread(np.linspace(100, 1000, 20)) == ""
