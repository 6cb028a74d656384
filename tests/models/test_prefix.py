import copy
import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip import models
from ragzip.models import prefix
from ragzip.models.causal_lm import CausalLM
from ragzip.models.prefix import next_logits

IDS = st.lists(st.integers(3, 383), min_size=1, max_size=40)
SIZES = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
COMMON = {**SIZES, "intermediate_size": 48, "max_position_embeddings": 512}
FEW_HEADS = {**COMMON, "num_key_value_heads": 2}
SHARING = {
    "Llama": FEW_HEADS,
    "Gemma": {**COMMON, "num_key_value_heads": 1, "head_dim": 16},
    "Qwen3": {**FEW_HEADS, "head_dim": 8},
    "GPT2": {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0},
}
OTHERS = {
    "Bloom": {"vocab_size": 300, "hidden_size": 32, "n_layer": 2, "n_head": 4},  # positions by distance
    "Gemma2": {**FEW_HEADS, "head_dim": 8, "sliding_window": 512},  # scores with a soft cap
}


def random(count, seed, low=3, high=300):
    return torch.randint(low, high, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.fixture
def lm(tiny_lm_path):
    return models.load_causal_lm(tiny_lm_path, dtype="fp32")


@pytest.fixture(scope="module")
def double(tiny_lm_path):
    """The model in double precision: what fp32 rounds otherwise in other shapes hangs on the processor."""
    lm = models.load_causal_lm(tiny_lm_path, dtype="fp32")
    return dataclasses.replace(lm, model=copy.deepcopy(lm.model).double())


@pytest.fixture
def passes(monkeypatch):
    """The number of tokens in every pass of the model."""
    seen = []
    whole, packed = prefix._Reader.whole, prefix._groups

    def count_whole(self, ids, cache=None):
        seen.append(len(ids))
        return whole(self, ids, cache)

    def count_packed(pack, *rest):
        seen.append(sum(map(len, pack)))
        return packed(pack, *rest)

    monkeypatch.setattr(prefix._Reader, "whole", count_whole)
    monkeypatch.setattr(prefix, "_groups", count_packed)
    return seen


def make(kind, options):
    """A random model of some architecture, without files."""
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**options)
        model = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    return CausalLM(kind, kind, model, None, None, 512, 32, "cpu", "float32", Path())


@settings(max_examples=25)
@given(beginning=st.lists(st.integers(3, 383), max_size=60), endings=st.lists(IDS, max_size=12), data=st.data())
def test_is_what_one_pass_for_each_ending_gives(double, beginning, endings, data):
    tokens = data.draw(st.sampled_from([(5, 9), (9, 5), (7,), (300, 301, 302)]))
    found = next_logits(double, beginning, endings, tokens)
    assert found.shape == (len(endings), len(tokens))
    assert found.dtype == np.float32
    for ending, row in zip(endings, found, strict=True):
        with torch.inference_mode():
            logits = double.model(input_ids=torch.tensor([[*beginning, *ending]])).logits[0, -1]
        np.testing.assert_allclose(row, logits[list(tokens)].numpy(), atol=1e-5, rtol=1e-4)


def test_many_endings_in_several_packs(double, passes):
    beginning, endings = random(300, 1), [random(1 + i * 7 % 90, i) for i in range(60)]
    apart = next_logits(double, beginning, endings, (5, 9), shared=False)
    assert passes == [300 + len(ending) for ending in endings]
    together = next_logits(double, beginning, endings, (5, 9))
    np.testing.assert_allclose(together, apart, atol=1e-5)
    after = passes[60:]
    after = after[after.index(300) :]  # what comes before tries the model
    assert after[0] == 300
    assert sum(after[1:]) == sum(map(len, endings))
    assert max(after[1:]) <= 1024
    assert len(after) == 1 + 3


@pytest.mark.parametrize("kind", [*sorted(SHARING), *sorted(OTHERS)])
def test_a_head_is_read_once_for_all_beginnings(kind, passes):
    lm = make(kind, {**SHARING, **OTHERS}[kind])
    lm.model.double()
    start, endings = random(40, 1), [random(1 + number, number) for number in range(6)]
    beginnings = [[*start, *random(size, size)] for size in (30, 1, 90)]
    beginnings += [start, start[:20], [9, *start[1:], 7]]  # of these it is no head
    apart = [next_logits(lm, beginning, endings, (5, 9), shared=False) for beginning in beginnings]
    next_logits(lm, start, endings, (5, 9))  # tries the model
    passes.clear()
    head = prefix.Head(start)
    for _ in range(2):
        for beginning, expected in zip(beginnings, apart, strict=True):
            np.testing.assert_allclose(next_logits(lm, beginning, endings, (5, 9), head=head), expected, atol=1e-5)
    one = next_logits(lm, beginnings[0], endings[:1], (5, 9), head=head)  # it is worth it for one ending, too
    np.testing.assert_allclose(one, apart[0][:1], atol=1e-5)
    sizes = [size for size in passes if size != sum(map(len, endings))]
    if kind in SHARING:
        assert sizes == [40, 30, 1, 90, 40, 20, 41, 30, 1, 90, 40, 20, 41, 30, len(endings[0])]
    else:
        assert head.layers is None


def test_one_longer_than_a_pack(lm):
    endings = [random(5, 1), random(1100, 2), random(5, 3), random(400, 4)]
    np.testing.assert_allclose(
        next_logits(lm, random(50, 5), endings, (5, 9)),
        next_logits(lm, random(50, 5), endings, (5, 9), shared=False),
        atol=1e-5,
    )


def test_an_ending_does_not_see_the_others(lm):
    beginning, ending = random(40, 1), random(9, 2)
    alone = next_logits(lm, beginning, [ending], (5, 9))
    for others in ([random(9, 3)], [random(200, 4), random(1, 5)], [ending]):
        for endings in ([ending, *others], [*others, ending]):
            np.testing.assert_allclose(
                next_logits(lm, beginning, endings, (5, 9))[endings.index(ending)], alone[0], atol=1e-5
            )


def test_the_generator_of_random_numbers_is_left_as_it_was(lm):
    before = torch.get_rng_state()
    prefix.twin(lm, (5, 9))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_model_is_left_as_it_was(lm):
    before = {name: value.clone() for name, value in lm.model.state_dict().items()}
    kind, head = lm.model.config._attn_implementation, lm.model.get_output_embeddings()
    next_logits(lm, random(20, 1), [random(3, 2), random(4, 3)], (5, 9))
    assert lm.model.config._attn_implementation == kind
    assert lm.model.get_output_embeddings() is head
    assert all(torch.equal(value, before[name]) for name, value in lm.model.state_dict().items())


def test_the_twin_shares_the_weights(lm):
    twin = prefix.twin(lm, (5, 9))
    own = {id(parameter) for parameter in lm.model.parameters()}
    assert [name for name, p in twin.named_parameters() if id(p) not in own] == ["lm_head.weight"]


@pytest.mark.parametrize("kind", SHARING)
def test_architectures_that_share(kind, passes):
    lm = make(kind, SHARING[kind])
    beginning, endings = random(90, 1), [random(1 + i % 17, i) for i in range(30)]
    apart = next_logits(lm, beginning, endings, (5, 9), shared=False)
    assert apart.std() > 0.1
    np.testing.assert_allclose(next_logits(lm, beginning, endings, (5, 9)), apart, atol=1e-5)
    assert 90 in passes


@pytest.mark.parametrize("kind", OTHERS)
def test_architectures_that_do_not_share_are_read_one_by_one(kind, passes):
    lm = make(kind, OTHERS[kind])
    beginning, endings = random(90, 1), [random(1 + i % 17, i) for i in range(5)]
    apart = next_logits(lm, beginning, endings, (5, 9), shared=False)
    del passes[:]
    np.testing.assert_array_equal(next_logits(lm, beginning, endings, (5, 9)), apart)
    assert passes[-5:] == [90 + len(ending) for ending in endings]


def test_beyond_a_sliding_window_nothing_is_shared(passes):
    lm = make("Mistral", {**FEW_HEADS, "sliding_window": 64})
    endings = [random(4, 1), random(6, 2)]
    for size, shared in ((58, True), (59, False)):
        del passes[:]
        apart = next_logits(lm, random(size, 3), endings, (5, 9), shared=False)
        np.testing.assert_allclose(next_logits(lm, random(size, 3), endings, (5, 9)), apart, atol=1e-5)
        assert (size in passes) == shared


def test_logits_of_a_narrow_model_are_not_narrow(tiny_lm_path):
    """In bf16 a logit of 20 has steps of 1/8; they are computed in fp32 from what the last layer gives."""
    lm = models.load_causal_lm(tiny_lm_path, dtype="bf16")
    found = next_logits(lm, random(30, 1), [random(5, i) for i in range(8)], (5, 9))
    assert not np.array_equal(found, torch.from_numpy(found).bfloat16().float().numpy())
    wide = models.load_causal_lm(tiny_lm_path, dtype="fp32")
    np.testing.assert_allclose(
        found, next_logits(wide, random(30, 1), [random(5, i) for i in range(8)], (5, 9)), atol=0.3
    )


def test_from_several_threads(lm):
    beginning, endings = random(50, 1), [random(6, i) for i in range(9)]
    expected = next_logits(lm, beginning, endings, (5, 9))
    found = []

    def work(shared):
        found.append(next_logits(lm, beginning, endings, (5, 9), shared=shared))

    threads = [threading.Thread(target=work, args=(i % 2 == 0,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    for one in found:
        np.testing.assert_allclose(one, expected, atol=1e-5)


def test_no_endings(lm):
    assert next_logits(lm, [5], [], (5, 9)).shape == (0, 2)


def test_nobody_changes_the_model_while_its_twin_is_made(lm, monkeypatch):
    free, made = [], prefix.twin

    def twin(*given):
        with ThreadPoolExecutor(1) as other:
            free.append(other.submit(lm.lock.acquire, blocking=False).result())
        return made(*given)

    monkeypatch.setattr(prefix, "twin", twin)
    next_logits(lm, [3, 4], [[5], [6]], [301, 302])
    assert free == [False]


@pytest.mark.parametrize("products", [False, True], ids=["usual", "products"])
@pytest.mark.parametrize("kind", sorted(SHARING))
def test_in_bf16_it_is_as_near_to_the_truth_as_one_pass_each(kind, products, monkeypatch):
    monkeypatch.setattr(prefix, "by_products", lambda _: products)
    exact = make(kind, SHARING[kind])
    half = dataclasses.replace(exact, model=copy.deepcopy(exact.model).bfloat16(), dtype="bfloat16")
    beginning, endings = random(90, 1), [random(5 + number % 50, number) for number in range(30)]
    truth = next_logits(exact, beginning, endings, (7, 9), shared=False)
    apart, found = (next_logits(half, beginning, endings, (7, 9), shared=way) for way in (False, True))
    assert not np.array_equal(apart, found)  # packed
    assert np.abs(found - truth).mean() < 1.5 * np.abs(apart - truth).mean() + 1e-3


def test_in_bf16_endings_do_not_see_each_other(monkeypatch):
    monkeypatch.setattr(prefix, "by_products", lambda _: True)
    exact = make("Llama", SHARING["Llama"])
    half = dataclasses.replace(exact, model=copy.deepcopy(exact.model).bfloat16(), dtype="bfloat16")
    beginning, endings = random(90, 1), [random(20, number) for number in range(12)]
    found = next_logits(half, beginning, endings, (7, 9))
    endings[4] = random(20, 77)
    other = next_logits(half, beginning, endings, (7, 9))
    rest = [number for number in range(12) if number != 4]
    assert np.array_equal(found[rest], other[rest])
    assert not np.array_equal(found[4], other[4])
