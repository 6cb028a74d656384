"""Soft compressors over tiny models with random weights: rows, spans, stores, errors, and what a generator does."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import pytest
import torch
from hypothesis import given, settings

from ragzip import config
from ragzip.compressors.comp_llm import CompLLM
from ragzip.compressors.icae import ICAE
from ragzip.compressors.refrag import REFRAG
from ragzip.compressors.sentence_filter import SentenceFilter
from ragzip.compressors.text_then_soft import TextThenSoft
from ragzip.compressors.xrag import XRAG
from ragzip.errors import ConfigError, ModelError, StackError
from ragzip.generators.huggingface import HuggingFace
from ragzip.models import load_causal_lm
from ragzip.models.chat import encode_prompt
from ragzip.pipelines import Pipeline
from ragzip.protocols import Stack
from ragzip.testing.strategies import contexts
from ragzip.tokens import TokenCounter, lay_out
from ragzip.types import Context, Message, Passage, Query, SoftSegment, Span, TextSegment, context_of
from tests.compressors.soft_parts import ALBA, BORGO, FLAT, LONG, NAMES, QUERY, base_of, compress, made, tokens_of
from tests.matrix import soft_model


@pytest.mark.parametrize("cls", FLAT)
def test_the_question_does_not_matter(cls):
    one, other = compress(made(cls), ALBA, LONG), compress(made(cls), ALBA, LONG, query=Query(""))
    assert one.segments == other.segments
    assert made(cls).compress_passages([ALBA, LONG]) == list(one.segments)


def test_a_passage_is_one_row_unless_the_encoder_must_read_it_in_parts():
    short, long = compress(made(XRAG), ALBA, LONG).segments
    assert short.embeddings.shape == (1, 32)
    bridge = made(XRAG).load()
    assert len(long.embeddings) == len(bridge.pieces(LONG.text)) > 2


@pytest.mark.parametrize("rate", [2, 4])
def test_segments_end_with_sentences_and_give_a_row_for_every_so_many_tokens(rate):
    method = made(CompLLM, rate=rate)
    encoder = method.load()
    (segment,) = compress(method, ALBA).segments
    sizes = [len(ids) for ids in encoder.segments([ALBA.text])[0]]
    assert max(sizes) <= encoder.recipe.segment
    assert len(segment.embeddings) == sum(-(-size // rate) for size in sizes)
    first = compress(method, dataclasses.replace(ALBA, text="Alba is a town.")).segments[0].embeddings
    torch.testing.assert_close(segment.embeddings[: len(first)], first)


def test_a_segment_that_was_read_is_not_read_again(monkeypatch):
    from ragzip.models import concepts

    calls = []
    real = concepts.read_out
    monkeypatch.setattr(concepts, "read_out", lambda *args: calls.append(len(args[3])) or real(*args))
    passage = Passage("n", "A sentence that nobody read before. Another one that is new.")
    compress(made(CompLLM), passage)
    assert sum(calls) > 0
    calls.clear()
    compress(made(CompLLM), Passage("m", "Another one that is new."), query=Query("Why?"))
    assert not calls


def test_a_rate_that_was_not_trained_is_refused():
    with pytest.raises(ConfigError, match=r"8 was not trained.*It has: 2, 4"):
        compress(made(CompLLM, rate=8), ALBA)


@pytest.mark.parametrize("cls", [*FLAT, REFRAG])
def test_weights_for_another_method_are_refused(cls):
    other = XRAG if cls is CompLLM else CompLLM
    with pytest.raises(ModelError, match=rf"trained to be a {NAMES[other]}, not a {NAMES[cls]}"):
        compress(cls(model=soft_model(NAMES[other])), ALBA)


@pytest.mark.parametrize("cls", [*FLAT, REFRAG])
def test_a_broken_value_is_an_error_before_anything_is_generated(cls, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "broken"
    shutil.copytree(soft_model(NAMES[cls]), folder)
    tensors = load_file(folder / "model.safetensors")
    name = {XRAG: "bridge.2.bias", REFRAG: "projection.bias"}.get(cls, "head.bias")
    tensors[name][3] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    stack = Stack((cls(model=str(folder)),))
    with pytest.raises(ModelError, match=f"{name}.*not finite"):
        stack.run([context_of(QUERY, (ALBA,))])


@pytest.mark.parametrize("cls", [*FLAT, REFRAG])
@pytest.mark.parametrize(
    "change", [{"tensors": [{}]}, {"tensors": [0]}, {"rates": -1}, {"rates": "x"}, {"rates": True}]
)
def test_configs_that_are_none_are_refused(cls, change, tmp_path):
    folder = tmp_path / "odd"
    shutil.copytree(soft_model(NAMES[cls]), folder)
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text("utf-8")), **change}), "utf-8")
    with pytest.raises(ModelError, match="no lists of names and rates"):
        compress(cls(model=str(folder)), ALBA)
    assert "no lists of names and rates" in cls(model=str(folder)).lacking()[0]


@pytest.mark.parametrize("cls", [*FLAT, REFRAG])
def test_missing_tensors_are_named(cls, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "lacking"
    shutil.copytree(soft_model(NAMES[cls]), folder)
    tensors = load_file(folder / "model.safetensors")
    gone = sorted(tensors)[0]
    del tensors[gone]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match=f"lack {gone}"):
        compress(cls(model=str(folder)), ALBA)


@pytest.mark.parametrize(
    ("cls", "key", "value"),
    [
        *((XRAG, "piece", 0), (XRAG, "piece", "x"), (REFRAG, "chunk", 0), (CompLLM, "rank", 0)),
        *(
            (CompLLM, "residual", 1),
            (CompLLM, "residual", ["mean"]),
            (CompLLM, "layers", -1),
            (CompLLM, "layers", None),
        ),
    ],
)
def test_a_config_that_cannot_be_is_an_error(cls, key, value, tmp_path):
    folder = tmp_path / "odd"
    shutil.copytree(soft_model(NAMES[cls]), folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, key: value}))
    with pytest.raises(ModelError, match=re.escape(f"{key}: {value!r}")):
        Stack((cls(model=str(folder)),)).run([context_of(QUERY, (ALBA,))])


@pytest.mark.parametrize("cls", FLAT)
@given(context=contexts())
@settings(max_examples=25, deadline=None)
def test_there_are_no_more_rows_than_tokens(cls, context):
    """Of each segment by itself, a token of white space at its end aside."""
    method = made(cls)
    count = load_causal_lm(base_of(cls), dtype="fp32", device="cpu").text.count
    (after,) = method.compress([context])
    kept = [segment for segment in context.segments if segment.text.strip()]
    for segment, soft in zip(kept, after.segments, strict=True):
        least = getattr(method, "rate", 1)
        tokens = count([segment.text])[0]
        assert 1 <= len(soft.embeddings) <= max(tokens if least == 1 else tokens // 2 + len(segment.text.split()), 1)


@pytest.mark.parametrize("cls", [*FLAT, REFRAG])
def test_a_context_is_counted_as_the_generator_reads_it(cls):
    """Rows stand between texts, which are tokenised apart; what a prompt is longer by is what is counted."""
    lm = load_causal_lm(base_of(cls), dtype="fp32", device="cpu")
    passages = [Passage(str(n), f"Fact {n} is odd. Nobody doubts it.", "Alba" if n % 2 else "") for n in range(12)]
    after = compress(made(cls), *passages)
    counted = tokens_of(cls).context(after)
    pieces = encode_prompt(lm, [Message("user", ("\n", *lay_out(after), "\n"))]).pieces
    bare = encode_prompt(lm, [Message("user", ("\n",))]).length
    length = sum(map(len, pieces))
    assert abs(length - bare - counted) <= 2  # where the context meets what stands around it


def test_chunks_cover_a_text_and_keep_characters_whole():
    encoder = made(REFRAG).load()
    for text in ("漢" * 24, "Ships pass. 😀😀 and on", "a", "e\u0301" * 9, ALBA.text * 3):
        places = encoder.cut(text)
        assert "".join(text[a:b] for a, b in places) == text
        (whole,) = load_causal_lm(base_of(REFRAG), dtype="fp32", device="cpu").text.encode_places([text])
        for a, b in places:
            tokens = sum(1 for start, _ in whole[1] if a <= start < b)
            assert tokens <= encoder.chunk or b - a == 1


def test_passages_that_come_again_are_told_apart():
    rows = torch.zeros(1, 32)
    first, second = (SoftSegment(rows, "m", (Span("a", *place),)) for place in ((0, 10), (10, 20)))
    context = Context(QUERY, (first, second, first), (ALBA,))
    assert [piece for piece in lay_out(context) if isinstance(piece, str)] == ["Alba\n", "\n\n"]


def test_many_passages_are_counted_a_few_times_only(monkeypatch):
    calls = []

    def count(texts):
        calls.append(1)
        return [len(text.split()) for text in texts]

    passages = [Passage(str(n), f"Fact {n} is odd.", "", 1 / (n + 1)) for n in range(200)]
    after = compress(TextThenSoft(made(XRAG), budget=400).bind(TokenCounter(count)), *passages)
    assert any(isinstance(s, TextSegment) for s in after.segments)
    assert len(calls) < 40


@pytest.mark.parametrize("cls", [*FLAT, REFRAG])
def test_a_model_must_be_named(cls):
    with pytest.raises(ConfigError, match="model"):
        cls(model="")


@pytest.mark.parametrize(("key", "value", "said"), [("residual", "x", "cannot be"), ("layers", 3, "has 2 layers")])
def test_a_recipe_that_cannot_be_is_an_error(key, value, said, tmp_path):
    folder = tmp_path / "odd"
    shutil.copytree(soft_model("comp_llm"), folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, key: value}))
    with pytest.raises(ModelError, match=said):
        Stack((CompLLM(str(folder)),)).run([context_of(QUERY, (ALBA,))])


@pytest.mark.parametrize("residual", [True, False])
def test_weights_from_before_words_were_picked_are_read(residual, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "old"
    shutil.copytree(soft_model("icae"), folder)
    tensors, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    tensors["scale"].fill_(1.0)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**config, "residual": "mean" if residual else "none"}))
    now = compress(ICAE(str(folder)), ALBA)
    del tensors["scale"], config["layers"]
    save_file(tensors, folder / "model.safetensors")
    names = [name for name in config["tensors"] if name != "scale"]
    (folder / "config.json").write_text(json.dumps({**config, "residual": residual, "tensors": names}))
    before = compress(ICAE(str(folder)), ALBA)
    assert torch.equal(now.segments[0].embeddings, before.segments[0].embeddings)


@pytest.mark.parametrize("value", [-1.0, 0.5, 7.0])
def test_a_table_of_words_that_cannot_be_is_an_error(value, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "odd"
    shutil.copytree(soft_model("comp_llm"), folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["words"][1, 5] = value
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match="words"):
        compress(CompLLM(str(folder)), ALBA)


# Text and rows together.


def test_what_stays_text_between_rows_is_read_on_without_a_break():
    after = compress(made(REFRAG, expand=0.3), ALBA)
    kinds = [type(segment) for segment in after.segments]
    assert {TextSegment, SoftSegment} == set(kinds)
    assert "".join(ALBA.text[s.start : s.end] for seg in after.segments for s in seg.sources) == ALBA.text
    pieces = lay_out(after)
    assert pieces[0] == "Alba\n"
    assert all(not isinstance(piece, str) for piece in pieces[1:])
    both = lay_out(compress(made(REFRAG, expand=0.3), ALBA, BORGO))
    assert [piece for piece in both if isinstance(piece, str)] == ["Alba\n", "\n\nBorgo\n"]


@pytest.mark.parametrize("budget", [0, 1, 3, 10, 20, 60, 500])
def test_a_budget_for_chunks_and_for_passages_is_met(budget):
    counter = HuggingFace(model=base_of(REFRAG)).count_tokens
    for method in (
        made(REFRAG, expand=0.5, budget=budget),
        TextThenSoft(made(XRAG), budget=budget),
        TextThenSoft(made(CompLLM), budget=budget, text=1),
    ):
        bound = method.bind(TokenCounter(counter))
        assert TokenCounter(counter).context(compress(bound, ALBA, BORGO, LONG)) <= budget


def test_the_best_passages_stay_text():
    counter = tokens_of(XRAG)
    after = compress(TextThenSoft(made(XRAG), text=1).bind(counter), BORGO, ALBA, LONG)
    assert [type(s).__name__ for s in after.segments] == ["SoftSegment", "TextSegment", "SoftSegment"]
    assert after.segments[1].text == ALBA.text
    whole = compress(TextThenSoft(made(XRAG), budget=10_000).bind(counter), BORGO, ALBA)
    assert whole.segments == context_of(QUERY, (BORGO, ALBA)).segments


@pytest.mark.parametrize(
    ("options", "read"), [({"text": 2}, 1), ({"text": 3}, 0), ({"text": 0}, 3), ({"budget": 10_000}, 0)]
)
def test_only_what_may_be_shown_as_rows_is_compressed(options, read, monkeypatch):
    passages, inner = [], XRAG.compress

    def compress_(self, contexts):
        passages.extend(context.segments for context in contexts)
        return inner(self, contexts)

    monkeypatch.setattr(XRAG, "compress", compress_)
    after = compress(TextThenSoft(made(XRAG), **options).bind(tokens_of(XRAG)), BORGO, ALBA, LONG)
    assert len(passages) == sum(isinstance(s, SoftSegment) for s in after.segments) == read
    assert len(after.segments) == 3


# Generators.


def test_a_stack_of_text_and_soft_answers_and_accounts():
    base = base_of(CompLLM)
    pipeline = Pipeline(
        HuggingFace(model=base, max_new_tokens=5, dtype="fp32"), compressors=(SentenceFilter(keep=0.6), made(CompLLM))
    )
    answer = pipeline.answer(QUERY.text, passages=[ALBA, BORGO])
    assert [step.name for step in answer.compression.steps] == ["sentence_filter", "comp_llm"]
    assert answer.compression.tokens_out < answer.compression.steps[0].tokens_out < answer.compression.tokens_in
    assert any(isinstance(s, SoftSegment) for s in answer.compression.context.segments)
    assert answer.text == pipeline.answer(QUERY.text, passages=[ALBA, BORGO]).text


def test_answers_do_not_depend_on_the_batch():
    base = base_of(CompLLM)
    method = made(CompLLM)
    from ragzip.pipelines.prompt import QA

    contexts = [compress(method, *p) for p in ((ALBA,), (BORGO, LONG), (LONG,))]
    prompts = [QA().render(context) for context in contexts]
    alone = HuggingFace(model=base, max_new_tokens=8, dtype="fp32").generate(prompts)
    together = HuggingFace(model=base, max_new_tokens=8, dtype="fp32", batch_size=3).generate(prompts)
    assert [g.text for g in alone] == [g.text for g in together]


def test_rows_for_another_generator_are_refused_before_anything_is_loaded(tiny_lm_path):
    pipeline = Pipeline(HuggingFace(model=tiny_lm_path), compressors=(made(XRAG),))
    with pytest.raises(StackError) as caught:
        pipeline.check()
    assert tiny_lm_path in str(caught.value)
    assert base_of(XRAG) in str(caught.value)
    Pipeline(HuggingFace(model=base_of(XRAG)), compressors=(made(XRAG),)).check()


def test_text_compressors_do_not_come_after_soft_ones():
    with pytest.raises(StackError, match="takes text"):
        Pipeline(HuggingFace(model=base_of(XRAG)), compressors=(made(XRAG), SentenceFilter(keep=0.5))).check()


def test_a_generator_that_reads_ids_only_says_so(monkeypatch):
    from ragzip.errors import GenerationError
    from ragzip.pipelines.prompt import QA

    lm = load_causal_lm(base_of(XRAG), dtype="fp32", device="cpu")
    monkeypatch.setattr(type(lm.model), "forward", lambda self, input_ids=None, attention_mask=None: None)
    prompt = QA().render(compress(made(XRAG), ALBA))
    with pytest.raises(GenerationError, match="inputs_embeds"):
        HuggingFace(model=base_of(XRAG), dtype="fp32", device="cpu").generate([prompt])


@pytest.mark.parametrize("cls", [*FLAT, REFRAG])
def test_configs_round_trip_and_load_nothing(cls, monkeypatch):
    monkeypatch.setattr("ragzip.models.soft_folder.open_soft", lambda *a: pytest.fail("loaded"))
    method = made(cls)
    assert config.from_config("compressor", config.to_config(method)) == method
    nested = TextThenSoft(method, budget=50)
    assert config.from_config("compressor", config.to_config(nested)) == nested


def test_segments_without_a_passage_and_blank_ones():
    context = Context(QUERY, (TextSegment("Loose text.", ()), TextSegment("  \n", (Span("a", 0, 2),))), (ALBA,))
    for cls in (*FLAT, REFRAG):
        (after,) = made(cls).compress([context])
        assert all(not segment.sources for segment in after.segments)
        assert len(after.segments) >= 1


def test_a_generator_whose_generate_reads_ids_only_says_so(monkeypatch):
    from ragzip.errors import GenerationError
    from ragzip.pipelines.prompt import QA

    lm = load_causal_lm(base_of(XRAG), dtype="fp32", device="cpu")
    monkeypatch.setattr(type(lm.model), "prepare_inputs_for_generation", lambda self, input_ids, **more: None)
    prompt = QA().render(compress(made(XRAG), ALBA))
    with pytest.raises(GenerationError, match="inputs_embeds"):
        HuggingFace(model=base_of(XRAG), dtype="fp32", device="cpu").generate([prompt])


@pytest.mark.parametrize("cls", FLAT)
def test_a_passage_without_text_has_no_rows_of_the_generators_width(cls):
    method = cls(model=soft_model(NAMES[cls]))
    empty, full = method.compress_passages([Passage("e", " "), ALBA])
    assert empty.embeddings.shape == (0, full.embeddings.shape[1])
