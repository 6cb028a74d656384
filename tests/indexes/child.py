"""Run as a process of its own: indexes, and dies of SIGKILL at a given step.

A step is anything that reaches the disk: a file opened for writing, renamed or removed, a flush, an SQL statement.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from ragzip.testing.models import tiny_encoder
from tests.indexes.tools import ROOT, WordEncoder, document, documents, make


class Steps:
    """Counts steps and what kind they are, and kills this process before the one with the given number."""

    def __init__(self, last: int) -> None:
        self.kinds: list[str] = []
        self._last = last

    def step(self, kind: str) -> None:
        self.kinds.append(re.sub(r"\d+", "N", " ".join(kind.split()[:3])))
        if len(self.kinds) == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, folder: str) -> None:
        def hook(event: str, args: tuple[Any, ...]) -> None:
            if event == "open":
                writing = isinstance(args[1], str) and any(c in args[1] for c in "wxa+")
                if writing and folder in str(args[0]):
                    self.step(f"open {Path(args[0]).name}")
            elif event in ("os.rename", "os.remove", "os.mkdir", "shutil.rmtree") and folder in str(args[0]):
                self.step(f"{event} {Path(args[0]).name}")

        sys.addaudithook(hook)
        flush = os.fsync

        def fsync(handle: int) -> None:
            self.step("fsync")
            flush(handle)

        os.fsync = fsync
        import ragzip.indexes.table_writer as module

        connect = module.connect

        def watched(*args: Any) -> Any:
            db = connect(*args)
            db.set_trace_callback(self.step)
            return db

        module.connect = watched


MODELS = "RAGZIP_TESTMODELS"
_TOKENS = {"repetitions": 2, "planes": 2, "projection": 8, "width": 0, "residual_bits": 8, "centroids": 8}

SCENARIOS: dict[str, dict[str, Any]] = {
    # What is there before, and the run that is killed.
    "first": {"after": documents(12)},
    "update": {
        "before": documents(12),
        "after": [*(document(n, version=n % 2) for n in range(9)), document(30)],
    },
    "compact": {"before": documents(6), "after": [document(n, version=1) for n in range(6)]},
    "rebuild": {"before": documents(6), "after": documents(9), "rebuild": True, "tokens": 32},
    "join": {"before": documents(63, sentences=2), "after": documents(65, sentences=2), "commit_passages": 1},
    "coded": {
        "before": documents(12),
        "after": [*(document(n, version=n % 2) for n in range(9)), document(30)],
        "storage": "int8+pca8,float8",
    },
    "remove": {"before": documents(8), "after": documents(3)},
    "graph": {"before": documents(6), "after": documents(9), "retriever": "graph"},
    "multi_vector": {"before": documents(6), "after": documents(9), "retriever": "multi_vector", "settings": _TOKENS},
    "jpq": {"before": documents(6), "after": documents(9), "retriever": "jpq", "settings": {}},
}


def models(folder: Path) -> Path:
    """Makes what parts of retrievers are made with: a late-interaction model, and centroids for ``WordEncoder``."""
    from ragzip.indexes.jpq.quantizer import FILE, Quantizer

    for name in ("multi_vector", "jpq"):
        tiny_encoder(folder / name, window=64)
    encoder, draw = WordEncoder(), np.random.default_rng(0)
    centroids = draw.standard_normal((4, 256, encoder.dimensions // 4)).astype(np.float32)
    prices, rotation = np.zeros((4, 256), np.float32), np.eye(encoder.dimensions, dtype=np.float32)
    made = Quantizer(rotation, centroids, prices, centroids, encoder.name, encoder.fingerprint)
    (folder / "jpq" / FILE).write_bytes(made.dump())
    return folder


def before(name: str, kb: Path) -> None:
    """Makes the index as it is before the run that is killed."""
    if "before" in SCENARIOS[name]:
        options = {key: SCENARIOS[name][key] for key in ("commit_passages", "storage") if key in SCENARIOS[name]}
        with patch("ragzip.indexes.storage.LEAST_ROWS", 8):
            make(kb, SCENARIOS[name]["before"], encoder=WordEncoder(company=True), **options)


def after(name: str, kb: Path, encoder: WordEncoder) -> Any:
    """The run that is killed, and that is to mend everything when it is run again."""
    options = {key: value for key, value in SCENARIOS[name].items() if key not in ("before", "after")}
    if "settings" in options:
        options["settings"] = {**options["settings"], "model": str(Path(os.environ[MODELS], name))}
    with patch("ragzip.indexes.storage.LEAST_ROWS", 8), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*encodings of multi_vector find only")  # a random model's
        return make(kb, SCENARIOS[name]["after"], encoder=encoder, **options)


def endless(kb: Path) -> None:
    """Indexes more and more, and says so, until killed."""
    for number in range(10_000):
        make(kb, [document(number)], sync=False)
        print(number, flush=True)


def waiting(kb: Path) -> None:
    """Stops in the middle of indexing until it gets a line."""

    def items() -> Any:
        yield from documents(4)
        print("waiting", flush=True)
        sys.stdin.readline()
        yield from documents(9)[4:]

    make(kb, items())


def hot(kb: Path) -> None:
    """Dies in the middle of a transaction whose pages are in the file already."""
    from ragzip.indexes import Index
    from ragzip.indexes.table_writer import TableWriter

    entry = Index.open(kb).manifest
    writer = TableWriter(kb, entry.table)
    writer._db.execute("PRAGMA cache_size = 1")
    writer._db.execute("BEGIN IMMEDIATE")
    writer._db.execute("UPDATE passages SET text = 'overwritten', id = 'x' || row")
    writer._db.execute("UPDATE documents SET removed = 1")
    writer._db.execute("INSERT INTO meta SELECT value || hex(randomblob(9)), hex(randomblob(9000)) FROM meta")
    os.kill(os.getpid(), signal.SIGKILL)


def small_disk(kb: Path, size: int) -> None:
    """Indexes where no file may be larger than ``size`` bytes, as on a disk that is full."""
    from ragzip.errors import StoreError

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        make(kb, documents(12), roots=[ROOT], encoder=WordEncoder(company=True))
    except StoreError as error:
        print("refused:", error)
    else:
        print("fine")


def main() -> None:
    """``child.py JOB KB [ARGUMENT]``."""
    job, kb, *rest = sys.argv[1:]
    if job in SCENARIOS:
        steps = Steps(int(rest[0]))
        steps.watch(kb)
        after(job, Path(kb), WordEncoder(company=True))
        print(json.dumps(steps.kinds))
    elif job == "small_disk":
        small_disk(Path(kb), int(rest[0]))
    else:
        {"endless": endless, "hot": hot, "waiting": waiting}[job](Path(kb))


if __name__ == "__main__":
    main()
