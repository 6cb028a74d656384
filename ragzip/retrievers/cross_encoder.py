"""CrossEncoder: the passages of another retriever, reranked by any cross-encoder (Nogueira and Cho, 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ragzip import models
from ragzip.errors import ConfigError
from ragzip.models import Dtype, check_options
from ragzip.protocols import Retriever
from ragzip.retrievers.options import at_least
from ragzip.types import Passage, Query

if TYPE_CHECKING:
    from ragzip.models import PairScorer


@dataclass(frozen=True)
class CrossEncoder:
    """Orders the first passages of a retriever by a model that reads question and passage together.

    After https://arxiv.org/abs/1901.04085, with models in the format of sentence-transformers: one label or two, whose
    scores are logits or go through a sigmoid, as the model's config says. Each question's passages, with their titles,
    are batched by length apart from those of other questions, so that a ranking does not depend on what else is asked;
    long ones are read in windows, of which the best counts. ``rerank`` does the same with the model of ``provence``,
    and shares its passes with that compressor. An empty question leaves passages, order and scores as they were found.

    Attributes:
        retriever: Whose passages are ordered.
        model: A folder as sentence-transformers or ``AutoModelForSequenceClassification`` saves it, or a hub id
            (``cross-encoder/ms-marco-MiniLM-L6-v2``).
        depth: How many passages the retriever is asked for, or ``top_k`` where that is more.
        top_k: How many passages at most.
        dtype: ``auto`` (bf16 where that is much faster, else fp32), ``fp32``, ``bf16`` or ``fp16``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``xpu``.
    """

    retriever: Retriever
    model: str
    depth: int = 50
    top_k: int = 20
    dtype: Dtype = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        if not isinstance(self.retriever, Retriever):
            raise ConfigError("retriever", f"must be a retriever, not {self.retriever!r}", hint="As dense or bm25.")
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError("model", f"must be the folder or hub id of a model, not {self.model!r}")
        at_least("depth", self.depth, 1)
        at_least("top_k", self.top_k, 1)
        check_options(self.dtype, self.device)

    def load(self) -> PairScorer:
        """Loads the model now, and what the retriever needs, where it can say so."""
        load = getattr(self.retriever, "load", None)
        if callable(load):
            load()
        return self._model()

    def retrieve(self, queries: Sequence[Query], *, top_k: int | None = None) -> list[list[Passage]]:
        """The passages of each question, best first; of equal ones, what was found first.

        Raises:
            ModelError: The model is not here, or no cross-encoder.
        """
        k = self.top_k if top_k is None else at_least("top_k", top_k, 1)
        if not queries:
            return []
        found = self.retriever.retrieve(queries, top_k=max(self.depth, k))
        return [self._order(query, passages)[:k] for query, passages in zip(queries, found, strict=True)]

    def _order(self, query: Query, passages: Sequence[Passage]) -> list[Passage]:
        if not passages or not query.text.strip():
            return list(passages)
        scores = self._model().score(query.text, [p.text for p in passages], [p.title for p in passages])
        scored = [replace(p, score=float(score)) for p, score in zip(passages, scores, strict=True)]
        return sorted(scored, key=lambda passage: -(passage.score or 0.0))

    def _model(self) -> PairScorer:
        return models.load_pair_scorer(self.model, dtype=self.dtype, device=self.device)
