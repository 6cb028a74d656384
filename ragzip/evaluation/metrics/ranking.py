"""Retrieval against judgements, as trec_eval counts, through ``ir-measures``.

The passages count in the order they were retrieved in, before compression. Judgements are the record's ``qrels``, or,
where it has none, the passages that hold labelled evidence, each of grade 1.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ragzip.errors import ConfigError
from ragzip.evaluation.metrics.base import Metric
from ragzip.evaluation.outcome import Outcome
from ragzip.evaluation.record import Record
from ragzip.types import Passage

ID_KEYS = ("id", "_id", "doc_id", "docid")
"""Metadata under which an index keeps the id of the document that a passage was cut from."""

GREATEST_CUTOFF = 999_999


class RankingMetric(Metric):
    """A value between 0 and 1 for the ranking; None where nothing is judged relevant."""

    _needs = frozenset({"qrels"})

    def score(self, outcome: Outcome) -> float | None:
        """The measure on this one question."""
        grades = judgements(outcome.record)
        if not any(grade > 0 for grade in grades.values()):
            return None
        ranked = ranking(outcome.passages, grades)
        if not ranked:
            return 0.0
        import ir_measures

        qrels = {"q": {document: max(grade, 0) for document, grade in grades.items()}}
        run = {"q": {document: float(len(ranked) - rank) for rank, document in enumerate(ranked)}}
        return float(next(iter(ir_measures.iter_calc([self.measure()], qrels, run))).value)

    @abstractmethod
    def measure(self) -> Any:
        """The measure of ``ir_measures``."""


@dataclass(frozen=True)
class Recall(RankingMetric):
    """``recall@k``: share of the relevant passages or documents among the first k.

    Attributes:
        k: How many of the retrieved count.
    """

    k: int

    def __post_init__(self) -> None:
        _check_cutoff(self.k)

    @property
    def name(self) -> str:
        """``recall@k``."""
        return f"recall@{self.k}"

    def measure(self) -> Any:
        """``R@k``."""
        from ir_measures import R

        return R @ self.k


@dataclass(frozen=True)
class NDCG(RankingMetric):
    """``ndcg@k``: discounted gain of the first k, divided by the best there could be; gain is the grade.

    Attributes:
        k: How many of the retrieved count.
    """

    k: int

    def __post_init__(self) -> None:
        _check_cutoff(self.k)

    @property
    def name(self) -> str:
        """``ndcg@k``."""
        return f"ndcg@{self.k}"

    def measure(self) -> Any:
        """``nDCG@k``."""
        from ir_measures import nDCG

        return nDCG @ self.k


@dataclass(frozen=True)
class MRR(RankingMetric):
    """``mrr``, ``mrr@k``: one divided by the rank of the first relevant one, 0 where none is found.

    Attributes:
        k: How many of the retrieved count; None for all.
    """

    k: int | None = None

    def __post_init__(self) -> None:
        if self.k is not None:
            _check_cutoff(self.k)

    @property
    def name(self) -> str:
        """``mrr`` or ``mrr@k``."""
        return "mrr" if self.k is None else f"mrr@{self.k}"

    def measure(self) -> Any:
        """``RR`` or ``RR@k``."""
        from ir_measures import RR

        return RR if self.k is None else RR @ self.k


def judgements(record: Record) -> Mapping[str, int]:
    """Grades by id: the record's own, or 1 for each passage with labelled evidence."""
    return record.qrels or {span.passage_id: 1 for span in record.relevant}


def ranking(passages: tuple[Passage, ...], grades: Mapping[str, int]) -> list[str]:
    """Ids in the order retrieved, each once at its best rank: of a passage where it is judged, else of its document.

    An index cuts documents into passages with ids of their own; the judged id then stands in the metadata.
    """
    return list(dict.fromkeys(_id(passage, grades) for passage in passages))


def document_ids(passage: Passage) -> list[str]:
    """Under what ids the metadata knows the document that a passage was cut from."""
    values = [passage.metadata.get(key) for key in ID_KEYS]
    return [str(value) for value in values if isinstance(value, str | int) and not isinstance(value, bool)]


def _id(passage: Passage, grades: Mapping[str, int]) -> str:
    if passage.id in grades:
        return passage.id
    documents = document_ids(passage)
    for document in documents:
        if document in grades:
            return document
    return documents[0] if documents else passage.id


def _check_cutoff(k: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= GREATEST_CUTOFF:
        raise ConfigError("k", f"must be a whole number from 1 to {GREATEST_CUTOFF}, not {k!r}")
