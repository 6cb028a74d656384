"""What a cache of keys and values cannot do for a model: said before anything is read."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import transformers

from ragzip.errors import GenerationError, ModelError
from ragzip.generators.huggingface import HuggingFace
from ragzip.kv.expected_attention import ExpectedAttention
from ragzip.kv.precomputed import PrecomputedKV, blocks_of
from ragzip.kv.quantized import QuantizedKV
from ragzip.kv.session import KVSession, sentence_numbers
from ragzip.kv.snapkv import SnapKV
from ragzip.models import load_causal_lm
from ragzip.models.causal_lm import keeps_keys
from ragzip.models.chat import EncodedPrompt, encode_prompt
from ragzip.models.perplexity import load_perplexity
from ragzip.training.soft_data import Asking
from ragzip.training.soft_prompts import Frames, Reader
from ragzip.types import Message, SoftSegment, TextSegment
from tests.kv.test_rotary import SIZES

STATES = {
    "Mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "Lfm2": {**SIZES, "layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    "FalconH1": {**SIZES, "num_hidden_layers": 2, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8},
}
SAID = [Message("user", (TextSegment("The river runs to the sea. Goats live there. Who does?"),))]
ASKED = Asking("Who founded Alba?", "Count Albason", (("Alba", "Alba was founded by Count Albason."),), (), "toy")


@pytest.fixture
def lm(tiny_lm_path):
    return load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu")


@pytest.fixture(params=STATES)
def other(lm, request):
    config = getattr(transformers, f"{request.param}Config")(
        **STATES[request.param], vocab_size=lm.model.config.vocab_size
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{request.param}ForCausalLM")(config).eval()
    return dataclasses.replace(lm, model=model, name=request.param)


@pytest.mark.parametrize("method", [SnapKV(), QuantizedKV(), PrecomputedKV()])
def test_a_state_is_refused_by_name(other, method, monkeypatch):
    assert not keeps_keys(other.model)
    monkeypatch.setattr(HuggingFace, "load", lambda self: other)
    written = []
    with pytest.raises(ModelError, match=f"'{other.name}'"):
        HuggingFace(kv=(method,)).generate([SAID], on_text=lambda *piece: written.append(piece))
    assert written == []


def test_where_a_state_is_kept_training_reads_every_prompt_whole(other):
    frames = Frames(other)
    prompts = [frames.asking(ASKED, ASKED.positives, None), frames.asking(ASKED, (), [])]
    kept, whole = Reader(other, prompts, most=4000), Reader(other, [], most=4000)
    ((found, _),) = kept.read(prompts[:1], [[]])
    ((wanted, _),) = whole.read(prompts[:1], [[]])
    torch.testing.assert_close(found, wanted)


def test_a_state_gives_no_perplexity_behind_a_prefix(other, monkeypatch):
    monkeypatch.setattr("ragzip.models.load_causal_lm", lambda *args, **more: other)
    with pytest.raises(ModelError, match="keeps a state"):
        load_perplexity(other.name)


def test_nothing_is_answered_where_a_later_prompt_cannot_be(lm, monkeypatch):
    monkeypatch.setattr(HuggingFace, "load", lambda self: lm)
    soft = [Message("user", (SoftSegment(torch.zeros(2, lm.dimensions), lm.space),))]
    written = []
    with pytest.raises(GenerationError, match="prompt 1 has soft segments"):
        HuggingFace(kv=(PrecomputedKV(),)).generate([SAID, soft], on_text=lambda *piece: written.append(piece))
    assert written == []


def test_a_prompt_of_one_position_is_one_too(lm):
    prompt = EncodedPrompt(([5],))
    session = KVSession(lm, prompt, (SnapKV(),))
    with lm.lock, session.open(), torch.inference_mode():
        lm.model(input_ids=torch.tensor([[5]]), past_key_values=session.cache, use_cache=True)
        lm.model(input_ids=torch.tensor([[7]]), past_key_values=session.cache, use_cache=True)
    assert session.positions == 1
    assert 0 < session.bytes == session.full_bytes


def test_queries_are_taken_back_as_they_were_turned(lm):
    """With ``longrope`` all places turn otherwise once there are many: those of the future must not decide."""
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "rope_type": "longrope", "factor": 8.0}
    config = transformers.Phi3Config(
        **{k: v for k, v in SIZES.items() if k != "head_dim"},
        vocab_size=lm.model.config.vocab_size,
        original_max_position_embeddings=256,
        rope_scaling=factors,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = dataclasses.replace(lm, model=transformers.Phi3ForCausalLM(config).eval(), name="Phi3")
    session = KVSession(model, EncodedPrompt((list(range(3, 88)),)), (ExpectedAttention(),))
    plain = torch.randn(4, 85, 8)
    rotary = model.model.base_model.rotary_emb
    cosines, sines = (part[0] for part in rotary(plain, torch.arange(85)[None]))
    turned = plain * cosines + torch.cat([-plain[..., 4:], plain[..., :4]], -1) * sines
    for future in (8, 512):
        torch.testing.assert_close(session._unrotated(turned, future)[0], plain, rtol=1e-4, atol=1e-4)


def test_sentences_are_found_whatever_the_tokenizer_does_with_spaces(lm):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    text = "The river runs to the sea. Goats live there. Nobody else does."
    marks = [f"\u2581{word}" for word in text.split()]
    made = Tokenizer(models.WordLevel({mark: i for i, mark in enumerate(["<unk>", "\u2581a", *marks])}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    lone = dataclasses.replace(lm, text=dataclasses.replace(lm.text, tokenizer=made))
    (ids,) = lone.text.encode([text])
    numbers = sentence_numbers(lone, EncodedPrompt((ids,))).tolist()
    assert numbers == [0] * 6 + [1] * 3 + [2] * 3


def swapped(lm, monkeypatch, kind, **options):
    """The generator's model, for one of another architecture."""
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **options, "vocab_size": lm.model.config.vocab_size})
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    model.generation_config.eos_token_id = None
    made = dataclasses.replace(lm, model=model, name=kind)
    monkeypatch.setattr(HuggingFace, "load", lambda self: made)
    return made


def answered(messages, *kv, **options):
    """The answer, and what was written before an error."""
    written = []
    generator = HuggingFace(kv=kv, **{"max_new_tokens": 8, "dtype": "fp32", "device": "cpu", **options})
    try:
        return generator.generate(messages, on_text=lambda *piece: written.append(piece))[0], written
    except (GenerationError, ModelError) as error:
        return error, written


LATENT = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}


def test_where_a_latent_is_kept_nothing_is_evicted_and_bytes_are_those_of_the_latent(lm, monkeypatch):
    swapped(lm, monkeypatch, "DeepseekV3", first_k_dense_replace=4, num_key_value_heads=4, **LATENT)
    found, written = answered([SAID], SnapKV(keep=0.5, window=8))
    assert isinstance(found, ModelError)
    assert "nothing can be evicted" in found.message
    assert written == []
    found, _ = answered([SAID], QuantizedKV(8))
    assert 0.2 < found.kv_bytes / found.kv_bytes_full < 0.6  # of the latent in fp32; it was read with four heads


def test_a_window_that_no_layer_has_is_none(lm, monkeypatch):
    experts = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
    swapped(lm, monkeypatch, "Qwen2Moe", shared_expert_intermediate_size=16, **experts)
    found, _ = answered([SAID], SnapKV(keep=0.5))
    assert found.kv_bytes < found.kv_bytes_full
    whole = {"sliding_window": 4, "use_sliding_window": True, "layer_types": ["full_attention"] * 4}
    swapped(lm, monkeypatch, "Qwen3", **{**whole, "num_hidden_layers": 4})
    found, _ = answered([SAID], SnapKV(keep=0.5))
    assert found.kv_bytes < found.kv_bytes_full


def test_what_is_written_behind_an_eviction_stays_within_the_window(lm, monkeypatch):
    made = swapped(lm, monkeypatch, "Mistral", sliding_window=4096)
    length = answered([SAID], SnapKV(keep=0.5))[0].prompt_tokens
    made.model.config.sliding_window = length + 6
    found, written = answered([SAID], SnapKV(keep=0.5), max_new_tokens=7)
    assert "its answer up to 7" in found.message
    assert "fewer max_new_tokens" in found.hint
    assert written == []
    assert answered([SAID], SnapKV(keep=0.5), max_new_tokens=6)[0].text
    assert answered([SAID], QuantizedKV(8), max_new_tokens=7)[0].text


def test_all_prompts_are_checked_as_they_will_be_put_together(lm, monkeypatch):
    parts = [TextSegment(part) for _ in range(12) for part in ("the ri", "ver ")]
    long = [Message("user", ("Context:\n", *parts, "\n\nWho?"))]
    whole = encode_prompt(lm, long).length
    apart = sum(map(len, blocks_of(lm, long, 0)))
    assert whole < apart
    narrow = dataclasses.replace(lm, window=apart)
    monkeypatch.setattr(HuggingFace, "load", lambda self: narrow)
    assert "tokens" in answered([SAID, long], PrecomputedKV())[0].message
    assert answered([SAID, long], PrecomputedKV())[1] == []
    several = [Message("user", ("Context:\n", *parts[:2], "\n\nWho?"))]
    scaled = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    swapped(lm, monkeypatch, "Llama", rope_parameters={**scaled, "rope_theta": 10000.0})
    found, written = answered([SAID, several], PrecomputedKV())
    assert "is scaled" in found.message
    assert written == []
