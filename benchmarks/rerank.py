"""Does the pass that prunes also rank? ndcg@10 of ``rerank`` over dense retrieval, on four retrieval sets.

    python benchmarks/run.py rerank        # about half an hour on two cores

Every corpus is indexed whole. ``rerank`` orders the first 50 passages of ``dense``; BM25 stands beside both. Nothing is
generated. Run folders and indexes are left in .bench/rerank/SET.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / ".bench" / "rerank"
SETS = ("hotpotqa_pooled500", "cranfield", "scifact_retrieval", "dbpedia_small")
DEPTH, LIMIT, SEED = 50, 200, 0
METRICS = ("ndcg@10", "recall@5", "mrr", "retrieve_seconds")


def run() -> dict[str, Any]:
    """Indexes each corpus and ranks its questions; gives the numbers that the page shows."""
    from ragzip.evaluation.data import open_set
    from ragzip.evaluation.rows import Row
    from ragzip.evaluation.runner import Settings, evaluate
    from ragzip.generators.echo import Echo
    from ragzip.indexes import build
    from ragzip.ingest import Document
    from ragzip.pipelines import Pipeline
    from ragzip.protocols import Retriever
    from ragzip.retrievers.bm25 import BM25
    from ragzip.retrievers.dense import Dense
    from ragzip.retrievers.rerank import Rerank

    results: dict[str, Any] = {}
    for name in SETS:
        data = open_set(name)
        index = RUNS / name / "index"
        documents = [Document(p.id, p.text, p.title, {"id": p.id}) for p in data.corpus]
        report = build(documents, index, sync=True)  # goes on where it was stopped
        if report.documents != len(documents):
            raise SystemExit(f"{index} holds {report.documents} of {len(documents)} documents")
        dense = Dense(index=str(index), top_k=20)
        retrievers: dict[str, Retriever] = {"bm25": BM25(index=str(index), top_k=20), "dense": dense}
        retrievers["rerank"] = Rerank(dense, depth=DEPTH)
        retrievers["rerank, one look"] = Rerank(dense, depth=DEPTH, hops=1)
        rows = [Row(n, Pipeline(Echo(), r), baseline="dense") for n, r in retrievers.items()]
        found = evaluate(
            rows, data, RUNS / name / "run", Settings(LIMIT, SEED, metrics=METRICS, generate=False, baseline="dense")
        )
        results[name] = {
            "data": {key: value for key, value in found.config["data"].items() if key != "source"},
            "passages": len(data.corpus),
            **measured(found),
        }
    return results


def measured(found: Any) -> dict[str, Any]:
    """Metrics of each row, and how they differ from the baseline's."""
    return {
        "metrics": {row: {m: v for m, v in found.metrics[row].items() if m in METRICS} for row in found.names},
        "comparisons": {
            row: {m: v for m, v in values.items() if m in METRICS[:3]}
            for row, values in found.summary["comparisons"].items()
        },
    }


def render(record: dict[str, Any]) -> str:
    """One table: a line for each set and retriever."""
    lines = [
        f"`{record['command']}`, {record['when']}, " + ", ".join(f"{k} {v}" for k, v in record["environment"].items()),
        "",
        f"Up to {LIMIT} questions a set, drawn with seed {SEED}. `rerank` orders the first {DEPTH} passages of `dense`."
        " In brackets the 95 % interval; `+` and `-`: different from `dense` (paired randomisation test, Holm over the"
        " rows of the set).",
        "",
        *table(record["results"]),
    ]
    return "\n".join(lines) + "\n"


def table(results: dict[str, Any]) -> list[str]:
    """A line for each set and retriever."""
    from benchmarks.quality import _interval, _number

    lines = [
        "| set | questions | passages | retriever | ndcg@10 | recall@5 | mrr | seconds a question |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        for row, metrics in result["metrics"].items():
            against = result["comparisons"].get(row, {})
            cells = [name, f"{result['data']['records']:,}", f"{result['passages']:,}", row]
            cells += [_interval(metrics.get(m), against.get(m)) for m in ("ndcg@10", "recall@5", "mrr")]
            lines.append("| " + " | ".join([*cells, _number(metrics.get("retrieve_seconds"))]) + " |")
    return lines
