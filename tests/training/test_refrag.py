"""What ``refrag`` is trained on is what it gives a generator: text and rows at the same places, the same rows."""

from __future__ import annotations

import itertools
import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ragzip.compressors.refrag import REFRAG
from ragzip.errors import ConfigError, ModelError
from ragzip.models import load_causal_lm
from ragzip.models.chat import encode_prompt
from ragzip.models.picking import WordTable, best, pick
from ragzip.pipelines.prompt import QA
from ragzip.training.refrag import REFRAGTraining
from ragzip.training.soft_data import Asking, read_soft
from ragzip.training.soft_loop import SoftPlan, _Run
from ragzip.training.soft_prompts import Frames
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


@given(
    st.lists(st.text(alphabet="ab .\n漢", max_size=80), max_size=3),
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9]),
)
@settings(max_examples=40, deadline=None)
def test_pieces_are_runs_of_chunks_of_which_a_share_is_text(parts, texts, share):
    writer = parts[0]
    given_texts = [("", text) for text in texts]
    found = writer.pieces("ab?", given_texts, share)
    chunks = [writer._places(text) for text in texts]
    total = sum(map(len, chunks))
    kept = 0
    for text, some, places in zip(texts, found, chunks, strict=True):
        assert all(a < b or not text for a, b, _ in some)
        assert all(one[2] != other[2] for one, other in itertools.pairwise(some))
        covered = "".join(text[a:b] for a, b, _ in some)
        assert "".join(text[a:b] for a, b in places).split() == covered.split() == text.split()
        kept += sum(a <= start < b for a, b, is_text in some if is_text for start, _ in places)
    assert kept == int(share * total + 1e-9)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_training_reads_what_the_compressor_writes(share, parts, tiny_encoder_path, tiny_lm_path, tmp_path):
    writer, lm, _ = parts
    trainer_of(tiny_encoder_path, tiny_lm_path).save(tmp_path, lm, {**dict(writer.named()), **writer.fixed()})
    passages = tuple(Passage(str(n), text, title) for n, (title, text) in enumerate(TEXTS))
    method = REFRAG(str(tmp_path), expand=share, policy="similarity", dtype="fp32", device="cpu")
    (after,) = method.compress([context_of(Query(QUESTION), passages)])
    pieces = writer.pieces(QUESTION, TEXTS, share)
    soft = [("", text[a:b]) for (_, text), some in zip(TEXTS, pieces, strict=True) for a, b, kept in some if not kept]
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


def words_of(laid):
    return [piece for piece in laid.framed.pieces if isinstance(piece, list)]


def test_the_control_has_the_right_text_and_rows_of_other_passages(parts):
    writer, lm, data = parts
    run = _Run(lm, writer, data, SoftPlan(4, 0.5, False, 2, 1.0, 0.0, 0.0, (0.0, 0.25)), 10, 1)
    asking = Asking(QUESTION, "Count", TEXTS, (), "")
    own, strange = run._laid(asking, TEXTS, 0.25), run._laid(asking, TEXTS, 0.25, lambda: "Nothing of the kind. " * 9)
    assert words_of(own) == words_of(strange)
    assert [title for title, _ in own.soft] == [title for title, _ in strange.soft]
    assert all("Nothing of the kind. ".startswith(text[:21]) for _, text in strange.soft)
    assert [len(text) for _, text in own.soft] == [len(text) for _, text in strange.soft]


def test_held_out_questions_are_read_at_every_share(parts):
    writer, lm, data = parts
    run = _Run(lm, writer, data, SoftPlan(4, 0.5, False, 2, 1.0, 0.0, 0.0, (0.0, 0.25)), 10, 1)
    metrics = run.evaluate()
    assert {"gain@0", "gain@0.25", "right@0", "right@0.25", "other"} < metrics.keys()
    assert metrics["gain"] == metrics["gain@0.25"]
    with torch.inference_mode():
        assert run._answered(0.0) != run._answered(0.25)
    assert metrics["right@0"] == metrics["right@0.25"]


def test_without_layers_the_encoder_stays_as_it_is(parts):
    writer, _, _ = parts
    assert [name for name, _ in writer.named()] == ["projection.weight", "projection.bias"]
    assert not any(parameter.requires_grad for parameter in writer._backbone.parameters())


def test_before_training_a_row_is_a_word_of_its_chunk(tiny_encoder_path, tiny_lm_path, small_data):
    lm = load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu")
    data = read_soft(("squad",), (), most=(), held_out=3, data=small_data, seed=1)
    writer = trainer_of(tiny_encoder_path, tiny_lm_path).writer(lm, data)
    (rows,) = writer.rows([TEXTS[0]], 0)
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
    method = REFRAG(str(folder), expand=0.0, dtype="fp32", device="cpu")
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
        REFRAG(str(folder), dtype="fp32").compress([context_of(Query(QUESTION), (Passage("p", TEXTS[0][1]),))])


@pytest.mark.parametrize(
    "options", [{"expand": ()}, {"expand": (1.0,)}, {"expand": (-0.1,)}, {"residual": "mean"}, {"layers": -1}]
)
def test_options_that_cannot_be_are_named(options):
    with pytest.raises(ConfigError) as caught:
        REFRAGTraining(**options)
    assert caught.value.path == next(iter(options))
