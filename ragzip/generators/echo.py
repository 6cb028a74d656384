"""A generator without a model: it repeats its context, or says one thing. For tests and for looking at prompts."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ragzip.protocols import OnText, WordCounter
from ragzip.tokens import SEPARATOR
from ragzip.types import Generation, Message, Segment, SoftSegment, TextSegment

_PIECE = re.compile(r"\s*\S+")


@dataclass(frozen=True)
class Echo:
    """Answers with the context it was given, so that a pipeline can be tried without any model.

    Tokens are words and punctuation marks. Soft segments are counted by their rows and not repeated.

    Attributes:
        text: What to answer; "" answers with the text segments of the prompt, or, where it has none, with the last
            turn of the user.
    """

    text: str = ""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Words and punctuation marks of each text."""
        return WordCounter().texts(texts)

    def generate(
        self, prompts: Sequence[Sequence[Message[Segment]]], *, on_text: OnText | None = None
    ) -> list[Generation]:
        """One answer a prompt, given out word by word."""
        return [self._answer(i, messages, on_text) for i, messages in enumerate(prompts)]

    def _answer(self, number: int, messages: Sequence[Message[Segment]], on_text: OnText | None) -> Generation:
        start = time.perf_counter()
        pieces = [piece for message in messages for piece in message.pieces]
        context = SEPARATOR.join(p.text for p in pieces if isinstance(p, TextSegment) and p.text.strip())
        asked = [message for message in messages if message.role == "user"] or messages
        last = "".join(p for p in asked[-1].pieces if isinstance(p, str)) if asked else ""
        text = (self.text or context or last).strip()
        first = time.perf_counter()
        for word in _PIECE.findall(text) if on_text else ():
            on_text(number, word)  # type: ignore[misc]
        soft = sum(int(p.embeddings.shape[0]) for p in pieces if isinstance(p, SoftSegment))
        texts = [p if isinstance(p, str) else p.text for p in pieces if not isinstance(p, SoftSegment)]
        return Generation(
            text=text,
            prompt_tokens=sum(self.count_tokens(texts)) + soft,
            new_tokens=self.count_tokens([text])[0],
            first_token_seconds=first - start,
            seconds=time.perf_counter() - start,
        )
