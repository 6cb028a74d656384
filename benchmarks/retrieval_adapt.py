"""Does ``ragzip train retriever`` help on real questions? Labels only measure: what is trained on is the corpus alone.

    python benchmarks/run.py retrieval_adapt:cranfield        # a quarter of an hour on two cores

``dense`` with the encoder as it is, with the adapter that is trained on the passages of the index, and the reports of
the training itself, which are about held-out passages. Indexes and the adapter are left in .bench/retrieval_adapt/SET.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / ".bench" / "retrieval_adapt"
SEED, DEPTH, STEPS = 0, 100, 120


def run(name: str = "cranfield") -> dict[str, Any]:
    """Indexes, adapts, indexes again, and asks both."""
    from ragzip.evaluation.data import open_set
    from ragzip.indexes import build
    from ragzip.ingest import Document
    from ragzip.retrievers import Dense
    from ragzip.training.folder import train_into
    from ragzip.training.retriever import RetrieverTraining

    data, folder = open_set(name), RUNS / name
    documents = [Document(p.id, p.text, p.title, {"id": p.id}) for p in data.corpus]
    before, adapter, after = folder / "before", folder / "adapter", folder / "after"
    build(documents, before, sync=True, retriever="dense")
    report = train_into(adapter, RetrieverTraining(str(before), steps=STEPS, seed=SEED))
    build(documents, after, sync=True, retriever="dense", model=str(adapter))
    gains = {kind: _gains(Dense(str(path), DEPTH), data) for kind, path in (("before", before), ("after", after))}
    return {
        "questions": len(gains["before"]),
        "passages": len(data.corpus),
        "steps": report.steps,
        "seconds": report.seconds,
        "held_out": dict(report.metrics),
        **_compared(gains),
    }


def _gains(retriever: Any, data: Any) -> dict[str, float]:
    """ndcg@10 of each question over documents, each of which counts by its best passage."""
    import ir_measures
    from ir_measures import nDCG

    from ragzip.types import Query

    wanted = {r.id: dict(r.qrels) for r in data.records if any(grade > 0 for _, grade in dict(r.qrels).items())}
    queries = [Query(record.question, record.id) for record in data.records if record.id in wanted]
    ranked = {}
    for query, passages in zip(queries, retriever.retrieve(queries), strict=True):
        order = dict.fromkeys(str(passage.metadata["id"]) for passage in passages)
        ranked[query.id] = {id_: float(DEPTH - place) for place, id_ in enumerate(list(order)[:10])}
    return {one.query_id: float(one.value) for one in ir_measures.iter_calc([nDCG @ 10], wanted, ranked)}


def _compared(gains: dict[str, dict[str, float]]) -> dict[str, Any]:
    from ragzip.evaluation.statistics import mean_interval, paired

    against = paired(gains["after"], gains["before"], seed=SEED, bounds=(0.0, 1.0))
    means = {kind: mean_interval(list(found.values()), seed=SEED, bounds=(0.0, 1.0)) for kind, found in gains.items()}
    return {
        "ndcg@10": {kind: {"mean": m.mean, "low": m.low, "high": m.high} for kind, m in means.items()},
        "difference": {"mean": against.difference, "low": against.low, "high": against.high, "p": against.p},
    }


def render(record: dict[str, Any]) -> str:
    """A short table."""
    result = record["results"]
    cells = {k: f"{v['mean']:.3f} [{v['low']:.3f}, {v['high']:.3f}]" for k, v in result["ndcg@10"].items()}
    by = result["difference"]
    held = ", ".join(f"{name} {value:.3f}" for name, value in result["held_out"].items())
    lines = [
        f"`{record['command']}`, {record['when']}, " + ", ".join(f"{k} {v}" for k, v in record["environment"].items()),
        "",
        f"{result['questions']:,} questions, {result['passages']:,} documents; {result['steps']} steps in"
        f" {result['seconds'] / 60:.0f} minutes. Of held-out passages, after training: {held}.",
        "",
        "| dense | ndcg@10 |",
        "|---|---|",
        f"| as it is | {cells['before']} |",
        f"| adapted to the corpus | {cells['after']} |",
        "",
        f"Difference {by['mean']:+.3f} [{by['low']:+.3f}, {by['high']:+.3f}], p {by['p']:.4f} (paired randomisation"
        " test).",
    ]
    return "\n".join(lines) + "\n"
