"""Local models that differ from most: padding without an embedding, places that are counted from the cache."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from ragzip.errors import ModelError
from ragzip.generators.huggingface import HuggingFace
from ragzip.kv.quantized import QuantizedKV
from ragzip.kv.streaming_llm import StreamingLLM
from ragzip.models import load_causal_lm
from ragzip.models.decode import heeds_masks, takes_places
from ragzip.types import Message

PROMPTS = [
    [Message("user", (text,))] for text in ("Who?", "Where is the tall tower of the old town?", "Why not there?")
]


def answers(folder, batch, **options):
    made = HuggingFace(str(folder), dtype="fp32", device="cpu", max_new_tokens=6, batch_size=batch, **options)
    return [answer.text for answer in made.generate(PROMPTS)]


def test_padding_that_has_no_embedding_is_padded_with_something_else(tiny_lm_path, tmp_path):
    folder = tmp_path / "lm"
    shutil.copytree(tiny_lm_path, folder)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    rows = load_causal_lm(str(folder), dtype="fp32", device="cpu").model.get_input_embeddings().weight.shape[0]
    added = {"id": rows, "content": "<pad>", "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    tokenizer["added_tokens"].append({**added, **flags})
    path.write_text(json.dumps(tokenizer))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": "<pad>"}))
    lm = load_causal_lm(str(folder), dtype="fp32", device="cpu")
    assert lm.tokenizer.pad_token_id >= lm.model.get_input_embeddings().weight.shape[0]
    assert answers(folder, 3) == answers(folder, 1) == answers(tiny_lm_path, 1)


@pytest.fixture(scope="module")
def bart(tiny_lm_path, tmp_path_factory):
    """A decoder that counts places by what its cache holds."""
    from transformers import BartConfig, BartForCausalLM

    folder = tmp_path_factory.mktemp("bart")
    shutil.copytree(tiny_lm_path, folder, dirs_exist_ok=True)
    lm = load_causal_lm(str(tiny_lm_path), dtype="fp32", device="cpu")
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=lm.model.get_input_embeddings().weight.shape[0],
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=512,
        init_std=0.5,
        is_decoder=True,
        is_encoder_decoder=False,
        forced_eos_token_id=None,
    )
    BartForCausalLM(config).save_pretrained(folder)
    return folder


def test_one_that_counts_places_itself_answers_in_batches_as_alone(bart):
    lm = load_causal_lm(str(bart), dtype="fp32", device="cpu")
    assert not takes_places(lm)
    assert not heeds_masks(lm)
    assert answers(bart, 3) == answers(bart, 1)


def test_one_that_counts_places_itself_loses_none_of_its_cache(bart):
    with pytest.raises(ModelError, match="counts the places of tokens by what its cache holds"):
        answers(bart, 1, kv=(StreamingLLM(budget=16),))
    assert len(answers(bart, 1, kv=(QuantizedKV(),))) == len(PROMPTS)


def test_most_models_are_told_the_places(tiny_lm_path):
    assert takes_places(load_causal_lm(str(tiny_lm_path), dtype="fp32", device="cpu"))
