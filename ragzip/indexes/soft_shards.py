"""The files of a store of soft segments: what was written together, or joined later.

Every shard that is open takes a file descriptor for each of its files, so that small ones, which come of filling a
store a few documents at a time, do not stay many.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import StoreDamaged, StoreError
from ragzip.indexes.files import FileEntry, new_file

Precision = Literal["float16", "int8"]
Arrays = Mapping[str, NDArray[Any]]
"""Of a shard, by the names of ``PARTS``; ``scales`` only where rows are of 8 bits."""

PARTS = ("keys", "places", "rows", "scales")
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
        StoreError: No more files may be open.
    """
    parts: dict[str, Any] = {}
    for file in shard.files:
        path = root / file.name
        try:
            if path.stat().st_size != file.bytes:
                raise ValueError(f"{path.stat().st_size} bytes, not {file.bytes}")
            parts[file.name.split(".")[1]] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                raise StoreError(f"{path}: {error.strerror}", hint="Allow more: ulimit -n 4096") from error
            raise StoreDamaged(f"{path} cannot be read: {error}", hint=hint) from error
    if not {"keys", "places", "rows"} <= parts.keys():
        raise StoreDamaged(f"{root}: a shard has too few files", hint=hint)
    return parts


def arrays_of(keys: Sequence[bytes], rows: Sequence[NDArray[np.float32]], precision: Precision) -> Arrays:
    """A shard's arrays.

    Args:
        keys: ``n`` of pieces, ascending.
        rows: Of each ``[n_rows, columns]``.
        precision: How rows are kept.

    Raises:
        StoreDamaged: A value is not finite.
    """
    counts = np.asarray([len(some) for some in rows], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    flat = np.concatenate(list(rows)).astype(np.float32, copy=False)
    arrays: dict[str, NDArray[Any]] = {
        "keys": np.asarray(keys, dtype="S16"),
        "places": np.stack([starts, counts], axis=1).astype(np.int64),
    }
    if precision == "int8":
        scales = (np.abs(flat).max(axis=1, initial=0.0) / 127).astype(np.float32)
        arrays["rows"] = np.rint(flat / np.maximum(scales, 1e-12)[:, None]).astype(np.int8)
        arrays["scales"] = scales
    else:
        arrays["rows"] = flat.astype(np.float16)
    if not np.isfinite(flat).all() or not np.isfinite(arrays["rows"]).all():
        raise StoreDamaged("rows that are to be stored are not finite", hint="The weights are broken; train again.")
    return arrays


def joined(shards: Sequence[Arrays]) -> Arrays:
    """The arrays of one shard with the pieces of several, which have none in common; bit by bit as they were."""
    before = np.cumsum([0, *(len(shard["rows"]) for shard in shards)])
    keys = np.concatenate([shard["keys"] for shard in shards])
    order = np.argsort(keys, kind="stable")
    shifted = [
        np.stack([shard["places"][:, 0] + first, shard["places"][:, 1]], axis=1)
        for shard, first in zip(shards, before, strict=False)
    ]
    names = [name for name in ("rows", "scales") if name in shards[0]]
    whole = {name: np.concatenate([shard[name] for shard in shards]) for name in names}
    return {"keys": keys[order], "places": np.concatenate(shifted)[order], **whole}


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
    for path in root.iterdir():
        if _NAME.fullmatch(path.name) and path.name not in listed:
            with suppress(FileNotFoundError, PermissionError):  # Windows keeps what somebody has open
                path.unlink()


class _Writes:
    """What ``np.save`` needs of a file."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: Any) -> int:
        return int(self._file.write(data))
