"""What indexes weigh: the parts add up, seconds add up over runs, and a retriever counts what it reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragzip.evaluation.rows import Row
from ragzip.evaluation.runner import Settings, evaluate
from ragzip.generators.echo import Echo
from ragzip.indexes import Index, manifest
from ragzip.indexes.weight import structures, weight
from ragzip.pipelines import Pipeline
from ragzip.retrievers import BM25, JPQ, Dense, Fusion, Graph, Oracle
from tests.evaluation.parts import small_set
from tests.indexes.tools import WordEncoder, documents, make


@pytest.fixture
def kb(tmp_path, monkeypatch):
    words = WordEncoder()
    monkeypatch.setattr("ragzip.models.load_encoder", lambda name, **_: words)
    make(tmp_path / "kb", documents(6), retriever="graph")
    return str(tmp_path / "kb")


def test_structures_are_all_there_is_but_the_table(kb):
    entry = Index.open(kb).manifest
    found = structures(entry)
    assert set(found) == {"vectors", "faiss", "bm25", "graph"}
    assert sum(found.values()) == sum(file.bytes for file in entry.files)
    assert set(entry.seconds) == set(found)
    assert all(value > 0 for value in entry.seconds.values())


def test_a_retriever_counts_what_it_reads_once(kb):
    dense, bm25, graph = (weight(kind(kb)) for kind in (Dense, BM25, Graph))
    both = weight(Fusion((Dense(kb), Dense(kb, top_k=3), BM25(kb))))
    assert both.bytes == pytest.approx(dense.bytes + bm25.bytes)
    assert both.bytes < graph.bytes
    assert both.seconds == pytest.approx(dense.seconds + bm25.seconds)
    found = structures(Index.open(kb).manifest)
    assert dense.bytes * len(Index.open(kb)) == pytest.approx(found["vectors"] + found["faiss"])
    assert JPQ(kb).structures != JPQ(kb, rescore=10).structures
    assert weight(None) is weight(Oracle("x.jsonl")) is None


def test_seconds_add_up_over_runs_and_a_rebuild_begins_anew(kb, tmp_path):
    before = Index.open(kb).manifest.seconds
    make(tmp_path / "kb", documents(9))
    after = Index.open(kb).manifest.seconds
    assert all(after[name] > before[name] for name in before)
    make(tmp_path / "kb", documents(9))
    assert Index.open(kb).manifest.seconds == after
    make(tmp_path / "kb", documents(1), rebuild=True)
    assert Index.open(kb).manifest.seconds["vectors"] < after["vectors"]


def test_of_an_index_that_an_older_ragzip_began_nobody_knows_the_seconds(kb):
    path = Path(kb) / "manifest.json"
    raw = json.loads(path.read_text())
    body = {key: value for key, value in raw.items() if key not in ("format", "checksum", "seconds")}
    path.write_text(json.dumps({"format": 2, "checksum": manifest._checksum(body), **body}))
    found = weight(Fusion((Dense(kb), BM25(kb))))
    assert found.seconds is None
    assert found.bytes > 0


def test_eval_reports_it(kb, tmp_path):
    rows = [
        Row("dense", Pipeline(Echo(), Dense(kb))),
        Row("graph", Pipeline(Echo(), Graph(kb))),
        Row("none", Pipeline(Echo())),
    ]
    run = evaluate(rows, small_set(2), tmp_path / "run", Settings(metrics=("index_bytes", "build_seconds")))
    for name, kind in (("dense", Dense), ("graph", Graph)):
        expected = weight(kind(kb))
        assert run.metrics[name]["index_bytes"]["mean"] == pytest.approx(expected.bytes)
        assert run.metrics[name]["build_seconds"]["mean"] == pytest.approx(expected.seconds)
    assert "index_bytes" not in run.metrics["none"] or not run.metrics["none"]["index_bytes"]["n"]
