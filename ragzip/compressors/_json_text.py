"""JSON within texts, whole texts that are JSON, and strings as JSON writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ragzip.text import Stretch

_JSON = re.compile(r"\{\s*\"|\[\s*[\[{\"]")
_BEHIND = 16_384  # characters that are read again at most for an error


def json_in(text: str) -> Iterator[Stretch]:
    """JSON objects, and arrays of objects, arrays or strings, that parse, anywhere in a text: in linear time."""
    decoder: Any = json.JSONDecoder(parse_int=str, parse_float=str)
    patience = 8 * len(text) + 10_000  # brackets that never close must not be read to the end again and again
    done = base = 0
    rest = text  # from ``base`` on: an error counts all lines before it
    for match in _JSON.finditer(text):
        start = match.start()
        if start < done or patience <= 0:
            continue
        if start - base > _BEHIND:
            base, rest = start, text[start:]
        try:
            done = base + decoder.raw_decode(rest, start - base)[1]
        except json.JSONDecodeError as error:
            patience -= max(error.pos - (start - base), 1)
        except RecursionError:
            patience -= len(text) - start
        else:
            yield start, done


def is_json(text: str) -> bool:
    """Whether the whole text is a JSON object, array or string."""
    if text.lstrip()[:1] not in ("{", "[", '"'):
        return False
    try:
        json.loads(text, parse_int=str, parse_float=str)
    except ValueError:
        return False
    except RecursionError:  # too deep for Python's parser; nothing that reads it as JSON gets this far
        return False
    return True


def json_literal(value: str, like: str) -> str:
    """A string as a JSON literal, escaped as the one whose place it takes."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # half of a pair can only stand in JSON escaped
        return json.dumps(value)
    if not like.isascii():
        return json.dumps(value, ensure_ascii=False)
    parts = value.split("\x7f") if "\x7f" in like else [value]  # the only letter of ASCII that json escapes
    return '"' + "\x7f".join(json.dumps(part)[1:-1] for part in parts) + '"'
