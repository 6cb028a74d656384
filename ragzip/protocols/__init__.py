"""The roles: what a retriever, compressor, generator, prompt and metric must be, and how compressors stack."""

from ragzip.protocols._compressor import Compressor, Selector, Stack, runtime_field, walk
from ragzip.protocols._roles import (
    Counter,
    Generator,
    KVCompression,
    Metric,
    OnText,
    Prompt,
    Retriever,
    SupportsCounting,
    SupportsFuse,
    SupportsOffline,
    SupportsSpace,
)
from ragzip.protocols._run import Remembering, WordCounter, note, run_step

__all__ = [
    "Compressor",
    "Counter",
    "Generator",
    "KVCompression",
    "Metric",
    "OnText",
    "Prompt",
    "Remembering",
    "Retriever",
    "Selector",
    "Stack",
    "SupportsCounting",
    "SupportsFuse",
    "SupportsOffline",
    "SupportsSpace",
    "WordCounter",
    "note",
    "run_step",
    "runtime_field",
    "walk",
]
