"""Soft compressors that read what was compressed before."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ragzip.compressors import _stored
from ragzip.compressors._stored import fill
from ragzip.compressors.comp_llm import CompLLM
from ragzip.compressors.icae import ICAE
from ragzip.compressors.refrag import REFRAG
from ragzip.compressors.sentence_filter import SentenceFilter
from ragzip.compressors.xrag import XRAG
from ragzip.errors import ModelError, StoreDamaged, StoreError, StoreMismatch
from ragzip.indexes.soft_store import SoftStore, stores_identity
from ragzip.models import unload
from ragzip.protocols import Stack
from ragzip.testing.models import tiny_causal_lm
from ragzip.testing.soft import tiny_soft
from ragzip.types import TextSegment, context_of
from tests.compressors.soft_parts import ALBA, BORGO, FLAT, LONG, QUERY, base_of, compress, made, tokens_of
from tests.matrix import soft_model


@pytest.mark.parametrize("cls", [*FLAT, REFRAG])
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_stored_rows_are_those_that_would_be_computed(cls, precision, tmp_path):
    report = fill(made(cls), [ALBA, BORGO, LONG], tmp_path, precision=precision)
    assert report.added == report.pieces > 0
    stored = made(cls, store=str(report.folder))
    fresh, kept = compress(made(cls), ALBA, LONG), compress(stored, ALBA, LONG)
    for a, b in zip(fresh.segments, kept.segments, strict=True):
        if isinstance(a, TextSegment):
            assert a == b
            continue
        assert (a.space, a.sources, a.embeddings.shape) == (b.space, b.sources, b.embeddings.shape)
        bound = max(float(a.embeddings.abs().max()), 1.0) / (20 if precision == "int8" else 300)
        torch.testing.assert_close(a.embeddings, b.embeddings, rtol=0, atol=bound)


@pytest.mark.parametrize("cls", [*FLAT, REFRAG])
def test_with_a_full_store_nothing_is_computed_and_the_account_says_so(cls, tmp_path, monkeypatch):
    fill(made(cls), [ALBA, BORGO], tmp_path)
    method = made(cls, store=str(tmp_path))
    monkeypatch.setattr(cls, "compute", lambda self, units: pytest.fail("computed"))
    (result,) = Stack((method,)).run([context_of(QUERY, (ALBA, BORGO))], counter=tokens_of(cls))
    (step,) = result.steps
    count = sum(map(len, method.units([ALBA.text, BORGO.text], ["Alba", "Borgo"])))
    assert step.detail == f"{count} of {count} pieces from the store"


def test_what_is_not_in_the_store_is_computed_and_counted(tmp_path):
    fill(made(CompLLM), [ALBA], tmp_path)
    method = made(CompLLM, store=str(tmp_path))
    (result,) = Stack((method,)).run([context_of(QUERY, (ALBA, BORGO))], counter=tokens_of(CompLLM))
    here = len(method.units([ALBA.text], [""])[0])
    there = len(method.units([BORGO.text], [""])[0])
    assert result.steps[0].detail == f"{here} of {here + there} pieces from the store"
    assert compress(method, ALBA, BORGO).segments[1] == compress(made(CompLLM), BORGO).segments[0]


@pytest.mark.parametrize("cls", [*FLAT, REFRAG])
def test_no_piece_is_looked_up_twice(cls, tmp_path, monkeypatch):
    fill(made(cls), [ALBA, LONG], tmp_path)
    method = made(cls, store=str(tmp_path))
    asked, get = [], SoftStore.get
    monkeypatch.setattr(SoftStore, "get", lambda self, units: asked.extend(units) or get(self, units))
    after = compress(method, ALBA, BORGO, LONG)
    assert {span.passage_id for segment in after.segments for span in segment.sources} == {"a", "b", "c"}
    assert len(asked) == len(set(asked)) >= 3


def test_sentences_that_a_text_compressor_kept_are_found(tmp_path):
    fill(made(CompLLM), [ALBA, BORGO], tmp_path)
    method = made(CompLLM, store=str(tmp_path))
    kept = SentenceFilter(keep=0.4).bind(tokens_of(CompLLM)).compress([context_of(QUERY, (ALBA, BORGO))])[0]
    assert kept.segments != context_of(QUERY, (ALBA, BORGO)).segments
    (result,) = Stack((method,)).run([kept], counter=tokens_of(CompLLM))
    found, _, total, *_ = result.steps[0].detail.split()
    assert found == total


def test_filling_goes_on_and_adds_only_what_is_new(tmp_path):
    first = fill(made(CompLLM), [ALBA], tmp_path)
    again = fill(made(CompLLM), [ALBA, BORGO], tmp_path)
    same = fill(made(CompLLM), [ALBA, BORGO], tmp_path)
    assert again.added == again.pieces - first.pieces > 0
    assert same.added == 0
    assert same.pieces == again.pieces


def test_an_interrupted_filling_keeps_what_it_had(tmp_path, monkeypatch):
    monkeypatch.setattr("ragzip.compressors._stored._TOGETHER", 1)

    def passages():
        yield ALBA
        yield BORGO
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(made(CompLLM), passages(), tmp_path)
    assert fill(made(CompLLM), [ALBA, BORGO], tmp_path).added == 0


@pytest.mark.parametrize("precision", ["float16", "int8"])
@pytest.mark.parametrize("most", [64, 1500, 2500, 20_000])
def test_a_store_is_no_larger_than_it_may_be(tmp_path, most, precision):
    report = fill(made(CompLLM), [ALBA, BORGO, LONG], tmp_path, most_bytes=most, precision=precision)
    files = list(report.folder.glob("*.npy")) if report.folder.exists() else []
    assert sum(path.stat().st_size for path in files) == report.bytes <= most
    whole = fill(made(CompLLM), [ALBA, BORGO, LONG], tmp_path, precision=precision)
    assert report.full == (report.pieces < whole.pieces)
    assert (report.pieces > 0) == (most > 1000)


def test_a_store_is_opened_once_for_each_of_its_states(tmp_path, monkeypatch):
    from ragzip.compressors import _stored

    fill(made(CompLLM), [ALBA], tmp_path)
    opened = []
    real = _stored.SoftStore
    monkeypatch.setattr(_stored, "SoftStore", lambda root: opened.append(root) or real(root))
    method = made(CompLLM, store=str(tmp_path))
    for _ in range(3):
        compress(method, ALBA)
    assert len(opened) == 1
    fill(made(CompLLM), [BORGO], tmp_path)
    compress(method, ALBA, BORGO)
    assert len(opened) == 2
    assert len([root for root in _stored._open if root.is_relative_to(tmp_path)]) == 1


def test_a_damaged_store_of_another_setting_does_not_matter(tmp_path):
    fill(made(CompLLM), [ALBA], tmp_path)
    other = fill(made(CompLLM, rate=4), [ALBA], tmp_path)
    (other.folder / "store.json").write_text("{")
    compress(made(CompLLM, store=str(tmp_path)), ALBA)
    with pytest.raises(StoreError, match="cannot be read"):
        compress(made(CompLLM, rate=4, store=str(tmp_path)), ALBA)


def test_a_store_of_another_rate_or_method_is_refused(tmp_path):
    report = fill(made(CompLLM), [ALBA], tmp_path)
    with pytest.raises(StoreMismatch, match="rate") as caught:
        compress(made(CompLLM, rate=4, store=str(tmp_path)), ALBA)
    assert caught.value.hint.startswith(f"Fill one beside it: ragzip index compress {tmp_path} --with comp_llm")
    assert caught.value.hint.endswith("--set rate=4")
    with pytest.raises(StoreMismatch, match="method"):
        compress(made(ICAE, store=str(report.folder)), ALBA)
    with pytest.raises(StoreError, match="ragzip index compress"):
        compress(made(ICAE, store=str(tmp_path)), ALBA)


@pytest.mark.parametrize("cls", [*FLAT, REFRAG])
def test_a_full_store_does_not_hide_that_the_generator_is_another(cls, tmp_path, monkeypatch):
    weights = tmp_path / "weights"
    shutil.copytree(made(cls).model, weights)
    fill(dataclasses.replace(made(cls), model=str(weights)), [ALBA], tmp_path)
    config = json.loads((weights / "config.json").read_text())
    (weights / "config.json").write_text(json.dumps({**config, "base_sha256": "0" * 64}))
    with pytest.raises(ModelError, match="was trained with"):
        compress(dataclasses.replace(made(cls), model=str(weights), store=str(tmp_path)), ALBA)


def test_a_store_that_took_the_place_of_another_one_is_looked_at(tmp_path):
    """The folder is as it was opened for the others: it holds their rows, and not those that are asked for."""
    models = [tmp_path / name for name in "ab"]
    base = base_of(CompLLM)
    for seed, folder in enumerate(models):
        tiny_soft(folder, "comp_llm", base=base, seed=seed)
    own, other = (CompLLM(model=str(m), store=str(tmp_path / "store"), dtype="fp32", device="cpu") for m in models)
    for method in (own, other):
        report = fill(dataclasses.replace(method, store=""), [ALBA], tmp_path / f"index {Path(method.model).name}")
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        shutil.copytree(report.folder, tmp_path / "store")
        compress(method, ALBA)
    with pytest.raises(StoreMismatch):
        compress(own, ALBA)
    compress(other, ALBA)


@pytest.mark.parametrize("error", [RuntimeError("of the passages"), KeyboardInterrupt(), ModelError("not finite")])
def test_whatever_ends_the_filling_what_was_computed_stays(error, tmp_path):
    def passages():
        yield from (dataclasses.replace(ALBA, id=str(n), text=f"{ALBA.text} {n} ships.") for n in range(64))
        raise error

    with pytest.raises(type(error)):
        fill(made(CompLLM), passages(), tmp_path)
    report = fill(made(CompLLM), [], tmp_path)
    assert report.pieces > 60


def test_what_waits_is_written_after_a_minute(tmp_path, monkeypatch):
    now, commits = itertools.count(0, 61), []
    monkeypatch.setattr(_stored, "_now", lambda: float(next(now)))
    monkeypatch.setattr(
        _stored._Work, "commit", lambda self, real=_stored._Work.commit: commits.append(1) or real(self)
    )
    fill(made(CompLLM), [dataclasses.replace(ALBA, id=str(n), text=f"{n} {ALBA.text}") for n in range(99)], tmp_path)
    assert 10 < len(commits) < 99  # the longer it takes, the rarer


def test_another_generator_in_the_place_of_the_one_that_was_trained_for_is_refused(tmp_path):
    shutil.copytree(base_of(CompLLM), tmp_path / "lm")
    tiny_soft(tmp_path / "soft", "comp_llm", base=tmp_path / "lm")
    method = CompLLM(model=str(tmp_path / "soft"), dtype="fp32", device="cpu")
    compress(method, ALBA)
    tiny_causal_lm(tmp_path / "lm", seed=7)
    with pytest.raises(ModelError, match="checksum"):
        compress(method, ALBA)


def test_weights_do_not_hang_on_the_working_folder(tmp_path, monkeypatch):
    shutil.copytree(base_of(CompLLM), tmp_path / "lm")
    monkeypatch.chdir(tmp_path)
    tiny_soft(tmp_path / "soft", "comp_llm", base="./lm")
    method = CompLLM(model=str(tmp_path / "soft"), dtype="fp32", device="cpu")
    space = method.space
    monkeypatch.chdir("/")
    assert method.space == space == str(tmp_path / "lm")
    assert compress(method, ALBA).segments[0].space == space


def test_nothing_is_fetched_to_say_whose_rows_they_are(monkeypatch):
    monkeypatch.setattr("ragzip.models.hub.download", lambda *args, **more: pytest.fail("asked the hub"))
    assert [cls(model="someone/not-here").space for cls in FLAT] == ["", "", ""]


def test_what_is_lacking_is_said_before_anything_is_loaded(tmp_path):
    report = fill(made(CompLLM), [ALBA], tmp_path)
    assert made(CompLLM, store=str(report.folder)).lacking() == []
    assert [what.partition(":")[0] for what in made(CompLLM, rate=3).lacking()] == ["rate"]
    assert [what.partition(":")[0] for what in made(CompLLM, store=str(tmp_path / "no")).lacking()] == ["store"]
    assert [what.partition(":")[0] for what in made(CompLLM, rate=4, store=str(tmp_path)).lacking()] == ["store"]
    assert CompLLM(model="someone/not-here", store=str(tmp_path)).lacking() == []  # its model is missing, and named


def test_stores_of_the_same_pieces_are_the_same_however_they_were_filled(tmp_path):
    once, twice = tmp_path / "once", tmp_path / "twice"
    fill(made(CompLLM), [ALBA, BORGO], once)
    for passage in (BORGO, ALBA):
        fill(made(CompLLM), [passage], twice)
    assert stores_identity(once, "comp_llm") == stores_identity(twice, "comp_llm") != ""
    fill(made(CompLLM), [LONG], twice)
    assert stores_identity(once, "comp_llm") != stores_identity(twice, "comp_llm")


def test_a_full_store_needs_no_encoder(tmp_path):
    shutil.copytree(soft_model("xrag"), tmp_path / "soft")
    config = json.loads((tmp_path / "soft" / "config.json").read_text())
    shutil.copytree(config["encoder"], tmp_path / "encoder")
    config["encoder"] = str(tmp_path / "encoder")
    (tmp_path / "soft" / "config.json").write_text(json.dumps(config))
    method = XRAG(model=str(tmp_path / "soft"), dtype="fp32", device="cpu")
    fill(method, [ALBA], tmp_path / "kb")
    shutil.rmtree(tmp_path / "encoder")
    unload()
    assert compress(dataclasses.replace(method, store=str(tmp_path / "kb")), ALBA).segments
    with pytest.raises(ModelError, match="does not exist"):
        compress(method, ALBA)


@pytest.mark.parametrize("cls", [CompLLM, ICAE])
def test_a_full_store_needs_no_second_generator(cls, tmp_path, monkeypatch):
    fill(made(cls), [ALBA, BORGO], tmp_path)
    unload()
    monkeypatch.setattr("ragzip.compressors._concepts.load_concepts", lambda *a, **o: pytest.fail("loaded"))
    assert compress(made(cls, store=str(tmp_path)), ALBA, BORGO).segments
    with pytest.raises(pytest.fail.Exception, match="loaded"):
        compress(made(cls, store=str(tmp_path)), LONG)


def test_what_refrag_lacks_is_said_before_anything_is_loaded(tmp_path, monkeypatch):
    report = fill(made(REFRAG), [ALBA], tmp_path / "kb")
    monkeypatch.setattr("ragzip.compressors.refrag.load_chunks", lambda *a, **o: pytest.fail("loaded"))
    assert made(REFRAG, store=str(report.folder)).lacking() == made(REFRAG, store=str(tmp_path / "kb")).lacking() == []
    assert [what.partition(":")[0] for what in made(REFRAG, store=str(tmp_path / "no")).lacking()] == ["store"]
    shutil.copytree(soft_model("refrag"), tmp_path / "soft")
    file = tmp_path / "soft" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "tensors": [t for t in config["tensors"] if not t.startswith("policy.")]}))
    bare = REFRAG(model=str(tmp_path / "soft"), policy="trained")
    assert [what.partition(":")[0] for what in bare.lacking()] == ["policy"]
    file.write_text(json.dumps({**config, "encoder": str(tmp_path / "gone")}))
    (said,) = bare.lacking()
    assert said.startswith("model: its encoder") and "gone" in said


def test_what_waits_is_bounded_by_its_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(_stored, "_COMMIT_BYTES", 5_000)
    fill(made(CompLLM), [dataclasses.replace(ALBA, id=str(n), text=f"{n} {ALBA.text}") for n in range(60)], tmp_path)
    (root,) = (tmp_path / "soft").iterdir()
    shards = SoftStore(root).shards
    width = SoftStore(root).setting.columns
    assert len(shards) > 1
    assert all(4 * width * shard.rows < 5_000 + 4 * width * 20 for shard in shards)


def test_missing_chunks_of_a_context_are_computed_by_themselves(tmp_path, monkeypatch):
    """So the choice of chunks does not hang on the batch, not even by rounding."""
    fill(made(REFRAG), [BORGO], tmp_path)
    lots, compute = [], REFRAG.compute
    monkeypatch.setattr(REFRAG, "compute", lambda self, units: lots.append(list(units)) or compute(self, units))
    method = made(REFRAG, store=str(tmp_path), expand=0.25)
    contexts = [context_of(QUERY, passages) for passages in ((ALBA, BORGO), (BORGO,), (LONG, ALBA))]
    together = method.compress(contexts)
    assert len(lots) == 2
    alone = [lots[0], lots[1]]
    lots.clear()
    for context, before in zip(contexts, together, strict=True):
        (after,) = method.compress([context])
        for a, b in zip(after.segments, before.segments, strict=True):
            assert type(a) is type(b) and a.sources == b.sources
    assert lots == alone


def test_what_a_batch_found_is_told_as_that_of_the_batch(tmp_path):
    fill(made(CompLLM), [ALBA], tmp_path)
    method = made(CompLLM, store=str(tmp_path))
    contexts = [context_of(QUERY, (passage,)) for passage in (ALBA, BORGO)]
    results = Stack((method,)).run(contexts, counter=tokens_of(CompLLM))
    assert {result.steps[0].detail.partition("store")[2] for result in results} == {" (of 2 contexts together)"}


def test_of_two_precisions_the_store_that_holds_more_is_read(tmp_path):
    part = fill(made(CompLLM), [ALBA], tmp_path, precision="float16")
    whole = fill(made(CompLLM), [ALBA, BORGO], tmp_path, precision="int8")
    assert whole.pieces > part.pieces
    (result,) = Stack((made(CompLLM, store=str(tmp_path)),)).run(
        [context_of(QUERY, (BORGO,))], counter=tokens_of(CompLLM)
    )
    kept, _, wanted = result.steps[0].detail.partition(" of ")
    assert kept == wanted.partition(" ")[0]


@pytest.mark.parametrize(
    ("cls", "option", "says"),
    [(REFRAG, "chunk", "does not fit the encoder"), (ICAE, "segment", "reads"), (CompLLM, "segment", "reads")],
)
def test_pieces_longer_than_what_reads_them_are_refused(cls, option, says, tmp_path):
    folder = Path(shutil.copytree(made(cls).model, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, option: 100_000}))
    with pytest.raises(ModelError, match=says):
        compress(dataclasses.replace(made(cls), model=str(folder)), LONG)


@pytest.mark.parametrize("cls", [*FLAT, REFRAG])
def test_broken_rows_of_a_store_are_told_of_the_store(cls, tmp_path, monkeypatch):
    method = made(cls)
    fill(method, [ALBA], tmp_path)
    real = SoftStore.get
    monkeypatch.setattr(SoftStore, "get", lambda *args: {unit: rows * np.nan for unit, rows in real(*args).items()})
    with pytest.raises(StoreDamaged, match="not finite"):
        compress(dataclasses.replace(method, store=str(tmp_path)), ALBA)
