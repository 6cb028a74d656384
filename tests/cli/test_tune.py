"""What ``sweep`` and ``recommend`` must not claim, and what they write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragzip.evaluation.folder import Run
from ragzip.evaluation.view import uncompressed_of
from tests.cli.conftest import Call
from tests.evaluation.parts import small_set

BM25 = "ragzip: 1\ncompressors: [{type: bm25_sentences, budget: 20}]\ngenerator: echo\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(record.to_json()) + "\n" for record in small_set(8).records))
    return path


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    path = tmp_path / "look.yaml"
    path.write_text(BM25)
    return path


@pytest.fixture
def judged(tmp_path: Path, kb: Path) -> Path:
    """Questions with judged documents and no answers."""
    path = tmp_path / "judged.jsonl"
    lines = [{"id": str(n), "question": "Who barks at night?", "qrels": {"dogs.txt": 1}} for n in range(4)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def searching(path: Path, kb: Path, name: str, top_k: int = 5) -> Path:
    path = path / f"{name}.yaml"
    path.write_text(
        f"ragzip: 1\nname: {name}\nretriever: {{type: bm25, index: {kb}, top_k: {top_k}}}\n"
        "compressors: [{type: truncate, tokens: 1}]\ngenerator: echo\n"
    )
    return path


def test_no_loss_of_what_was_retrieved_is_proved_by_compressing_it(call: Call, tmp_path, judged, kb) -> None:
    one = searching(tmp_path, kb, "tiny")
    for metric in ((), ("--metric", "ndcg@10"), ("--metric", "recall@5")):
        result = call("recommend", judged, "--max-loss", "1pt", "-p", one, "--out", tmp_path / "run", *metric)
        assert result.code == 2
        assert "quality metric" in result.err if not metric else "before compression" in result.err
        assert not (tmp_path / "run").exists()


def test_fronts_of_what_was_retrieved_need_several_retrievers(call: Call, tmp_path, judged, kb) -> None:
    one = searching(tmp_path, kb, "tiny")
    alone = call("sweep", one, judged, "--set", "compressors.0.tokens=1,5", "--out", tmp_path / "alone", "--json")
    assert json.loads(alone.out)["fronts"] == {}
    several = call("sweep", one, judged, "--set", "retriever.top_k=1,5", "--out", tmp_path / "several", "--json")
    assert "ndcg@10/tokens_out" in json.loads(several.out)["fronts"]
    again = call("sweep", one, judged, "--set", "retriever.top_k=1,5", "--out", tmp_path / "several")
    assert "Pareto front: ndcg@10 against tokens_out" in again.out


@pytest.mark.parametrize("name", ["no_compression", "bm25_sentences@20", "closed_book", "mine"])
def test_what_is_recommended_can_be_evaluated(call: Call, tmp_path, data, pipeline, name) -> None:
    given = tmp_path / "given.yaml"
    given.write_text(BM25.replace("ragzip: 1", f"ragzip: 1\nname: {name}") if name != "no_compression" else BM25)
    limit = "0" if name == "no_compression" else "99pt"
    write = tmp_path / "chosen.yaml"
    run = call("recommend", data, "-p", given, "--max-loss", limit, "--out", tmp_path / "r", "--write", write)
    if run.code == 2:  # a given pipeline of such a name is refused from the start
        assert "two rows are called" in run.err
        return
    assert run.code == 0, run.err
    assert ("these questions need no context" in run.err) == (limit == "99pt")
    assert call("eval", write, "--data", data, "--out", tmp_path / "again").code == 0


def test_several_generators_are_refused_before_anything_runs(call: Call, tmp_path, data, pipeline) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(BM25.replace("echo", "{type: echo, text: Yes.}"))
    out = tmp_path / "run"
    result = call("recommend", data, "-p", pipeline, "-p", other, "--max-loss", "1%", "--out", out)
    assert result.code == 2
    assert "2 generators" in result.err
    assert not out.exists()


def test_without_out_another_index_is_another_run(call: Call, tmp_path, judged, kb, docs, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = searching(tmp_path, kb, "tiny")
    for _ in range(2):
        assert call("eval", one, "--data", judged).code == 0
    assert len(list((tmp_path / "runs").iterdir())) == 1
    (docs / "more.txt").write_text("Cats bark at night, too.")
    assert call("index", docs, "--index", kb).code == 0
    assert call("eval", one, "--data", judged).code == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_fronts_have_costs_whatever_metrics_are_asked_for(call: Call, tmp_path, data, pipeline) -> None:
    values = ("--set", "compressors.0.budget=20,60", "--metrics", "f1", "--out", tmp_path / "run")
    result = call("sweep", pipeline, data, *values)
    assert result.code == 0
    front = result.out[result.out.index("Pareto front: f1 against tokens_out") :].splitlines()
    assert not any(line.rstrip().endswith(" -") for line in front if line.strip())
    assert 'id="pareto"' in (tmp_path / "run" / "report.html").read_text()


def test_break_even_is_against_no_compression_whatever_losses_are_held_against(call, tmp_path, data, pipeline) -> None:
    out = tmp_path / "run"
    assert call("eval", pipeline, "--data", data, "--out", out, "--baseline", "truncate@20").code == 0
    run = Run.load(out)
    assert run.config["rows"]["look"]["baseline"] == "truncate@20" or run.config["baseline"] == "truncate@20"
    assert uncompressed_of(run, "look") == "no_compression"
    assert uncompressed_of(run, "truncate@20") == "no_compression"
