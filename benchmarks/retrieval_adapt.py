"""Does ``ragzip train retriever`` help on real questions? Labels only measure: what is trained on is the corpus alone.

    python benchmarks/run.py retrieval_adapt:cranfield        # a quarter of an hour on two cores

``dense`` with the encoder as it is, and with the adapter that is trained on the passages of the index. Indexes, adapter
and run folder are left in .bench/retrieval_adapt/SET.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / ".bench" / "retrieval_adapt"
LIMIT, SEED, STEPS = 300, 0, 120
BEFORE, AFTER = "dense", "dense, adapted"


def run(name: str = "cranfield") -> dict[str, Any]:
    """Indexes, adapts, indexes again, and asks both."""
    from benchmarks.rerank import METRICS, measured
    from ragzip.evaluation.data import open_set
    from ragzip.evaluation.rows import Row
    from ragzip.evaluation.runner import Settings, evaluate
    from ragzip.generators.echo import Echo
    from ragzip.indexes import build
    from ragzip.ingest import Document
    from ragzip.pipelines import Pipeline
    from ragzip.retrievers import Dense
    from ragzip.training.folder import train_into
    from ragzip.training.retriever import RetrieverTraining

    data, folder = open_set(name), RUNS / name
    documents = [Document(p.id, p.text, p.title, {"id": p.id}) for p in data.corpus]
    before, adapter, after = folder / "before", folder / "adapter", folder / "after"
    build(documents, before, sync=True, retriever="dense")
    report = train_into(adapter, RetrieverTraining(str(before), steps=STEPS, seed=SEED))
    build(documents, after, sync=True, retriever="dense", model=str(adapter))
    rows = [Row(n, Pipeline(Echo(), Dense(str(p))), baseline=BEFORE) for n, p in ((BEFORE, before), (AFTER, after))]
    settings = Settings(LIMIT, SEED, metrics=METRICS, generate=False, baseline=BEFORE)
    found = evaluate(rows, data, folder / "run", settings)
    own = {key: value for key, value in found.config["data"].items() if key != "source"}
    return {
        name: {"data": own, "passages": len(data.corpus), **measured(found)},
        "training": {"steps": report.steps, "seconds": report.seconds, "metrics": dict(report.metrics)},
    }


def render(record: dict[str, Any]) -> str:
    """One table: before and after."""
    from benchmarks.rerank import table

    results = dict(record["results"])
    training = results.pop("training")
    held = ", ".join(f"{name} {value:.3f}" for name, value in training["metrics"].items())
    lines = [
        f"`{record['command']}`, {record['when']}, " + ", ".join(f"{k} {v}" for k, v in record["environment"].items()),
        "",
        f"{training['steps']} steps in {training['seconds'] / 60:.0f} minutes. Of held-out passages, after training:"
        f" {held}. In brackets the 95 % interval; `+` and `-`: different from `dense` (paired randomisation test).",
        "",
        *table(results),
    ]
    return "\n".join(lines) + "\n"
