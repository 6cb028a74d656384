"""Opened indexes, kept for the next search: one for each folder, replaced when its manifest is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ragzip.indexes import manifest
from ragzip.indexes.index import Index
from ragzip.indexes.manifest import StoreMoved

T = TypeVar("T")
_Stamp = tuple[int, int, int]
_MOST = 8
_TRIES = 20
_lock = threading.Lock()
_opened: dict[str, tuple[_Stamp, Index]] = {}


def open_cached(path: str | Path) -> Index:
    """The last commit of an index, opened at most once in this process as long as it stays the last.

    Raises:
        StoreError: As ``Index.open``.
    """
    root = Path(path).absolute()  # files are opened when they are needed: the process may be in another folder then
    key = str(root)
    stamp = _stamp(root)
    with _lock:
        found = _opened.get(key)
        if found is not None and found[0] == stamp:
            return found[1]
        index = Index.open(root)
        _opened.pop(key, None)
        if stamp is not None and _stamp(root) == stamp:
            while len(_opened) >= _MOST:
                _opened.pop(next(iter(_opened)))
            _opened[key] = (stamp, index)
        return index


def using(path: str | Path, use: Callable[[Index], T]) -> T:
    """Runs a search on the last commit, again on the next one if a writer replaced files in between.

    Args:
        path: The index folder.
        use: Must be safe to run twice.

    Raises:
        StoreError: As ``Index.open``.
    """
    for _ in range(_TRIES):
        try:
            return use(open_cached(path))
        except StoreMoved:
            continue
    return use(open_cached(path))


def _stamp(root: Path) -> _Stamp | None:
    """Changes with every commit: a manifest is a new file each time."""
    try:
        found = (root / manifest.NAME).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
