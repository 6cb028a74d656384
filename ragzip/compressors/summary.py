"""Rewriting by a language model, a piece at a time: SCOPE's chunks, or CoLoR's shortest summaries still found."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, cast

from ragzip import models
from ragzip.compressors import _writer
from ragzip.compressors._abstractive import WINDOW, Abstractive, check_model, says, sources_of
from ragzip.compressors._layout import Layout
from ragzip.compressors._options import check_count, check_number, counter_of
from ragzip.compressors._relevance import asked, read, relevance, titles_of
from ragzip.compressors._scope import Chunk, chunks, deal, keywords
from ragzip.compressors._writer import Block, Request, Writer, pack, render, tidy
from ragzip.errors import ConfigError
from ragzip.models import EMBEDDER, GENERATOR
from ragzip.text import sentences
from ragzip.types import Context, Segment, TextSegment

if TYPE_CHECKING:
    from ragzip.models import Encoder
    from ragzip.models.chat import EncodedPrompt

Objective = Literal["scope", "color"]
Ask = Callable[[Sequence[Block]], Request]

_HALF = 0.5
_AS_IT_IS = 0.9  # of its tokens: a chunk that may keep so much is not worth a rewriting
_WORTH = 12  # tokens of a chunk below which a rewriting cannot gain
_WORDS = 0.75  # of a token, about
_ROOM = 0.8  # of the tokens that can be written: what a chunk's rewriting may need of them
_CANDIDATES = 6
_ENDS = ".!?…。！？।؟ "
_SYSTEM = (
    "You shorten texts. Keep facts, names and numbers as they are. Add nothing, and write nothing but the shortened "
    "text."
)


@dataclass(frozen=True)
class Summary(Abstractive):
    """Rewrites the context in fewer words, a piece at a time, with any instruction model.

    ``scope`` (https://arxiv.org/abs/2508.15813): sentences that belong together make a chunk, where neighbouring
    ones are alike; a chunk too short to stand alone joins a neighbour. Each chunk gets its own share of the tokens,
    by its length and its closeness to the question. Those that may keep nearly all stay word for word, with exact
    spans, those left with next to nothing go, and the rest is rewritten to its share; its keywords stand in the prompt,
    and the ones that got lost are put behind it. A chunk whose rewriting is no shorter, or did not come to its end
    within ``max_new_tokens``, stays as it is. Without keep and budget about half of the tokens stay.

    ``color`` (https://arxiv.org/abs/2412.18232): every passage is summarised with CoLoR's prompt, and the shortest
    beginning of the summary is taken, in sentences, with which the passage would still be found: its embedding comes no
    later among the passages, by closeness to the question, than that of the whole passage did. Where none would, the
    passage stays as it is. CoLoR trains its model for such summaries; here any model's are chosen by the same rule.

    Attributes:
        model: The instruction model that writes: a built-in one, a folder, or a hub id; encoder-decoders too.
        encoder: The sentence encoder that tells what is alike and what is relevant.
        objective: ``scope`` or ``color``.
        similarity: Least cosine of neighbouring sentences within a chunk.
        keywords: Words of each chunk that must not get lost, at most; 0 for none.
        batch_size: Pieces of one context that are written together. 1 makes each text independent of the other
            pieces in bf16, too; of other contexts it always is.
    """

    model: str = GENERATOR
    encoder: str = EMBEDDER
    objective: Objective = "scope"
    similarity: float = 0.3
    keywords: int = 5
    batch_size: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_model("model", self.model)
        check_model("encoder", self.encoder)
        if self.objective not in ("scope", "color"):
            raise ConfigError("objective", f"must be scope or color, not {self.objective!r}")
        check_number("similarity", self.similarity, low=-1.0, high=1.0)
        check_count("keywords", self.keywords)
        check_count("batch_size", self.batch_size, least=1)

    def load(self) -> tuple[Writer, Encoder]:
        """Both models, loaded now unless they are already."""
        encoder = models.load_encoder(self.encoder, dtype=self.dtype, device=self.device)
        return _writer.load_writer(
            self.model, max_new_tokens=self.max_new_tokens, dtype=self.dtype, device=self.device
        ), encoder

    def compress(self, contexts: Sequence[Context[TextSegment]]) -> Sequence[Context[TextSegment]]:
        """Each context in fewer words."""
        return [self._compress(context) for context in contexts]

    def _compress(self, context: Context[TextSegment]) -> Context[TextSegment]:
        if self.keep == 1.0 or not any(segment.text.strip() for segment in context.segments):
            return self.fitted(context)
        if self.budget == 0:
            return Context(context.query, (), context.passages)
        return self._scope(context) if self.objective == "scope" else self._color(context)

    def _scope(self, context: Context[TextSegment]) -> Context[TextSegment]:
        counter = counter_of(self.counter)
        tokens = counter.context(context)
        limit = self.limit(tokens)
        limit = math.floor(_HALF * tokens) if limit is None else limit
        if tokens <= limit:
            return context
        layout = Layout(cast("Context[Segment]", context))
        writer, encoder = self.load()
        characters = sum(len(segment.text) for segment in context.segments)
        parts = self._chunks(layout, encoder, math.floor(_ROOM * self.max_new_tokens * characters / max(limit, 1)))
        sizes = list(counter.texts([part.text for part in parts]))
        around = max(tokens - sum(sizes), 0)  # titles and blank lines
        weights = [part.relevance for part in parts]
        shares = deal(sizes, weights, max(limit - around, limit // 2))
        wanted = [i for i, size in enumerate(sizes) if size >= _WORTH and 0 < shares[i] < _AS_IT_IS * size]
        rewritten = self._rewritten(context, writer, [parts[i] for i in wanted], [shares[i] for i in wanted])
        news = {i: text for i, text in zip(wanted, rewritten, strict=True) if text}
        lengths = dict(zip(news, counter.texts(list(news.values())), strict=True))
        news = {i: text for i, text in news.items() if lengths[i] < sizes[i]}
        stay = {i for i in range(len(parts)) if i not in news and (i in wanted or 2 * shares[i] >= sizes[i] > 0)}
        return self.finish(context, *_merged(layout, parts, news, stay))

    def _chunks(self, layout: Layout, encoder: Encoder, longest: int) -> list[Chunk]:
        """Chunks of so many characters at most, of which what is to be left can be written at once."""
        texts = [layout.text(unit) for unit in range(len(layout.units))]
        reading = read(encoder, texts, [""] * len(texts))
        question = layout.context.query.text
        scores = reading.closeness(asked(encoder, question)).tolist() if question.strip() else [1.0] * len(texts)
        return chunks(layout, reading.vectors(), scores, self.similarity, longest)

    def _rewritten(
        self, context: Context[TextSegment], writer: Writer, parts: Sequence[Chunk], shares: Sequence[int]
    ) -> list[str]:
        """The chunks in at most about so many tokens each, keywords kept; "" where the model had nothing to say."""
        if not parts:
            return []
        lost = keywords([part.text for part in parts], context.query.text, self.keywords)
        most = min(self.max_new_tokens, 2 * max(shares) + 16)
        least = max(math.floor(_ROOM * most), 1)
        requests = [
            partial(shorten, words=words, tokens=min(share, least)) for words, share in zip(lost, shares, strict=True)
        ]
        texts = self._written(writer, [Block(part.text) for part in parts], requests, most, whole=True)
        return [_with(text, words) for text, words in zip(texts, lost, strict=True)]

    def _written(
        self, writer: Writer, blocks: Sequence[Block], requests: Sequence[Ask], most: int, *, whole: bool = False
    ) -> list[str]:
        """What the model makes of each block by its own request; "" for one that cannot be asked.

        And, where it must be whole, for one that the model did not come to the end of: nobody knows what is lacking.
        """
        room = writer.room(most, self.window or WINDOW)
        packed = [_prompts(writer, block, ask, room) for block, ask in zip(blocks, requests, strict=True)]
        prompts = [prompt for some in packed for prompt in some]
        texts = iter(writer.write(prompts, max_new_tokens=most, batch_size=self.batch_size))
        found = [[next(texts) for _ in some] for some in packed]
        return [
            " ".join(filter(None, map(tidy, some))) if not whole or all(text.stopped for text in some) else ""
            for some in found
        ]

    def _color(self, context: Context[TextSegment]) -> Context[TextSegment]:
        if not context.query.text.strip():
            return self.fitted(context)  # nothing can be found by an empty question
        counter = counter_of(self.counter)
        writer, encoder = self.load()
        titled = [(s, title) for s, title in zip(context.segments, titles_of(context), strict=True) if s.text.strip()]
        read, names = [segment for segment, _ in titled], [title for _, title in titled]
        before = relevance(encoder, context.query.text, [segment.text for segment in read], names)
        written = self._written(writer, [Block(s.text) for s in read], [summarise] * len(read), self.max_new_tokens)
        candidates = [_beginnings(text) for text in written]
        flat = [text for some in candidates for text in some]
        owners = [number for number, some in enumerate(candidates) for _ in some]
        closeness = relevance(encoder, context.query.text, flat, [names[number] for number in owners])
        lengths = counter.texts([*(segment.text for segment in read), *flat])
        chosen: dict[int, tuple[int, str]] = {}
        for number, text, score, length in zip(owners, flat, closeness, lengths[len(read) :], strict=True):
            found = sum(other > score for at, other in enumerate(before) if at != number)
            was = sum(other > before[number] for at, other in enumerate(before) if at != number)
            shortest = chosen.get(number, (lengths[number], ""))[0]
            if found <= was and length < shortest:
                chosen[number] = (length, text)
        if not chosen:
            return self.fitted(context)
        made = [
            TextSegment(chosen[i][1], sources_of([segment], context.passages)) if i in chosen else segment
            for i, segment in enumerate(read)
        ]
        order = sorted(range(len(read)), key=lambda i: (-before[i], i))
        ranks = [order.index(i) for i in range(len(read))]
        return self.finish(context, made, ranks)


def shorten(blocks: Sequence[Block], *, words: Sequence[str], tokens: int) -> Request:
    """The prompt for one chunk: SCOPE's rewriting to a length, with the words that must stay."""
    keep = f" Keep these words: {', '.join(words)}." if words else ""
    most = max(round(_WORDS * tokens), 3)
    return Request(f"Shorten this text to at most {most} words.{keep}\n\nText:\n{render(blocks)}", _SYSTEM)


def summarise(blocks: Sequence[Block]) -> Request:
    """CoLoR's prompt, as published."""
    return Request(f"Summarize the following content. \nContent:\n{render(blocks)}\n Summary:")


def _prompts(writer: Writer, block: Block, ask: Ask, room: int) -> list[EncodedPrompt]:
    return pack([block], lambda some: writer.encode(ask(some)), room) or []


def _with(text: str, words: Sequence[str]) -> str:
    """The text with the words that it lacks in brackets at the end of its last sentence; "" stays empty."""
    told = text.casefold()
    lost = [word for word in words if not says(told, word.casefold())]
    if not text or not lost:
        return text
    bare = text.rstrip(_ENDS)
    return f"{bare} ({', '.join(lost)}){text[len(bare) :]}"


def _beginnings(text: str) -> list[str]:
    """A summary's first sentence, its first two, and so on, up to all of it."""
    ends = [end for _, end in sentences(text)]
    return [text[:end] for end in dict.fromkeys([*ends[: _CANDIDATES - 1], *ends[-1:]])]


def _merged(
    layout: Layout, parts: Sequence[Chunk], news: Mapping[int, str], stay: Collection[int]
) -> tuple[list[TextSegment], list[int]]:
    """The context's new segments in order, and the rank of each: neighbours of one kind and origin are one segment."""
    order = sorted(range(len(parts)), key=lambda i: (-parts[i].relevance, i))
    rank = {i: place for place, i in enumerate(order)}
    runs: list[list[int]] = []
    for i, part in enumerate(parts):
        if i not in news and i not in stay:
            continue
        before = runs[-1][-1] if runs else -1
        alike = before == i - 1 and before >= 0 and (before in news) == (i in news)
        if alike and parts[before].segment == part.segment:
            runs[-1].append(i)
        else:
            runs.append([i])
    made: list[TextSegment] = []
    ranks: list[int] = []
    for run in runs:
        read = layout.build(unit for i in run for unit in parts[i].units)
        segments = [segment for segment in read.segments if isinstance(segment, TextSegment)]
        if run[0] in news:
            text = " ".join(news[i] for i in run)
            segments = [TextSegment(text, sources_of(segments, read.passages))]
        made += segments
        ranks += [min(rank[i] for i in run)] * len(segments)
    return made, ranks
