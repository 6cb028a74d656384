import dataclasses
import hashlib
import pickle
import random
import threading

import numpy as np
import pytest
import torch

from ragzip import models
from ragzip.errors import ConfigError, GenerationError
from ragzip.generators.huggingface import HuggingFace
from ragzip.models.chat import encode_prompt
from ragzip.testing.models import tiny_causal_lm
from ragzip.types import Message, SoftSegment, TextSegment

TEXTS = ["hello", "what is the capital of the country?", "x" * 200, "Größe 東京 🎉", "", "a b c\n\nd " * 12]


def user(*pieces):
    return [Message("user", pieces)]


@pytest.fixture(scope="module")
def generator(tiny_lm_path):
    return HuggingFace(tiny_lm_path, max_new_tokens=24, dtype="fp32")


@pytest.fixture(scope="module")
def lm(generator):
    return generator.load()


def weights_hash(lm):
    digest = hashlib.sha256()
    for name, value in sorted(lm.model.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def test_answers_are_those_of_the_model(generator, lm):
    """Against greedy decoding by hand."""
    ids = lm.tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], add_generation_prompt=True)[
        "input_ids"
    ]
    start = len(ids)
    for _ in range(24):
        with torch.inference_mode():
            ids = [*ids, int(lm.model(torch.tensor([ids])).logits[0, -1].argmax())]
    answer = generator.generate([user("hello")])[0]
    assert answer.text == lm.tokenizer.decode(ids[start:], skip_special_tokens=True).strip("\ufffd \n")
    assert (answer.prompt_tokens, answer.new_tokens, answer.stopped) == (start, 24, False)


def test_answers_do_not_depend_on_the_batch(generator, tiny_lm_path):
    """Singles, batches of every size, any order: the same texts (in fp32)."""
    prompts = [user(text) for text in TEXTS]
    singles = [generator.generate([p])[0].text for p in prompts]
    assert len(set(singles)) == len(singles)  # the prompts matter, so the test can fail
    for size in (1, 2, 3, 6):
        batched = HuggingFace(tiny_lm_path, max_new_tokens=24, dtype="fp32", batch_size=size)
        assert [g.text for g in batched.generate(prompts)] == singles
        assert [g.text for g in batched.generate(prompts[::-1])] == singles[::-1]


def test_batches_keep_counts_and_stops(tiny_lm_path, generator):
    prompts = [user(text) for text in TEXTS]
    one = generator.generate(prompts)
    many = HuggingFace(tiny_lm_path, max_new_tokens=24, dtype="fp32", batch_size=6).generate(prompts)
    for a, b in zip(one, many, strict=True):
        assert (a.prompt_tokens, a.new_tokens, a.stopped) == (b.prompt_tokens, b.new_tokens, b.stopped)


def test_no_prompts_need_no_model():
    assert HuggingFace("no/such-model").generate([]) == []


@pytest.mark.parametrize("size", [1, 3])
def test_stream_is_the_answer(tiny_lm_path, size):
    pieces = {i: [] for i in range(len(TEXTS))}
    generator = HuggingFace(tiny_lm_path, max_new_tokens=24, dtype="fp32", batch_size=size)
    answers = generator.generate([user(t) for t in TEXTS], on_text=lambda i, text: pieces[i].append(text))
    assert ["".join(pieces[i]) for i in range(len(TEXTS))] == [a.text for a in answers]
    assert any(len(p) > 3 for p in pieces.values())  # it came piece by piece


def test_times_are_in_order(generator):
    answers = generator.generate([user("hello"), user("what")])
    for answer in answers:
        assert 0 < answer.first_token_seconds <= answer.seconds
    import time

    start = time.perf_counter()
    many = generator.generate([user("hello")] * 5)
    assert sum(answer.seconds for answer in many) <= time.perf_counter() - start  # each counts its own time alone


def test_first_piece_arrives_before_the_end(generator):
    import time

    start, seen = time.perf_counter(), []
    answer = generator.generate([user("hello")], on_text=lambda *_: seen.append(time.perf_counter() - start))[0]
    assert seen[0] < answer.seconds


def test_an_answer_begun_in_quotation_marks_ends_with_them(monkeypatch, generator):
    """Each prompt by its own last turn, whatever else is in its batch."""
    from ragzip.models import decode as _decode

    seen = []
    kept = _decode.AnswerText
    monkeypatch.setattr(_decode, "AnswerText", lambda *a, stop, **k: seen.append(stop) or kept(*a, stop=stop, **k))
    begun = [[*user('Say "a'), Message("assistant", (text,))] for text in ('It is "', 'It is "a" ', "It is")]
    HuggingFace(generator.model, max_new_tokens=2, dtype="fp32", stop=("END",), batch_size=4).generate(
        [*begun, user('An "open user turn')]
    )
    assert sorted(seen) == sorted([("END", '"'), ("END",), ("END",), ("END",)])


def test_stop_strings_end_the_answer(generator, tiny_lm_path):
    full = generator.generate([user("hello")])[0]
    stop = full.text[6:8]
    cut = HuggingFace(tiny_lm_path, max_new_tokens=24, dtype="fp32", stop=(stop,)).generate([user("hello")])[0]
    assert cut.text == full.text[: full.text.find(stop)].rstrip()
    assert cut.stopped
    assert cut.new_tokens < full.new_tokens


def test_end_token_ends_the_answer_and_is_not_part_of_it(tmp_path):
    """A model that always says its end token first."""
    from safetensors.torch import load_file, save_file

    folder = tiny_causal_lm(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][:] = 0
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = (folder / "generation_config.json").read_text()
    (folder / "generation_config.json").write_text(config.replace('"eos_token_id": 2', '"eos_token_id": [2, 0]'))
    told = []
    answer = HuggingFace(str(folder), dtype="fp32").generate([user("hello")], on_text=lambda *a: told.append(a))[0]
    assert (answer.text, answer.new_tokens, answer.stopped, told) == ("", 0, True, [])


def test_control_tokens_are_no_text(tmp_path):
    """A model that says a control token which does not end the answer, again and again."""
    from safetensors.torch import load_file, save_file

    folder = tiny_causal_lm(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][:] = 0  # all tokens are equally likely, and the first one is <|endoftext|>
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    answer = HuggingFace(str(folder), dtype="fp32", max_new_tokens=5).generate([user("hello")])[0]
    assert (answer.text, answer.new_tokens, answer.stopped) == ("", 5, False)


def test_soft_rows_that_are_the_tokens_embeddings_change_nothing(generator, lm, tiny_lm_path):
    """Text and its own input embeddings are the same prompt, wherever they stand."""
    text = "The quick brown fox jumps over the lazy dog."
    ids = lm.text.encode([text])[0]
    soft = SoftSegment(lm.embed(ids), lm.space)
    as_text = [user("Context:\n", TextSegment(text), "\n\nWhich?"), user(TextSegment(text)), user("a")]
    as_soft = [user("Context:\n", soft, "\n\nWhich?"), user(soft), user("a")]
    expected = generator.generate(as_text)
    for size in (1, 3):
        found = HuggingFace(tiny_lm_path, max_new_tokens=24, dtype="fp32", batch_size=size).generate(as_soft)
        assert [g.text for g in found] == [g.text for g in expected]
        assert [g.prompt_tokens for g in found] == [g.prompt_tokens for g in expected]


def test_several_soft_segments_stay_in_order(generator, lm):
    parts = [" one two", " three four", " five"]  # cut where the tokenizer cuts anyway
    soft = [SoftSegment(lm.embed(lm.text.encode([p])[0]), lm.space) for p in parts]
    mixed = generator.generate([user("Read:", soft[0], soft[1], " and", soft[2], ".")])[0]
    plain = generator.generate([user("Read: one two three four and five.")])[0]
    assert mixed.text == plain.text
    swapped = generator.generate([user("Read:", soft[2], soft[1], " and", soft[0], ".")])[0]
    assert swapped.text != plain.text


def test_soft_segments_of_another_model_are_refused(generator, lm):
    rows = torch.zeros(2, 32)
    with pytest.raises(GenerationError, match="space of 'smollm2-135m-instruct', but the generator is"):
        generator.generate([user(SoftSegment(rows, "smollm2-135m-instruct"))])
    with pytest.raises(GenerationError, match=r"shape \[2, 31\].*\[n_tokens, 32\]"):
        generator.generate([user(SoftSegment(torch.zeros(2, 31), lm.space))])
    with pytest.raises(GenerationError, match=r"shape \[32\]"):
        generator.generate([user(SoftSegment(torch.zeros(32), lm.space))])
    for bad in (float("nan"), float("inf")):
        with pytest.raises(GenerationError, match="not finite"):
            generator.generate([user(SoftSegment(torch.full((2, 32), bad), lm.space))])


def test_space_of_a_folder_has_many_spellings_and_is_one(generator, lm, tiny_lm_path):
    from pathlib import Path

    rows = lm.embed([5])
    other = str(Path(tiny_lm_path).parent / "." / Path(tiny_lm_path).name) + "/"
    assert generator.generate([user(SoftSegment(rows, other))])[0].new_tokens == 24


def test_bad_prompt_is_found_before_anything_is_computed(generator, monkeypatch, lm):
    monkeypatch.setattr(lm.model, "generate", lambda **_: pytest.fail("computed"))
    with pytest.raises(GenerationError, match="prompt 1 has no messages"):
        generator.generate([user("fine"), []])


def test_prompt_beyond_the_window_names_the_numbers(tiny_lm_path, lm):
    generator = HuggingFace(tiny_lm_path, max_new_tokens=48, dtype="fp32")
    with pytest.raises(GenerationError, match=r"prompt 1 has \d{4} tokens.*max_new_tokens=48.*window of 2048") as error:
        generator.generate([user("fine"), user("word " * 2000)])
    assert "top_k" in error.value.hint
    assert "budget" in error.value.hint
    soft = SoftSegment(torch.zeros(2048, 32), lm.space)
    with pytest.raises(GenerationError, match="window of 2048"):
        generator.generate([user(soft)])


def test_window_is_used_to_the_last_token(tmp_path):
    folder = tiny_causal_lm(tmp_path / "m", window=64)
    generator = HuggingFace(str(folder), max_new_tokens=8, dtype="fp32")
    frame = generator.generate([user("")])[0].prompt_tokens
    fits = "1" * (64 - 8 - frame)
    assert generator.generate([user(fits)])[0].prompt_tokens == 56
    with pytest.raises(GenerationError, match="57 tokens"):
        generator.generate([user(fits + "1")])


def test_sampling_is_reproducible_and_independent_of_the_batch(tiny_lm_path):
    prompts = [user(t) for t in TEXTS]
    make = lambda **o: HuggingFace(tiny_lm_path, max_new_tokens=16, dtype="fp32", temperature=8.0, **o)  # noqa: E731
    first = [g.text for g in make(seed=1).generate(prompts)]
    assert [g.text for g in make(seed=1).generate(prompts)] == first
    assert [g.text for g in make(seed=1, batch_size=4).generate(prompts)] == first
    assert [make(seed=1).generate([p])[0].text for p in prompts] == first
    assert [g.text for g in make(seed=2).generate(prompts)] != first


@pytest.mark.parametrize("temperature", [1e-37, 1e-45, 1e-300])
def test_next_to_no_temperature_takes_the_likeliest_token(generator, temperature):
    prompts = [user(t) for t in TEXTS]
    cold = dataclasses.replace(generator, temperature=temperature, top_p=0.9)
    assert [g.text for g in cold.generate(prompts)] == [g.text for g in generator.generate(prompts)]


def test_sampling_draws_from_the_softmax(lm):
    """The share of each token among many draws is its probability."""
    from ragzip.models.decode import _sampling

    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    temperature, noise = _sampling(lm, 1, 2.0, 1.0, 0)
    draws = torch.tensor([int(noise(None, temperature(None, logits.clone())).argmax()) for _ in range(20_000)])
    expected = torch.softmax(logits[0] / 2, dim=0)
    assert torch.allclose(torch.bincount(draws, minlength=4) / 20_000, expected, atol=0.015)


def test_top_p_leaves_out_the_unlikely(lm, tiny_lm_path, generator):
    """With a tiny share only the likeliest token is left, whatever the temperature."""
    narrow = HuggingFace(tiny_lm_path, max_new_tokens=24, dtype="fp32", temperature=3.0, top_p=1e-6)
    assert narrow.generate([user("hello")])[0].text == generator.generate([user("hello")])[0].text


def test_nothing_changes_but_the_answer(generator, lm, capfd):
    def state():
        return (
            torch.get_rng_state().numpy().tobytes(),
            random.getstate(),
            np.random.get_state()[1].tobytes(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_num_threads(),
        )

    before, weights = state(), weights_hash(lm)
    hot = HuggingFace(generator.model, max_new_tokens=8, dtype="fp32", temperature=1.0, top_p=0.9)
    first = generator.generate([user("hello")])
    hot.generate([user("hello")])
    generator.generate([user(SoftSegment(torch.zeros(3, 32), lm.space))])
    assert state() == before
    assert weights_hash(lm) == weights
    assert not any(p.requires_grad or p.grad is not None for p in lm.model.parameters())
    assert generator.generate([user("hello")])[0].text == first[0].text
    assert capfd.readouterr() == ("", "")


def test_two_threads_get_their_own_answers(generator):
    expected = [generator.generate([user(t)])[0].text for t in TEXTS]
    found = {}
    threads = [
        threading.Thread(target=lambda i=i: found.__setitem__(i, generator.generate([user(TEXTS[i])])[0].text))
        for i in range(len(TEXTS))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(len(TEXTS))] == expected


def test_error_of_the_listener_is_the_callers(generator):
    def fail(*_):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        generator.generate([user("hello")], on_text=fail)
    assert generator.generate([user("hello")])[0].new_tokens == 24  # the model is not left locked


def test_running_out_of_memory_is_a_generation_error(generator, lm, monkeypatch):
    def fail(**_):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(lm.model, "generate", fail)
    with pytest.raises(GenerationError, match="not enough memory"):
        generator.generate([user("hello")])


def test_it_is_plain_values(generator):
    assert pickle.loads(pickle.dumps(generator)) == generator
    assert hash(generator) == hash(pickle.loads(pickle.dumps(generator)))
    assert generator.count_tokens(["a b", ""]) == models.text_tokenizer(generator.model).count(["a b", ""])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", " "),
        ("max_new_tokens", 0),
        ("max_new_tokens", 1.5),
        ("max_new_tokens", True),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", "hot"),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("seed", -1),
        ("batch_size", 0),
        ("dtype", "int8"),
        ("device", "tpu"),
        ("stop", ("",)),
        ("stop", "END"),
    ],
)
def test_bad_options_name_themselves(field, value):
    with pytest.raises(ConfigError, match=rf"^{field}: must be"):
        HuggingFace(**{field: value})


@pytest.fixture(scope="module")
def prompt_ids(lm):
    return lambda *messages: encode_prompt(lm, list(messages)).ids


def test_prompt_is_exactly_the_models_own_template(lm, prompt_ids):
    turns = [("system", "Be brief."), ("user", " hello \n"), ("assistant", "Yes?"), ("user", "東京 12  x")]
    theirs = lm.tokenizer.apply_chat_template(
        [{"role": r, "content": c} for r, c in turns], add_generation_prompt=True
    )["input_ids"]
    assert prompt_ids(*(Message(r, (c,)) for r, c in turns)) == theirs
    assert prompt_ids(*(Message(r, (TextSegment(c[:2]), c[2:])) for r, c in turns)) == theirs


def test_a_model_that_drops_masks_reads_prompts_one_by_one(lm, tiny_lm_path, monkeypatch):
    from ragzip.models import decode

    sizes, whole = [], decode.decode_batch
    monkeypatch.setattr(decode, "decode_batch", lambda lm, some, **o: sizes.append(len(some)) or whole(lm, some, **o))
    generator = HuggingFace(tiny_lm_path, max_new_tokens=2, dtype="fp32", batch_size=3)
    generator.generate([user("a"), user("b")])
    monkeypatch.setattr(lm.model.config, "model_type", "rwkv")
    generator.generate([user("a"), user("b")])
    assert sizes == [2, 1, 1]
