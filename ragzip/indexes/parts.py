"""Parts of an index beyond passages, vectors and terms: what one retriever needs, kept with the rest.

What is known of single rows is written once and stays valid while documents come and go (``files``); what needs all
of them together is made anew from that at the end of a run (``whole``). A part that was made once is kept up to date
by every later run; until that has ended, or where it was stopped, the passages of the run before are searched.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from ragzip.errors import ConfigError, StoreMismatch
from ragzip.indexes.files import rebuild_hint
from ragzip.indexes.manifest import PartEntry, Retrieval
from ragzip.models import canonical
from ragzip.registry import suggest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ragzip.indexes.encoding import LazyEncoder
    from ragzip.indexes.index import Index

BUILDERS: dict[str, str] = {
    "multi_vector": "ragzip.indexes.multi_vector.part:MultiVectorPart",
    "graph": "ragzip.indexes.graph.part:GraphPart",
    "jpq": "ragzip.indexes.jpq.part:JPQPart",
}
"""Kind to the class that makes it; the kinds are those of ``Retrieval`` that need a part."""


@runtime_checkable
class Part(Protocol):
    """Makes one kind of part. A frozen dataclass, whose fields are its options: values that JSON can say."""

    kind: ClassVar[str]

    def ready(self, encoder: LazyEncoder) -> None:
        """Makes sure that what a part is made from is here and fits, before anything is encoded.

        Args:
            encoder: Of the index.

        Raises:
            RagzipError: It is not, and why.
        """
        ...

    def extend(self, index: Index, entry: PartEntry, folder: str) -> PartEntry:
        """Takes in the next rows; every call becomes a commit, so that a kill loses little.

        Args:
            index: The commit so far; its rows alive from ``entry.rows`` on are to be taken in.
            entry: What there is.
            folder: Where new files go, below the index folder; it does not exist yet.

        Returns:
            The entry with more ``rows``, and with whatever it wants to remember in ``settings``.
        """
        ...

    def finish(self, index: Index, entry: PartEntry, folder: str) -> PartEntry:
        """Makes ``whole`` for the rows alive, all of which have been taken in: at least one passage."""
        ...

    def open(self, index: Index, entry: PartEntry) -> object:
        """Opens a part for searching, whose ``whole`` is of ``index.rows_of(entry)``; ``verify`` does, too."""
        ...

    def without(self, entry: PartEntry, damaged: Set[str]) -> PartEntry:
        """What is left of an entry some of whose ``files`` are damaged: what lacks is made again from there."""
        ...

    def compact(self, index: Index, entry: PartEntry, rows: NDArray[np.int64], folder: str) -> PartEntry:
        """The entry after rows were numbered anew.

        Args:
            index: Before that.
            entry: What there is.
            rows: The old numbers of rows that stay, ascending: all of them are below ``entry.rows``.
            folder: As for ``extend``.
        """
        ...


def part(kind: str, options: Mapping[str, Any]) -> Part:
    """The builder of a kind.

    Raises:
        ConfigError: No such kind or option, or a value that cannot be.
    """
    if kind not in BUILDERS:
        raise ConfigError("retriever", f"{kind!r} has no options for an index", hint=f"Those have: {_all()}.")
    module, _, name = BUILDERS[kind].partition(":")
    found = getattr(importlib.import_module(module), name)
    known = [field.name for field in dataclasses.fields(found)]
    for option in options:
        if option not in known:
            raise ConfigError(option, f"is no option of {kind!r}", hint=suggest(option, known))
    if isinstance(options.get("model"), str) and options["model"]:
        options = {**options, "model": canonical(options["model"])}  # an index is asked from other folders, too
    builder: Part = found(**options)
    return builder


def wanted(
    retriever: Retrieval, options: Mapping[str, Any], entries: Sequence[PartEntry], where: Any, *, anew: bool = False
) -> tuple[Part, ...]:
    """The builders of all parts of an index: those it has, and the one its retriever needs.

    Args:
        retriever: How it will be searched.
        options: Of that one's part; those that are not given are as before.
        entries: What it has.
        where: The index folder, for errors.
        anew: Whether the index is made from nothing, so that options may change.

    Raises:
        ConfigError: As ``part``.
        StoreMismatch: An option that differs from what the part was made with.
    """
    have = {entry.kind: entry for entry in entries}
    found = {kind: restored(entry) for kind, entry in have.items()}
    if retriever in BUILDERS or options:
        before = have.get(retriever)
        asked = part(retriever, {**(options_of(before) if before else {}), **options})
        if before is not None and asked != found[retriever] and not anew:
            made = _values(found[retriever])
            changed = next(key for key, value in made.items() if _values(asked)[key] != value)
            raise StoreMismatch(
                f"{where}: {retriever} was made with {changed}={made[changed]!r}, not {_values(asked)[changed]!r}.",
                hint=f"Leave it out, or make it anew. {rebuild_hint(where)}",
            )
        found[retriever] = asked
    return tuple(found.values())


def restored(entry: PartEntry) -> Part:
    """The builder that made an entry."""
    return part(entry.kind, options_of(entry))


def options_of(entry: PartEntry) -> dict[str, Any]:
    """The options that an entry was made with."""
    found: dict[str, Any] = entry.settings["options"]
    return {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}


def empty(builder: Part) -> PartEntry:
    """An entry without any rows."""
    return PartEntry(builder.kind, 0, {"options": _values(builder)}, (), None)


def brought_up(
    builders: Sequence[Part],
    index: Callable[[], Index],
    folder: Callable[[str], str],
    publish: Callable[[tuple[PartEntry, ...]], None],
    clock: Callable[[str], AbstractContextManager[None]],
) -> None:
    """Takes all rows into all parts, commit by commit, and finishes those that are not.

    Args:
        builders: Of all parts.
        index: The last commit, opened; closed after use.
        folder: A new folder for a kind.
        publish: Commits entries.
        clock: Times what is done for a kind.
    """
    for builder in builders:
        while True:
            with index() as opened:
                entries = {entry.kind: entry for entry in opened.manifest.parts}
                entry = entries.get(builder.kind) or empty(builder)
                behind = entry.rows < opened.manifest.rows
                done = entry.whole is not None and entry.of is None
                if not behind and (done or not opened.manifest.passages):
                    break
                make = builder.extend if behind else builder.finish
                with clock(builder.kind):
                    made = make(opened, entry, folder(builder.kind))
                if not behind:
                    made = dataclasses.replace(made, of=None)
            if made == entry:
                raise RuntimeError(f"{builder.kind} does not go on")
            publish(tuple({**entries, builder.kind: made}.values()))


def _values(builder: Part) -> dict[str, Any]:
    found: dict[str, Any] = dataclasses.asdict(builder)  # type: ignore[call-overload]
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


def _all() -> str:
    return ", ".join(sorted(BUILDERS))
