"""From float32 shards to what a storage keeps, once there are enough vectors to learn it from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import StoreMismatch
from ragzip.indexes import codecs
from ragzip.indexes.codecs import Codec
from ragzip.indexes.files import FileEntry, rebuild_hint
from ragzip.indexes.manifest import Manifest, Shard
from ragzip.indexes.storage import Rows, Storage, parse
from ragzip.indexes.vectors import SHARD_ROWS, Vectors, write_shard

LEARNED_FROM = 32_768
"""Vectors, evenly over the index, that codecs and structures are learned from at most."""


def codec_of(root: Path, entry: Manifest) -> Codec:
    """What the shards of a commit hold."""
    dimensions = entry.model.dimensions if entry.model else 0
    if entry.codec is None:
        return Codec(Rows(), dimensions)
    return codecs.load(root, entry.codec, parse(entry.storage).rows, dimensions)


def check_change(root: Path, entry: Manifest, storage: Storage) -> None:
    """Makes sure that an index can be stored so from now on.

    Raises:
        ConfigError: Not with vectors of its width.
        StoreMismatch: Its vectors are rounded already, in another way.
    """
    if entry.model is None:
        return
    storage.check(entry.model.dimensions)
    kept = parse(entry.storage).rows
    if entry.codec is not None and kept != storage.rows:
        raise StoreMismatch(
            f"{root}: its vectors are kept as {kept}, from which {storage.rows} cannot be made.",
            hint=f"Keep {kept}, or encode them anew. {rebuild_hint(root)} --storage {storage}",
        )


def sample_of(rows: NDArray[np.int64], most: int = LEARNED_FROM) -> NDArray[np.int64]:
    """Some of these rows, evenly over all of them, ascending."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, num=min(len(rows), most)).astype(np.int64))]


def convert(
    root: Path, vectors: Vectors, alive: NDArray[np.int64], rows: Rows, number: Callable[[], str]
) -> tuple[FileEntry, tuple[Shard, ...]]:
    """Learns a codec from the rows alive, and writes all rows once more.

    Args:
        root: The index folder.
        vectors: Float32.
        alive: Ascending, at least ``rows.least``.
        rows: What to keep.
        number: Gives names.
    """
    codec = codecs.learn(rows, vectors.take(sample_of(alive)))
    file = codec.save(root, f"codec-{number()}.safetensors")
    shards = []
    for start in range(0, len(vectors), SHARD_ROWS):
        part = np.arange(start, min(start + SHARD_ROWS, len(vectors)))
        blocks = map(codec.encode, vectors.blocks(part))
        shards.append(write_shard(root, f"vectors/{number()}.npy", codec.columns, len(part), blocks, codec.dtype))
    return file, tuple(shards)
