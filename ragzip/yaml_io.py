"""YAML in and out, with the line of every value: ``SafeLoader`` only, bounded, no duplicate keys, no aliases."""

from __future__ import annotations

from typing import Any

import yaml

from ragzip.config import Lines
from ragzip.errors import ConfigError

MAX_BYTES = 1_000_000
_MAX_DEPTH = 30


def parse(text: str, *, source: str = "") -> tuple[Any, Lines]:
    """Plain values and, for each path in them, its line.

    Raises:
        ConfigError: Not YAML, too large or too deep, a key twice, an alias, or a tag that is not plain data.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError("", f"longer than {MAX_BYTES:,} characters", source=source, hint="Is it a pipeline?")
    loader = yaml.SafeLoader(text)
    try:
        _refuse_aliases(text, source)
        node = loader.get_single_node()
        lines: dict[str, int] = {}
        value = None if node is None else _value(loader, node, "", lines, source, 0)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        problem = getattr(error, "problem", None) or str(error).split("\n")[0]
        line = mark.line + 1 if mark else 0
        raise ConfigError("", f"not valid YAML: {problem}", source=source, line=line) from error
    finally:
        loader.dispose()
    return value, lines


def dump(value: Any) -> str:
    """YAML of plain values, keys in their order, one document."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)


def scalar(text: str) -> Any:
    """The value of an override as YAML reads it: ``0.1``, ``true``, ``null``, ``[a, b]`` or a string."""
    try:
        return parse(text)[0]
    except ConfigError:
        return text


def _refuse_aliases(text: str, source: str) -> None:
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1 if event.start_mark else 0
            raise ConfigError("", "aliases are not allowed", source=source, line=line, hint="Write the value out.")


def _value(loader: Any, node: Any, path: str, lines: dict[str, int], source: str, depth: int) -> Any:
    line = node.start_mark.line + 1
    lines[path] = line
    if depth > _MAX_DEPTH:
        raise ConfigError(path, f"nested deeper than {_MAX_DEPTH} levels", source=source, line=line)
    plain = "tag:yaml.org,2002:map" if isinstance(node, yaml.MappingNode) else "tag:yaml.org,2002:seq"
    if not isinstance(node, yaml.ScalarNode) and node.tag != plain:
        raise ConfigError(path, f"not valid YAML for a config: the tag {node.tag!r}", source=source, line=line)
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(loader.construct_object(key_node, deep=True))
            inner = f"{path}.{key}" if path else key
            if key in result:
                where = key_node.start_mark.line + 1
                raise ConfigError(inner, "stands here twice", source=source, line=where, hint="Remove one.")
            result[key] = _value(loader, value_node, inner, lines, source, depth + 1)
            lines[inner] = key_node.start_mark.line + 1
        return result
    if isinstance(node, yaml.SequenceNode):
        return [
            _value(loader, item, f"{path}.{i}" if path else str(i), lines, source, depth + 1)
            for i, item in enumerate(node.value)
        ]
    return loader.construct_object(node, deep=True)
