"""Files that appear whole or not at all, and disk errors said in words.

Every file of an index but its SQLite table is written once under a temporary name, flushed to the disk, and renamed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import filelock

from ragzip.errors import StoreDamaged, StoreError

LOCK = "write.lock"
TEMPORARY = ".tmp"
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_AGAIN = "The index stays at its last commit; {} and run the same command again."


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file that never changes once it is listed in a manifest.

    Attributes:
        name: Path below the index folder, with forward slashes.
        bytes: Its size.
        sha256: Its checksum in hex.
    """

    name: str
    bytes: int
    sha256: str


class Output:
    """A file being written, with its size and checksum so far."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes | memoryview) -> int:
        """Writes and counts; gives the number of bytes, as files do."""
        view = memoryview(data)
        self._file.write(view)
        self._digest.update(view)
        self.bytes += view.nbytes
        return view.nbytes

    def entry(self, name: str) -> FileEntry:
        """What a manifest says about this file."""
        return FileEntry(name, self.bytes, self._digest.hexdigest())


@contextmanager
def new_file(path: Path) -> Iterator[Output]:
    """A file that gets its name when the block ends well, and leaves nothing behind when it does not."""
    temporary = path.with_name(path.name + TEMPORARY)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as file:
            yield Output(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Makes what was written to a file durable."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def checksum(path: Path) -> str:
    """The sha256 of a file in hex, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entry_of(root: Path, name: str) -> FileEntry:
    """A file that something else wrote, made durable and measured."""
    path = root / name
    sync_file(path)
    return FileEntry(name, path.stat().st_size, checksum(path))


@contextmanager
def write_lock(root: Path) -> Iterator[None]:
    """Holds the one place for a writer; the folder is made if need be.

    Raises:
        StoreError: Another writer is at work, or the folder cannot be written.
    """
    with guarded(root):
        root.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(str(root / LOCK), timeout=0)
    with guarded(root):
        try:
            lock.acquire()
        except filelock.Timeout:
            raise StoreError(
                f"another process is indexing {root}/",
                hint="Wait until it has finished, then run the same command again.",
            ) from None
    try:
        yield
    finally:
        lock.release()


def unreadable(path: Path, error: OSError) -> StoreError:
    """What is said of a file that is there and may well be sound."""
    return StoreError(
        f"{path}: cannot be read: {error.strerror or error}.",
        hint="Look at its permissions, the disk, and how many files may be open (ulimit -n); then try again.",
    )


@contextmanager
def guarded(root: Path) -> Iterator[None]:
    """Turns errors of the disk and of SQLite into errors that say what state the index is in."""
    try:
        yield
    except sqlite3.Error as error:
        raise _sqlite_error(root, error) from error
    except OSError as error:
        if error.errno in _FULL:
            raise full(root, error.strerror or str(error)) from error
        name = f" ({error.filename})" if isinstance(error.filename, str) else ""
        raise StoreError(
            f"{root}: cannot write here: {error.strerror or error}{name}.",
            hint=_AGAIN.format("mend this"),
        ) from error


def full(root: Path, reason: str) -> StoreError:
    """The error for a disk without room."""
    return StoreError(f"{root}: the disk is full: {reason}.", hint=_AGAIN.format("free space"))


def rebuild_hint(root: Path) -> str:
    """The command that makes an index anew."""
    return f"Index the documents again: ragzip index PATH... --index {root} --rebuild"


def mend_hint(root: Path) -> str:
    """The commands that mend an index whose files are damaged."""
    return f"Mend it: ragzip index repair --index {root}. {rebuild_hint(root)}"


def _sqlite_error(root: Path, error: sqlite3.Error) -> StoreError:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_SCHEMA", "SQLITE_FORMAT")):
        return StoreDamaged(f"{root}: the passage table is damaged: {error}.", hint=rebuild_hint(root))
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return full(root, str(error))
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreError(f"{root}: the passage table is in use by another process.", hint="Try again in a moment.")
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return StoreError(f"{root}: cannot write the passage table: {error}.", hint=_AGAIN.format("mend this"))
    return StoreDamaged(f"{root}: the passage table cannot be read: {error}.", hint=rebuild_hint(root))
