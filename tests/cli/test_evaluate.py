"""``ragzip eval``, ``compare``, ``sweep``, ``recommend`` and ``sets``."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ragzip.indexes import files
from tests.cli.conftest import Call
from tests.evaluation.parts import small_set

PIPELINE = "ragzip: 1\ncompressors: [{type: bm25_sentences, budget: 20}]\ngenerator: echo\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(record.to_json()) + "\n" for record in small_set(8).records))
    return path


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    path = tmp_path / "look.yaml"
    path.write_text(PIPELINE)
    return path


def test_the_form_that_scripts_rely_on(call: Call, tmp_path: Path, data: Path, pipeline: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(PIPELINE.replace("ragzip: 1", "ragzip: 1\nname: second").replace("20", "30"))
    out = tmp_path / "run"
    result = call("eval", pipeline, other, "--data", data, "--limit", 5, "--seed", 3, "--out", out, "--json")
    assert result.code == 0, result.err
    (line,) = result.out.splitlines()
    metrics = json.loads((out / "metrics.json").read_text())
    assert json.loads(line)["metrics"] == metrics
    assert {"look", "second", "closed_book", "no_compression", "truncate@20", "oracle_sentences@30"} <= set(metrics)
    for name in ("look", "second"):
        for metric in ("em", "f1", "match", "tokens_in", "tokens_out", "ratio", "ttft"):
            assert set(metrics[name][metric]) == {"mean", "low", "high", "n"}
            assert metrics[name][metric]["n"] == 5
    for name in ("config.yaml", "environment.json", "records.jsonl", "metrics.json", "report.html"):
        assert (out / name).stat().st_size > 0
    assert len((out / "records.jsonl").read_text().splitlines()) == 5 * len(metrics)
    assert json.loads(line)["data"]["sha256"] == small_set(8).sha256


def test_a_table_for_people(call: Call, tmp_path: Path, data: Path, pipeline: Path) -> None:
    result = call("eval", pipeline, "--data", data, "--out", tmp_path / "run")
    assert result.code == 0
    for word in ("look", "closed_book", "no_compression", "bm25_sentences@20", "n = 8", small_set(8).sha256[:12]):
        assert word in result.out
    assert "report.html" in result.err


def test_savings_need_prices(call: Call, tmp_path: Path, data: Path, pipeline: Path) -> None:
    out = tmp_path / "run"
    call("eval", pipeline, "--data", data, "--out", out, "--price-in", "2.5", "--price-out", "10")
    summary = json.loads((out / "summary.json").read_text())
    assert summary["savings"]["rows"]["look"]["per_1000"] > 0
    # prices can be given afterwards: nothing is run again
    call("eval", pipeline, "--data", data, "--out", out)
    assert json.loads((out / "summary.json").read_text())["savings"] is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--data", "nothing.jsonl"], "nothing.jsonl"),
        (["--data", "no_such_set"], "no_such_set"),
        (["--data", "DATA", "--metrics", "em,nonsense"], "nonsense"),
        (["--data", "DATA", "--metrics", "ndcg@ten"], "ndcg@ten"),
        (["--data", "DATA", "--baselines", "none"], "neither all nor reference"),
        (["--data", "DATA", "--baseline", "nobody"], "nobody"),
        (["--data", "DATA", "--limit", "0"], "limit"),
        (["--data", "DATA", "--price-in", "-1"], "price-in"),
        (["--data", "DATA", "--set", "compressors.0.budgett=3"], "budgett"),
        (["--data", "EMPTY"], "no record"),
    ],
)
def test_bad_calls_are_one_clear_line(
    call: Call, tmp_path: Path, data: Path, pipeline: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    names = {"DATA": str(data), "EMPTY": str(tmp_path / "empty.jsonl")}
    result = call("eval", pipeline, *[names.get(a, a) for a in arguments], "--out", tmp_path / "run")
    assert result.code in (1, 2)
    assert says in result.err
    assert "unexpected" not in result.err
    assert not (tmp_path / "run").exists()


def test_duplicate_names_are_refused(call: Call, tmp_path: Path, data: Path, pipeline: Path) -> None:
    result = call("eval", pipeline, pipeline, "--data", data, "--out", tmp_path / "run")
    assert result.code == 2
    assert "both called 'look'" in result.err


def test_compare_says_what_differs(call: Call, tmp_path: Path, data: Path, pipeline: Path) -> None:
    call("eval", pipeline, "--data", data, "--out", tmp_path / "a")
    call("eval", pipeline, "--data", data, "--out", tmp_path / "b", "--set", "compressors.0.budget=45")
    result = call("compare", tmp_path / "a", tmp_path / "b")
    assert result.code == 0
    line = next(x for x in result.out.splitlines() if x.startswith("look") and "tokens_out" in x)
    assert "worse" in line
    found = json.loads(call("compare", tmp_path / "a", tmp_path / "b", "--json").out)
    assert found["records"] == 8
    pair = call("compare", tmp_path / "a", tmp_path / "b", "--pair", "closed_book=look", "--metrics", "f1")
    assert "closed_book / look" in pair.out
    assert call("compare", tmp_path / "a", tmp_path / "b", "--pair", "closed_book").code == 2
    assert call("compare", tmp_path / "a", tmp_path / "nothing").code == 2
    data.write_text(data.read_text().replace("Rain fell", "Snow fell"))
    call("eval", pipeline, "--data", data, "--out", tmp_path / "c")
    other = call("compare", tmp_path / "a", tmp_path / "c")
    assert other.code == 2
    assert "set" in other.err


def test_sweep_shows_the_front(call: Call, tmp_path: Path, data: Path, pipeline: Path) -> None:
    out = tmp_path / "run"
    result = call(
        "sweep", pipeline, data, "--set", "compressors.0.budget=12,20,40", "--out", out, "--baselines", "reference"
    )
    assert result.code == 0, result.err
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics) == {"closed_book", "no_compression", *(f"look[budget={n}]" for n in (12, 20, 40))}
    assert "Pareto front: f1 against tokens_out" in result.out
    front = json.loads((out / "summary.json").read_text())["fronts"]["f1/tokens_out"]
    costs = [metrics[name]["tokens_out"]["mean"] for name in front]
    scores = [metrics[name]["f1"]["mean"] for name in front]
    assert costs == sorted(costs)
    assert scores == sorted(scores)


def test_sweep_combines_values_and_refuses_nonsense(call: Call, tmp_path: Path, data: Path, pipeline: Path) -> None:
    from ragzip.evaluation.sweep import expand

    named = expand(pipeline, ["compressors.0.budget=12,20", "compressors.0.threshold=null,0.5,1.5"])
    assert len(named) == len({name for name, _ in named}) == 6
    assert {p.stack.compressors[0].threshold for _, p in named} == {None, 0.5, 1.5}
    for bad in ("compressors.0.budget", "compressors.0.budget=12,,20", "compressors.0.budget=12,12", "=3",
                "compressors.0.budget=twelve", "compressors.7.budget=12"):  # fmt: skip
        result = call("sweep", pipeline, data, "--set", bad, "--out", tmp_path / "run")
        assert result.code == 2, bad
        assert "unexpected" not in result.err


def test_recommend_writes_a_pipeline_that_runs(call: Call, tmp_path: Path, data: Path, pipeline: Path) -> None:
    from ragzip import Pipeline

    written = tmp_path / "chosen.yaml"
    result = call(
        "recommend", data, "--pipeline", pipeline, "--set", "compressors.0.budget=12,60", "--max-loss", "50%",
        "--metric", "answer_in_context", "--out", tmp_path / "run", "--write", written,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "%" in result.out
    chosen = Pipeline.load(written)
    passages = small_set(1).records[0].passages
    assert chosen.answer("Who does the harbour0 belong to?", passages=passages).text
    for bad in ("1.5%x", "", "-1%", "200%", "7"):
        assert call("recommend", data, "--max-loss", bad, "--out", tmp_path / "x").code == 2


def test_sets_are_listed(call: Call) -> None:
    result = call("sets")
    assert result.code == 0
    for name in ("hotpotqa", "squad", "nq_multidoc"):
        assert name in result.out
    assert {s["name"] for s in json.loads(call("sets", "--json").out)["sets"]} >= {"musique", "qmsum"}


def test_a_beir_folder_with_an_index_of_its_corpus(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    records = small_set(6).records
    lines = [{"_id": p.id, "title": p.title, "text": p.text} for r in records for p in r.passages]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": r.id, "text": r.question}) + "\n" for r in records)
    )
    judged = "".join(f"{r.id}\t{r.passages[0].id}\t1\n" for r in records)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    kb = tmp_path / "kb"
    assert call("index", folder / "corpus.jsonl", "--index", kb, "--retriever", "bm25").code == 0
    path = tmp_path / "found.yaml"
    path.write_text(PIPELINE + f"retriever: {{type: bm25, index: '{kb}', top_k: 5}}\n")
    result = call("eval", path, "--data", folder, "--out", tmp_path / "run")
    assert result.code == 0, result.err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["found"]["recall@5"]["mean"] == 1.0
    assert metrics["found"]["ndcg@10"]["mean"] > 0.5
    assert "f1" not in metrics["found"]
    asked = "mrr,index_bytes,build_seconds,retrieve_seconds"
    shown = call("eval", path, "--data", folder, "--out", tmp_path / "shown", "--metrics", asked)
    for heading in ("MRR", "index, a passage", "to build", "retrieve"):
        assert heading.lower() in shown.out.splitlines()[0].lower()
    assert "not one passage" not in shown.err
    (tmp_path / "other.md").write_text("Something else is said here, about the river.")
    other = tmp_path / "other-kb"
    assert call("index", tmp_path / "other.md", "--index", other, "--retriever", "bm25").code == 0
    path.write_text(PIPELINE + f"retriever: {{type: bm25, index: '{other}', top_k: 5}}\n")
    strange = call("eval", path, "--data", folder, "--out", tmp_path / "strange")
    assert "found: not one passage" in strange.err
    assert "ragzip sets" not in strange.err  # which knows nothing of this folder
    bare = tmp_path / "bare.yaml"
    bare.write_text(PIPELINE)
    refused = call("eval", bare, "--data", folder, "--out", tmp_path / "other")
    assert refused.code == 2
    assert "no retriever" in refused.err


def test_a_killed_process_goes_on_where_it_stopped(tmp_path: Path, data: Path) -> None:
    """A real process, a real SIGKILL, at several moments."""
    data.write_text("".join(json.dumps(record.to_json()) + "\n" for record in small_set(200).records))
    path = tmp_path / "look.yaml"
    path.write_text(PIPELINE)
    arguments = [sys.executable, "-m", "ragzip", "eval", str(path), "--data", str(data), "--json", "--out"]

    def start(out: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*arguments, str(out)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    whole = start(tmp_path / "whole")
    expected = json.loads(whole.communicate(timeout=120)[0])["metrics"]
    records = tmp_path / "run" / "records.jsonl"
    killed = 0
    for least in (1, 40_000, 150_000):
        process = start(tmp_path / "run")
        while process.poll() is None and (not records.exists() or records.stat().st_size < least):
            time.sleep(0.005)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.communicate()
    assert killed >= 2
    found = json.loads(start(tmp_path / "run").communicate(timeout=120)[0])["metrics"]
    for name, metrics in expected.items():
        for metric, value in metrics.items():
            if not any(part in metric for part in ("seconds", "ttft", "memory")):
                assert found[name][metric] == value, (name, metric)


def test_costs_are_known_whatever_metrics_are_asked_for(call: Call, tmp_path: Path, data: Path, pipeline: Path) -> None:
    out = tmp_path / "run"
    call("eval", pipeline, "--data", data, "--out", out, "--metrics", "em", "--price-in", "1")
    assert set(json.loads((out / "metrics.json").read_text())["look"]) == {"em", "tokens_out", "ratio", "ttft"}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["savings"]["rows"]["look"]["per_1000"] > 0
    assert "look" in summary["break_even"]["rows"]


def test_rows_with_an_equals_sign_can_be_paired(call: Call, tmp_path: Path, data: Path, pipeline: Path) -> None:
    out = tmp_path / "run"
    call("eval", pipeline, "--data", data, "--out", out, "--set", "compressors.0.budget=null")
    result = call("compare", out, out, "--pair", "truncate=look=bm25_sentences=look", "--metrics", "f1")
    assert "truncate=look / bm25_sentences=look" in result.out


def test_a_set_is_shown_and_its_corpus_written(call: Call, tmp_path: Path, data: Path) -> None:
    found = json.loads(call("sets", data, "--json").out)
    assert (found["records"], found["sha256"], found["corpus"]) == (8, small_set(8).sha256, 0)
    assert call("sets", data, "--corpus", tmp_path / "c.jsonl").code == 2
    assert call("sets", "--corpus", tmp_path / "c.jsonl").code == 2
    folder = tmp_path / "beir"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text('{"_id": "a", "title": "T", "text": "Some text."}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "What?"}\n')
    (folder / "qrels.tsv").write_text("q\ta\t1\n")
    assert call("sets", folder, "--corpus", tmp_path / "c.jsonl").code == 0
    assert json.loads((tmp_path / "c.jsonl").read_text()) == {"_id": "a", "title": "T", "text": "Some text."}
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "linked.jsonl")
    assert call("sets", folder, "--corpus", tmp_path / "link.jsonl").code == 0
    assert (tmp_path / "link.jsonl").is_symlink()
    assert (tmp_path / "linked.jsonl").read_text() == (tmp_path / "c.jsonl").read_text()


def test_a_corpus_is_written_whole_or_not_at_all(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, corpus = tmp_path / "beir", tmp_path / "c.jsonl"
    folder.mkdir()
    lines = [json.dumps({"_id": str(i), "text": f"Some text {i}."}) + "\n" for i in range(3)]
    (folder / "corpus.jsonl").write_text("".join(lines))
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "What?"}\n')
    (folder / "qrels.tsv").write_text("q\t1\t1\n")
    corpus.write_text("before")
    wrote = files.Output.write

    def full(self: files.Output, data: bytes) -> int:
        if b"text 1" in data:
            raise OSError(errno.ENOSPC, "No space left on device")
        return wrote(self, data)

    monkeypatch.setattr(files.Output, "write", full)
    result = call("sets", folder, "--corpus", corpus)
    assert result.code != 0
    assert corpus.read_text() == "before"
    assert sorted(path.name for path in tmp_path.glob("c.jsonl*")) == ["c.jsonl"]


@pytest.mark.parametrize("wait", [0.0, 0.05, 0.6])
def test_ctrl_c_is_one_line(tmp_path: Path, data: Path, wait: float) -> None:
    data.write_text("".join(json.dumps(record.to_json()) + "\n" for record in small_set(3000).records))
    path = tmp_path / "look.yaml"
    path.write_text(PIPELINE)
    arguments = [sys.executable, "-m", "ragzip", "eval", str(path), "--data", str(data), "--out", str(tmp_path / "run")]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    signal.signal(signal.SIGINT, before)
    records = tmp_path / "run" / "records.jsonl"
    while process.poll() is None and not records.exists():
        time.sleep(0.01)
    time.sleep(wait)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == b""
    assert b"interrupted" in err
    assert b"Traceback" not in err


def test_a_set_without_quality_has_no_front(call: Call, tmp_path: Path, pipeline: Path) -> None:
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"question": "Why?", "passages": [{"text": "Rain fell. Dogs bark."}]}\n')
    arguments = ("--set", "compressors.0.budget=3,5", "--out", tmp_path / "run")
    result = call("sweep", pipeline, bare, *arguments)
    assert result.code == 0, result.err
    assert "no front" in result.err
    refused = call("recommend", bare, "-p", pipeline, "--max-loss", "1%", "--out", tmp_path / "other")
    assert refused.code == 2
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "arguments",
    [["--metric", "nonsense"], ["--metric", "tokens_out"], ["--metric", "rouge_l"], ["--cost", "f1"],
     ["--write", "nodir/x.yaml"]],
)  # fmt: skip
def test_recommend_refuses_before_it_runs(
    call: Call, tmp_path: Path, data: Path, pipeline: Path, arguments: list[str]
) -> None:
    result = call("recommend", data, "-p", pipeline, "--max-loss", "1%", "--out", tmp_path / "run", *arguments)
    assert result.code == 2
    assert "unexpected" not in result.err
    assert not (tmp_path / "run").exists()


def test_without_out_the_same_command_has_the_same_folder(
    call: Call, tmp_path: Path, data: Path, pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = json.loads(call("eval", pipeline, "--data", data, "--json").out)
    again = call("eval", pipeline, "--data", data, "--json")
    assert json.loads(again.out)["run"] == first["run"]
    assert "8 of 8 questions were there already" in again.err
    other = json.loads(call("eval", pipeline, "--data", data, "--limit", 4, "--json").out)
    assert other["run"] != first["run"]
    assert call("sweep", pipeline, data, "--set", "compressors.0.budget=10,20").code == 0
    assert call("recommend", data, "-p", pipeline, "--max-loss", "1%").code == 0
    assert (tmp_path / "recommended.yaml").exists()
    assert len(list((tmp_path / "runs").iterdir())) == 4


def test_where_nothing_can_be_written_nothing_is_measured(
    call: Call, tmp_path: Path, data: Path, pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = {tmp_path}
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **more: path not in refused and may(path, mode, **more))
    out, write = tmp_path / "run", tmp_path / "best.yaml"
    result = call("recommend", data, "-p", pipeline, "--max-loss", "1%", "--out", out, "--write", write)
    assert result.code == 2
    assert "cannot be written" in result.err
    assert not out.exists()
