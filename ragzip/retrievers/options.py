"""Checks of options that retrievers share; importing this loads nothing."""

from __future__ import annotations

from typing import Any

from ragzip.errors import ConfigError


def at_least(name: str, value: Any, least: int) -> int:
    """A whole number that is large enough.

    Raises:
        ConfigError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(name, f"must be a whole number of at least {least}, not {value!r}")
    return value


def check_index(index: Any, top_k: Any, filters: Any) -> None:
    """The options of a retriever over an index folder.

    Raises:
        ConfigError: One that cannot be.
    """
    if not isinstance(index, str) or not index:
        raise ConfigError("index", f"must be the path of an index folder, not {index!r}")
    at_least("top_k", top_k, 1)
    if not isinstance(filters, tuple):
        raise ConfigError("filters", f"must be a tuple of strings, not {filters!r}")
    if filters:
        from ragzip.indexes.filters import parse

        parse(filters)
