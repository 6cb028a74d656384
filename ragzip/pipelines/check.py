"""Does the output of each part fit the input of the next? Answered from the classes, before any weight is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ragzip.errors import StackError
from ragzip.protocols import Compressor, Generator, Selector, Stack, SupportsSpace
from ragzip.registry import name_of
from ragzip.types import Message, SoftSegment, TextSegment

TEXT, SOFT = "text", "soft"
_ORDER = (TEXT, SOFT)


@dataclass(frozen=True)
class Flow:
    """What goes into a part and comes out of it.

    Attributes:
        takes: Kinds of segments it accepts.
        gives: Kinds it produces; None means the kinds it was given.
        space: Whose embeddings its soft segments are, or "".
    """

    takes: frozenset[str]
    gives: frozenset[str] | None
    space: str = ""


def flow_of(compressor: Compressor[Any, Any]) -> Flow:
    """The flow of one compressor, read from its type parameters."""
    if isinstance(compressor, Selector):
        return Flow(frozenset(_ORDER), None)
    takes, gives = parameters(type(compressor), Compressor)
    space = compressor.space if isinstance(compressor, SupportsSpace) else ""
    return Flow(_kinds(takes), _kinds(gives), space)


def generator_takes(generator: Generator[Any]) -> frozenset[str]:
    """The kinds of segments a generator reads, from its base or from the annotation of its ``generate``.

    One that says neither reads text.
    """
    found = parameters(type(generator), Generator) or _message_kind(type(generator))
    return _kinds(found[0]) if found else frozenset({TEXT})


def _message_kind(cls: type[Any]) -> tuple[Any, ...]:
    try:
        todo: list[Any] = list(get_type_hints(cls.generate).values())
    except (NameError, TypeError, AttributeError):
        return ()
    while todo:
        annotation = todo.pop()
        if get_origin(annotation) is Message:
            return get_args(annotation)
        todo += [a for a in get_args(annotation) if not isinstance(a, list)]
    return ()


def parameters(cls: type[Any], base: type[Any]) -> tuple[Any, ...]:
    """The arguments that ``cls`` gives to the generic ``base``, followed through classes in between."""
    for parent in getattr(cls, "__orig_bases__", ()):
        origin = get_origin(parent) or parent
        if origin is base:
            return get_args(parent)
        if isinstance(origin, type) and base in origin.__mro__:
            inner = parameters(origin, base)
            named = getattr(origin, "__parameters__", ())
            own: dict[Any, Any] = dict(zip(named, get_args(parent), strict=False))
            return tuple(own.get(a, a) if isinstance(a, TypeVar) else a for a in inner)
    for parent in cls.__bases__:
        if parent is not base and base in parent.__mro__:
            found = parameters(parent, base)
            if found:
                return found
    return ()


def _kinds(annotation: Any) -> frozenset[str]:
    if isinstance(annotation, TypeVar):
        annotation = annotation.__bound__ or Any
    if annotation is TextSegment:
        return frozenset({TEXT})
    if annotation is SoftSegment:
        return frozenset({SOFT})
    if get_origin(annotation) is Union or get_args(annotation):
        return frozenset().union(*(_kinds(a) for a in get_args(annotation)))
    return frozenset(_ORDER)


def flatten(compressor: Compressor[Any, Any]) -> list[Compressor[Any, Any]]:
    """The compressors of a stack and of the stacks within it, in order."""
    if not isinstance(compressor, Stack):
        return [compressor]
    return [part for member in compressor.compressors for part in flatten(member)]


def check_stack(compressor: Compressor[Any, Any], generator: Generator[Any]) -> None:
    """Checks that each compressor can read what the one before it gives, and the generator what the last gives.

    Raises:
        StackError: Two parts that do not fit; shows the whole stack, marks the place, and says what to do.
    """
    parts = flatten(compressor)
    for i, part in enumerate(parts):
        _check_within(part, f"compressors[{i}]")
    current, space, last_soft = frozenset({TEXT}), "", -1
    for i, part in enumerate(parts):
        flow = flow_of(part)
        if not current <= flow.takes:
            raise _mismatch(parts, i, last_soft, current - flow.takes, flow)
        if flow.gives is not None:
            current = flow.gives
            if SOFT in current:
                last_soft, space = i, flow.space or space
    takes = generator_takes(generator)
    name = name_of(generator)
    if not current <= takes:
        problem = f"{name!r} reads {_say(takes)}, but compressors[{last_soft}] "
        problem += f"{name_of(parts[last_soft])!r} produces soft segments."
        hint = "Use a local generator ('huggingface') for soft compression, or text compressors before this one."
        raise StackError("generator", problem + "\n" + table(parts, -1), hint=hint)
    kv = [name_of(part) for part in getattr(generator, "kv", ()) if getattr(part, "text_only", False)]
    if kv and SOFT in current:
        problem = f"{kv[0]!r} reads text passages alone, but compressors[{last_soft}] {name_of(parts[last_soft])!r} "
        problem += "produces soft segments."
        hint = "Leave one of the two out, or take a method of kv that shrinks the cache."
        raise StackError("generator.kv", problem + "\n" + table(parts, -1), hint=hint)
    model = getattr(generator, "space", "") or getattr(generator, "model", "")
    if space and SOFT in current and model and space != model:
        problem = f"the model is {model!r}, but compressors[{last_soft}] {name_of(parts[last_soft])!r} "
        problem += f"writes embeddings of {space!r}."
        hint = f"Set generator.model to {space!r}, or use a compressor trained for {model!r}."
        raise StackError("generator.model", problem + "\n" + table(parts, -1), hint=hint)


def _check_within(compressor: Compressor[Any, Any], path: str) -> None:
    """Checks a compressor that another one is an option of: what it takes and gives is said by the option's type."""
    try:
        hints = get_type_hints(type(compressor))
    except (NameError, TypeError, AttributeError):
        return
    for name, hint in hints.items():
        inner = getattr(compressor, name, None)
        if get_origin(hint) is not Compressor or not isinstance(inner, Compressor):
            continue
        if any(kind is Any or isinstance(kind, TypeVar) for kind in get_args(hint)):
            continue  # it says nothing of what it is given, or must give
        takes, gives = (_kinds(kind) for kind in get_args(hint))
        current = takes
        for part in flatten(inner):
            flow = flow_of(part)
            if not current <= flow.takes:
                problem = (
                    f"{name_of(part)!r} takes {_say(flow.takes)}, but is given {_say(current - flow.takes)} segments"
                )
                raise StackError(f"{path}.{name}", problem, hint="Put text compressors before soft ones.")
            current = current if flow.gives is None else flow.gives
            _check_within(part, f"{path}.{name}")
        if not current <= gives:
            problem = f"gives {_say(current - gives)} segments, but {name_of(compressor)!r} needs {_say(gives)} here"
            raise StackError(f"{path}.{name}", problem, hint="Use a text compressor.")
        if SOFT in gives and SOFT not in current:
            problem = f"gives no soft segments, which {name_of(compressor)!r} needs here"
            raise StackError(f"{path}.{name}", problem, hint="Use a soft compressor: xrag, comp_llm, icae or refrag.")


def _mismatch(
    parts: list[Compressor[Any, Any]], place: int, before: int, wrong: frozenset[str], flow: Flow
) -> StackError:
    name = name_of(parts[place])
    giver = f"compressors[{before}] {name_of(parts[before])!r} produces" if before >= 0 else "the retriever gives"
    problem = f"{name!r} takes {_say(flow.takes)}, but {giver} {_say(wrong)} segments."
    if wrong == {SOFT}:
        hint = f"Put text compressors before soft ones, or drop {name!r}."
    else:
        hint = f"Put a compressor that turns text into embeddings before {name!r}, or drop it."
    return StackError(f"compressors[{place}]", problem + "\n" + table(parts, place), hint=hint)


def table(parts: list[Compressor[Any, Any]], mark: int) -> str:
    """The stack, one line a compressor, with an arrow at ``mark``."""
    names = [name_of(part) for part in parts]
    width = max((len(name) for name in names), default=0)
    lines = []
    for i, (name, part) in enumerate(zip(names, parts, strict=True)):
        flow = flow_of(part)
        gives = "same" if flow.gives is None else _say(flow.gives)
        takes = "any" if flow.gives is None else _say(flow.takes)
        space = f" (space: {flow.space})" if flow.space else ""
        here = "      <-- here" if i == mark else ""
        lines.append(f"  compressors[{i}] {name:<{width}}   {takes} -> {gives}{space}{here}")
    return "\n".join(lines)


def _say(kinds: frozenset[str]) -> str:
    return " or ".join(kind for kind in _ORDER if kind in kinds)
