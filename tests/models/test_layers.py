"""Encoders that stop early: the vectors of the layer, under a name and a fingerprint of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ragzip.errors import ModelError, StoreMismatch
from ragzip.indexes import Index, build
from ragzip.ingest import Document
from ragzip.models import EMBEDDER, canonical, fingerprint, load_causal_lm, load_encoder
from ragzip.models.layers import first_layers

pytestmark = pytest.mark.models
TEXTS = ["The sea was calm that day.", "Ein anderer Satz", "", "numbers 1 2 3 and more of them, in a longer row"]


def test_the_vectors_are_those_of_the_layer():
    whole = load_encoder(EMBEDDER, dtype="fp32")
    seen = {}
    stack = next(m for m in whole._model.modules() if isinstance(m, torch.nn.ModuleList))
    for number, layer in enumerate(stack, start=1):
        layer.register_forward_hook(
            lambda module, given, out, n=number: seen.__setitem__(n, out[0] if isinstance(out, tuple) else out)
        )
    for layers in (2, 6):
        name = f"{EMBEDDER}#layers={layers}"
        cut = load_encoder(name, dtype="fp32")
        assert (cut.name, cut.dimensions) == (name, whole.dimensions)
        for text in TEXTS:
            whole.encode_each([text])
            pooled = seen[layers].reshape(-1, seen[layers].shape[-1]).mean(dim=0)
            expected = torch.nn.functional.normalize(pooled, dim=0).numpy()
            np.testing.assert_allclose(cut.encode_each([text])[0], expected, atol=2e-5)
    for layer in stack:
        layer._forward_hooks.clear()
    np.testing.assert_array_equal(
        load_encoder(f"{EMBEDDER}#layers=6", dtype="fp32").encode_each(TEXTS), whole.encode_each(TEXTS)
    )


def test_names_and_fingerprints():
    two, three = f"{EMBEDDER}#layers=2", f"{EMBEDDER}#layers=3"
    assert canonical(two) == two
    assert len({fingerprint(EMBEDDER), fingerprint(two), fingerprint(three)}) == 3
    assert load_encoder(two).fingerprint == fingerprint(two)
    folder = str(load_encoder(EMBEDDER).folder)
    assert fingerprint(f"{folder}#layers=2") == fingerprint(two)
    assert canonical(f"{folder}#layers=2") == f"{folder}#layers=2"


@pytest.mark.parametrize("name", ["#layers=0", "#layers=7", "#layers=", "#layers=x", "#layers", "#layers=-1"])
def test_layers_that_are_not_there(name):
    with pytest.raises(ModelError, match="layers"):
        load_encoder(EMBEDDER + name)


def test_a_model_that_stops_early_is_whole_again(tiny_lm_path):
    model = load_causal_lm(tiny_lm_path, dtype="fp32", own=True).model
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        states = model(input_ids=ids, output_hidden_states=True).hidden_states
        whole = model.base_model(input_ids=ids).last_hidden_state
        with pytest.raises(KeyboardInterrupt), first_layers(model.base_model, 1):
            early = model.base_model(input_ids=ids).last_hidden_state
            torch.testing.assert_close(early, model.base_model.norm(states[1]))
            assert not torch.allclose(early, whole)
            raise KeyboardInterrupt
        torch.testing.assert_close(model.base_model(input_ids=ids).last_hidden_state, whole, rtol=0, atol=0)
    with pytest.raises(ModelError, match="2 layers"), first_layers(model.base_model, 3, "tiny"):
        pass


def test_an_index_asks_with_the_layers_it_was_made_with(tmp_path):
    kb = tmp_path / "kb"
    given = [Document(str(n), text, "", {}) for n, text in enumerate(TEXTS) if text]
    build(given, kb, sync=True, model=f"{EMBEDDER}#layers=2", retriever="dense")
    with Index.open(kb) as index:
        assert index.model_name() == f"{EMBEDDER}#layers=2"
        index.check_model(load_encoder(index.model_name()))
        with pytest.raises(StoreMismatch, match="made with"):
            index.check_model(load_encoder(EMBEDDER))
