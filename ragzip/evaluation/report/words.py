"""Untrusted text as it may be shown: without control characters, and names on one line."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(value: object) -> str:
    """Text without control characters and lone surrogates, as many characters long as before."""
    return _SURROGATE.sub("\ufffd", _CONTROL.sub(" ", str(value)))


def word(value: object) -> str:
    """A name on one line, without characters that change the direction of what stands around it."""
    return _BIDI.sub("", plain(value)).replace("\n", " ").replace("\t", " ")


def finite(value: object) -> float | None:
    """The value where it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def mapping(value: object) -> Mapping[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}
