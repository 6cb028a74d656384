"""Attention in blocks, against the usual one and against fp32."""

from unittest import mock

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip.models import prefill

SIZES = {
    "vocab_size": 90,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def tiny(kind, dtype=torch.bfloat16, **more):
    config = transformers.AutoConfig.for_model(kind, **SIZES, **more)
    torch.manual_seed(3)
    return transformers.AutoModelForCausalLM.from_config(config).to(dtype).eval()


@pytest.fixture(autouse=True)
def vector_units(monkeypatch):
    monkeypatch.setattr(prefill, "has_matrix_units", lambda: False)


def three(kind, **more):
    """The same model with this attention, as it comes, and in fp32."""
    with mock.patch.object(prefill, "has_matrix_units", lambda: False):
        mine = prefill.settle(tiny(kind, **more))
    usual, exact = tiny(kind, **more), tiny(kind, torch.float32, **more)
    exact.load_state_dict(usual.state_dict())
    return mine, usual, exact


def batch(lengths, seed=0, left=True):
    width = max(lengths)
    ids = torch.randint(5, SIZES["vocab_size"], (len(lengths), width), generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        mask[row, slice(width - length, None) if left else slice(0, length)] = 1
    return ids.masked_fill(mask == 0, 0), mask


def states(model, ids, mask=None, **options):
    with torch.inference_mode():
        return model.model(input_ids=ids, attention_mask=mask, **options).last_hidden_state.float()


def called(monkeypatch):
    """Counts the blocks that are mixed."""
    seen, mix = [], prefill.mix
    monkeypatch.setattr(prefill, "mix", lambda *parts: seen.append(parts[0].shape[1]) or mix(*parts))
    return seen


@pytest.mark.parametrize("kind", sorted(prefill.KINDS))
@pytest.mark.parametrize("lengths", [[300], [1], [290, 150, 3]], ids=["alone", "one token", "batch"])
def test_it_is_as_near_to_the_truth_as_the_usual_attention(kind, lengths, monkeypatch):
    mine, usual, exact = three(kind)
    assert mine.config._attn_implementation == prefill.NAME != usual.config._attn_implementation
    mixed = called(monkeypatch)
    ids, mask = batch(lengths)
    found, known, truth = (states(model, ids, mask)[mask.bool()] for model in (mine, usual, exact))
    assert bool(mixed) == (max(lengths) > 1)
    assert (found - truth).abs().mean() < 1.3 * (known - truth).abs().mean() + 1e-6
    assert (found - truth).abs().max() < 3 * (known - truth).abs().max() + 1e-6


def test_many_keys_are_read_head_by_head(monkeypatch):
    mine, usual, exact = three("llama")
    ids, mask = batch([1500, 1300])
    found, known, truth = (states(model, ids, mask)[mask.bool()] for model in (mine, usual, exact))
    assert (found - truth).abs().mean() < 1.3 * (known - truth).abs().mean()
    monkeypatch.setattr(prefill, "_LARGE", 1 << 20)
    assert torch.allclose(found, states(mine, ids, mask)[mask.bool()], atol=0.1)


@settings(max_examples=20)
@given(lengths=st.lists(st.integers(1, 280), min_size=1, max_size=3), left=st.booleans(), seed=st.integers(0, 99))
def test_padding_and_later_tokens_change_nothing(lengths, left, seed):
    mine, _, exact = LLAMA
    ids, mask = batch(lengths, seed, left)
    found = states(mine, ids, mask)
    assert found.isfinite().all()
    assert torch.equal(found[mask.bool()], states(mine, ids.masked_fill(mask == 0, 7), mask)[mask.bool()])
    assert (found - states(exact, ids, mask))[mask.bool()].abs().max() < 0.3
    changed = ids.clone()
    changed[:, -1] = 5
    before = mask[:, :-1].bool()
    assert torch.equal(found[:, :-1][before], states(mine, changed, mask)[:, :-1][before])


LLAMA = three("llama")


@pytest.mark.parametrize(("first", "more"), [(150, 120), (20, 140), (150, 20), (200, 1)])
def test_it_reads_on_behind_a_cache(first, more):
    mine, usual, exact = LLAMA
    ids, _ = batch([first + more])
    outs = []
    for model in (mine, usual, exact):
        cache = transformers.DynamicCache()
        states(model, ids[:, :first], past_key_values=cache, use_cache=True)
        outs.append(states(model, ids[:, first:], past_key_values=cache, use_cache=True))
    found, known, truth = outs
    assert (found - truth).abs().mean() < 1.3 * (known - truth).abs().mean() + 1e-3


def test_a_sliding_window_is_kept(monkeypatch):
    mine, usual, exact = three("mistral", sliding_window=64)
    mixed = called(monkeypatch)
    ids, _ = batch([300])
    found, known, truth = (states(model, ids) for model in (mine, usual, exact))
    assert mixed
    assert (found - truth).abs().mean() < 1.3 * (known - truth).abs().mean()
    wide = states(three("mistral", sliding_window=None)[0], ids)
    assert (found - wide)[:, :60].abs().max() < 0.1 < (found - wide)[:, 200:].abs().max()


def test_masks_of_numbers_are_left_to_the_usual_attention(monkeypatch):
    mine, usual, _ = LLAMA
    mixed = called(monkeypatch)
    ids, _ = batch([150])
    hidden = torch.zeros(1, 1, 150, 150, dtype=torch.bfloat16)
    hidden.masked_fill_(torch.ones(150, 150, dtype=torch.bool).triu(1), float("-inf"))
    hidden[..., 10:, :5] = float("-inf")
    assert torch.equal(states(mine, ids, hidden), states(usual, ids, hidden))
    assert not mixed


@pytest.mark.parametrize("lengths", [[300], [290, 150]], ids=["alone", "batch"])
def test_gradients_are_as_near_to_the_truth_as_those_of_the_usual_attention(lengths, monkeypatch):
    ids, mask = batch(lengths)
    wanted = torch.randn(*ids.shape, SIZES["hidden_size"], generator=torch.Generator().manual_seed(1))
    mixed = called(monkeypatch)
    grads = []
    for model in LLAMA:
        rows = model.get_input_embeddings()(ids).detach().requires_grad_(True)
        hidden = model.model(inputs_embeds=rows, attention_mask=mask).last_hidden_state.float()
        (hidden * wanted)[mask.bool()].sum().backward()
        grads.append(rows.grad.float())
    found, known, truth = grads
    assert mixed
    assert found[mask == 0].abs().sum() == 0
    assert truth.abs().sum() > 0
    assert (found - truth).abs().mean() < 1.5 * (known - truth).abs().mean()


@pytest.mark.parametrize("part", ["q_proj", "k_proj", "v_proj"])
def test_one_projection_alone_can_be_trained(part):
    mine = three("llama")[0].requires_grad_(False)
    weight = getattr(mine.model.layers[0].self_attn, part).weight.requires_grad_(True)
    mine.model(input_ids=batch([150])[0]).last_hidden_state.float().square().sum().backward()
    assert weight.grad is not None and weight.grad.abs().sum() > 0


def test_a_model_that_looks_both_ways_is_left_to_the_usual_attention(monkeypatch):
    mine, usual, _ = three("gemma", use_bidirectional_attention=True)
    mixed = called(monkeypatch)
    ids, _ = batch([150])
    assert torch.equal(states(mine, ids), states(usual, ids))
    assert not mixed


def test_long_texts_are_trained_by_the_usual_attention(monkeypatch):
    monkeypatch.setattr(prefill, "_KEPT", 100)
    mixed = called(monkeypatch)
    ids, _ = batch([150])
    rows = LLAMA[0].get_input_embeddings()(ids).detach().requires_grad_(True)
    LLAMA[0].model(inputs_embeds=rows).last_hidden_state.float().sum().backward()
    assert not mixed


def test_a_decoder_made_to_look_both_ways_does(monkeypatch):
    mine, usual, _ = LLAMA
    mixed = called(monkeypatch)
    ids, _ = batch([150])
    assert torch.equal(states(mine, ids, is_causal=False), states(usual, ids, is_causal=False))
    assert not mixed


def test_other_formats_and_kinds_stay_as_they_are(monkeypatch):
    assert prefill.settle(tiny("llama", torch.float32)).config._attn_implementation == "sdpa"
    eager = tiny("llama")
    eager.set_attn_implementation("eager")
    assert prefill.settle(eager).config._attn_implementation == "eager"
    assert prefill.settle(tiny("gpt_neox")).config._attn_implementation == "sdpa"
    monkeypatch.setattr(prefill, "has_matrix_units", lambda: True)
    assert prefill.settle(tiny("llama")).config._attn_implementation == "sdpa"


def test_loaded_generators_have_it(tiny_lm_path):
    from ragzip.models import load_causal_lm

    for dtype, name in (("bf16", prefill.NAME), ("fp32", "sdpa")):
        lm = load_causal_lm(str(tiny_lm_path), dtype=dtype, device="cpu", own=True)
        assert lm.model.config._attn_implementation == name
