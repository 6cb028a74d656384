"""Token vectors in a few bytes: what comes back is near, and nearer the more bits there are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.indexes.multi_vector.codec import BITS, _buckets, centroids_for, heaviest, train_codec
from ragzip.indexes.multi_vector.maxsim import maxsim


def clustered(n, d=24, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, d))
    found = centres[rng.integers(0, 20, n)] + 0.4 * rng.standard_normal((n, d))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def cosines(bits, vectors):
    codec = train_codec(vectors, bits=bits, centroids=32)
    codes, residuals = codec.encode(vectors)
    assert residuals.shape == (len(vectors), -(-vectors.shape[1] * bits // 8))
    back = codec.decode(codes, residuals)
    assert np.allclose(np.linalg.norm(back, axis=1), 1, atol=1e-5)
    return (back * vectors).sum(1)


def test_more_bits_come_nearer():
    vectors = clustered(4000)
    means = [float(cosines(bits, vectors).mean()) for bits in BITS]
    assert means == sorted(means)
    assert means[0] > 0.8
    assert means[2] > 0.97
    assert means[-1] > 0.999


@given(st.integers(1, 40), st.sampled_from(BITS), st.integers(1, 17))
def test_any_number_of_vectors_of_any_width(n, bits, d):
    vectors = clustered(n, d, seed=n)
    codec = train_codec(vectors, bits=bits)
    codes, residuals = codec.encode(vectors)
    back = codec.decode(codes, residuals)
    assert back.shape == vectors.shape
    assert np.isfinite(back).all()
    again = codec.encode(vectors)
    assert (again[0] == codes).all()
    assert (again[1] == residuals).all()


def test_buckets_fit_vectors_that_were_not_seen():
    """Of those that k-means saw, residuals are smaller; buckets made for these would be too narrow for others."""
    vectors = clustered(40_000, 32)
    codec = train_codec(vectors[:8000], bits=4, centroids=1000)
    error = vectors[8000:] - codec.decode(*codec.encode(vectors[8000:]))
    own = vectors[:8000] - codec.centroids[codec.encode(vectors[:8000])[0]]  # seven of eight were seen
    cuts, means = _buckets(np.sort((own @ codec.rotation).ravel()), 16)
    narrow = dataclasses.replace(codec, cuts=cuts, means=means)
    theirs = vectors[8000:] - narrow.decode(*narrow.encode(vectors[8000:]))
    assert np.square(error).mean() < 0.95 * np.square(theirs).mean()


def test_residuals_of_unlike_dimensions_are_turned_until_they_are_alike():
    rng = np.random.default_rng(3)
    wide = np.where(np.arange(32) < 4, 1.0, 0.05)
    vectors = (clustered(6000, 32) + 0.3 * rng.standard_normal((6000, 32)) * wide).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    codec = train_codec(vectors, bits=4, centroids=16)
    turn = codec.rotation
    assert np.allclose(turn @ turn.T, np.eye(32), atol=1e-5)
    residuals = vectors - codec.centroids[codec.encode(vectors)[0]]
    plain = dataclasses.replace(codec, rotation=None)
    cuts, means = _buckets(np.sort(residuals.ravel()), 16)
    plain = dataclasses.replace(plain, cuts=cuts, means=means)
    errors = [float(np.square(vectors - one.decode(*one.encode(vectors))).mean()) for one in (codec, plain)]
    assert errors[0] < errors[1]


def test_up_to_256_centroids_a_code_is_one_byte():
    vectors = clustered(4000)
    assert train_codec(vectors, bits=0, centroids=256).code_type == np.uint8
    assert train_codec(vectors, bits=0, centroids=300).code_type == np.uint16


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_more_vectors_get_no_fewer_centroids_and_many_of_them_only_where_they_are_shared(some, more):
    few, many = centroids_for(min(some, more)), centroids_for(max(some, more))
    assert 1 <= few <= many <= 16_384
    assert few.bit_count() == 1
    assert few <= max(16 * np.sqrt(min(some, more)), 1)
    assert few <= 4096 or min(some, more) / few >= 128


def test_every_packed_value_is_unpacked_where_it_was():
    vectors = clustered(500, 13)
    for bits in (1, 2, 4, 6, 8):
        codec = train_codec(vectors, bits=bits, centroids=4)
        codes, packed = codec.encode(vectors)
        residuals = vectors - codec.centroids[codes]
        expected = codec.means[np.searchsorted(codec.cuts, residuals @ codec.rotation)] @ codec.rotation.T
        expected += codec.centroids[codes]
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        assert np.allclose(codec.decode(codes, packed), expected, atol=1e-6)


@pytest.mark.parametrize("bits", BITS)
def test_no_vectors_are_none(bits):
    codec = train_codec(clustered(50, 13), bits=bits, centroids=4)
    codes, packed = codec.encode(np.zeros((0, 13), np.float32))
    for one in (codec, dataclasses.replace(codec, leading=None)) if bits != 6 else (codec,):
        for leading in (False, True):
            assert one.turned(codes, packed[:, : one.residual_bytes], leading=leading).shape == (0, 13)


@given(st.integers(1, 17), st.sampled_from([1, 2, 4, 6, 8]))
def test_leading_bits_stand_for_all_buckets_that_begin_with_them(d, bits):
    vectors = clustered(300, d, seed=d)
    codec = train_codec(vectors, bits=bits, centroids=4)
    codes, packed = codec.encode(vectors)
    residuals = codec.turn(vectors - codec.centroids[codes])
    buckets = np.searchsorted(codec.cuts, residuals)
    expected = codec.turn(codec.centroids[codes]) + codec.leading[buckets >> max(bits - 2, 0)]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(codec.turned(codes, packed, leading=True), expected, atol=1e-5)
    assert (np.diff(codec.leading) > 0).all() or d == 1
    if bits <= 2:  # they are all
        assert np.allclose(codec.turned(codes, packed), expected, atol=1e-5)


def test_leading_bits_lose_about_what_two_bits_lose():
    vectors = clustered(8000, 32)
    seen, others = vectors[:4000], vectors[4000:]
    lost = {}
    for bits in (1, 2, 4, 6, 8):
        codec = train_codec(seen, bits=bits, centroids=32)
        turned = codec.turned(*codec.encode(others), leading=True)
        lost[bits] = float(np.square(codec.turn(others) - turned).sum(1).mean())
    assert max(lost[bits] for bits in (4, 6, 8)) < 1.25 * lost[2] < 0.5 * lost[1]


def test_products_stay_when_both_sides_are_turned():
    vectors = clustered(200, 13)
    codec = train_codec(vectors, bits=4, centroids=4)
    codes, packed = codec.encode(vectors)
    assert np.allclose(
        codec.turn(vectors) @ codec.turned(codes, packed).T, vectors @ codec.decode(codes, packed).T, atol=1e-5
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_bits_that_lie_together_are_read_as_older_versions_wrote_them(bits):
    vectors = clustered(500, 13)
    codec = train_codec(vectors, bits=bits, centroids=4)
    older = dataclasses.replace(codec, leading=None)
    codes, packed = older.encode(vectors)
    per_byte = 8 // bits
    first = [int(packed[0, place // per_byte]) >> (place % per_byte * bits) & ((1 << bits) - 1) for place in range(13)]
    residual = codec.turn(vectors[:1] - codec.centroids[codes[:1]])
    assert first == np.searchsorted(codec.cuts, residual)[0].tolist()
    assert packed.shape[1] == older.residual_bytes == -(-13 * bits // 8)
    assert np.allclose(older.decode(codes, packed), codec.decode(*codec.encode(vectors)), atol=1e-6)
    assert (older.turned(codes, packed, leading=True) == older.turned(codes, packed)).all()


@given(st.lists(st.floats(0, 1, width=32), max_size=30), st.floats(0.01, 1))
def test_the_heaviest_are_kept_in_order(weights, share):
    given_weights = np.array(weights, np.float32)
    kept = heaviest(given_weights, share)
    assert (np.diff(kept) > 0).all()
    assert len(kept) == (min(max(round(share * len(weights)), 1), len(weights)) if weights else 0)
    gone = np.setdiff1d(np.arange(len(weights)), kept)
    if len(kept) and len(gone):
        assert given_weights[kept].min() >= given_weights[gone].max()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.integers(1, 4))
def test_maxsim_is_the_sum_of_the_best(counts, n):
    rng = np.random.default_rng(sum(counts))
    query, docs = rng.standard_normal((n, 6)).astype(np.float32), []
    for count in counts:
        docs.append(rng.standard_normal((count, 6)).astype(np.float32))
    found = maxsim(query, np.concatenate(docs), np.array(counts))
    for score, doc in zip(found, docs, strict=True):
        expected = sum(max(float(q @ t) for t in doc) for q in query) if len(doc) else -n
        assert score == pytest.approx(expected, abs=1e-4)
