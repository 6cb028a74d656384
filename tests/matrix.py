"""What the laws run over: every registered compressor, by examples of its options.

A new method is tested by being named in the registry; it needs an entry here, and a test fails until it has one.
"""

from __future__ import annotations

import atexit
import hashlib
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

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
from ragzip.models.pruner import Judged
from ragzip.models.token_classifier import TokenScores
from ragzip.protocols import Compressor, Stack
from ragzip.testing.models import tiny_causal_lm, tiny_encoder
from ragzip.testing.soft import tiny_soft
from ragzip.tokens import TokenCounter
from ragzip.types import Generation

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
    "provence": [
        Provence,
        lambda: Provence(threshold=0.5),
        lambda: Provence(budget=12, order="relevance"),
        lambda: Provence(threshold=0.3, keep=0.7, budget=15, top_k=1, force_keep=("numbers", "titles")),
        lambda: Provence(keep=0.4, top_k=2, order="relevance", force_pattern="[aeiou]{2}"),
    ],
    "exit": [
        EXIT,
        lambda: EXIT(keep=0.3),
        lambda: EXIT(budget=12),
        lambda: EXIT(threshold=0.6, budget=20, force_keep=("numbers",)),
    ],
    "bm25_sentences": [BM25Sentences, lambda: BM25Sentences(budget=12), lambda: BM25Sentences(threshold=0.1)],
    "random_sentences": [RandomSentences, lambda: RandomSentences(keep=0.3, seed=3), lambda: RandomSentences(budget=9)],
    "recomp_extractive": [
        RecompExtractive,
        lambda: RecompExtractive(budget=12),
        lambda: RecompExtractive(threshold=0.2, keep=0.6, force_pattern="R[a-z]+"),
    ],
    "coverage": [
        Coverage,
        lambda: Coverage(budget=12),
        lambda: Coverage(threshold=0.1, keep=0.4, relevance=0.0, scaling=0.5, force_keep=("numbers", "negations")),
    ],
    "structured": [
        Structured,
        lambda: Structured(budget=12),
        lambda: Structured(Stack((Dedupe(), Truncate(keep=0.5)))),
        lambda: Structured(BM25Sentences(budget=20), budget=15),
    ],
    "llmlingua2": [
        LLMLingua2,
        lambda: LLMLingua2(budget=12),
        lambda: LLMLingua2(threshold=0.5, keep=0.7, word="max", force_keep=("titles", "numbers", "negations")),
        lambda: LLMLingua2(threshold=0.4, word="first", force_pattern="[aeiou]{2}"),
    ],
    "llmlingua": [
        LLMLingua,
        lambda: LLMLingua(budget=12, step=50),
        lambda: LLMLingua(threshold=4.0, force_keep=("titles", "numbers", "negations")),
        lambda: LLMLingua(keep=0.3, threshold=1.0, passage_room=1.0, sentence_room=1.0, force_pattern="[aeiou]{2}"),
    ],
    "long_llmlingua": [
        LongLLMLingua,
        lambda: LongLLMLingua(budget=12, order="score"),
        lambda: LongLLMLingua(threshold=0.5, order="score", force_keep=("titles", "numbers", "negations")),
        lambda: LongLLMLingua(keep=0.3, threshold=0.2, passage_room=1.0, spread=1.0, force_pattern="[aeiou]{2}"),
    ],
    "selective_context": [
        SelectiveContext,
        lambda: SelectiveContext(budget=12, level="word", force_keep=("titles", "numbers", "negations")),
        lambda: SelectiveContext(threshold=4.0, level="sentence", force_pattern="[aeiou]{2}"),
    ],
    "semantic_drop": [SemanticDrop, lambda: SemanticDrop(budget=12), lambda: SemanticDrop(threshold=0.01, exact=False)],
    "recomp_abstractive": [
        RecompAbstractive,
        lambda: RecompAbstractive(budget=12, window=256),
        lambda: RecompAbstractive(keep=0.5, force_keep=("titles", "numbers", "negations"), force_pattern="R[a-z]+"),
    ],
    "summary": [
        Summary,
        lambda: Summary(budget=12, force_keep=("numbers",), batch_size=1),
        lambda: Summary(keep=0.3, similarity=0.9, keywords=0, window=256),
        lambda: Summary(objective="color", force_pattern="[0-9]"),
    ],
    "gate": [
        Gate,
        lambda: Gate(threshold=0.6, force_keep=("titles", "numbers"), force_pattern="漢"),
        lambda: Gate(by="perplexity", threshold=0.1),
    ],
    "xrag": [lambda: XRAG(soft_model("xrag"), dtype="fp32")],
    "comp_llm": [
        lambda: CompLLM(soft_model("comp_llm"), dtype="fp32"),
        lambda: CompLLM(soft_model("comp_llm"), dtype="fp32", rate=4),
    ],
    "icae": [lambda: ICAE(soft_model("icae"), dtype="fp32")],
    "refrag": [
        lambda: REFRAG(soft_model("refrag"), dtype="fp32", policy="similarity"),
        lambda: REFRAG(soft_model("refrag"), dtype="fp32", expand=0.5, policy="provence"),
        lambda: REFRAG(soft_model("refrag"), dtype="fp32", policy="perplexity", budget=12),
        lambda: REFRAG(soft_model("refrag"), dtype="fp32", policy="provence", budget=12),
        lambda: REFRAG(soft_model("refrag"), dtype="fp32", expand=1.0, policy="trained", budget=20),
        lambda: REFRAG(soft_model("refrag"), dtype="fp32", expand=1.0, policy="provence", threshold=0.5, budget=20),
        lambda: REFRAG(soft_model("refrag"), dtype="fp32", expand=0.0, policy="similarity", threshold=0.1),
    ],
    "text_then_soft": [
        lambda: TextThenSoft(XRAG(soft_model("xrag"), dtype="fp32"), budget=12),
        lambda: TextThenSoft(CompLLM(soft_model("comp_llm"), dtype="fp32"), text=1),
        lambda: TextThenSoft(REFRAG(soft_model("refrag"), dtype="fp32", policy="similarity", threshold=0.1), budget=20),
    ],
    "budget": [lambda: Budget(12), lambda: Budget(0)],
    "stack": [Stack, lambda: Stack((Dedupe(), SentenceFilter(keep=0.6), Reorder()), min_tokens=3)],
}

ABSTRACTIVE = frozenset({"recomp_abstractive", "summary"})
"""Those that write new text: it is not what their spans say."""


SOFT = frozenset({"xrag", "comp_llm", "icae", "refrag", "text_then_soft"})
"""Those whose output holds rows of input embeddings."""


@cache
def soft_model(architecture: str) -> str:
    """A folder of random weights over tiny models, made once in a process."""
    root = Path(tempfile.mkdtemp(prefix="ragzip-soft-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    encoder = tiny_encoder(root / "encoder") if architecture in ("xrag", "refrag") else ""
    return str(tiny_soft(root / architecture, architecture, base=tiny_causal_lm(root / "lm"), encoder=encoder))


class HashedWords:
    """A sentence encoder without weights: each word has a fixed direction. Stands in for a real one."""

    name, dimensions, max_tokens, fingerprint, query_prompt = "hashed-words", 32, 256, "0", ""

    @property
    def room(self) -> int:
        """Words read at once: the window without two special tokens."""
        return self.max_tokens - 2

    def encode(self, texts: Sequence[str], **_: Any) -> np.ndarray:
        """``[n, 32]``, rows of length 1."""
        rows = np.stack(
            [np.sum([_direction(w) for w in t.lower().split()[: self.room]] or [_direction("")], 0) for t in texts]
        )
        return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)).astype(np.float32)

    def asking(self, texts: Sequence[str]) -> list[str]:
        """They are read as they are."""
        return [self.query_prompt + text for text in texts]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Words."""
        return [len(text.split()) for text in texts]

    def tokens(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pieces of at most four characters as tokens, whose ids mean as little as all ids."""
        return [_pieces(text) for text in texts]

    def encode_tokens(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """``[n, 32]``, rows of length 1."""
        table = np.stack([_direction(str(number)) for number in range(_IDS)])
        sums = np.stack([table[row].sum(0) + table[0] for row in rows])
        return (sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)).astype(np.float32)

    def token_vectors(self, rows: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """What ``encode_tokens`` adds up."""
        table = np.stack([_direction(str(number)) for number in range(_IDS)])
        return [(table[row], table[0]) for row in rows]


class HashedDual(HashedWords):
    """A dual encoder without weights."""

    title = True


class HashedTokens:
    """A token classifier without weights: each piece of a word has a fixed probability. Stands in for a real one."""

    def scores(self, texts: Sequence[str]) -> list[TokenScores]:
        """One of at most four characters each."""
        found = [_pieces(text) for text in texts]
        return [TokenScores(offsets, (ids / _IDS).astype(np.float32)) for ids, offsets in found]


_IDS = 1009


def _pieces(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids ``[n]`` and offsets ``[n, 2]``."""
    offsets = [match.span() for match in re.finditer(r"\S{1,4}", text)]
    ids = [zlib.crc32(text[start:end].encode("utf-8", "replace")) % _IDS for start, end in offsets]
    return np.asarray(ids, dtype=np.int64), np.asarray(offsets, dtype=np.int64).reshape(-1, 2)


class HashedPruner:
    """A cross-encoder without weights: pieces of words and passages have fixed scores for each question.

    Attributes:
        hops: It reads twice, as the shipped weights do.
        calls: What it was asked.
    """

    hops = 2

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str], list[str]]] = []

    def room(self, question: str) -> int:
        """Tokens that are read behind a question: a long one leaves none."""
        return max(96 - len(question) // 4, 0)

    def judge(
        self, question: str, texts: Sequence[str], titles: Sequence[str], *, found: str = "", seen: object = None
    ) -> list[Judged]:
        """As ``Pruner.judge``."""
        self.calls.append((question, list(texts), list(titles)))
        salt = zlib.crc32((question + found).encode("utf-8", "replace"))
        return [
            Judged(offsets, ((ids + salt) % _IDS / _IDS).astype(np.float32), (int(ids.sum()) + salt) % _IDS / _IDS)
            for ids, offsets in map(_pieces, texts)
        ]


class HashedWriter:
    """A language model without weights, of all kinds at once: silent, wordy, repeating, by a hash of the prompt."""

    def room(self, max_new_tokens: int, window: int | None = None) -> int:
        """Tokens of a prompt."""
        return min(2000 - max_new_tokens, window or 2000)

    def encode(self, request: Any) -> SimpleNamespace:
        """Four characters a token."""
        return SimpleNamespace(text=request.user, length=len(request.user) // 4)

    def write(self, prompts: Sequence[Any], *, max_new_tokens: int, **_: Any) -> list[Generation]:
        """The likeliest text."""
        return [_written(prompt.text, max_new_tokens) for prompt in prompts]

    def write_unless(self, prompts: Sequence[Any], *, max_new_tokens: int, **_: Any) -> list[tuple[Generation, float]]:
        """The same with a probability by a hash."""
        texts = self.write(prompts, max_new_tokens=max_new_tokens)
        return [
            (text, zlib.crc32(prompt.text.encode("utf-8", "replace")) % 7 / 7)
            for text, prompt in zip(texts, prompts, strict=True)
        ]


def _written(prompt: str, most: int) -> Generation:
    words = prompt.split()
    kinds = (
        "",
        "NONE",
        "Rome fell. Rome fell. Rome fell.",
        " ".join(words[::-1][:most]),
        " ".join(words[1:-1:3][:most]) + ". And so on",
        "\u0301 😀。\n\n- item <|im_end|> 3.5",
    )
    text = kinds[zlib.crc32(prompt.encode("utf-8", "replace")) % len(kinds)]
    return Generation(text, len(words), most, 0.0, 0.0, stopped=len(text) % 2 == 0)


class HashedLosses:
    """A reader for perplexities without weights: each text has fixed losses."""

    window, longest = 256, 63

    def count(self, texts: Sequence[str]) -> list[int]:
        """Words."""
        return [len(text.split()) for text in texts]

    def encode(self, texts: Sequence[str]) -> list[str]:
        """The texts themselves."""
        return list(texts)

    def read(self, texts: Sequence[str], *, prefix: str = "", suffix: str = "") -> list[SimpleNamespace]:
        """Between 0 and 1 nat."""
        found = [f"{prefix}{text}{suffix}".encode("utf-8", "replace") for text in texts]
        return [SimpleNamespace(after=zlib.crc32(text) / 2**32) for text in found]


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
