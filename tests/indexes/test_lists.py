"""Inverted lists over centroids: what they find is what brute force finds with the same lists looked into."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip.errors import StoreDamaged
from ragzip.indexes.multi_vector import lists as module
from ragzip.indexes.multi_vector.codec import Codec
from ragzip.indexes.multi_vector.lists import Lists, build
from ragzip.indexes.multi_vector.tokens import Batch, Tokens, write_array, write_batch

CENTROIDS = 12


def tokens_of(root, counts, seed, centroids=CENTROIDS):
    """Codes at random, of so many tokens a row, in two batches."""
    draw = np.random.default_rng(seed)
    codec = Codec(draw.standard_normal((centroids, 4)).astype(np.float32), np.zeros(0), np.zeros(1, np.float32), 0)
    batches = []
    for number, part in enumerate(np.array_split(np.array(counts, np.int32), 2)):
        codes = draw.integers(0, centroids, part.sum()).astype(np.uint8)
        nothing = (
            np.zeros((len(codes), 0), np.uint8),
            np.zeros((len(part), 2), np.int8),
            np.zeros(len(part), np.float32),
        )
        write_batch(root, f"{number}_", Batch(part, codes, *nothing))
        batches.append([f"{number}_", len(part)])
    return Tokens(root, batches, codec, len(counts))


def gains(tokens, row, products, probed):
    """By definition: for each of the question's tokens the row's best centroid, if it is among those looked into."""
    codes, _ = tokens.codes(np.array([row]))
    total = 0.0
    for token in products:
        order = np.sort(token)[::-1]
        least = order[probed] if probed < len(order) else -1.0
        total += max([0.0, *(float(token[code] - least) for code in codes)])
    return total


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=14),
    st.integers(0, 10**6),
    st.integers(1, CENTROIDS + 2),
    st.integers(1, 6),
    st.sampled_from([1, 3, 4096]),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_they_find_what_brute_force_finds(tmp_path_factory, counts, seed, probed, k, block, alive, some):
    root = tmp_path_factory.mktemp("lists")
    tokens = tokens_of(root, counts, seed)
    indexed = np.arange(len(counts))[::alive]
    asked = indexed[::some]
    products = np.random.default_rng(seed + 1).uniform(-0.9, 1, (3, CENTROIDS)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        patch.setattr(module, "_PROBED", probed)
        files = build(root, "lists", tokens, indexed)
        found = Lists(root, files, indexed, CENTROIDS).search(products, k, asked)
    expected = {row: gains(tokens, row, products, probed) for row in asked.tolist()}
    assert (np.diff(found) > 0).all()
    assert set(found.tolist()) <= {row for row, gain in expected.items() if gain > 0}
    assert len(found) == min(k, sum(gain > 0 for gain in expected.values()))
    least = min((expected[row] for row in found.tolist()), default=0.0)
    assert all(gain <= least + 1e-5 for row, gain in expected.items() if row not in found)


def test_every_row_is_once_in_the_lists_of_its_centroids(tmp_path):
    tokens = tokens_of(tmp_path, [3, 0, 9, 40, 1, 7], 5)
    rows = np.array([0, 1, 3, 5])
    ends_file, places_file = build(tmp_path, "lists", tokens, rows)
    ends, places = np.load(tmp_path / ends_file.name), np.load(tmp_path / places_file.name)
    starts = np.concatenate([[0], ends[:-1]])
    for centroid, (start, end) in enumerate(zip(starts, ends, strict=True)):
        expected = [place for place, row in enumerate(rows) if centroid in tokens.codes(np.array([row]))[0]]
        assert places[start:end].tolist() == expected


def test_rows_without_a_token_have_lists_without_an_entry(tmp_path):
    rows = np.arange(4)
    files = build(tmp_path, "lists", tokens_of(tmp_path, [0, 0, 0, 0], 0), rows)
    assert not len(Lists(tmp_path, files, rows, CENTROIDS).search(np.ones((2, CENTROIDS), np.float32), 3, rows))


def test_files_of_something_else_are_named(tmp_path):
    rows = np.arange(3)
    files = build(tmp_path, "lists", tokens_of(tmp_path, [2, 2, 2], 0), rows)
    with pytest.raises(StoreDamaged, match=r"lists\.npy.*not the lists"):
        Lists(tmp_path, files, rows, CENTROIDS + 1)
    odd = [
        write_array(tmp_path, f"odd{n}.npy", values) for n, values in enumerate((np.zeros(12), np.zeros(3, np.int8)))
    ]
    for ends, places in itertools.product((files[0], odd[0]), (files[1], odd[1])):
        if (ends, places) != files:
            with pytest.raises(StoreDamaged, match="not the lists"):
                Lists(tmp_path, (ends, places), rows, CENTROIDS)


def test_as_many_other_rows_are_other_rows(tmp_path):
    indexed = np.arange(6)
    tokens = tokens_of(tmp_path, [3] * 6, 0)
    lists = Lists(tmp_path, build(tmp_path, "lists", tokens, indexed), indexed, CENTROIDS)
    products = np.random.default_rng(1).uniform(-0.9, 1, (3, CENTROIDS)).astype(np.float32)
    now = np.array([0, 1, 2, 4, 5, 9])  # 3 went, 9 came
    assert 3 in lists.search(products, 6, indexed)
    assert set(lists.search(products, 6, now).tolist()) <= {0, 1, 2, 4, 5}
