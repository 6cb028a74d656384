"""Components to plain values and back: the same object as Python, a dict and YAML.

A component is a frozen dataclass; its config is ``{"type": registry name, **options}``, with every default spelled
out. ``from_config(kind, to_config(c)) == c`` holds for every component, and building one loads nothing heavy.
Every error starts with the path to the value and, for files, the line.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin

from ragzip import registry
from ragzip.errors import ConfigError
from ragzip.protocols import Compressor, Counter, Generator, KVCompression, Prompt, Retriever, Stack
from ragzip.registry import Kind

Lines = Mapping[str, int]
"""Path to a value -> line in its file, from 1."""

_ROLES: dict[Any, Kind] = {
    Retriever: "retriever",
    Compressor: "compressor",
    Stack: "compressor",
    Generator: "generator",
    Prompt: "prompt",
    KVCompression: "kv",
}
# A number, but for YAML 1.1, which wants 1.0e-4 and 1.0e+4.
_EXPONENT = re.compile(r"[-+]?(?:\d{1,40}\.?\d{0,40}|\.\d{1,40})[eE][-+]?\d{1,3}")


def options(cls: type[Any]) -> list[dataclasses.Field[Any]]:
    """The fields of a component that are options: all but those made by ``runtime_field``."""
    if not dataclasses.is_dataclass(cls):
        return []
    return [f for f in dataclasses.fields(cls) if f.init and not f.metadata.get("runtime")]


def to_config(component: Any) -> Any:
    """Plain values for a component: dicts, lists, strings, numbers, booleans and None.

    A stack with default settings is the list of its compressors.

    Raises:
        ConfigError: A value of a kind that configs cannot hold.
    """
    if isinstance(component, Stack):
        parts = [to_config(part) for part in component.compressors]
        settings = {f.name: getattr(component, f.name) for f in options(Stack) if f.name != "compressors"}
        if settings == {f.name: f.default for f in options(Stack) if f.name != "compressors"}:
            return parts
        return {"type": "stack", "compressors": parts, **settings}
    if dataclasses.is_dataclass(component) and not isinstance(component, type):
        config: dict[str, Any] = {"type": registry.name_of(component)}
        for field in options(type(component)):
            config[field.name] = _plain(getattr(component, field.name), field.name)
        return config
    return _plain(component, "")


def _plain(value: Any, path: str) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, str):  # a member of an enum
        return str.__str__(value)
    if isinstance(value, Integral | Real):  # of numpy, say
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, tuple | list):
        return [_plain(item, f"{path}.{i}") for i, item in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_config(value)
    raise ConfigError(
        path, f"a {type(value).__name__} cannot stand in a config", hint="Options are plain values or components."
    )


def from_config(kind: Kind, config: Any, *, path: str = "", lines: Lines | None = None) -> Any:
    """The component that a config describes.

    Args:
        kind: Its role.
        config: ``{"type": name, **options}``, or just the name; for a compressor also a list, which is a stack.
        path: Where it stands, for errors.
        lines: Lines of the file it was read from, by path.

    Raises:
        ConfigError: Unknown names or options, wrong types or values; nothing is built then.
    """
    return component_at(kind, config, Place(path or kind, lines or {}))


def component_at(kind: Kind, config: Any, place: Place) -> Any:
    """``from_config`` at a place within a larger config."""
    if kind == "compressor" and isinstance(config, list):
        return Stack(tuple(component_at(kind, part, place.at(str(i))) for i, part in enumerate(config)))
    if isinstance(config, str):
        config = {"type": config}
    if not isinstance(config, Mapping):
        raise place.error(f"should be a mapping with a 'type', not {_show(config)}")
    if "type" not in config:
        raise place.error("has no 'type'", f"Known: {', '.join(registry.names(kind))}.")
    name = config["type"]
    here = place.at("type")
    if not isinstance(name, str):
        raise here.error(f"should be a name, not {_show(name)}")
    try:
        cls = registry.get(kind, name)
    except ConfigError as error:
        raise here.error(error.problem, error.hint) from error
    return build(cls, {k: v for k, v in config.items() if k != "type"}, place, what=f"{kind} {name!r}")


def build(cls: type[Any], values: Mapping[str, Any], place: Place, *, what: str) -> Any:
    """A dataclass from plain values, each checked against its field's annotation."""
    known = {field.name: field for field in options(cls)}
    hints = type_hints(cls)
    for key in values:
        if key not in known:
            raise place.at(str(key)).error(f"{what} has no option {key!r}", registry.suggest(str(key), list(known)))
    for name, field in known.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise place.error(f"{what} needs the option {name!r}")
    built = {key: _convert(value, hints[key], place.at(str(key))) for key, value in values.items()}
    try:
        return cls(**built)
    except ConfigError as error:
        inner = place.at(error.path) if error.path else place
        raise inner.error(error.problem, error.hint) from error
    except (TypeError, ValueError) as error:
        raise place.error(str(error)) from error


def type_hints(cls: type[Any]) -> dict[str, Any]:
    """The resolved annotations of a component's fields."""
    return typing.get_type_hints(cls, localns={"Counter": Counter})


class Place:
    """A path within a config, that knows its line and how to complain."""

    def __init__(self, path: str = "", lines: Lines | None = None, source: str = "") -> None:
        self.path, self.lines, self.source = path, lines or {}, source

    def at(self, key: str) -> Place:
        """The place of a key or item below this one."""
        return Place(f"{self.path}.{key}" if self.path else key, self.lines, self.source)

    def error(self, problem: str, hint: str = "") -> ConfigError:
        """An error that starts with this path and its line, or the line of the nearest place above it."""
        path = self.path
        while path and path not in self.lines:
            path = path.rpartition(".")[0]
        return ConfigError(self.path, problem, hint=hint, source=self.source, line=self.lines.get(path, 0))


def _convert(value: Any, annotation: Any, place: Place) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    kind = _role(origin or annotation)
    if annotation is Any:
        return value
    if kind is not None:
        return component_at(kind, value, place)
    if origin is Literal:
        if not any(value == a and type(value) is type(a) for a in arguments):
            allowed = [repr(a) if isinstance(a, str) else str(a) for a in arguments]
            raise place.error(f"should be one of {', '.join(allowed)}, not {_show(value)}", _near(value, arguments))
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments, place)
    if origin is tuple:
        return _convert_tuple(value, arguments, place)
    return _convert_scalar(value, annotation, place)


def _convert_union(value: Any, arguments: tuple[Any, ...], place: Place) -> Any:
    if value is None and type(None) in arguments:
        return None
    choices = [a for a in arguments if a is not type(None)]
    roles = [a for a in choices if _role(get_origin(a) or a) is not None]
    if roles:
        return _convert(value, roles[0], place)
    first: ConfigError | None = None
    for choice in sorted(choices, key=lambda a: a is float):
        try:
            return _convert(value, choice, place)
        except ConfigError as error:
            first = first or error
    if len(choices) == 1 and first is not None:
        problem = first.problem.replace(", not ", " or null, not ", 1)
        raise place.error(problem, first.hint)
    raise place.error(f"should be {' or '.join(_type_name(a) for a in arguments)}, not {_show(value)}")


def _convert_tuple(value: Any, arguments: tuple[Any, ...], place: Place) -> Any:
    if not isinstance(value, list | tuple):
        plain = isinstance(value, int | float) or (isinstance(value, str) and re.fullmatch(r"[\w.-]{1,60}", value))
        hint = f"Write it as one: [{value}]." if plain else ""
        raise place.error(f"should be a list, not {_show(value)}", hint)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_convert(item, arguments[0], place.at(str(i))) for i, item in enumerate(value))
    if len(value) != len(arguments):
        raise place.error(f"should have {len(arguments)} items, not {len(value)}")
    pairs = zip(value, arguments, strict=True)
    return tuple(_convert(item, argument, place.at(str(i))) for i, (item, argument) in enumerate(pairs))


def _convert_scalar(value: Any, annotation: Any, place: Place) -> Any:
    if annotation is type(None) and value is None:
        return None
    if annotation is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise place.error("is larger than any number can be") from error
    if annotation is float and isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    if annotation in (int, str, bool) and type(value) is annotation:
        return value
    hint = ""
    if annotation in (int, float) and isinstance(value, str) and value.strip().replace(".", "", 1).isdigit():
        hint = f"Write {value.strip()[:40]} without quotes."
    raise place.error(f"should be {_type_name(annotation)}, not {_show(value)}", hint)


def _role(annotation: Any) -> Kind | None:
    return next((kind for role, kind in _ROLES.items() if annotation is role), None)


def _near(value: Any, allowed: tuple[Any, ...]) -> str:
    known = [a for a in allowed if isinstance(a, str)]
    hint = registry.suggest(value, known) if isinstance(value, str) and known else ""
    return hint.split(" Known:")[0] if hint.startswith("Did") else ""


def _type_name(annotation: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _show(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
