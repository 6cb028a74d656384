"""The training loop: an interrupted run is the same run, the best parameters are saved, and nothing is half written."""

from __future__ import annotations

import errno
import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ragzip.errors import ModelError, StoreError, UsageError
from ragzip.training.loop import CHECKPOINT, LoopSettings, Masters, rate, train


class Killed(BaseException):
    """The process ends here: nothing that follows runs."""


class Toy:
    """A matrix and a vector that learn to map rows; the batch of a step depends on the step alone."""

    def __init__(self, folder, *, dtype=torch.float32, scores=None, config=None, **settings):
        draw = torch.Generator().manual_seed(0)
        self.weight = torch.randn(4, 3, generator=draw).to(dtype).requires_grad_(True)
        self.bias = torch.zeros(4, dtype=dtype, requires_grad=True)
        self.wanted = torch.randn(4, 3, generator=draw)
        self.folder, self.scores, self.config = folder, scores, config or {"seed": 0}
        self.settings = LoopSettings(**{"steps": 20, "lr": 0.1, "eval_every": 4, "checkpoint_every": 3, **settings})
        self.events, self.saved, self.asked, self.stop = [], [], 0, {}

    def loss(self, step):
        self._stop("loss", step)
        rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(100 + step)).to(self.weight.dtype)
        found = rows @ self.weight.T + self.bias
        return ((found - rows @ self.wanted.T.to(self.weight.dtype)).float() ** 2).mean()

    def evaluate(self):
        step = self.events[-1].step if self.events else 0
        self._stop("evaluate", step)
        self.asked += 1
        score = -(self.weight.float() - self.wanted).norm().item()
        return {"score": score if self.scores is None else self.scores[self.asked - 1]}

    def save(self, tensors):
        self._stop("save", self.events[-1].step)
        self.saved.append({name: tensor.clone() for name, tensor in tensors.items()})

    def tell(self, event):
        self.events.append(event)
        self._stop(event.kind, event.step)

    def _stop(self, kind, step):
        error = self.stop.pop((kind, step), None)
        if error:
            raise error

    def run(self, resume=True):
        named = [("weight", self.weight), ("bias", self.bias)]
        return train(
            named,
            self.loss,
            self.evaluate,
            self.settings,
            self.folder,
            config=self.config,
            best="score",
            save=self.save,
            resume=resume,
            on_event=self.tell,
        )

    def kinds(self, kind):
        return [event.step for event in self.events if event.kind == kind]


def test_a_run_tells_what_it_does_and_saves_the_best(tmp_path):
    toy = Toy(tmp_path)
    result = toy.run()
    assert (result.steps, result.stopped) == (20, "all steps done")
    assert toy.kinds("step") == list(range(1, 21))
    assert toy.kinds("eval") == [4, 8, 12, 16, 20]
    assert toy.kinds("checkpoint") == [3, 6, 9, 12, 15, 18, 20]
    assert all(event.steps == 20 for event in toy.events)
    losses = [event.loss for event in toy.events if event.kind == "step"]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert result.metrics["score"] == max(e.metrics["score"] for e in toy.events if e.kind == "eval")
    assert torch.equal(toy.saved[-1]["weight"], toy.weight.detach())


STOPS = [
    (kind, step, error)
    for error in (KeyboardInterrupt, Killed)
    for kind, step in [
        ("loss", 0),
        ("loss", 7),
        ("step", 1),
        ("step", 9),
        ("checkpoint", 6),
        ("evaluate", 8),
        ("save", 12),
    ]
] + [("eval", 8, KeyboardInterrupt), ("eval", 20, Killed), ("save", 20, KeyboardInterrupt), ("checkpoint", 20, Killed)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kind", "step", "error"), STOPS)
def test_an_interrupted_run_is_the_same_run(tmp_path, kind, step, error, dtype):
    whole = Toy(tmp_path / "whole", dtype=dtype)
    expected = whole.run()
    first = Toy(tmp_path / "parts", dtype=dtype)
    first.stop = {(kind, step): error}
    with pytest.raises(error):
        first.run()
    second = Toy(tmp_path / "parts", dtype=dtype)  # another process: fresh parameters
    result = second.run()
    assert torch.equal(second.weight, whole.weight)
    assert torch.equal(second.bias, whole.bias)
    assert (result.steps, result.metrics, result.stopped) == (expected.steps, expected.metrics, expected.stopped)
    last = [*first.saved, *second.saved][-1]
    assert all(torch.equal(last[name], tensor) for name, tensor in whole.saved[-1].items())
    assert {*first.kinds("eval"), *second.kinds("eval")} == {*whole.kinds("eval")}
    if error is KeyboardInterrupt and step:
        assert second.kinds("step")[:1] in ([], [first.kinds("step")[-1] + 1])  # not a step is lost


def test_ctrl_c_amid_a_checkpoint_writes_it_again(tmp_path, monkeypatch):
    from safetensors import torch as written

    toy, save_file, calls = Toy(tmp_path), written.save_file, []

    def interrupted(*given, **options):
        calls.append(1)
        if len(calls) == 2:  # that of step 6
            raise KeyboardInterrupt
        save_file(*given, **options)

    monkeypatch.setattr(written, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        toy.run()
    assert toy.kinds("checkpoint") == [3, 6]
    again = Toy(tmp_path)
    again.run()
    assert again.kinds("step")[0] == 7


def test_ctrl_c_amid_an_update_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    whole = Toy(tmp_path / "whole")
    whole.run()
    toy = Toy(tmp_path / "parts")
    adam = torch.optim.AdamW.step

    def interrupted(self, *given, **options):
        adam(self, *given, **options)
        if toy.kinds("step")[-1:] == [10]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(torch.optim.AdamW, "step", interrupted)
        toy.run()
    assert toy.kinds("checkpoint")[-1] == 9
    again = Toy(tmp_path / "parts")
    again.run()
    assert again.kinds("step")[0] == 10
    assert torch.equal(again.weight, whole.weight)


@pytest.mark.parametrize("when", ["safetensors.torch.save_file", "pathlib.Path.replace"])
def test_a_kill_amid_a_checkpoint_leaves_the_one_before(tmp_path, monkeypatch, when):
    whole = Toy(tmp_path / "whole")
    whole.run()
    toy = Toy(tmp_path / "parts", checkpoint_every=5)
    toy.stop = {("step", 9): Killed}
    with pytest.raises(Killed):
        toy.run()
    before = (tmp_path / "parts" / CHECKPOINT).read_bytes()

    def die(*given, **_):
        raise Killed

    toy = Toy(tmp_path / "parts", checkpoint_every=5)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(when, die)
        toy.run()
    assert (tmp_path / "parts" / CHECKPOINT).read_bytes() == before
    toy = Toy(tmp_path / "parts", checkpoint_every=5)
    toy.run()
    assert toy.kinds("step")[0] == 6
    assert torch.equal(toy.weight, whole.weight)


def test_a_finished_run_is_not_run_again(tmp_path):
    first = Toy(tmp_path)
    expected = first.run()
    again = Toy(tmp_path)
    result = again.run()
    assert (again.events, again.saved) == ([], [])
    assert (result.steps, result.metrics, result.stopped) == (20, expected.metrics, "all steps done")
    assert result.seconds >= note(tmp_path)["seconds"] > 0
    assert torch.equal(again.weight, first.weight)
    anew = Toy(tmp_path)
    anew.run(resume=False)
    assert anew.kinds("step")[0] == 1
    assert torch.equal(anew.weight, first.weight)


def test_it_stops_where_nothing_gets_better_and_keeps_the_best(tmp_path):
    toy = Toy(tmp_path, scores=[0.1, 0.5, 0.3, 0.5, 0.9], patience=2, steps=100)
    result = toy.run()
    assert (result.steps, result.stopped, result.metrics) == (16, "no better for a while", {"score": 0.5})
    assert len(toy.saved) == 2
    again = Toy(tmp_path, scores=[0.9], patience=2, steps=100)
    result = again.run()
    assert (again.events, again.saved) == ([], [])
    assert (result.steps, result.stopped, result.metrics) == (16, "no better for a while", {"score": 0.5})
    without = Toy(tmp_path / "all", scores=[0.1, 0.5, 0.3, 0.5, 0.9])
    assert without.run().metrics == {"score": 0.9}
    assert without.kinds("eval") == [4, 8, 12, 16, 20]


def test_patience_begins_where_it_is_told_to(tmp_path):
    scores = [0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    toy = Toy(tmp_path, scores=scores, patience=2, steps=28, patient_until=13)
    result = toy.run()
    assert (result.steps, result.stopped) == (20, "no better for a while")


def test_a_number_is_better_than_none(tmp_path):
    toy = Toy(tmp_path, scores=[math.nan, 0.2, math.nan, 0.1, 0.2])
    assert toy.run().metrics == {"score": 0.2}
    assert len(toy.saved) == 2


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path):
    Toy(tmp_path, steps=4).run()
    before = (tmp_path / CHECKPOINT).read_bytes()
    other = Toy(tmp_path, steps=4, config={"seed": 1})
    with pytest.raises(UsageError, match="another configuration") as caught:
        other.run()
    assert "--restart" in caught.value.hint
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    other.run(resume=False)


@pytest.mark.parametrize("damage", ["cut", "empty", "names", "shape"])
def test_a_damaged_checkpoint_says_so(tmp_path, damage):
    Toy(tmp_path, steps=4).run()
    path = tmp_path / CHECKPOINT
    content = path.read_bytes()
    if damage in ("cut", "empty"):
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    else:
        from safetensors import safe_open
        from safetensors.torch import save_file

        with safe_open(str(path), framework="pt") as file:
            about = file.metadata()
        tensors = load_file(str(path))
        if damage == "names":
            del tensors["master.bias"]
        else:
            tensors["master.weight"] = torch.zeros(7, 7)
        save_file(tensors, str(path), about)
    with pytest.raises(ModelError, match="cannot be read") as caught:
        Toy(tmp_path, steps=4).run()
    assert "--restart" in caught.value.hint


def note(folder):
    from safetensors import safe_open

    with safe_open(str(folder / CHECKPOINT), framework="pt") as file:
        return json.loads(file.metadata()["run"])


def test_a_checkpoint_is_safetensors_with_a_note(tmp_path):
    Toy(tmp_path, steps=5).run()
    found, names = note(tmp_path), set(load_file(str(tmp_path / CHECKPOINT)))
    assert (found["step"], found["evaluated"], found["waited"]) == (5, 5, 0)
    assert {"master.weight", "adam.exp_avg.weight", "adam.exp_avg_sq.bias", "adam.step.bias"} <= names
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_one_bad_batch_changes_nothing_and_twenty_end_it(tmp_path):
    toy = Toy(tmp_path)
    plain = toy.loss
    toy.loss = lambda step: plain(step) * (math.nan if step == 2 else 1.0)
    assert toy.run().steps == 20
    assert toy.weight.isfinite().all()
    toy = Toy(tmp_path / "more", steps=100)
    toy.loss = lambda step: plain(step) * math.inf + (toy.weight * math.nan).sum()
    with pytest.raises(ModelError, match="not finite"):
        toy.run()
    assert toy.kinds("step")[-1] == 19


def test_small_updates_are_not_lost_in_a_narrow_format():
    parameter = torch.full((4, 4), 100.0, dtype=torch.bfloat16, requires_grad=True)
    masters = Masters([("p", parameter)], LoopSettings(steps=1000, lr=1e-3, warmup=0.0, weight_decay=0.0))
    for step in range(600):
        parameter.grad = torch.ones_like(parameter)
        masters.step(step)
    assert (parameter < 100).all()


@pytest.mark.parametrize("steps", [1, 2, 50, 1000])
def test_the_rate_rises_and_falls(steps):
    settings = LoopSettings(steps=steps, lr=2.0, warmup=0.1)
    rates = [rate(step, settings) for step in range(steps)]
    top = rates.index(max(rates))
    assert max(rates) <= 2.0
    assert all(0 < a < b for a, b in itertools.pairwise(rates[: top + 1]))
    assert all(a >= b > 0.2 for a, b in itertools.pairwise(rates[top:]))
    assert steps < 50 or rates[-1] < 0.3
    assert top <= max(steps // 10, 1)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), SafetensorError("File too large")])
def test_a_disk_that_is_full_keeps_the_checkpoint_before(tmp_path, monkeypatch, error):
    Toy(tmp_path, steps=4).run()
    before = (tmp_path / CHECKPOINT).read_bytes()

    def full(tensors, path, **_):
        Path(path).write_bytes(b"half of")
        raise error

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(StoreError, match="cannot be written") as caught:
        Toy(tmp_path, steps=4).run(resume=False)
    assert "Free some space" in caught.value.hint
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
