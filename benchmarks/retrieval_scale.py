"""Multi-vector search over 100,000 passages: ``multi_vector`` as it is used, against MaxSim over everything.

    python benchmarks/run.py retrieval_scale        # an hour and 8 GB on two cores

Passages are windows of 24 words over the corpora of the retrieval sets, 12 apart: a real index, encoded by the real
models, in .bench/retrieval_scale, which is made once. The queries are questions of the sets. What is timed begins with
a question's vectors: encoding the question costs the same both ways. "Exact" is MaxSim over the float32 vectors of all
tokens, as the model gave them, in memory.
"""

from __future__ import annotations

import hashlib
import itertools
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / ".bench" / "retrieval_scale"
PASSAGES, WINDOW, STRIDE, QUERIES = 100_000, 24, 12, 100
CANDIDATES = (50, 100, 200)
STEP, BEST = 8192, 10


def run(passages: int = PASSAGES) -> dict[str, Any]:
    """Makes the index, and searches it."""
    import numpy as np

    from ragzip.indexes import Index, build
    from ragzip.indexes.multi_vector.reader import MultiVectors, Whole
    from ragzip.indexes.ranking import top
    from ragzip.indexes.weight import structures
    from ragzip.models import load_encoder
    from ragzip.models.late_interaction import load_late_interaction
    from ragzip.retrievers import MultiVector

    path = RUNS / str(passages)
    build(_windows(passages), path, sync=True, retriever="multi_vector")
    share = MultiVector(str(path)).dense
    results: dict[str, Any] = {"share": share}
    with Index.open(path) as index:
        entry = index.manifest
        results |= {"passages": len(index), "seconds": dict(entry.seconds)}
        results["bytes"] = {name: size / len(index) for name, size in structures(entry).items()}
        results["faiss"] = sum(file.bytes for file in index.part("multi_vector").whole or ()) / len(index)
        begun = time.perf_counter()
        reader = index.opened("multi_vector", MultiVectors)
        results["opening"] = time.perf_counter() - begun
        model, encoder = load_late_interaction(reader.model_name), load_encoder(index.model_name())
        questions = _questions()
        asked, wholes = model.encode_queries(questions), encoder.encode_each(questions)
        results["tokens"], exact, seconds = _exact(index, model, asked)
        results["exact_seconds"] = statistics.median(seconds)
        for name, part in (("shared", share), ("alone", 0.0)):
            best = []
            for sums, query, whole in zip(exact, asked, wholes, strict=True):
                scores = (1 - part) * sums / len(query)
                if part:
                    scores = scores + part * index.vectors.scores(whole, index.rows)
                best.append(top(index.rows, scores.astype(np.float32), BEST).rows)
            results[name] = {}
            for candidates in (*CANDIDATES, 0):
                times, shares = [], []
                for query, whole, mine in zip(asked, wholes, best, strict=True):
                    begun = time.perf_counter()
                    given = Whole(whole, part) if part else None
                    hits = reader.search(query, BEST, candidates, None, given)
                    times.append(time.perf_counter() - begun)
                    shares.append(float(np.isin(mine, hits.rows).mean()))
                    if not candidates and len(times) == QUERIES // 5:
                        break  # everything is decoded each time: it takes long, and its place is known
                found = {"seconds": statistics.median(times), "share": statistics.mean(shares)}
                results[name][str(candidates)] = found
    return results


def _exact(index: Any, model: Any, asked: Any) -> tuple[float, Any, list[float]]:
    """Tokens a passage, sums by MaxSim ``[questions, passages]`` over float32 vectors, and how long each took."""
    import numpy as np

    from ragzip.indexes.multi_vector.maxsim import maxsim
    from ragzip.indexes.text import searched_text

    flat, sizes = _vectors(model, [searched_text(passage) for passage in index])
    ends = np.concatenate([[0], np.cumsum(sizes)])
    cuts = list(itertools.pairwise([*range(0, len(sizes), STEP), len(sizes)]))
    sums, seconds = [], []
    for query in asked:
        begun = time.perf_counter()
        sums.append(np.concatenate([maxsim(query, flat[ends[a] : ends[b]], sizes[a:b]) for a, b in cuts]))
        seconds.append(time.perf_counter() - begun)
    return float(sizes.mean()), np.stack(sums), seconds


def _vectors(model: Any, texts: list[str]) -> tuple[Any, Any]:
    """``[tokens, dimensions]`` of all passages, and how many each has; made once for a model."""
    import numpy as np

    about = hashlib.sha256("\0".join([model.fingerprint, *texts]).encode()).hexdigest()
    stem = RUNS / f"{len(texts)}-{about[:16]}"
    vectors, counts = stem.with_suffix(".vectors.npy"), stem.with_suffix(".counts.npy")
    if not counts.exists():
        clouds = [one.vectors for one in model.encode_documents(texts)]
        np.save(vectors, np.concatenate(clouds))
        part = stem.with_suffix(".part.npy")
        np.save(part, np.array([len(cloud) for cloud in clouds]))
        part.replace(counts)
    return np.load(vectors, allow_pickle=False), np.load(counts, allow_pickle=False)


def _windows(most: int) -> Iterator[Any]:
    """Documents of one passage each."""
    from benchmarks.retrieval_late import SETS
    from ragzip.evaluation.data import open_set
    from ragzip.ingest import Document

    count = 0
    for name in SETS:
        for passage in open_set(name).corpus:
            words = passage.text.split()
            for start in range(0, max(len(words) - STRIDE, 1), STRIDE):
                if count == most:
                    return
                count += 1
                yield Document(f"{name}/{passage.id}/{start}", " ".join(words[start : start + WINDOW]), "", {})


def _questions() -> list[str]:
    """As many of each set."""
    from benchmarks.retrieval_late import SETS
    from ragzip.evaluation.data import open_set

    return [record.question for name in SETS for record in open_set(name).records[: QUERIES // len(SETS)]]


def render(record: dict[str, Any]) -> str:
    """One table, and what building took."""
    result = record["results"]
    exact = result["exact_seconds"]
    spent = ", ".join(f"{name} {value:,.0f} s" for name, value in result["seconds"].items())
    sizes = ", ".join(f"{name} {value:,.0f}" for name, value in result["bytes"].items())
    lines = [
        f"`{record['command']}`, {record['when']}, " + ", ".join(f"{k} {v}" for k, v in record["environment"].items()),
        "",
        f"{result['passages']:,} windows of {WINDOW} words ({result['tokens']:.0f} token vectors each), {QUERIES}"
        f" questions, {QUERIES // 5} where all passages are decoded. Building, encoding included: {spent}. Bytes a"
        f" passage: {sizes}; of multi_vector, encodings in FAISS and lists of centroids {result['faiss']:,.0f}. Opening"
        f" takes {result['opening']:.2f} s. Times are medians of one query, from its vectors on.",
        "",
        "| search | seconds | share of the exact time | of the ten best over all float32 vectors |",
        "|---|---|---|---|",
        f"| MaxSim over all float32 vectors, in memory | {exact:.3f} | 1 | 1 |",
    ]
    for name, what in (
        ("alone", "MaxSim alone (`dense=0`)"),
        ("shared", f"with a share of {result['share']} of dense"),
    ):
        for candidates, found in result[name].items():
            how = f"{candidates} candidates" if int(candidates) else "all passages, from their codes"
            lines.append(
                f"| {what}, {how} | {found['seconds']:.4f} | {found['seconds'] / exact:.3f} | {found['share']:.3f} |"
            )
    return "\n".join(lines) + "\n"
