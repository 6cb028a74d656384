"""Are the files of a commit what its manifest says? Asked whenever an index is opened, for reading or writing.

Presence and size always; content too, as long as the files together are small enough for it to take a moment. Larger
indexes are checked in full by ``verify``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from ragzip.errors import StoreDamaged
from ragzip.indexes.files import checksum, mend_hint, rebuild_hint, unreadable
from ragzip.indexes.manifest import Manifest

MOST_READ = 64_000_000
"""Bytes whose checksums are made at opening: a few tens of milliseconds."""

_lock = threading.Lock()
_known: dict[Path, tuple[int, int, str]] = {}


def damage(root: Path, entry: Manifest, *, contents: bool = True) -> StoreDamaged | None:
    """What is wrong with the files of a commit, as an error; their contents are read where ``contents`` says so."""
    for name, problem in _problems(root, entry, contents):
        return StoreDamaged(f"{root}: {problem}.", hint=remedy(root, entry, name))
    return None


def remedy(root: Path, entry: Manifest, name: str) -> str:
    """What mends a damaged file: most follow from passages and vectors."""
    return rebuild_hint(root) if name == entry.table or name in entry.given else mend_hint(root)


def _problems(root: Path, entry: Manifest, contents: bool) -> Iterator[tuple[str, str]]:
    """Files of which something is wrong, and what."""
    for file in entry.files:
        if problem := _size_problem(root / file.name, file.bytes, file.bytes):
            yield file.name, problem
    # A writer that was stopped may have left the table larger; it never gets smaller.
    if problem := _size_problem(root / entry.table, entry.table_bytes, None):
        yield entry.table, problem
    if contents and sum(file.bytes for file in entry.files) <= MOST_READ:
        for file in entry.files:
            if _checksum(root / file.name) != file.sha256:
                yield file.name, f"{file.name} is damaged: its checksum is not the manifest's"


def _checksum(path: Path) -> str:
    """Of a file that never changes; made again only where its time or size says that it did."""
    path = path.resolve()
    try:
        state = path.stat()
        with _lock:
            known = _known.get(path)
        if known is not None and known[:2] == (state.st_mtime_ns, state.st_size):
            return known[2]
        found = checksum(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return ""
    except OSError as error:
        raise unreadable(path, error) from error
    with _lock:
        if len(_known) > 10_000:
            _known.clear()
        _known[path] = (state.st_mtime_ns, state.st_size, found)
    return found


def _size_problem(path: Path, least: int, most: int | None) -> str:
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return f"{path.name} is missing"
    except OSError as error:
        raise unreadable(path, error) from error
    if size < least or (most is not None and size > most):
        return f"{path.name} has {size} bytes, not {least}"
    return ""
