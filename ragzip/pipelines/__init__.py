"""Pipelines: retriever, stack, prompt and generator as one object; checks, prompts, citations."""

from ragzip.pipelines.check import check_stack
from ragzip.pipelines.pipeline import Pipeline, check_question
from ragzip.pipelines.prompt import QA, LongForm, Plain, YesNo
from ragzip.pipelines.provenance import Stretch, cite, highlight
from ragzip.pipelines.stream import AnswerStream

__all__ = [
    "QA",
    "AnswerStream",
    "LongForm",
    "Pipeline",
    "Plain",
    "Stretch",
    "YesNo",
    "check_question",
    "check_stack",
    "cite",
    "highlight",
]
