"""Passages that were read before: the same as reading them alone, once, and in their places."""

from __future__ import annotations

import dataclasses
import datetime
import os
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from ragzip.errors import ConfigError, GenerationError, StoreDamaged
from ragzip.generators.huggingface import HuggingFace
from ragzip.kv import precomputed
from ragzip.kv.precomputed import PrecomputedKV, blocks_of, turned
from ragzip.kv.quantized import QuantizedKV
from ragzip.models import load_causal_lm
from ragzip.models.chat import encode_prompt
from ragzip.pipelines.prompt import QA, Plain
from ragzip.testing.models import tiny_causal_lm
from ragzip.types import Message, Passage, Query, SoftSegment, TextSegment, context_of

ALBA = Passage("a", "Alba is a town. It was founded by Count Albason in 1290.", "Alba")
BORGO = Passage("b", "Borgo is a hill. Goats live there.", "Borgo")
CELLA = Passage("c", "Cella lies by the sea.", "")


@pytest.fixture(autouse=True)
def forgotten():
    precomputed._held.clear()


@pytest.fixture
def lm(tiny_lm_path):
    return load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu")


@pytest.fixture
def generator(tiny_lm_path):
    return HuggingFace(model=tiny_lm_path, dtype="fp32", device="cpu", max_new_tokens=8, kv=(PrecomputedKV(),))


def prompt(*passages, question="Who founded Alba?", template=None):
    return (template or QA()).render(context_of(Query(question), passages))


def test_parts_are_the_prompt(lm):
    parts = blocks_of(lm, prompt(ALBA, BORGO, CELLA), 0)
    assert len(parts) == 7
    decoded = [lm.text.tokenizer.decode(part, skip_special_tokens=False) for part in parts]
    whole = lm.text.tokenizer.decode(encode_prompt(lm, prompt(ALBA, BORGO, CELLA)).ids, skip_special_tokens=False)
    assert "".join(decoded) == whole
    assert decoded[0].endswith("Context:\n")
    assert decoded[1] == f"Alba\n{ALBA.text}"
    assert decoded[2] == decoded[4] == "\n\n"
    assert decoded[3] == f"Borgo\n{BORGO.text}"
    assert decoded[5] == CELLA.text


@pytest.mark.parametrize(
    "template", [QA(), Plain(), Plain("Read this.\n{context}\n{query}"), Plain("{query} {context}")]
)
def test_a_passage_is_the_same_part_wherever_it_stands(lm, template):
    orders = [(ALBA, BORGO, CELLA), (CELLA, ALBA, BORGO), (BORGO, CELLA, ALBA)]
    found = [blocks_of(lm, prompt(*order, template=template), 0) for order in orders]
    assert len({tuple(parts[0]) for parts in found}) == 1
    passages = [{tuple(part) for part in parts[1:]} for parts in found]
    if template != Plain("{query} {context}"):  # there the last passage is what stands at the end, and is read anew
        assert passages[0] == passages[1] == passages[2]


def by_hand(lm, parts):
    """Every passage read behind the beginning, both moved by position ids to where it stands; the rest behind all."""
    from transformers.cache_utils import DynamicCache

    first, *passages, last = parts
    whole = DynamicCache()
    with torch.inference_mode():
        lm.model(input_ids=torch.tensor([first]), past_key_values=whole, use_cache=True)
        place = len(first)
        for passage in passages:
            own = DynamicCache()
            ids = [*first, *passage]
            places = torch.arange(len(ids))[None] + place - len(first)
            lm.model(input_ids=torch.tensor([ids]), position_ids=places, past_key_values=own, use_cache=True)
            for number, layer in enumerate(own.layers):
                whole.update(layer.keys[:, :, len(first) :], layer.values[:, :, len(first) :], number)
            place += len(passage)
        places = torch.arange(place, place + len(last))[None]
        return lm.model(input_ids=torch.tensor([last]), position_ids=places, past_key_values=whole).logits[0, -1]


@pytest.mark.parametrize("passages", [(ALBA,), (ALBA, BORGO), (CELLA, BORGO, ALBA)])
def test_what_is_put_together_reads_as_passages_that_do_not_see_each_other(lm, passages):
    messages = prompt(*passages)
    parts = blocks_of(lm, messages, 0)
    made, cache, _ = PrecomputedKV().prepare(lm, messages, 0)
    assert made.ids == [token for part in parts for token in part]
    size = cache.get_seq_length()
    assert size == made.length - len(parts[-1])
    with torch.inference_mode():
        places = torch.arange(size, made.length)[None]
        found = lm.model(input_ids=torch.tensor([parts[-1]]), position_ids=places, past_key_values=cache).logits[0, -1]
    torch.testing.assert_close(found, by_hand(lm, parts), rtol=1e-3, atol=1e-3)


def test_the_generator_goes_on_from_there(lm, generator):
    """Its first token is the likeliest by the cache that was put together; places go on where that ends."""
    messages = prompt(CELLA, BORGO, ALBA)
    (found,) = dataclasses.replace(generator, max_new_tokens=1).generate([messages])
    best = int(by_hand(lm, blocks_of(lm, messages, 0)).argmax())
    assert found.text == lm.text.tokenizer.decode([best]).strip()
    assert found.prompt_tokens == sum(map(len, blocks_of(lm, messages, 0)))


def test_one_passage_is_read_as_usual(generator):
    """With one passage nothing is hidden from it: the answer is that of the plain generator."""
    messages = prompt(ALBA)
    (plain,) = dataclasses.replace(generator, kv=()).generate([messages])
    (found,) = generator.generate([messages])
    assert found.text == plain.text


def test_without_passages_nothing_is_precomputed(generator):
    messages = [Message("user", ("Why is that?",))]
    assert generator.generate([messages])[0].text == dataclasses.replace(generator, kv=()).generate([messages])[0].text
    assert not precomputed._held


def test_a_passage_is_read_once_whatever_is_asked_and_wherever_it_stands(generator, monkeypatch):
    read = []
    real = precomputed._compute
    monkeypatch.setattr(precomputed, "_compute", lambda lm, before, ids: read.append(len(ids)) or real(lm, before, ids))
    generator.generate([prompt(ALBA, BORGO, CELLA)])
    assert len(read) == 5  # with the beginning, and what stands between passages
    generator.generate([prompt(BORGO, CELLA, ALBA, question="Who lives on the hill?")])
    assert len(read) == 5
    precomputed.forget_caches()
    generator.generate([prompt(BORGO, CELLA, ALBA)])
    assert len(read) == 10


def test_the_beginning_is_read_once_and_not_with_each_passage(lm):
    read = []
    hook = lm.model.base_model.register_forward_pre_hook(
        lambda _, args, options: read.append(options["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        messages = prompt(ALBA, BORGO, CELLA)
        PrecomputedKV().prepare(lm, messages, 0)
    finally:
        hook.remove()
    first, alba, separator, borgo, _, cella, _ = map(len, blocks_of(lm, messages, 0))
    assert read == [first, alba, separator, borgo, cella]


def test_keys_turned_are_those_of_later_places(lm):
    ids = torch.tensor([[5, 9, 17, 40]])
    caches = []
    for first in (0, 23):
        from transformers.cache_utils import DynamicCache

        cache = DynamicCache()
        with torch.inference_mode():
            places = torch.arange(4)[None] + first
            lm.model(input_ids=ids, position_ids=places, past_key_values=cache, use_cache=True)
        caches.append(torch.stack([torch.stack([layer.keys[0], layer.values[0]]) for layer in cache.layers]))
    torch.testing.assert_close(turned(lm, caches[0], 23), caches[1], rtol=1e-4, atol=1e-4)


def test_a_store_serves_the_next_process_and_no_other_model(generator, tmp_path, monkeypatch):
    from ragzip.testing.models import tiny_causal_lm

    stored = dataclasses.replace(generator, kv=(PrecomputedKV(str(tmp_path / "kv")),))
    (first,) = stored.generate([prompt(ALBA, BORGO)])
    files = list((tmp_path / "kv").rglob("*.safetensors"))
    assert len(files) == 4
    precomputed._held.clear()
    real = precomputed._compute
    monkeypatch.setattr(precomputed, "_compute", lambda *args: pytest.fail("computed again"))
    assert stored.generate([prompt(ALBA, BORGO)])[0].text == first.text
    monkeypatch.setattr(precomputed, "_compute", real)
    other = dataclasses.replace(stored, model=str(tiny_causal_lm(tmp_path / "other", seed=3)))
    other.generate([prompt(ALBA, BORGO)])
    assert len(list((tmp_path / "kv").rglob("*"))) == 8 + len({f.name[:2] for f in (tmp_path / "kv").rglob("*.safet*")})
    precomputed._held.clear()
    for file in files:
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(StoreDamaged, match="cannot be read"):
        stored.generate([prompt(ALBA, BORGO)])


def test_memory_is_bounded(generator, monkeypatch):
    monkeypatch.setattr(precomputed, "_MEMORY", 100_000)
    generator.generate([prompt(*(Passage(str(n), f"Passage {n} says little. " * 5) for n in range(12)))])
    assert sum(t.numel() * t.element_size() for t in precomputed._held.values()) <= 100_000


def test_a_context_at_the_very_end_is_read(generator):
    template = Plain(template="{query}\n\n{context}")
    assert generator.generate([prompt(ALBA, BORGO, template=template)])[0].new_tokens > 0


def test_soft_segments_and_other_methods_are_refused(generator, lm):
    soft = SoftSegment(torch.zeros(2, lm.dimensions), lm.space)
    with pytest.raises(GenerationError, match="soft segments"):
        generator.generate([[Message("user", ("Read: ", soft))]])
    with pytest.raises(ConfigError, match="precomputed_kv with another"):
        dataclasses.replace(generator, kv=(PrecomputedKV(), QuantizedKV()))


def test_processes_that_write_the_same_cache_do_not_disturb_each_other(tmp_path):
    import threading

    method, kv, problems = PrecomputedKV(str(tmp_path)), torch.zeros(2, 2, 1, 50, 64), []

    def write():
        try:
            for _ in range(20):
                method._save("ab" * 32, kv)
                assert method._load("ab" * 32, 50) is not None
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["ab" * 32 + ".safetensors"]


def test_what_is_in_memory_gets_into_a_store_too(generator, tmp_path):
    generator.generate([prompt(ALBA, BORGO)])
    with_store = dataclasses.replace(generator, kv=(PrecomputedKV(str(tmp_path)),))
    (found,) = with_store.generate([prompt(ALBA, BORGO)])
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 4  # the beginning, two passages and what parts them
    precomputed._held.clear()
    (again,) = with_store.generate([prompt(BORGO, ALBA)])
    assert again.cached_tokens == found.cached_tokens > 0
    assert sorted(tmp_path.rglob("*.safetensors")) == files


def test_what_is_told_of_a_prompt_hangs_on_it_alone(generator):
    both = generator.generate([prompt(ALBA, BORGO), prompt(BORGO, ALBA)])
    again = generator.generate([prompt(BORGO, ALBA)])
    assert both[0].cached_tokens == both[1].cached_tokens == again[0].cached_tokens
    for found in (*both, *again, *generator.generate([prompt()])):
        assert found.cached_tokens < found.prompt_tokens
        assert found.kv_bytes == found.kv_bytes_full > 0
        assert found.kv_bytes % found.prompt_tokens == 0
    assert both[0].cached_tokens > found.cached_tokens == 0  # without passages there is nothing to be kept


def test_what_a_killed_writer_left_is_removed_in_time(generator, tmp_path):
    stored = dataclasses.replace(generator, kv=(PrecomputedKV(store=str(tmp_path)),))
    stored.generate([prompt(ALBA)])
    (kept, *_) = tmp_path.rglob("*.safetensors")
    old, new = (kept.with_name(f"{kept.name}.{name}.tmp") for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    kept.unlink()
    precomputed._held.clear()
    stored.generate([prompt(ALBA)])
    assert kept.is_file() and new.is_file() and not old.exists()


def test_a_store_with_a_zero_byte_is_refused():
    with pytest.raises(ConfigError, match="zero byte"):
        PrecomputedKV(store="a\0b")


@pytest.mark.parametrize("change", [lambda kv: kv * float("nan"), lambda kv: kv[..., :1, :], lambda kv: kv[0]])
def test_a_file_of_something_else_is_a_damaged_store(change, generator, tmp_path):
    stored = dataclasses.replace(generator, kv=(PrecomputedKV(store=str(tmp_path)),))
    stored.generate([prompt(ALBA, BORGO)])
    for file in tmp_path.rglob("*.safetensors"):
        save_file({"kv": change(load_file(file)["kv"]).contiguous()}, file)
    precomputed._held.clear()
    with pytest.raises(StoreDamaged, match="numbers that are none"):
        stored.generate([prompt(ALBA, BORGO)])


def test_a_passage_without_tokens_is_none(generator, lm):
    empty = [Message("user", ("Context:\n", TextSegment(""), "\n\nWho?"))]
    among = [
        Message("user", ("Context:\n", TextSegment("A hill."), TextSegment(""), TextSegment("Goats."), "\n\nWho?"))
    ]
    without = [Message("user", ("Context:\n", TextSegment("A hill."), TextSegment("Goats."), "\n\nWho?"))]
    assert generator.generate([empty])[0].prompt_tokens == encode_prompt(lm, empty).length
    assert blocks_of(lm, among, 0) == blocks_of(lm, without, 0)
    assert generator.generate([among])[0].text == generator.generate([without])[0].text


def test_what_was_read_is_of_use_on_another_day(tmp_path, monkeypatch):
    template = (
        "Today: {{ strftime_now('%d %b %Y') }}\n{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}A:{% endif %}"
    )
    model = str(tiny_causal_lm(tmp_path / "dated", chat_template=template))
    cached = PrecomputedKV(store=str(tmp_path / "store"))
    generator = HuggingFace(model=model, dtype="fp32", device="cpu", max_new_tokens=2, kv=(cached,))
    found = []
    for day in (1, 2):
        date = SimpleNamespace(now=lambda day=day: datetime.datetime(2025, 5, day))
        monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", date)
        assert f"0{day} May" in generator.load().text.tokenizer.decode(
            encode_prompt(generator.load(), prompt(ALBA)).ids
        )
        precomputed._held.clear()
        generator.generate([prompt(ALBA, BORGO)])
        found.append(sorted(tmp_path.rglob("*.safetensors")))
    assert found[0] == found[1]
