"""What went wrong with a server, in one line that says what to do. Never shows a key."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from ragzip.errors import GenerationError, PromptTooLong

_TOO_LONG = re.compile(
    r"context.{0,10}(?:length|size)|maximum context|(?<!took )too long|too many tokens|context window|exceed_context"
    r"|maximum model length|max_model_len|reduce the length|input[^.]{0,60}exceeds the maximum number of tokens"
    r"|inputs\W{1,3}tokens\W{1,3}\+\W{1,3}max_new_tokens",
    re.IGNORECASE,
)
_OUT_OF_CONTEXT = re.compile(r"context size has been exceeded|exceed_context", re.IGNORECASE)  # HTTP 500 of llama.cpp


def explain(error: Exception, model: str, url: str, key_env: str, timeout: float) -> GenerationError:
    """The error to raise for one that the client raised.

    Args:
        error: From the ``openai`` library or the HTTP library below it.
        model: Asked for.
        url: The server.
        key_env: The environment variable with the key.
        timeout: Seconds that were waited.
    """
    status = getattr(error, "status_code", None)
    name, server = type(error).__name__, f"the server at {url}"
    if "Timeout" in name:
        return GenerationError(
            f"{server} gave no sign for {timeout:g} s",
            hint="It may be overloaded: raise timeout, or lower concurrency.",
        )
    if status in (401, 403):
        state = "refuses the API key in" if os.environ.get(key_env) else "wants an API key, and there is none in"
        return GenerationError(
            f"{server} {state} {key_env}", hint=f"Set the environment variable {key_env} to a valid key."
        )
    if status == 404:
        return GenerationError(
            f"{server} does not know the model {model!r}, or has no chat API at this address",
            hint="Check model and base_url, which mostly ends in /v1.",
        )
    if status == 429:
        return GenerationError(
            f"{server} turned the request away: {_said(error, key_env) or 'too many requests'}",
            hint="Wait, lower concurrency, raise retries, or check the account's credit.",
        )
    if isinstance(status, int):
        said = _said(error, key_env)
        problem = f"{server} refuses the request (HTTP {status}): {said}"
        if (_TOO_LONG if status < 500 else _OUT_OF_CONTEXT).search(f"{said} {_kind(error)}"):
            return PromptTooLong(problem, hint="Lower top_k, or add a budget to the compressors.")
        if status >= 500:
            return GenerationError(
                f"{server} failed (HTTP {status}): {said}", hint="Look at its log, or try again later."
            )
        return GenerationError(problem, hint="Check model and options.")
    if name == "APIConnectionError":
        cause = _line(error.__cause__ or error, key_env)
        return GenerationError(
            f"{server} does not answer ({cause})", hint="Is it running? Check base_url and the network."
        )
    return GenerationError(
        f"{server} broke off or sent what is no answer ({name}: {_line(error, key_env)})",
        hint="Is it an API of OpenAI's kind? Check base_url and its log.",
    )


def words_of(error: Exception) -> str:
    """All that a server said, for looking something up in it; not to be shown."""
    body = getattr(error, "body", None)
    return f"{error} {json.dumps(body, default=str, ensure_ascii=False)}"


def _said(error: Exception, key_env: str) -> str:
    """The server's own words: ``message`` of its JSON body, or what other servers have in its place."""
    words = _message(getattr(error, "body", None))
    return _clean(words, key_env) if words else _line(error, key_env)


def _message(body: Any, depth: int = 4) -> str:
    if isinstance(body, str):
        return body.strip()
    if isinstance(body, list) and depth:
        return "; ".join(filter(None, (_message(one, depth - 1) for one in body[:4])))
    if isinstance(body, dict) and depth:
        found = (_message(body.get(name), depth - 1) for name in ("message", "error", "detail", "msg"))
        return next(filter(None, found), "")
    return ""


def _kind(error: Exception) -> str:
    """What the server calls its error, where its JSON body says so."""
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else None
    return " ".join(str(inner.get(name) or "") for name in ("type", "code")) if isinstance(inner, dict) else ""


def _line(error: BaseException, key_env: str) -> str:
    return _clean(str(error) or type(error).__name__, key_env)


def _clean(words: str, key_env: str) -> str:
    """One short line without the key or anything that looks like one."""
    key = os.environ.get(key_env, "").strip()
    if key:
        words = words.replace(key, "***")
    words = re.sub(r"\b(sk|key)-[\w*-]{6,}", "***", words)
    words = re.sub(r"\bBearer\s+\S+", "Bearer ***", words)
    return " ".join(words.split())[:300]
