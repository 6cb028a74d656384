"""Prompts with places for rows, and what a frozen generator makes of them: losses that reach the rows alone.

Prompts are those of the pipeline, in the model's own chat template, so that what is trained is what will be read. What
all of them begin with (system turn and worked examples) is read once, and its keys and values are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from ragzip.errors import ModelError
from ragzip.models.causal_lm import keeps_keys
from ragzip.models.chat import encode_prompt
from ragzip.pipelines.prompt import QA
from ragzip.training.row_writer import Piece, Told
from ragzip.training.soft_data import Asking, Telling
from ragzip.types import Context, Message, Passage, Query, Segment, SoftSegment, Span, TextSegment

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.models import CausalLM

TELL = (
    "The passage above, word for word:",
    "Repeat the text above exactly.",
    "Write the text above again, without any change.",
    "What does the text above say? Give its exact words.",
)
"""How a text is asked for; a method that keeps the gist only is asked to say the same."""

SAME = (
    "Say the same in other words.",
    "Put the text above in your own terms.",
    "Another way to say what stands above:",
    "What does the text above say?",
)


@dataclass(frozen=True, eq=False)
class Framed:
    """A prompt and what is to be written behind it.

    Attributes:
        pieces: Token ids; in between, as single numbers, which of the example's texts has its rows there.
        answer: Token ids of what is to be written.
    """

    pieces: tuple[list[int] | int, ...]
    answer: list[int]


class Frames:
    """Makes the prompts of one generator.

    Args:
        lm: The generator.
        short: Whether questions are asked as by the prompt ``qa``, with its worked examples; else without any.
    """

    def __init__(self, lm: CausalLM, *, short: bool = True) -> None:
        self._lm = lm
        self._prompt = QA() if short else QA(examples=())

    def telling(self, telling: Telling, rows: int | None, request: str) -> Framed:
        """A text to be told again, from so many rows or, for None, from the text itself."""
        segment = self._segment(telling.text, rows, Span("p", 0, len(telling.text)))
        turn: tuple[Any, ...] = (segment, f"\n\n{request}")
        return self._framed([Message("user", turn)], telling.text)

    def asking(
        self,
        asking: Asking,
        passages: Sequence[tuple[str, str]],
        rows: Sequence[int] | None,
        pieces: Sequence[Sequence[Piece]] | None = None,
    ) -> Framed:
        """A question on passages, each as so many rows; as text where ``rows`` is None; without them where empty.

        Args:
            asking: The question.
            passages: Title and text of each.
            rows: For each, or for each of the pieces that are no text, how many rows it has, at least one.
            pieces: Those of each passage, where it is not one.
        """
        given = tuple(Passage(str(number), text, title) for number, (title, text) in enumerate(passages))
        told = None if rows is None else Told("", "")
        cut = pieces if pieces is not None else [[Piece(0, len(text), told)] for _, text in passages]
        counts, segments = iter(rows or ()), []
        for passage, some in zip(given, cut, strict=True):
            for start, end, soft in some:
                count = None if soft is None else next(counts)
                segments.append(self._segment(passage.text[start:end], count, Span(passage.id, start, end)))
        return self.context(Context(Query(asking.question), tuple(segments), given), asking.answer)

    def context(self, context: Context[Segment], answer: str) -> Framed:
        """A question on a context, whose soft segments are the example's texts, in order."""
        return self._framed(self._prompt.render(context), f'{answer}".')

    def _segment(self, text: str, rows: int | None, source: Span) -> Segment:
        import torch

        if rows is None:
            return TextSegment(text, (source,))
        return SoftSegment(torch.zeros(rows, self._lm.dimensions), self._lm.space, (source,))

    def _framed(self, messages: Sequence[Message[Segment]], answer: str) -> Framed:
        pieces: list[list[int] | int] = []
        count = 0
        prompt = encode_prompt(self._lm, messages, dated=False)
        for piece in prompt.pieces:
            if isinstance(piece, list):
                pieces.append(piece)
            else:
                pieces.append(count)
                count += 1
        (ids,) = self._lm.text.encode([answer])
        end = self._lm.tokenizer.eos_token_id
        if prompt.length + len(ids) > self._lm.window:
            raise ModelError(
                f"a prompt of {prompt.length} positions with an answer of {len(ids)} tokens does not fit the window of "
                f"{self._lm.window} of {self._lm.name!r}",
                hint="Use shorter texts or fewer passages, or a generator with a longer window.",
            )
        return Framed(tuple(pieces), [*ids, int(end)] if end is not None else ids)


class Reader:
    """The frozen generator over framed prompts.

    Args:
        lm: The generator; its parameters ask for no gradient.
        begins: Prompts whose common beginning is read once and kept; none for no such beginning. Where the generator
            keeps something else than keys and values, it is read with each prompt.
        most: Positions of one forward pass, padding included.
    """

    def __init__(self, lm: CausalLM, begins: Sequence[Framed], *, most: int) -> None:
        self._lm, self._most = lm, most
        self._prefix = _common(begins) if keeps_keys(lm.model) else []
        self._kept: list[tuple[Tensor, Tensor]] = []
        if self._prefix:
            self._read_prefix()

    def _read_prefix(self) -> None:
        import torch
        from transformers import DynamicCache

        cache: Any = DynamicCache()
        with torch.no_grad():
            ids = torch.tensor([self._prefix], device=self._lm.device)
            self._lm.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        self._kept = [(layer.keys, layer.values) for layer in cache.layers]

    def batches(self, framed: Sequence[Framed], rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Prompts of similar length together, longest first: indices.

        Args:
            framed: Prompts.
            rows: For each how many rows each of its texts has.
        """
        lengths = [self._length(prompt, counts) for prompt, counts in zip(framed, rows, strict=True)]
        batch: list[int] = []
        for number in sorted(range(len(framed)), key=lambda i: -lengths[i]):
            longest = lengths[batch[0]] if batch else 0
            if batch and ((len(batch) + 1) * longest > self._most or lengths[number] < longest * 2 // 3):
                yield batch
                batch = []
            batch.append(number)
        if batch:
            yield batch

    def read(
        self, framed: Sequence[Framed], rows: Sequence[Sequence[Tensor]], *, hidden: bool = False
    ) -> list[tuple[Tensor, tuple[Tensor, ...]]]:
        """Logits of the answers' tokens, differentiable in the rows.

        Args:
            framed: Prompts that run together.
            rows: For each the rows of its texts, ``[n, d]`` each.
            hidden: Whether the hidden states at the answers are wanted, too.

        Returns:
            For each prompt ``[n_answer, vocabulary]`` in fp32, and the hidden states before each of the answer's
            tokens, ``[n_answer, d]`` a layer; none where they are not wanted.
        """
        odd = [number for number, prompt in enumerate(framed) if self._prefix and not self._begins(prompt)]
        if odd:  # a question that is a worked example, which is left out then: read without what is kept
            whole = Reader(self._lm, [], most=self._most)
            same = [number for number in range(len(framed)) if number not in odd]
            found_odd = iter(whole.read([framed[i] for i in odd], [rows[i] for i in odd], hidden=hidden))
            some = self.read([framed[i] for i in same], [rows[i] for i in same], hidden=hidden) if same else []
            found_same = iter(some)
            return [next(found_odd if number in odd else found_same) for number in range(len(framed))]
        return self._read(framed, rows, hidden)

    def _read(
        self, framed: Sequence[Framed], rows: Sequence[Sequence[Tensor]], hidden: bool
    ) -> list[tuple[Tensor, tuple[Tensor, ...]]]:
        import torch

        embedding = self._lm.model.get_input_embeddings()
        inputs = [
            torch.cat([self._embedded(piece, some, embedding) for piece in self._pieces(prompt)])
            for prompt, some in zip(framed, rows, strict=True)
        ]
        width = max(map(len, inputs))
        padded = torch.stack([torch.nn.functional.pad(row, (0, 0, 0, width - len(row))) for row in inputs])
        starts = [len(row) - len(p.answer) for row, p in zip(inputs, framed, strict=True)]
        keep = width - min(starts)
        out = self._lm.model(
            inputs_embeds=padded,
            past_key_values=self._cache(len(framed)),
            use_cache=bool(self._kept),
            logits_to_keep=keep,
            output_hidden_states=hidden,
        )
        found = []
        for number, (start, prompt) in enumerate(zip(starts, framed, strict=True)):
            first = start - (width - keep)
            logits = out.logits[number, first : first + len(prompt.answer)].float()
            layers = out.hidden_states[1:] if hidden else ()
            found.append((logits, tuple(layer[number, start : start + len(prompt.answer)] for layer in layers)))
        return found

    def _cache(self, size: int) -> Any:
        from transformers import DynamicCache

        if not self._kept:
            return None
        cache = DynamicCache()
        for number, (keys, values) in enumerate(self._kept):
            cache.update(keys.expand(size, -1, -1, -1), values.expand(size, -1, -1, -1), number)
        return cache

    def _pieces(self, prompt: Framed) -> Iterator[list[int] | int]:
        """The prompt's pieces behind the common beginning, and the answer but for its last token."""
        first = prompt.pieces[0]
        if not isinstance(first, list):
            yield first
        elif first[len(self._prefix) :]:
            yield first[len(self._prefix) :]
        yield from prompt.pieces[1:]
        if prompt.answer[:-1]:
            yield prompt.answer[:-1]

    def _begins(self, prompt: Framed) -> bool:
        first = prompt.pieces[0]
        return isinstance(first, list) and first[: len(self._prefix)] == self._prefix

    def _embedded(self, piece: list[int] | int, rows: Sequence[Tensor], embedding: Any) -> Tensor:
        import torch

        if isinstance(piece, int):
            return rows[piece].to(device=embedding.weight.device, dtype=embedding.weight.dtype)
        found: Tensor = embedding(torch.tensor(piece, device=embedding.weight.device))
        return found

    def _length(self, prompt: Framed, counts: Sequence[int]) -> int:
        total = sum(counts[p] if isinstance(p, int) else len(p) for p in prompt.pieces)
        return total - (len(self._prefix) if self._begins(prompt) else 0) + len(prompt.answer)


def _common(framed: Sequence[Framed]) -> list[int]:
    """The ids that all prompts begin with, but never the whole of a piece."""
    firsts = [p.pieces[0][:-1] if isinstance(p.pieces[0], list) else [] for p in framed]
    if not firsts:
        return []
    same = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*firsts, strict=False))
    return [tokens[0] for tokens in same]
