"""ragzip: context compression for retrieval-augmented generation.

    >>> import ragzip
    >>> stack = ragzip.SentenceFilter(budget=400) >> ragzip.Reorder()
    >>> pipeline = ragzip.Pipeline(ragzip.HuggingFace(), ragzip.Dense("kb/"), stack)

Importing ragzip loads no heavy library; each name is imported from its own file on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragzip.compressors.bm25_sentences import BM25Sentences
    from ragzip.compressors.budget import Budget
    from ragzip.compressors.coverage import Coverage
    from ragzip.compressors.dedupe import Dedupe
    from ragzip.compressors.exit import EXIT
    from ragzip.compressors.gate import Gate
    from ragzip.compressors.identity import Identity
    from ragzip.compressors.llmlingua import LLMLingua
    from ragzip.compressors.llmlingua2 import LLMLingua2
    from ragzip.compressors.long_llmlingua import LongLLMLingua
    from ragzip.compressors.provence import Provence
    from ragzip.compressors.random_sentences import RandomSentences
    from ragzip.compressors.recomp_abstractive import RecompAbstractive
    from ragzip.compressors.recomp_extractive import RecompExtractive
    from ragzip.compressors.reorder import Reorder
    from ragzip.compressors.selective_context import SelectiveContext
    from ragzip.compressors.semantic_drop import SemanticDrop
    from ragzip.compressors.sentence_filter import SentenceFilter
    from ragzip.compressors.structured import Structured
    from ragzip.compressors.summary import Summary
    from ragzip.compressors.top_k import TopK
    from ragzip.compressors.truncate import Truncate
    from ragzip.errors import RagzipError
    from ragzip.generators.echo import Echo
    from ragzip.generators.huggingface import HuggingFace
    from ragzip.generators.openai import OpenAI
    from ragzip.indexes.from_paths import build_index
    from ragzip.pipelines.pipeline import Pipeline
    from ragzip.pipelines.prompt import QA, LongForm, Plain, YesNo
    from ragzip.pipelines.provenance import highlight
    from ragzip.protocols import Compressor, Generator, Prompt, Retriever, Selector, Stack
    from ragzip.registry import register
    from ragzip.retrievers import for_index
    from ragzip.retrievers.bm25 import BM25
    from ragzip.retrievers.dense import Dense
    from ragzip.retrievers.fusion import Fusion
    from ragzip.retrievers.oracle import Oracle
    from ragzip.retrievers.rerank import Rerank
    from ragzip.types import (
        Answer,
        Citation,
        CompressionResult,
        Context,
        Passage,
        Query,
        SoftSegment,
        Span,
        Status,
        Step,
        TextSegment,
        context_of,
    )

__version__ = "0.1.0"

_WHERE = {
    "ragzip.compressors.bm25_sentences": ["BM25Sentences"],
    "ragzip.compressors.budget": ["Budget"],
    "ragzip.compressors.coverage": ["Coverage"],
    "ragzip.compressors.dedupe": ["Dedupe"],
    "ragzip.compressors.exit": ["EXIT"],
    "ragzip.compressors.gate": ["Gate"],
    "ragzip.compressors.identity": ["Identity"],
    "ragzip.compressors.llmlingua": ["LLMLingua"],
    "ragzip.compressors.llmlingua2": ["LLMLingua2"],
    "ragzip.compressors.long_llmlingua": ["LongLLMLingua"],
    "ragzip.compressors.provence": ["Provence"],
    "ragzip.compressors.random_sentences": ["RandomSentences"],
    "ragzip.compressors.recomp_abstractive": ["RecompAbstractive"],
    "ragzip.compressors.recomp_extractive": ["RecompExtractive"],
    "ragzip.compressors.reorder": ["Reorder"],
    "ragzip.compressors.selective_context": ["SelectiveContext"],
    "ragzip.compressors.semantic_drop": ["SemanticDrop"],
    "ragzip.compressors.sentence_filter": ["SentenceFilter"],
    "ragzip.compressors.structured": ["Structured"],
    "ragzip.compressors.summary": ["Summary"],
    "ragzip.compressors.top_k": ["TopK"],
    "ragzip.compressors.truncate": ["Truncate"],
    "ragzip.errors": ["RagzipError"],
    "ragzip.generators.echo": ["Echo"],
    "ragzip.generators.huggingface": ["HuggingFace"],
    "ragzip.generators.openai": ["OpenAI"],
    "ragzip.indexes.from_paths": ["build_index"],
    "ragzip.pipelines.pipeline": ["Pipeline"],
    "ragzip.pipelines.prompt": ["QA", "LongForm", "Plain", "YesNo"],
    "ragzip.pipelines.provenance": ["highlight"],
    "ragzip.protocols": ["Compressor", "Generator", "Prompt", "Retriever", "Selector", "Stack"],
    "ragzip.registry": ["register"],
    "ragzip.retrievers": ["for_index"],
    "ragzip.retrievers.bm25": ["BM25"],
    "ragzip.retrievers.dense": ["Dense"],
    "ragzip.retrievers.fusion": ["Fusion"],
    "ragzip.retrievers.oracle": ["Oracle"],
    "ragzip.retrievers.rerank": ["Rerank"],
    "ragzip.types": [
        "Answer",
        "Citation",
        "CompressionResult",
        "Context",
        "Passage",
        "Query",
        "SoftSegment",
        "Span",
        "Status",
        "Step",
        "TextSegment",
        "context_of",
    ],
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "BM25",
    "EXIT",
    "QA",
    "Answer",
    "BM25Sentences",
    "Budget",
    "Citation",
    "CompressionResult",
    "Compressor",
    "Context",
    "Coverage",
    "Dedupe",
    "Dense",
    "Echo",
    "Fusion",
    "Gate",
    "Generator",
    "HuggingFace",
    "Identity",
    "LLMLingua",
    "LLMLingua2",
    "LongForm",
    "LongLLMLingua",
    "OpenAI",
    "Oracle",
    "Passage",
    "Pipeline",
    "Plain",
    "Prompt",
    "Provence",
    "Query",
    "RagzipError",
    "RandomSentences",
    "RecompAbstractive",
    "RecompExtractive",
    "Reorder",
    "Rerank",
    "Retriever",
    "SelectiveContext",
    "Selector",
    "SemanticDrop",
    "SentenceFilter",
    "SoftSegment",
    "Span",
    "Stack",
    "Status",
    "Step",
    "Structured",
    "Summary",
    "TextSegment",
    "TopK",
    "Truncate",
    "YesNo",
    "build_index",
    "context_of",
    "for_index",
    "highlight",
    "register",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'ragzip' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE})
