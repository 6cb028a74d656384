"""What a request to a server carries besides its prompt: headers, and options that not every server knows."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ragzip.errors import GenerationError
from ragzip.generators._server_errors import words_of

_UNKNOWN = (400, 422)
_OWN = ("OpenAI-Organization", "OpenAI-Project")  # the client reads them from the environment
_LIMITS = ("max_tokens", "max_completion_tokens")


def check_key(key: str, variable: str) -> None:
    """Refuses what cannot stand in a header: an error of the client's would show it.

    Raises:
        GenerationError: The key has line breaks, control characters, or others outside ASCII.
    """
    if not (key.isascii() and key.isprintable()):
        raise GenerationError(
            f"the environment variable {variable} holds more than a key: a line break, or a character outside ASCII",
            hint=f"Set {variable} to the key alone.",
        )


def foreign_headers(key: str) -> dict[str, Any]:
    """Headers for a server that is not OpenAI's: the key, and nothing else that the client finds in the environment."""
    import openai

    custom = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    found = {line.partition(":")[0].strip() for line in custom if ":" in line}
    left_out = {name: openai.Omit() for name in (*_OWN, *found)}
    return {**left_out, **{n: f"Bearer {key}" for n in ("Authorization", *found) if n.lower() == "authorization"}}


def create(send: Callable[..., Any], options: dict[str, Any]) -> Any:
    """Sends a request, and again without what the server says it does not know.

    Older servers know no ``stream_options``, and some want the one or the other name for the most tokens of an answer.

    Args:
        send: Of the client.
        options: Of the request.
    """
    import openai

    while True:
        try:
            return send(**options)
        except openai.APIStatusError as error:
            if error.status_code not in _UNKNOWN or (other := _without(options, words_of(error))) is None:
                raise
            options = other


def _without(options: dict[str, Any], words: str) -> dict[str, Any] | None:
    """The options without what a server's words name; None where they name nothing that can go."""
    if "stream_options" in words and "stream_options" in options:
        return {name: value for name, value in options.items() if name != "stream_options"}
    old, new = _LIMITS
    if old in options and new in words:
        return {new if name == old else name: value for name, value in options.items()}
    return None
