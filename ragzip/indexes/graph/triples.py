"""Facts that a language model finds in passages, as further edges: an option, and never needed.

What a model writes is data. It is read as JSON, salvaged where it was cut off, and otherwise counted as bad; it is
never run.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ragzip.indexes import manifest
from ragzip.indexes.files import write_lock
from ragzip.indexes.graph import rows, tensors
from ragzip.indexes.graph.part import LOST, TRIPLES, appended
from ragzip.indexes.graph.words import phrase, phrases, words
from ragzip.indexes.index import Index
from ragzip.indexes.manifest import Manifest, PartEntry
from ragzip.indexes.soundness import damage
from ragzip.indexes.text import searched_text
from ragzip.indexes.writer import Writer, sweep
from ragzip.protocols import Generator
from ragzip.types import Message, Passage, TextSegment

MOST_TRIPLES = 40
_MOST_CHARACTERS = 50_000
_LONGEST = 200
_TASK = (
    "List the facts that the text states, as a JSON array of [subject, relation, object], each a short string. Name"
    " people, places and things by their full names, never by pronouns. Write nothing but the array.\n\n"
    'Example: [["Mira Olsen", "founded", "Northlight Press"], ["Northlight Press", "is in", "Tarvik"]]\n\nText:\n'
)
_INNER = re.compile(r'\[\s*("(?:[^"\\]|\\.)*"\s*,\s*){2}"(?:[^"\\]|\\.)*"\s*\]')


class Triple(NamedTuple):
    """A fact."""

    subject: str
    relation: str
    object: str


@dataclass(frozen=True)
class TriplesReport:
    """What a model gave.

    Attributes:
        passages: How many it read.
        triples: How many facts it gave whose two ends stand in their passage.
        unfounded: How many others, which are left out: small models repeat examples, and make things up.
        unreadable: Passages for which its answer held no fact that can be read.
    """

    passages: int
    triples: int
    unfounded: int
    unreadable: int


def parse(answer: str) -> list[Triple]:
    """The triples of an answer, each once; none where it has none that can be read.

    An array of arrays of three strings, or of objects with ``subject``, ``relation`` and ``object``, with whatever
    around it; of one that was cut off, the arrays that are whole.
    """
    answer = answer[:_MOST_CHARACTERS]
    start, end = answer.find("["), answer.rfind("]")
    found: Any = []
    try:
        found = json.loads(answer[start : end + 1]) if 0 <= start < end else []
    except (ValueError, RecursionError):
        found = [json.loads(match[0], strict=False) for match in _INNER.finditer(answer) if _is_json(match[0])]
    if _is_triple(found):
        found = [found]
    triples = [triple for one in found if (triple := _triple(one)) is not None] if isinstance(found, list) else []
    return list(dict.fromkeys(triples))[:MOST_TRIPLES]


def _is_json(text: str) -> bool:
    try:
        json.loads(text, strict=False)
    except ValueError:
        return False
    return True


def _is_triple(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(one, str) for one in value)


def _triple(value: Any) -> Triple | None:
    if isinstance(value, dict):
        value = [value.get(name) for name in Triple._fields]
    if not _is_triple(value):
        return None
    subject, relation, object_ = (" ".join(one.split())[:_LONGEST] for one in value)
    return Triple(subject, relation, object_) if subject and object_ else None


def extract(generator: Generator[TextSegment], passages: Sequence[Passage]) -> list[list[Triple]]:
    """What a model says are the facts of each passage."""
    prompts: list[tuple[Message[TextSegment]]] = [
        (Message("user", (_TASK, searched_text(passage))),) for passage in passages
    ]
    return [parse(answer.text) for answer in generator.generate(prompts)]


def founded(triples: Sequence[Triple], passage: Passage) -> list[tuple[int, int]]:
    """The phrases at the two ends of each triple, of those whose ends are words of the passage and can be entities."""
    there = {int(key) for keys in phrases(words(searched_text(passage)).hashes) for key in keys}
    ends = [(phrase(words(one.subject).hashes), phrase(words(one.object).hashes)) for one in triples]
    return [pair for pair in ends if there.issuperset(pair)]


def add_triples(
    path: str | Path,
    generator: Generator[TextSegment],
    *,
    batch: int = 32,
    again: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> TriplesReport:
    """Has a model read the passages of an index that none has read yet, and puts what it finds into the graph.

    Every batch is a commit; killed in between, the same call goes on from there. Passages that come later are not
    read until it is called again.

    Args:
        path: An index made with ``--retriever graph``.
        generator: The model; one that takes its likeliest token gives the same graph again.
        batch: Passages for one call of it.
        again: Read those again, too, of which no fact is known.
        on_progress: Called with the passages read so far and how many there are to read.

    Raises:
        StoreError: There is no index, or another process is indexing.
        StoreMismatch: It was made without a graph.
    """
    root = Path(path)
    manifest.read(root)
    read = given = unfounded = unreadable = 0
    with write_lock(root):
        first = manifest.read(root)
        if damaged := damage(root, first):
            raise damaged
        sweep(root, (first,))
        writer = Writer(root, first, manifest.NAME)
        try:
            if not first.searchable:  # what a stopped run left: rows the graph does not have yet, or that are to go
                writer.finish(first.retriever)
            ahead = _ahead(root, writer.manifest, again=again)
            while ahead.size:
                mine = ahead[:batch]
                with Index(root, writer.manifest) as index:
                    passages = index.passages(mine)
                found = extract(generator, passages)
                entry = _entry(writer.manifest)
                settings = {key: value for key, value in entry.settings.items() if key != LOST}
                ends = [founded(triples, passage) for triples, passage in zip(found, passages, strict=True)]
                arrays = _arrays(root, entry, mine, ends)
                entry = dataclasses.replace(
                    entry,
                    settings={**settings, TRIPLES: max(settings.get(TRIPLES, 0), int(mine[-1]) + 1)},
                    files=appended(root, entry.files, arrays, writer.part_folder("graph")),
                ).older(writer.manifest.commit)
                writer.forget(parts=tuple(entry if part.kind == "graph" else part for part in writer.manifest.parts))
                ahead = ahead[batch:]
                read += len(mine)
                given += sum(map(len, ends))
                unfounded += sum(map(len, found)) - sum(map(len, ends))
                unreadable += sum(not triples for triples in found)
                if on_progress is not None:
                    on_progress(read, read + len(ahead))
            writer.finish(first.retriever)
        finally:
            writer.close()
    return TriplesReport(read, given, unfounded, unreadable)


def _ahead(root: Path, now: Manifest, *, again: bool) -> NDArray[np.int64]:
    """The rows that no model has read; or all without facts."""
    with Index(root, now) as index:
        if not any(part.kind == "graph" and part.rows == now.rows for part in now.parts):
            index.part("graph")  # says what is missing
        entry = _entry(now)
        unread: NDArray[np.int64] = index.rows[np.searchsorted(index.rows, entry.settings.get(TRIPLES, 0)) :]
        if not again:
            return unread
        known = [arrays["triple_rows"] for arrays in rows.read_all(root, entry.files)]
        return np.setdiff1d(index.rows, np.concatenate(known))


def _entry(now: Manifest) -> PartEntry:
    return next(part for part in now.parts if part.kind == "graph")


def _arrays(
    root: Path, entry: PartEntry, numbers: NDArray[np.int64], ends: Sequence[Sequence[tuple[int, int]]]
) -> tensors.Arrays:
    """A file of rows that says nothing but the ends of facts."""
    empty = {name: array[:0] for name, array in tensors.read(root, entry.files[0]).items()}
    return {
        **empty,
        "triple_rows": np.repeat(numbers, [len(pairs) for pairs in ends]),
        "triples": np.array([pair for pairs in ends for pair in pairs], np.uint64).reshape(-1, 2),
    }
