"""Nearest passages: exact where there are few, nearly so where there are many, whatever came when."""

from __future__ import annotations

import numpy as np
import pytest

from ragzip.indexes.codecs import Codec
from ragzip.indexes.graph import neighbours
from ragzip.indexes.graph.neighbours import nearest, placed
from ragzip.indexes.storage import Rows
from ragzip.indexes.vectors import Vectors, write_shard


def clustered(count: int, seed: int = 0, dimensions: int = 32) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(count // 40, 2), dimensions))
    found = centres[rng.integers(len(centres), size=count)] + 0.7 * rng.normal(size=(count, dimensions))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def stored(folder, *blocks: np.ndarray) -> Vectors:
    shards = [
        write_shard(folder, f"vectors/{number:06d}.npy", block.shape[1], len(block), [block])
        for number, block in enumerate(blocks, 1)
    ]
    return Vectors(folder, shards, Codec(Rows(), blocks[0].shape[1]))


def brute(matrix: np.ndarray, alive: np.ndarray, rows: np.ndarray, k: int) -> list[set[int]]:
    found = []
    for row in rows:
        others = alive[alive != row]
        scores = matrix[others] @ matrix[row]
        found.append(set(others[np.lexsort((others, -scores))[:k]].tolist()))
    return found


def share(found: np.ndarray, expected: list[set[int]]) -> float:
    rows = [set(row.tolist()) - {-1} for row in found]
    return float(
        np.mean([len(row & want) / len(want) if want else not row for row, want in zip(rows, expected, strict=True)])
    )


@pytest.mark.parametrize("count", [1, 2, 3, 9, 700])
def test_few_are_compared_with_all(tmp_path, count):
    matrix = clustered(count)
    vectors = stored(tmp_path, matrix)
    alive = np.arange(count)
    found, cosines = nearest(vectors, alive, placed(vectors, alive, None), alive, 5)
    assert share(found, brute(matrix, alive, alive, 5)) == 1.0
    real = found >= 0
    assert real.sum() == count * min(5, count - 1)
    owners = np.broadcast_to(alive[:, None], found.shape)
    np.testing.assert_allclose(cosines[real], np.sum(matrix[found[real]] * matrix[owners[real]], 1), atol=1e-5)
    assert (np.diff(np.where(real, cosines, -2.0), axis=1) <= 0).all()


def test_the_dead_are_nobodys_neighbours(tmp_path):
    vectors = stored(tmp_path, clustered(300))
    alive = np.arange(0, 300, 3)
    found, _ = nearest(vectors, alive, placed(vectors, alive, None), alive, 10)
    assert set(found.ravel().tolist()) <= set(alive.tolist())


def test_many_are_compared_with_those_in_cells_nearby(tmp_path):
    matrix = clustered(12_000)
    vectors = stored(tmp_path, matrix)
    alive = np.arange(len(matrix))
    cells = placed(vectors, alive, None)
    assert len(cells.centroids) == 12_000 // neighbours.CELL
    rows = alive[::37]
    found, _ = nearest(vectors, alive, cells, rows, 10)
    assert share(found, brute(matrix, alive, rows, 10)) > 0.9


def test_rows_that_come_later_go_into_the_cells_that_are_there_until_they_have_doubled(tmp_path):
    first, second, third = clustered(5000, 1), clustered(2000, 2), clustered(4000, 3)
    one = placed(stored(tmp_path / "a", first), np.arange(5000), None)
    both = stored(tmp_path / "b", first, second)
    two = placed(both, np.arange(7000), one)
    assert two.centroids is one.centroids
    assert two.trained == 5000
    assert two.of[:5000].tolist() == one.of.tolist()
    expected = np.argmax(second @ one.centroids.T, axis=1)
    assert two.of[5000:].tolist() == expected.tolist()
    three = placed(stored(tmp_path / "c", first, second, third), np.arange(11_000), two)
    assert three.trained == 11_000
    assert len(three.centroids) > len(two.centroids)
