"""Documents and passages in SQLite: what is common to reading and writing, and reading.

A document's passages have consecutive rows. Only documents carry the commits that added and removed them; a passage
lives as long as its document, so that removing a document touches one row. What is beyond the manifest's commit
does not exist for a reader.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import StoreDamaged
from ragzip.indexes.files import guarded, rebuild_hint
from ragzip.types import Passage

PAGE = 4096
WAIT_SECONDS = 60.0
VISIBLE = "added <= :commit AND (removed IS NULL OR removed > :commit)"
SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents(
    id INTEGER PRIMARY KEY, source TEXT NOT NULL, title TEXT NOT NULL, hash TEXT NOT NULL, raw_hash TEXT NOT NULL,
    recipe TEXT NOT NULL, first_row INTEGER NOT NULL, rows INTEGER NOT NULL, digest TEXT NOT NULL,
    added INTEGER NOT NULL, removed INTEGER);
CREATE INDEX documents_source ON documents(source);
CREATE TABLE passages(  -- metadata first: filters read it without the pages that a long text spills to
    row INTEGER PRIMARY KEY, id TEXT NOT NULL, title TEXT NOT NULL, metadata TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE roots(source TEXT NOT NULL, root TEXT NOT NULL, added INTEGER NOT NULL, removed INTEGER);
CREATE INDEX roots_source ON roots(source);
"""


@dataclass(frozen=True, slots=True)
class IndexedDocument:
    """A document of an index.

    Attributes:
        source: Where it came from.
        title: Its title.
        passages: How many it was cut into.
        content_hash: As ingest computed it.
    """

    source: str
    title: str
    passages: int
    content_hash: str


PassageRow = tuple[int, str, str, str, str]
"""Row, id, title, text, metadata as JSON."""


def clean(text: str) -> str:
    """The text with each lone surrogate, which no file and no tokenizer takes, replaced by one ``?``."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode("utf-8")
    return text


def to_row(row: int, passage: Passage) -> PassageRow:
    """A passage as it is stored; values that JSON does not know become strings."""
    metadata = json.dumps(dict(passage.metadata), default=str, separators=(",", ":"))
    return row, clean(passage.id), clean(passage.title), clean(passage.text), metadata


def from_row(row: PassageRow, score: float | None = None) -> Passage:
    """A stored passage."""
    _, passage_id, title, text, metadata = row
    return Passage(passage_id, text, title, score, json.loads(metadata))


def digest_of(rows: Iterable[PassageRow]) -> str:
    """The digest of one document's passages, wherever their rows are."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row[1:], separators=(",", ":")).encode())
    return digest.hexdigest()


def add_digests(total: str, digests: Iterable[str], sign: Literal[1, -1] = 1) -> str:
    """The digest of a set of documents: a sum, so that adding and removing are cheap and order does not matter."""
    value = int(total or "0", 16) + sign * sum(int(digest, 16) for digest in digests)
    return f"{value % (1 << 256):064x}"


def connect(path: Path, mode: Literal["ro", "rw", "rwc"]) -> sqlite3.Connection:
    """A connection in autocommit mode that several threads may use one after the other."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=WAIT_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )


class Table:
    """Reads one commit of the passage table, from any thread.

    Args:
        root: The index folder.
        name: The table's file.
        index_id: What the manifest says, to notice files that do not belong together.
        commit: Whose rows to see.
        rows: How many there must be.

    Raises:
        FileNotFoundError: The file is gone.
        StoreError: It cannot be read, or is not the manifest's.
    """

    def __init__(self, root: Path, name: str, index_id: str, commit: int, rows: int) -> None:
        self._root, self._commit = root, commit
        self._lock = threading.Lock()
        path = root / name
        if not path.is_file():
            raise FileNotFoundError(path)
        with guarded(root):
            self._db = _open_for_reading(path)
            found = self._db.execute("SELECT value FROM meta WHERE key = 'id'").fetchone()
            last = self._db.execute("SELECT max(row) FROM passages").fetchone()[0]
        if found is None or found[0] != index_id or (last if last is not None else -1) + 1 < rows:
            self.close()
            raise StoreDamaged(f"{path}: does not belong to this index's manifest.", hint=rebuild_hint(root))

    def close(self) -> None:
        """Gives the file back."""
        with suppress(sqlite3.Error):
            self._db.close()

    def __del__(self) -> None:
        if hasattr(self, "_db"):
            self.close()

    def _all(self, sql: str, values: Sequence[Any] | dict[str, Any]) -> list[tuple[Any, ...]]:
        """All results at once: a statement left open would keep writers from committing."""
        with self._lock, guarded(self._root):
            return self._db.execute(sql, values).fetchall()

    def intervals(self) -> NDArray[np.int64]:
        """First row and number of rows of each document alive, in row order, ``[documents, 2]``."""
        sql = f"SELECT first_row, rows FROM documents WHERE rows > 0 AND {VISIBLE} ORDER BY first_row"  # noqa: S608
        return np.array(self._all(sql, {"commit": self._commit}), dtype=np.int64).reshape(-1, 2)

    def documents(self) -> Iterator[tuple[IndexedDocument, int, str]]:
        """Each document alive with its first row and digest, in the order they were added."""
        sql = (
            "SELECT id, source, title, rows, hash, first_row, digest FROM documents "  # noqa: S608
            f"WHERE id > :last AND {VISIBLE} ORDER BY id LIMIT {PAGE}"
        )
        last = -1
        while page := self._all(sql, {"commit": self._commit, "last": last}):
            for number, source, title, rows, content_hash, first_row, digest in page:
                yield IndexedDocument(source, title, rows, content_hash), first_row, digest
                last = number

    def alive(self, *, text: bool = True) -> Iterator[PassageRow]:
        """Every passage alive in row order, a page at a time; the text is "" where it is not asked for."""
        for first, last in _runs(self.intervals()):
            yield from self.rows(first, last - first, text=text)

    def rows(self, first: int, count: int, *, text: bool = True) -> Iterator[PassageRow]:
        """Passages of consecutive rows, dead or alive, a page at a time."""
        column = "text" if text else "''"
        sql = f"SELECT row, id, title, {column}, metadata FROM passages WHERE row >= ? AND row < ? ORDER BY row"  # noqa: S608
        for start in range(first, first + count, PAGE):
            yield from self._all(sql, (start, min(start + PAGE, first + count)))

    def some(self, rows: Sequence[int]) -> dict[int, PassageRow]:
        """The passages of these rows."""
        found: dict[int, PassageRow] = {}
        for start in range(0, len(rows), 500):
            part = rows[start : start + 500]
            marks = ",".join("?" * len(part))
            sql = f"SELECT row, id, title, text, metadata FROM passages WHERE row IN ({marks})"  # noqa: S608
            found.update((row[0], row) for row in self._all(sql, part))
        return found

    def find(self, passage_id: str) -> PassageRow | None:
        """The passage alive with this id, found through its document's source."""
        source, _, ordinal = passage_id.rpartition("#")
        sql = f"SELECT first_row, rows FROM documents WHERE source = :source AND {VISIBLE}"  # noqa: S608
        for first_row, count in self._all(sql, {"source": clean(source), "commit": self._commit}):
            number = int(ordinal) if ordinal.isdecimal() and len(ordinal) < 16 else count
            row = self.some([first_row + number]).get(first_row + number) if number < count else None
            if row is not None and row[1] == passage_id:
                return row
        return None

    def check(self) -> list[str]:
        """What SQLite itself finds wrong with the file, in full."""
        found = [str(row[0]) for row in self._all("PRAGMA integrity_check(20)", ())]
        return [] if found == ["ok"] else found


def _runs(spans: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Joins ``[first, count]`` spans in row order into ``(first, last)`` runs without gaps, half open."""
    if len(spans) == 0:
        return []
    starts, ends = spans[:, 0], spans.sum(axis=1)
    gaps = np.flatnonzero(starts[1:] != ends[:-1])
    firsts = starts[np.concatenate([[0], gaps + 1])]
    lasts = ends[np.concatenate([gaps, [len(ends) - 1]])]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def _open_for_reading(path: Path) -> sqlite3.Connection:
    """Opens without writing; only a journal that a killed writer left makes writing needed, to roll it back."""
    db = connect(path, "ro")
    try:
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        db.close()
        if not error.sqlite_errorname.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
            raise
    except sqlite3.Error:
        db.close()
        raise
    else:
        return db
    db = connect(path, "rw")
    try:
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        db.close()
        raise
    return db
