"""Multipliers from a question's tokens, against the formulas of LexSemBridge written out with torch."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip.errors import ModelError
from ragzip.models import load_encoder
from ragzip.models.lexsem import load_bridge, word_matrix
from ragzip.models.tuned import save_tuned

CPU = {"dtype": "fp32", "device": "cpu"}
QUESTIONS = ["Which city is the capital?", "the the the", "x", "A fox, and 333!"]


@pytest.fixture(scope="module")
def encoder(tiny_encoder_path):
    return load_encoder(tiny_encoder_path, **CPU)


def tensors(width, kind, seed=0):
    draw = torch.Generator().manual_seed(seed)
    names = {"heads.out.weight": (width, width), "heads.out.bias": (width,)}
    if kind == "llr":
        names |= {"heads.into.weight": (width, width), "heads.into.bias": (1,)}
    return {name: (torch.randn(*shape, generator=draw) * 0.2).half().float() for name, shape in names.items()}


@pytest.fixture
def trained(tmp_path, encoder):
    def make(kind="slr", **changes):
        about = {"architecture": "lexsem", "kind": kind, "base_fingerprint": encoder.fingerprint, **changes}
        held = tensors(encoder.dimensions, kind)
        save_tuned(tmp_path / kind, base=encoder.name, max_tokens=128, tensors=held, **about)
        return str(tmp_path / kind), held

    return make


def inputs(encoder, texts=QUESTIONS):
    return encoder.encode_each(texts), [ids for ids, _ in encoder.tokens(texts)]


def reference(encoder, vector, ids, strength, held=None, kind="slr"):
    """One question: weights over the whole vocabulary, the linear map, the softmax, the product."""
    words = encoder._model.get_input_embeddings().weight.detach().float()
    words = words - words.mean(dim=0)
    vector = torch.tensor(vector)
    if kind == "llr":
        logits = vector @ held["heads.into.weight"] @ words.T + held["heads.into.bias"]
        weights = torch.log(1 + torch.relu(logits))
    else:
        present = torch.zeros(len(words))
        present[torch.tensor(ids)] = 1.0
        weights = torch.log(1 + present)
    lexical = weights @ words
    lexical = (lexical - lexical.mean()) / lexical.std(unbiased=False)
    if held is not None:
        lexical = lexical @ held["heads.out.weight"] + held["heads.out.bias"]
    product = torch.softmax(strength * lexical, dim=-1) * vector
    return (product / product.norm()).numpy()


@pytest.mark.parametrize("strength", [0.0, 0.2, 1.0, 5.0])
@pytest.mark.parametrize("kind", ["untrained", "slr", "llr"])
def test_the_formulas(encoder, trained, kind, strength):
    name, held = (None, None) if kind == "untrained" else trained(kind)
    vectors, tokens = inputs(encoder)
    got = load_bridge(name, encoder).modulate(vectors, tokens, strength)
    for row, (vector, ids) in enumerate(zip(vectors, tokens, strict=True)):
        np.testing.assert_allclose(got[row], reference(encoder, vector, ids, strength, held, kind), atol=2e-5)
    if strength:
        assert np.abs(got - vectors).max() > 1e-3


@settings(max_examples=30)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=5), st.floats(0, 20), st.sampled_from(["slr", "llr", None]))
def test_laws(encoder, tmp_path_factory, texts, strength, kind):
    name = None
    if kind:
        folder = tmp_path_factory.getbasetemp() / f"laws-{kind}"
        if not folder.is_dir():
            about = {"kind": kind, "base_fingerprint": encoder.fingerprint}
            held = tensors(encoder.dimensions, kind)
            save_tuned(folder, architecture="lexsem", base=encoder.name, max_tokens=128, tensors=held, **about)
        name = str(folder)
    bridge = load_bridge(name, encoder)
    vectors, tokens = inputs(encoder, texts)
    before = vectors.copy()
    factors = bridge.multipliers(vectors, tokens, strength)
    assert (factors >= 0).all()
    np.testing.assert_allclose(factors.mean(axis=1), 1, rtol=1e-4)
    got = bridge.modulate(vectors, tokens, strength)
    assert got.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors, before)
    for row in range(len(texts)):  # to the bit: nothing depends on what else is asked
        np.testing.assert_array_equal(
            bridge.modulate(vectors[row : row + 1], tokens[row : row + 1], strength)[0], got[row]
        )
        if len(tokens[row]) == 0:
            np.testing.assert_allclose(got[row], vectors[row], atol=1e-6)
    if kind is None:
        np.testing.assert_allclose(bridge.modulate(vectors, tokens, 0.0), vectors, atol=1e-6)
        twice = [np.concatenate([ids, ids[::-1]]) for ids in tokens]  # a word counts once, wherever it stands
        np.testing.assert_array_equal(bridge.modulate(vectors, twice, strength), got)


def test_weights_that_do_not_belong(encoder, trained, tmp_path, tiny_encoder_path):
    from ragzip.testing.models import tiny_encoder

    with pytest.raises(ModelError, match="not made by"):
        load_bridge(tiny_encoder_path, encoder)
    with pytest.raises(ModelError, match="not made by"):
        load_bridge(trained(architecture="dual_encoder")[0], encoder)
    with pytest.raises(ModelError, match="not made by"):
        load_bridge(trained("clr")[0], encoder)
    name, _ = trained()
    other = load_encoder(str(tiny_encoder(tmp_path / "other", seed=3)), **CPU)
    with pytest.raises(ModelError, match="was trained for"):
        load_bridge(name, other)
    config = tmp_path / "slr" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "kind": "llr"}))
    with pytest.raises(ModelError, match=r"do not fit.*into"):
        load_bridge(name, encoder)
    (tmp_path / "slr" / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ModelError, match="damaged"):
        load_bridge(name, encoder)


def test_the_word_matrix_is_made_once_and_centred(encoder):
    words = word_matrix(encoder)
    assert words is word_matrix(encoder)
    np.testing.assert_allclose(words.mean(axis=0), 0, atol=1e-6)
    assert words.shape == (encoder._model.config.vocab_size, encoder.dimensions)
