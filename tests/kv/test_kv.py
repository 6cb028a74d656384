"""Smaller key-value caches: what is kept, what it costs, and that nothing else changes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ragzip.errors import ConfigError
from ragzip.generators.huggingface import HuggingFace
from ragzip.kv import Seen
from ragzip.kv.expected_attention import ExpectedAttention
from ragzip.kv.h2o import H2O
from ragzip.kv.quantized import pack, unpack
from ragzip.kv.scissorhands import Scissorhands
from ragzip.kv.sentence_kv import SentenceKV
from ragzip.kv.session import sentence_numbers
from ragzip.kv.snapkv import SnapKV
from ragzip.kv.streaming_llm import StreamingLLM
from ragzip.models import load_causal_lm
from ragzip.models.chat import EncodedPrompt
from ragzip.types import Message

EVICTIONS = [StreamingLLM, SnapKV, ExpectedAttention, H2O, Scissorhands, SentenceKV]
SENTENCES = "The river runs to the sea. Numbers such as 1, 22 and 333 are tokens. A railway was opened there. "
PROMPT = [(Message("user", (SENTENCES * 4 + "Where does the river run?",)),)]


@pytest.fixture(scope="module")
def generator(tiny_lm_path):
    return HuggingFace(model=tiny_lm_path, max_new_tokens=8, dtype="fp32", device="cpu")


@pytest.fixture(scope="module")
def lm(tiny_lm_path):
    return load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu")


def seen_of(length, *, heads=4, key_heads=2, width=8, seed=0, sentences=None):
    draw = torch.Generator().manual_seed(seed)
    queries, keys, values = (torch.randn(h, length, width, generator=draw) for h in (heads, key_heads, key_heads))
    numbers = torch.arange(length) // 5 if sentences is None else sentences

    def as_they_are(given_queries, future):
        return given_queries, torch.ones(future, width), torch.zeros(future, width)

    return Seen(0, queries, keys, values, width**-0.5, lambda: numbers, as_they_are)


# Which positions stay.


@given(
    st.sampled_from(EVICTIONS),
    st.integers(1, 90),
    st.floats(0.01, 1.0),
    st.none() | st.integers(1, 60),
    st.integers(0, 6),
    st.integers(1, 20),
)
def test_as_many_positions_stay_as_may_and_both_ends_first(cls, length, keep, budget, sinks, window):
    method = cls(keep=keep, budget=budget, sinks=sinks, window=window)
    kept = method.kept(seen_of(length))
    count = max(min(math.floor(keep * length + 1e-9), budget or length), 1)
    if count >= length:
        assert kept is None
        return
    assert kept.shape == (2, count)
    for places in kept.tolist():
        assert places == sorted(set(places))
        assert places[0] >= 0
        assert places[-1] < length
        if min(sinks + window, length) < count:
            assert set(range(min(sinks, length))) | set(range(max(length - window, 0), length)) <= set(places)


@pytest.mark.parametrize("cls", EVICTIONS)
def test_more_room_never_loses_a_position(cls):
    seen = seen_of(70, seed=3)
    before: list[set[int]] = [set(), set()]
    for keep in (0.3, 0.5, 0.7, 0.9):
        now = [set(places) for places in cls(keep=keep, window=4, sinks=1).kept(seen).tolist()]
        assert all(a <= b for a, b in zip(before, now, strict=True))
        before = now


def test_streaming_llm_keeps_both_ends():
    kept = StreamingLLM(keep=0.5, sinks=3, window=2).kept(seen_of(20))
    assert kept.tolist() == [[0, 1, 2, 13, 14, 15, 16, 17, 18, 19]] * 2


def attention(seen):
    """By hand: ``[heads, n, n]``."""
    keys = seen.keys.repeat_interleave(2, dim=0)
    scores = seen.queries @ keys.transpose(1, 2) * seen.scaling
    return scores.masked_fill(torch.ones(seen.length, seen.length).triu(1).bool(), -torch.inf).softmax(-1)


def test_weights_are_those_of_attention():
    seen = seen_of(600)
    torch.testing.assert_close(seen.weights(590), attention(seen)[:, 590:])
    found = torch.zeros(4, 600)
    seen.over_queries(lambda weights, first: found.add_(weights.sum(1)))
    torch.testing.assert_close(found, attention(seen).sum(1), rtol=1e-4, atol=1e-4)


def test_scores_are_what_the_papers_say():
    seen = seen_of(40, seed=1)
    full = attention(seen)
    pairs = full.view(2, 2, 40, 40)
    torch.testing.assert_close(H2O().scores(seen), pairs.sum(2).mean(1))
    window = SnapKV(window=8, kernel=3).scores(seen)
    asked = torch.nn.functional.avg_pool1d(full[:, -8:].mean(1)[None, :, :32], 3, 1, 1)[0].view(2, 2, 32).mean(1)
    torch.testing.assert_close(window[:, :32], asked)
    votes = (full[:, -16:] > 1 / torch.arange(25, 41)[None, :, None]).float().sum(1)
    found = Scissorhands(history=16).scores(seen)
    torch.testing.assert_close(found, (votes + 0.5 * full[:, -16:].mean(1)).view(2, 2, 40).mean(1))


def test_expected_attention_without_rotation_and_spread_is_that_of_the_mean_query():
    seen = seen_of(30, seed=2)
    found = ExpectedAttention(covariance=False, by_values=False, sinks=0).scores(seen)
    mean = seen.queries.mean(1)
    logits = torch.einsum("hd,hnd->hn", mean, seen.keys.repeat_interleave(2, dim=0)) * seen.scaling
    torch.testing.assert_close(found, logits.softmax(-1).view(2, 2, 30).mean(1))


def test_expected_attention_foresees_gaussian_queries():
    """The closed form is the mean of exp(q k) over many queries of that mean and spread."""
    draw = torch.Generator().manual_seed(0)
    width = 4
    queries = torch.randn(2, 20_000, width, generator=draw) * 0.7 + torch.tensor([1.0, 0, -1, 0.5])
    keys = torch.randn(1, 20_000, width, generator=draw)
    keys[:, 12:] = -9  # of no matter

    def plain(given_queries, future):
        return given_queries, torch.ones(future, width), torch.zeros(future, width)

    seen = Seen(0, queries, keys, torch.ones_like(keys), width**-0.5, lambda: torch.zeros(20_000), plain)
    found = ExpectedAttention(by_values=False, sinks=0).scores(seen)[0, :12]
    real = torch.exp(queries @ keys[0, :12].T * seen.scaling).mean(1)
    real = (real / real.sum(1, keepdim=True)).mean(0)
    torch.testing.assert_close(found / found.sum(), real, rtol=0.1, atol=0.01)


def test_sentence_kv_keeps_whole_sentences_but_for_the_last():
    numbers = torch.tensor([0] * 7 + [1] * 9 + [2] * 4 + [3] * 10 + [4] * 6)
    seen = seen_of(36, sentences=numbers, seed=4)
    for keep in (0.3, 0.5, 0.8):
        for places in SentenceKV(keep=keep, sinks=0, window=2).kept(seen).tolist():
            inside = [sorted(set(places) & set(torch.nonzero(numbers == s).flatten().tolist())) for s in range(4)]
            sizes = [len(found) for found in inside]
            cut = [s for s, size in enumerate(sizes) if 0 < size < int((numbers == s).sum())]
            assert len(cut) <= 1
            for sentence in cut:
                first = int(torch.nonzero(numbers == sentence)[0])
                assert inside[sentence] == list(range(first, first + sizes[sentence]))


def test_sentences_of_a_prompt_are_those_of_its_text_and_rows_stand_alone(lm):
    (ids,) = lm.text.encode(["The fox runs. A dog sleeps in it. "])
    prompt = EncodedPrompt((ids, torch.zeros(3, lm.dimensions), ids))
    numbers = sentence_numbers(lm, prompt).tolist()
    assert len(numbers) == prompt.length == 2 * len(ids) + 3
    assert numbers == sorted(numbers)
    texts = [lm.text.tokenizer.decode([token]) for token in ids]
    first = "".join(text for text, number in zip(texts, numbers[: len(ids)], strict=True) if number == 0)
    assert first.strip() == "The fox runs."
    assert len(set(numbers[len(ids) : len(ids) + 3])) == 3
    assert len(set(numbers)) == 2 + 3 + 2


# Bits.


@given(st.integers(1, 3), st.integers(1, 200), st.sampled_from([8, 4]), st.integers(0, 99))
def test_what_was_packed_comes_back_within_half_a_step(rows, columns, bits, seed):
    values = torch.randn(1, 2, rows, columns, generator=torch.Generator().manual_seed(seed)) * 3
    packed = pack(values, bits)
    found = unpack(packed, torch.float32)
    assert found.shape == values.shape
    size = packed.codes.shape[-1] * 8 // bits
    assert size <= 64
    for start in range(0, columns, size):
        some, other = values[..., start : start + size], found[..., start : start + size]
        reach = some.amax(-1, keepdim=True) - some.amin(-1, keepdim=True)
        slack = 0.51 / (2**bits - 1) * reach + 2e-3 * some.abs().amax(-1, keepdim=True) + 1e-6
        assert bool(((some - other).abs() <= slack + 1e-3 * reach).all())


def test_packed_sizes_are_those_of_their_bits():
    values = torch.randn(1, 3, 640, 64)
    for bits in (8, 4):
        assert pack(values, bits).bytes == values.numel() * bits // 8 + values.numel() // 64 * 4


@given(st.integers(1, 300), st.sampled_from([8, 4]))
def test_next_to_nothing_is_packed_in_vain(columns, bits):
    groups = -(-columns // 64)
    assert pack(torch.randn(1, 2, 3, columns), bits).bytes <= 6 * ((columns + 2 * groups) * bits // 8 + groups * 4)


@pytest.mark.parametrize("value", ["0.5", True, math.nan, [1], 0, 1.5])
def test_a_share_that_is_none_is_refused_by_name(value):
    with pytest.raises(ConfigError) as caught:
        SnapKV(keep=value)
    assert caught.value.path == "keep"


@pytest.mark.parametrize("cls", EVICTIONS)
def test_a_budget_alone_is_the_only_limit(cls):
    assert cls(budget=1000).count(1200) == 1000
    assert cls(budget=1000).count(900) == 900
    assert cls().count(1200) == 600
    assert cls(keep=0.5, budget=1000).count(1200) == 600
