"""Personalised PageRank by pushing: a walk that restarts at the seeds, followed only where it still carries something.

Andersen, Chung and Lang (FOCS 2006): a node is pushed while what waits there is at least ``tolerance`` for each of its
edges. No more than ``1 / (tolerance * (1 - damping))`` edges are followed, however large the graph is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_ROUNDS = 64


def pagerank(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    steps: NDArray[np.float32],
    restart: NDArray[np.float64],
    *,
    damping: float,
    tolerance: float,
    hops: int = MOST_ROUNDS,
) -> NDArray[np.float64]:
    """How often a walk is at each node that goes on with probability ``damping``, and else starts again.

    Args:
        indptr: ``[nodes + 1]``, where the edges of each node begin.
        indices: ``[edges]``, where they lead.
        steps: ``[edges]``, probabilities that sum to 1 for each node, or to 0 for one that leads nowhere: there the
            walk ends.
        restart: ``[nodes]``, the probabilities of the starts, summing to 1.
        damping: From 0 to below 1.
        tolerance: What may be left waiting at a node for each of its edges.
        hops: Steps from the seeds that are followed, at most.

    Returns:
        ``[nodes]``: from below, with what was left waiting counted where it waited.
    """
    nodes = len(restart)
    found = np.zeros(nodes)
    waiting = restart.astype(np.float64)
    least = tolerance * np.maximum(np.diff(indptr), 1)
    for _ in range(hops):
        active = np.flatnonzero(waiting >= least)
        if len(active) == 0:
            break
        mass = waiting[active]
        found[active] += (1 - damping) * mass
        waiting[active] = 0.0
        waiting += _spread(indptr, indices, steps, active, damping * mass)
    found += (1 - damping) * waiting
    return found


def _spread(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    steps: NDArray[np.float32],
    active: NDArray[Any],
    mass: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Where the mass of these nodes goes in one step, ``[nodes]``."""
    starts = indptr[active]
    counts = indptr[active + 1] - starts
    edges = np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
    carried = np.repeat(mass, counts) * steps[edges]
    return np.bincount(indices[edges], carried, minlength=len(indptr) - 1).astype(np.float64, copy=False)
