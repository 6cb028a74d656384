"""Multi-vector search over 100,000 passages: through the encodings against MaxSim over everything.

    python benchmarks/run.py retrieval retrieval_scale        # the second takes about ten minutes and 4 GB on two cores

The passages are windows of 32 tokens over those that ``retrieval`` indexed, 16 apart, with the token vectors that its
indexes hold; the queries are its questions. What is timed begins with a question's token vectors: encoding the question
costs the same both ways.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

PASSAGES, WINDOW, STRIDE, QUERIES = 100_000, 32, 16, 100
CANDIDATES = (50, 100, 200)
STEP = 2000


def run(passages: int = PASSAGES) -> dict[str, Any]:
    """Builds codes, encodings and the index over them, and searches."""
    import numpy as np

    from ragzip.indexes.multi_vector.candidates import Candidates, build
    from ragzip.indexes.multi_vector.codec import train_codec
    from ragzip.indexes.multi_vector.fde import FDE
    from ragzip.indexes.multi_vector.maxsim import maxsim
    from ragzip.indexes.multi_vector.part import MultiVectorPart
    from ragzip.indexes.multi_vector.tokens import Batch, Tokens, shrink, write_batch
    from ragzip.indexes.ranking import top

    clouds, queries = _clouds(passages), _queries()
    passages, dimensions = len(clouds), clouds[0].shape[1]
    sizes = np.array([len(cloud) for cloud in clouds])
    part = MultiVectorPart()
    results: dict[str, Any] = {"passages": passages}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        start_time = time.perf_counter()
        sample = np.concatenate(clouds[:: max(passages // 4096, 1)])
        codec = train_codec(sample, bits=part.residual_bits, expected=int(sizes.sum()))
        results["train_seconds"] = time.perf_counter() - start_time
        fde = FDE(part.recipe(dimensions))
        batches, seconds = [], {"codes": 0.0, "encodings": 0.0}
        for start in range(0, passages, STEP):
            block = clouds[start : start + STEP]
            begun = time.perf_counter()
            codes = codec.encode(np.concatenate(block))
            middle = time.perf_counter()
            encodings = shrink(fde.documents(block))
            seconds["codes"] += middle - begun
            seconds["encodings"] += time.perf_counter() - middle
            write_batch(root, f"{start}/", Batch(sizes[start : start + STEP].astype(np.int32), *codes, *encodings))
            batches.append([f"{start}/", len(block)])
        tokens_ = Tokens(root, batches, codec, passages)
        rows = np.arange(passages)
        begun = time.perf_counter()
        file = build(root, "encodings.faiss", tokens_, rows)
        results["seconds"] = {**seconds, "faiss": time.perf_counter() - begun}
        on_disk = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
        results["bytes"] = {"all": on_disk / passages, "faiss": file.bytes / passages}
        searcher = Candidates(root, file, rows)
        flat, ends = np.concatenate(clouds), np.concatenate([[0], np.cumsum(sizes)])
        cuts = list(itertools.pairwise([*range(0, passages, 4 * STEP), passages]))
        exact_times, best = [], []
        for query in queries:
            begun = time.perf_counter()
            scores = [maxsim(query, flat[ends[a] : ends[b]], sizes[a:b]) for a, b in cuts]
            best.append(top(rows, np.concatenate(scores), 10).rows)
            exact_times.append(time.perf_counter() - begun)
        results["exact_seconds"] = statistics.median(exact_times)
        results["found"] = {}
        for candidates in CANDIDATES:
            times, shares = [], []
            for query, mine in zip(queries, best, strict=True):
                begun = time.perf_counter()
                some = searcher.search(fde.queries([query])[0], candidates)
                hits = top(some, maxsim(query, *tokens_.vectors(some)), 10)
                times.append(time.perf_counter() - begun)
                shares.append(float(np.isin(mine, hits.rows).mean()))
            results["found"][str(candidates)] = {
                "seconds": statistics.median(times), "share": statistics.mean(shares)
            }  # fmt: skip
    return results


def _clouds(most: int) -> list[Any]:
    """Token vectors of windows."""
    import numpy as np

    from benchmarks.retrieval import RUNS, SETS
    from ragzip.indexes import Index
    from ragzip.indexes.multi_vector.part import learned, tokens_of

    found: list[Any] = []
    for name in SETS:
        with Index.open(RUNS / name / "index") as index:
            entry = index.part("multi_vector")
            tokens = tokens_of(index, entry, learned(index, entry)[0])
            for rows in np.array_split(index.rows, max(len(index) // 1000, 1)):
                vectors, counts = tokens.vectors(rows)
                for passage in np.split(vectors, np.cumsum(counts)[:-1]):
                    found += [passage[a : a + WINDOW] for a in range(0, max(len(passage) - STRIDE, 1), STRIDE)]
                if len(found) >= most:
                    return found[:most]
    return found


def _queries() -> list[Any]:
    """Token vectors of questions, as many of each set."""
    from benchmarks.retrieval import RUNS, SETS
    from ragzip.evaluation.data import open_set
    from ragzip.indexes import Index
    from ragzip.models.late_interaction import load_late_interaction

    found: list[Any] = []
    for name in SETS:
        with Index.open(RUNS / name / "index") as index:
            model = load_late_interaction(index.part("multi_vector").settings["name"])
        questions = [record.question for record in open_set(name).records[: QUERIES // len(SETS)]]
        found += model.encode_queries(questions)
    return found


def render(record: dict[str, Any]) -> str:
    """One table, and what building took."""
    result = record["results"]
    exact = result["exact_seconds"]
    lines = [
        f"`{record['command']}`, {record['when']}, " + ", ".join(f"{k} {v}" for k, v in record["environment"].items()),
        "",
        f"{result['passages']:,} windows of {WINDOW} tokens, {QUERIES} questions. Building:"
        f" {result['train_seconds']:.0f} s to learn the codec,"
        f" {result['seconds']['codes']:.0f} s for codes, {result['seconds']['encodings']:.0f} s for encodings,"
        f" {result['seconds']['faiss']:.0f} s for the index over them; {result['bytes']['all']:,.0f} bytes a passage on"
        f" the disk, of which the search for candidates reads {result['bytes']['faiss']:,.0f}. Times are medians of"
        " one query.",
        "",
        "| search | seconds | share of the exact time | of the ten best by MaxSim |",
        "|---|---|---|---|",
        f"| MaxSim over all float32 vectors, in memory | {exact:.3f} | 1 | 1 |",
    ]
    for candidates, found in result["found"].items():
        lines.append(
            f"| {candidates} candidates, MaxSim over codes | {found['seconds']:.4f} | {found['seconds'] / exact:.3f} |"
            f" {found['share']:.3f} |"
        )
    return "\n".join(lines) + "\n"
