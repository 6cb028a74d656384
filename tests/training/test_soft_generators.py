"""What a training does with its generator: its window, its layers, and those who hold it besides."""

from __future__ import annotations

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import transformers

from ragzip.errors import ModelError, RagzipError
from ragzip.models import load_causal_lm
from ragzip.testing.models import tiny_causal_lm
from ragzip.training.low_rank import Adaptable, LowRank
from ragzip.training.soft_data import SoftData, Telling
from ragzip.training.soft_fit import fitting
from ragzip.training.soft_prompts import SAME, TELL, Frames
from tests.training import data
from tests.training.test_soft_training import toy


@pytest.mark.parametrize("method", ["comp_llm", "icae"])
def test_the_generator_that_others_hold_is_not_trained_on(method, tiny_lm_path, small_data, tmp_path):
    lm = load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu")

    def read(_=None):
        with torch.inference_mode():
            return lm.model(input_ids=torch.tensor([[3, 5, 7]])).logits

    before, seen = read(), []
    toy(method, "", tiny_lm_path).run(tmp_path, data=small_data, on_event=lambda event: seen.append(read()))
    assert len(seen) > 4
    assert all(torch.equal(before, found) for found in seen)


def test_a_checkpoint_belongs_to_its_generator(tiny_lm_path, small_data, tmp_path):
    shutil.copytree(tiny_lm_path, tmp_path / "lm")
    trainer = toy("icae", "", str(tmp_path / "lm"), checkpoint_every=2)

    def interrupt(event):
        if event.kind == "step" and event.step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(tmp_path / "out", data=small_data, on_event=interrupt)
    tiny_causal_lm(tmp_path / "lm", seed=7)
    with pytest.raises(RagzipError, match="other"):
        trainer.run(tmp_path / "out", data=small_data)


def test_what_fits_does_so_however_it_is_asked(tmp_path):
    tiny_causal_lm(tmp_path / "lm", window=700)
    lm = load_causal_lm(str(tmp_path / "lm"), dtype="fp32", device="cpu")
    writer = SimpleNamespace(rates=(4.0,), counts=lambda texts, rate: [len(told.text) // 5 for told in texts])
    texts = tuple(Telling("word " * count, "") for count in range(100, 150))
    kept, left = fitting(SoftData(texts, (), (), ()), lm, writer, 2)
    assert 0 < left == 50 - len(kept.tellings) < 50
    for one in kept.tellings:
        for request in (*TELL, *SAME):
            Frames(lm).telling(one, len(one.text) // 5, request)


def test_a_window_that_nothing_fits_is_refused(small_data, tmp_path):
    tiny_causal_lm(tmp_path / "lm", window=200)
    with pytest.raises(ModelError, match=r"not enough examples.*left out that may not fit the window of 200"):
        replace(toy("icae", "", str(tmp_path / "lm")), segment=64).run(tmp_path / "out", data=small_data)
    with pytest.raises(ModelError, match="a segment of 256 tokens with its slots takes 384"):
        toy("icae", "", str(tmp_path / "lm")).run(tmp_path / "long", data=small_data)


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("Llama", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        ("Phi3", {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
        ("OPT", {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}),
        ("GPTNeoX", {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}),
    ],
)
def test_no_architecture_is_adapted_by_half(kind, wanted):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 99}
    width = {"ffn_dim": 64, "word_embed_proj_dim": 32} if kind == "OPT" else {"intermediate_size": 64}
    config = getattr(transformers, f"{kind}Config")(**sizes, **width, pad_token_id=0)
    adapter = LowRank(Adaptable(kind, getattr(transformers, f"{kind}ForCausalLM")(config)), 2, 4, 0)
    assert set(adapter.targets) == wanted


def test_examples_beyond_the_window_are_left_out_and_told(tmp_path):
    tiny_causal_lm(tmp_path / "lm", window=560)
    seen, folder = [], data.write(tmp_path / "data")
    towns = [(name, data.town(name), [(f"Who founded {name}?", f"Count {name}son")]) for name in data.TOWNS]
    paragraph = " ".join(data.town(name) for name in data.TOWNS)
    data.squad(folder / "squad" / "train-v1.1-part.json.gz", *towns, ("Long", paragraph, [("Who?", "Count Albason")]))
    toy("icae", "", str(tmp_path / "lm")).run(tmp_path / "out", data=folder, on_event=seen.append)
    assert any("left out that may not fit the window of 560" in event.message for event in seen)
