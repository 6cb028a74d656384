"""Smaller key-value caches at work: answers, bytes, threads, and what is refused."""

from __future__ import annotations

import dataclasses
import threading
from types import SimpleNamespace

import pytest
import torch

from ragzip import config, registry
from ragzip.errors import ConfigError, ModelError
from ragzip.generators.huggingface import HuggingFace
from ragzip.kv import KVSession
from ragzip.kv.expected_attention import ExpectedAttention
from ragzip.kv.h2o import H2O
from ragzip.kv.quantized import QuantizedKV
from ragzip.kv.scissorhands import Scissorhands
from ragzip.kv.sentence_kv import SentenceKV
from ragzip.kv.session import bytes_of
from ragzip.kv.snapkv import SnapKV
from ragzip.kv.streaming_llm import StreamingLLM
from ragzip.models import load_causal_lm
from ragzip.models.chat import encode_prompt
from ragzip.protocols import KVCompression
from ragzip.types import Message, SoftSegment

EVICTIONS = [StreamingLLM, SnapKV, ExpectedAttention, H2O, Scissorhands, SentenceKV]
SENTENCES = "The river runs to the sea. Numbers such as 1, 22 and 333 are tokens. A railway was opened there. "
PROMPT = [(Message("user", (SENTENCES * 4 + "Where does the river run?",)),)]


@pytest.fixture(scope="module")
def generator(tiny_lm_path):
    return HuggingFace(model=tiny_lm_path, max_new_tokens=8, dtype="fp32", device="cpu")


@pytest.fixture(scope="module")
def lm(tiny_lm_path):
    return load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu")


@pytest.mark.parametrize("cls", EVICTIONS)
def test_nothing_evicted_changes_nothing(cls, generator):
    (plain,) = generator.generate(PROMPT)
    (same,) = dataclasses.replace(generator, kv=(cls(keep=1.0),)).generate(PROMPT)
    assert same.text == plain.text
    assert same.kv_bytes == same.kv_bytes_full > 0
    assert plain.kv_bytes == 0


@pytest.mark.parametrize("cls", EVICTIONS)
@pytest.mark.parametrize("keep", [0.5, 0.2])
def test_the_bytes_are_really_saved(cls, keep, generator):
    method = cls(keep=keep, window=8)
    (found,) = dataclasses.replace(generator, kv=(method,)).generate(PROMPT)
    per_position = found.kv_bytes_full // found.prompt_tokens
    assert found.kv_bytes_full == found.prompt_tokens * per_position
    assert found.kv_bytes == method.count(found.prompt_tokens) * per_position
    assert found.new_tokens == 8


def test_bytes_are_of_storages_and_not_of_views(lm):
    whole = torch.zeros(1, 2, 1000, 16)
    assert bytes_of(SimpleNamespace(keys=whole[:, :, :10], values=whole[:, :, :10])) == 2 * whole.numel() * 4


def test_evicted_positions_are_as_if_masked(lm, generator):
    """Answers are those of the whole cache with the evicted positions masked: no position shifted."""
    method = StreamingLLM(keep=0.4, sinks=2, window=4)
    (found,) = dataclasses.replace(generator, kv=(method,)).generate(PROMPT)
    ids = encode_prompt(lm, PROMPT[0]).ids
    length = len(ids)
    count = method.count(length)
    kept = [0, 1, *range(length - (count - 2), length)]
    model = lm.model
    usual = model.config._attn_implementation
    model.config._attn_implementation = "eager"
    try:
        written: list[int] = []
        with torch.inference_mode():
            token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            while len(written) < 8:
                written.append(token)
                everything = [*ids, *written]
                size = len(everything)
                mask = torch.full((size, size), float("-inf")).triu(1)
                hidden = [place for place in range(length) if place not in kept]
                mask[length:, hidden] = float("-inf")
                logits = model(input_ids=torch.tensor([everything]), attention_mask=mask[None, None]).logits
                token = int(logits[0, -1].argmax())
    finally:
        model.config._attn_implementation = usual
    assert lm.text.tokenizer.decode(written, skip_special_tokens=True).strip() == found.text


@pytest.mark.parametrize("cls", EVICTIONS)
def test_the_answer_does_not_depend_on_who_came_before(cls, generator):
    other = [(Message("user", ("Ships pass. " * 30 + "Why?",)),)]
    method = dataclasses.replace(generator, kv=(cls(keep=0.3, window=8),), batch_size=2)
    together = method.generate([*PROMPT, *other])
    alone = [method.generate([prompt])[0] for prompt in (*PROMPT, *other)]
    assert [one.text for one in together] == [one.text for one in alone]
    assert [one.kv_bytes for one in together] == [one.kv_bytes for one in alone]
    (plain,) = generator.generate(PROMPT)
    assert plain == dataclasses.replace(plain, kv_bytes=0)
    assert load_causal_lm(generator.model, dtype="fp32", device="cpu").model.config._attn_implementation == "sdpa"


def test_attention_is_as_before_after_an_error(lm, monkeypatch):
    prompt = encode_prompt(lm, PROMPT[0])
    session = KVSession(lm, prompt, (SnapKV(),))
    with pytest.raises(KeyError), session.open():
        raise KeyError
    assert lm.model.config._attn_implementation == "sdpa"


def test_eviction_and_bits_go_together(generator):
    small = dataclasses.replace(generator, kv=(SnapKV(keep=0.5, window=8), QuantizedKV(8)))
    (both,) = small.generate(PROMPT)
    (evicted,) = dataclasses.replace(generator, kv=(SnapKV(keep=0.5, window=8),)).generate(PROMPT)
    assert 0 < both.kv_bytes < evicted.kv_bytes
    (eight,) = dataclasses.replace(generator, kv=(QuantizedKV(8),)).generate(PROMPT)
    (four,) = dataclasses.replace(generator, kv=(QuantizedKV(4),)).generate(PROMPT)
    assert four.kv_bytes < eight.kv_bytes < eight.kv_bytes_full


def test_eight_bits_are_close_to_the_whole_cache(lm, generator):
    """The next logits from a packed cache are those of the whole one, but for rounding."""
    prompt = encode_prompt(lm, PROMPT[0])
    ids = torch.tensor([prompt.ids])
    errors = {}
    with torch.inference_mode():
        expected = lm.model(input_ids=torch.cat([ids, torch.tensor([[5]])], dim=1)).logits[0, -1]
        for bits in (8, 4):
            session = KVSession(lm, prompt, (QuantizedKV(bits),))
            with session.open():
                lm.model(input_ids=ids, past_key_values=session.cache, use_cache=True)
                assert session.cache.get_seq_length() == prompt.length
                found = lm.model(input_ids=torch.tensor([[5]]), past_key_values=session.cache, use_cache=True).logits
            errors[bits] = float((found[0, -1] - expected).abs().max() / expected.std())
    assert errors[8] < 0.1
    assert errors[8] < errors[4] < 2.0


@pytest.mark.parametrize("method", [*(cls(keep=0.5, window=8) for cls in EVICTIONS[:-1]), QuantizedKV(8)])
def test_rows_that_are_a_texts_own_embeddings_are_treated_as_the_text(lm, generator, method):
    """All but ``sentence_kv``, to which a row is a sentence by itself."""
    (ids,) = lm.text.encode([SENTENCES * 2])
    (tail,) = lm.text.encode(["\nWhy?"])
    small = dataclasses.replace(generator, kv=(method,))
    soft = [Message("user", (SoftSegment(lm.embed(ids), lm.space), "\nWhy?"))]
    hard = [Message("user", (SENTENCES * 2 + "\nWhy?",))]
    assert encode_prompt(lm, hard).ids == [
        token for piece in encode_prompt(lm, soft).pieces for token in (piece if isinstance(piece, list) else ids)
    ]
    assert tail
    (first,), (second,) = small.generate([soft]), small.generate([hard])
    assert first.text == second.text
    assert first.kv_bytes == second.kv_bytes


def test_two_models_in_two_threads_do_not_get_into_each_others_caches(generator, tmp_path):
    from ragzip.testing.models import tiny_causal_lm

    other = dataclasses.replace(generator, model=str(tiny_causal_lm(tmp_path / "other", seed=4)))
    both = [dataclasses.replace(g, kv=(SnapKV(keep=0.4, window=8),)) for g in (generator, other)]
    expected = [g.generate(PROMPT) for g in both]
    found: list = [[], []]

    def work(place):
        for _ in range(12):
            found[place].append(both[place].generate(PROMPT)[0])

    threads = [threading.Thread(target=work, args=(place,)) for place in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place in (0, 1):
        assert len(found[place]) == 12
        for one in found[place]:
            assert (one.text, one.kv_bytes) == (expected[place][0].text, expected[place][0].kv_bytes)


def test_a_model_whose_attention_shows_nothing_is_refused(tmp_path, tiny_lm_path):
    import shutil

    from transformers import BloomConfig, BloomForCausalLM

    from ragzip.models.runtime import quiet

    folder = tmp_path / "bloom"
    shutil.copytree(tiny_lm_path, folder)
    model = BloomForCausalLM(BloomConfig(vocab_size=384, hidden_size=32, n_layer=2, n_head=2))
    with quiet():
        model.save_pretrained(folder)
    read = []
    loaded = load_causal_lm(str(folder), dtype="fp32", device="cpu").model
    hook = loaded.register_forward_pre_hook(lambda *_: read.append(1))
    with pytest.raises(ModelError, match="shows 0 of its 2 layers"):
        HuggingFace(model=str(folder), dtype="fp32", device="cpu", max_new_tokens=3, kv=(SnapKV(keep=0.5),)).generate(
            PROMPT
        )
    hook.remove()
    assert len(read) == 1  # the prompt, and no word of an answer


def test_eager_attention_stays_eager(lm, generator, monkeypatch):
    """Attention of another implementation, with what it alone does, is what is used under kv, too."""
    import transformers.models.llama.modeling_llama as llama

    calls = []
    real = llama.eager_attention_forward
    monkeypatch.setattr(llama, "eager_attention_forward", lambda *a, **o: calls.append(1) or real(*a, **o))
    monkeypatch.setattr(lm.model.config, "_attn_implementation", "eager")
    (small,) = dataclasses.replace(generator, kv=(SnapKV(keep=1.0),)).generate(PROMPT)
    assert calls
    assert lm.model.config._attn_implementation == "eager"
    assert small.kv_bytes == small.kv_bytes_full > 0


def test_models_that_look_back_a_few_positions_only_are_refused(lm, generator, monkeypatch):
    monkeypatch.setattr(lm.model.config, "sliding_window", 16, raising=False)
    with pytest.raises(ModelError, match="attends to 16 positions only"):
        dataclasses.replace(generator, kv=(SnapKV(),)).generate(PROMPT)


def test_what_is_no_tuple_of_methods_is_refused(generator):
    class Own(KVCompression):
        pass

    for kv, said in ((SnapKV(), "tuple"), ((Own(),), "no method for caches")):
        with pytest.raises(ConfigError, match=said):
            dataclasses.replace(generator, kv=kv)


@pytest.mark.parametrize("kv", [(SnapKV(), H2O()), (QuantizedKV(8), QuantizedKV(4))])
def test_two_of_a_kind_are_refused(generator, kv):
    with pytest.raises(ConfigError, match="two of a kind"):
        dataclasses.replace(generator, kv=kv)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("snapkv", {"keep": 0.0}),
        ("snapkv", {"kernel": 4}),
        ("h2o", {"budget": 0}),
        ("streaming_llm", {"sinks": -1}),
        ("scissorhands", {"history": 0}),
        ("expected_attention", {"future": 0}),
        ("sentence_kv", {"window": 0}),
    ],
)
def test_options_that_cannot_be_are_named(name, options):
    with pytest.raises(ConfigError) as caught:
        registry.get("kv", name)(**options)
    assert caught.value.path == next(iter(options))


@pytest.mark.parametrize("name", registry.names("kv"))
def test_configs_round_trip(name, tiny_lm_path):
    generator = HuggingFace(model=tiny_lm_path, kv=(registry.get("kv", name)(),))
    values = config.to_config(generator)
    assert values["kv"][0]["type"] == name
    assert config.from_config("generator", values) == generator
