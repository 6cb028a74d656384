from __future__ import annotations

import math

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ragzip.evaluation.flops import Shape, _keys, model_shape, shape_of
from ragzip.generators.echo import Echo
from ragzip.generators.huggingface import HuggingFace
from ragzip.generators.openai import OpenAI

_COMMON = {"vocab_size": 160, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
_MODELS = {
    "llama": lambda: transformers.LlamaConfig(**_COMMON, num_key_value_heads=2, intermediate_size=96),
    "qwen2": lambda: transformers.Qwen2Config(
        **_COMMON, num_key_value_heads=1, intermediate_size=112, tie_word_embeddings=True
    ),
    "qwen2-window": lambda: transformers.Qwen2Config(
        **_COMMON,
        num_key_value_heads=2,
        intermediate_size=64,
        use_sliding_window=True,
        sliding_window=16,
        max_window_layers=1,
    ),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=160, n_embd=48, n_layer=3, n_head=4, n_positions=256),
    "gemma2": lambda: transformers.Gemma2Config(
        **_COMMON, num_key_value_heads=2, intermediate_size=64, head_dim=20, sliding_window=16
    ),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **_COMMON, num_key_value_heads=1, intermediate_size=64, head_dim=20, sliding_window=8
    ),
    "mistral": lambda: transformers.MistralConfig(
        **_COMMON, num_key_value_heads=2, intermediate_size=64, sliding_window=24
    ),
    "gpt-neox": lambda: transformers.GPTNeoXConfig(**_COMMON, intermediate_size=96),
    "mixtral": lambda: transformers.MixtralConfig(
        **_COMMON, num_key_value_heads=2, intermediate_size=64, num_local_experts=4, num_experts_per_tok=2
    ),
}

_EAGER_ONLY = ("gemma2", "sdpa")


def _counter():
    # torch counts attention on CUDA alone; its own rule for what computes it here
    op = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

    def rule(query, key, value, *args, out_shape=None, **kwargs):
        if key[1] != query[1]:  # grouped queries
            key = (key[0], query[1], *key[2:])
            value = (value[0], query[1], *value[2:])
        return sdpa_flop_count(query, key, value)

    return FlopCounterMode(display=False, custom_mapping={op: rule})


@torch.inference_mode()
def _measure(model, prompt: int, new: int) -> tuple[int, int]:
    """What torch counts for the prefill, and for the steps after it."""
    ids = torch.ones(1, prompt, dtype=torch.long)
    with _counter() as first:
        out = model(ids, use_cache=True, logits_to_keep=1)
    with _counter() as rest:
        for _ in range(new - 1):
            out = model(ids[:, :1], past_key_values=out.past_key_values, use_cache=True)
    return first.get_total_flops(), rest.get_total_flops()


def _build(name: str, attention: str):
    more = {"experts_implementation": "eager"} if name == "mixtral" else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(
            _MODELS[name](), attn_implementation=attention, **more
        ).eval()


@pytest.mark.parametrize(
    ("name", "attention"),
    [(name, attention) for name in _MODELS for attention in ("eager", "sdpa") if (name, attention) != _EAGER_ONLY],
)
def test_agrees_with_torch(name, attention):
    model = _build(name, attention)
    shape = model_shape(model)
    assert shape is not None
    for prompt, new in ((1, 2), (7, 5), (40, 9), (150, 3)):
        prefill, decode = _measure(model, prompt, new)
        assert shape.prefill(prompt) == pytest.approx(prefill, rel=0.02)
        assert shape.decode(prompt, new) == pytest.approx(decode, rel=0.02)


def test_generate_as_a_whole(tiny_lm_path):
    generator = HuggingFace(model=tiny_lm_path, dtype="fp32")
    shape = shape_of(generator)
    model = generator.load().model
    ids = torch.full((1, 33), 7)
    with _counter() as counted, torch.inference_mode():
        out = model.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=2)
    assert out.shape[1] == 33 + 12
    assert shape.prefill(33) + shape.decode(33, 12) == pytest.approx(counted.get_total_flops(), rel=0.02)


@pytest.mark.models
def test_real_model():
    generator = HuggingFace(dtype="fp32")
    shape = shape_of(generator)
    model = generator.load().model
    for prompt, new in ((16, 3), (300, 2), (1200, 2)):
        prefill, decode = _measure(model, prompt, new)
        assert shape.prefill(prompt) == pytest.approx(prefill, rel=0.02)
        assert shape.decode(prompt, new) == pytest.approx(decode, rel=0.02)


def test_by_hand():
    shape = Shape(linear=100, head=10, attention=2, windows=(0, 4))
    assert shape.prefill(3) == 3 * 100 + 10 + 2 * 2 * 9
    assert shape.decode(3, 1) == shape.decode(3, 0) == 0
    # the layers see 4 and 4 positions, then 5 and 4
    assert shape.decode(3, 3) == 2 * 110 + 2 * (4 + 4 + 5 + 4)
    assert shape.prefill(0) == 0


@pytest.mark.parametrize("window", [0, 1, 5, 30])
@pytest.mark.parametrize("prompt", [0, 4, 5, 40])
def test_keys_add_up(window, prompt):
    for steps in range(12):
        seen = (prompt + i for i in range(1, steps + 1))
        assert _keys(prompt, steps, window) == sum(min(n, window) if window else n for n in seen)


def test_grows_and_is_finite():
    shape = model_shape(_build("llama", "sdpa"))
    found = [shape.prefill(n) for n in (1, 10, 100, 10**6)]
    assert found == sorted(found) and all(math.isfinite(value) for value in found)
    assert shape.decode(10, 5) < shape.decode(10, 6) < shape.decode(20, 6)
    for call in (lambda: shape.prefill(-1), lambda: shape.decode(-1, 2), lambda: shape.decode(2, -1)):
        with pytest.raises(ValueError, match="at least 0"):
            call()


def test_none_without_a_model_of_its_own():
    assert shape_of(Echo()) is None
    assert shape_of(OpenAI(model="some", base_url="http://localhost:1/v1")) is None
    assert shape_of(object()) is None


def test_none_for_what_is_no_attention():
    config = transformers.MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1, state_size=4)
    assert model_shape(transformers.AutoModelForCausalLM.from_config(config)) is None


@pytest.mark.parametrize("cached", [0, 1, 60, 99, 100])
def test_what_was_read_before_is_not_read_again(cached):
    shape = Shape(linear=10.0, head=7.0, attention=2.0, windows=(0, 0))
    whole, rest = shape.prefill(100), shape.prefill(100, cached)
    assert (rest == whole) is (cached == 0)
    assert rest == (0.0 if cached == 100 else 10.0 * (100 - cached) + 7.0 + 2 * 2.0 * (100 - cached) * 100)
    with pytest.raises(ValueError, match="no more"):
        shape.prefill(cached, cached + 1)
