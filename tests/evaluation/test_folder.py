"""The run folder: kills, damage, other runs, other versions, two processes."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ragzip import BM25Sentences, Pipeline
from ragzip.errors import StoreDamaged, StoreError, StoreMismatch, UsageError
from ragzip.evaluation import folder as folders
from ragzip.evaluation.compare import compare
from ragzip.evaluation.folder import Run, read_config
from ragzip.evaluation.rows import plan
from ragzip.evaluation.runner import Settings, evaluate
from tests.evaluation.parts import reading, rows_of, small_set, steady


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [0, 1, 3, 5])
@pytest.mark.parametrize("tear", [0, 1, 40, 400])
def test_a_kill_costs_one_question(tmp_path, after: int, tear: int) -> None:
    whole = evaluate(rows_of(), small_set(6), tmp_path / "whole")

    def kill(done: int, total: int) -> None:
        if done == after + 1:
            raise Killed

    with pytest.raises(Killed):
        evaluate(rows_of(), small_set(6), tmp_path / "run", on_progress=kill)
    folder = tmp_path / "run"
    assert not (folder / "metrics.json").exists()
    with pytest.raises(UsageError, match="not finished"):
        _ = Run.load(folder).metrics
    for name in ("records.jsonl", "questions.jsonl"):  # what the disk had not taken yet
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) - tear])
    seen: list[int] = []
    run = evaluate(rows_of(), small_set(6), folder, on_progress=lambda done, total: seen.append(done))
    assert steady(run) == steady(whole)
    assert [line["id"] for line in run.rows("mine")] == [f"q{i}" for i in range(6)]
    assert list(run.questions) == [f"q{i}" for i in range(6)]
    if tear == 0:
        assert seen == list(range(after + 2, 7))


def test_records_without_their_questions_are_done_again(tmp_path) -> None:
    """The questions are written first, but a disk may lose them: then their records do not count."""
    run = evaluate(rows_of(), small_set(4), tmp_path / "run")
    (run.path / "questions.jsonl").write_bytes(b"")
    with pytest.raises(StoreDamaged, match="has 0 of the 4 questions"):  # it was finished: not without being told to
        evaluate(rows_of(), small_set(4), tmp_path / "run")
    (run.path / "metrics.json").unlink()
    again = evaluate(rows_of(), small_set(4), tmp_path / "run")
    assert list(again.questions) == ["q0", "q1", "q2", "q3"]
    assert len(again.rows("mine")) == 4


def test_another_run_is_not_mixed_in(tmp_path) -> None:
    evaluate(rows_of(), small_set(3), tmp_path / "run")
    with pytest.raises(StoreMismatch, match=r"budget is 14 there and 15 here"):
        evaluate(rows_of(BM25Sentences(budget=15)), small_set(3), tmp_path / "run")
    with pytest.raises(StoreMismatch, match="sha256"):
        evaluate(rows_of(), small_set(4), tmp_path / "run")
    with pytest.raises(StoreMismatch, match="seed"):
        evaluate(rows_of(), small_set(3), tmp_path / "run", Settings(seed=1))


def test_another_format_or_version_is_refused(tmp_path) -> None:
    run = evaluate(rows_of(), small_set(2), tmp_path / "run")
    config = run.path / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("ragzip_run: 1", "ragzip_run: 7"))
    with pytest.raises(StoreMismatch, match="format 7"):
        Run.load(tmp_path / "run")
    with pytest.raises(StoreMismatch, match="format 7"):
        evaluate(rows_of(), small_set(2), tmp_path / "run")
    config.write_text(text.replace("ragzip: 0.1.0", "ragzip: 0.0.9"))
    with pytest.raises(StoreMismatch, match=r"ragzip is '0\.0\.9' there"):
        evaluate(rows_of(), small_set(2), tmp_path / "run")


def test_another_machine_is_refused(tmp_path) -> None:
    run = evaluate(rows_of(), small_set(2), tmp_path / "run")
    path = run.path / "environment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "cpu": "another"}))
    with pytest.raises(StoreMismatch, match="another machine"):
        evaluate(rows_of(), small_set(2), tmp_path / "run")


def test_folders_that_hold_something_else(tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="something else"):
        evaluate(rows_of(), small_set(2), tmp_path / "mine")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="no folder"):
        evaluate(rows_of(), small_set(2), tmp_path / "file")
    with pytest.raises(UsageError, match="no run is there"):
        Run.load(tmp_path / "nothing")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.yaml").write_text("ragzip_run: [")
    with pytest.raises(StoreDamaged, match=r"config\.yaml"):
        Run.load(tmp_path / "odd")


def test_two_processes_do_not_write_one_run(tmp_path) -> None:
    import filelock

    (tmp_path / "run").mkdir()
    with filelock.FileLock(tmp_path / "run" / folders.LOCK), pytest.raises(StoreError, match="another process"):
        evaluate(rows_of(), small_set(2), tmp_path / "run")
    evaluate(rows_of(), small_set(2), tmp_path / "run")


def test_damage_is_noticed_and_nothing_is_thrown_away(tmp_path) -> None:
    run = evaluate(rows_of(), small_set(4), tmp_path / "run")
    path = run.path / "records.jsonl"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] = 0x01
    path.write_bytes(data)
    for again in (lambda: Run.load(run.path).rows("mine"), lambda: evaluate(rows_of(), small_set(4), run.path)):
        with pytest.raises(StoreDamaged, match=r"records\.jsonl"):
            again()
    assert path.read_bytes() == data


def test_lost_records_are_noticed(tmp_path) -> None:
    run = evaluate(rows_of(), small_set(4), tmp_path / "run")
    path = run.path / "records.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-3]))
    with pytest.raises(StoreDamaged, match="not 4 records"):
        Run.load(run.path).rows("mine")
    with pytest.raises(StoreDamaged, match="has 3 of the 4 questions"):
        evaluate(rows_of(), small_set(4), run.path)


@pytest.mark.parametrize("line", ['{"pipeline": "mine", "id": "q0", "steps": []}', "[" * 100_000, '{"pipeline": "x"}'])
def test_lines_that_are_no_records_are_refused(tmp_path, line: str) -> None:
    run = evaluate(rows_of(), small_set(2), tmp_path / "run")
    path = run.path / "records.jsonl"
    path.write_text(line + "\n" + path.read_text())
    with pytest.raises(StoreDamaged, match=r"records\.jsonl:1"):
        Run.load(run.path).rows("mine")


@pytest.mark.parametrize("left", [[".lock"], [".lock", "environment.json.tmp"], [".lock", "environment.json"]])
def test_a_run_stopped_in_its_first_moments_can_be_started_again(tmp_path, left: list[str]) -> None:
    (tmp_path / "run").mkdir()
    for name in left:
        (tmp_path / "run" / name).write_text("{}" if name.endswith("json") else "")
    assert len(evaluate(rows_of(), small_set(2), tmp_path / "run").rows("mine")) == 2


@pytest.mark.parametrize(("key", "value"), [("versions", {"torch": "1.0"}), ("python", "2.7"), ("threads", 99)])
def test_other_versions_are_refused(tmp_path, key: str, value: object) -> None:
    run = evaluate(rows_of(), small_set(2), tmp_path / "run")
    path = run.path / "environment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(StoreMismatch, match=key):
        evaluate(rows_of(), small_set(2), tmp_path / "run")


def test_another_commit_is_written_down(tmp_path) -> None:
    run = evaluate(rows_of(), small_set(2), tmp_path / "run")
    path = run.path / "environment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "commit": "0123456789ab"}))
    evaluate(rows_of(), small_set(2), tmp_path / "run")
    assert json.loads(path.read_text())["commits"][0] == "0123456789ab"


def test_weights_and_indexes_are_part_of_the_config(tmp_path, tiny_lm_path) -> None:
    from ragzip.generators.huggingface import HuggingFace
    from ragzip.testing.models import tiny_causal_lm

    copy = tiny_causal_lm(tmp_path / "lm")
    pipeline = Pipeline(HuggingFace(str(copy), max_new_tokens=2), compressors=(BM25Sentences(budget=30),))
    rows = plan([("mine", pipeline)], baselines="reference")
    run = evaluate(rows, small_set(2), tmp_path / "run")
    assert list(run.config["identities"]) == [f"asked {copy}", f"model {copy}"]
    tiny_causal_lm(copy, seed=1)
    with pytest.raises(StoreMismatch, match="identities"):
        evaluate(rows, small_set(2), tmp_path / "run")


def test_a_run_from_before_chat_templates_counted_goes_on(tmp_path, tiny_lm_path) -> None:
    from ragzip.generators.huggingface import HuggingFace

    pipeline = Pipeline(HuggingFace(str(tiny_lm_path), max_new_tokens=2), compressors=(BM25Sentences(budget=30),))
    rows = plan([("mine", pipeline)], baselines="reference")
    run = evaluate(rows, small_set(2), tmp_path / "run")
    path = run.path / "config.yaml"
    lines = [line for line in path.read_text().splitlines() if not line.strip().startswith("asked ")]
    assert len(lines) < len(path.read_text().splitlines())
    path.write_text("\n".join(lines) + "\n")
    evaluate(rows, small_set(2), tmp_path / "run")


def test_a_full_disk_loses_nothing_that_was_written(tmp_path, monkeypatch) -> None:
    original = folders._append
    calls = []

    def full(path, lines):
        calls.append(path)
        if len(calls) > 5:
            raise OSError(28, "No space left on device", str(path))
        original(path, lines)

    monkeypatch.setattr(folders, "_append", full)
    with pytest.raises(OSError, match="No space"):
        evaluate(rows_of(), small_set(6), tmp_path / "run")
    monkeypatch.setattr(folders, "_append", original)
    run = evaluate(rows_of(), small_set(6), tmp_path / "run")
    assert len(run.rows("mine")) == 6


def test_the_same_rows_in_another_order_are_not_taken_for_damage(tmp_path) -> None:
    stacks = [("a", reading(BM25Sentences(budget=14))), ("b", reading(BM25Sentences(budget=20)))]
    evaluate(plan(stacks), small_set(2), tmp_path / "run")
    with pytest.raises(StoreMismatch, match="in another order"):
        evaluate(plan(stacks[::-1]), small_set(2), tmp_path / "run")


def test_a_config_of_many_rows_is_read_again(tmp_path) -> None:
    rows = [(f"{number:04d} " + "x" * 150, reading(BM25Sentences(budget=14))) for number in range(1500)]
    run = evaluate(plan(rows, baselines="reference"), small_set(1), tmp_path / "run")
    assert (run.path / "config.yaml").stat().st_size > 1_000_000
    assert len(read_config(run.path)["rows"]) == 1502


def test_what_an_earlier_version_did_not_look_at_does_not_stop_a_run(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("ragzip.evaluation.runner.identities", lambda rows: {"model m": "1"})
    run = evaluate(rows_of(), small_set(2), tmp_path / "run")
    (run.path / "metrics.json").unlink()
    monkeypatch.setattr("ragzip.evaluation.runner.identities", lambda rows: {"model m": "1", "file x": "2"})
    evaluate(rows_of(), small_set(2), tmp_path / "run")
    monkeypatch.setattr("ragzip.evaluation.runner.identities", lambda rows: {"model m": "3"})
    with pytest.raises(StoreMismatch, match="identities"):
        evaluate(rows_of(), small_set(2), tmp_path / "run")


def test_the_same_set_from_another_place_is_the_same_run(tmp_path) -> None:
    data = small_set(2)
    evaluate(rows_of(), dataclasses.replace(data, source="mine.jsonl"), tmp_path / "run")
    again = evaluate(rows_of(), dataclasses.replace(data, source="/elsewhere/mine.jsonl"), tmp_path / "run")
    assert again.config["data"]["source"] == "mine.jsonl"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("config.yaml", "records: 2", "records: two"),
        ("config.yaml", "  records: 2\n", ""),
        ("config.yaml", "metrics:", "metrics: {}\nother:"),
        ("records.jsonl", '"f1": ', '"f1": "x", "em": '),
    ],
)
def test_what_is_read_of_a_folder_is_checked(tmp_path, name: str, old: str, new: str) -> None:
    run = evaluate(rows_of(), small_set(2), tmp_path / "run")
    path = run.path / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(StoreDamaged):
        Run.load(tmp_path / "run").rows("mine")


def test_versions_that_are_no_mapping_stop_no_comparison(tmp_path) -> None:
    run = evaluate(rows_of(), small_set(2), tmp_path / "run")
    path = run.path / "environment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "versions": "a"}))
    assert compare(Run.load(tmp_path / "run"), run)
