"""The policy of ``refrag``: its gradient, and that it learns which chunk the generator cannot do without."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ragzip.compressors._expansion import most_as_text
from ragzip.compressors.refrag import REFRAG
from ragzip.errors import ConfigError, ModelError, UsageError
from ragzip.models import load_causal_lm
from ragzip.models.chunks import load_chunks, preferences
from ragzip.training import refrag_policy
from ragzip.training.card import check_card
from ragzip.training.refrag_policy import REFRAGPolicyTraining, log_likelihood
from ragzip.training.soft_data import read_soft
from ragzip.types import Passage, Query, TextSegment, context_of
from tests.matrix import soft_model


def test_choices_have_the_likelihood_of_being_drawn():
    logits = torch.tensor([0.3, -1.0, 2.0, 0.0])
    ways = list(itertools.permutations(range(4), 2))
    total = sum(float(log_likelihood(logits, way).exp()) for way in ways)
    assert total == pytest.approx(1.0, abs=1e-6)
    first = sum(float(log_likelihood(logits, way).exp()) for way in ways if way[0] == 2)
    assert first == pytest.approx(float(logits.softmax(0)[2]), abs=1e-6)


def toy(**changes):
    options = {"sets": ("squad",), "held_out": 3, "passages": 2, "batch": 2, "steps": 6, "eval_every": 3, "width": 8}
    return REFRAGPolicyTraining(model=soft_model("refrag"), dtype="fp32", device="cpu", **{**options, **changes})


def test_holding_everything_out_is_refused(small_data, tmp_path):
    with pytest.raises(UsageError, match="is left to train on"):
        toy(held_out=10_000).run(tmp_path, data=small_data)


def test_the_share_that_is_text_is_that_of_the_compressor():
    assert [most_as_text(0.25, count) for count in (0, 3, 4, 7, 8)] == [0, 0, 1, 1, 2]
    assert most_as_text(0.07, 100) == 7  # 0.07 * 100 is a little more than 7, 0.29 * 100 a little less than 29
    assert most_as_text(0.29, 100) == 29


def test_it_trains_resumes_and_serves(small_data, tmp_path):
    whole = toy().run(tmp_path / "whole", data=small_data)
    assert whole.steps == 6

    def interrupt(event):
        if event.kind == "step" and event.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy().run(tmp_path / "parts", data=small_data, on_event=interrupt)
    steps = []
    toy().run(tmp_path / "parts", data=small_data, on_event=lambda e: e.kind == "step" and steps.append(e.step))
    assert steps == [5, 6]
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert first == second
    card = check_card(tmp_path / "whole")
    assert card.method == "refrag_policy"
    method = REFRAG(str(tmp_path / "whole"), policy="trained", expand=0.3, dtype="fp32", device="cpu")
    text = "Alba is a town by the sea. It was founded by Count Albason. Many people like it."
    (after,) = method.compress([context_of(Query("Who?"), (Passage("p", text),))])
    assert any(isinstance(segment, TextSegment) for segment in after.segments)


def test_a_kill_costs_the_steps_since_the_last_checkpoint(small_data, tmp_path):
    def die(event):
        if event.kind == "step" and event.step == 5:
            raise SystemExit(137)

    with pytest.raises(SystemExit):
        toy(checkpoint_every=2).run(tmp_path, data=small_data, on_event=die)
    steps = []
    toy(checkpoint_every=2).run(tmp_path, data=small_data, on_event=lambda e: e.kind == "step" and steps.append(e.step))
    assert steps == [5, 6]
    assert REFRAGPolicyTraining(model="m").checkpoint_every <= 50


def test_contexts_that_are_read_together_cost_what_they_cost_alone(small_data):
    """And what is held out is encoded once, whatever is measured with it."""
    options = toy()
    lm = load_causal_lm(json.loads((Path(options.model) / "config.json").read_text())["base"], dtype="fp32")
    policy = refrag_policy._Policy(options, lm, load_chunks(options.model, dtype="fp32", device="cpu"))
    held = read_soft(("squad",), (), most=(), held_out=3, data=small_data, seed=0).held_askings
    reads = policy._held(held)
    assert all(a is b for a, b in zip(reads, policy._held(held), strict=True))
    choices = [[0], [1, 0], []]
    with torch.no_grad():
        together = policy._losses(held, reads, choices)
        alone = [policy._losses([a], [r], [c])[0] for a, r, c in zip(held, reads, choices, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert len(set(alone)) == 3


def test_it_learns_what_is_rewarded(small_data, tmp_path, monkeypatch):
    """With a reward for the chunk of those who like it, the policy comes to choose it every time."""

    def losses(self, askings, reads, choices):
        shown = [
            [read.chunks.layout.text(read.chunks.units[i]) for i in choice]
            for read, choice in zip(reads, choices, strict=True)
        ]
        return [-1.0 * any("like" in text for text in texts) for texts in shown]

    monkeypatch.setattr(refrag_policy._Policy, "_losses", losses)
    report = toy(steps=60, lr=3e-2, eval_every=20, expand=0.15, batch=4, passages=1).run(tmp_path, data=small_data)
    untrained = next(row for row in check_card(tmp_path).results[0].rows if row.role == "untrained").values[0]
    assert report.metrics["answer"] == pytest.approx(2.718, abs=0.01)  # e to the reward: always chosen
    assert untrained < 2.7


def test_it_begins_as_similarity(small_data):
    trainer = toy()
    encoder = load_chunks(trainer.model, dtype="fp32", device="cpu")
    lm = load_causal_lm(encoder.space, dtype="fp32", device="cpu")
    policy = refrag_policy._Policy(trainer, lm, encoder)
    held = read_soft(("squad",), (), most=(), held_out=3, data=small_data, seed=0).held_askings
    assert policy.evaluate(held, "trained") == policy.evaluate(held, "similarity")
    tensors = {name: value.detach() for name, value in policy.named()}
    question, chunks = (
        encoder.vectors(["Who founded Alba?"])[0],
        encoder.vectors(["by Count", "the sea", "Alba was", "a"]),
    )
    close = torch.nn.functional.cosine_similarity(question[None], chunks)
    assert preferences(tensors, question, chunks).argsort().tolist() == close.argsort().tolist()


def test_weights_must_be_named(tmp_path):
    with pytest.raises(ConfigError, match="model"):
        REFRAGPolicyTraining(model="").run(tmp_path)


def test_questions_beyond_the_window_are_left_out_before_training(small_data, tmp_path, monkeypatch):
    load = refrag_policy.load_causal_lm
    monkeypatch.setattr(refrag_policy, "load_causal_lm", lambda *a, **o: replace(load(*a, **o), window=30))
    with pytest.raises(ModelError, match=r"examples left out that may not fit the window of 30 tokens"):
        toy().run(tmp_path, data=small_data)
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_training_does_not_go_on_with_other_weights(small_data, tmp_path):
    model = Path(shutil.copytree(soft_model("refrag"), tmp_path / "model"))

    def interrupt(event):
        if event.kind == "step" and event.step == 2:
            raise KeyboardInterrupt

    trainer = replace(toy(), model=str(model))
    with pytest.raises(KeyboardInterrupt):
        trainer.run(tmp_path / "out", data=small_data, on_event=interrupt)
    tensors = load_file(model / "model.safetensors")
    save_file({**tensors, "projection.weight": tensors["projection.weight"] * 2}, model / "model.safetensors")
    with pytest.raises(UsageError, match="another configuration or other data"):
        trainer.run(tmp_path / "out", data=small_data)
