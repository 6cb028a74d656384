"""Metadata filters: ``key=value``, ``key!=value``, ``key>=3``, ``source=docs/*``; all of them must hold.

``=`` and ``!=`` compare numbers as numbers and everything else as text, upper and lower case apart; with ``*``, ``?``
or ``[...]`` in the value they match it as a glob, and ``==`` takes those literally. ``!=`` is exactly where ``=`` is
not, so it also holds where the key is missing. ``<``, ``<=``, ``>`` and ``>=`` compare numbers where both sides are
numbers, else text (so that ISO dates work), and never hold where the key is missing. A list holds where one of its
members does. ``id`` and ``title`` are a passage's own unless its metadata has these keys.
"""

from __future__ import annotations

import fnmatch
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ragzip.errors import ConfigError

_SHAPE = re.compile(r"\s*([^=<>!]*[^=<>!\s])\s*(==|!=|>=|<=|=|>|<)(.*)", re.DOTALL)
_GLOB = re.compile(r"[*?[]")
_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,1000}\s*")
_DECIMAL = re.compile(r"\s*[+-]?(?:[0-9]{1,1000}\.[0-9]{0,1000}|\.[0-9]{1,1000})(?:[eE][+-]?[0-9]{1,4})?\s*")
_POWER = re.compile(r"\s*[+-]?[0-9]{1,100}[eE][+-]?[0-9]{1,4}\s*")
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_MISSING = object()
_HINT = "Write key=value, key!=value, key>=3, key<2024 or source=docs/*."


@dataclass(frozen=True, slots=True)
class Condition:
    """One parsed filter.

    Attributes:
        key: Of the metadata.
        test: Whether one value of it passes; is asked with a marker of its own where the key is missing.
        negated: For ``!=``, where ``test`` is that of ``=``.
    """

    key: str
    test: Callable[[Any], bool]
    negated: bool = False

    def holds(self, metadata: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
        """Whether a passage passes.

        Args:
            metadata: The passage's.
            own: Its id and title.
        """
        value = metadata.get(self.key, own.get(self.key, _MISSING))
        passed = any(map(self.test, value)) if isinstance(value, list) else value is not _MISSING and self.test(value)
        return passed != self.negated


def parse(filters: Sequence[str], path: str = "filters") -> tuple[Condition, ...]:
    """Parses filters.

    Args:
        filters: As written by a user.
        path: Where in the configuration they stand.

    Raises:
        ConfigError: One that is no filter.
    """
    return tuple(_parse(text, f"{path}.{number}") for number, text in enumerate(filters))


def _parse(text: str, path: str) -> Condition:
    match = _SHAPE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ConfigError(path, f"{text!r} is no filter", hint=_HINT)
    key, sign, value = match[1], match[2], match[3].strip()
    if sign in _ORDER:
        if not value:
            raise ConfigError(path, f"{text!r} has nothing to compare with", hint=_HINT)
        return Condition(key, _ordered(_ORDER[sign], value))
    return Condition(key, _equal(value, literal=sign == "=="), negated=sign == "!=")


def _equal(wanted: str, *, literal: bool) -> Callable[[Any], bool]:
    if not literal and _GLOB.search(wanted):
        pattern = re.compile(fnmatch.translate(wanted))
        return lambda value: pattern.match(_text(value)) is not None
    number = _number(wanted)

    def test(value: Any) -> bool:
        if number is not None and not isinstance(value, bool) and (other := _number(value)) is not None:
            return number == other
        return _text(value) == wanted

    return test


def _ordered(compare: Callable[[Any, Any], bool], wanted: str) -> Callable[[Any], bool]:
    number = _number(wanted, powers=True)

    def test(value: Any) -> bool:
        if value is None or isinstance(value, bool):
            return False
        if number is not None and (other := _number(value, powers=True)) is not None:
            return compare(other, number)
        return isinstance(value, str) and compare(value, wanted)

    return test


def _number(value: Any, *, powers: bool = False) -> int | float | None:
    """A finite number, as itself or as text; whole ones are exact, however long, as identifiers are.

    With ``powers`` also "1e5", which may be an identifier.
    """
    if isinstance(value, str):
        if _WHOLE.fullmatch(value):
            return int(value)
        value = float(value) if _DECIMAL.fullmatch(value) or (powers and _POWER.fullmatch(value)) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isinstance(value, int) or math.isfinite(value) else None


def _text(value: Any) -> str:
    """A value as a user would write it: true, false and null as in JSON."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return value if isinstance(value, str) else str(value)
