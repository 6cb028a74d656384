"""Are the files of a commit what its manifest says? Asked whenever an index is opened, for reading or writing.

Presence and size always; content too, as long as the files together are small enough for it to take a moment. Larger
indexes are checked in full by ``verify``.
"""

from __future__ import annotations

import threading
from pathlib import Path

from ragzip.indexes.files import checksum
from ragzip.indexes.manifest import Manifest

MOST_READ = 64_000_000
"""Bytes whose checksums are made at opening: a few tens of milliseconds."""

_lock = threading.Lock()
_known: dict[Path, tuple[int, int, str]] = {}


def looks_wrong(root: Path, entry: Manifest, *, contents: bool = True) -> str:
    """What is wrong with the files of a commit, or ""; their contents are read only where ``contents`` says so."""
    for file in entry.files:
        problem = _size_problem(root / file.name, file.bytes, file.bytes)
        if problem:
            return problem
    # A writer that was stopped may have left the table larger; it never gets smaller.
    problem = _size_problem(root / entry.table, entry.table_bytes, None)
    if problem or not contents or sum(file.bytes for file in entry.files) > MOST_READ:
        return problem
    for file in entry.files:
        if _checksum(root / file.name) != file.sha256:
            return f"{file.name} is damaged: its checksum is not the manifest's"
    return ""


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
    except OSError:
        return ""
    with _lock:
        if len(_known) > 10_000:
            _known.clear()
        _known[path] = (state.st_mtime_ns, state.st_size, found)
    return found


def _size_problem(path: Path, least: int, most: int | None) -> str:
    try:
        size = path.stat().st_size
    except OSError as error:
        return f"{path.name} is missing" if isinstance(error, FileNotFoundError) else f"{path.name}: {error.strerror}"
    if size < least or (most is not None and size > most):
        return f"{path.name} has {size} bytes, not {least}"
    return ""
