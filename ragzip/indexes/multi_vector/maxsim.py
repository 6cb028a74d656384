"""MaxSim: for each vector of the query the largest product with one of the document, added up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]


def maxsim(query: Matrix, vectors: Matrix, counts: NDArray[np.int64]) -> Matrix:
    """Scores of documents.

    Args:
        query: ``[n, dimensions]``, of length 1 each.
        vectors: ``[tokens, dimensions]`` of all documents, one after the other.
        counts: ``[documents]``: how many of these each has.

    Returns:
        ``[documents]`` float32, from -n to n; of a document without vectors, -n.
    """
    return best_of(query @ vectors.T, counts)


def best_of(products: Matrix, counts: NDArray[np.int64]) -> Matrix:
    """The same from products ``[n, tokens]`` of the query's vectors with those of the documents."""
    scores = np.full(len(counts), -float(len(products)), np.float32)
    some = np.flatnonzero(counts)
    if len(some) and len(products):
        starts = (np.cumsum(counts) - counts)[some]
        scores[some] = np.maximum.reduceat(products, starts, axis=1).sum(0)
    return scores
