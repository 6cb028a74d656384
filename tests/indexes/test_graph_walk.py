"""The walk against the solution of its equations, and the choice against looking at everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.indexes.graph.pagerank import pagerank
from ragzip.indexes.graph.select import covering


@st.composite
def graphs(draw):
    seed, nodes = draw(st.integers(0, 10_000)), draw(st.integers(1, 30))
    rng = np.random.default_rng(seed)
    matrix = rng.random((nodes, nodes)) * (rng.random((nodes, nodes)) < draw(st.floats(0, 0.6)))
    sums = matrix.sum(axis=1, keepdims=True)
    matrix = np.divide(matrix, sums, out=matrix, where=sums > 0)
    restart = rng.random(nodes) * (rng.random(nodes) < 0.3)
    restart[rng.integers(nodes)] += 0.1
    return matrix, restart / restart.sum()


def sparse(matrix):
    owners, targets = np.nonzero(matrix)
    indptr = np.searchsorted(owners, np.arange(len(matrix) + 1))
    return indptr, targets.astype(np.int32), matrix[owners, targets].astype(np.float32)


@given(graphs(), st.sampled_from([0.0, 0.3, 0.85, 0.95]))
def test_the_walk_solves_its_equations(graph, damping):
    matrix, restart = graph
    exact = (1 - damping) * np.linalg.solve(np.eye(len(matrix)) - damping * matrix.T, restart)
    found = pagerank(*sparse(matrix), restart, damping=damping, tolerance=1e-9, hops=2000)
    np.testing.assert_allclose(found, exact, atol=1e-5)


@given(graphs(), st.sampled_from([0.5, 0.9]), st.sampled_from([1e-1, 1e-2, 1e-3]), st.integers(1, 30))
def test_it_errs_downwards_by_no_more_than_what_was_left_and_within_its_budget(graph, damping, tolerance, hops):
    matrix, restart = graph
    indptr, indices, steps = sparse(matrix)
    exact = (1 - damping) * np.linalg.solve(np.eye(len(matrix)) - damping * matrix.T, restart)
    found = pagerank(indptr, indices, steps, restart, damping=damping, tolerance=tolerance, hops=hops)
    assert (found <= exact + 1e-6).all()
    assert (found >= (1 - damping) * restart - 1e-9).all()
    # The same rule, edge by edge.
    waiting, kept, followed = restart.copy(), np.zeros(len(restart)), 0
    degrees = np.diff(indptr)
    for _ in range(hops):
        active = [node for node in range(len(restart)) if waiting[node] >= tolerance * max(degrees[node], 1)]
        if not active:
            break
        fresh = np.zeros(len(restart))
        for node in active:
            kept[node] += (1 - damping) * waiting[node]
            for edge in range(indptr[node], indptr[node + 1]):
                fresh[indices[edge]] += damping * waiting[node] * steps[edge]
                followed += 1
            waiting[node] = 0.0
        waiting += fresh
    np.testing.assert_allclose(found, kept + (1 - damping) * waiting, atol=1e-9)
    assert followed <= 1 / (tolerance * (1 - damping)) + 1e-6


@st.composite
def choices(draw):
    seed, count = draw(st.integers(0, 10_000)), draw(st.integers(1, 9))
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 4)) + draw(st.sampled_from([0.0, 1.0]))
    if draw(st.booleans()):
        vectors[rng.integers(count)] = vectors[0]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = np.clip(vectors @ vectors.T, 0, 1)
    return rng.random(count), (similarity + similarity.T) / 2


def parts(weights, similarity, chosen):
    coverage = float(weights @ similarity[list(chosen)].max(axis=0)) if chosen else 0.0
    return coverage, sum(1 - similarity[a, b] for a, b in itertools.combinations(chosen, 2))


@given(choices(), st.sampled_from([0.0, 0.05, 1.0]), st.integers(1, 6))
def test_the_choice_is_greedy_and_within_half_of_the_best(choice, diversity, k):
    weights, similarity = choice
    chosen = covering(weights, similarity, diversity, k)
    assert len(chosen) == len(set(chosen)) == min(k, len(weights))
    for size, element in enumerate(chosen):
        before = chosen[:size]

        def gain(other, before=before):
            with_it, without = parts(weights, similarity, [*before, other]), parts(weights, similarity, before)
            return (with_it[0] - without[0]) / 2 + diversity * (with_it[1] - without[1])

        others = [other for other in range(len(weights)) if other not in before]
        assert gain(element) == pytest.approx(max(map(gain, others)), abs=1e-9)
        assert covering(weights, similarity, diversity, size + 1) == chosen[: size + 1]

    def value(those):
        coverage, distances = parts(weights, similarity, those)
        return coverage + diversity * distances

    best = max(value(those) for those in itertools.combinations(range(len(weights)), len(chosen)))
    assert value(chosen) >= best / 2 - 1e-9


def test_of_equal_elements_the_first_is_chosen():
    assert covering(np.ones(4), np.ones((4, 4)), 0.5, 3) == [0, 1, 2]
    assert covering(np.zeros(3), np.eye(3), 0.0, 3) == [0, 1, 2]
