import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip.errors import UsageError
from ragzip.evaluation.compare import compare
from ragzip.evaluation.statistics import holm, paired
from tests.evaluation.fakes import run_of

N = 80


def toy(shift=0, *, name="p", seed=0, **more):
    rng = np.random.default_rng(seed)
    em = (rng.random(N) < 0.5).astype(float)
    better = np.where(np.arange(N) < shift, 1.0, em)
    rows = {
        "no_compression": {"em": em, "tokens_out": [100] * N, "tokens_in": [100] * N, "ttft": [1.0] * N},
        name: {"em": better, "tokens_out": [50 - shift] * N, "tokens_in": [100] * N, "ttft": [0.5] * N},
    }
    rows = {row: {m: [float(v) for v in values] for m, values in columns.items()} for row, columns in rows.items()}
    return run_of(rows, **more)


def by_row(found, metric):
    return {d.row: d for d in found.differences if d.metric == metric}


def test_a_run_does_not_differ_from_itself():
    found = compare(toy(), toy())
    assert found.records == N
    assert (found.only_a, found.only_b, found.rows_only_a, found.rows_only_b, found.notes) == (0, 0, (), (), ())
    assert len(found.differences) == 2 * 4
    for d in found.differences:
        assert (d.difference, d.p, d.significant, d.better) == (0, 1, False, None)
        # a loss on a question in thirty would go unseen in so many; tokens and seconds have no bounds to say so by
        assert (d.low, d.high) == pytest.approx((-0.0451, 0.0451) if d.metric == "em" else (0, 0), abs=1e-4)


def test_a_difference_is_found_and_has_its_sign():
    found = compare(toy(), toy(shift=40))
    em, tokens = by_row(found, "em"), by_row(found, "tokens_out")
    assert em["p"].difference == pytest.approx(em["p"].b - em["p"].a)
    assert em["p"].difference > 0
    assert em["p"].significant
    assert em["p"].better is True
    assert tokens["p"].difference == -40
    assert tokens["p"].better is True, "fewer tokens are better"
    assert em["no_compression"].better is None
    back = by_row(compare(toy(shift=40), toy()), "em")
    assert back["p"].better is False
    assert back["p"].difference == pytest.approx(-em["p"].difference)


@given(st.integers(0, 30), st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_the_numbers_are_those_of_the_statistics(shift, seed):
    one, other = toy(seed=seed), toy(shift, seed=seed)
    found = [d for d in compare(one, other, seed=7).differences if d.metric == "em"]
    tests = [paired(other.values(d.other, "em"), one.values(d.row, "em"), seed=7, bounds=(0, 1)) for d in found]
    assert [(d.difference, d.low, d.high, d.p) for d in found] == [(t.difference, t.low, t.high, t.p) for t in tests]
    assert [d.p_corrected for d in found] == holm([t.p for t in tests])


def test_the_ratio_is_that_of_the_sums():
    one = run_of({"p": {"tokens_in": [100, 900], "tokens_out": [50, 100], "ratio": [2, 9]}})
    other = run_of({"p": {"tokens_in": [100, 900], "tokens_out": [25, 100], "ratio": [4, 9]}})
    found = by_row(compare(one, other, metrics=["ratio"]), "ratio")["p"]
    assert found.a == pytest.approx(1000 / 150)
    assert found.b == pytest.approx(1000 / 125)
    assert found.difference == pytest.approx(found.b - found.a)
    assert found.low <= found.difference <= found.high


def test_a_ratio_of_nothing_left_is_left_out():
    empty = run_of({"p": {"tokens_in": [100, 900], "tokens_out": [0, 0], "ratio": [None, None]}})
    assert [d.metric for d in compare(empty, empty).differences] == ["tokens_in", "tokens_out"]


def test_questions_that_one_lacks_are_counted_and_left_out():
    one = run_of({"p": {"em": {"a": 1, "b": 0, "c": 1}}})
    other = run_of({"p": {"em": {"b": 1, "c": 1, "d": 0, "e": 0}}})
    found = compare(one, other)
    assert (found.records, found.only_a, found.only_b) == (2, 1, 2)
    assert found.notes == ("Left out: questions that only the first run has (1) or only the second (2).",)
    assert (found.differences[0].a, found.differences[0].b, found.differences[0].n) == (0.5, 1.0, 2)


def test_rows_of_other_names_are_compared_as_asked():
    found = compare(toy(), toy(shift=40, name="q"), pairs=[("p", "q")])
    assert {(d.row, d.other) for d in found.differences} == {("p", "q"), ("no_compression", "no_compression")}
    assert any(line[0] == "p / q" for line in found.table())
    crossed = compare(toy(), toy(), pairs=[("p", "no_compression")])
    assert {(d.row, d.other) for d in crossed.differences} == {("p", "no_compression")}
    assert (crossed.rows_only_a, crossed.rows_only_b) == (("no_compression",), ("p",))
    assert compare(toy(), toy(name="q")).rows_only_b == ("q",)


def test_what_else_differs_is_said():
    here = {"cpu": "one", "cores": 2, "threads": 2, "device": "cpu", "versions": {"ragzip": "0.1.0"}}
    there = {**here, "cpu": "two", "versions": {"ragzip": "0.2.0"}}
    models = [{"p": {"pipeline": {"generator": {"model": model}, "prompt": {"type": "qa"}}}} for model in "ab"]
    one = toy(environment=here, settings=models[0], seed=0)
    other = toy(environment=there, settings=models[1])
    notes = " ".join(compare(one, other).notes)
    assert "machines differ (cpu one, two): ttft" in notes
    assert "0.1.0 and 0.2.0" in notes
    assert "The generator differs in p." in notes
    assert "prompt" not in notes
    assert "machines" not in " ".join(compare(one, other, metrics=["em"]).notes)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: (toy(), toy(sha="b" * 64)), "different data"),
        (lambda: (toy(sha=""), toy(sha="")), "different data"),
        (lambda: (run_of({"p": {"em": [1]}}), run_of({"q": {"em": [1]}})), "no row has the same name"),
        (lambda: (run_of({"p": {"em": {"a": 1}}}), run_of({"p": {"em": {"b": 1}}})), "no question in common"),
        (lambda: (run_of({"p": {"em": [1]}}), run_of({"p": {"f1": [1]}})), "no metric in common"),
    ],
)
def test_runs_that_cannot_be_compared(make, words):
    with pytest.raises(UsageError, match=words) as error:
        compare(*make())
    assert error.value.hint


def test_what_is_not_there():
    with pytest.raises(UsageError, match="first run has no metric 'f1'"):
        compare(toy(), toy(), metrics=["f1"])
    with pytest.raises(UsageError, match="second run: the run has no row called 'x'"):
        compare(toy(), toy(), pairs=[("p", "x")])


def test_json_and_table():
    found = compare(toy(), toy(shift=40))
    values = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert values["differences"][0]["row"] == "no_compression"
    assert {d["significant"] for d in values["differences"]} == {True, False}
    table = found.table()
    assert len(table) == len(found.differences)
    verdicts = {(line[0], line[1]): line[-1] for line in table}
    assert verdicts["p", "em"] == "better"
    assert verdicts["no_compression", "em"] == "not significant"
    assert all(math.isfinite(d.p_corrected) for d in found.differences)


def test_few_questions_without_a_difference_are_no_certainty():
    found = compare(*(run_of({"p": {"em": [1.0] * 5}}) for _ in range(2))).differences[0]
    assert found.difference == 0
    assert found.low < -0.5 < 0.5 < found.high


def test_an_unfinished_run_is_said():
    one, other = toy(), toy()
    other.finished = False
    other.config["data"]["records"] = 200
    assert compare(one, other).notes == ("The second run is not finished: 80 of 200 questions are there.",)
    one.finished, other.finished = False, True
    assert compare(one, other).notes == ("The first run is not finished: 80 questions are there.",)
    one.finished = True
    assert compare(one, other).notes == ()


def test_failed_answers_are_said():
    one, other = toy(), toy()
    for line in other.lines["p"][:30]:
        line.update(error="out of memory", metrics=dict.fromkeys(line["metrics"]))
    found = compare(one, other)
    assert by_row(found, "em")["p"].n == N - 30
    assert any("p (0 in the first run, 30 in the second)" in note for note in found.notes)
    assert not any("no_compression" in note for note in found.notes)
