"""Closed standard streams, documents that would command the terminal, and one question of several that fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ragzip import registry
from ragzip.cli import console
from tests.cli.conftest import Call

EVIL = "a\x1b]52;c;aGk=\x1b\\b\x1b[2Jc\nd\te"


@pytest.mark.parametrize(
    ("command", "closed"),
    [("list compressor", ">&-"), ("list compressor", "2>&-"), ("compress --budget 5", "<&-"), ("expand", "<&-")],
)
def test_closed_streams_are_no_defect(command: str, closed: str) -> None:
    shell = f"{sys.executable} -m ragzip {command} {closed}"
    ended = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60, check=False)
    assert "unexpected" not in ended.stderr + ended.stdout
    assert ended.returncode == (0 if "list" in command else ended.returncode)
    assert ended.returncode in (0, 1, 2)


def test_documents_send_no_commands_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert console.shown(EVIL) == EVIL  # a file or a pipe gets what is there
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert "\x1b" not in console.shown(EVIL)
    assert console.shown("Ünïcode\n\tfine") == "Ünïcode\n\tfine"


def test_one_question_that_is_too_long_stops_no_other(call: Call, tmp_path: Path, tiny_lm_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.txt").write_text("Zebras eat grass.")
    (docs / "b.txt").write_text("whale " * 3000)
    kb = tmp_path / "kb"
    assert call("index", docs, "--index", kb, "--retriever", "bm25").code == 0
    path = tmp_path / "q.yaml"
    path.write_text(
        f"ragzip: 1\nretriever: {{type: bm25, index: {kb}, top_k: 40}}\n"
        f"generator: {{type: huggingface, model: {tiny_lm_path}, max_new_tokens: 4}}\n"
    )
    result = call("query", "-p", path, "--json", "zebras?", "whale?", "zebras grass?")
    assert result.code == 1
    assert [json.loads(line)["question"] for line in result.out.splitlines()] == ["zebras?", "zebras grass?"]
    assert "error: 'whale?': prompt 0 has" in result.err
    alone = call("query", "-p", path, "whale?")
    assert alone.code == 1
    assert "error: prompt 0 has" in alone.err


@pytest.mark.parametrize("body", ["import nope_nope", "def broken(:", "raise ValueError('no')", "x = 1"])
def test_a_broken_plugin_hides_no_other_component(call: Call, tmp_path, monkeypatch, body: str) -> None:
    (tmp_path / "broken_plugin.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_plugin", raising=False)
    monkeypatch.setitem(registry._extra, "compressor", {"broken": "broken_plugin:Part"})
    result = call("list", "compressor")
    assert result.code == 0
    assert "provence" in result.out
    assert "'broken' cannot be loaded from 'broken_plugin:Part'" in " ".join(result.out.split())
    shown = call("show", "broken")
    assert shown.code == 2
    assert "unexpected" not in shown.err
