"""The passages of an index as codes, and the centroids that score them, while ``jpq`` is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import StoreDamaged
from ragzip.indexes import Index
from ragzip.indexes.files import rebuild_hint
from ragzip.indexes.jpq.learning import balance, learn
from ragzip.indexes.jpq.part import faiss_index
from ragzip.indexes.jpq.quantizer import Codes, Matrix, Quantizer
from ragzip.indexes.stored import sample_of
from ragzip.training.self_supervised import document_of
from ragzip.types import Passage

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 4096
_SHOWN = 10
_MOST_OWN = 64


class Places:
    """The passages alive, by their place among them.

    Attributes:
        of: Id to place.
        documents: A number for the document of each, ``[n]``.
    """

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.of = {passage.id: place for place, passage in enumerate(passages)}
        numbers: dict[str, int] = {}
        found = [numbers.setdefault(document_of(passage), len(numbers)) for passage in passages]
        self.documents = np.asarray(found, np.int64)

    @property
    def depth(self) -> int:
        """So many have to be found for ten that compete to be among them, but for very long documents."""
        return min(_SHOWN + min(int(np.bincount(self.documents).max()), _MOST_OWN), len(self.documents))

    def ranked(self, found: NDArray[np.int64], own: NDArray[np.int64]) -> dict[str, float]:
        """``mrr@10`` and ``recall@10`` of each question's own passage; others of its document do not compete.

        Args:
            found: ``[n, depth]``, places, best first, and -1 for nothing.
            own: ``[n]``.
        """
        gains, hits = [], []
        for row, mine in zip(found, own, strict=True):
            row = row[row >= 0]
            rivals = row[(row == mine) | (self.documents[row] != self.documents[mine])][:_SHOWN]
            (where,) = np.nonzero(rivals == mine)
            gains.append(1 / (1 + int(where[0])) if len(where) else 0.0)
            hits.append(float(len(where) > 0))
        return {"mrr@10": float(np.mean(gains)), "recall@10": float(np.mean(hits))}


class Coded:
    """Codes that stay, and centroids that are trained.

    Args:
        index: Whose passages.
        start: What they are coded by.
        rate: The centroids move so many times as fast as all else that is trained.
        balanced: Whether codes are chosen anew, in balance, by the centroids as they have become.
        device: Where to train.
    """

    def __init__(self, index: Index, start: Quantizer, *, rate: float, balanced: bool, device: str) -> None:
        import torch

        self.vectors, self.rows, self.start, self.balanced = index.vectors, index.rows, start, balanced
        self.codes = self._encoded(start)
        self.moved = torch.nn.Parameter(torch.zeros(start.scoring.shape, device=device))
        self.rotation = torch.from_numpy(start.rotation).to(device)
        self._initial, self._rate, self._device = torch.from_numpy(start.scoring).to(device), rate, device
        self._searched = _searching(start.scoring, self.codes)

    def scoring(self) -> Tensor:
        """What codes are worth now, ``[pieces, 256, d / pieces]``."""
        return self._initial + self._rate * self.moved

    def decoded(self, places: NDArray[np.int64]) -> Tensor:
        """What the codes of passages stand for now, ``[n, d]``, rotated."""
        import torch

        codes = torch.from_numpy(self.codes[places].astype(np.int64)).to(self._device)
        pieces = torch.arange(codes.shape[1], device=self._device)
        return self.scoring()[pieces, codes].flatten(1)

    def whole(self, places: NDArray[np.int64]) -> Tensor:
        """The vectors of passages at ascending places, ``[n, d]``, not rotated."""
        import torch

        return torch.from_numpy(self.vectors.take(self.rows[places])).to(self._device)

    def nearest(self, asked: Tensor, k: int) -> NDArray[np.int64]:
        """The places of the passages that the present centroids put first, over the whole index: ``[n, k]``."""
        import faiss

        centroids = self.scoring().detach().cpu().numpy()
        faiss.copy_array_to_vector(np.ascontiguousarray(centroids).ravel(), self._searched.pq.centroids)
        return _found(self._searched, asked.detach().cpu().numpy(), k)

    def settled(self) -> tuple[Quantizer, Any]:
        """What would be kept if training ended now, and a FAISS index of the passages' codes by it."""
        scoring = self.scoring().detach().cpu().numpy()
        now = dataclasses.replace(self.start, scoring=scoring)
        codes = self.codes
        if self.balanced:
            some = self.vectors.take(sample_of(self.rows)) @ self.start.rotation
            now = dataclasses.replace(now, centroids=scoring, prices=balance(some, scoring, self.start.prices))
            codes = self._encoded(now)
        return now, _searching(scoring, codes)

    def _encoded(self, quantizer: Quantizer) -> Codes:
        blocks = (self.rows[start : start + _BLOCK] for start in range(0, len(self.rows), _BLOCK))
        return np.concatenate([quantizer.encode(self.vectors.take(rows)) for rows in blocks])


def learned(index: Index, pieces: int, *, rotate: bool, balanced: bool) -> Quantizer:
    """Product quantisation of an index's vectors, before anything is trained.

    Raises:
        StoreDamaged: They are not finite.
    """
    sample = index.vectors.take(sample_of(index.rows))
    if not np.isfinite(sample).all():
        raise StoreDamaged(f"{index.path}: holds vectors that are not finite.", hint=rebuild_hint(index.path))
    rotation, centroids, prices = learn(sample, pieces, rotate=rotate, balanced=balanced)
    entry = index.manifest.model
    name, fingerprint = (entry.name, entry.fingerprint) if entry else ("", "")
    return Quantizer(rotation, centroids, prices, centroids, name, fingerprint)


def found_by(searched: Any, asked: Tensor, k: int) -> NDArray[np.int64]:
    """Places by an index that ``Coded.settled`` gave, ``[n, k]``."""
    return _found(searched, asked.detach().cpu().numpy(), k)


def _found(searched: Any, asked: Matrix, k: int) -> NDArray[np.int64]:
    found: NDArray[np.int64] = searched.search(np.ascontiguousarray(asked), min(k, searched.ntotal))[1]
    return found


def _searching(scoring: Matrix, codes: Codes) -> Any:
    made = faiss_index(scoring)
    made.add_sa_codes(codes)
    return made
