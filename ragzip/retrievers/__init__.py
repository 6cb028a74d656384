"""Retrievers: a question in, scored passages out. Importing this loads nothing; searching does."""

from ragzip.retrievers.bm25 import BM25
from ragzip.retrievers.choose import for_index
from ragzip.retrievers.dense import Dense
from ragzip.retrievers.fusion import Fusion
from ragzip.retrievers.graph import Graph
from ragzip.retrievers.jpq import JPQ
from ragzip.retrievers.lexsem import LexSem
from ragzip.retrievers.multi_vector import MultiVector
from ragzip.retrievers.oracle import Oracle

__all__ = [
    "BM25",
    "JPQ",
    "Dense",
    "Fusion",
    "Graph",
    "LexSem",
    "MultiVector",
    "Oracle",
    "for_index",
]
