"""Codes and encodings of passages on the disk: arrays in the order of rows, some for each step that took rows in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import StoreDamaged
from ragzip.indexes.files import FileEntry, guarded, mend_hint, new_file
from ragzip.indexes.multi_vector.codec import Codec

Matrix = NDArray[np.float32]
_BLOCK = 256  # encodings that are whole floats at once
ARRAYS = ("counts", "codes", "residuals", "encodings", "scales")


@dataclass(frozen=True, eq=False)
class Batch:
    """What is kept of some passages.

    Attributes:
        counts: ``[passages]`` int32: tokens of each.
        codes: ``[tokens]``: centroids.
        residuals: ``[tokens, bytes]`` uint8.
        encodings: ``[passages, width]`` int8: fixed dimensional encodings, scaled.
        scales: ``[passages]`` float32: what to multiply these by.
    """

    counts: NDArray[np.int32]
    codes: NDArray[Any]
    residuals: NDArray[np.uint8]
    encodings: NDArray[np.int8]
    scales: Matrix


def shrink(encodings: Matrix) -> tuple[NDArray[np.int8], Matrix]:
    """Vectors as whole numbers from -127 to 127 and a scale each."""
    scales = np.abs(encodings).max(1, initial=0.0) / 127
    safe = np.where(scales > 0, scales, 1).astype(np.float32)
    return np.rint(encodings / safe[:, None]).astype(np.int8), scales.astype(np.float32)


def write_batch(root: Path, prefix: str, batch: Batch) -> tuple[FileEntry, ...]:
    """Writes arrays, each a file; raises ``StoreError`` where the disk does not take them."""
    return tuple(write_array(root, f"{prefix}{name}.npy", getattr(batch, name)) for name in ARRAYS)


def write_array(root: Path, name: str, values: NDArray[Any]) -> FileEntry:
    """One array as a ``.npy`` file.

    Raises:
        StoreError: The disk does not take it.
    """
    values = np.ascontiguousarray(values)
    header = {"descr": np.lib.format.dtype_to_descr(values.dtype), "fortran_order": False, "shape": values.shape}
    with guarded(root), new_file(root / name) as out:
        np.lib.format.write_array_header_1_0(out, header)
        if values.size:
            out.write(values.reshape(-1).view(np.uint8).data)
        return out.entry(name)


def read_array(root: Path, name: str) -> NDArray[Any]:
    """An array, read through the page cache.

    Raises:
        FileNotFoundError: It is gone.
        StoreDamaged: It is none.
    """
    try:
        mapped = np.load(root / name, mmap_mode="r", allow_pickle=False)
        found: NDArray[Any] = mapped.view(np.ndarray)  # whose slices take a tenth of the time
        return found
    except (ValueError, EOFError) as error:
        raise StoreDamaged(f"{root / name}: is damaged: {error}.", hint=mend_hint(root)) from error


class Tokens:
    """Codes and encodings of all rows, dead ones included.

    Args:
        root: The index folder.
        batches: What the names of its files begin with, and how many rows it has, of each, in row order.
        codec: What the codes mean.
        rows: How many rows they must hold.

    Raises:
        FileNotFoundError: A file is gone.
        StoreDamaged: They hold something else.
    """

    def __init__(self, root: Path, batches: Sequence[Sequence[Any]], codec: Codec, rows: int) -> None:
        found = [Batch(**{name: read_array(root, f"{prefix}{name}.npy") for name in ARRAYS}) for prefix, _ in batches]
        self.codec = codec
        self._batches = found
        self._starts = np.cumsum([0, *(len(batch.counts) for batch in found)])
        self._tokens = [np.concatenate([[0], np.cumsum(batch.counts, dtype=np.int64)]) for batch in found]
        if self._starts[-1] != rows or any(
            len(batch.codes) != ends[-1] or batch.residuals.shape != (ends[-1], codec.residual_bytes)
            for batch, ends in zip(found, self._tokens, strict=True)
        ):
            raise StoreDamaged(f"{root}: token vectors are not those of {rows} rows.", hint=mend_hint(root))

    def take(self, rows: NDArray[np.int64]) -> Batch:
        """What is kept of ascending rows, copied."""
        parts = list(self._pieces(rows))
        if not parts:
            codec = self.codec
            return Batch(
                np.zeros(0, np.int32), np.zeros(0, codec.code_type), np.zeros((0, codec.residual_bytes), np.uint8),
                np.zeros((0, self.width), np.int8), np.zeros(0, np.float32),
            )  # fmt: skip
        return Batch(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS})

    @property
    def width(self) -> int:
        """Of an encoding."""
        return int(self._batches[0].encodings.shape[1]) if self._batches else 0

    def vectors(self, rows: NDArray[np.int64], *, leading: bool = False) -> tuple[Matrix, NDArray[np.int64]]:
        """Token vectors of ascending rows ``[tokens, dimensions]``, turned as by the codec, and how many each row has.

        Args:
            rows: Ascending.
            leading: By the leading bits of residuals alone.
        """
        counts, codes, residuals = [], [], []
        for batch, ends, local in self._split(rows):
            sizes = batch.counts[local].astype(np.int64)
            at = _ranges(ends[local], sizes)
            counts.append(sizes)
            codes.append(batch.codes[at])
            residuals.append(batch.residuals[at])
        if not counts:
            return np.zeros((0, self.codec.dimensions), np.float32), np.zeros(0, np.int64)
        vectors = self.codec.turned(np.concatenate(codes), np.concatenate(residuals), leading=leading)
        return vectors, np.concatenate(counts)

    def codes(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Centroids of the tokens of ascending rows ``[tokens]``, and how many each row has."""
        counts, codes = [np.zeros(0, np.int64)], [np.zeros(0, self.codec.code_type)]
        for batch, ends, local in self._split(rows):
            counts.append(batch.counts[local].astype(np.int64))
            codes.append(batch.codes[_ranges(ends[local], counts[-1])])
        return np.concatenate(codes), np.concatenate(counts)

    def encodings(self, rows: NDArray[np.int64]) -> Matrix:
        """Fixed dimensional encodings of ascending rows, ``[n, width]``."""
        parts = [batch.encodings[local] * batch.scales[local][:, None] for batch, _, local in self._split(rows)]
        return np.concatenate([np.zeros((0, self.width), np.float32), *parts]).astype(np.float32, copy=False)

    def products(self, rows: NDArray[np.int64], encoding: Matrix) -> Matrix:
        """Inner products of the encodings of ascending rows with one of a query ``[width]``: ``[n]``."""
        found = [np.zeros(0, np.float32)]
        for batch, _, local in self._split(rows):
            for start in range(0, len(local), _BLOCK):
                block = local[start : start + _BLOCK]
                found.append(batch.encodings[block].astype(np.float32) @ encoding * batch.scales[block])
        return np.concatenate(found)

    def _pieces(self, rows: NDArray[np.int64]) -> Iterator[Batch]:
        for batch, ends, local in self._split(rows):
            at = _ranges(ends[local], batch.counts[local].astype(np.int64))
            yield Batch(
                batch.counts[local], batch.codes[at], batch.residuals[at], batch.encodings[local], batch.scales[local]
            )

    def _split(self, rows: NDArray[np.int64]) -> Iterator[tuple[Batch, NDArray[np.int64], NDArray[np.int64]]]:
        cuts = np.searchsorted(rows, self._starts)
        for number, batch in enumerate(self._batches):
            mine = rows[cuts[number] : cuts[number + 1]]
            if len(mine):
                yield batch, self._tokens[number], mine - self._starts[number]


def _ranges(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every number from each start on, as many as its size."""
    offsets = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    found: NDArray[np.int64] = np.repeat(starts, sizes) + offsets
    return found


def read_arrays(root: Path, folder: str, names: Sequence[str]) -> Mapping[str, NDArray[Any]]:
    """Some arrays of a folder, in memory."""
    return {name: np.array(read_array(root, f"{folder}/{name}.npy")) for name in names}
