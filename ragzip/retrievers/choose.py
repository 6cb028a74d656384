"""The retriever that an index was made for."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from ragzip.errors import ConfigError
from ragzip.protocols import Retriever
from ragzip.retrievers.bm25 import BM25
from ragzip.retrievers.dense import Dense
from ragzip.retrievers.fusion import Fusion
from ragzip.retrievers.graph import Graph
from ragzip.retrievers.jpq import JPQ
from ragzip.retrievers.lexsem import LexSem
from ragzip.retrievers.multi_vector import MultiVector

_LEXSEM = "lexsem"  # searches any index that has vectors; none is made for it
_DENSE, _WORDS = 0.6, 0.4  # weights of vectors and of words, chosen on training questions


def for_index(path: str | Path, top_k: int = 20, filters: tuple[str, ...] = (), kind: str | None = None) -> Retriever:
    """The retriever that an index's manifest names; reads the manifest and nothing else.

    Args:
        path: The index folder.
        top_k: How many passages at most.
        filters: Metadata filters.
        kind: Another than the manifest's: ``dense``, ``bm25``, ``lexsem``, ``fusion``, ``multi_vector``, ``graph`` or
            ``jpq``.

    Raises:
        ConfigError: No such kind.
        StoreError: The index cannot be opened.
        StoreMismatch: The kind needs what the index was made without.
    """
    from ragzip.indexes import open_cached
    from ragzip.indexes.manifest import PARTS, Retrieval

    known = (*get_args(Retrieval), _LEXSEM)
    if kind is not None and kind not in known:
        raise ConfigError("retriever", f"no retriever {kind!r} for an index", hint=f"Choose one of {', '.join(known)}.")
    opened = open_cached(path)
    index, kind = str(path), kind or opened.manifest.retriever
    if kind == "bm25":
        return BM25(index, top_k, filters)
    if kind in PARTS and len(opened):
        opened.part(kind)
    if kind == "multi_vector":
        return MultiVector(index, top_k, filters=filters)
    if kind == "graph":
        return Graph(index, top_k, filters)
    if kind == "jpq":
        return JPQ(index, top_k, filters=filters)
    opened.model_name()
    if kind == _LEXSEM:
        return LexSem(index, top_k, filters)
    dense = Dense(index, top_k, filters)
    if kind == "dense":
        return dense
    both = (dense, BM25(index, top_k, filters))
    return Fusion(both, top_k=top_k, weights=(_DENSE, _WORDS), normalize="minmax")
