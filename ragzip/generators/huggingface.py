"""Any causal language model of ``transformers``, on this machine, frozen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ragzip.errors import PromptTooLong
from ragzip.generators import _options
from ragzip.kv import check_methods
from ragzip.models import GENERATOR, CausalLM, CountTokens, Dtype, canonical, check_options, load_causal_lm
from ragzip.protocols import KVCompression, OnText
from ragzip.text import opens_quotation
from ragzip.types import Generation, Message, Segment

if TYPE_CHECKING:
    from ragzip.models.chat import EncodedPrompt


@dataclass(frozen=True)
class HuggingFace:
    """A local language model that reads text and soft segments in one prompt.

    The chat template is the model's own; a model without one reads the turns with a blank line between. Soft segments
    go in as rows of input embeddings at their place in the template. Text never turns into control tokens. Where the
    last turn is the assistant's the model goes on with it; one begun within quotation marks ends with the closing mark.

    Attributes:
        model: A built-in model, a folder in the layout of ``transformers``, or a hub id.
        max_new_tokens: Most tokens of an answer.
        temperature: 0 takes the likeliest token each time; more is more random.
        top_p: With a temperature: the share of the probability that is sampled from.
        seed: Of the sampling; the same for every prompt, so that an answer does not depend on its place in the batch.
        dtype: "auto" (bf16 where that is much faster, else fp32), "fp32", "bf16" or "fp16".
        device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:N", "mps" or "xpu".
        batch_size: Prompts that run together. 1 keeps every answer independent of the others. Larger is faster with
            many prompts and gives the same answers in fp32; in bf16 rounding depends on the batch, and an answer may
            differ where two tokens are almost equally likely.
        stop: Texts that end an answer and are not part of it.
        kv: What makes the key-value cache of a prompt smaller once it was read: one eviction (``snapkv``, say), or
            ``quantized_kv``, or both; or ``precomputed_kv``, which does not read passages twice. Prompts run one by
            one then.
    """

    model: str = GENERATOR
    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    dtype: Dtype = "auto"
    device: str = "auto"
    batch_size: int = 1
    stop: tuple[str, ...] = ()
    kv: tuple[KVCompression, ...] = ()

    def __post_init__(self) -> None:
        _options.text("model", self.model)
        _options.whole("max_new_tokens", self.max_new_tokens, 1)
        _options.number("temperature", self.temperature, 0)
        _options.number("top_p", self.top_p, 0, 1, open_below=True)
        _options.whole("seed", self.seed, 0)
        _options.whole("batch_size", self.batch_size, 1)
        _options.stops("stop", self.stop)
        check_options(self.dtype, self.device)
        check_methods(self.kv)

    @property
    def space(self) -> str:
        """Whose input embeddings its soft segments must be."""
        return canonical(self.model)

    def load(self) -> CausalLM:
        """The model, loaded now unless it is already; for those who want the wait before the first question."""
        return load_causal_lm(self.model, dtype=self.dtype, device=self.device)

    def counting(self) -> Callable[[Sequence[str]], list[int]]:
        """``count_tokens`` with its tokenizer at hand, for those who count many times: see ``SupportsCounting``."""
        return CountTokens(self.model).ready()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without special tokens. Needs the tokenizer only, not the model."""
        return CountTokens(self.model)(texts)

    def generate(
        self, prompts: Sequence[Sequence[Message[Segment]]], *, on_text: OnText | None = None
    ) -> list[Generation]:
        """One answer a prompt.

        Args:
            prompts: Chat turns each. All are checked before any is answered.
            on_text: Told the prompt's index and the next piece of its answer, while it is generated. The pieces of an
                answer, joined, are its text.

        Raises:
            PromptTooLong: A prompt that does not fit into the model's window.
            GenerationError: An empty prompt, or a soft segment that
                was made for another model.
            ModelError: The model is not here.
        """
        start = time.perf_counter()
        if not prompts:
            return []
        # imported late: it needs torch's types only while it runs, and so does whoever lists components
        from ragzip.models.chat import encode_prompt
        from ragzip.models.decode import decode_batch, heeds_masks

        lm = self.load()
        encoded = [encode_prompt(lm, messages, number=i) for i, messages in enumerate(prompts)]
        for i, prompt in enumerate(encoded):
            self.check_window(i, prompt.length, lm.window)
            self._check(lm, prompts[i], prompt, i)
        order = (
            sorted(range(len(encoded)), key=lambda i: encoded[i].length) if self.batch_size > 1 else range(len(encoded))
        )
        results: dict[int, Generation] = {}
        size = 1 if self.kv or not heeds_masks(lm) else self.batch_size
        for first in range(0, len(encoded), size):
            rows = order[first : first + size]
            with lm.lock, self._cached(lm, prompts[rows[0]], encoded[rows[0]], rows[0]) as (read, cache, told):
                found = decode_batch(
                    lm,
                    [encoded[i] for i in rows] if read is None else [read],
                    cache=cache,
                    max_new_tokens=self.max_new_tokens,
                    temperature=self.temperature,
                    top_p=self.top_p,
                    seed=self.seed,
                    stop=[self.stops(prompts[i]) for i in rows],
                    on_text=[_for_row(on_text, i) for i in rows],
                    start=start,
                )
            results.update(zip(rows, (replace(one, **told()) for one in found), strict=True))
            start = time.perf_counter()  # each batch's times begin where the one before it ended
        return [results[i] for i in range(len(encoded))]

    def _check(self, lm: CausalLM, messages: Sequence[Message[Segment]], prompt: EncodedPrompt, number: int) -> None:
        """Refuses a prompt that this model cannot read, or not with ``kv``."""
        from ragzip.models.decode import check_embeds

        check_embeds(lm, prompt)
        if not self.kv:
            return
        from ragzip.kv.precomputed import PrecomputedKV
        from ragzip.kv.session import check_kv, eviction_of

        with lm.lock:
            if isinstance(self.kv[0], PrecomputedKV):
                self.check_window(number, sum(map(len, self.kv[0].check(lm, messages, number))), lm.window)
            else:
                check_kv(lm, prompt.length, eviction_of(self.kv), self.max_new_tokens)

    @contextmanager
    def _cached(
        self, lm: CausalLM, messages: Sequence[Message[Segment]], prompt: EncodedPrompt, number: int
    ) -> Iterator[tuple[EncodedPrompt | None, Any, Callable[[], dict[str, Any]]]]:
        """A prompt with its cache while it is answered, None where all is as usual; and what to tell of that then."""
        if not self.kv:
            yield None, None, dict
            return
        from ragzip.kv.precomputed import PrecomputedKV
        from ragzip.kv.session import KVSession

        if isinstance(self.kv[0], PrecomputedKV):
            read, cache, known = self.kv[0].prepare(lm, messages, number)
            self.check_window(number, read.length, lm.window)
            yield read, cache, lambda: {**_whole(cache, read.length), "cached_tokens": known}
            return
        session = KVSession(lm, prompt, self.kv)
        with session.open():
            yield (
                prompt,
                session.cache,
                lambda: {
                    "kv_bytes": session.bytes,
                    "kv_bytes_full": session.full_bytes,
                    "kv_positions": session.positions,
                },
            )

    def stops(self, messages: Sequence[Message[Segment]]) -> tuple[str, ...]:
        """What ends an answer: ``stop``, and the closing mark where its turn is begun within a quotation."""
        begun = str(messages[-1]) if messages[-1].role == "assistant" else ""
        return (*self.stop, '"') if opens_quotation(begun) else self.stop

    def check_window(self, number: int, length: int, window: int) -> None:
        """Refuses a prompt of so many tokens that does not fit, with its answer, into a window.

        Raises:
            PromptTooLong: With the numbers.
        """
        if length + self.max_new_tokens > window:
            raise PromptTooLong(
                f"prompt {number} has {length} tokens; with max_new_tokens={self.max_new_tokens} that is more than "
                f"the window of {window} tokens of {self.model!r}",
                hint="Lower top_k, or add a budget to the compressors.",
            )


def _whole(cache: Any, length: int) -> dict[str, Any]:
    """What a prompt takes of a cache in which what was written stands behind it."""
    from ragzip.kv.session import bytes_of

    each = sum(map(bytes_of, cache.layers)) // max(cache.get_seq_length(), 1)
    return {"kv_bytes": each * length, "kv_bytes_full": each * length}


def _for_row(on_text: OnText | None, row: int) -> Callable[[str], None] | None:
    if on_text is None:
        return None
    return lambda piece: on_text(row, piece)
