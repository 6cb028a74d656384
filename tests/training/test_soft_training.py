"""Training of ``xrag``, ``comp_llm``, ``icae`` and ``refrag`` from a made-up data folder."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ragzip import registry
from ragzip.config import from_config
from ragzip.errors import ConfigError, ModelError, UsageError
from ragzip.models import load_causal_lm
from ragzip.testing.models import tiny_causal_lm
from ragzip.testing.soft import tiny_soft
from ragzip.training.card import check_card
from ragzip.training.folder import train_into
from ragzip.training.options import make_trainer, read_trainer, trainer_config
from ragzip.training.row_writer import Told
from ragzip.training.soft_data import read_soft
from ragzip.training.soft_losses import checksum
from ragzip.training.starts import went_on
from ragzip.types import Passage, Query, SoftSegment, context_of

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "training"
METHODS = ("xrag", "comp_llm", "icae", "refrag")
SHARED = {"sets": ("squad",), "texts": (), "held_out": 3, "passages": 2, "batch": 4, "steps": 16, "eval_every": 8}
TEXT = "Alba is a town by the sea. It was founded by Count Albason. Many people like its old harbour."


def toy(method, encoder, lm, **changes):
    more = {"xrag": {"encoder": encoder, "width": 16}, "refrag": {"encoder": encoder, "layers": 1, "chunk": 6}}
    adapters = {"rank": 4, "alpha": 8, "rates": (2, 4)}
    options = {**SHARED, "lr": 1e-2, **more.get(method, adapters), "dtype": "fp32", "device": "cpu", "seed": 1}
    return registry.get("training", method)(base=lm, **{**options, **changes})


@pytest.fixture(scope="module", params=METHODS)
def trained(request, tmp_path_factory, tiny_encoder_path, tiny_lm_path, small_data):
    """The method, its trainer, the folder, the report and what was told."""
    out, events = tmp_path_factory.mktemp(request.param), []
    trainer = toy(request.param, tiny_encoder_path, tiny_lm_path)
    lm = load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu")
    before = checksum(lm.model)
    report = trainer.run(out, data=small_data, on_event=events.append)
    assert checksum(lm.model) == before
    return SimpleNamespace(method=request.param, trainer=trainer, out=out, report=report, events=events, lm=lm)


@pytest.fixture(scope="module")
def soft_folders(tmp_path_factory, tiny_encoder_path, tiny_lm_path):
    root = tmp_path_factory.mktemp("others")
    return {
        name: tiny_soft(root / name, name, base=tiny_lm_path, encoder=tiny_encoder_path) for name in ("xrag", "icae")
    }


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def test_it_learns(trained):
    losses = [event.loss for event in trained.events if event.kind == "step"]
    half = round(trained.trainer.telling * trained.trainer.steps)
    assert len(losses) == trained.report.steps == trained.trainer.steps
    assert np.mean(losses[half - 3 : half]) < np.mean(losses[:3])


def test_the_same_config_gives_the_same_weights(trained, small_data, tmp_path):
    again = trained.trainer.run(tmp_path, data=small_data)
    assert weights(tmp_path) == weights(trained.out)
    assert again.metrics == trained.report.metrics


def test_an_interrupted_training_goes_on_to_the_same_end(trained, small_data, tmp_path):
    def interrupt(event):
        if event.kind == "step" and event.step == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained.trainer.run(tmp_path, data=small_data, on_event=interrupt)
    steps = []
    trained.trainer.run(
        tmp_path, data=small_data, on_event=lambda e: steps.append(e.step) if e.kind == "step" else None
    )
    assert steps[0] == 11
    assert weights(tmp_path) == weights(trained.out)


def test_going_on_from_weights_can_be_interrupted_too(tmp_path, tiny_encoder_path, tiny_lm_path, small_data):
    start = toy("comp_llm", tiny_encoder_path, tiny_lm_path, steps=2, eval_every=2)
    start.run(tmp_path / "start", data=small_data)
    more = dataclasses.replace(start, start=str(tmp_path / "start"), steps=4)

    def interrupt(event):
        if event.kind == "step" and event.step == 3:
            raise KeyboardInterrupt

    more.run(tmp_path / "whole", data=small_data)
    with pytest.raises(KeyboardInterrupt):
        more.run(tmp_path / "twice", data=small_data, on_event=interrupt)
    report = more.run(tmp_path / "twice", data=small_data)
    assert report.steps == 4
    assert weights(tmp_path / "twice") == weights(tmp_path / "whole")


def test_the_card_says_what_was_reached(trained):
    card = check_card(trained.out)
    assert card.method == trained.method
    assert card.steps == trained.trainer.steps
    (table,) = card.results
    baselines = 3 if trained.method == "refrag" else 2  # what it leaves as text, without rows, is one of them
    assert [row.role for row in table.rows] == ["trained", "untrained", *["baseline"] * baselines, "reference"]
    assert "other" in trained.report.metrics
    assert "about" in card.about
    assert make_trainer(trained.method, dict(card.config)) == trained.trainer
    assert {source.name for source in card.data} == {"squad"}


def test_the_compressor_writes_what_the_trainer_wrote(trained, tiny_lm_path, small_data):
    """The rows of the saved weights are those of the parameters they were saved from, but for half precision."""
    more = {"rate": 4} if trained.method in ("comp_llm", "icae") else {}
    if trained.method == "refrag":
        more["expand"] = 0.0
    made = from_config(
        "compressor", {"type": trained.method, "model": str(trained.out), "dtype": "fp32", "device": "cpu", **more}
    )
    context = context_of(Query("Who?"), (Passage("p", TEXT, ""),))
    (segment,) = made.compress([context])[0].segments
    assert isinstance(segment, SoftSegment)
    assert segment.space == tiny_lm_path
    assert segment.sources == context.segments[0].sources
    lm = load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu", own=True)
    found = read_soft(("squad",), (), most=(), held_out=3, data=small_data, seed=1)
    writer = trained.trainer.writer(lm, found)
    from safetensors.torch import load_file

    saved = load_file(trained.out / "model.safetensors")
    with torch.no_grad():
        fixed = {"icae": {"scale"}, "xrag": set()}.get(trained.method, {"scale", "words"})
        assert {name for name, _ in writer.named()} | fixed == set(saved)
        for name, parameter in writer.named():
            parameter.copy_(saved[name])
        (rows,) = writer.rows([Told("", TEXT)], 4)
    assert writer.counts([Told("", TEXT)], 4) == [len(rows)] == [len(segment.embeddings)]
    torch.testing.assert_close(segment.embeddings, rows.float(), rtol=1e-4, atol=1e-4)


def test_it_goes_on_from_earlier_weights(trained, small_data, tmp_path):
    from safetensors.torch import load_file, save_file

    start = tmp_path / "start"
    shutil.copytree(trained.out, start)
    before = load_file(start / "model.safetensors")
    for name, change in (("words", 0.5), ("scale", 0.25)):  # what is not trained is taken from there, too
        if name in before:
            before[name][0] += change
    save_file(before, start / "model.safetensors")
    told = []
    more = dataclasses.replace(trained.trainer, start=str(start), steps=1, lr=1e-9)
    more.run(tmp_path / "out", data=small_data, on_event=told.append)
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name].float(), tensor.float(), rtol=1e-2, atol=1e-4)
    card = check_card(tmp_path / "out")
    assert "went on from" in card.about
    assert card.config["start_sha256"] == hashlib.sha256(weights(start)).hexdigest()
    assert "without their card" in card.about.lower()  # the file was changed: the card is not its own
    if "scale" not in before:
        evaluated = [event.metrics for event in told if event.kind == "eval"]
        assert evaluated[0]["answer"] == pytest.approx(trained.report.metrics["answer"], rel=0.02)


def test_the_card_knows_whether_what_is_held_out_was_new(trained, small_data, tmp_path):
    same = dataclasses.replace(trained.trainer, start=str(trained.out), steps=1)
    same.run(tmp_path / "same", data=small_data)
    assert "without the examples that are held out here" in check_card(tmp_path / "same").about
    config = trainer_config(same)
    said = went_on(str(trained.out), check_card(trained.out).sha256["model.safetensors"], {**config, "texts": ["x"]})
    assert "held out other examples" in said


def test_what_training_cannot_go_on_from(trained, small_data, tmp_path, soft_folders, tiny_lm_path):
    t = trained.trainer
    other = {"xrag": {"width": 24}, "refrag": {"chunk": 7}}.get(trained.method, {"readout": "mean"})
    refused = {
        "nothing/there": {"start": "nothing/there"},
        "not those with the checksum": {"start": str(trained.out), "start_sha256": "0" * 64},
        f"not of {trained.method} from": {"start": str(soft_folders["icae" if trained.method != "icae" else "xrag"])},
        next(iter(other)) if trained.method != "xrag" else "shape": {"start": str(trained.out), **other},
    }
    lm = load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu")
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        before = lm.model(input_ids=ids).logits
    for said, options in refused.items():
        with pytest.raises(ModelError, match=said):
            dataclasses.replace(t, **options).run(tmp_path / "out", data=small_data)
        assert not any(m._forward_hooks for m in lm.model.modules() if isinstance(m, torch.nn.Linear))
        with torch.no_grad():
            torch.testing.assert_close(lm.model(input_ids=ids).logits, before, rtol=0, atol=0)
    with pytest.raises(UsageError, match="to go on from"):
        dataclasses.replace(t, start=str(trained.out)).run(trained.out, data=small_data)
    with pytest.raises(ConfigError, match="start"):
        dataclasses.replace(t, start_sha256="0" * 64)
    kept = weights(trained.out)
    with pytest.raises(UsageError, match="to go on from"):
        train_into(trained.out, dataclasses.replace(t, start=str(trained.out)), data=small_data, restart=True)
    assert weights(trained.out) == kept


@pytest.mark.parametrize("options", [{}, {"residual": "mean"}, {"residual": "picked", "readout": "mean"}])
def test_slots_of_passages_may_begin_as_words_too(options, tiny_encoder_path, tiny_lm_path, small_data, tmp_path):
    chosen = {"residual": "picked", **options}
    toy("icae", tiny_encoder_path, tiny_lm_path, steps=4, eval_every=4, **chosen).run(tmp_path, data=small_data)
    assert ("picked" in chosen.values()) == ("rare and often asked for" in check_card(tmp_path).about)
    made = from_config(
        "compressor", {"type": "icae", "model": str(tmp_path), "dtype": "fp32", "device": "cpu", "rate": 2}
    )
    (segment,) = made.compress([context_of(Query("Who?"), (Passage("p", TEXT, ""),))])[0].segments
    assert bool(segment.embeddings.isfinite().all())


def test_going_on_reads_other_examples_than_were_read_first(trained, small_data, tmp_path, monkeypatch):
    from ragzip.training import soft_loop

    read, real = {}, soft_loop.cycle

    def noted(items, step, batch, seed):
        some = real(items, step, batch, seed)
        assert read.setdefault((name, len(items), step), some) == some  # trained on, and counted for the card
        return some

    monkeypatch.setattr(soft_loop, "cycle", noted)
    for name, start in (("fresh", None), ("more", str(trained.out)), ("again", str(trained.out))):
        dataclasses.replace(trained.trainer, start=start, steps=2).run(tmp_path / name, data=small_data)
    steps = {key for name, *key in read for key in [tuple(key)] if name == "fresh"}
    assert len(steps) == 2
    assert all(read["more", *key] == read["again", *key] != read["fresh", *key] for key in steps)


def test_only_the_writer_learns(trained, tiny_lm_path, small_data):
    from ragzip.training.soft_loop import SoftPlan, _Run

    lm = load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu", own=True)
    t = trained.trainer
    data = read_soft(t.sets, t.texts, most=(), held_out=3, data=small_data, seed=1)
    writer = t.writer(lm)
    plan = SoftPlan(4, 0.5, t.gist, 2, 1.0, 1.0, 1.0, t.eval_rates, t.curriculum)
    run = _Run(lm, writer, data, plan, 10, 1)
    for step in (0, 9):  # a text told again, a question answered
        for loss in run.losses(step):
            loss.backward()
    missing = [name for name, p in writer.named() if p.grad is None or not bool(p.grad.isfinite().all())]
    assert not missing
    own = {id(parameter) for _, parameter in writer.named()}
    assert all(p.grad is None for p in lm.model.parameters() if id(p) not in own)


def test_losses_depend_on_the_step_alone(trained, tiny_lm_path, small_data):
    from ragzip.training.soft_loop import SoftPlan, _Run

    lm = load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu", own=True)
    t = trained.trainer
    data = read_soft(t.sets, t.texts, most=(), held_out=3, data=small_data, seed=1)
    plan = SoftPlan(4, 0.5, t.gist, 2, 1.0, 1.0, 1.0, t.eval_rates, t.curriculum)
    run = _Run(lm, t.writer(lm), data, plan, 10, 1)
    first = {step: [float(loss.detach()) for loss in run.losses(step)] for step in (0, 3, 7, 9)}
    again = {step: [float(loss.detach()) for loss in run.losses(step)] for step in (9, 0, 7, 3)}
    assert first == again
    assert len({tuple(losses) for losses in first.values()}) == 4
    assert run.tokens(10) > 100


def test_strange_rows_that_do_not_fit_the_window_are_shorter_ones(trained, tiny_lm_path, small_data):
    """A question that fits with its own passages may not with two of the longest of others."""
    from ragzip.training.row_writer import Piece
    from ragzip.training.soft_loop import SoftPlan, _Run

    if trained.method == "refrag":
        pytest.skip("as many chunks as its own stand in their places")
    lm = load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu", own=True)
    t = trained.trainer
    data = read_soft(t.sets, t.texts, most=(), held_out=3, data=small_data, seed=1)
    run = _Run(lm, t.writer(lm), data, SoftPlan(4, 0.5, t.gist, 2, 1.0, 1.0, 1.0, t.eval_rates, 0), 10, 1)
    shown, rate = (("t", "a"), ("u", "b")), max(t.eval_rates)
    long = Told("t", "Alba is a town by the sea. " * 3000)
    pieces = [[Piece(0, 1, long)], [Piece(0, 1, Told("u", "Few words."))]]
    if trained.method != "xrag":  # of which each passage is one row
        with pytest.raises(ModelError, match="does not fit the window"):
            run._framed(data.held_askings[0], shown, pieces, rate)
    laid = run._strange(data.held_askings[0], shown, pieces, rate)
    assert [told.text for told in laid.soft][1] == "Few words."
    assert len(laid.soft) == 2


def test_every_item_has_its_turn_once_a_pass():
    from ragzip.training.soft_losses import cycle

    items = list(range(7))
    seen = [item for step in range(7) for item in cycle(items, step, 2, seed=3)]
    assert sorted(seen[:7]) == sorted(seen[7:]) == items


def test_a_changed_generator_is_refused(trained, tmp_path, tiny_lm_path):
    """The weights name the generator's files; others under its name are refused before anything is generated."""
    import json
    import shutil

    other = tiny_causal_lm(tmp_path / "other", seed=5)
    folder = tmp_path / "weights"
    shutil.copytree(trained.out, folder)
    config = json.loads((folder / "config.json").read_text())
    config["base"] = str(other)
    (folder / "config.json").write_text(json.dumps(config))
    made = from_config("compressor", {"type": trained.method, "model": str(folder)})
    with pytest.raises(ModelError, match=r"was trained with .*other.* of checksum"):
        made.compress([context_of(Query("Who?"), (Passage("p", TEXT),))])


@pytest.mark.parametrize("method", METHODS)
def test_configs_round_trip(method, tiny_encoder_path, tiny_lm_path):
    trainer = toy(method, tiny_encoder_path, tiny_lm_path, kl=0.5, telling=0.25)
    assert make_trainer(method, trainer_config(trainer)) == trainer


@pytest.mark.parametrize("method", METHODS)
def test_what_is_written_for_a_gpu_trains_a_tiny_model(method, tmp_path, tiny_encoder_path, tiny_lm_path, small_data):
    """All of it but what hangs on the size of data and models."""
    small = {"sets": "[squad]", "texts": "[]", "steps": 4, "batch": 4, "eval_every": 2, "held_out": 3}
    small |= {"base": tiny_lm_path, "dtype": "fp32", "device": "cpu"}
    small |= {"encoder": tiny_encoder_path} if method in ("xrag", "refrag") else {}
    small |= {"layers": 2} if method == "refrag" else {}
    given = [f"{name}={value}" for name, value in small.items()]
    trainer = read_trainer(method, EXAMPLES / f"{method}-gpu.yaml", given)
    assert trainer.telling > 0 and trainer.kl > 0  # texts and teacher
    events = []
    report = trainer.run(tmp_path / "out", data=small_data, on_event=events.append)
    losses = [event.loss for event in events if event.kind == "step"]
    assert report.steps == len(losses) == 4
    assert np.isfinite(losses).all()
    assert check_card(tmp_path / "out").config == trainer_config(trainer)


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"telling": 1.5}, "telling"),
        ({"texts": ("nothing",)}, "texts"),
        ({"nll": 0.0, "kl": 0.0, "hidden": 0.0}, "nll"),
        ({"passages": 0}, "passages"),
    ],
)
def test_options_that_cannot_be_are_named(options, path):
    with pytest.raises(ConfigError) as caught:
        registry.get("training", "xrag")(**options)
    assert caught.value.path == path


def test_without_data_nothing_is_trained(tmp_path, tiny_encoder_path, tiny_lm_path, monkeypatch):
    monkeypatch.delenv("RAGZIP_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        toy("xrag", tiny_encoder_path, tiny_lm_path).run(tmp_path / "out", data=tmp_path / "nowhere")
