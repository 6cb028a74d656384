import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip.models import attention, runtime

SIZES = {"vocab_size": 90, "max_position_embeddings": 320}
BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def tiny(kind, dtype=torch.bfloat16):
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64} if kind == "distilbert" else BERT
    config = transformers.AutoConfig.for_model(kind, **SIZES, **sizes, pad_token_id=1, initializer_range=0.2)
    torch.manual_seed(3)
    return transformers.AutoModel.from_config(config).to(dtype).eval()


@pytest.fixture(autouse=True)
def vector_units(monkeypatch):
    monkeypatch.setattr(attention, "has_matrix_units", lambda: False)


def pair(kind):
    """The same model with this attention, as it comes, and in fp32."""
    mine, usual, exact = attention.settle(tiny(kind)), tiny(kind), tiny(kind, torch.float32)
    exact.load_state_dict(usual.state_dict())
    return mine, usual, exact


def batch(lengths, left, seed=0):
    width = max(lengths)
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, SIZES["vocab_size"], (len(lengths), width), generator=draw)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        mask[row, width - length :] = int(left)
        mask[row, :length] = int(not left) or mask[row, :length]
    return ids.masked_fill(mask == 0, 1), mask


def states(model, ids, mask):
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=mask).last_hidden_state.float()


@pytest.mark.parametrize("kind", sorted(attention.KINDS))
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_it_is_as_near_to_the_truth_as_the_usual_attention(kind, left):
    mine, usual, exact = pair(kind)
    assert mine.config._attn_implementation == attention.NAME != usual.config._attn_implementation
    ids, mask = batch([150, 97, 3, 1], left)
    found, known, truth = (states(model, ids, mask)[mask.bool()] for model in (mine, usual, exact))
    assert (found - truth).abs().mean() < 1.3 * (known - truth).abs().mean() + 1e-6
    assert (found - truth).abs().max() < 3 * (known - truth).abs().max() + 1e-6


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(1, 140), min_size=1, max_size=4), left=st.booleans(), seed=st.integers(0, 99))
def test_what_is_padding_changes_nothing(lengths, left, seed):
    mine, _, exact = PAIR
    ids, mask = batch(lengths, left, seed)
    found, truth = states(mine, ids, mask), states(exact, ids, mask)
    other = states(mine, ids.masked_fill(mask == 0, 7), mask)
    assert torch.equal(found[mask.bool()], other[mask.bool()])
    assert (found - truth)[mask.bool()].abs().max() < 0.15


PAIR = pair("bert")


def test_no_mask_and_one_of_ones_are_the_same():
    mine, *_ = PAIR
    ids, mask = batch([120, 120], False)
    with torch.inference_mode():
        assert torch.equal(mine(input_ids=ids).last_hidden_state, mine(input_ids=ids, attention_mask=mask)[0])


def test_a_mask_of_the_callers_own_is_followed():
    mine, usual, _ = PAIR
    ids, _ = batch([130], False)
    sees = torch.ones(1, 1, 130, 130, dtype=torch.bool).tril()
    found, known = states(mine, ids, sees), states(usual, ids, sees)
    assert torch.allclose(found, known, atol=0.05)
    assert not torch.allclose(found, states(mine, ids, torch.ones(1, 130, dtype=torch.long)), atol=0.05)


def test_a_text_of_nothing_but_padding_is_no_nan():
    mine, *_ = PAIR
    ids, mask = batch([120, 100], False)
    mask[1] = 0
    assert states(mine, ids, mask).isfinite().all()


@pytest.mark.parametrize("kind", sorted(attention.KINDS))
def test_other_formats_and_decoders_stay_as_they_are(kind, monkeypatch):
    assert attention.settle(tiny(kind, torch.float32)).config._attn_implementation == "sdpa"
    eager = tiny(kind)
    eager.set_attn_implementation("eager")
    assert attention.settle(eager).config._attn_implementation == "eager"
    decoder = tiny(kind)
    decoder.config.is_decoder = True
    assert attention.settle(decoder).config._attn_implementation == "sdpa"
    monkeypatch.setattr(attention, "has_matrix_units", lambda: True)
    assert attention.settle(tiny(kind)).config._attn_implementation == "sdpa"


def test_encoders_of_other_kinds_stay_as_they_are():
    assert attention.settle(tiny("modernbert")).config._attn_implementation != attention.NAME


def test_loaded_encoders_have_it(tiny_encoder_path, monkeypatch):
    from ragzip.models.tuned import open_base

    assert open_base(tiny_encoder_path, torch.bfloat16, "cpu").config._attn_implementation == attention.NAME
    assert open_base(tiny_encoder_path, torch.float32, "cpu").config._attn_implementation == "sdpa"


def test_matrix_units_are_asked_of_torch(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert runtime.has_matrix_units()
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert not runtime.has_matrix_units()


def test_what_is_trained_gets_its_gradients():
    mine = attention.settle(tiny("bert")).requires_grad_(True)
    ids, mask = batch([120, 100], False)
    mine(input_ids=ids, attention_mask=mask).last_hidden_state.float().sum().backward()
    query = mine.encoder.layer[0].attention.self.query.weight
    assert query.grad is not None and query.grad.abs().sum() > 0
