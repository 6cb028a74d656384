"""Losses read in windows, batches and behind caches are those of one plain forward pass."""

import doctest
import shutil
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip import models
from ragzip.models import perplexity
from ragzip.models.perplexity import Perplexity, load_perplexity
from ragzip.testing.strategies import texts
from ragzip.text import words

PROSE = "The quick brown fox jumps over the lazy dog, while the river runs to the sea (22 of 333). "
EVERYTHING = np.ones(10_000, dtype=bool)


@pytest.fixture(scope="module")
def reader(tiny_lm_path):
    return load_perplexity(tiny_lm_path, dtype="fp32", device="cpu")


def plain(reader, before, ids):
    """-ln p by one forward pass over everything, in float64."""
    row = torch.tensor([[*before, *ids]])
    with torch.inference_mode():
        logits = reader.lm.model(input_ids=row).logits.double()
    logs = torch.log_softmax(logits[0, len(before) - 1 : -1], dim=-1)
    return -logs.gather(1, row[0, len(before) :, None])[:, 0].numpy()


def ids_of(reader, text):
    return reader.lm.text.encode([text])[0]


def small(reader, window=2048, positions=1024):
    return Perplexity(reader.lm, window, positions)


@pytest.mark.parametrize("positions", [1, 7, 64, 8192])
@pytest.mark.parametrize("prefix", ["", "Which fox?\n\n"])
@pytest.mark.parametrize("suffix", ["", " And the river?"])
def test_batches_and_parts_read_as_one_plain_pass(reader, positions, prefix, suffix):
    given_texts = [PROSE * 3, "Fox.", "", PROSE, "The sea 22"]
    tokens = reader.encode(given_texts)
    found = small(reader, positions=positions).read(tokens, prefix=prefix, suffix=suffix)
    head, tail = [reader._start, *ids_of(reader, prefix)], ids_of(reader, suffix)
    for text, one in zip(tokens, found, strict=True):
        wanted = plain(reader, head, [*text.ids, *tail])
        np.testing.assert_allclose(one.losses, wanted[: len(text)], atol=1e-4)
        assert one.after == pytest.approx(wanted[len(text) :].mean() if tail else 0.0, abs=1e-4)
        assert one.losses.dtype == np.float32


def test_a_long_text_is_read_in_overlapping_windows_behind_the_prefix(reader):
    (tokens,) = reader.encode([PROSE * 8])
    prefix, suffix, window = "Which fox?", " Why?", 64
    head, tail = [reader._start, *ids_of(reader, prefix)], ids_of(reader, suffix)
    room = window - len(head) - len(tail)
    (found,) = small(reader, window).read([tokens], prefix=prefix, suffix=suffix)
    wanted, after, begin, new = [], [], 0, 0
    while new < len(tokens):
        end = min(begin + room, len(tokens))
        part = plain(reader, head, [*tokens.ids[begin:end], *tail])
        wanted += part[new - begin : end - begin].tolist()
        after.append(part[end - begin :].mean())
        begin, new = end - room // 4, end
    assert len(after) > 3
    np.testing.assert_allclose(found.losses, wanted, atol=1e-4)
    assert found.after == pytest.approx(min(after), abs=1e-4)


def test_a_prefix_or_suffix_beyond_a_quarter_of_the_window_keeps_its_end(reader):
    (tokens,) = reader.encode([PROSE])
    short = small(reader, 64)
    (found,) = short.read([tokens], prefix=PROSE * 50, suffix=PROSE * 50)
    head = [reader._start, *ids_of(reader, PROSE * 50)[-15:]]
    room = 64 - len(head) - 15
    np.testing.assert_allclose(found.losses[:room], plain(reader, head, tokens.ids[:room]), atol=1e-4)
    assert np.isfinite(found.after)


@pytest.mark.parametrize("size", [1, 13, 200])
def test_iterating_with_everything_chosen_reads_as_one_plain_pass(reader, size):
    (tokens,) = reader.encode([PROSE * 6])
    found = reader.iterate(tokens, lambda first, losses: EVERYTHING[: len(losses)], size=size)
    np.testing.assert_allclose(found, plain(reader, [reader._start], tokens.ids), atol=1e-4)


def test_iterating_reads_behind_what_was_chosen_alone(reader):
    (tokens,) = reader.encode([PROSE * 4])
    kept, wanted = [reader._start], []
    told = []

    def choose(first, losses):
        told.append((first, losses.copy()))
        return np.arange(first, first + len(losses)) % 3 == 0

    found = reader.iterate(tokens, choose, size=20)
    for first in range(0, len(tokens), 20):
        ids = tokens.ids[first : first + 20]
        wanted += plain(reader, kept, ids).tolist()
        kept += [int(token) for place, token in enumerate(ids, first) if place % 3 == 0]
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    np.testing.assert_array_equal(np.concatenate([losses for _, losses in told]), found)
    assert [first for first, _ in told] == list(range(0, len(tokens), 20))


def test_iterating_with_nothing_chosen_reads_every_step_from_the_start(reader):
    (tokens,) = reader.encode([PROSE])
    found = reader.iterate(tokens, lambda first, losses: EVERYTHING[: len(losses)] & False, size=10)
    wanted = [plain(reader, [reader._start], tokens.ids[at : at + 10]) for at in range(0, len(tokens), 10)]
    np.testing.assert_allclose(found, np.concatenate(wanted), atol=1e-4)


def spy_on_lengths(reader, monkeypatch):
    seen, logits = [], Perplexity._logits

    def spy(self, ids, cache, keep=0):
        seen.append(ids.shape[1] + (cache.get_seq_length() if cache is not None else 0))
        return logits(self, ids, cache, keep)

    monkeypatch.setattr(Perplexity, "_logits", spy)
    return seen


def test_never_reads_beyond_the_window(reader, monkeypatch):
    seen = spy_on_lengths(reader, monkeypatch)
    tokens = reader.encode([PROSE * 30, PROSE])
    short = small(reader, 96)
    short.read(tokens, prefix=PROSE * 9, suffix=PROSE * 9)
    found = short.iterate(tokens[0], lambda first, losses: EVERYTHING[: len(losses)], size=500)
    assert 48 < max(seen) <= 96
    assert np.isfinite(found).all()
    assert (found > 0).all()


def test_forgetting_keeps_half_a_window(reader):
    (tokens,) = reader.encode([PROSE * 3])
    found = small(reader, 64).iterate(tokens, lambda first, losses: EVERYTHING[: len(losses)], size=16)
    np.testing.assert_allclose(found[:48], plain(reader, [reader._start], tokens.ids[:48]), atol=1e-4)
    behind = [reader._start, *tokens.ids[48 - 31 : 48]]
    np.testing.assert_allclose(found[48:64], plain(reader, behind, tokens.ids[48:64]), atol=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "mistral"])
def test_other_architectures(kind, tiny_lm_path, tmp_path):
    """Learned positions, and attention that slides by itself."""
    import transformers

    folder = tmp_path / kind
    shutil.copytree(tiny_lm_path, folder)
    common = {"vocab_size": 384, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.5}
    if kind == "gpt2":
        config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=128, **common)
    else:
        config = transformers.MistralConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=64,
            max_position_embeddings=128,
            sliding_window=16,
            **common,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    reader = load_perplexity(str(folder), dtype="fp32", device="cpu")
    assert reader.window == 128
    tokens = reader.encode([PROSE[:60], PROSE[:30]])
    head = [reader._start, *ids_of(reader, "Why?")]
    for text, one in zip(tokens, small(reader, 128, 16).read(tokens, prefix="Why?"), strict=True):
        np.testing.assert_allclose(one.losses, plain(reader, head, text.ids), atol=1e-4)
    found = reader.iterate(tokens[0], lambda first, losses: EVERYTHING[: len(losses)], size=9)
    np.testing.assert_allclose(found, plain(reader, [reader._start], tokens[0].ids), atol=1e-4)
    reader.read(reader.encode([PROSE * 20]))


@given(st.lists(texts(), max_size=4))
@settings(max_examples=40)
def test_offsets_are_in_order_inside_and_cover_every_word(reader, batch):
    for text, tokens in zip(batch, reader.encode(batch), strict=True):
        assert len(tokens) == len(tokens.starts) == len(tokens.ends)
        assert (np.diff(tokens.starts) >= 0).all()
        assert (np.diff(tokens.ends) >= 0).all()
        assert ((tokens.starts >= 0) & (tokens.ends <= len(text)) & (tokens.starts <= tokens.ends)).all()
        assert (tokens.counts(words(text)) > 0).all()


def test_no_control_token_comes_out_of_text(reader):
    text = "A <|im_end|> and \ud83d, then <|im_start|>system"
    (tokens,) = reader.encode([text])
    assert reader.lm.text.control.isdisjoint(tokens.ids.tolist())
    assert (tokens.counts(words(text)) > 0).all()
    assert tokens.ends[-1] == len(text)
    assert (tokens.touching([(2, 12)]) == (tokens.starts < 12) & (tokens.ends > 2)).all()


def test_means_and_masks_by_hand():
    tokens = perplexity.Tokens(np.arange(5), np.array([0, 3, 5, 5, 9]), np.array([3, 5, 7, 7, 12]))
    values = np.array([1.0, 2.0, 3.0, 5.0, 7.0], dtype=np.float32)
    spans = [(0, 3), (4, 7), (7, 9), (6, 10), (20, 21)]
    assert tokens.means(values, spans).tolist() == [1.0, 10 / 3, 0.0, 5.0, 0.0]
    assert tokens.counts(spans).tolist() == [1, 3, 0, 3, 0]
    assert tokens.touching([(0, 1), (2, 3), (9, 10)]).tolist() == [True, False, False, False, True]
    assert tokens.touching([]).tolist() == [False] * 5
    assert tokens.take(slice(1, 3)).ids.tolist() == [1, 2]
    assert tokens.means(values, []).shape == (0,)


def test_nothing_to_read_needs_no_pass(reader, monkeypatch):
    seen = spy_on_lengths(reader, monkeypatch)
    assert reader.read([]) == []
    (found,) = reader.read(reader.encode([""]), prefix="Why?")
    assert len(found.losses) == 0
    assert found.after == 0.0
    assert len(reader.iterate(reader.encode([""])[0], lambda first, losses: losses > 0)) == 0
    assert seen == []


def test_logits_are_never_widened_all_at_once(reader, monkeypatch):
    monkeypatch.setattr(perplexity, "_SLAB", {"cpu": 3 * 384})
    logits, targets = torch.randn(2, 50, 384).bfloat16(), torch.randint(0, 384, (2, 50))
    wanted = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    np.testing.assert_allclose(perplexity._losses(logits, targets).ravel(), wanted, rtol=1e-5)


def test_reads_from_two_threads(reader):
    tokens = reader.encode([PROSE * 2, "Fox."])
    wanted = reader.read(tokens)
    found = [None, None]

    def work(place):
        found[place] = reader.read(tokens)

    threads = [threading.Thread(target=work, args=(place,)) for place in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in found:
        assert all((a.losses == b.losses).all() for a, b in zip(one, wanted, strict=True))


def test_windows_in_the_docstring():
    result = doctest.testmod(perplexity)
    assert result.attempted
    assert not result.failed


@pytest.mark.models
def test_the_built_in_model_is_surprised_by_nonsense():
    reader = load_perplexity(models.GENERATOR)
    sense, nonsense = reader.read(reader.encode(["Paris is the capital of France.", "Fork the blue seven of under."]))
    assert sense.losses.mean() + 2 < nonsense.losses.mean()
    passages = reader.encode(["The museum opens at nine in the morning.", "Rivers carry water to the sea."])
    found = reader.read(passages, suffix="\n\nWhen does the museum open?")
    assert found[0].after < found[1].after


@pytest.mark.parametrize("length", [10, 60, 200])
def test_the_keys_of_a_long_prefix_are_held_for_a_bounded_number_of_rows(reader, length, monkeypatch):
    some, rows = small(reader, positions=256), []
    real = Perplexity._batch
    monkeypatch.setattr(
        Perplexity, "_batch", lambda self, ids, shared: rows.append(ids.shape) or real(self, ids, shared)
    )
    prefix = PROSE * (length // 10)
    texts_ = some.encode([f"Fox number {n}." for n in range(80)])
    head = min(len(ids_of(reader, prefix)), some.longest) + 1
    found = some.read(texts_, prefix=prefix)
    assert all(count * (width + head) <= 2 * 256 or count == 1 for count, width in rows)
    assert len(found) == 80
    alone = [small(reader).read([one], prefix=prefix)[0] for one in texts_[:3]]
    for a, b in zip(alone, found, strict=False):
        np.testing.assert_allclose(a.losses, b.losses, atol=1e-4)
