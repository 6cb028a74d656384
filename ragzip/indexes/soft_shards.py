"""The files of a store of soft segments: what was written together, or joined later.

Every shard that is open takes a file descriptor for each of its files, so that small ones, which come of filling a
store a few documents at a time, do not stay many.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragzip.errors import StoreDamaged
from ragzip.indexes.files import FileEntry, checksum, new_file, unreadable
from ragzip.indexes.soft_arrays import PARTS, Arrays

_NAME = re.compile(rf"(\d{{5,}})\.({'|'.join(PARTS)})\.npy")
_SMALL_BYTES = 4_000_000
_MOST_SMALL = 16


@dataclass(frozen=True, slots=True)
class Shard:
    """Files that were written together: pieces, rows, and the files with their checksums."""

    pieces: int
    rows: int
    files: tuple[FileEntry, ...]


def opened(root: Path, shard: Shard, *, hint: str) -> Arrays:
    """A shard's files, mapped.

    Raises:
        StoreDamaged: One is missing, or not what was written.
        StoreError: One cannot be read, though it is there; no more files may be open, say.
    """
    parts: dict[str, Any] = {}
    for file in shard.files:
        path = root / file.name
        try:
            if path.stat().st_size != file.bytes:
                raise ValueError(f"{path.stat().st_size} bytes, not {file.bytes}")
            parts[file.name.split(".")[1]] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError) as error:
            raise StoreDamaged(f"{path} cannot be read: {error}", hint=hint) from error
        except OSError as error:
            raise unreadable(path, error) from error
    if not {"keys", "places", "rows"} <= parts.keys():
        raise StoreDamaged(f"{root}: a shard has too few files", hint=hint)
    return parts


def write_shard(root: Path, number: int, arrays: Arrays) -> Shard:
    """Writes the files of a shard, each whole or not at all."""
    files = []
    for part in PARTS:
        if part in arrays:
            name = f"{number:05d}.{part}.npy"
            with new_file(root / name) as file:
                np.save(_Writes(file), arrays[part], allow_pickle=False)
            files.append(file.entry(name))
    return Shard(len(arrays["keys"]), len(arrays["rows"]), tuple(files))


def changed(root: Path, shard: Shard) -> list[str]:
    """What is wrong with its files: those that are missing, cut short or changed."""
    problems = []
    for file in shard.files:
        path = root / file.name
        try:
            if path.stat().st_size != file.bytes or checksum(path) != file.sha256:
                problems.append(f"{path} is not what was written")
        except FileNotFoundError:
            problems.append(f"{path} is missing")
        except OSError as error:
            problems.append(unreadable(path, error).message)
    return problems


def small_ones(shards: Sequence[Shard]) -> int:
    """How many of the last shards are to be joined with the one that comes now: all small ones, once there are many."""
    count = 0
    for shard in reversed(shards):
        if sum(file.bytes for file in shard.files) >= _SMALL_BYTES:
            break
        count += 1
    return count if count >= _MOST_SMALL else 0


def next_number(shards: Sequence[Shard]) -> int:
    """One that no shard has."""
    found = [_NAME.fullmatch(file.name) for shard in shards for file in shard.files]
    return max((int(match[1]) + 1 for match in found if match), default=0)


def sweep_shards(root: Path, shards: Sequence[Shard]) -> None:
    """Removes the files of shards that are not among these: of joined ones, and of a commit that was stopped."""
    listed = {file.name for shard in shards for file in shard.files}
    for path in root.iterdir() if root.is_dir() else ():
        if _NAME.fullmatch(path.name) and path.name not in listed:
            with suppress(FileNotFoundError, PermissionError):  # Windows keeps what somebody has open
                path.unlink()


class _Writes:
    """What ``np.save`` needs of a file."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: Any) -> int:
        return int(self._file.write(data))
