"""The data that flows through a pipeline: frozen, slotted, picklable, and free of heavy imports.

A *query* finds *passages*; the passages become a *context* of *segments*; compressors turn contexts into smaller
contexts; the generator reads the last one. Every segment says by *spans* which characters it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, TypeVar

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Query:
    """A question.

    Attributes:
        text: What is asked.
        id: An identifier that survives retrieval and evaluation, or "".
    """

    text: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document: the unit of retrieval.

    Attributes:
        id: Unique within its index or set.
        text: The characters that spans count in.
        title: Shown to the generator before the text; not part of ``text``.
        score: The retriever's, greater is better; None where nothing scored it.
        metadata: Plain values; ingest writes ``source``, ``start``, ``end`` (characters of the document),
            ``section`` and, where the format has pages, ``page``.
    """

    id: str
    text: str
    title: str = ""
    score: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Characters ``start`` up to but not including ``end`` of one passage's text."""

    passage_id: str
    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"a span needs 0 <= start <= end, not [{self.start}, {self.end})")

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class TextSegment:
    """A piece of context as text.

    Attributes:
        text: What the generator reads.
        sources: The spans it was taken from (extractive) or written from (abstractive), in order. For extractive
            methods ``text`` equals the spans' characters, joined by ``joiner``.
        joiner: What stands between the spans' texts.
    """

    text: str
    sources: tuple[Span, ...] = ()
    joiner: str = " "


@dataclass(frozen=True, slots=True, eq=False)
class SoftSegment:
    """A piece of context as input embeddings of a generator.

    Attributes:
        embeddings: ``[n_tokens, d_model]``.
        space: Whose input embeddings these are: the generator's model name.
        sources: The spans it stands for.
    """

    embeddings: Tensor
    space: str
    sources: tuple[Span, ...] = ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SoftSegment):
            return NotImplemented
        return (
            self.space == other.space
            and self.sources == other.sources
            and self.embeddings.shape == other.embeddings.shape
            and self.embeddings.device == other.embeddings.device
            and bool((self.embeddings == other.embeddings).all())
        )

    def __hash__(self) -> int:
        return hash((self.space, self.sources, tuple(self.embeddings.shape)))


Segment = TextSegment | SoftSegment
S = TypeVar("S", bound=Segment)
S_co = TypeVar("S_co", bound=Segment, covariant=True)


@dataclass(frozen=True, slots=True)
class Context(Generic[S_co]):
    """What the generator gets besides the query: ordered segments, and the passages they came from.

    Attributes:
        query: The question the context is for.
        segments: In the order the generator reads them.
        passages: Everything retrieved, untouched by compression: spans point into these.
    """

    query: Query
    segments: tuple[S_co, ...]
    passages: tuple[Passage, ...] = ()

    def passage(self, passage_id: str) -> Passage:
        """The passage with this id; raises KeyError where there is none."""
        for passage in self.passages:
            if passage.id == passage_id:
                return passage
        raise KeyError(passage_id)

    def expand(self, what: Span | Segment | str) -> str:
        """The original characters, as before compression; ``ragzip.pipelines.originals`` knows what stands around.

        Args:
            what: A span; a segment, for all it was taken or written from, joined by blank lines; or a passage's id.

        Raises:
            KeyError: There is no such passage.
            ValueError: A span ends beyond its passage.
            TypeError: It is nothing of these.
        """
        if isinstance(what, str):
            return self.passage(what).text
        if not isinstance(what, Span | TextSegment | SoftSegment):
            raise TypeError(f"a span, a segment or a passage's id can be expanded, not {what!r:.60}")
        found = []
        for span in (what,) if isinstance(what, Span) else what.sources:
            text = self.passage(span.passage_id).text
            if span.end > len(text):
                raise ValueError(
                    f"passage {span.passage_id!r} has {len(text)} characters; {span.end} is beyond its end"
                )
            found.append(text[span.start : span.end])
        return "\n\n".join(found)

    def __iter__(self) -> NoReturn:
        """Refuses: compressors and pipelines take lists of contexts."""
        raise TypeError("a context is no list of contexts: compress([context])")


def context_of(query: Query, passages: tuple[Passage, ...]) -> Context[TextSegment]:
    """The uncompressed context: one text segment a passage, whole, in the order given.

    Args:
        query: What is asked.
        passages: With ids of their own: spans name passages by these.

    Raises:
        TypeError: One of these is something else, a text say.
    """
    if not isinstance(query, Query):
        raise TypeError(f"a context needs a Query, not {query!r:.60}: Query(text)")
    if not isinstance(query.text, str):
        raise TypeError(f"a question is a text, not {query.text!r:.60}")
    if isinstance(passages, str | Passage):
        raise TypeError(f"a context needs a tuple of passages, not {passages!r:.60}")
    passages = tuple(passages)
    for passage in passages:
        if not isinstance(passage, Passage):
            raise TypeError(f"a context needs passages, not {passage!r:.60}: Passage(id, text)")
        for name, value in (("id", passage.id), ("text", passage.text), ("title", passage.title)):
            if not isinstance(value, str):
                raise TypeError(f"the {name} of passage {passage.id!r:.60} is {value!r:.60}, not a text")
    segments = tuple(TextSegment(p.text, (Span(p.id, 0, len(p.text)),)) for p in passages)
    return Context(query, segments, passages)


class Status(StrEnum):
    """How a compression step ended for one context. Anything but ``ok`` means: its input went on unchanged."""

    OK = "ok"
    SKIPPED_SHORT = "skipped_short"
    NO_GAIN = "no_gain"
    TIMEOUT = "timeout"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Step:
    """What one compressor did to one context.

    Attributes:
        name: The compressor's registry name.
        status: How it ended.
        tokens_in: Generator tokens of the context before.
        tokens_out: Generator tokens of the context after.
        seconds: This context's share of the step's wall time.
        detail: The reason, where the status is not ``ok``; else what the compressor noted, of its whole batch.
    """

    name: str
    status: Status
    tokens_in: int
    tokens_out: int
    seconds: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CompressionResult(Generic[S_co]):
    """A compressed context and the account of how it came about.

    Attributes:
        context: What is left.
        steps: One per compressor, in order.
        tokens_in: Generator tokens of the context before the first step.
        tokens_out: Generator tokens of the context after the last.
    """

    context: Context[S_co]
    steps: tuple[Step, ...]
    tokens_in: int
    tokens_out: int

    @property
    def ratio(self) -> float:
        """Original divided by compressed tokens; 1.0 for an empty context, infinite when nothing is left."""
        if self.tokens_in == 0:
            return 1.0
        return self.tokens_in / self.tokens_out if self.tokens_out else float("inf")

    @property
    def seconds(self) -> float:
        """Wall time of all steps."""
        return sum(step.seconds for step in self.steps)


Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message(Generic[S_co]):
    """One chat turn. Pieces are template text and segments, to be put one after the other with nothing between."""

    role: Role
    pieces: tuple[str | S_co, ...]

    def __str__(self) -> str:
        """The turn as text; a soft segment shows as ``⟨n soft tokens⟩``."""
        return "".join(piece if isinstance(piece, str) else _show(piece) for piece in self.pieces)


def _show(segment: Segment) -> str:
    if isinstance(segment, TextSegment):
        return segment.text
    return f"⟨{segment.embeddings.shape[0]} soft tokens⟩"


@dataclass(frozen=True, slots=True)
class Generation:
    """What a generator wrote for one prompt.

    Attributes:
        text: The answer, without special tokens, stripped.
        prompt_tokens: Tokens of the whole prompt, template included, one per soft row.
        new_tokens: Tokens generated.
        first_token_seconds: From the start of the work on this prompt (its batch, where prompts are batched) to
            the first token.
        seconds: From the same start to the last token.
        stopped: True when the model ended by itself, False when it ran into its limit.
        passes: Forward passes of the model: one for the prompt's first token and one for each token after it, the
            one that ended the answer included. 0 where that is not known.
        kv_bytes: What the key-value cache of the prompt took once it was read and compressed; 0 where it was not.
        kv_bytes_full: What it would have taken without that.
        kv_positions: Positions of the prompt that it held then, of each key head on average; 0 where that is all.
        cached_tokens: Tokens of the prompt whose keys and values came from caches of passages, made now or before.
    """

    text: str
    prompt_tokens: int
    new_tokens: int
    first_token_seconds: float
    seconds: float
    stopped: bool = True
    passes: int = 0
    kv_bytes: int = 0
    kv_bytes_full: int = 0
    kv_positions: float = 0.0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Citation:
    """A sentence of the context that supports the answer.

    Attributes:
        passage_id: The passage it stands in.
        source: The file or address of the passage's document, or its title.
        start: First character within the passage's text.
        end: One past the last.
        text: The characters themselves.
    """

    passage_id: str
    source: str
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Timings:
    """Wall seconds of each stage of one answer; a batch shares a stage's time evenly.

    Attributes:
        retrieve: Finding passages.
        compress: All compression steps, with their token counts.
        prefill: From the end of compression to the first token: prompt, tokenizer, prefill.
        decode: From the first token to the last.
        first_token: From the question to the first token: what a user waits.
        total: From the question to the last token.
    """

    retrieve: float
    compress: float
    prefill: float
    decode: float
    first_token: float
    total: float


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with everything known about how it was made.

    Attributes:
        text: The answer.
        compression: The context the generator read, and how it was compressed.
        generation: What the generator reported.
        timings: Seconds of each stage.
        citations: Sentences of the context that support the answer, best first; empty when none does.
    """

    text: str
    compression: CompressionResult[Segment]
    generation: Generation
    timings: Timings
    citations: tuple[Citation, ...] = ()

    @property
    def query(self) -> Query:
        """The question."""
        return self.compression.context.query
