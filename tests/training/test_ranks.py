"""Several processes train what one trains: the same weights but for rounding, written once, and taken up again."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ragzip import yaml_io
from ragzip.errors import UsageError
from ragzip.models import load_causal_lm
from ragzip.training import soft_loop
from ragzip.training.folder import train_into
from ragzip.training.loop import _backward
from ragzip.training.options import make_trainer, trainer_config
from ragzip.training.ranks import Ranks, joined, ranks
from ragzip.training.soft_data import read_soft
from ragzip.training.soft_loop import SoftPlan
from tests.training.test_soft_training import toy

ROOT = Path(__file__).parents[2]


def launch(world, arguments, **more):
    """As ``torchrun`` does it: the same command so many times, each told its number."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "ragzip", *map(str, arguments)],
            env={**os.environ, **shared, **more, "RANK": str(number), "LOCAL_RANK": str(number)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(world)
    ]
    return [(*process.communicate(timeout=240), process.returncode) for process in started]


@pytest.fixture(params=["xrag", "comp_llm"])
def trainer(request, tiny_encoder_path, tiny_lm_path):
    return toy(request.param, tiny_encoder_path, tiny_lm_path, steps=8, eval_every=4, batch=5, checkpoint_every=4)


def config(trainer, path):
    path.write_text(yaml_io.dump(trainer_config(trainer)), "utf-8")
    return path


def test_two_processes_train_what_one_trains(trainer, small_data, tmp_path):
    alone = train_into(tmp_path / "alone", trainer, data=small_data)
    method = trainer_config(trainer)["type"]
    file = config(trainer, tmp_path / "config.yaml")
    out = tmp_path / "two"
    found = launch(2, ["train", method, file, "--out", out, "--data-dir", small_data, "--json"])
    assert [code for _, _, code in found] == [0, 0], found
    assert json.loads(found[0][0])["steps"] == alone.steps
    assert found[1][0] == found[1][1] == ""  # only the first one speaks
    one, two = (load_file(folder / "model.safetensors") for folder in (alone.folder, out))
    assert one.keys() == two.keys()
    # Adam makes as large a step of a gradient that is nearly 0, so that rounding shows in single numbers.
    apart, size = (
        sum(float(t.float().square().sum()) for t in some) ** 0.5
        for some in ([two[name].float() - one[name].float() for name in one], one.values())
    )
    assert apart < 0.02 * size
    lines = (out / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 4, 8]
    # Finished before: both say so, and nothing is trained.
    again = launch(2, ["train", method, file, "--out", out, "--data-dir", small_data, "--json"])
    assert [code for _, _, code in again] == [0, 0], again
    assert "was finished before" in again[0][1]
    # What came of it is what two processes go on from.
    more = config(dataclasses.replace(trainer, start=str(alone.folder), steps=1, lr=1e-9), tmp_path / "more.yaml")
    found = launch(2, ["train", method, more, "--out", tmp_path / "more", "--data-dir", small_data, "--json"])
    assert [code for _, _, code in found] == [0, 0], found
    three = load_file(tmp_path / "more" / "model.safetensors")
    assert all(torch.allclose(three[name].float(), one[name].float(), rtol=1e-2, atol=1e-4) for name in one)
    # Stopped after the last checkpoint: all of them take it up.
    (out / "report.json").unlink()
    before = (out / "model.safetensors").read_bytes()
    again = launch(2, ["train", method, file, "--out", out, "--data-dir", small_data, "--json"])
    assert [code for _, _, code in again] == [0, 0], again
    assert (out / "model.safetensors").read_bytes() == before
    steps = [json.loads(line)["step"] for line in (out / "history.jsonl").read_text().splitlines()]
    assert steps == [0, 4, 8, 0]  # measured as it was, and not trained again


def test_what_trains_in_one_process_says_so(tmp_path, tiny_encoder_path, small_data, monkeypatch):
    trainer = make_trainer("late_interaction", {"base": tiny_encoder_path, "sets": ["squad"], "judge": None})
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="late_interaction trains in one process"):
        train_into(tmp_path / "out", trainer, data=small_data)


def test_an_environment_without_an_address_is_refused(trainer, tmp_path, small_data, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UsageError, match="MASTER_ADDR is not set"):
        train_into(tmp_path / "out", trainer, data=small_data)


def test_a_problem_of_the_first_is_told_to_the_others(trainer, small_data, tmp_path):
    file = config(trainer, tmp_path / "config.yaml")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "else.txt").write_text("mine")
    arguments = ["train", trainer_config(trainer)["type"], file, "--out", tmp_path / "out", "--data-dir", small_data]
    found = launch(2, arguments)
    assert all(code not in (0, None) for _, _, code in found)
    assert all("holds something else than a training" in err for _, err, _ in found)


def test_the_gradients_of_all_add_up_to_those_of_one(trainer, small_data):
    data = read_soft(trainer.sets, trainer.texts, most=trainer.most, held_out=3, data=small_data, seed=trainer.seed)
    lm = load_causal_lm(trainer.base, dtype="fp32", device="cpu", own=True)
    writer = trainer.writer(lm)
    plan = SoftPlan(5, 0.5, trainer.gist, 2, 1.0, 2.0, 1.0, trainer.eval_rates)
    run = soft_loop._Run(lm, writer, data, plan, 8, trainer.seed)

    def gradients(step, number, world):
        run.ranks = Ranks(number, world)
        for _, parameter in writer.named():
            parameter.grad = None
        total = _backward(run.losses(step))
        return total, [0 if p.grad is None else p.grad.clone() for _, p in writer.named()]

    try:
        for step in (0, 7):  # texts told again, and questions
            value, alone = gradients(step, 0, 1)
            assert any(torch.is_tensor(one) and one.abs().sum() > 0 for one in alone)
            for world in (2, 7):  # more than there are examples, too
                found = [gradients(step, number, world) for number in range(world)]
                assert sum(one for one, _ in found) == pytest.approx(value, rel=1e-4)
                for expected, *parts in zip(alone, *(grads for _, grads in found), strict=True):
                    torch.testing.assert_close(
                        torch.as_tensor(sum(parts)), torch.as_tensor(expected), rtol=1e-3, atol=1e-5
                    )
    finally:
        trainer.done(writer)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_shares_are_all_examples_once(world):
    for count in (0, 1, 5, 8):
        shares = [Ranks(number, world).share(count) for number in range(world)]
        assert sorted(n for share in shares for n in share) == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_changes():
    assert ranks() == Ranks()
    parameter = torch.nn.Parameter(torch.ones(2))
    assert Ranks().add([parameter], 3.5) == 3.5
    assert parameter.grad is None
    assert Ranks().same("x") == "x"


def test_processes_do_not_share_one_gpu(monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="2 processes cannot all train on cuda:0"), joined("cuda:0"):
        pass
