"""Vectors to codes and back: how much is lost, and that inner products are those of what is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ragzip.errors import StoreDamaged
from ragzip.indexes import codecs
from ragzip.indexes.codecs import Codec
from ragzip.indexes.kmeans import assign, centroids_of
from ragzip.indexes.storage import parse

LINES = ["float32", "float16", "float8", "int8", "pq8", "pca12,float8", "pca12,pq4", "dims=16,float32"]
LINES += ["dims=16,pca8,int8"]
LOST = {"float32": 1e-6, "float16": 1e-3, "float8": 0.07, "int8": 0.02}
"""How far a vector may be from what is kept of it, as a share of its length."""


def vectors(count: int, width: int = 24, seed: int = 0) -> np.ndarray:
    """Unit vectors near a plane of few dimensions, as those of texts are, with a mean that is not zero."""
    plane = np.random.default_rng(9).standard_normal((13, width))
    rng = np.random.default_rng(seed)
    found = rng.standard_normal((count, 12)) @ plane[:12] + plane[12]
    found += 0.05 * rng.standard_normal((count, width))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def learned(line: str, count: int = 1200) -> Codec:
    return codecs.learn(parse(line).rows, vectors(count))


@pytest.mark.parametrize("line", LINES)
def test_codes_have_the_size_that_the_line_says(line):
    codec = learned(line)
    codes = codec.encode(vectors(7))
    assert codes.shape == (7, codec.columns)
    assert codes.dtype == codec.dtype
    assert codes.nbytes == 7 * codec.rows.bytes(24)
    assert codec.decode(codes).shape == (7, codec.width)
    assert codec.restore(codec.decode(codes)).shape == (7, 24)


@pytest.mark.parametrize("line", LINES)
def test_scores_are_inner_products_of_what_is_kept(line):
    codec = learned(line)
    codes, (query,) = codec.encode(vectors(3000, seed=1)), vectors(1, seed=2)
    expected = codec.decode(codes).astype(np.float64) @ codec.reduce(query[None])[0].astype(np.float64)
    scores = codec.scorer(query)(codes)
    np.testing.assert_allclose(scores, expected, atol=2e-6)
    # What a row scores depends on no other, and what leaves the codec goes with vectors that know nothing of it.
    np.testing.assert_array_equal(codec.scorer(query)(codes[5:6]), scores[5:6])
    if codec.rows.dims is None:
        length = np.linalg.norm(query @ codec.tensors.get("matrix", np.eye(24)))
        np.testing.assert_allclose(codec.restore(codec.decode(codes)) @ query, expected * length, atol=2e-6)


@pytest.mark.parametrize("code", LOST)
def test_little_is_lost(code):
    codec, given = learned(code), vectors(500, seed=3)
    kept = codec.decode(codec.encode(given))
    assert np.linalg.norm(kept - given, axis=1).max() <= LOST[code]


def test_float8_is_torchs():
    codec, given = learned("float8"), vectors(500, seed=3)
    step = float(codec.tensors["steps"][0])
    expected = (torch.from_numpy(given) / step).to(torch.float8_e4m3fn).float().numpy() * step
    np.testing.assert_array_equal(codec.decode(codec.encode(given)), expected)
    every = np.arange(256, dtype=np.uint8)[:, None]
    numbers = torch.from_numpy(every).view(torch.float8_e4m3fn).float().numpy()
    known = np.isfinite(numbers)
    one = Codec(parse("float8").rows, 1, {"steps": np.ones(1, np.float32)})
    np.testing.assert_array_equal(one.decode(every)[known], numbers[known])


def test_components_keep_as_much_as_any_directions_can():
    given = vectors(1200).astype(np.float64)
    codec = codecs.learn(parse("pca6,float32").rows, vectors(1200))
    matrix = codec.tensors["matrix"].astype(np.float64)
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(6), atol=1e-6)
    kept = np.square(given @ matrix).sum()
    best = np.square(np.linalg.svd(given, compute_uv=False)[:6]).sum()
    assert kept == pytest.approx(best, rel=1e-6)


def test_truncated_vectors_are_scaled_again():
    codec, given = learned("dims=16,float32"), vectors(50)
    np.testing.assert_allclose(np.linalg.norm(codec.reduce(given), axis=1), 1, atol=1e-6)
    assert not codec.reduce(np.zeros((1, 24), np.float32)).any()


def test_centroids_are_a_fixed_point_of_lloyd():
    given = vectors(2000)
    found = centroids_of(given, 4)
    assert found.shape == (4, 256, 6)
    np.testing.assert_array_equal(found, centroids_of(given, 4))
    for number in range(4):
        piece = given[:, number * 6 : number * 6 + 6].astype(np.float64)
        distances = np.square(piece[:, None] - found[number][None]).sum(axis=2)
        np.testing.assert_allclose(
            np.take_along_axis(distances, assign(given, found)[:, number : number + 1].astype(int), 1)[:, 0],
            distances.min(axis=1),
            atol=1e-5,
        )
        random = np.square(piece[:, None] - piece[None, ::8][:, :250]).sum(axis=2).min(axis=1)
        assert distances.min(axis=1).mean() < 0.8 * random.mean()


def test_duplicates_are_no_obstacle():
    same = np.repeat(vectors(3), 400, axis=0)
    for line in LINES:
        codec = codecs.learn(parse(line).rows, same)
        kept = codec.decode(codec.encode(same))
        assert np.isfinite(kept).all(), line
        assert len(np.unique(kept, axis=0)) <= 3, line
    zeros = np.zeros((1000, 24), np.float32)
    for line in LINES:
        codec = codecs.learn(parse(line).rows, zeros)
        assert not codec.decode(codec.encode(zeros)).any(), line


@settings(deadline=None, max_examples=30)
@given(arrays.arrays(np.float32, (3, 24), elements=st.floats(-(2.0**90), 2.0**90, width=32)))
def test_whatever_comes_later_stays_finite(given):
    """A vector far from those that the codec was learned from becomes the greatest there is, and no infinity."""
    for line in ("float16", "float8", "int8"):
        codec = Codec(parse(line).rows, 24, {} if line == "float16" else {"steps": np.full(1, 0.01, np.float32)})
        kept = codec.decode(codec.encode(given))
        assert np.isfinite(kept).all()
        assert (np.sign(kept) * np.sign(given) >= 0).all()


@pytest.mark.parametrize("line", LINES)
def test_a_codec_comes_back_from_its_file(tmp_path, line):
    codec = learned(line)
    entry = codec.save(tmp_path, "codec-000001.safetensors")
    again = codecs.load(tmp_path, entry, codec.rows, 24)
    np.testing.assert_array_equal(again.encode(vectors(9)), codec.encode(vectors(9)))
    for other, width in (("pca3,float8", 24), (line, 23)):
        with pytest.raises(StoreDamaged, match=r"codec-000001.*--rebuild"):
            codecs.load(tmp_path, entry, parse(other).rows, width)
    path = tmp_path / entry.name
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(StoreDamaged, match="codec-000001"):
        codecs.load(tmp_path, entry, codec.rows, 24)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        codecs.load(tmp_path, entry, codec.rows, 24)


@given(st.integers(1, 230), st.integers(0, 229), st.sampled_from([(16, 8), (8, 16), (40, 12), (192, 384)]))
def test_a_product_does_not_depend_on_the_rows_beside_it(n, at, shape):
    rng = np.random.default_rng(n)
    vectors = rng.standard_normal((n, shape[0])).astype(np.float32)
    matrix = rng.standard_normal(shape[::-1]).astype(np.float32).T
    whole = codecs._product(vectors, matrix)
    assert np.allclose(whole, vectors @ matrix, atol=1e-4)
    at %= n
    assert (codecs._product(vectors[at : at + 1], matrix) == whole[at]).all()
    assert (codecs._product(vectors[at:], matrix) == whole[at:]).all()
