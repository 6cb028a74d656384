"""A folder of documents, an index of its words, and the command line in process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ragzip.cli.app import run

DOCUMENTS = {
    "cats.md": "# Cats\n\nThe cat sat on the mat. It was a black cat with a white paw.\n\n## Food\n\nCats eat fish.\n",
    "dogs.txt": "Dogs bark at night. A dog guards the house. Dogs bury bones in the garden.\n",
    "sub/rain.rst": "Rain\n====\n\nRain falls mainly on the plain. Umbrellas help against rain.\n",
}


@dataclass
class Result:
    """What a call printed and its exit code."""

    code: int
    out: str
    err: str


Call = Callable[..., Result]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command line in this process."""

    def calling(*arguments: str | Path) -> Result:
        capsys.readouterr()
        code = run([str(a) for a in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Result(code, captured.out, captured.err)

    return calling


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """Three documents in three formats."""
    for name, text in DOCUMENTS.items():
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "docs"


@pytest.fixture
def kb(docs: Path, call: Call) -> Path:
    """A word index of the three documents; no model is needed for it."""
    index = docs.parent / "kb"
    assert call("index", docs, "--index", index, "--retriever", "bm25").code == 0
    return index


@pytest.fixture
def look(kb: Path) -> Path:
    """A pipeline that shows what a generator would read."""
    path = kb.parent / "look.yaml"
    path.write_text(
        f"ragzip: 1\nretriever: {{type: bm25, index: {kb}, top_k: 5}}\n"
        "compressors:\n  - {type: budget, tokens: 12}\ngenerator: {type: echo}\n",
        encoding="utf-8",
    )
    return path
