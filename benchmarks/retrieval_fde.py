"""Fixed dimensional encodings beside those of other packages: the same vectors, settings and machine, turn by turn.

    make bench-retrieval                          # with what else is measured of retrieval
    python benchmarks/run.py retrieval_fde        # a minute, in the environment that make prepares

The others live in .bench/fde. All make 20 repetitions of 32 partitions, 16 wide: 10,240 numbers a document.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OTHER = ROOT / ".bench" / "fde" / "bin" / "python"
DOCUMENTS, TOKENS, DIMENSIONS, ROUNDS = 1000, 120, 128, 5
NAMES = {"ragzip": "ragzip", "muvera": "muvera-python 0.2.0 (Rust)", "fastembed": "fastembed 0.9.1"}


def run() -> dict[str, Any]:
    """Rounds of all of them after each other, with one thread and with all."""
    import numpy as np

    if not OTHER.exists():
        raise SystemExit(f"{OTHER} is missing: make bench-retrieval prepares it")
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((DOCUMENTS, TOKENS, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        np.save(path, vectors)
        for threads in (1, os.cpu_count() or 1):
            speeds: dict[str, list[float]] = {name: [] for name in NAMES}
            for _ in range(ROUNDS):
                for name in NAMES:
                    speeds[name].append(_once(name, path, threads))
            results[str(threads)] = {name: statistics.median(found) for name, found in speeds.items()}
    return results


def _once(name: str, path: Path, threads: int) -> float:
    python = sys.executable if name == "ragzip" else str(OTHER)
    limits = {key: str(threads) for key in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")}
    runner = Path(__file__).with_name("fde_runner.py")
    done = subprocess.run(
        [python, str(runner), name, str(path)], capture_output=True, text=True, check=True, env={**os.environ, **limits}
    )
    found: float = json.loads(done.stdout)["per_second"]
    return found


def render(record: dict[str, Any]) -> str:
    """One table: a line for each implementation."""
    lines = [
        f"`{record['command']}`, {record['when']}, " + ", ".join(f"{k} {v}" for k, v in record["environment"].items()),
        "",
        f"{DOCUMENTS:,} documents of {TOKENS} vectors of {DIMENSIONS}; fastembed, which goes through tokens in Python,"
        f" does 20 of them. Medians of {ROUNDS} rounds.",
        "",
        "| implementation | threads | documents a second | ragzip is faster by |",
        "|---|---|---|---|",
    ]
    for threads, speeds in record["results"].items():
        for name, shown in NAMES.items():
            times = "" if name == "ragzip" else f"{speeds['ragzip'] / speeds[name]:.1f}x"
            lines.append(f"| {shown} | {threads} | {speeds[name]:,.0f} | {times} |")
    return "\n".join(lines) + "\n"
