"""Chat turns -> the pieces a local model reads: token ids and rows of soft segments, in the order of its template.

Only the chat template may write control tokens. What stands in the turns is data: a passage that contains
``<|im_end|>`` is cut inside that string before the template is rendered, so that it reaches the model as the
characters it is.

The template is rendered as text with marks where soft segments stand and where such strings were cut, split at the
marks, and each part is tokenised. Without marks, which is the common case, that is exactly what the model's own
``apply_chat_template`` gives. Templates that let a model think before it answers are asked for an answer at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ragzip.errors import GenerationError
from ragzip.models.causal_lm import CausalLM
from ragzip.models.locate import canonical
from ragzip.models.tokenizer import encode_batch
from ragzip.types import Message, Segment, SoftSegment, TextSegment

if TYPE_CHECKING:
    from torch import Tensor

JOINER = "\n\n"  # between turns of a model without a chat template
_THINK, _THOUGHT = "<think>", "</think>"
_A_DAY = "26 Jul 2024"
_OF_THAT_DAY = {"%Y": "2024", "%m": "07", "%d": "26", "%b": "Jul", "%B": "July", "%H": "12", "%M": "00"}
_THAT_DAY = (  # in the place of the function; the line end goes with the block before it
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f"|replace('{key}', '{value}')" for key, value in _OF_THAT_DAY.items())
    + " }}{%- endmacro %}\n"
)


@dataclass(frozen=True, eq=False)
class EncodedPrompt:
    """A prompt as the model reads it.

    Attributes:
        pieces: Token ids and soft rows ``[n, dimensions]``, alternating as they come; ids never stand next to ids.
    """

    pieces: tuple[list[int] | Tensor, ...]

    @property
    def length(self) -> int:
        """Positions it takes: one per token, one per soft row."""
        return sum(len(piece) for piece in self.pieces)

    @property
    def ids(self) -> list[int] | None:
        """All of it as token ids, or None where there are soft rows."""
        if len(self.pieces) == 1 and isinstance(self.pieces[0], list):
            return self.pieces[0]
        return None


def encode_prompt(
    lm: CausalLM, messages: Sequence[Message[Segment]], *, number: int = 0, dated: bool = True
) -> EncodedPrompt:
    """The pieces of one prompt.

    Args:
        lm: The model.
        messages: Chat turns, oldest first. When the last one is the assistant's, the model goes on with it.
        number: Which prompt of its batch, for error messages.
        dated: Whether templates that tell the date tell that of today.

    Raises:
        GenerationError: No turns, a turn the template refuses, or a soft segment of another model's space.
    """
    if not messages:
        raise GenerationError(f"prompt {number} has no messages", hint="Give at least a user's turn.")
    mark = f"@@ragzip-{secrets.token_hex(8)}-"
    soft: dict[str, Tensor | None] = {}
    turns = [{"role": m.role, "content": _content(lm, m, mark, soft, number)} for m in messages]
    rendered = _render(lm, turns, number, dated)
    if rendered is None:
        rendered, start = JOINER.join(turn["content"] for turn in turns), _start_tokens(lm)
    else:
        start = []
    parts = _split(rendered, mark, soft, number)
    texts = [part for part in parts if isinstance(part, str)]
    encoded = iter(encode_batch(lm.text.tokenizer, texts, special=False))
    pieces: list[list[int] | Tensor] = [start] if start else []
    for part in parts:
        piece = next(encoded).ids if isinstance(part, str) else part
        if isinstance(piece, list) and pieces and isinstance(pieces[-1], list):
            pieces[-1] = pieces[-1] + piece
        elif len(piece):
            pieces.append(piece)
    if not pieces:
        raise GenerationError(f"prompt {number} is empty", hint="Give it some text.")
    return EncodedPrompt(tuple(pieces))


def _content(lm: CausalLM, message: Message[Segment], mark: str, soft: dict[str, Tensor | None], number: int) -> str:
    """A turn's content with marks; the texts between two soft segments are one text, as they will be read."""
    out, run = [], ""
    for piece in message.pieces:
        if isinstance(piece, SoftSegment):
            out += [_guarded(lm, run, mark, soft), _marked(mark, soft, _rows(lm, piece, number))]
            run = ""
        else:
            run += piece.text if isinstance(piece, TextSegment) else piece
    return "".join([*out, _guarded(lm, run, mark, soft)])


def _guarded(lm: CausalLM, text: str, mark: str, soft: dict[str, Tensor | None]) -> str:
    """The text with a mark inside every string that would become a control token."""
    if not text:
        return text
    parts = lm.text.split(text)
    return parts[0] + "".join(_marked(mark, soft, None) + part for part in parts[1:])


def _marked(mark: str, soft: dict[str, Tensor | None], rows: Tensor | None) -> str:
    key = f"{mark}{len(soft)}@@"
    soft[key] = rows
    return key


def _rows(lm: CausalLM, segment: SoftSegment, number: int) -> Tensor:
    """A soft segment's rows, checked: made for this model, as wide as it reads, finite."""
    import torch

    rows = torch.as_tensor(segment.embeddings).detach()
    if canonical(segment.space) != lm.space:
        raise GenerationError(
            f"prompt {number} has a soft segment in the space of {segment.space!r}, but the generator is {lm.name!r}",
            hint="Use the compressor and the generator with the same model.",
        )
    if rows.dim() != 2 or rows.shape[1] != lm.dimensions:
        raise GenerationError(
            f"prompt {number} has a soft segment of shape {list(rows.shape)}, but {lm.name!r} reads "
            f"[n_tokens, {lm.dimensions}]",
            hint="Use a compressor that was made for this generator.",
        )
    read = rows.to(device=lm.device, dtype=lm.model.dtype)
    if not bool(torch.isfinite(read).all()):
        whose = f"in the {lm.dtype} of {lm.name!r}" if bool(torch.isfinite(rows).all()) else "as they were made"
        raise GenerationError(
            f"prompt {number} has a soft segment with values that are not finite {whose}",
            hint="The compressor that made it is broken, or a number format is too narrow: try dtype: fp32.",
        )
    return read


def _render(lm: CausalLM, turns: list[dict[str, str]], number: int, dated: bool) -> str | None:
    """The turns in the model's chat template, or None where it has none."""
    if not lm.tokenizer.chat_template:
        return None
    merged = _without_system(turns)
    reason: Exception | None = None
    for attempt in [turns, merged] if merged else [turns]:
        try:
            rendered = apply_template(lm, attempt, goes_on=attempt[-1]["role"] == "assistant", dated=dated)
        except Exception as error:  # noqa: BLE001 - templates are programs, and may refuse with anything
            reason = error
            continue
        if attempt is turns and merged and turns[0]["content"].strip() not in rendered:
            continue  # some templates leave out the system's turn without a word
        return rendered
    raise GenerationError(
        f"the chat template of {lm.name!r} refuses prompt {number}: {str(reason).strip()[:200]}",
        hint="Most templates want turns of user and assistant in alternation, the user's first.",
    ) from reason


def apply_template(
    lm: CausalLM, turns: list[dict[str, str]], *, goes_on: bool, dated: bool, answered: bool = False
) -> str:
    """Turns as the model's chat template prints them, without time to think.

    Args:
        lm: The model.
        turns: ``role`` and ``content`` each.
        goes_on: Whether the model goes on with the last turn; else it begins one.
        dated: Whether the date is that of today; else it is always the same day.
        answered: Whether the last turn is all that there is, and nothing is begun.
    """
    day: dict[str, Any] = {} if dated else {"date_string": _A_DAY}
    if not dated and "strftime_now" in (template := str(lm.tokenizer.get_chat_template())):
        day["chat_template"] = _THAT_DAY + template
    rendered: Any = lm.tokenizer.apply_chat_template(
        turns,
        tokenize=False,
        add_generation_prompt=not (goes_on or answered),
        continue_final_message=goes_on,
        enable_thinking=False,
        **day,
    )
    text = str(rendered)
    if not (goes_on or answered) and text.rstrip().endswith(_THINK):
        return f"{text.rstrip()}\n\n{_THOUGHT}\n\n"  # a template that has its model think whatever is asked
    return text


def _without_system(turns: list[dict[str, str]]) -> list[dict[str, str]] | None:
    """For templates without a system's turn: it goes before the first user's. None where there is nothing to move."""
    if len(turns) < 2 or turns[0]["role"] != "system" or turns[1]["role"] != "user":
        return None
    first = {"role": "user", "content": turns[0]["content"] + JOINER + turns[1]["content"]}
    return [first, *turns[2:]]


def _start_tokens(lm: CausalLM) -> list[int]:
    """What the tokenizer puts before plain text: the token that begins a text, for models that want one."""
    first = encode_batch(lm.text.tokenizer, ["a"], special=True)[0].ids[:1]
    begin = lm.tokenizer.bos_token_id
    return first if begin is not None and first == [begin] else []


def _split(rendered: str, mark: str, soft: dict[str, Tensor | None], number: int) -> list[str | Tensor]:
    parts: list[str | Tensor] = []
    rest = rendered
    for key, rows in soft.items():
        before, found, rest = rest.partition(key)
        if not found or key in rest:
            raise GenerationError(
                f"the chat template does not pass on the content of prompt {number} as it is",
                hint="Soft segments need a template that prints each turn's content once, unchanged.",
            )
        parts.append(before)
        if rows is not None:
            parts.append(rows)
    return [*parts, rest]
