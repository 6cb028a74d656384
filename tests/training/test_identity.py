"""What a training may go on from, and what it says to data and folders that it cannot use."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

from ragzip.compressors.recomp_abstractive import RecompAbstractive
from ragzip.compressors.recomp_extractive import RecompExtractive
from ragzip.errors import IngestError, UsageError
from ragzip.models import runtime
from ragzip.models.runtime import choose_dtype
from ragzip.testing.models import tiny_causal_lm, tiny_encoder
from ragzip.training.encoders import longest
from ragzip.training.examples import read_examples, steps_of_dev
from ragzip.training.folder import train_into
from ragzip.training.identity import identity
from ragzip.training.llmlingua2 import LLMLingua2Training
from ragzip.training.soft_data import _documents
from tests.training.data import lines
from tests.training.test_other_trainings import toy


def stopped(trainer, out, data, at):
    def interrupt(event):
        if event.kind == "step" and event.step == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(out, data=data, on_event=interrupt)


def test_other_models_other_data_and_another_format_are_another_run(tmp_path, tiny_lm_path, monkeypatch):
    one, other = (str(tiny_encoder(tmp_path / str(seed), seed=seed)) for seed in (0, 9))
    trainer = replace(toy("recomp_extractive", one, tiny_lm_path), dtype="auto")
    monkeypatch.setattr(runtime, "_cpu_has_bf16", lambda: False)
    first = identity(trainer, "data", one, None, "")
    assert first == identity(trainer, "data", one)
    assert first != identity(trainer, "data", other)
    assert first != identity(trainer, "others", one)
    assert first != identity(trainer, "data", one, index="x")
    monkeypatch.setattr(runtime, "_cpu_has_bf16", lambda: True)
    assert first != identity(trainer, "data", one)


def test_a_training_does_not_go_on_from_a_base_that_changed(tmp_path, tiny_lm_path, small_data):
    base, out = tiny_encoder(tmp_path / "base"), tmp_path / "out"
    trainer = toy("recomp_extractive", str(base), tiny_lm_path)
    stopped(trainer, out, small_data, 25)
    tensors = load_file(base / "model.safetensors")
    save_file({key: value + 0.01 for key, value in tensors.items()}, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match="another configuration"):
        trainer.run(out, data=small_data)


def test_a_restart_with_another_method_leaves_nothing_of_the_first(
    tmp_path, tiny_encoder_path, tiny_lm_path, small_data
):
    train_into(tmp_path, toy("recomp_extractive", tiny_encoder_path, tiny_lm_path), data=small_data)
    (tmp_path / "notes.txt").write_text("mine")
    train_into(tmp_path, toy("recomp_abstractive", tiny_encoder_path, tiny_lm_path), data=small_data, restart=True)
    assert not (tmp_path / "model.safetensors").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    RecompAbstractive(model=str(tmp_path), device="cpu").load()


def test_nothing_to_measure_with_is_said(tmp_path, tiny_encoder_path, tiny_lm_path, small_data):
    alone = replace(toy("recomp_extractive", tiny_encoder_path, tiny_lm_path), sets=("squad_sentences",))
    with pytest.raises(UsageError, match="none has others beside it"):
        alone.run(tmp_path, data=small_data)
    short = replace(toy("recomp_abstractive", tiny_encoder_path, tiny_lm_path), max_tokens=32)
    with pytest.raises(UsageError, match="held out fit 32 tokens"):
        short.run(tmp_path, data=small_data)


def damaged(path):
    packed = bytearray(path.read_bytes())
    packed[20:50] = bytes(30)
    path.write_bytes(packed)


def test_damaged_files_are_named(tmp_path, small_data):
    folder = tmp_path / "data"
    shutil.copytree(small_data, folder)
    damaged(folder / "squad" / "train-answer-sentences.jsonl.gz")
    with pytest.raises(IngestError, match="train-answer-sentences"):
        read_examples(("squad_sentences",), data=folder, seed=0, most={})
    lines(folder / "lm_corpus" / "a.jsonl.gz", *({"text": f"A text, number {n}, of several words."} for n in range(50)))
    damaged(folder / "lm_corpus" / "a.jsonl.gz")
    with pytest.raises(IngestError, match="lm_corpus"):
        list(_documents("lm_corpus", folder))


@pytest.mark.parametrize("steps", [None, [], ["a string"], 3, [{"question": "Who?"}]])
def test_steps_of_another_form_are_none(tmp_path, small_data, steps):
    folder = tmp_path / "data"
    shutil.copytree(small_data, folder)
    lines(folder / "musique" / "dev.jsonl.gz", {"question_decomposition": steps, "paragraphs": None})
    asked, told = steps_of_dev(folder)
    assert asked == ({"who?"} if isinstance(steps, list) and steps and isinstance(steps[0], dict) else set())
    assert not told


def test_lines_that_are_no_objects_are_named(tmp_path, small_data):
    folder = tmp_path / "data"
    shutil.copytree(small_data, folder)
    (folder / "squad" / "train-answer-sentences.jsonl.gz").write_bytes(gzip.compress(b"[1]\n"))
    with pytest.raises(IngestError, match="no JSON object"):
        read_examples(("squad_sentences",), data=folder, seed=0, most={})


@pytest.mark.parametrize("restart", [False, True])
def test_what_is_read_is_no_folder_to_write_to(tmp_path, tiny_lm_path, small_data, restart):
    base = tiny_encoder(tmp_path / "base")
    before = {path.name: path.read_bytes() for path in base.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="what the training reads as base"):
        train_into(base, toy("recomp_extractive", str(base), tiny_lm_path), data=small_data, restart=restart)
    assert {path.name: path.read_bytes() for path in base.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("home", [False, True])
def test_a_teacher_is_no_folder_to_write_to_either(tmp_path, small_data, monkeypatch, home):
    teacher = tiny_causal_lm(tmp_path / "teacher")
    before = {path.name: path.read_bytes() for path in teacher.rglob("*") if path.is_file()}
    monkeypatch.setenv("HOME", str(tmp_path))
    trainer = LLMLingua2Training(teacher="~/teacher" if home else str(teacher))
    with pytest.raises(UsageError, match="what the training reads as teacher"):
        train_into(teacher, trainer, data=small_data, restart=True)
    assert {path.name: path.read_bytes() for path in teacher.rglob("*") if path.is_file()} == before


def test_steps_of_an_unpacked_development_set_count(tmp_path, small_data):
    folder = tmp_path / "data"
    shutil.copytree(small_data, folder)
    row = {"question_decomposition": [{"question": "Who founded Alba?"}], "paragraphs": []}
    (folder / "musique" / "dev.jsonl.gz").unlink(missing_ok=True)
    (folder / "musique" / "dev.jsonl").write_text(json.dumps(row) + "\n")
    assert steps_of_dev(folder)[0] == {"who founded alba?"}


@pytest.mark.parametrize("method", ["recomp_extractive", "recomp_abstractive"])
def test_weights_from_a_relative_base_load_from_anywhere(tmp_path, small_data, monkeypatch, method):
    tiny_encoder(tmp_path / "enc")
    tiny_causal_lm(tmp_path / "lm")
    monkeypatch.chdir(tmp_path)
    train_into(tmp_path / "out", toy(method, "./enc", "./lm"), data=small_data)
    monkeypatch.chdir("/")
    compressor = {"recomp_extractive": RecompExtractive, "recomp_abstractive": RecompAbstractive}[method]
    compressor(model=str(tmp_path / "out"), device="cpu").load()


def test_a_run_goes_on_in_the_format_in_which_it_began(
    tmp_path, tiny_encoder_path, tiny_lm_path, small_data, monkeypatch
):
    trainer = replace(toy("recomp_extractive", tiny_encoder_path, tiny_lm_path), dtype="auto")
    monkeypatch.setattr(runtime, "_cpu_has_bf16", lambda: False)
    out, whole = tmp_path / "out", tmp_path / "whole"
    train_into(whole, trainer, data=small_data)

    def interrupt(event):
        if event.kind == "step" and event.step == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_into(out, trainer, data=small_data, on_event=interrupt)
    monkeypatch.setattr(runtime, "_cpu_has_bf16", lambda: True)
    train_into(out, trainer, data=small_data)
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert choose_dtype("auto", "cpu").itemsize == 2  # outside of the training, what the processor is good at


def test_encoders_that_lose_positions_are_not_read_beyond_them(tmp_path):
    folder = tiny_encoder(tmp_path / "enc")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "model_type": "roberta", "max_position_embeddings": 34, "pad_token_id": 1}))
    assert longest(str(folder), 512) == 32
    assert longest(str(folder), 20) == 20
