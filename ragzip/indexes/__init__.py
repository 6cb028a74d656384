"""What is on disk: passages in SQLite, vectors in shards, a FAISS and a BM25 index, and one manifest.

::

    kb/
      manifest.json          replacing it is the commit
      passages-000001.sqlite documents and passages, with the commits that added and removed them
      vectors/000002.npy     float32, one shard a commit, never changed
      faiss-000003.index     over the vectors alive
      bm25-000004/           as bm25s saves it
      part-graph-000005/     what one retriever needs beside these
      write.lock             held by the one writer

``build``, ``remove`` and ``repair`` write, ``open_cached`` and ``Index.open`` read, ``info`` and ``verify`` look.
"""

from ragzip.indexes.build import build, remove, store_as
from ragzip.indexes.cache import open_cached, using
from ragzip.indexes.from_paths import build_index
from ragzip.indexes.index import Index
from ragzip.indexes.inspect import IndexInfo, Problem, info, verify
from ragzip.indexes.manifest import StoreMoved
from ragzip.indexes.ranking import Hits
from ragzip.indexes.repair import RepairReport, repair
from ragzip.indexes.report import BuildReport
from ragzip.indexes.table import IndexedDocument
from ragzip.indexes.text import searched_text
from ragzip.indexes.weight import lacking

__all__ = [
    "BuildReport",
    "Hits",
    "Index",
    "IndexInfo",
    "IndexedDocument",
    "Problem",
    "RepairReport",
    "StoreMoved",
    "build",
    "build_index",
    "info",
    "lacking",
    "open_cached",
    "remove",
    "repair",
    "searched_text",
    "store_as",
    "using",
    "verify",
]
