"""``ragzip train``."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ragzip import registry
from ragzip.training.options import TrainingEvent, read_trainer
from tests.cli.conftest import Call
from tests.training.fake import TARGET

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "examples" / "training").glob("*.yaml"))


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_extra", {kind: {} for kind in registry.KINDS})
    registry.register("training", "fake", TARGET)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "fake.yaml"
    path.write_text("ragzip: 1\nsteps: 4\n")
    return path


def test_the_form_that_scripts_rely_on(call: Call, tmp_path: Path, config: Path) -> None:
    out = tmp_path / "out"
    result = call("train", "fake", config, "--out", out, "--set", "seed=9", "--data-dir", tmp_path, "--json")
    assert result.code == 0, result.err
    (line,) = result.out.splitlines()
    assert json.loads(line) == {
        "method": "fake", "out": str(out), "folder": ".", "steps": 4, "seconds": 0.25, "metrics": {"f1": 0.5},
        "stopped": "all steps taken",
    }  # fmt: skip
    assert (out / "model.safetensors").read_bytes() == b"weights 9"
    assert f"examples from {tmp_path}" in result.err
    assert read_trainer("fake", out / "training.yaml").seed == 9  # type: ignore[attr-defined]


def test_for_people(call: Call, tmp_path: Path, config: Path) -> None:
    result = call("train", "fake", config, "--out", tmp_path / "out")
    assert result.code == 0
    for word in ("fake", "steps", "4", "0.5", "all steps taken", str(tmp_path / "out")):
        assert word in result.out
    assert "fake: step 4, f1 0.5" in result.err
    again = call("train", "fake", config, "--out", tmp_path / "out")
    assert again.code == 0
    assert again.out == result.out
    assert "nothing was trained" in again.err
    assert (tmp_path / "out" / "log").read_text() == "0\n"
    assert call("train", "fake", config, "--out", tmp_path / "out", "--restart").code == 0
    assert (tmp_path / "out" / "log").read_text() == "0\n0\n"


def test_ctrl_c_and_going_on(call: Call, tmp_path: Path, config: Path) -> None:
    command = ("train", "fake", config, "--out", tmp_path / "out", "--set", "stop_at=2")
    stopped = call(*command)
    assert stopped.code == 130
    assert stopped.out == ""
    assert "stopped at step 2 of 4; the same command goes on from the checkpoint of step 2" in stopped.err
    other = call(*command, "--set", "rate=0.7")
    assert other.code == 1
    assert "rate is 0.1 there and 0.7 here" in other.err
    assert "--restart" in other.err
    assert call(*command).code == 0
    assert (tmp_path / "out" / "log").read_text() == "0\n2\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fakes", "CONFIG"], "no trainer 'fakes'"),
        (["fake", "none.yaml"], "no such file: none.yaml"),
        (["fake", "EMPTY"], "no model card"),
        (["fake", "CONFIG", "--set", "steps=0"], "steps: must be at least 1"),
        (["fake", "CONFIG", "--set", "steps"], "is not path=value"),
        (["fake", "CONFIG", "--set", "stesp=1"], "Did you mean 'steps'"),
        (["fake", "CONFIG", "--data-dir", "nowhere"], "nowhere"),
        (["fake"], "config"),
    ],
)
def test_bad_calls_are_one_clear_line(
    call: Call, tmp_path: Path, config: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "empty").mkdir()
    names = {"CONFIG": str(config), "EMPTY": str(tmp_path / "empty")}
    result = call("train", *[names.get(a, a) for a in arguments], "--out", tmp_path / "out")
    assert result.code in (1, 2)
    assert says in result.err
    assert "unexpected" not in result.err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_stays(call: Call, tmp_path: Path, config: Path) -> None:
    result = call("train", "fake", config, "--out", tmp_path, "--restart")
    assert result.code == 2
    assert "something else" in result.err
    assert list(tmp_path.iterdir()) == [config]


Watched = tuple[Callable[[TrainingEvent], None], list[str], list[float]]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Who tells of a training without a terminal, what it said, and the clock's time."""
    from ragzip.cli import train

    said: list[str] = []
    now = [100.0]
    monkeypatch.setattr(train, "note", said.append)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return train._Watch("fake"), said, now


def test_progress_without_a_terminal_is_a_line_now_and_then(watched: Watched) -> None:
    watch, said, now = watched
    for step in range(501, 505):  # 500 steps were made before an interruption
        watch(TrainingEvent("step", step, 1000, loss=float("nan")))
        now[0] += 40.0
    assert said == ["fake: step 503 of 1,000, loss nan, about 331 min left"]


def test_the_first_step_does_not_say_when_it_ends(watched: Watched) -> None:
    watch, said, now = watched
    now[0] += 90.0  # an evaluation before the first step takes a while
    watch(TrainingEvent("step", 1, 1000, loss=0.5))
    assert said == ["fake: step 1 of 1,000, loss 0.5"]


def test_examples_told_of_one_by_one_are_not_a_flood(watched: Watched) -> None:
    watch, said, now = watched
    for done in range(1, 101):
        watch(TrainingEvent("data", 0, 10, message=f"passages read {done:,} of 1,000"))
        now[0] += 0.7
    watch(TrainingEvent("data", 0, 10, message="questions read 1 of 7"))
    assert said == [f"fake: {what}" for what in (
        "passages read 1 of 1,000", "passages read 87 of 1,000", "questions read 1 of 7")]  # fmt: skip


def test_a_bar_in_a_terminal(tmp_path: Path, config: Path) -> None:
    """In a terminal of its own: a bar on standard error, the result alone on standard output."""
    import os
    import pty

    main, terminal = pty.openpty()
    arguments = ["train", "fake", str(config), "--out", str(tmp_path / "out"), "--json", "--set", "pause=0.02"]
    process = subprocess.Popen(program(arguments), stdout=subprocess.PIPE, stderr=terminal, cwd=ROOT)
    os.close(terminal)
    seen = b""
    try:
        while part := os.read(main, 65536):
            seen += part
    except OSError:  # the other end is closed
        pass
    out, _ = process.communicate(timeout=60)
    os.close(main)
    assert process.returncode == 0, seen
    assert json.loads(out)["steps"] == 4
    assert b"loss" in seen
    assert b"f1 0.5" in seen


def program(arguments: list[str]) -> list[str]:
    """A process of its own that knows the trainer."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from ragzip import registry; from ragzip.cli import main; import sys\n"
        f"registry.register('training', 'fake', {TARGET!r}); sys.argv = ['ragzip', *{arguments!r}]; main()"
    )
    return [sys.executable, "-c", code]


def test_a_real_ctrl_c(tmp_path: Path, config: Path) -> None:
    out = tmp_path / "out"
    arguments = ["train", "fake", str(config), "--out", str(out), "--set", "pause=0.05", "--set", "steps=2000"]
    process = subprocess.Popen(program(arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    while process.poll() is None and not (out / "log").exists():
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout == b""
    assert b"goes on from the checkpoint" in stderr
    assert b"Traceback" not in stderr
    assert (out / "checkpoint.json").exists()
    assert not (out / "report.json").exists()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_examples_load(path: Path) -> None:
    import yaml

    method = yaml.safe_load(path.read_text(encoding="utf-8"))["type"]
    trainer = read_trainer(method, path)
    assert registry.name_of(trainer) == method


@pytest.mark.parametrize("restart", [[], ["--restart"]])
def test_a_users_own_files_are_no_training(call: Call, tmp_path: Path, config: Path, restart: list[str]) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    files = {"training.yaml": "# mine\n" + config.read_text(), "README.md": "mine", "config.json": "{}"}
    for name, text in files.items():
        (mine / name).write_text(text)
    for given in (config, mine / "training.yaml"):
        result = call("train", "fake", given, "--out", mine, *restart)
        assert result.code == 2
        assert "something else" in result.err
    assert {path.name: path.read_text() for path in mine.iterdir()} == files
