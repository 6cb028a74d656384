"""What a named set is, and what their readers share: finding files, unique ids, passages with exact spans."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ragzip.errors import UsageError
from ragzip.evaluation.data._lines import json_lines
from ragzip.evaluation.record import Record, Task
from ragzip.text import Stretch
from ragzip.types import Passage, Span


class Content(NamedTuple):
    """What a reader gives."""

    records: Sequence[Record]
    corpus: tuple[Passage, ...] = ()


class Wanted(NamedTuple):
    """What a reader is asked for: the data folder, one of the set's splits, and how many passages a record."""

    folder: Path
    split: str
    size: int = 0

    def find(self, name: str) -> Path:
        """A file of the data folder, plain or compressed; ``{}`` in its name stands for the split.

        Raises:
            UsageError: It is not there.
        """
        path = self.folder / name.format(self.split)
        for candidate in (path.with_name(f"{path.name}.gz"), path):
            if candidate.is_file():
                return candidate
        raise UsageError(
            f"the data folder {self.folder} has no {path.relative_to(self.folder)}.gz",
            hint="Put the set there, or name another folder with --data-dir DIR or RAGZIP_DATA.",
        )

    def lines(self, name: str) -> Iterator[dict[str, Any]]:
        """The JSON objects of a file of the data folder, one a line."""
        return (raw for _, raw in json_lines(self.find(name)))


@dataclass(frozen=True)
class NamedSet:
    """One set of the data folder.

    Attributes:
        name: As it is asked for.
        splits: The first is read where none is asked for.
        task: What kind of answer its questions want.
        labels: What ``relevant`` marks.
        description: In one line.
        version: Of the reader; a change of what it gives changes it.
        read: The reader.
        size: Passages a record where ``name@n`` may ask for another number, else 0.
        most: The largest number that may be asked for.
    """

    name: str
    splits: tuple[str, ...]
    task: Task
    labels: Literal["sentences", "passages", ""]
    description: str
    version: str
    read: Callable[[Wanted], Content]
    size: int = 0
    most: int = 0


def unique(names: Iterable[str]) -> list[str]:
    """The names, those that came before with a number after them.

    >>> unique(["Ada", "Bob", "Ada"])
    ['Ada', 'Bob', 'Ada (2)']
    """
    seen: dict[str, int] = {}
    found = []
    for name in names:
        fresh = name
        while fresh in seen:
            seen[name] += 1
            fresh = f"{name} ({seen[name]})"
        seen[fresh] = 1
        found.append(fresh)
    return found


def clean(text: str) -> tuple[str, int]:
    """The text without white space around it, and how many characters were taken off its beginning."""
    bare = text.strip()
    return bare, len(text) - len(text.lstrip()) if bare else 0


def trim(text: str, start: int, end: int) -> Stretch:
    """A stretch without the white space at its ends; empty where it is nothing else."""
    piece = text[start:end]
    bare, lead = clean(piece)
    return start + lead, start + lead + len(bare)


def joined(own: str, title: str, sentences: Sequence[str], joiner: str = "") -> tuple[Passage, list[Span | None]]:
    """A passage of sentences that are put one after the other, and where each of them stands in it.

    Args:
        own: The passage's id.
        title: The passage's title.
        sentences: With the white space they carry; what stands at the ends of the passage is taken off.
        joiner: What is put between them; sentences of white space alone get none.

    Returns:
        The passage, and for each sentence its span without white space around it, None where there is nothing else.
    """
    pieces: list[str] = []
    places: list[Stretch] = []
    length = 0
    for sentence in sentences:
        gap = joiner if length and sentence.strip() else ""
        pieces += (gap, sentence)
        length += len(gap)
        places.append((length, length + len(sentence)))
        length += len(sentence)
    whole = "".join(pieces)
    text, lead = clean(whole)
    spans: list[Span | None] = []
    for place in places:
        start, end = trim(whole, *place)
        spans.append(Span(own, start - lead, end - lead) if start < end else None)
    return Passage(own, text, title), spans


def holding(sentences: Sequence[Stretch], places: Iterable[Stretch]) -> list[Stretch]:
    """The sentences that share a character with one of the places, in order."""
    wanted = list(places)
    return [(start, end) for start, end in sentences if any(start < stop and first < end for first, stop in wanted)]


def whole(passage: Passage) -> Span:
    """All characters of a passage."""
    return Span(passage.id, 0, len(passage.text))


def distinct(texts: Iterable[str]) -> tuple[str, ...]:
    """Texts without white space around them, each once, in order; empty ones left out."""
    return tuple(dict.fromkeys(bare for text in texts if (bare := text.strip())))


def plain_title(title: str) -> str:
    """A Wikipedia page name as its title: ``1973_oil_crisis`` is ``1973 oil crisis``."""
    return title.replace("_", " ").strip()
