"""Which models have a rotary embedding that can be taken back: tried, not read from names."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import transformers

from ragzip.errors import ModelError
from ragzip.generators.huggingface import HuggingFace
from ragzip.kv.expected_attention import ExpectedAttention
from ragzip.kv.precomputed import PrecomputedKV
from ragzip.kv.rotary import check_rotary
from ragzip.kv.snapkv import SnapKV
from ragzip.models import load_causal_lm
from ragzip.types import Message, TextSegment

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}
USUAL = {
    "Llama": {},
    "Qwen3": {},
    "Llama, YaRN": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
}
OTHERS = {"SmolLM3": {"pad_token_id": 0}, "Cohere": {}, "Gemma3Text": {}}


def made(lm, name, more):
    """The tiny model's tokenizer with a random model of another architecture."""
    kind = name.partition(",")[0]
    config = getattr(transformers, f"{kind}Config")(**SIZES, **more, vocab_size=lm.model.config.vocab_size)
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind.removesuffix('Text')}ForCausalLM")(config).eval()
    return dataclasses.replace(lm, model=model, name=name)


@pytest.fixture
def lm(tiny_lm_path):
    return load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu")


@pytest.mark.parametrize("name", USUAL)
def test_halves_that_turn_in_every_layer_are_usual(lm, name):
    check_rotary(made(lm, name, USUAL[name]), "x")


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_refused_by_name(lm, name):
    with pytest.raises(ModelError, match=f"rotary embedding of '{name}' is of another kind than x can turn"):
        check_rotary(made(lm, name, OTHERS[name]), "x")


@pytest.mark.parametrize("method", [PrecomputedKV(), ExpectedAttention(), SnapKV()])
@pytest.mark.parametrize("name", ["Cohere", "SmolLM3"])
def test_methods_that_turn_keys_ask_first(tiny_lm_path, lm, monkeypatch, method, name):
    other = made(lm, name, OTHERS[name])
    monkeypatch.setattr("ragzip.generators.huggingface.HuggingFace.load", lambda self: other)
    generator = HuggingFace(model=tiny_lm_path, dtype="fp32", device="cpu", max_new_tokens=1, kv=(method,))
    turn = [Message("user", ("Read this:\n", TextSegment("Alba is a town. Goats live there."), "\nWhat lives there?"))]
    if isinstance(method, SnapKV):
        assert generator.generate([turn])[0].new_tokens == 1
    else:
        with pytest.raises(ModelError, match=f"rotary embedding of '{name}'"):
            generator.generate([turn])
