"""Checksums of files, computed once for each state of a file and remembered.

A file's state is its path, size and time of last change. What is remembered lives in the process and in one small
JSON file in the cache, so that a 260 MB weight file is read for its checksum once, not at every start.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import threading
from pathlib import Path

_MOST = 512
_lock = threading.Lock()
_known: dict[str, str] = {}


def digest(path: Path, memory: Path) -> str:
    """SHA-256 of a file, in hex.

    Args:
        path: The file.
        memory: The JSON file that remembers digests between processes; made when it is missing, and done without
            when it cannot be written.

    Raises:
        OSError: The file cannot be read.
    """
    key = _state(path)
    with _lock:
        if key not in _known:
            _known.update(_read(memory))
        if key in _known:
            return _known[key]
    with path.open("rb") as file:
        value = hashlib.file_digest(file, "sha256").hexdigest()
    if _state(path) == key:
        remember(path, value, memory)
    return value


def remember(path: Path, value: str, memory: Path) -> None:
    """Notes a digest that was computed elsewhere, while the file was written, say."""
    key = _state(path)
    with _lock:
        _known[key] = value
        kept = {**_read(memory), key: value}
        for old in list(kept)[: max(len(kept) - _MOST, 0)]:
            del kept[old]
        _write(memory, kept)


def _state(path: Path) -> str:
    stat = path.stat()
    return f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"


def _read(memory: Path) -> dict[str, str]:
    try:
        found = json.loads(memory.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {k: v for k, v in found.items() if isinstance(v, str) and len(v) == 64}


def _write(memory: Path, kept: dict[str, str]) -> None:
    """Atomic; a cache that cannot be written only costs the next process its time."""
    temp = memory.with_name(f".{memory.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with contextlib.suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        try:
            temp.write_text(json.dumps(kept, indent=0), "utf-8")
            temp.replace(memory)
        finally:
            temp.unlink(missing_ok=True)
