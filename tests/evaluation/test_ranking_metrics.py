from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ragzip.errors import ConfigError
from ragzip.evaluation.metrics import MRR, NDCG, Recall
from ragzip.evaluation.outcome import Outcome
from ragzip.evaluation.record import Record
from ragzip.types import CompressionResult, Passage, Query, Span, context_of


def outcome(passages, qrels=None, relevant=()) -> Outcome:
    found = tuple(p if isinstance(p, Passage) else Passage(p, "text") for p in passages)
    empty = CompressionResult(context_of(Query("q"), ()), (), 0, 0)
    return Outcome(Record("1", "q", relevant=tuple(relevant), qrels=qrels or {}), found, empty)


def dcg(grades):
    return sum(max(grade, 0) / math.log2(rank + 2) for rank, grade in enumerate(grades))


ids = st.sampled_from("abcdefghij")


@given(
    st.lists(ids, unique=True),
    st.dictionaries(ids, st.integers(-1, 3), max_size=8),
    st.integers(1, 12),
)
@example(["a"], {"a": -2, "b": 1}, 1)
def test_as_defined(found, qrels, k):
    case = outcome(found, qrels)
    relevant = {i for i, grade in qrels.items() if grade > 0}
    measures = Recall(k), NDCG(k), MRR(), MRR(k)
    if not relevant:
        assert [m.score(case) for m in measures] == [None] * 4
        return
    ranks = [rank for rank, i in enumerate(found, 1) if i in relevant]
    best = dcg(sorted(qrels.values(), reverse=True)[:k])
    expected = [
        len(relevant & set(found[:k])) / len(relevant),
        dcg([qrels.get(i, 0) for i in found[:k]]) / best,
        1 / ranks[0] if ranks else 0,
        1 / ranks[0] if ranks and ranks[0] <= k else 0,
    ]
    assert [m.score(case) for m in measures] == pytest.approx(expected)


def test_published_example():
    # of Järvelin and Kekäläinen's measure with the logarithm of rank + 1: grades 3 2 3 0 1 2
    qrels = dict(zip("abcdef", (3, 2, 3, 0, 1, 2), strict=True))
    ideal = dcg([3, 3, 2, 2, 1, 0])
    assert NDCG(6).score(outcome("abcdef", qrels)) == pytest.approx(dcg([3, 2, 3, 0, 1, 2]) / ideal)
    assert NDCG(6).score(outcome("abcdef", qrels)) == pytest.approx(0.961, abs=1e-3)


def test_equal_scores_do_not_matter_but_the_order_does():
    def passages(order):
        return [Passage(i, "text", score=1.0) for i in order]

    assert MRR().score(outcome(passages("zab"), {"z": 1})) == 1
    assert MRR().score(outcome(passages("abz"), {"z": 1})) == pytest.approx(1 / 3)


@pytest.mark.parametrize("key", ["id", "_id", "doc_id", "docid"])
def test_documents_cut_into_passages_count_once(key):
    def cut(number, document):
        return Passage(f"corpus.jsonl#{document}#{number}", "text", metadata={key: document, "source": "x"})

    found = [cut(0, 7), cut(1, 7), cut(0, 8), cut(1, 8), cut(0, 9)]
    case = outcome(found, {"9": 1, "8": 1})
    assert MRR().score(case) == 1 / 2
    assert Recall(2).score(case) == 1 / 2
    assert Recall(3).score(case) == 1


def test_a_passage_goes_by_its_own_id_first():
    found = [Passage("a", "text", metadata={"id": "b"}), Passage("c", "text", metadata={"id": True, "docid": "b"})]
    assert MRR().score(outcome(found, {"a": 1, "b": 0})) == 1
    assert MRR().score(outcome(found, {"b": 1})) == 1
    assert MRR().score(outcome(found[1:], {"True": 1})) == 0


def test_labelled_evidence_stands_in_for_judgements():
    spans = (Span("b", 0, 3), Span("b", 5, 6), Span("c", 0, 1))
    assert Recall(2).score(outcome("abc", relevant=spans)) == 1 / 2
    assert Recall(2).score(outcome("abc", {"a": 1}, spans)) == 1
    assert Recall(2).score(outcome("", relevant=spans)) == 0


def test_needs_and_options():
    for metric in (Recall(5), NDCG(10), MRR(), MRR(10)):
        assert metric.needs == {"qrels"} and metric.quality and metric.higher_is_better
    for build in (lambda: Recall(0), lambda: NDCG(True), lambda: MRR(2.5), lambda: Recall(10**6)):
        with pytest.raises(ConfigError, match="k: must be a whole number"):
            build()
