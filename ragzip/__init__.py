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
    from ragzip.compressors.comp_llm import CompLLM
    from ragzip.compressors.coverage import Coverage
    from ragzip.compressors.dedupe import Dedupe
    from ragzip.compressors.exit import EXIT
    from ragzip.compressors.gate import Gate
    from ragzip.compressors.icae import ICAE
    from ragzip.compressors.identity import Identity
    from ragzip.compressors.llmlingua import LLMLingua
    from ragzip.compressors.llmlingua2 import LLMLingua2
    from ragzip.compressors.long_llmlingua import LongLLMLingua
    from ragzip.compressors.provence import Provence
    from ragzip.compressors.random_sentences import RandomSentences
    from ragzip.compressors.recomp_abstractive import RecompAbstractive
    from ragzip.compressors.recomp_extractive import RecompExtractive
    from ragzip.compressors.refrag import REFRAG
    from ragzip.compressors.reorder import Reorder
    from ragzip.compressors.selective_context import SelectiveContext
    from ragzip.compressors.semantic_drop import SemanticDrop
    from ragzip.compressors.sentence_filter import SentenceFilter
    from ragzip.compressors.structured import Structured
    from ragzip.compressors.summary import Summary
    from ragzip.compressors.text_then_soft import TextThenSoft
    from ragzip.compressors.top_k import TopK
    from ragzip.compressors.truncate import Truncate
    from ragzip.compressors.xrag import XRAG
    from ragzip.errors import RagzipError
    from ragzip.generators.echo import Echo
    from ragzip.generators.huggingface import HuggingFace
    from ragzip.generators.openai import OpenAI
    from ragzip.indexes.from_paths import build_index
    from ragzip.kv.expected_attention import ExpectedAttention
    from ragzip.kv.h2o import H2O
    from ragzip.kv.precomputed import PrecomputedKV
    from ragzip.kv.quantized import QuantizedKV
    from ragzip.kv.scissorhands import Scissorhands
    from ragzip.kv.sentence_kv import SentenceKV
    from ragzip.kv.snapkv import SnapKV
    from ragzip.kv.streaming_llm import StreamingLLM
    from ragzip.pipelines.pipeline import Pipeline
    from ragzip.pipelines.prompt import QA, LongForm, Plain, YesNo
    from ragzip.pipelines.provenance import highlight
    from ragzip.protocols import Compressor, Generator, Prompt, Retriever, Selector, Stack
    from ragzip.registry import register
    from ragzip.retrievers import for_index
    from ragzip.retrievers.bm25 import BM25
    from ragzip.retrievers.cross_encoder import CrossEncoder
    from ragzip.retrievers.dense import Dense
    from ragzip.retrievers.fusion import Fusion
    from ragzip.retrievers.graph import Graph
    from ragzip.retrievers.jpq import JPQ
    from ragzip.retrievers.lexsem import LexSem
    from ragzip.retrievers.multi_vector import MultiVector
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
    "ragzip.compressors.comp_llm": ["CompLLM"],
    "ragzip.compressors.coverage": ["Coverage"],
    "ragzip.compressors.dedupe": ["Dedupe"],
    "ragzip.compressors.exit": ["EXIT"],
    "ragzip.compressors.gate": ["Gate"],
    "ragzip.compressors.icae": ["ICAE"],
    "ragzip.compressors.identity": ["Identity"],
    "ragzip.compressors.llmlingua": ["LLMLingua"],
    "ragzip.compressors.llmlingua2": ["LLMLingua2"],
    "ragzip.compressors.long_llmlingua": ["LongLLMLingua"],
    "ragzip.compressors.provence": ["Provence"],
    "ragzip.compressors.random_sentences": ["RandomSentences"],
    "ragzip.compressors.recomp_abstractive": ["RecompAbstractive"],
    "ragzip.compressors.recomp_extractive": ["RecompExtractive"],
    "ragzip.compressors.refrag": ["REFRAG"],
    "ragzip.compressors.reorder": ["Reorder"],
    "ragzip.compressors.selective_context": ["SelectiveContext"],
    "ragzip.compressors.semantic_drop": ["SemanticDrop"],
    "ragzip.compressors.sentence_filter": ["SentenceFilter"],
    "ragzip.compressors.structured": ["Structured"],
    "ragzip.compressors.summary": ["Summary"],
    "ragzip.compressors.text_then_soft": ["TextThenSoft"],
    "ragzip.compressors.top_k": ["TopK"],
    "ragzip.compressors.truncate": ["Truncate"],
    "ragzip.compressors.xrag": ["XRAG"],
    "ragzip.errors": ["RagzipError"],
    "ragzip.generators.echo": ["Echo"],
    "ragzip.generators.huggingface": ["HuggingFace"],
    "ragzip.generators.openai": ["OpenAI"],
    "ragzip.indexes.from_paths": ["build_index"],
    "ragzip.kv.expected_attention": ["ExpectedAttention"],
    "ragzip.kv.h2o": ["H2O"],
    "ragzip.kv.precomputed": ["PrecomputedKV"],
    "ragzip.kv.quantized": ["QuantizedKV"],
    "ragzip.kv.scissorhands": ["Scissorhands"],
    "ragzip.kv.sentence_kv": ["SentenceKV"],
    "ragzip.kv.snapkv": ["SnapKV"],
    "ragzip.kv.streaming_llm": ["StreamingLLM"],
    "ragzip.pipelines.pipeline": ["Pipeline"],
    "ragzip.pipelines.prompt": ["QA", "LongForm", "Plain", "YesNo"],
    "ragzip.pipelines.provenance": ["highlight"],
    "ragzip.protocols": ["Compressor", "Generator", "Prompt", "Retriever", "Selector", "Stack"],
    "ragzip.registry": ["register"],
    "ragzip.retrievers": ["for_index"],
    "ragzip.retrievers.bm25": ["BM25"],
    "ragzip.retrievers.cross_encoder": ["CrossEncoder"],
    "ragzip.retrievers.dense": ["Dense"],
    "ragzip.retrievers.fusion": ["Fusion"],
    "ragzip.retrievers.graph": ["Graph"],
    "ragzip.retrievers.jpq": ["JPQ"],
    "ragzip.retrievers.lexsem": ["LexSem"],
    "ragzip.retrievers.multi_vector": ["MultiVector"],
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
    "H2O",
    "ICAE",
    "JPQ",
    "QA",
    "REFRAG",
    "XRAG",
    "Answer",
    "BM25Sentences",
    "Budget",
    "Citation",
    "CompLLM",
    "CompressionResult",
    "Compressor",
    "Context",
    "Coverage",
    "CrossEncoder",
    "Dedupe",
    "Dense",
    "Echo",
    "ExpectedAttention",
    "Fusion",
    "Gate",
    "Generator",
    "Graph",
    "HuggingFace",
    "Identity",
    "LLMLingua",
    "LLMLingua2",
    "LexSem",
    "LongForm",
    "LongLLMLingua",
    "MultiVector",
    "OpenAI",
    "Oracle",
    "Passage",
    "Pipeline",
    "Plain",
    "PrecomputedKV",
    "Prompt",
    "Provence",
    "QuantizedKV",
    "Query",
    "RagzipError",
    "RandomSentences",
    "RecompAbstractive",
    "RecompExtractive",
    "Reorder",
    "Rerank",
    "Retriever",
    "Scissorhands",
    "SelectiveContext",
    "Selector",
    "SemanticDrop",
    "SentenceFilter",
    "SentenceKV",
    "SnapKV",
    "SoftSegment",
    "Span",
    "Stack",
    "Status",
    "Step",
    "StreamingLLM",
    "Structured",
    "Summary",
    "TextSegment",
    "TextThenSoft",
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
