"""What ``refrag`` is trained on is what it gives a generator: text and rows at the same places, the same rows."""

from __future__ import annotations

import itertools
import json
import random
import shutil

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ragzip.compressors.refrag import REFRAG
from ragzip.errors import ConfigError, ModelError
from ragzip.models import load_causal_lm
from ragzip.models.chat import encode_prompt
from ragzip.models.picking import WordTable, best, pick
from ragzip.pipelines.prompt import QA
from ragzip.training.refrag import REFRAGTraining
from ragzip.training.row_writer import Told, strange
from ragzip.training.soft_data import Asking, read_soft
from ragzip.training.soft_loop import SoftPlan, _Run
from ragzip.training.soft_prompts import Frames
from ragzip.training.words import sizes
from ragzip.types import Passage, Query, SoftSegment, TextSegment, context_of
from tests.matrix import soft_model

TEXTS = (
    ("Alba", "Alba is a town by the sea. It was founded by Count Albason. Many people like its old harbour."),
    ("", "The river Bormida runs by.\n\nShips no longer do; the last one left in 1901, at night."),
)
QUESTION = "Who founded Alba?"


def trainer_of(encoder, lm, **options):
    return REFRAGTraining(base=lm, encoder=encoder, dtype="fp32", device="cpu", **{"layers": 0, "chunk": 6, **options})


@pytest.fixture(scope="module")
def parts(tiny_encoder_path, tiny_lm_path, small_data):
    """A writer with random values, its generator and its data."""
    lm = load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu", own=True)
    data = read_soft(("squad",), (), most=(), held_out=3, data=small_data, seed=1)
    writer = trainer_of(tiny_encoder_path, tiny_lm_path).writer(lm, data)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _, parameter in writer.named():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return writer, lm, data


def _written(text):
    """A text without its white space."""
    return "".join(text.split())


@given(
    st.lists(st.text(alphabet="ab .\n漢", max_size=80), max_size=3),
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9]),
)
@example(["aaa漢     \na"], 0.0)
@settings(max_examples=40, deadline=None)
def test_pieces_are_runs_of_chunks_of_which_a_share_is_text(parts, texts, share):
    writer = parts[0]
    given_texts = [("", text) for text in texts]
    found = writer.pieces("ab?", given_texts, share)
    chunks = [writer._places(text) for text in texts]
    total = sum(map(len, chunks))
    kept = 0
    for text, some, places in zip(texts, found, chunks, strict=True):
        assert all(piece.start < piece.end for piece in some)
        assert all((one.told is None) != (other.told is None) for one, other in itertools.pairwise(some))
        covered = "".join(text[a:b] for a, b, _ in some)
        # blank chunks are in no run's beginning or end, so that white space alone may be missing
        assert _written("".join(text[a:b] for a, b in places)) == _written(covered) == _written(text)
        kept += sum(a <= start < b for a, b, told in some if told is None for start, _ in places)
        for start, end, told in some:
            assert told is None or told.text == text[start:end]
            assert told is None or _written("".join(told.chunks)) == _written(told.text)
    assert kept == int(share * total + 1e-9)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_training_reads_what_the_compressor_writes(share, parts, tiny_encoder_path, tiny_lm_path, tmp_path):
    writer, lm, _ = parts
    trainer_of(tiny_encoder_path, tiny_lm_path).save(tmp_path, lm, {**dict(writer.named()), **writer.fixed()})
    passages = tuple(Passage(str(n), text, title) for n, (title, text) in enumerate(TEXTS))
    method = REFRAG(str(tmp_path), expand=share, policy="similarity", dtype="fp32", device="cpu")
    (after,) = method.compress([context_of(Query(QUESTION), passages)])
    pieces = writer.pieces(QUESTION, TEXTS, share)
    soft = [piece.told for some in pieces for piece in some if piece.told]
    places = [(str(n), a, b) for n, some in enumerate(pieces) for a, b, _ in some]
    found = [(s.sources[0].passage_id, s.sources[0].start, s.sources[-1].end) for s in after.segments]
    assert found == places
    assert any(isinstance(s, TextSegment) for s in after.segments) == (share > 0)
    with torch.no_grad():
        rows = writer.rows(soft, share)
    for segment, own in zip((s for s in after.segments if isinstance(s, SoftSegment)), rows, strict=True):
        torch.testing.assert_close(segment.embeddings, own, rtol=2e-2, atol=2e-2)
    asking = Asking(QUESTION, "Count", TEXTS, (), "")
    framed = Frames(lm).asking(asking, TEXTS, writer.counts(soft, share), pieces)
    prompt = encode_prompt(lm, QA().render(after)).pieces
    assert [piece for piece in framed.pieces if isinstance(piece, list)] == [p for p in prompt if isinstance(p, list)]
    assert [isinstance(piece, list) for piece in framed.pieces] == [isinstance(p, list) for p in prompt]


def test_the_control_has_the_right_text_and_as_many_rows_of_other_questions(parts):
    writer = parts[0]
    mine = writer.pieces(QUESTION, TEXTS, 0.25)
    others = writer.pieces("Why?", (("Title", "Nothing of the kind. " * 9),), 0.0)
    found, back = strange([mine, others], random.Random(0))
    assert [[piece[:2] for piece in some] for some in found] == [[piece[:2] for piece in some] for some in mine]
    pool = [chunk for piece in others[0] for chunk in piece.told.chunks]
    own = [chunk for some in mine for piece in some if piece.told for chunk in piece.told.chunks]
    for was, now in zip(itertools.chain(*mine), itertools.chain(*found), strict=True):
        assert (was.told is None) == (now.told is None)
        if was.told:
            assert was.told.title == now.told.title
            assert len(was.told.chunks) == len(now.told.chunks)
            assert set(now.told.chunks) <= set(pool)
    assert set(back[0][0].told.chunks) <= set(own)
    (alone,) = strange([mine], random.Random(0))
    assert {chunk for some in alone for piece in some if piece.told for chunk in piece.told.chunks} <= set(own)


def test_held_out_questions_are_read_at_every_share(parts):
    writer, lm, data = parts
    run = _Run(lm, writer, data, SoftPlan(4, 0.5, False, 2, 1.0, 0.0, 0.0, (0.0, 0.25)), 10, 1)
    metrics = run.evaluate()
    assert {"gain@0", "gain@0.25", "right", "answer", "other", "alone"} < metrics.keys()
    assert not {"right@0", "right@0.25"} & metrics.keys()
    assert metrics["gain"] == metrics["gain@0.25"]
    with torch.inference_mode():
        every = [run._answered(*how) for how in ((0.0,), (0.25,), (0.25, "alone"), (0.25, "strange"))]
        assert all(one != other for one, other in itertools.combinations(every, 2))
        assert run._answered(0.0, "alone") == []


def test_without_layers_the_encoder_stays_as_it_is(parts):
    writer, _, _ = parts
    assert [name for name, _ in writer.named()] == ["projection.weight", "projection.bias"]
    assert not any(parameter.requires_grad for parameter in writer._backbone.parameters())


def test_before_training_a_row_is_a_word_of_its_chunk(tiny_encoder_path, tiny_lm_path, small_data):
    lm = load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu")
    data = read_soft(("squad",), (), most=(), held_out=3, data=small_data, seed=1)
    writer = trainer_of(tiny_encoder_path, tiny_lm_path).writer(lm, data)
    (rows,) = writer.rows([Told(*TEXTS[0])], 0)
    embeddings = lm.model.get_input_embeddings().weight
    for row, (a, b) in zip(rows, writer._places(TEXTS[0][1]), strict=True):
        (ids,) = lm.text.encode([TEXTS[0][1][a:b]])
        assert any(torch.equal(row, embeddings[token]) for token in ids)


def test_the_best_token_of_each_segment_and_none_of_an_empty_one():
    draw = torch.Generator().manual_seed(0)
    table = WordTable(torch.cat([torch.randn(1, 9, generator=draw), torch.ones(2, 9)]))
    assert best(table, []).tolist() == []
    assert best(table, [[], []]).tolist() == [0, 0]
    segments = [[3, 1, 4], [], [5], [2, 6, 8, 7]]
    said = table.values[0].tolist()
    assert best(table, segments).tolist() == [max(s, key=said.__getitem__, default=0) for s in segments]
    ids = torch.tensor([segments[3]])
    chosen = pick(table, ids, torch.ones_like(ids, dtype=torch.bool), torch.tensor([1]))
    assert int(ids[chosen]) == best(table, segments)[3]


def test_weights_from_before_rows_began_as_words_are_read(tmp_path):
    context = context_of(Query(QUESTION), (Passage("p", TEXTS[0][1]),))
    folder = tmp_path / "old"
    shutil.copytree(soft_model("refrag"), folder)
    tensors, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    del tensors["words"], tensors["scale"], config["residual"]
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**config, "tensors": sorted(tensors)}))
    method = REFRAG(str(folder), expand=0.0, policy="similarity", dtype="fp32", device="cpu")
    (segment,) = method.compress([context])[0].segments
    vectors = method.load().vectors([TEXTS[0][1][a:b] for a, b in method.load().cut(TEXTS[0][1])])
    plain = vectors @ tensors["projection.weight"].float().T + tensors["projection.bias"].float()
    torch.testing.assert_close(segment.embeddings, plain)


def test_a_table_of_too_few_words_is_an_error(tmp_path):
    folder = tmp_path / "few"
    shutil.copytree(soft_model("refrag"), folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["words"] = tensors["words"][:, :50].contiguous()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"words.* has shape"):
        REFRAG(str(folder), policy="similarity", dtype="fp32").compress(
            [context_of(Query(QUESTION), (Passage("p", TEXTS[0][1]),))]
        )


@pytest.mark.parametrize(
    "options", [{"expand": ()}, {"expand": (1.0,)}, {"expand": (-0.1,)}, {"residual": "mean"}, {"layers": -1}]
)
def test_options_that_cannot_be_are_named(options):
    with pytest.raises(ConfigError) as caught:
        REFRAGTraining(**options)
    assert caught.value.path == next(iter(options))


def with_a_space_before(folder, to):
    """A model whose tokenizer puts a space before every text, as that of Llama 2 does."""
    shutil.copytree(folder, to)
    tokenizer = json.loads((to / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Prepend", "prepend": " "}
    (to / "tokenizer.json").write_text(json.dumps(tokenizer))
    return str(to)


def test_rows_are_those_of_the_chunks_that_were_cut_in_the_whole_text(tiny_encoder_path, tiny_lm_path, tmp_path):
    base = with_a_space_before(tiny_lm_path, tmp_path / "lm")
    lm = load_causal_lm(base, dtype="fp32", device="cpu")
    trainer = trainer_of(tiny_encoder_path, base)
    writer = trainer.writer(lm)
    trainer.save(tmp_path / "out", lm, {**dict(writer.named()), **writer.fixed()})
    method = REFRAG(str(tmp_path / "out"), expand=0.3, policy="similarity", dtype="fp32", device="cpu")
    texts = [("", f"{TEXTS[0][1]} {n} {TEXTS[1][1]}") for n in range(8)]
    (after,) = method.compress(
        [context_of(Query(QUESTION), tuple(Passage(str(n), t) for n, (_, t) in enumerate(texts)))]
    )
    soft = [piece.told for some in writer.pieces(QUESTION, texts, 0.3) for piece in some if piece.told]
    found = [segment.embeddings for segment in after.segments if isinstance(segment, SoftSegment)]
    assert writer.counts(soft, 0.3) == [len(rows) for rows in found]
    assert writer.counts([Told("", told.text) for told in soft], 0.3) != [len(rows) for rows in found]
    for rows, own in zip(found, writer.rows(soft, 0.3), strict=True):
        torch.testing.assert_close(rows, own.detach(), rtol=1e-3, atol=1e-3)


def test_blank_chunks_part_nothing(parts, tiny_encoder_path, tiny_lm_path, tmp_path):
    writer, lm, _ = parts
    trainer_of(tiny_encoder_path, tiny_lm_path).save(tmp_path, lm, {**dict(writer.named()), **writer.fixed()})
    texts = (("", f"{TEXTS[0][1]}{chr(10).join(' ' * 30)}{TEXTS[1][1]}"), ("", " \n "), ("", ""))
    for share in (0.0, 0.9):
        method = REFRAG(str(tmp_path), expand=share, policy="similarity", dtype="fp32", device="cpu")
        passages = tuple(Passage(str(n), text) for n, (_, text) in enumerate(texts))
        (after,) = method.compress([context_of(Query(QUESTION), passages)])
        found = [(s.sources[0].passage_id, s.sources[0].start, s.sources[-1].end) for s in after.segments]
        pieces = writer.pieces(QUESTION, texts, share)
        assert found == [(str(n), a, b) for n, some in enumerate(pieces) for a, b, _ in some]
        assert pieces[1:] == [[], []]
        assert share or len(found) == 1


def test_a_generator_that_scales_its_embeddings(tiny_encoder_path, tiny_lm_path):
    """Sizes are those of the embeddings as they are read."""
    lm = load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu", own=True)
    mean, deviation = sizes(lm)
    before = trainer_of(tiny_encoder_path, tiny_lm_path).writer(lm).fixed()["scale"]
    weight = lm.model.get_input_embeddings().weight
    torch.testing.assert_close(mean, weight.detach().mean(0))
    assert float(deviation) == pytest.approx(float(weight.detach().std()))
    lm.model.get_input_embeddings().register_forward_hook(lambda module, args, out: out * 16)
    after = trainer_of(tiny_encoder_path, tiny_lm_path).writer(lm).fixed()["scale"]
    torch.testing.assert_close(after, before * 16, rtol=1e-2, atol=0)


def test_a_tokenizer_may_know_more_tokens_than_the_generator(tiny_encoder_path, tiny_lm_path, tmp_path):
    folder = tmp_path / "lm"
    shutil.copytree(tiny_lm_path, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    rows = len(load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu").model.get_input_embeddings().weight)
    like = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["added_tokens"].append({"id": rows, "content": "<image_here>", **like})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    lm = load_causal_lm(str(folder), dtype="fp32", device="cpu")
    assert lm.text.tokenizer.get_vocab_size() > rows >= lm.text.words
    trainer = trainer_of(tiny_encoder_path, str(folder))
    writer = trainer.writer(lm)
    trainer.save(tmp_path / "out", lm, {**dict(writer.named()), **writer.fixed()})
    method = REFRAG(str(tmp_path / "out"), policy="similarity", dtype="fp32", device="cpu")
    assert method.compress([context_of(Query(QUESTION), (Passage("p", TEXTS[0][1]),))])[0].segments


def test_training_goes_on_with_layers_from_weights_without(tiny_encoder_path, tiny_lm_path, parts, tmp_path):
    writer, lm, _ = parts
    trainer_of(tiny_encoder_path, tiny_lm_path).save(tmp_path, lm, {**dict(writer.named()), **writer.fixed()})
    deeper = trainer_of(tiny_encoder_path, tiny_lm_path, layers=1, start=str(tmp_path))
    more = deeper.writer(lm)
    before = {name: value.detach().clone() for name, value in more.named()}
    deeper.take_up(more)
    assert any(name.startswith("backbone.") for name in before)
    for name, value in more.named():
        if name.startswith("backbone."):
            assert torch.equal(value, before[name])
        else:
            torch.testing.assert_close(value.detach(), dict(writer.named())[name].detach(), rtol=1e-2, atol=1e-2)


def test_loading_loads_what_compressing_needs(parts, tiny_encoder_path, tiny_lm_path, tmp_path):
    from ragzip.models import unload
    from ragzip.models.causal_lm import CausalLM
    from ragzip.models.runtime import loaded

    writer, lm, _ = parts
    trainer_of(tiny_encoder_path, tiny_lm_path).save(tmp_path, lm, {**dict(writer.named()), **writer.fixed()})
    unload()
    method = REFRAG(str(tmp_path), policy="similarity", dtype="fp32", device="cpu")
    method.compute(method.units([TEXTS[0][1]], [""])[0])
    assert not loaded(CausalLM)  # a store is filled without the generator
    method.load()
    before = len(loaded(CausalLM))
    assert before
    method.compress([context_of(Query(QUESTION), (Passage("p", TEXTS[0][1]),))])
    assert len(loaded(CausalLM)) == before


def test_a_beginning_that_cannot_be_is_an_error(tmp_path):
    folder = tmp_path / "odd"
    shutil.copytree(soft_model("refrag"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "residual": "mean"}))
    with pytest.raises(ModelError, match=r"residual: 'mean'"):
        REFRAG(str(folder), policy="similarity", dtype="fp32").load()


def test_a_policy_is_read_only_where_there_is_something_to_pick(monkeypatch, tmp_path):
    from ragzip.compressors import refrag

    asked = []
    real = refrag.scores
    monkeypatch.setattr(refrag, "scores", lambda *given: asked.append(1) or real(*given))
    context = context_of(Query(QUESTION), (Passage("p", TEXTS[0][1]),))
    for options, times in (({"expand": 0.0}, 0), ({"expand": 0.0, "budget": 9}, 1), ({"expand": 0.25}, 2)):
        REFRAG(soft_model("refrag"), policy="similarity", dtype="fp32", **options).compress([context])
        assert len(asked) == times


def test_a_policy_that_was_not_trained_is_missed_when_it_is_loaded(tmp_path):
    folder = tmp_path / "without"
    shutil.copytree(soft_model("refrag"), folder)
    tensors = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if not name.startswith("policy.")}
    save_file(kept, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tensors": sorted(kept)}))
    with pytest.raises(ModelError, match="no trained policy"):
        REFRAG(str(folder), policy="trained", dtype="fp32").load()
