"""Metrics on the examples that their reference implementations publish in their own documentation and tests."""

from __future__ import annotations

import pytest

from ragzip.evaluation.metrics import parse
from ragzip.evaluation.outcome import Outcome
from ragzip.evaluation.record import Record
from ragzip.types import CompressionResult, Passage, Query, context_of


def outcome(answer: str, *references: str) -> Outcome:
    compression = CompressionResult(context_of(Query("?"), ()), (), 0, 0)
    return Outcome(Record("q", "?", references), (), compression, answer)


def ranked(*documents: str, **grades: int) -> Outcome:
    passages = tuple(Passage(name, "text") for name in documents)
    record = Record("q", "?", qrels=grades)
    return Outcome(record, passages, CompressionResult(context_of(Query("?"), passages), (), 0, 0))


@pytest.mark.parametrize(
    ("target", "prediction", "fmeasure"),
    [
        ("testing one two", "testing", 1 / 2),  # rouge_score/rouge_scorer_test.py
        ("testing one two", "one two", 4 / 5),
        ("testing one two", "testing two", 4 / 5),
    ],
)
def test_rouge_l(target: str, prediction: str, fmeasure: float) -> None:
    assert parse("rouge_l").score(outcome(prediction, target)) == pytest.approx(fmeasure)


def test_ranking() -> None:
    """The two queries of ir-measures' README, whose nDCG it gives as 0.6309297535714575 and 1.0."""
    first, second = ranked("D0", "D1", D0=0, D1=1), ranked("D3", "D0", D0=0, D3=2)
    ndcg = parse("ndcg@10")
    assert ndcg.score(first) == pytest.approx(0.6309297535714575)
    assert ndcg.score(second) == pytest.approx(1.0)
    assert parse("mrr").score(first) == pytest.approx(0.5)
    assert parse("recall@1").score(first) == 0.0


@pytest.mark.parametrize(
    ("prediction", "references", "em", "f1"),
    [
        ("1976", ["1976"], 1.0, 1.0),  # the card of the squad metric
        ("1999", ["1976"], 0.0, 0.0),
        ("the Denver Broncos", ["Denver Broncos", "The Broncos of Denver"], 1.0, 1.0),
        ("in Santa Clara, California", ["Santa Clara"], 0.0, 2 * (2 / 4) * 1 / (2 / 4 + 1)),
    ],
)
def test_exact_match_and_f1(prediction: str, references: list[str], em: float, f1: float) -> None:
    found = outcome(prediction, *references)
    assert parse("em").score(found) == em
    assert parse("f1").score(found) == pytest.approx(f1)
