"""Checks that several generators share. Cheap: nothing is imported, nothing loaded."""

from __future__ import annotations

import math
from typing import Any

from ragzip.errors import ConfigError


def whole(path: str, value: Any, least: int, most: int = 2**63 - 1) -> None:
    """Refuses what is no whole number from ``least`` to ``most``: what no more than 63 bits hold."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(path, f"must be a whole number from {least}, not {value!r}")
    if value > most:
        raise ConfigError(path, f"must be at most {most}, not {value}")


def number(path: str, value: Any, least: float, most: float = math.inf, *, open_below: bool = False) -> None:
    """Refuses what is no finite number between ``least`` and ``most``."""
    fine = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not fine or not least <= value <= most or (open_below and value == least):
        low = f"more than {least:g}" if open_below else f"at least {least:g}"
        high = f" and at most {most:g}" if most < math.inf else ""
        raise ConfigError(path, f"must be {low}{high}, not {value!r}")


def text(path: str, value: Any) -> None:
    """Refuses what is no text or empty."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(path, f"must be a text that is not empty, not {value!r}")


def stops(path: str, value: Any) -> None:
    """Refuses what is no tuple of texts that are not empty."""
    if not isinstance(value, tuple) or not all(isinstance(item, str) and item for item in value):
        raise ConfigError(path, f"must be a list of texts that are not empty, not {value!r}")
