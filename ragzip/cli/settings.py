"""``--set option=value``: options of one component, as YAML would say them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ragzip.errors import UsageError


def read_settings(options: Sequence[str], *, example: str) -> dict[str, Any]:
    """Options and their values.

    Args:
        options: ``option=value`` each; the last one of a name counts.
        example: One that works, for the error.

    Raises:
        UsageError: One without a name or a value.
    """
    from ragzip import yaml_io

    values: dict[str, Any] = {}
    for option in options:
        key, sign, value = option.partition("=")
        if not sign or not key:
            raise UsageError(f"--set {option!r} is not option=value", hint=f"Example: --set {example}")
        values[key] = yaml_io.parse(value)[0]
    return values
