"""What turns passages' vectors into codes and scores the codes: one file, made by ``ragzip train jpq``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import ModelError
from ragzip.indexes.codecs import Codec
from ragzip.indexes.storage import Rows

Matrix = NDArray[np.float32]
Codes = NDArray[np.uint8]

FILE = "pq.safetensors"
CENTROIDS = 256
_BLOCK = 4096
_TENSORS = ("rotation", "centroids", "prices", "scoring")
_HINT = "Give a folder made by `ragzip train jpq`, or train it again."


@dataclass(frozen=True, eq=False)
class Quantizer:
    """Product quantisation with one set of centroids to choose codes by, and another to score them by.

    Attributes:
        rotation: Vectors are multiplied by this before they are cut into pieces, ``[d, d]``, orthogonal.
        centroids: A piece has the code of the nearest of these, ``[pieces, 256, d / pieces]``.
        prices: Added to the squares of the distances, ``[pieces, 256]``: what makes codes about equally frequent.
        scoring: What a code stands for in the inner product with a question, ``[pieces, 256, d / pieces]``.
        model: The encoder of the passages, as ``load_encoder`` takes it.
        fingerprint: Of its weights.
    """

    rotation: Matrix
    centroids: Matrix
    prices: Matrix
    scoring: Matrix
    model: str = ""
    fingerprint: str = ""

    @property
    def dimensions(self) -> int:
        """Of the vectors."""
        return len(self.rotation)

    @property
    def pieces(self) -> int:
        """Bytes of a code."""
        return len(self.centroids)

    @property
    def codec(self) -> Codec:
        """Reads and scores the codes as those of any index's shards."""
        tensors = {"matrix": self.rotation, "centroids": self.scoring}
        return Codec(Rows(code="pq", pieces=self.pieces), self.dimensions, tensors)

    def encode(self, vectors: Matrix) -> Codes:
        """The codes of vectors ``[n, d]``, ``[n, pieces]``; a row's does not depend on the others."""
        return cheapest(vectors @ self.rotation, self.centroids, self.prices)

    def dump(self) -> bytes:
        """As the file that ``load`` reads."""
        from safetensors.numpy import save

        tensors = {name: np.ascontiguousarray(getattr(self, name), np.float32) for name in _TENSORS}
        return save(
            tensors, metadata={"encoder": f"{self.fingerprint} {self.model}"}
        )  # one: of several the order is not certain


def load(path: Path) -> Quantizer:
    """What ``dump`` wrote.

    Raises:
        ModelError: It is not there or damaged; says what is wrong.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in _TENSORS}
    except FileNotFoundError as error:
        raise ModelError(f"{path} is not there", hint=_HINT) from error
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged: {error}", hint=_HINT) from error
    pieces, width = len(tensors["centroids"]), tensors["rotation"].shape[0]
    wanted = {
        "rotation": (width, width),
        "centroids": (pieces, CENTROIDS, width // max(pieces, 1)),
        "prices": (pieces, CENTROIDS),
        "scoring": (pieces, CENTROIDS, width // max(pieces, 1)),
    }
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name] or tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise ModelError(f"{path} holds no {name} of finite numbers {list(wanted[name])}", hint=_HINT)
    fingerprint, _, model = metadata.get("encoder", "").partition(" ")
    if pieces < 1 or width % pieces or not fingerprint:
        raise ModelError(f"{path} does not say what it was trained for", hint=_HINT)
    return Quantizer(**tensors, model=model, fingerprint=fingerprint)


def cheapest(turned: Matrix, centroids: Matrix, prices: Matrix) -> Codes:
    """For each piece the centroid with the least square of the distance plus price.

    Args:
        turned: ``[n, d]``, rotated.
        centroids: ``[pieces, 256, d / pieces]``.
        prices: ``[pieces, 256]``.
    """
    out = np.empty((len(turned), len(centroids)), np.uint8)
    for start in range(0, len(turned), _BLOCK):
        block = turned[start : start + _BLOCK]
        for number, piece in enumerate(cut(block, len(centroids))):
            costs = distances(piece, centroids[number]) + prices[number]
            out[start : start + _BLOCK, number] = costs.argmin(axis=1)
    return out


def cut(vectors: Matrix, pieces: int) -> Matrix:
    """``[n, d]`` to ``[pieces, n, d / pieces]``."""
    return np.ascontiguousarray(vectors.reshape(len(vectors), pieces, -1).transpose(1, 0, 2))


def distances(piece: Matrix, centroids: Matrix) -> Matrix:
    """Squares of distances, less those of the rows' lengths: ``[n, w]`` and ``[256, w]`` to ``[n, 256]``."""
    found: Matrix = piece @ (-2 * centroids.T)
    found += np.einsum("ij,ij->i", centroids, centroids)
    return found
