"""What a shard of soft segments holds: keys, places and rows, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import StoreDamaged

Precision = Literal["float16", "int8"]
Arrays = Mapping[str, NDArray[Any]]
"""Of a shard, by the names of ``PARTS``; ``scales`` only where rows are of 8 bits."""

PARTS = ("keys", "places", "rows", "scales")


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
