"""Oracle: the passages that a labelled file names for each question: what any retriever could reach at best."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragzip.errors import ConfigError, IngestError, UsageError
from ragzip.retrievers.options import at_least
from ragzip.types import Passage, Query

_HINT = 'A line is {"question": "...", "passages": [{"id": "...", "title": "...", "text": "..."}]}.'


@dataclass(frozen=True)
class Oracle:
    """Gives exactly the labelled passages, in the file's order, each with score 1.

    Attributes:
        path: A file of JSON lines: ``question`` (or ``query``), ``passages`` with ``text`` and, if known, ``id``,
            ``title`` and ``metadata``; and, if queries have ids, ``id``.
        top_k: How many passages at most.
    """

    path: str
    top_k: int = 20

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path:
            raise ConfigError("path", f"must be a file of JSON lines, not {self.path!r}")
        at_least("top_k", self.top_k, 1)

    def retrieve(self, queries: Sequence[Query], *, top_k: int | None = None) -> list[list[Passage]]:
        """The labelled passages of each question, found by the query's id, else by its text.

        Raises:
            UsageError: There is no such file, or a question that it does not have.
            IngestError: A line that is not as it should be; says which.
        """
        k = self.top_k if top_k is None else at_least("top_k", top_k, 1)
        if not queries:
            return []
        by_id, by_text = _labels(self.path)
        found: list[list[Passage]] = []
        for query in queries:
            passages = by_id.get(query.id) if query.id else None
            if passages is None:
                passages = by_text.get(query.text.strip())
            if passages is None:
                raise UsageError(
                    f"{self.path}: has no passages for the question {query.text[:80]!r}.",
                    hint="Label it, or leave it out.",
                )
            found.append(list(passages[:k]))
        return found


_Labels = tuple[Mapping[str, tuple[Passage, ...]], Mapping[str, tuple[Passage, ...]]]


def _labels(path: str) -> _Labels:
    try:
        stat = Path(path).stat()
        return _read(str(Path(path).absolute()), path, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read: {error.strerror or error}.", hint="Check the path of the labelled file."
        ) from error


@functools.lru_cache(maxsize=4)
def _read(path: str, shown: str, changed: int, size: int) -> _Labels:
    """The labels of a file as it is now: the time of its last change and its size are part of the key."""
    by_id: dict[str, tuple[Passage, ...]] = {}
    by_text: dict[str, tuple[Passage, ...]] = {}
    lines: dict[str, int] = {}
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{shown}:{number}"
            if not line.strip():
                continue
            try:
                values = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except (ValueError, RecursionError) as error:
                raise IngestError(f"{where}: is no JSON: {error}.", hint=_HINT) from error
            question, passages = _record(values, where)
            if question in lines and by_text[question] != passages:
                raise IngestError(
                    f"{where}: has the question of line {lines[question]} with other passages.", hint="Keep one."
                )
            lines[question] = number
            by_text[question] = passages
            if isinstance(values.get("id"), str | int) and values["id"] != "":
                given = str(values["id"])
                if by_id.get(given, passages) != passages:
                    raise IngestError(
                        f"{where}: the id {given!r} has other passages in an earlier line.", hint="Give each its own."
                    )
                by_id[given] = passages
    return by_id, by_text


def _record(values: Any, where: str) -> tuple[str, tuple[Passage, ...]]:
    if not isinstance(values, dict):
        raise IngestError(f"{where}: is no JSON object.", hint=_HINT)
    question = values.get("question", values.get("query"))
    if not isinstance(question, str) or not question.strip():
        raise IngestError(f"{where}: has no question.", hint=_HINT)
    entries = values.get("passages")
    if not isinstance(entries, list):
        raise IngestError(f"{where}: has no list of passages.", hint=_HINT)
    passages = tuple(_passage(entry, f"{where}: passage {n}", f"{where}#{n}") for n, entry in enumerate(entries))
    if len({passage.id for passage in passages}) < len(passages):
        raise IngestError(f"{where}: two passages have the same id.", hint="Give each an id of its own.")
    return question.strip(), passages


def _passage(entry: Any, where: str, fallback: str) -> Passage:
    if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
        raise IngestError(f"{where}: has no text.", hint=_HINT)
    title, metadata, given = entry.get("title", ""), entry.get("metadata", {}), entry.get("id", fallback)
    if not isinstance(title, str) or not isinstance(metadata, dict) or not isinstance(given, str | int):
        raise IngestError(f"{where}: id and title must be text, metadata an object.", hint=_HINT)
    return Passage(str(given), entry["text"], title, 1.0, metadata)
