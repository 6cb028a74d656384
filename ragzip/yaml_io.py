"""YAML in and out, with the line of every value: ``SafeLoader`` only, bounded, no duplicate keys, no aliases."""

from __future__ import annotations

from typing import Any

import yaml

from ragzip.config import Lines
from ragzip.errors import ConfigError

MAX_BYTES = 1_000_000
_MAX_DEPTH = 30
_SYNTAX = "Check brackets, colons and indentation (spaces, no tabs) there."
_UNICODE_BREAKS = ("\x85", "\u2028", "\u2029", "\ufeff")


def parse(text: str, *, source: str = "", most: int = MAX_BYTES) -> tuple[Any, Lines]:
    """Plain values and, for each path in them, its line.

    Args:
        text: YAML.
        source: Where it stands, for messages.
        most: Characters that it may have.

    Raises:
        ConfigError: Not YAML, too large or too deep, a key twice, an alias, a tag that is not plain data, or a value
            that looks like a date or a number and is none.
    """
    if len(text) > most:
        raise ConfigError("", f"longer than {most:,} characters", source=source, hint="Is it a pipeline?")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError("", "not valid Unicode", source=source, hint="Save it as UTF-8.")
    loader: Any = None
    try:
        loader = yaml.SafeLoader(text)  # refuses control characters
        _look_over(text, source)
        node = loader.get_single_node()
        lines: dict[str, int] = {}
        value = None if node is None else _value(loader, node, "", lines, source)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        problem = getattr(error, "problem", None) or str(error).split("\n")[0]
        line = mark.line + 1 if mark else 0
        raise ConfigError("", f"not valid YAML: {problem}", hint=_SYNTAX, source=source, line=line) from error
    finally:
        if loader is not None:
            loader.dispose()
    return value, lines


def dump(value: Any) -> str:
    """YAML of plain values, keys in their order, one document."""
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
    if any(mark in text for mark in _UNICODE_BREAKS):  # PyYAML writes these as they are, and reads them as line ends
        text = yaml.safe_dump(value, sort_keys=False, allow_unicode=False, width=100)
    return text


def scalar(text: str) -> Any:
    """The value of an override as YAML reads it: ``0.1``, ``true``, ``null``, ``[a, b]`` or a string."""
    try:
        return parse(text)[0]
    except ConfigError:
        return text


def quoted(text: str) -> str:
    """A string as a scalar that YAML reads as that string, whatever it says."""
    found: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=1_000_000)
    return found.rstrip("\n")


def _look_over(text: str, source: str) -> None:
    """Refuses aliases and great depth while the text is only being read."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:  # here, before the parser's own work grows with the square of the depth
            line = event.start_mark.line + 1 if event.start_mark else 0
            raise ConfigError("", f"nested deeper than {_MAX_DEPTH} levels", source=source, line=line)
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1 if event.start_mark else 0
            raise ConfigError("", "aliases are not allowed", source=source, line=line, hint="Write the value out.")


def _value(loader: Any, node: Any, path: str, lines: dict[str, int], source: str) -> Any:
    line = node.start_mark.line + 1
    lines[path] = line
    plain = "tag:yaml.org,2002:map" if isinstance(node, yaml.MappingNode) else "tag:yaml.org,2002:seq"
    if not isinstance(node, yaml.ScalarNode) and node.tag != plain:
        raise ConfigError(path, f"not valid YAML for a config: the tag {node.tag!r}", source=source, line=line)
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(_scalar(loader, key_node, path, source))
            inner = f"{path}.{key}" if path else key
            if key in result:
                where = key_node.start_mark.line + 1
                raise ConfigError(inner, "stands here twice", source=source, line=where, hint="Remove one.")
            result[key] = _value(loader, value_node, inner, lines, source)
            lines[inner] = key_node.start_mark.line + 1
        return result
    if isinstance(node, yaml.SequenceNode):
        return [
            _value(loader, item, f"{path}.{i}" if path else str(i), lines, source) for i, item in enumerate(node.value)
        ]
    found = _scalar(loader, node, path, source)
    if isinstance(found, str) and any("\ud800" <= character <= "\udfff" for character in found):
        raise ConfigError(path, "not valid Unicode", source=source, line=line, hint="Write whole characters.")
    return found


def _scalar(loader: Any, node: Any, path: str, source: str) -> Any:
    try:
        return loader.construct_object(node, deep=True)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        said = str(getattr(node, "value", ""))[:40]
        line = node.start_mark.line + 1
        raise ConfigError(
            path, f"{said!r} looks like a number or a date, and is none", source=source, line=line, hint="Quote it."
        ) from error
