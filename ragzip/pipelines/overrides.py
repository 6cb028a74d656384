"""``--set compressors.0.threshold=0.1``: one value of a config, changed by its path."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from ragzip import yaml_io
from ragzip.errors import ConfigError
from ragzip.registry import suggest


def apply_overrides(values: Any, overrides: Sequence[str]) -> Any:
    """A copy of plain values with each ``path=value`` set; values are read as YAML reads them.

    The last key may be new, everything before it must be there; options are checked when the config is built.

    Raises:
        ConfigError: No ``=``, or a path that leads nowhere.
    """
    result = copy.deepcopy(values)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path.strip():
            raise ConfigError(
                "--set",
                f"{override!r} is not path=value",
                hint="Example: --set steps=100, --set compressors.0.budget=200",
            )
        result = _set(result, path.strip().split("."), yaml_io.scalar(text), path.strip())
    return result


def _set(node: Any, keys: list[str], value: Any, path: str) -> Any:
    key, rest = keys[0], keys[1:]
    if isinstance(node, str):  # the short form of a component: its name alone
        node = {"type": node}
    if isinstance(node, list):
        if not (key.isascii() and key.isdigit()) or len(key) > 9 or int(key) >= len(node):
            raise ConfigError(path, f"there is no item {key!r} in a list of {len(node)}", hint="Items count from 0.")
        index = int(key)
        node[index] = _set(node[index], rest, value, path) if rest else value
        return node
    if not isinstance(node, dict):
        raise ConfigError(path, f"there is nothing below {key!r} to set", hint="Check the path.")
    if rest and key not in node:
        raise ConfigError(path, f"there is no {key!r}", hint=suggest(key, [str(k) for k in node]))
    node[key] = _set(node[key], rest, value, path) if rest else value
    return node
