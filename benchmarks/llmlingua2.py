"""ragzip's LLMLingua2 against the ``llmlingua`` package: the same texts, the same encoder, one machine, one run.

    python benchmarks/run.py llmlingua2        # some minutes on two cores

The package cannot live beside ragzip, so it runs under a Python of its own, which `make bench-compressors` makes in
.bench/llmlingua. Both read a token classifier of the size of the built-in encoder, with its weights and a random head,
saved in the layout of transformers (its folder is named as the package wants it: it looks for words in names). They
take turns, text by text, with as many threads each. Two shapes: one long document, and the same text as passages. The
package keeps by its own percentiles, so that both leave about, but not exactly, the same share.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.corpus import documents
from ragzip.compressors.llmlingua2 import LLMLingua2
from ragzip.models import EMBEDDER, default_counter, load_tokenizer, resolve, set_threads, token_classifier
from ragzip.types import Context, Passage, Query, TextSegment, context_of

NAME = "bert-base-multilingual-cased-of-minilm-size"
OTHER = Path(__file__).resolve().parent.parent / ".bench" / "llmlingua" / "bin" / "python"
TOKENS, CONTEXTS, PASSAGES, ROUNDS, RATE = 3000, 5, 20, 4, 0.5


def save_classifier(folder: Path) -> Path:
    """The built-in encoder with a random head, as a checkpoint for token classification."""
    import shutil

    import torch
    from transformers import AutoModelForTokenClassification

    source = resolve(EMBEDDER)
    torch.manual_seed(0)
    model = AutoModelForTokenClassification.from_pretrained(source, num_labels=2, dtype=torch.float32)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        if (source / name).is_file():
            shutil.copy(source / name, folder / name)
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 512}), "utf-8")
    return folder


def contexts(count: int, tokens: int, passages: int) -> list[list[str]]:
    """Texts of about so many tokens of the encoder, each as so many passages."""
    tokenizer = load_tokenizer(EMBEDDER)
    found: list[list[str]] = []
    parts: list[str] = []
    room = size = tokens // passages
    for document in documents():
        for paragraph in document.text.split("\n\n"):
            if not parts or room <= 0:
                parts.append("")
                room = size
            parts[-1] += paragraph + "\n\n"
            room -= len(tokenizer.encode(paragraph, add_special_tokens=False).ids)
            if len(parts) == passages and room <= 0:
                found.append(parts)
                parts = []
            if len(found) == count:
                return found
    raise SystemExit("the corpus is too small for that many contexts")


class Other:
    """The package, in its own process."""

    def __init__(self, python: str, folder: Path, threads: int) -> None:
        runner = Path(__file__).with_name("llmlingua_runner.py")
        environ = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        self.process = subprocess.Popen(
            [python, str(runner), str(folder), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if not os.environ.get("RAGZIP_DEBUG") else None,
            text=True,
            env=environ,
        )
        self.ready = self._answer()

    def compress(self, texts: list[str], rate: float) -> tuple[float, str]:
        stdin = self.process.stdin
        if stdin is None:
            raise SystemExit("the other process has no input")
        stdin.write(json.dumps({"texts": texts, "rate": rate}) + "\n")
        stdin.flush()
        found = self._answer()
        return float(found["seconds"]), str(found["text"])

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise SystemExit("the other Python ended; set RAGZIP_DEBUG=1 to see why")
        return json.loads(line)  # type: ignore[no-any-return]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


@contextmanager
def timed_model(method: LLMLingua2) -> Iterator[list[float]]:
    """The seconds inside the bare model, added up in the first element."""
    loaded, spent = method.load(), [0.0]

    def logits(ids: Any, mask: Any) -> Any:
        start = time.perf_counter()
        try:
            return loaded._logits(ids, mask)
        finally:
            spent[0] += time.perf_counter() - start

    timed = replace(loaded, _logits=logits)
    with mock.patch.object(token_classifier, "load_token_classifier", lambda *_, **__: timed):
        yield spent


def run() -> dict[str, Any]:
    """One row for one long document and one for the same text as passages."""
    if not OTHER.exists():
        raise SystemExit(f"{OTHER} is not there: make bench-compressors makes it")
    threads = os.cpu_count() or 1
    set_threads(threads)
    counter = default_counter()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as made:
        folder = save_classifier(Path(made) / NAME)
        other = Other(str(OTHER), folder, threads)
        for passages in (1, PASSAGES):
            batch = contexts(CONTEXTS, TOKENS, passages)
            rows.append(compare(batch, folder, other, RATE, ROUNDS, counter))
        other.close()
    settings = {"tokens": TOKENS, "contexts": CONTEXTS, "rounds": ROUNDS, "rate": RATE, "threads": threads}
    return {"settings": {**settings, "other torch": other.ready["ready"]}, "rows": rows}


def compare(
    batch: list[list[str]], folder: Path, other: Other, rate: float, rounds: int, counter: Any
) -> dict[str, Any]:
    """Median seconds a context of each, in turns."""
    methods = {dtype: LLMLingua2(model=str(folder), keep=rate, dtype=dtype) for dtype in ("fp32", "auto")}
    times: dict[str, list[float]] = {"llmlingua": [], **{dtype: [] for dtype in methods}}
    shares: dict[str, list[float]] = {dtype: [] for dtype in methods}
    kept: dict[str, list[float]] = {name: [] for name in times}
    for number in range(rounds + 1):
        for texts in batch:
            context = context_of(Query(""), tuple(Passage(str(i), text) for i, text in enumerate(texts)))
            whole = counter.context(context)
            seconds, text = other.compress(texts, rate)
            found: dict[str, tuple[float, float, Context[TextSegment] | str]] = {"llmlingua": (seconds, 0.0, text)}
            for dtype, method in methods.items():
                with timed_model(method) as spent:
                    start = time.perf_counter()
                    (after,) = method.compress([context])
                    total = time.perf_counter() - start
                found[dtype] = (total, 1 - spent[0] / total, after)
            if number == 0:
                continue  # the first round warms up
            for name, (seconds, share, result) in found.items():
                times[name].append(seconds)
                left = counter.texts([result])[0] if isinstance(result, str) else counter.context(result)
                kept[name].append(left / whole)
                if name in shares:
                    shares[name].append(share)
    middle = {name: statistics.median(values) for name, values in times.items()}
    return {
        "passages": len(batch[0]),
        "seconds": middle,
        "kept": {name: statistics.fmean(values) for name, values in kept.items()},
        "speedup": {dtype: middle["llmlingua"] / middle[dtype] for dtype in methods},
        "overhead": {dtype: statistics.median(values) for dtype, values in shares.items()},
    }


def render(record: dict[str, Any]) -> str:
    """One line for each shape and program."""
    found = record["results"]
    lines = [
        f"`{record['command']}`, {record['when']}, " + ", ".join(f"{k} {v}" for k, v in record["environment"].items()),
        "",
        ", ".join(f"{key} {value}" for key, value in found["settings"].items()) + "; medians.",
        "",
        "| passages | program | ms a context | kept | throughput against the package | around the bare model |",
        "|---|---|---|---|---|---|",
    ]
    names = {"llmlingua": "llmlingua 0.2.2, fp32", "fp32": "ragzip, fp32", "auto": "ragzip, as it comes"}
    for row in found["rows"]:
        for name, seconds in row["seconds"].items():
            speed = f"{row['speedup'][name]:.1f}x" if name in row["speedup"] else ""
            share = f"{row['overhead'][name]:.1%}" if name in row["overhead"] else ""
            cells = [
                str(row["passages"]),
                names[name],
                f"{seconds * 1e3:.0f}",
                f"{row['kept'][name]:.1%}",
                speed,
                share,
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
