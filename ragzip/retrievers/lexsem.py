"""LexSem: dense retrieval by question vectors in which the question's own words count more (LexSemBridge)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ragzip.errors import ConfigError
from ragzip.retrievers.options import at_least, check_index
from ragzip.types import Passage, Query

if TYPE_CHECKING:
    from ragzip.indexes import Index


@dataclass(frozen=True)
class LexSem:
    """Retrieval as ``dense`` does it, the question's vector multiplied element by element before the search.

    After LexSemBridge (https://arxiv.org/abs/2508.17858): the multipliers are a softmax, scaled to mean 1, over what
    the question's own tokens say about each dimension. The index stays as it is, and so do the passages' vectors. In
    the paper the map from tokens to dimensions is trained together with the encoder; here the encoder is left alone,
    the map goes through its word embeddings, and works untrained or with weights of ``ragzip train lexsem``.

    Attributes:
        index: The index folder.
        top_k: How many passages at most.
        filters: ``key=value``, ``key>=3``, ``source=docs/*``; all must hold, and then the search is exact.
        model: A folder made by ``ragzip train lexsem`` from the index's encoder; None modulates without training.
        strength: What goes into the softmax is multiplied by this; 0 is ``dense``. None is 1 for trained weights, and
            0.02 without.
    """

    structures: ClassVar[tuple[str, ...]] = ("vectors", "faiss")
    """Of the index, those that it reads."""

    index: str
    top_k: int = 20
    filters: tuple[str, ...] = ()
    model: str | None = None
    strength: float | None = None

    def __post_init__(self) -> None:
        check_index(self.index, self.top_k, self.filters)
        if self.model is not None and (not isinstance(self.model, str) or not self.model):
            raise ConfigError("model", f"must be the folder of a trained model or null, not {self.model!r}")
        number = isinstance(self.strength, int | float) and not isinstance(self.strength, bool)
        if self.strength is not None and not (number and 0 <= self.strength < math.inf):
            raise ConfigError("strength", f"must be a number of at least 0 or null, not {self.strength!r}")

    def load(self) -> None:
        """Opens the index and loads its encoder now rather than at the first question."""
        from ragzip.indexes import using

        using(self.index, lambda index: self._search(index, [Query("?")], 1))

    def retrieve(self, queries: Sequence[Query], *, top_k: int | None = None) -> list[list[Passage]]:
        """The nearest passages of each question, best first; scores are cosines to the modulated vector.

        Raises:
            StoreError: The index cannot be opened, or has no vectors.
            StoreMismatch: The encoder here is not the one it was made with.
            ModelError: The encoder is not here, or the trained weights are for another one.
        """
        from ragzip.indexes import using

        k = self.top_k if top_k is None else at_least("top_k", top_k, 1)
        return using(self.index, lambda index: self._search(index, queries, k)) if queries else []

    def _search(self, index: Index, queries: Sequence[Query], k: int) -> list[list[Passage]]:
        name = index.model_name()
        if len(index) == 0:
            return [[] for _ in queries]
        from ragzip.models import load_encoder
        from ragzip.models.lexsem import UNTRAINED, load_bridge

        encoder = load_encoder(name)
        index.check_model(encoder)
        texts = [query.text for query in queries]
        bridge = load_bridge(self.model, encoder)
        strength = self.strength
        if strength is None:
            strength = UNTRAINED if self.model is None else 1.0
        tokens = [ids[: encoder.room] for ids, _ in encoder.tokens(texts)]
        vectors = bridge.modulate(encoder.encode_queries(texts), tokens, strength)
        found = index.search_vectors(vectors, k, self.filters)
        return [index.passages(hits.rows, hits.scores) for hits in found]
