"""Vectors to fewer bytes and back: what the shards of an index hold.

A codec is learned once, from a sample of the first vectors, and is a file of the index: vectors that come later are
made smaller by the same numbers, and none is ever made smaller twice.

PCA is that of second moments, without a mean, which would shift inner products from passage to passage; what is left
of a vector is scaled to length 1 again, as after truncation, and compared by cosine. float8 is e4m3 with one power of
two for the whole index, int8 has a step for each component, ``pq`` is product quantisation (Jégou et al., TPAMI 2011)
with 256 centroids a piece.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import StoreDamaged
from ragzip.indexes.files import FileEntry, guarded, new_file, rebuild_hint
from ragzip.indexes.kmeans import assign, centroids_of
from ragzip.indexes.storage import Rows

Matrix = NDArray[np.float32]
Codes = NDArray[Any]

_DTYPES = {"float32": "<f4", "float16": "<f2", "float8": "|u1", "int8": "|i1", "pq": "|u1"}
_FLOAT16 = 65504.0
_FLOAT8 = 448.0
_DECODED = 256  # rows that are decoded at once: a block stays in the cache
_LOOKED_UP = 8192


@dataclass(frozen=True, eq=False)
class Codec:
    """Makes vectors ``[n, dimensions]`` into codes ``[n, columns]``.

    Attributes:
        rows: How.
        dimensions: Width of the vectors of the encoder.
        tensors: What was learned: ``matrix`` ``[dimensions or dims, pca]``, ``steps`` ``[width]`` or ``[1]``,
            ``centroids`` ``[pieces, 256, width / pieces]``; each only where it is needed.
    """

    rows: Rows
    dimensions: int
    tensors: dict[str, Matrix] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Of a vector that was reduced."""
        return self.rows.width(self.dimensions)

    @property
    def columns(self) -> int:
        """Of a code."""
        return self.rows.pieces or self.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a code."""
        return np.dtype(_DTYPES[self.rows.code])

    def reduce(self, vectors: Matrix) -> Matrix:
        """Vectors ``[n, dimensions]``, of questions or passages, as they are compared: ``[n, width]``."""
        if self.rows.dims is not None:
            vectors = _unit(vectors[:, : self.rows.dims])
        matrix = self.tensors.get("matrix")
        return vectors if matrix is None else _unit(_product(vectors, matrix))

    def restore(self, reduced: Matrix) -> Matrix:
        """Reduced vectors back among those of the encoder, ``[n, dimensions]``, with the same inner products."""
        matrix = self.tensors.get("matrix")
        if matrix is not None:
            reduced = _product(reduced, matrix.T)
        missing = self.dimensions - reduced.shape[1]
        return np.pad(reduced, ((0, 0), (0, missing))) if missing else reduced

    def encode(self, vectors: Matrix) -> Codes:
        """The codes of vectors ``[n, dimensions]``; numbers beyond what was learned become the greatest there is."""
        return self._code(self.reduce(vectors))

    def _code(self, reduced: Matrix) -> Codes:
        code = self.rows.code
        if code == "float16":
            halves: Codes = np.clip(reduced, -_FLOAT16, _FLOAT16).astype("<f2")
            return halves
        if code == "int8":
            whole: Codes = np.clip(np.rint(reduced / self.tensors["steps"]), -127, 127).astype(np.int8)
            return whole
        if code == "float8":
            import torch

            scaled = np.clip(reduced / self.tensors["steps"], -_FLOAT8, _FLOAT8).astype(np.float32)
            bits: Codes = torch.from_numpy(scaled).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
            return bits
        if code == "pq":
            return assign(reduced, self.tensors["centroids"])
        return reduced

    def decode(self, codes: Codes) -> Matrix:
        """Reduced vectors of codes, ``[n, width]``."""
        if self.rows.code == "pq":
            pieces = self.tensors["centroids"][np.arange(self.rows.pieces), codes]
            return pieces.reshape(len(codes), self.width)
        numbers = self._numbers(codes)
        return numbers * self.tensors["steps"] if "steps" in self.tensors else numbers

    def _numbers(self, codes: Codes) -> Matrix:
        """Codes as float32, before the steps that ``float8`` and ``int8`` are multiples of."""
        if self.rows.code == "float8":
            return _widened(codes.view(np.int8), 3, 4)
        if self.rows.code == "float16":
            return _widened(codes.view(np.int16), 10, 5)
        return codes.astype(np.float32, copy=False)

    def scorer(self, query: Matrix) -> Callable[[Codes], Matrix]:
        """A function from codes to their inner products with a question.

        Args:
            query: ``[dimensions]``.

        Returns:
            ``[n, columns]`` to ``[n]``; one row's does not depend on the others.
        """
        asked = self.reduce(query[None])[0]
        if self.rows.code == "pq":
            table = np.einsum("mkd,md->mk", self.tensors["centroids"], asked.reshape(self.rows.pieces, -1))
            return lambda codes: _looked_up(table, codes)
        if "steps" in self.tensors:
            asked = asked * self.tensors["steps"]
        return lambda codes: self._products(codes, asked)

    def _products(self, codes: Codes, asked: Matrix) -> Matrix:
        """Not by BLAS, whose threads wait for each other when the processor is busy."""
        out = np.empty(len(codes), np.float32)
        for start in range(0, len(codes), _DECODED):
            part = self._numbers(codes[start : start + _DECODED])
            np.einsum("ij,j->i", part, asked, out=out[start : start + _DECODED])
        return out

    def save(self, root: Path, name: str) -> FileEntry:
        """Writes what was learned into a file of the index."""
        from safetensors.numpy import save

        metadata = {"rows": str(self.rows), "dimensions": str(self.dimensions)}
        with guarded(root), new_file(root / name) as out:
            # One tensor too many: there are codecs that learn nothing, and every file must have one.
            out.write(save({**self.tensors, "version": np.ones(1, np.float32)}, metadata))
            return out.entry(name)


def load(root: Path, file: FileEntry, rows: Rows, dimensions: int) -> Codec:
    """A codec as ``save`` left it.

    Raises:
        FileNotFoundError: It is gone.
        StoreDamaged: It is not what the manifest says.
    """
    from safetensors import SafetensorError, safe_open

    path = root / file.name
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        with safe_open(str(path), framework="numpy") as opened:
            metadata = opened.metadata() or {}
            tensors = {key: opened.get_tensor(key) for key in opened.keys() if key != "version"}  # noqa: SIM118
    except SafetensorError as error:
        raise StoreDamaged(f"{path}: is damaged: {error}.", hint=rebuild_hint(root)) from error
    codec = Codec(rows, dimensions, tensors)
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    finite = all(tensor.dtype == np.float32 and np.isfinite(tensor).all() for tensor in tensors.values())
    if metadata != {"rows": str(rows), "dimensions": str(dimensions)} or shapes != _shapes(codec) or not finite:
        raise StoreDamaged(f"{path}: is not for {rows} of {dimensions}.", hint=rebuild_hint(root))
    return codec


def _shapes(codec: Codec) -> dict[str, tuple[int, ...]]:
    rows, width = codec.rows, codec.width
    found: dict[str, tuple[int, ...]] = {}
    if rows.pca is not None:
        found["matrix"] = (rows.dims or codec.dimensions, rows.pca)
    if rows.code in ("float8", "int8"):
        found["steps"] = (1,) if rows.code == "float8" else (width,)
    if rows.code == "pq":
        found["centroids"] = (rows.pieces, 256, width // rows.pieces)
    return found


def learn(rows: Rows, sample: Matrix) -> Codec:
    """A codec for vectors like these.

    Args:
        rows: What it shall make of them.
        sample: ``[n, dimensions]``, at least ``rows.least``.
    """
    codec = Codec(rows, sample.shape[1])
    reduced = codec.reduce(sample)  # dims alone: there is no matrix yet
    if rows.pca is not None:
        codec.tensors["matrix"] = _components(reduced, rows.pca)
        reduced = codec.reduce(sample)
    greatest = np.abs(reduced).max(axis=0)
    if rows.code == "int8":
        # Room for a quarter more than was seen.
        codec.tensors["steps"] = np.where(greatest > 0, greatest, 1).astype(np.float32) * np.float32(1.25 / 127)
    elif rows.code == "float8":
        # Twice the room of what was seen; a power of two, by which nothing is rounded.
        most = 2 * float(greatest.max()) or 1.0
        codec.tensors["steps"] = np.array([2.0 ** np.ceil(np.log2(most / _FLOAT8))], np.float32)
    elif rows.code == "pq":
        codec.tensors["centroids"] = centroids_of(reduced, rows.pieces)
    return codec


def _components(vectors: Matrix, count: int) -> Matrix:
    """The directions ``[width, count]`` that keep most of the vectors' squared lengths, greatest first."""
    moments = np.zeros((vectors.shape[1], vectors.shape[1]))
    for start in range(0, len(vectors), 4096):
        part = vectors[start : start + 4096].astype(np.float64)
        moments += part.T @ part
    _, directions = np.linalg.eigh(moments)
    found = directions[:, ::-1][:, :count]
    # The sign is free: the largest component decides, so that the same vectors give the same matrix.
    largest = found[np.argmax(np.abs(found), axis=0), np.arange(count)]
    return np.ascontiguousarray(found * np.where(largest < 0, -1, 1), np.float32)


def _widened(codes: NDArray[Any], fraction: int, exponent: int) -> Matrix:
    """Small floating-point numbers, given as signed integers, as float32; there must be no infinities.

    NumPy converts float16 one by one, and torch waits for its threads: bits are shifted into place instead, and what
    the exponents' biases differ by is multiplied in, which is right for subnormal numbers, too.
    """
    wide = codes.astype(np.int32)
    wide <<= 23 - fraction
    # The sign, of which there are several copies now, and what stood below it.
    wide &= np.int32((((1 << (fraction + exponent)) - 1) << (23 - fraction)) - (1 << 31))
    found = wide.view(np.float32)
    found *= np.float32(2.0 ** (127 - (2 ** (exponent - 1) - 1)))
    return found


def _unit(vectors: Matrix) -> Matrix:
    """Of length 1; those without length stay."""
    lengths: Matrix = np.linalg.norm(vectors, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    return vectors / lengths


def _looked_up(table: Matrix, codes: Codes) -> Matrix:
    """The sum of ``table[piece, code]`` over the pieces of each row."""
    out = np.empty(len(codes), np.float32)
    for start in range(0, len(codes), _LOOKED_UP):
        part = codes[start : start + _LOOKED_UP].T
        found = np.zeros(part.shape[1], np.float32)
        for piece, column in zip(table, part, strict=True):
            found += piece.take(column)
        out[start : start + _LOOKED_UP] = found
    return out


def _product(vectors: Matrix, matrix: Matrix) -> Matrix:
    """As ``@``, row by row: BLAS goes other ways through matrices of other heights, which changes the last bits."""
    found: Matrix = np.matmul(vectors[:, None, :], matrix)[:, 0]
    return found
