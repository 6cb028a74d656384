"""The retriever that an index was made for."""

from __future__ import annotations

from pathlib import Path

from ragzip.errors import ConfigError
from ragzip.retrievers.bm25 import BM25
from ragzip.retrievers.dense import Dense
from ragzip.retrievers.fusion import Fusion


def for_index(
    path: str | Path, top_k: int = 20, filters: tuple[str, ...] = (), kind: str | None = None
) -> Dense | BM25 | Fusion:
    """The retriever that an index's manifest names; reads the manifest and nothing else.

    Args:
        path: The index folder.
        top_k: How many passages at most.
        filters: Metadata filters.
        kind: Another than the manifest's: ``dense``, ``bm25`` or ``fusion``.

    Raises:
        ConfigError: No such kind.
        StoreError: The index cannot be opened.
        StoreMismatch: The kind needs vectors, and the index has none.
    """
    from ragzip.indexes import open_cached

    if kind not in (None, "dense", "bm25", "fusion"):
        raise ConfigError("retriever", f"no retriever {kind!r} for an index", hint="Choose dense, bm25 or fusion.")
    opened = open_cached(path)
    index, kind = str(path), kind or opened.manifest.retriever
    if kind == "bm25":
        return BM25(index, top_k, filters)
    opened.model_name()
    dense = Dense(index, top_k, filters)
    return dense if kind == "dense" else Fusion((dense, BM25(index, top_k, filters)), top_k=top_k)
