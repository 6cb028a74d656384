import json
import shutil
from pathlib import Path

import pytest
import torch

from ragzip import models
from ragzip.errors import ModelError
from ragzip.testing.models import tiny_causal_lm


def test_says_what_it_is(tiny_lm_path):
    lm = models.load_causal_lm(tiny_lm_path, dtype="fp32")
    assert (lm.window, lm.dimensions, lm.device, lm.dtype) == (2048, 32, "cpu", "float32")
    assert lm.space == models.canonical(tiny_lm_path)
    assert not lm.model.training
    assert not any(p.requires_grad for p in lm.model.parameters())


def test_loaded_once(tiny_lm_path):
    assert models.load_causal_lm(tiny_lm_path) is models.load_causal_lm(tiny_lm_path)


def test_embeddings_are_those_of_the_model(tiny_lm_path):
    lm = models.load_causal_lm(tiny_lm_path, dtype="fp32")
    rows = lm.embed([5, 6, 7])
    assert torch.equal(rows, lm.model.get_input_embeddings().weight[5:8])
    rows += 1  # a copy: the model must not notice
    assert not torch.equal(rows, lm.model.get_input_embeddings().weight[5:8])
    assert lm.embed([]).shape == (0, 32)


def test_bf16_weights_widen_to_fp32_unchanged(tmp_path, tiny_lm_path):
    """What is stored in bf16 gives the same numbers in either width."""
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_lm_path, tmp_path / "m"))
    weights = {k: v.bfloat16() for k, v in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    wide = models.load_causal_lm(str(folder), dtype="fp32").model.state_dict()
    narrow = models.load_causal_lm(str(folder), dtype="bf16").model.state_dict()
    assert all(torch.equal(wide[k], narrow[k].float()) for k in weights)


def test_the_weights_own_taste_in_sampling_is_left_aside(tiny_lm_path, tmp_path):
    folder = Path(shutil.copytree(tiny_lm_path, tmp_path / "m"))
    path = folder / "generation_config.json"
    taste = {"do_sample": True, "temperature": 0.6, "repetition_penalty": 1.5, "eos_token_id": [2, 0]}
    path.write_text(json.dumps({**json.loads(path.read_text()), **taste}))
    config = models.load_causal_lm(str(folder)).model.generation_config
    assert config.eos_token_id == [2, 0]
    assert config.repetition_penalty in (None, 1.0)
    assert not config.do_sample


def test_an_encoder_is_no_language_model(tiny_encoder_path):
    with pytest.raises(ModelError):
        models.load_causal_lm(tiny_encoder_path)


def test_broken_configs_are_model_errors(tiny_lm_path, tmp_path):
    folder = Path(shutil.copytree(tiny_lm_path, tmp_path / "m"))
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError) as caught:
        models.load_causal_lm(str(folder))
    assert "\n" not in str(caught.value)


def test_a_changed_chat_template_is_seen(tmp_path):
    folder = tiny_causal_lm(tmp_path / "m")
    assert models.load_causal_lm(str(folder)).tokenizer.chat_template
    tiny_causal_lm(folder, chat_template=False)
    assert not models.load_causal_lm(str(folder)).tokenizer.chat_template
