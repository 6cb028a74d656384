"""Rerank: the passages of another retriever, in the order of a model that reads question and passage together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ragzip import models
from ragzip.errors import ConfigError, ModelError
from ragzip.indexes import looks
from ragzip.models import Dtype, check_options
from ragzip.models.pruner import Seen
from ragzip.models.shipped import PROVENCE
from ragzip.protocols import Retriever, runtime_field
from ragzip.registry import name_of
from ragzip.retrievers.options import at_least
from ragzip.text import sentences
from ragzip.types import Passage, Query

if TYPE_CHECKING:
    from ragzip.models import Pruner


@dataclass(frozen=True)
class Rerank:
    """Orders the first passages of a retriever by their relevance, from 0 to 1, which becomes their score.

    The model is that of the compressor ``provence`` (https://arxiv.org/abs/2501.16214), which judges a passage in the
    same pass in which it marks its sentences. All passages of a question are read together, those of another question
    apart, so that a ranking does not depend on what else is asked. Long passages are read in windows, of which the
    most relevant counts. An empty question leaves passages, order and scores as they were found. In a pipeline,
    ``provence`` with the same model reads nothing again that was read here.

    Attributes:
        retriever: Whose passages are ordered.
        model: ragzip's own weights, a folder made by ``ragzip train provence``, or a published checkpoint of
            Provence or OpenProvence, as a folder or hub id.
        depth: How many passages the retriever is asked for, or ``top_k`` where that is more.
        top_k: How many passages at most.
        dtype: ``auto`` (bf16 where that is much faster, else fp32), ``fp32``, ``bf16`` or ``fp16``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``xpu``.
        hops: How often passages are read: from the second time on, for questions of several steps, the question
            together with the best sentence found before, and the ten passages that have most words in common with
            both. The highest relevance counts. None is as often as the model was trained for, as in ``provence``.
    """

    retriever: Retriever
    model: str = PROVENCE
    depth: int = 50
    top_k: int = 20
    dtype: Dtype = "auto"
    device: str = "auto"
    hops: int | None = None
    seen: Seen | None = runtime_field()

    def __post_init__(self) -> None:
        if not isinstance(self.retriever, Retriever):
            raise ConfigError("retriever", f"must be a retriever, not {self.retriever!r}", hint="As dense or bm25.")
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError("model", f"must be the name or folder of a model, not {self.model!r}")
        at_least("depth", self.depth, 1)
        at_least("top_k", self.top_k, 1)
        if self.hops is not None:
            at_least("hops", self.hops, 1)
        check_options(self.dtype, self.device)

    def load(self) -> Pruner:
        """Loads the model now, and what the retriever needs, where it can say so."""
        load = getattr(self.retriever, "load", None)
        if callable(load):
            load()
        return self._model()

    def retrieve(self, queries: Sequence[Query], *, top_k: int | None = None) -> list[list[Passage]]:
        """The passages of each question, most relevant first; of equal ones, what was found first.

        Raises:
            ModelError: The model is not here.
        """
        k = self.top_k if top_k is None else at_least("top_k", top_k, 1)
        if not queries:
            return []
        found = self.retriever.retrieve(queries, top_k=max(self.depth, k))
        return [self._order(query, passages)[:k] for query, passages in zip(queries, found, strict=True)]

    def fuse(self, following: Any) -> tuple[Rerank, Any] | None:
        """This retriever and the compressor ``provence`` with the same model as they share what it reads; else None.

        What is shared is known by the model's inputs, token for token: scores are those of two passes over them.
        """
        same = name_of(following) == "provence" and all(
            getattr(following, option) == getattr(self, option) for option in ("model", "dtype", "device")
        )
        if not same:
            return None
        seen: Seen = {}
        return replace(self, seen=seen), replace(following, seen=seen)

    def _order(self, query: Query, passages: Sequence[Passage]) -> list[Passage]:
        if not passages or not query.text.strip():
            return list(passages)
        model = self._model()
        hops = model.hops if self.hops is None else self.hops
        given = [looks.Read(p.text, p.title, tuple(sentences(p.text)) if hops > 1 else (), p.id) for p in passages]
        judged = looks.judge(model, query.text, given, hops=hops, seen=self.seen)
        if any(math.isnan(one.relevance) for one in judged):
            raise ModelError(
                f"{self.model}: gave a score that is no number", hint="Check the model, or use dtype fp32."
            )
        scored = [replace(p, score=one.relevance) for p, one in zip(passages, judged, strict=True)]
        return sorted(scored, key=lambda passage: -(passage.score or 0.0))

    def _model(self) -> Pruner:
        return models.load_pruner(self.model, dtype=self.dtype, device=self.device)
