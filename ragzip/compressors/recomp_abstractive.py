"""RECOMP's abstractive compressor: a summary of the passages, written for the question, empty if nothing helps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ragzip.compressors import _writer
from ragzip.compressors._abstractive import WINDOW, Abstractive, check_model, sources_of
from ragzip.compressors._layout import _pieces, spans_at
from ragzip.compressors._options import check_number, counter_of
from ragzip.compressors._relevance import titles_of
from ragzip.compressors._writer import Block, Request, Writer, parts_of, render, tidy
from ragzip.models import resolve
from ragzip.models.lora import trained_window
from ragzip.tokens import mixed
from ragzip.types import Context, Span, TextSegment

if TYPE_CHECKING:
    from ragzip.models.chat import EncodedPrompt

MODEL = "recomp-abstractive-smollm2"
NOTHING = "NONE"
"""What a causal model writes where no document helps, and what training shows it to write."""

SURE = 0.8
"""From which probability of ``NOTHING`` on it is believed, by default.

Set on 72 training examples that were held out, with the first shipped weights, which at 0.5 were silent in 34 % of the
contexts that help and in 82 % of those that do not, at 0.8 in 10 % and 45 %. Those that come with ragzip now are silent
in 12 % and 90 % at 0.5, and in 5 % and 87 % at 0.8. A summary too many costs less than an answer lost.
"""

_TOGETHER = 4  # parts of a context that an encoder-decoder writes about at once
_SYSTEM = (
    "You read documents for someone who has to answer a question. Write down, in a few short sentences, only what the "
    f"documents say that helps to answer it. If nothing in them helps, write {NOTHING}."
)
_EMPTY = re.compile(
    r"(?:none|n/?a|null|nothing|empty(?: string)?|no (?:summary|answer|relevant \w+|useful \w+)"
    r"|this passage doesn'?t contain relevant information to the question)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class RecompAbstractive(Abstractive):
    """A summary of the passages, written for the question, in their place; nothing at all where they do not help.

    RECOMP (https://arxiv.org/abs/2310.04408). The model reads question and passages and writes what answers the
    question. A model that writes an empty text, or a word such as NONE, leaves an empty context: selective
    augmentation. The default model is an adapter over the built-in generator. Published checkpoints
    (``fangyuan/nq_abstractive_compressor`` and others, T5) get the prompt that they were trained with; so do all
    encoder-decoders, while causal models are asked in their chat template.

    Unlike in the public scripts, nothing is truncated at 1,024 tokens. Passages that do not fit the window are read in
    parts, whole where that is possible; what is written of each part is a segment of its own, whose spans are all that
    was read for it, and a part that does not help leaves nothing. Where not all of it fits keep or budget, that of the
    parts goes first of which a causal model was surest that they help. A question that takes more than half of the
    window leaves the context as it is; a window of None grows with the question, up to the model's own. For an empty
    question nothing helps, and nothing is left.

    Attributes:
        model: A built-in or shipped model, a folder in the layout of ``transformers`` (or, for causal models, of a
            PEFT adapter), or a hub id.
        silence: Least probability, 0 to 1, that nothing helps for a causal model to write nothing. Greedy writing would
            be silent too often: the one word for nothing competes with the many with which a summary can begin. 0
            leaves the choice to it, and 1 always writes. Asked for is the probability of the word's first token, with
            which a summary can begin, too, where the tokenizer has no single token for the word.

    An instruction model without training can be tried by its name::

        RecompAbstractive(model="smollm2-135m-instruct", budget=120)
    """

    model: str = MODEL
    silence: float = SURE

    def __post_init__(self) -> None:
        super().__post_init__()
        check_model("model", self.model)
        check_number("silence", self.silence, low=0.0, high=1.0)

    def load(self) -> Writer:
        """The model, loaded now unless it is already."""
        return _writer.load_writer(self.model, max_new_tokens=self.max_new_tokens, dtype=self.dtype, device=self.device)

    def compress(self, contexts: Sequence[Context[TextSegment]]) -> Sequence[Context[TextSegment]]:
        """Each context as what was written of its parts, and what had to be kept beside it."""
        return [self._compress(context) for context in contexts]

    def _compress(self, context: Context[TextSegment]) -> Context[TextSegment]:
        read = [segment for segment in context.segments if segment.text.strip()]
        if not read or self.keep == 1.0:
            return self.fitted(context)
        if self.budget == 0:
            return Context(context.query, (), context.passages)
        found = self._written(context)
        if found is None:
            return self.fitted(context)
        order = sorted(range(len(found)), key=lambda i: (found[i][1], i))
        ranks = {i: rank for rank, i in enumerate(order)}
        return self.finish(context, [segment for segment, _ in found], [ranks[i] for i in range(len(found))])

    def _written(self, context: Context[TextSegment]) -> list[tuple[TextSegment, float]] | None:
        """What the model writes of each part that helps, and how probable it was that it would write nothing.

        None where the question leaves no room for passages.
        """
        writer = self.load()
        most = self._most(context)

        def encode(some: Sequence[Block]) -> EncodedPrompt:
            return writer.encode(ask(context.query.text, some))

        room = writer.room(most, self.window or trained_window(resolve(self.model)) or WINDOW)
        if self.window is None:  # a long question may take as much as the passages beside it
            room = writer.room(most, max(room, 2 * encode(()).length))
        parts = parts_of(blocks_of(context), encode, room)
        if parts is None:
            return None
        texts = writer.write_unless(
            [part.prompt for part in parts],
            max_new_tokens=most,
            word=NOTHING,
            least=self.silence,
            batch_size=_TOGETHER,
        )
        found: dict[str, tuple[TextSegment, float]] = {}
        for part, (text, doubt) in zip(parts, texts, strict=True):
            summary = said(tidy(text))
            if summary:
                before, least = found.get(summary, (TextSegment(summary), doubt))
                spans = dict.fromkeys((*before.sources, *_read(context, part.blocks)))
                found[summary] = (TextSegment(summary, tuple(spans)), min(least, doubt))
        return list(found.values())

    def _most(self, context: Context[TextSegment]) -> int:
        """Tokens to write: no more than twice what the limits leave, as tokenizers differ and cuts are at sentences."""
        limit = self.budget if self.keep is None else self.limit(counter_of(self.counter).context(context))
        return self.max_new_tokens if limit is None else min(self.max_new_tokens, 2 * limit + 16)


def ask(question: str, blocks: Sequence[Block]) -> Request:
    """The prompt: for encoder-decoders exactly RECOMP's, without titles; training uses the same for causal models."""
    documents = "\n".join(block.text for block in blocks)
    return Request(
        system=_SYSTEM,
        user=f"Question: {question}\n\nDocuments:\n{render(blocks)}\n\nQuestion: {question}\nWhat helps to answer it:",
        plain=f"Question: {question}\n Document: {documents}\n Summary: ",
    )


def blocks_of(context: Context[TextSegment]) -> list[Block]:
    """The context's segments as documents; a title is shown once for neighbouring segments of one passage."""
    titles = titles_of(context)
    passages = {passage.id: passage for passage in reversed(context.passages)}
    alone = [bool(segment.sources) and not mixed(segment, passages) for segment in context.segments]
    return [
        Block(segment.text, titles[i], segment.sources[0].passage_id if alone[i] else None, i)
        for i, segment in enumerate(context.segments)
        if segment.text.strip()
    ]


def _read(context: Context[TextSegment], blocks: Sequence[Block]) -> tuple[Span, ...]:
    """The spans of what a prompt showed: exact ones of a stretch of an extractive segment, else the segment's."""
    passages = {passage.id: passage for passage in reversed(context.passages)}
    found: dict[Span, None] = {}
    for block in blocks:
        segment = context.segments[block.segment]
        pieces = None if block.text == segment.text else _pieces(segment, passages)
        spans: Sequence[Span] = sources_of([segment], context.passages)
        if pieces is not None:
            spans = spans_at(pieces, block.start, block.start + len(block.text))
        found.update(dict.fromkeys(spans))
    return tuple(found)


def said(text: str) -> str:
    """The summary, or "" for what models write where there is none: nothing, one character, a word such as NONE."""
    bare = text.strip().strip("\"'`*()[]<>.!:- \n")
    return "" if len(bare) < 2 or _EMPTY.fullmatch(bare) else text.strip()
