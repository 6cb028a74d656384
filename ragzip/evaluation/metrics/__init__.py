"""Metrics, as values that print and parse as their names. ``docs/metrics.md`` defines each of them."""

from ragzip.evaluation.metrics.answers import F1, ExactMatch, Match
from ragzip.evaluation.metrics.base import NEEDS, Metric
from ragzip.evaluation.metrics.costs import Cost, Ratio
from ragzip.evaluation.metrics.evidence import AnswerInContext, Sentences
from ragzip.evaluation.metrics.names import all_names, forms, parse, register_metric
from ragzip.evaluation.metrics.normalise import normalise
from ragzip.evaluation.metrics.ranking import MRR, NDCG, Recall
from ragzip.evaluation.metrics.rouge import RougeL

__all__ = [
    "F1",
    "MRR",
    "NDCG",
    "NEEDS",
    "AnswerInContext",
    "Cost",
    "ExactMatch",
    "Match",
    "Metric",
    "Ratio",
    "Recall",
    "RougeL",
    "Sentences",
    "all_names",
    "forms",
    "normalise",
    "parse",
    "register_metric",
]
