"""``ragzip index --storage`` and ``ragzip index tune``."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ragzip.retrievers import for_index
from ragzip.types import Query
from tests.cli.conftest import Call
from tests.indexes.tools import document


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eighty short documents, where storages are learned from so few."""
    monkeypatch.setattr("ragzip.indexes.storage.LEAST_ROWS", 20)
    monkeypatch.setattr("ragzip.evaluation.storage.LEAST_ROWS", 20)
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": document(n, sentences=2).text}) + "\n" for n in range(80)), "utf-8")
    return path


@pytest.mark.models
def test_tune_measures_names_and_applies(call: Call, corpus: Path, tmp_path: Path) -> None:
    kb = tmp_path / "kb"
    assert call("index", corpus, "--index", kb, "--retriever", "dense").code == 0
    lines = ["--storage", "float32", "--storage", "float8", "--storage", "pq5"]
    shown = call("index", "tune", kb, *lines, "--questions", "20", "--least-recall", "0.5")
    assert shown.code == 0, shown.err
    assert [line.split()[0] for line in shown.out.splitlines()[2:4]] == ["float32", "float8"]
    assert "float8: the least disk with a recall of at least 0.5" in shown.out
    assert "left out: pq5" in shown.err
    assert "nothing was changed" in shown.err
    assert json.loads(call("index", "info", "--index", kb, "--json").out)["storage"] == "auto"
    figure = tmp_path / "front.svg"
    applied = call(
        "index", "tune", kb, *lines, "--questions", "20", "--least-recall", "0.5", "--apply", "--json",
        "--figure", figure,
    )  # fmt: skip
    drawn = figure.read_text("utf-8")
    root = ElementTree.fromstring(drawn)
    assert root.tag.endswith("svg")
    assert all(f">{name}</text>" in drawn for name in ("float32", "float8"))
    assert "var(" not in drawn
    found = json.loads(applied.out)
    assert (found["chosen"], found["applied"]) == ("float8", True)
    assert {one["storage"] for one in found["measured"]} == {"float32", "float8"}
    info = json.loads(call("index", "info", "--index", kb, "--json").out)
    assert (info["storage"], info["kept_as"]) == ("float8", "float8")
    again = call("index", "tune", kb)
    assert again.code != 0
    assert "--rebuild --storage auto" in again.err
    (passages,) = for_index(kb, 3).retrieve([Query("amber bridge copper delta")])
    assert len(passages) == 3


@pytest.mark.models
def test_indexing_with_a_storage(call: Call, corpus: Path, tmp_path: Path) -> None:
    kb = tmp_path / "kb"
    assert call("index", corpus, "--index", kb, "--storage", "pca16,float8").code == 0
    info = json.loads(call("index", "info", "--index", kb, "--json").out)
    assert (info["storage"], info["kept_as"]) == ("pca16,float8", "pca16,float8")
    refused = call("index", corpus, "--index", kb, "--storage", "float16")
    assert refused.code != 0
    assert "kept as pca16,float8" in refused.err


def test_what_cannot_be_measured(call: Call, kb: Path) -> None:
    """The index is one of words."""
    for arguments, said in (
        (["--by", "beauty"], "--by 'beauty' is no cost"),
        ([], "no vectors"),
        (["--storage", "nothing"], "no vectors"),
    ):
        found = call("index", "tune", kb, *arguments)
        assert found.code != 0
        assert said in found.err
    assert "is no storage" in call("index", kb.parent / "docs", "--index", kb.parent / "x", "--storage", "float9").err
    assert not (kb.parent / "x").exists()
