"""Documents and passages in SQLite: writing."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ragzip.indexes.files import guarded
from ragzip.indexes.table import PAGE, SCHEMA, clean, connect, digest_of, to_row
from ragzip.types import Passage

_TEMPORARY = """
CREATE TEMP TABLE seen(source TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TEMP TABLE kept(source TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TEMP TABLE asked(root TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_CUT = re.compile(r"[/#:]")


@dataclass(frozen=True, slots=True)
class Known:
    """What the table says of a source.

    Attributes:
        number: The document's key.
        content_hash: As ingest computed it.
        raw_hash: Of its file, or "".
        recipe: How it was cut.
        rooted: Whether it is recorded under the root asked for.
    """

    number: int
    content_hash: str
    raw_hash: str
    recipe: str
    rooted: bool


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document to store.

    Attributes:
        source: Where it came from.
        title: Its title.
        content_hash: As ingest computed it.
        raw_hash: Of its file, or "".
        recipe: How it was cut.
        root: Under which path it was found.
        passages: What it was cut into.
        replaces: Key of its old version, or None.
    """

    source: str
    title: str
    content_hash: str
    raw_hash: str
    recipe: str
    root: str
    passages: Sequence[Passage] = field(repr=False)
    replaces: int | None = None


class TableWriter:
    """The only connection that writes; what it commits is invisible until the manifest says so."""

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._path = root / name
        with guarded(root):
            self._db = connect(self._path, "rw")
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    @classmethod
    def create(cls, root: Path, name: str, index_id: str) -> TableWriter:
        """A new, empty table."""
        with guarded(root):
            root.mkdir(parents=True, exist_ok=True)
            db = connect(root / name, "rwc")
            try:
                db.executescript(f"PRAGMA synchronous = EXTRA; BEGIN; {SCHEMA}")
                db.execute("INSERT INTO meta VALUES ('id', ?)", (index_id,))
                db.execute("COMMIT")
            finally:
                db.close()
        return cls(root, name)

    def _prepare(self) -> None:
        # EXTRA: the journal's removal is durable, too, before the manifest speaks of what was committed.
        self._db.executescript(
            "PRAGMA journal_mode = DELETE; PRAGMA synchronous = EXTRA; PRAGMA cache_size = -65536;" + _TEMPORARY
        )

    def close(self) -> None:
        """Gives the file back; an open transaction is rolled back."""
        with suppress(sqlite3.Error):
            self._db.close()

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self._path.stat().st_size

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing."""
        with guarded(self._root):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def sweep(self, commit: int, rows: int) -> None:
        """Takes back what a writer that died left beyond the last commit."""
        with guarded(self._root):
            beyond = self._db.execute(
                "SELECT (SELECT max(row) FROM passages) >= :rows"
                " OR EXISTS (SELECT 1 FROM documents WHERE added > :commit OR removed > :commit)"
                " OR EXISTS (SELECT 1 FROM roots WHERE added > :commit OR removed > :commit)",
                {"commit": commit, "rows": rows},
            ).fetchone()[0]
        if not beyond:
            return
        with self.transaction():
            self._db.execute("DELETE FROM passages WHERE row >= ?", (rows,))
            for name in ("documents", "roots"):
                self._db.execute(f"DELETE FROM {name} WHERE added > ?", (commit,))  # noqa: S608
                self._db.execute(f"UPDATE {name} SET removed = NULL WHERE removed > ?", (commit,))  # noqa: S608

    # What this run has seen: in a temporary table, which spills to the disk, so that memory does not grow.

    def see(self, source: str) -> bool:
        """Notes that a source came; False where it came before."""
        with guarded(self._root):
            return self._db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (source,)).rowcount == 1

    def keep(self, source: str) -> None:
        """Notes that a source could not be read: whatever stands under it stays.

        Which record a line of a file was, if it cannot be read, nobody knows: all of the file stay that did not come.
        """
        record = re.fullmatch(r"(.+):(\d+)", source)
        names = (source, f"{record[1]}#") if record else (source,)
        with guarded(self._root):
            self._db.executemany("INSERT OR IGNORE INTO kept VALUES (?)", [(clean(name),) for name in names])

    def unseen(self, roots: Sequence[str] | None) -> Iterator[int]:
        """Keys of documents under these roots (None: all) that did not come in this run and are not kept."""
        with guarded(self._root):
            self._db.execute("DELETE FROM asked")
            self._db.executemany("INSERT OR IGNORE INTO asked VALUES (?)", [(clean(r),) for r in roots or ()])
        under = (
            ""
            if roots is None
            else (
                " AND EXISTS (SELECT 1 FROM roots r WHERE r.source = d.source AND r.removed IS NULL"
                " AND r.root IN (SELECT root FROM asked))"
            )
        )
        sql = (
            "SELECT d.id, d.source FROM documents d WHERE d.removed IS NULL AND d.id > ? AND NOT EXISTS"  # noqa: S608
            f" (SELECT 1 FROM seen s WHERE s.source = d.source){under} ORDER BY d.id LIMIT {PAGE}"
        )
        last = -1
        while page := self._page(sql, last):
            for number, source in page:
                last = number
                if not self._kept(source):
                    yield number

    def _page(self, sql: str, last: int) -> list[tuple[int, str]]:
        with guarded(self._root):
            return self._db.execute(sql, (last,)).fetchall()

    def _kept(self, source: str) -> bool:
        cuts = list(_CUT.finditer(source))
        names = [source, *(source[: cut.start()] for cut in cuts), *(source[: cut.end()] for cut in cuts)]
        with guarded(self._root):
            return any(self._db.execute("SELECT 1 FROM kept WHERE source = ?", (n,)).fetchone() for n in names)

    def known(self, source: str, root: str) -> Known | None:
        """The version of a source that is alive."""
        sql = (
            "SELECT id, hash, raw_hash, recipe, EXISTS (SELECT 1 FROM roots r WHERE r.source = d.source"
            " AND r.root = ? AND r.removed IS NULL) FROM documents d WHERE source = ? AND removed IS NULL"
        )
        with guarded(self._root):
            found = self._db.execute(sql, (root, source)).fetchone()
        if found is None:
            return None
        number, content_hash, raw_hash, recipe, rooted = found
        return Known(number, content_hash, raw_hash, recipe, bool(rooted))

    def sources(self) -> Iterator[tuple[int, str]]:
        """Key and source of every document alive."""
        sql = f"SELECT id, source FROM documents WHERE removed IS NULL AND id > ? ORDER BY id LIMIT {PAGE}"  # noqa: S608
        last = -1
        while page := self._page(sql, last):
            yield from page
            last = page[-1][0]

    # Within a transaction.

    def insert(self, documents: Iterable[NewDocument], first_row: int, commit: int) -> list[str]:
        """Stores documents from a row on, and gives their digests."""
        digests: list[str] = []
        row = first_row
        for document in documents:
            passages = [to_row(row + number, passage) for number, passage in enumerate(document.passages)]
            digests.append(digest_of(passages))
            self._db.execute(
                "INSERT INTO documents(source, title, hash, raw_hash, recipe, first_row, rows, digest, added)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    document.source,
                    document.title,
                    document.content_hash,
                    document.raw_hash,
                    document.recipe,
                    row,
                    len(passages),
                    digests[-1],
                    commit,
                ),
            )
            self._db.executemany(
                "INSERT INTO passages(row, id, title, text, metadata) VALUES (?, ?, ?, ?, ?)", passages
            )
            row += len(passages)
        return digests

    def remove(self, numbers: Iterable[int], commit: int, *, forget_roots: bool) -> tuple[list[str], int]:
        """Marks documents as gone, and gives their digests and how many passages they had together."""
        digests: list[str] = []
        passages = 0
        for number in numbers:
            digest, rows, source = self._db.execute(
                "SELECT digest, rows, source FROM documents WHERE id = ?", (number,)
            ).fetchone()
            self._db.execute("UPDATE documents SET removed = ? WHERE id = ?", (commit, number))
            if forget_roots:
                self._db.execute("UPDATE roots SET removed = ? WHERE source = ? AND removed IS NULL", (commit, source))
            digests.append(digest)
            passages += rows
        return digests, passages

    def renew(self, pairs: Iterable[tuple[str, int]]) -> None:
        """Takes note of ``(raw_hash, key)``: other bytes that read the same. True at every commit, so it needs none."""
        self._db.executemany("UPDATE documents SET raw_hash = ? WHERE id = ?", pairs)

    def add_roots(self, pairs: Iterable[tuple[str, str]], commit: int) -> None:
        """Records under which roots sources were found."""
        self._db.executemany(
            "INSERT INTO roots SELECT :source, :root, :commit, NULL WHERE NOT EXISTS"
            " (SELECT 1 FROM roots WHERE source = :source AND root = :root AND removed IS NULL)",
            ({"source": source, "root": root, "commit": commit} for source, root in pairs),
        )

    def copy_alive(self, target: Path) -> list[tuple[int, int]]:
        """Writes a table with only what is alive, its rows numbered anew without gaps.

        Returns:
            Old first row and number of rows of each document, in the new order.
        """
        moved: list[tuple[int, int]] = []
        new_row = 0
        fresh = connect(target, "rwc")
        try:
            # No journal: nobody reads this file before a manifest names it, and then it is on the disk.
            fresh.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {SCHEMA}")
            fresh.execute("ATTACH ? AS old", (f"{self._path.absolute().as_uri()}?mode=ro",))
            fresh.execute("BEGIN")
            fresh.execute("INSERT INTO meta SELECT * FROM old.meta")
            alive = fresh.execute("SELECT id, first_row, rows FROM old.documents WHERE removed IS NULL ORDER BY id")
            for number, first_row, rows in alive.fetchall():
                fresh.execute(
                    "INSERT INTO documents SELECT NULL, source, title, hash, raw_hash, recipe, ?, rows, digest,"
                    " added, NULL FROM old.documents WHERE id = ?",
                    (new_row, number),
                )
                fresh.execute(
                    "INSERT INTO passages SELECT row + ?, id, title, metadata, text FROM old.passages"
                    " WHERE row >= ? AND row < ? ORDER BY row",
                    (new_row - first_row, first_row, first_row + rows),
                )
                moved.append((first_row, rows))
                new_row += rows
            fresh.execute("INSERT INTO roots SELECT * FROM old.roots WHERE removed IS NULL")
            fresh.execute("COMMIT")
        finally:
            fresh.close()
        return moved
