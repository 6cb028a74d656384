"""Stand-ins and helpers: an encoder of words, documents made from a seed, and what an index holds as plain values."""

from __future__ import annotations

import hashlib
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragzip.indexes import Index, build
from ragzip.ingest import Document

ROOT = "/docs"
WORDS = [
    *("amber", "bridge", "copper", "delta", "ember", "forest", "garden", "harbour"),
    *("island", "jungle", "kettle", "lantern", "meadow", "north", "ocean"),
]


class WordEncoder:
    """Unit vectors from hashed words. ``company`` mixes in who else is in the batch, as bf16 encoders do."""

    max_tokens = 256

    def __init__(self, dimensions: int = 16, *, name: str = "words", company: bool = False) -> None:
        self.name, self.dimensions, self._company = name, dimensions, company
        self.fingerprint = hashlib.sha256(f"{name} {dimensions}".encode()).hexdigest()
        self.calls: list[list[str]] = []

    def encode(
        self, texts: Sequence[str], *, batch_size: int = 32, on_progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        self.calls.append(list(texts))
        out = np.array([self._one(text) for text in texts], np.float32).reshape(-1, self.dimensions)
        if self._company:
            out += 1e-3 * (len(texts) % 7) + 1e-5 * sum(map(len, texts))
        if on_progress is not None:
            on_progress(len(texts), len(texts))
        return out / np.linalg.norm(out, axis=1, keepdims=True)

    def encode_each(self, texts: Sequence[str]) -> np.ndarray:
        return np.concatenate([self.encode([text]) for text in texts])

    encode_queries = encode_each

    def asking(self, texts: Sequence[str]) -> list[str]:
        return list(texts)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(re.findall(r"\w+|[^\w\s]", text)) for text in texts]

    def _one(self, text: str) -> np.ndarray:
        row = np.full(self.dimensions, 1e-3)
        for word in re.findall(r"\w+", text.lower()):
            digest = hashlib.md5(word.encode("utf-8", "replace")).digest()
            row[digest[0] % self.dimensions] += 1.0 if digest[1] % 2 else -1.0
        return row


def document(number: int, *, sentences: int = 6, root: str = ROOT, version: int = 0, **metadata: Any) -> Document:
    """A document whose text follows from its numbers."""
    rng = random.Random(number * 1000 + version)
    text = " ".join(
        " ".join(rng.choices(WORDS, k=9)).capitalize() + f" {number} {rng.randrange(99)}." for _ in range(sentences)
    )
    meta = {"number": number, "even": number % 2 == 0, "version": version, **metadata}
    return Document(f"docs/{number}.md", text, f"Title {number}", meta, root=root)


def documents(count: int, **options: Any) -> list[Document]:
    """Documents 0 to ``count``."""
    return [document(number, **options) for number in range(count)]


def make(path: Path, items: Iterable[Any], **options: Any) -> Any:
    """``build`` with small passages and a stand-in encoder."""
    defaults: dict[str, Any] = {
        "sync": True,
        "roots": [ROOT],
        "encoder": WordEncoder(),
        "tokens": 24,
        "overlap": 0,
        "commit_passages": 8,
    }
    return build(items, path, **{**defaults, **options})


def content(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What an index holds, whatever its rows and commits: each source's passages, with their vectors."""
    held: dict[str, list[tuple[Any, ...]]] = {entry.source: [] for entry in Index.open(path).documents()}
    with Index.open(path) as index:
        vectors = index.vectors.take(index.rows) if index.manifest.model else np.zeros((len(index), 0))
        for passage, vector in zip(index, vectors, strict=True):
            entry = (passage.id, passage.title, passage.text, dict(passage.metadata), vector.tobytes())
            held[passage.metadata["source"]].append(entry)
    return held


def found(path: Path, texts: Sequence[str] = ("amber bridge", "ocean 3", "kettle lantern 7")) -> list[Any]:
    """What searches give, as passage ids and scores."""
    encoder = WordEncoder()
    with Index.open(path) as index:
        hits = index.search_terms(texts, 10_000)
        if index.manifest.model:
            hits += index.search_vectors(encoder.encode_each(texts), 10_000)
        return [
            sorted(((round(float(s), 5), p.id) for p, s in zip(index.passages(h.rows), h.scores, strict=True)))
            for h in hits
        ]


def child(*arguments: object) -> list[str]:
    """The command that runs ``tests.indexes.child`` in a process of its own."""
    return [sys.executable, "-W", "error", "-m", "tests.indexes.child", *map(str, arguments)]


def start(*arguments: object) -> subprocess.Popen[str]:
    """Starts it."""
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        child(*arguments), cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(*arguments: object) -> tuple[int, str]:
    """Runs it to its end; exit code and output. Anything but a good end and SIGKILL is an error."""
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    assert process.returncode in (0, -signal.SIGKILL), err
    return process.returncode, out


def stop(kb: Path, when: str, build: Callable[[Iterable[Any]], Any], builder: type, monkeypatch: Any) -> set[str]:
    """A run that replaces document 0 and adds 40, stopped while it reads, or before the parts are made whole.

    Args:
        kb: The index folder.
        when: "reading" or "finishing".
        build: Takes documents, of a run that removes none.
        builder: Of the part.
        monkeypatch: To stop it.

    Returns:
        The ids of the passages that were there before and still are.
    """

    def halt(*_: Any) -> Any:
        raise KeyboardInterrupt

    def items() -> Iterable[Any]:
        yield from (document(0, version=1), document(40))
        if when == "reading":
            halt()

    with Index.open(kb) as index:
        before = {passage.id for passage in index if not passage.id.startswith("docs/0.md#")}
    with monkeypatch.context() as patch:
        if when == "finishing":
            patch.setattr(builder, "finish", halt)
        try:
            build(items())
        except KeyboardInterrupt:
            pass
        else:
            raise AssertionError("it was not stopped")
    return before
