"""Words and vectors together: rankings fused in each way, and questions' vectors that know their words.

    python benchmarks/run.py retrieval_lexical     # a quarter of an hour after `retrieval`, whose indexes it takes

``lexsem`` is trained here, in both its forms, on SQuAD, NQ and SciFact's training claims; the sets measure. Of the
weights of ``fusion``, 0.6 with minmax is what an index is searched with by default. What was trained is left in
.bench/retrieval_lexical.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / ".bench" / "retrieval_lexical"
SEED = 0
METRICS = ("ndcg@10", "recall@5", "mrr", "retrieve_seconds")
KINDS = ("slr", "llr")


def run() -> dict[str, Any]:
    """Trains, ranks, and gives the numbers that the page shows."""
    from benchmarks.rerank import measured
    from benchmarks.retrieval import RUNS as INDEXES
    from benchmarks.retrieval import SETS, index_of
    from ragzip.evaluation.data import open_set
    from ragzip.evaluation.rows import Row
    from ragzip.evaluation.runner import Settings, evaluate
    from ragzip.generators.echo import Echo
    from ragzip.pipelines import Pipeline
    from ragzip.training.folder import train_into
    from ragzip.training.lexsem import LexSemTraining

    trained: dict[str, Any] = {}
    for kind in KINDS:
        folder = RUNS / kind
        report = train_into(folder, LexSemTraining(kind=kind, seed=SEED))  # type: ignore[arg-type]
        trained[kind] = {"steps": report.steps, "seconds": report.seconds, "held_out": dict(report.metrics)}
    results: dict[str, Any] = {}
    for name in SETS:
        data, index = open_set(name), INDEXES / name / "index"
        index_of(data, index)
        rows = [Row(n, Pipeline(Echo(), r), baseline="dense") for n, r in _retrievers(str(index)).items()]
        settings = Settings(None, SEED, metrics=METRICS, generate=False, baseline="dense")
        found = evaluate(rows, data, RUNS / name, settings)
        results[name] = {
            "data": {key: value for key, value in found.config["data"].items() if key != "source"},
            "passages": len(data.corpus),
            **measured(found),
        }
    return {"trained": trained, "sets": results}


def _retrievers(index: str) -> dict[str, Any]:
    from ragzip.retrievers import BM25, Dense, Fusion
    from ragzip.retrievers.lexsem import LexSem

    both = (Dense(index), BM25(index))
    found: dict[str, Any] = {"dense": both[0], "bm25": both[1], "fusion, ranks": Fusion(both)}
    for how in ("minmax", "zscore"):
        for share in (0.5, 0.6, 0.7):
            weights = (share, round(1 - share, 1))
            found[f"fusion, {how}, {weights[0]} of dense"] = Fusion(both, normalize=how, weights=weights)  # type: ignore[arg-type]
    found["lexsem, slr, untrained"] = LexSem(index)
    return found | {f"lexsem, {kind}, trained": LexSem(index, model=str(RUNS / kind)) for kind in KINDS}


def render(record: dict[str, Any]) -> str:
    """One table: a line for each set and way."""
    from benchmarks.rerank import table

    results = record["results"]
    trained = "; ".join(
        f"`{kind}` {about['steps']} steps, mrr of held-out questions {about['held_out']['mrr']:.3f}"
        for kind, about in results["trained"].items()
    )
    lines = [
        f"`{record['command']}`, {record['when']}, " + ", ".join(f"{k} {v}" for k, v in record["environment"].items()),
        "",
        f"All questions of each set. Trained: {trained}. In brackets the 95 % interval; `+` and `-`: different from"
        " `dense` (paired randomisation test, Holm over the rows of the set).",
        "",
        *table(results["sets"]),
    ]
    return "\n".join(lines) + "\n"
