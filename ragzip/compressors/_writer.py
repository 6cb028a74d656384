"""Text that a language model writes, for the compressors that rewrite: any causal or encoder-decoder model, greedily.

What the passages and the question say is data: control tokens in them do not act. Nothing is cut: documents that do
not fit the window are dealt out to several prompts by ``pack``.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ragzip import models
from ragzip.errors import ConfigError, PromptTooLong
from ragzip.models.causal_lm import CausalLM
from ragzip.models.chat import EncodedPrompt, encode_prompt
from ragzip.models.seq2seq import Seq2SeqLM, is_seq2seq, load_seq2seq
from ragzip.text import Stretch, cut_before, sentences
from ragzip.tokens import SEPARATOR
from ragzip.types import Generation, Message, Segment, TextSegment

if TYPE_CHECKING:
    from ragzip.models.decode import Unless


_THOUGHT = re.compile(r"\s*<think(?:ing)?>")
_THOUGHT_ENDS = re.compile(r"</think(?:ing)?>")
_FILLED = 0.95  # of a prompt's room that is dealt out by length: some characters take more tokens than others


@dataclass(frozen=True, slots=True)
class Block:
    """A document, or a stretch of one, as a prompt shows it: its title on a line of its own, then its text.

    Attributes:
        text: What is shown.
        title: Or "".
        owner: What it belongs to, or None: a title is shown once for neighbours of one owner.
        segment: Index of the segment that it is from.
        start: Where ``text`` begins in that segment's text.
    """

    text: str
    title: str = ""
    owner: str | None = None
    segment: int = 0
    start: int = 0

    def __str__(self) -> str:
        return f"{self.title}\n{self.text}" if self.title else self.text


def render(blocks: Sequence[Block]) -> str:
    """Documents one after the other with a blank line between."""
    owners = [None, *(block.owner for block in blocks)]
    shown = (b if b.owner is None or b.owner != last else b.text for b, last in zip(blocks, owners, strict=False))
    return SEPARATOR.join(map(str, shown))


@dataclass(frozen=True, slots=True)
class Request:
    """What a model is asked.

    Attributes:
        user: The user's turn.
        system: The system's turn, or "".
        plain: What an encoder-decoder reads; "" for both turns as one text.
    """

    user: str
    system: str = ""
    plain: str = ""


@dataclass(frozen=True, eq=False)
class Writer:
    """A loaded model that writes; it takes the likeliest token each time.

    Attributes:
        lm: The model.
    """

    lm: CausalLM | Seq2SeqLM

    def room(self, max_new_tokens: int, window: int | None = None) -> int:
        """Most tokens of a prompt; a causal model's window holds what it writes, too.

        Raises:
            ConfigError: That leaves none, or the decoder cannot write so many.
        """
        if isinstance(self.lm, Seq2SeqLM) and max_new_tokens > self.lm.most_new:
            raise ConfigError(
                "max_new_tokens", f"must be at most the decoder's {self.lm.most_new}, not {max_new_tokens}"
            )
        most = self.lm.window - (max_new_tokens if isinstance(self.lm, CausalLM) else 0)
        if most < 1:
            raise ConfigError(
                "max_new_tokens", f"must be less than the model's window of {self.lm.window}, not {max_new_tokens}"
            )
        return most if window is None else min(most, window)

    def encode(self, request: Request) -> EncodedPrompt:
        """The prompt as the model reads it, in its chat template if it has one."""
        if isinstance(self.lm, Seq2SeqLM):
            text = request.plain or SEPARATOR.join(filter(None, (request.system, request.user)))
            return EncodedPrompt((self.lm.encode([text])[0],))
        turns: list[Message[Segment]] = [Message("user", (TextSegment(request.user),))]
        if request.system:
            turns.insert(0, Message("system", (TextSegment(request.system),)))
        return encode_prompt(self.lm, turns, dated=False)

    def write(
        self,
        prompts: Sequence[EncodedPrompt],
        *,
        max_new_tokens: int,
        stop: tuple[str, ...] = (),
        batch_size: int = 1,
    ) -> list[Generation]:
        """One text for each prompt, in order.

        Args:
            prompts: Of one context and no other: what runs together can change a text where two tokens are almost
                equally likely, in bf16 mostly.
            max_new_tokens: Most tokens of each text.
            stop: Strings that end a text.
            batch_size: Prompts of similar length that run together.

        Raises:
            PromptTooLong: A prompt that does not fit, or no memory.
        """
        self._check(prompts, max_new_tokens)
        batch_size = batch_size if self._batches() else 1
        order = sorted(range(len(prompts)), key=lambda i: (-prompts[i].length, i)) if batch_size > 1 else None
        rows = list(range(len(prompts))) if order is None else order
        found: dict[int, Generation] = {}
        for first in range(0, len(rows), batch_size):
            batch = rows[first : first + batch_size]
            written = self._batch([prompts[i] for i in batch], max_new_tokens, stop)
            found.update(zip(batch, written, strict=True))
        return [found[i] for i in range(len(prompts))]

    def write_unless(
        self, prompts: Sequence[EncodedPrompt], *, max_new_tokens: int, word: str, least: float, batch_size: int = 1
    ) -> list[tuple[Generation, float]]:
        """One text for each prompt, in order, and how probable it was that it would be one word instead.

        Args:
            prompts: As for ``write``; those of causal models run one by one.
            max_new_tokens: Most tokens of each text.
            word: What the model may begin with only where it is sure of it.
            least: The least probability of the word's first token with which it may.
            batch_size: Prompts of an encoder-decoder that run together.

        Returns:
            The texts, each with the probability of the word's first token as its first; 0 for encoder-decoders, of
            which it is not known, and which write what they like.

        Raises:
            PromptTooLong: A prompt that does not fit, or no memory.
        """
        if isinstance(self.lm, Seq2SeqLM):
            written = self.write(prompts, max_new_tokens=max_new_tokens, batch_size=batch_size)
            return [(text, 0.0) for text in written]
        from ragzip.models.decode import Unless

        self._check(prompts, max_new_tokens)
        token = self.lm.text.encode([word])[0][0]
        found: list[tuple[Generation, float]] = []
        for prompt in prompts:
            unless = Unless(token, least)
            (text,) = self._batch([prompt], max_new_tokens, (), unless)
            found.append((text, unless.probabilities[0]))
        return found

    def _batches(self) -> bool:
        """Whether a text is the same whatever runs with it."""
        from ragzip.models.decode import heeds_masks

        return not isinstance(self.lm, CausalLM) or heeds_masks(self.lm)

    def _check(self, prompts: Sequence[EncodedPrompt], max_new_tokens: int) -> None:
        room = self.room(max_new_tokens)
        longest = max((prompt.length for prompt in prompts), default=0)
        if longest > room:
            raise PromptTooLong(
                f"a prompt of {longest} tokens does not fit {self.lm.name!r}, which has room for {room}",
                hint="Lower max_new_tokens, or put a budget before this step.",
            )

    def _batch(
        self, prompts: Sequence[EncodedPrompt], most: int, stop: tuple[str, ...], unless: Unless | None = None
    ) -> list[Generation]:
        if isinstance(self.lm, Seq2SeqLM):
            return self.lm.generate([prompt.ids or [] for prompt in prompts], max_new_tokens=most, stop=stop)
        from ragzip.models.decode import decode_batch

        with self.lm.lock:
            return decode_batch(
                self.lm,
                prompts,
                max_new_tokens=most,
                temperature=0.0,
                top_p=1.0,
                seed=0,
                stop=[stop] * len(prompts),
                on_text=[None] * len(prompts),
                start=time.perf_counter(),
                unless=unless,
            )


def load_writer(name: str, *, max_new_tokens: int = 0, dtype: str = "auto", device: str = "auto") -> Writer:
    """A causal or encoder-decoder language model, whichever the name means, loaded once.

    Raises:
        ModelError: It is not here, damaged, or neither.
        ConfigError: A dtype or device that does not exist, or more tokens to write than the model has room for.
    """
    load = load_seq2seq if is_seq2seq(models.resolve(name)) else models.load_causal_lm
    writer = Writer(load(name, dtype=dtype, device=device))
    writer.room(max_new_tokens)
    return writer


@dataclass(frozen=True, slots=True)
class Part:
    """A prompt and the documents, or stretches of them, that it shows."""

    prompt: EncodedPrompt
    blocks: tuple[Block, ...]


def pack(
    blocks: Sequence[Block], encode: Callable[[Sequence[Block]], EncodedPrompt], room: int
) -> list[EncodedPrompt] | None:
    """The prompts of ``parts_of``."""
    parts = parts_of(blocks, encode, room)
    return None if parts is None else [part.prompt for part in parts]


def parts_of(
    blocks: Sequence[Block], encode: Callable[[Sequence[Block]], EncodedPrompt], room: int
) -> list[Part] | None:
    """The documents in few prompts, all of them, in order.

    They are dealt out whole where that makes parts of about one size, else cut between sentences where possible.

    Args:
        blocks: The documents.
        encode: The prompt for some of them, or for none.
        room: Most tokens of a prompt.

    Returns:
        The prompts with what they show, or None where what stands around the documents (the question) leaves them less
        than half of the room, or a title no room at all.
    """
    whole = encode(blocks)
    if whole.length <= room:
        return [Part(whole, tuple(blocks))]
    around = encode(()).length
    if 2 * around > room:
        return None
    return _packed(blocks, whole.length, around, encode, room)


def _packed(
    blocks: Sequence[Block], length: int, around: int, encode: Callable[[Sequence[Block]], EncodedPrompt], room: int
) -> list[Part] | None:
    """As ``parts_of``, of documents whose prompt is too long, by so many tokens, of which some stand around them."""
    size = sum(len(block.text) for block in blocks)
    if size <= 1:
        return None
    share = min(_FILLED * (room - around) / max(length - around, 1), _FILLED)  # of the documents, that fit a prompt
    most = max(size // max(math.ceil(1 / share), 2), 1)
    found: list[Part] = []
    for part in _dealt(blocks, most, max(math.floor(share * size), most)):
        prompt = encode(part)
        if prompt.length <= room:
            found.append(Part(prompt, tuple(part)))
            continue
        smaller = _packed(part, prompt.length, around, encode, room)
        if smaller is None:
            return None
        found += smaller
    return found


def _dealt(blocks: Sequence[Block], most: int, limit: int) -> list[list[Block]]:
    """The documents as groups of about so many characters, and never more than the limit, which may be more.

    Each piece of a document keeps its title. A document within the limit stays whole: it goes into the open group
    where that is closer to its size then, and within the limit, else into a new one.
    """
    groups: list[list[Block]] = [[]]
    room = most
    for block in blocks:
        size = len(block.text)
        if size <= limit:
            if groups[-1] and (size > 2 * room or most - room + size > limit):
                groups.append([])
                room = most
            groups[-1].append(block)
            room -= size
            continue
        first = last = -1  # the stretch of this document that is in the open group
        for start, end in _pieces(block.text, most):
            cost = end - (last if first >= 0 else start)  # white space between sentences is text, too
            if cost > room and (groups[-1] or first >= 0):
                if first >= 0:
                    groups[-1].append(_stretch(block, first, last))
                    first = -1
                groups.append([])
                room, cost = most, end - start
            first, last = (start if first < 0 else first), end
            room -= cost
        if first >= 0:
            groups[-1].append(_stretch(block, first, last))
    return [group for group in groups if group]


def _stretch(block: Block, start: int, end: int) -> Block:
    return replace(block, text=block.text[start:end], start=block.start + start)


def _pieces(text: str, most: int) -> list[Stretch]:
    """Sentences, and parts of those that are longer than ``most`` characters."""
    found: list[Stretch] = []
    for start, end in sentences(text):
        while end - start > most:
            space = text.rfind(" ", start + most // 2, start + most)
            stop = space if space > start else start + cut_before(text[start:end], most)
            stop = stop if stop > start else start + most
            found.append((start, stop))
            start = stop
        found.append((start, end))
    return found


def tidy(written: Generation) -> str:
    """What a model wrote, in whole sentences, each once.

    Small models repeat themselves; and a text that ran into its limit ends within a sentence, which is left out where
    there is another one. What a model thought before is no part of it, and all of it where it thought to the end.
    """
    text = _without_thoughts(written.text).strip()
    if not text:
        return ""
    places = sentences(text)
    if not written.stopped and len(places) > 1 and text[-1] not in ".!?…。！？।؟\"'”’)]":
        places = places[:-1]
    told = _once(text, places)
    while (again := _once(told, sentences(told))) != told:  # what stands side by side now can be cut otherwise
        told = again
    return told


def _without_thoughts(text: str) -> str:
    """What comes behind the thoughts that a text begins with; their opening can be the template's."""
    opened, closed = _THOUGHT.match(text), _THOUGHT_ENDS.search(text)
    if closed and (opened or not _THOUGHT.search(text, 0, closed.start())):
        return text[closed.end() :]
    return "" if opened else text


def _once(text: str, places: Sequence[Stretch]) -> str:
    """The sentences at these places, each once; those that had nothing between them have nothing now."""
    seen: set[str] = set()
    kept: list[Stretch] = []
    for start, end in places:
        said = " ".join(text[start:end].casefold().split())
        if said in seen:
            continue
        seen.add(said)
        if kept and not text[kept[-1][1] : start].strip():
            kept[-1] = (kept[-1][0], end)
        else:
            kept.append((start, end))
    return " ".join(text[start:end] for start, end in kept)
