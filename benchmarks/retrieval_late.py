"""Do token vectors find more than one vector a passage? ndcg@10 of exact MaxSim beside ``dense``, on four sets.

    python benchmarks/run.py retrieval_late        # about an hour on two cores

Every question of a set is compared with every passage of its corpus: nothing is pruned, quantised or searched
approximately, so this is what the vectors are worth before an index makes them small. Ways with one encoder: one
vector a text (``dense``); the vectors of its last layer as they are, and those of the trained weights; and both of
these with the share of ``dense`` that ``multi_vector`` has. What was encoded is left in .bench/retrieval_late, token
vectors in half precision, and is not encoded again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / ".bench" / "retrieval_late"
SETS = ("scifact_retrieval", "hotpotqa_pooled500", "cranfield", "dbpedia_small")
DENSE, PLAIN, TRAINED = "dense", "token vectors, untrained", "token vectors, trained"
SHARED = " and dense"
DEPTH, SEED = 10, 0
_BLOCK = 512  # passages that are encoded at once, and then safe; and compared
_ASKED = 64  # questions that are compared at once

Floats = NDArray[np.float32]


def run() -> dict[str, Any]:
    """Encodes each corpus and ranks it for each question; gives the numbers that the page shows."""
    from ragzip.evaluation.data import open_set
    from ragzip.indexes.text import searched_text
    from ragzip.models import EMBEDDER
    from ragzip.models.shipped import LATE_INTERACTION
    from ragzip.retrievers import MultiVector

    share = MultiVector(".").dense
    results: dict[str, Any] = {}
    for name in SETS:
        data = open_set(name)
        texts = [searched_text(passage) for passage in data.corpus]
        questions = [record.question for record in data.records]
        qrels = {record.id: dict(record.qrels) for record in data.records}
        found, about = {DENSE: _dense(name, questions, texts, EMBEDDER)}, {}
        for way, model in ((PLAIN, EMBEDDER), (TRAINED, LATE_INTERACTION)):
            found[way], about[way] = _late(name, questions, texts, model)
            found[way + SHARED] = np.float32(1 - share) * found[way] + np.float32(share) * found[DENSE]
        ids = [passage.id for passage in data.corpus]
        gains = {way: _gains(scores, ids, qrels) for way, scores in found.items()}
        results[name] = {"questions": len(questions), "passages": len(texts), "vectors": about, **_compared(gains)}
    return results


def _dense(name: str, questions: Sequence[str], texts: Sequence[str], model: str) -> Floats:
    """``[questions, passages]``: cosines of one vector a text."""
    from ragzip.models import load_encoder

    encoder = load_encoder(model)
    path = RUNS / name / f"dense-{encoder.fingerprint[:16]}.npz"
    if not path.is_file():
        _write(path, vectors=encoder.encode(texts))
    with np.load(path) as found:
        scores: Floats = encoder.encode_each(questions) @ found["vectors"].T
    return scores


def _late(name: str, questions: Sequence[str], texts: Sequence[str], model: str) -> tuple[Floats, dict[str, Any]]:
    """``[questions, passages]``: means of the largest cosines; and how many vectors that took."""
    from ragzip.models.late_interaction import load_late_interaction

    late = load_late_interaction(model)
    folder = RUNS / name / f"tokens-{late.fingerprint[:16]}"
    parts = []
    for start in range(0, len(texts), _BLOCK):
        path = folder / f"{start:06d}.npz"
        if not path.is_file():
            found = late.encode_documents(texts[start : start + _BLOCK])
            vectors = np.concatenate([one.vectors.astype(np.float16) for one in found])
            _write(path, vectors=vectors, counts=np.array([len(one.vectors) for one in found]))
            print(f"{name}, {model}: {start + len(found):,} of {len(texts):,} passages", flush=True)
        with np.load(path) as part:
            parts.append((part["vectors"], part["counts"]))
    counts = np.concatenate([part[1] for part in parts])
    asked = late.encode_queries(questions)
    scores: Floats = maxsim(asked, parts) / np.array([len(one) for one in asked], np.float32)[:, None]
    return scores, {"dimensions": late.dimensions, "per_passage": float(counts.mean())}


def maxsim(asked: Sequence[Floats], parts: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> Floats:
    """Exact scores.

    Args:
        asked: The token vectors of each question.
        parts: Some passages at a time: ``[tokens, dimensions]``, those of all of them one after the other, and how
            many each passage has.

    Returns:
        ``[questions, passages]``: the sum over a question's tokens of the largest product; 0 without tokens.
    """
    blocks = []
    for vectors, counts in parts:
        scores: Floats = np.zeros((len(asked), len(counts)), np.float32)
        filled = np.flatnonzero(counts)
        starts, block = (np.cumsum(counts) - counts)[filled], vectors.astype(np.float32)
        for first in range(0, len(asked) if len(filled) else 0, _ASKED):
            rows = asked[first : first + _ASKED]
            best = np.maximum.reduceat(np.concatenate(rows) @ block.T, starts, axis=1)
            scores[first : first + len(rows), filled] = np.add.reduceat(best, np.cumsum([0, *map(len, rows[:-1])]))
        blocks.append(scores)
    return np.concatenate(blocks, axis=1)


def _write(path: Path, **arrays: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".part").open("wb") as file:
        np.savez(file, **arrays)
    path.with_suffix(".part").replace(path)


def _gains(scores: Floats, ids: Sequence[str], qrels: dict[str, dict[str, int]]) -> dict[str, float]:
    """ndcg@10 of each question that has a passage judged relevant."""
    import ir_measures
    from ir_measures import nDCG

    wanted = {id_: grades for id_, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
    ranked = {}
    for id_, row in zip(qrels, scores, strict=True):
        best = np.argsort(-row, kind="stable")[:DEPTH]
        ranked[id_] = {ids[place]: float(DEPTH - rank) for rank, place in enumerate(best)}
    found = ir_measures.iter_calc([nDCG @ DEPTH], wanted, {id_: ranked[id_] for id_ in wanted})
    return {one.query_id: float(one.value) for one in found}


def _compared(gains: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Means with their intervals, and how far each way is above ``dense``, with p corrected over the set's others."""
    from ragzip.evaluation.statistics import holm, mean_interval, paired

    others = [way for way in gains if way != DENSE]
    against = [paired(gains[way], gains[DENSE], seed=SEED, bounds=(0.0, 1.0)) for way in others]
    corrected = holm([one.p for one in against])
    means = {way: mean_interval(list(values.values()), seed=SEED, bounds=(0.0, 1.0)) for way, values in gains.items()}
    return {
        "ndcg@10": {way: {"mean": m.mean, "low": m.low, "high": m.high} for way, m in means.items()},
        "above_dense": {
            way: {"difference": one.difference, "significant": p <= 0.05, "p": p}
            for way, one, p in zip(others, against, corrected, strict=True)
        },
    }


def render(record: dict[str, Any]) -> str:
    """One table: a line for each set and way."""
    from benchmarks.quality import _interval

    lines = [
        f"`{record['command']}`, {record['when']}, " + ", ".join(f"{k} {v}" for k, v in record["environment"].items()),
        "",
        "All questions, every passage compared. In brackets the 95 % interval; `+` and `-`: different from `dense`"
        " (paired randomisation test, Holm over the rows of the set).",
        "",
        "| set | questions | passages | | vectors a passage | ndcg@10 |",
        "|---|---|---|---|---|---|",
    ]
    for name, result in record["results"].items():
        for way, value in result["ndcg@10"].items():
            about = result["vectors"].get(way.removesuffix(SHARED))
            size = f"{about['per_passage']:.0f} of {about['dimensions']}" if about else "1 of 384"
            cells = [name, f"{result['questions']:,}", f"{result['passages']:,}", way, size]
            lines.append("| " + " | ".join([*cells, _interval(value, result["above_dense"].get(way))]) + " |")
    return "\n".join(lines) + "\n"
