"""Prompts with soft segments for servers that take prompt embeddings: the request body, ready to be sent.

vLLM's server, started with ``--enable-prompt-embeds``, reads ``prompt_embeds`` in the body of ``/v1/completions``: the
base64 of what ``torch.save`` writes for a tensor ``[n, d_model]``, beside an empty ``prompt``
(https://docs.vllm.ai/features/prompt_embeds.html). It applies no chat template to them, so that the whole prompt is
embedded here, in the model's own template. The server must run the very model that the rows were made for.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from ragzip.errors import ConfigError, GenerationError
from ragzip.types import Message, Segment

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.generators.huggingface import HuggingFace

Number = Literal["float32", "bfloat16", "float16"]


def completion_requests(
    generator: HuggingFace,
    prompts: Sequence[Sequence[Message[Segment]]],
    *,
    served_model: str = "",
    number: Number = "bfloat16",
) -> list[dict[str, Any]]:
    """Bodies for ``POST /v1/completions``, one a prompt, as plain values.

    Args:
        generator: Its model makes the embeddings; its options say how to decode. Its ``kv`` is of this process: a
            server has a cache of its own.
        prompts: Chat turns each, with soft segments or without.
        served_model: What the server calls the model; "" is the generator's name of it.
        number: Format of the numbers that are sent; the server converts them to its own.

    Returns:
        Dictionaries that ``json.dumps`` takes. With the client of ``openai``, ``prompt_embeds``,
        ``repetition_penalty``, ``top_k`` and ``min_p`` go into ``extra_body``.

    Raises:
        ConfigError: No such number format.
        PromptTooLong: A prompt that does not fit into the model's window.
        GenerationError: A prompt that cannot be rendered, or a soft segment of another model.
    """
    import torch

    from ragzip.models.chat import encode_prompt

    if number not in ("float32", "bfloat16", "float16"):
        raise ConfigError("number", f"must be float32, bfloat16 or float16, not {number!r}")
    lm = generator.load()
    bodies = []
    for place, messages in enumerate(prompts):
        prompt = encode_prompt(lm, messages, number=place)
        generator.check_window(place, prompt.length, lm.window)
        pieces = prompt.pieces
        whole = torch.cat([lm.embed(piece) if isinstance(piece, list) else piece for piece in pieces])
        rows = whole.to("cpu", getattr(torch, number))
        if not bool(torch.isfinite(rows).all()):
            raise GenerationError(
                f"prompt {place} for {lm.name!r} has values beyond what {number} can say",
                hint="Send float32 or bfloat16.",
            )
        body: dict[str, Any] = {
            "model": served_model or generator.model,
            "prompt": "",
            "prompt_embeds": encoded(rows),
            "max_tokens": generator.max_new_tokens,
            "temperature": generator.temperature,
            # named, since servers take what is not from the model's own defaults
            "repetition_penalty": 1.0,
        }
        if generator.temperature > 0:
            body |= {"top_p": generator.top_p, "top_k": -1, "min_p": 0.0, "seed": generator.seed}
        stop = list(generator.stops(messages))
        bodies.append({**body, "stop": stop} if stop else body)
    return bodies


def encoded(rows: Tensor) -> str:
    """The base64 of a tensor as ``torch.save`` writes it: a copy, so that no more is sent than it holds."""
    import torch

    buffer = io.BytesIO()
    torch.save(rows.detach().contiguous().clone(), buffer)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
