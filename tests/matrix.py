"""What the laws run over: every registered compressor, by examples of its options.

A new method is tested by being named in the registry; it needs an entry here, and a test fails until it has one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from ragzip.compressors.bm25_sentences import BM25Sentences
from ragzip.compressors.budget import Budget
from ragzip.compressors.dedupe import Dedupe
from ragzip.compressors.identity import Identity
from ragzip.compressors.random_sentences import RandomSentences
from ragzip.compressors.reorder import Reorder
from ragzip.compressors.sentence_filter import SentenceFilter
from ragzip.compressors.top_k import TopK
from ragzip.compressors.truncate import Truncate
from ragzip.protocols import Compressor, Stack
from ragzip.tokens import TokenCounter

COMPRESSORS: dict[str, list[Callable[[], Compressor[Any, Any]]]] = {
    "identity": [Identity],
    "truncate": [lambda: Truncate(tokens=12), lambda: Truncate(keep=0.5)],
    "top_k": [TopK, lambda: TopK(k=1)],
    "dedupe": [Dedupe, lambda: Dedupe(threshold=0.3)],
    "reorder": [Reorder, lambda: Reorder("score"), lambda: Reorder("original")],
    "sentence_filter": [
        SentenceFilter,
        lambda: SentenceFilter(threshold=0.2),
        lambda: SentenceFilter(keep=0.3),
        lambda: SentenceFilter(budget=12),
        lambda: SentenceFilter(threshold=0.05, keep=0.7, budget=15),
    ],
    "bm25_sentences": [BM25Sentences, lambda: BM25Sentences(budget=12), lambda: BM25Sentences(threshold=0.1)],
    "random_sentences": [RandomSentences, lambda: RandomSentences(keep=0.3, seed=3), lambda: RandomSentences(budget=9)],
    "budget": [lambda: Budget(12), lambda: Budget(0)],
    "stack": [Stack, lambda: Stack((Dedupe(), SentenceFilter(keep=0.6), Reorder()), min_tokens=3)],
}


class HashedWords:
    """A sentence encoder without weights: each word has a fixed direction. Stands in for a real one."""

    name, dimensions, max_tokens, fingerprint = "hashed-words", 32, 256, "0"

    def encode(self, texts: Sequence[str], **_: Any) -> np.ndarray:
        """``[n, 32]``, rows of length 1."""
        rows = np.stack([np.sum([_direction(w) for w in t.lower().split()[:64]] or [_direction("")], 0) for t in texts])
        return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)).astype(np.float32)


@cache
def _direction(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(word.encode("utf-8", "replace")).digest()[:8], "big")
    return np.random.default_rng(seed).standard_normal(32)


@cache
def bpe_counter() -> TokenCounter:
    """A byte-level BPE trained on a page: counts of parts do not add up, as with real generators."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    page = "The retriever finds passages. A sentence of Rome, in the city!\n\nWho was there? It costs 3.5 dollars.\n"
    tokenizer.train_from_iterator([page * 20, "the and for that with this one two three four " * 20], trainer)

    def count(texts: Sequence[str]) -> list[int]:
        return [len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    return TokenCounter(count)
