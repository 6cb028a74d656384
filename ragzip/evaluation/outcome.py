"""What happened to one record in one pipeline: what metrics score."""

from __future__ import annotations

from dataclasses import dataclass

from ragzip.evaluation.record import Record
from ragzip.types import CompressionResult, Passage, Segment


@dataclass(frozen=True, slots=True)
class Costs:
    """What one answer took. Stages shared between pipelines were run once and count in each of them.

    Attributes:
        retrieve: Seconds.
        compress: Seconds of all compression steps, token counts included.
        prefill: Seconds from the end of compression to the first token: prompt, tokenizer, prefill.
        decode: Seconds from the first token to the last.
        prompt_tokens: Of the whole prompt, template included; 0 where nothing was generated.
        new_tokens: Generated.
        peak_memory: Most bytes this process (and its part of a GPU) held meanwhile, or None where unknown.
        prefill_flops: Floating point operations of the prefill, or None where the model's shapes are unknown.
        decode_flops: Floating point operations of all decoding steps, or None.
        index_bytes: Of what the retriever reads beside the passages, for each passage, or None without an index.
        build_seconds: That making it took, or None.
        kv_memory: Bytes of the prompt's key-value cache once a ``kv`` compressed it, or None where none did.
    """

    retrieve: float = 0.0
    compress: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    prompt_tokens: int = 0
    new_tokens: int = 0
    peak_memory: int | None = None
    prefill_flops: float | None = None
    decode_flops: float | None = None
    kv_memory: int | None = None
    index_bytes: float | None = None
    build_seconds: float | None = None

    @property
    def ttft(self) -> float:
        """Seconds from the question to the first token."""
        return self.retrieve + self.compress + self.prefill


@dataclass(frozen=True, slots=True)
class Outcome:
    """One record, answered by one pipeline.

    Attributes:
        record: The question and its labels.
        passages: What was retrieved, best first, before compression.
        compression: The context the generator read, and the account of the steps.
        answer: The generator's text; None where nothing was generated.
        costs: Time, memory and operations.
    """

    record: Record
    passages: tuple[Passage, ...]
    compression: CompressionResult[Segment]
    answer: str | None = None
    costs: Costs = Costs()
