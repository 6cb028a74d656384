"""All retrievers on the retrieval sets: what they find, how long they take, and what their indexes weigh.

    python benchmarks/run.py retrieval        # over an hour on two cores, goes on where it stopped

Every corpus is indexed whole, once, with all that its retrievers need. Nothing is generated. Run folders and indexes
are left in .bench/retrieval/SET.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / ".bench" / "retrieval"
SETS = ("scifact_retrieval", "hotpotqa_pooled500", "cranfield", "dbpedia_small")
SEED = 0
ALIKE = 40  # questions whose best passages by MaxSim are compared
METRICS = ("ndcg@10", "recall@5", "mrr", "retrieve_seconds")
PARTS = ("graph", "multi_vector")


def run() -> dict[str, Any]:
    """Indexes each corpus and ranks its questions; gives the numbers that the page shows."""
    from benchmarks.rerank import measured
    from ragzip.evaluation.data import open_set
    from ragzip.evaluation.rows import Row
    from ragzip.evaluation.runner import Settings, evaluate
    from ragzip.generators.echo import Echo
    from ragzip.pipelines import Pipeline

    results: dict[str, Any] = {}
    for name in SETS:
        data = open_set(name)
        index = RUNS / name / "index"
        seconds = index_of(data, index)
        retrievers = _retrievers(str(index))
        rows = [Row(n, Pipeline(Echo(), r), baseline="dense") for n, r in retrievers.items()]
        settings = Settings(None, SEED, metrics=METRICS, generate=False, baseline="dense")
        found = evaluate(rows, data, RUNS / name / "run", settings)
        results[name] = {
            "data": {key: value for key, value in found.config["data"].items() if key != "source"},
            "passages": len(data.corpus),
            "seconds": seconds,
            "bytes": _bytes(index),
            "agreement": _agreement(index, data),
            **measured(found),
        }
    return results


def _retrievers(index: str) -> dict[str, Any]:
    from ragzip.retrievers import BM25, Dense, Fusion, Graph, MultiVector, for_index
    from ragzip.retrievers.lexsem import LexSem

    return {
        "bm25": BM25(index),
        "dense": Dense(index),
        "fusion": for_index(index, kind="fusion"),
        "lexsem": LexSem(index),
        "graph": Graph(index),
        "graph, submodular": Graph(index, method="submodular"),
        "dense and multi_vector": Fusion((Dense(index), MultiVector(index, dense=0.0))),
        "multi_vector": MultiVector(index),
        "multi_vector, MaxSim alone": MultiVector(index, dense=0.0),
        "multi_vector, all ranked": MultiVector(index, candidates=0),
    }


def index_of(data: Any, index: Path) -> dict[str, float]:
    """Makes the index in steps, so that each retriever's own time is known."""
    from ragzip.indexes import build
    from ragzip.ingest import Document

    path = index.with_name("seconds.json")
    if path.exists():
        found: dict[str, float] = json.loads(path.read_text("utf-8"))
        return found
    if index.exists():
        shutil.rmtree(index)  # of a run that was stopped: the times would be those of the rest alone
    documents = [Document(p.id, p.text, p.title, {"id": p.id}) for p in data.corpus]
    seconds = {}
    for kind in ("fusion", *PARTS):
        start = time.perf_counter()
        build(documents, index, sync=True, retriever=kind)  # type: ignore[arg-type]
        seconds[kind] = time.perf_counter() - start
    path.write_text(json.dumps(seconds), encoding="utf-8")
    return seconds


def _bytes(index: Path) -> dict[str, float]:
    """Of each structure, a passage."""
    from ragzip.indexes import Index

    with Index.open(index) as opened:
        entry = opened.manifest
        sizes = {
            "vectors": sum(shard.file.bytes for shard in entry.shards),
            "faiss": entry.faiss.bytes if entry.faiss else 0,
            "bm25": sum(file.bytes for file in entry.bm25),
            **{part.kind: sum(f.bytes for f in (*part.files, *(part.whole or ()))) for part in entry.parts},
        }
        return {name: size / max(entry.passages, 1) for name, size in sizes.items()}


def _agreement(index: Path, data: Any) -> dict[str, dict[str, float]]:
    """Of the ten best passages of a ranking of all, how many come through as candidates."""
    from ragzip.retrievers import MultiVector
    from ragzip.types import Query

    queries = [Query(record.question) for record in data.records[:ALIKE]]
    found: dict[str, dict[str, float]] = {}
    for name, share in (("alone", 0.0), ("share", MultiVector(str(index)).dense)):
        exact = MultiVector(str(index), top_k=10, candidates=0, dense=share).retrieve(queries)
        found[name] = {}
        for candidates in (20, 50, 100, 200):
            some = MultiVector(str(index), top_k=10, candidates=candidates, dense=share).retrieve(queries)
            shares = [len({p.id for p in a} & {p.id for p in b}) / len(a) for a, b in zip(exact, some, strict=True)]
            found[name][str(candidates)] = sum(shares) / len(shares)
    return found


def render(record: dict[str, Any]) -> str:
    """Tables: what is found, what indexes weigh, and what the encodings let through."""
    from benchmarks.rerank import table

    lines = [
        f"`{record['command']}`, {record['when']}, " + ", ".join(f"{k} {v}" for k, v in record["environment"].items()),
        "",
        "All questions of each set. In brackets the 95 % interval; `+` and `-`: different from `dense`"
        " (paired randomisation test, Holm over the rows of the set).",
        "",
        *table(record["results"]),
    ]
    kinds = list(next(iter(record["results"].values()))["bytes"])
    lines += ["", "| set | " + " | ".join(f"{k}, bytes a passage" for k in kinds) + " | seconds to index |"]
    lines.append("|" + "---|" * (len(kinds) + 2))
    for name, result in record["results"].items():
        sizes = [f"{result['bytes'][kind]:,.0f}" for kind in kinds]
        seconds = ", ".join(f"{kind} {value:,.0f}" for kind, value in result["seconds"].items())
        lines.append(f"| {name} | " + " | ".join(sizes) + f" | {seconds} |")
    counts = list(next(iter(record["results"].values()))["agreement"]["alone"])
    lines += ["", "| set | | " + " | ".join(f"of the ten best, {c} candidates" for c in counts) + " |"]
    lines.append("|" + "---|" * (len(counts) + 2))
    for name, result in record["results"].items():
        for way, what in (("alone", "MaxSim alone"), ("share", "with a share of dense")):
            cells = [f"{result['agreement'][way][c]:.3f}" for c in counts]
            lines.append("| " + " | ".join([name, what, *cells]) + " |")
    return "\n".join(lines) + "\n"
