"""Fixed dimensional encodings against their definition, written out token by token."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.errors import ConfigError
from ragzip.indexes.multi_vector.fde import FDE, FDERecipe
from ragzip.indexes.multi_vector.maxsim import maxsim


def unit(rng, n, d):
    found = rng.standard_normal((n, d)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def gray(bits) -> int:
    """As the reference appends bits."""
    code = 0
    for bit in bits:
        code = (code << 1) + (int(bit) ^ (code & 1))
    return code


def defined(fde: FDE, cloud, *, document: bool):
    """The reference's loops, in double precision."""
    recipe, out = fde.recipe, []
    for repetition in range(recipe.repetitions):
        planes = fde.matrices["planes"][:, repetition * recipe.planes : (repetition + 1) * recipe.planes]
        signs = [[float(np.float32(p)) > 0 for p in token @ planes] for token in cloud]
        width = recipe.projection or recipe.dimensions
        vectors = []
        for token in cloud.astype(float):
            if not recipe.projection:
                vectors.append(token)
                continue
            one = np.zeros(width)
            for value, column in zip(token, fde.matrices["sketch"][repetition], strict=True):
                one[abs(column) - 1] += value if column > 0 else -value
            vectors.append(one)
        for partition in range(1 << recipe.planes):
            block, inside = np.zeros(width), [n for n, s in enumerate(signs) if gray(s) == partition]
            for number in inside:
                block += vectors[number]
            if document and inside:
                block /= len(inside)
            elif document and len(cloud):
                binary = partition ^ (partition >> 1)
                wanted = [bool(binary >> place & 1) for place in reversed(range(recipe.planes))]
                distances = [sum(a != b for a, b in zip(s, wanted, strict=True)) for s in signs]
                block = vectors[int(np.argmin(distances))].copy()
            out.append(block)
    found = np.concatenate(out)
    if not recipe.width:
        return found
    narrow = np.zeros(recipe.width)
    for value, column in zip(found, fde.matrices["final"], strict=True):
        narrow[abs(column) - 1] += value if column > 0 else -value
    return narrow


recipes = st.builds(
    FDERecipe,
    dimensions=st.integers(3, 9),
    repetitions=st.integers(1, 4),
    planes=st.integers(0, 5),
    projection=st.integers(0, 3),
    width=st.sampled_from([0, 7, 64]),
    seed=st.integers(0, 9),
)


@given(recipes, st.integers(1, 12), st.integers(0, 1000))
def test_it_is_what_the_reference_defines(recipe, tokens, seed):
    fde, cloud = FDE(recipe), unit(np.random.default_rng(seed), tokens, recipe.dimensions)
    assert np.allclose(fde.documents([cloud])[0], defined(fde, cloud, document=True), atol=1e-5)
    assert np.allclose(fde.queries([cloud])[0], defined(fde, cloud, document=False), atol=1e-5)


@given(recipes, st.lists(st.integers(0, 9), min_size=1, max_size=90), st.data())
def test_the_bits_are_the_same_in_any_batch(recipe, sizes, data):
    rng, fde = np.random.default_rng(3), FDE(recipe)
    clouds = [
        unit(rng, size, recipe.dimensions) if size else np.zeros((0, recipe.dimensions), np.float32) for size in sizes
    ]
    for encode in (fde.documents, fde.queries):
        whole = encode(clouds)
        cut = data.draw(st.integers(0, len(clouds)))
        assert np.concatenate([encode(clouds[:cut]), encode(clouds[cut:])]).tobytes() == whole.tobytes()
        one = data.draw(st.integers(0, len(clouds) - 1))
        assert encode([clouds[one]]).tobytes() == whole[one].tobytes()


def test_the_bits_are_the_same_in_any_batch_at_real_sizes():
    rng, fde = np.random.default_rng(4), FDE(FDERecipe(96, width=2560))
    clouds = [unit(rng, int(size), 96) for size in rng.integers(1, 180, 150)]
    whole = fde.documents(clouds)
    alone = np.concatenate([fde.documents([cloud]) for cloud in clouds])
    backwards = fde.documents(clouds[::-1])[::-1]
    assert whole.tobytes() == alone.tobytes() == np.ascontiguousarray(backwards).tobytes()


def test_nothing_is_encoded_as_nothing():
    fde = FDE(FDERecipe(16))
    assert not fde.documents([np.zeros((0, 16), np.float32)]).any()
    assert fde.documents([]).shape == (0, fde.recipe.final_width)


def test_stored_matrices_make_the_same_encodings():
    fde = FDE(FDERecipe(16, width=32, seed=5))
    cloud = unit(np.random.default_rng(0), 5, 16)
    again = FDE(fde.recipe, fde.matrices)
    assert again.documents([cloud]).tobytes() == fde.documents([cloud]).tobytes()
    with pytest.raises(ValueError, match="columns that are not there"):
        FDE(FDERecipe(16, width=16), fde.matrices)
    with pytest.raises(ValueError, match="not those of the recipe"):
        FDE(FDERecipe(16, width=32, planes=4), fde.matrices)


def test_one_token_scores_its_own_cosines_where_space_is_not_cut():
    fde = FDE(FDERecipe(16, repetitions=1, planes=0, projection=0))
    rng = np.random.default_rng(1)
    query, other = unit(rng, 1, 16), unit(rng, 1, 16)
    assert float(fde.queries([query])[0] @ fde.documents([other])[0]) == pytest.approx(
        float(query[0] @ other[0]), abs=1e-6
    )


def test_on_clustered_vectors_it_finds_the_best_by_maxsim_and_beats_the_mean():
    rng = np.random.default_rng(7)
    topics = unit(rng, 60, 64)

    def text(tokens, themes):
        mixed = topics[rng.choice(themes, tokens)] + 0.7 * unit(rng, tokens, 64)
        return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)

    docs = [text(40, rng.choice(60, 4, replace=False)) for _ in range(400)]
    queries = [text(12, rng.choice(60, 3, replace=False)) for _ in range(20)]
    counts = np.full(len(docs), 40)
    best = [np.argsort(-maxsim(query, np.concatenate(docs), counts))[:10] for query in queries]

    def found(recipe):
        fde = FDE(recipe)
        scores = fde.queries(queries) @ fde.documents(docs).T
        chosen = np.argsort(-scores, axis=1)[:, :50]
        return np.mean([np.isin(mine, some).mean() for mine, some in zip(best, chosen, strict=True)])

    mean = found(FDERecipe(64, repetitions=1, planes=0, projection=0))
    whole = found(FDERecipe(64, planes=5, projection=16))
    assert whole > 0.9
    assert whole > mean
    assert found(FDERecipe(64, planes=4, projection=16, width=2560)) > 0.85


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 8, "planes": 13}, "planes"),
        ({"dimensions": 8, "projection": 9}, "projection"),
        ({"dimensions": 8, "repetitions": True}, "repetitions"),
        ({"dimensions": 16, "width": -1}, "width"),
    ],
)
def test_recipes_that_cannot_be(options, match):
    with pytest.raises(ConfigError, match=match):
        FDERecipe(**options)


def test_a_cloud_of_another_width_is_refused():
    with pytest.raises(ValueError, match="not \\[n, 16\\]"):
        FDE(FDERecipe(16)).documents([np.zeros((2, 7), np.float32)])
