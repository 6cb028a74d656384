"""Codes of 48 or 16 bytes a passage, trained with the encoder of questions or not, beside whole vectors.

    python benchmarks/run.py retrieval_jpq       # 48 bytes a passage
    python benchmarks/run.py retrieval_jpq:16    # 16 bytes

scifact's corpus, without its labels, is what is trained on; its development questions only measure. Documents are
ranked by their best passage. Index and trained folders are left in .bench/retrieval_jpq.
"""

from __future__ import annotations

import math
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / ".bench" / "retrieval_jpq"
SET, STEPS, SEED, DEPTH = "scifact_retrieval", 100, 0, 50
SHOWN = ("ndcg@10", "recall@10", "same@10")


def run(piece: str = "48") -> dict[str, Any]:
    """Every way of searching the same vectors, with codes of so many bytes."""
    from ragzip.evaluation.data import open_set
    from ragzip.evaluation.statistics import holm, paired
    from ragzip.indexes import Index, build
    from ragzip.ingest import Document
    from ragzip.models import load_encoder
    from ragzip.retrievers import JPQ, Dense
    from ragzip.training._coded import learned
    from ragzip.training.folder import train_into
    from ragzip.training.jpq import JPQTraining

    data, index, pieces = open_set(SET), RUNS / "index", int(piece)
    documents = [Document(p.id, p.text, p.title, {"id": p.id}) for p in data.corpus]
    build(documents, index, sync=True, retriever="dense", tokens=256, overlap=0)
    questions = [record.question for record in data.records]
    gold = [{key for key, grade in record.qrels.items() if grade > 0} for record in data.records]
    found: dict[str, list[list[str]]] = {"whole vectors": _asked(Dense(str(index)), questions)}
    seconds: dict[str, float] = {}
    with Index.open(index) as opened:
        encoder = load_encoder(opened.model_name())
        asked = encoder.encode_each(questions)
        vectors, passages = opened.vectors.take(opened.rows), list(opened)
        ids = np.array([passage.metadata["source"] for passage in passages])
        for name, rotate, balanced in (
            ("product quantisation", False, False),
            ("the same, rotated", True, False),
            ("the same, rotated, balanced", True, True),
        ):
            made = learned(opened, pieces, rotate=rotate, balanced=balanced)
            codec = made.codec
            codes = made.encode(vectors)
            found[name] = [
                _first(ids[np.argsort(-codec.scorer(one)(codes), kind="stable")[:DEPTH]].tolist()) for one in asked
            ]
    for name, balanced in (("jpq", False), ("jpq, balanced", True)):
        own = f"{name.replace(', ', '-')}-{pieces}"
        out, copy = RUNS / own, RUNS / f"index-{own}"
        start = time.process_time()
        train_into(out, JPQTraining(str(index), pieces=pieces, balanced=balanced, steps=STEPS, seed=SEED))
        seconds[name] = time.process_time() - start
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(index, copy)
        build([], copy, sync=False, retriever="jpq", settings={"model": str(out)})
        found[name] = _asked(JPQ(str(copy)), questions)
        found[f"{name}, rescore 50"] = _asked(JPQ(str(copy), rescore=50), questions)
    exact = found["whole vectors"]
    scores = {name: _scores(lists, gold, exact) for name, lists in found.items()}
    base = _each(scores["the same, rotated"], "ndcg@10")
    against = {
        name: paired(_each(rows, "ndcg@10"), base, seed=SEED, bounds=(0, 1))
        for name, rows in scores.items()
        if name != "the same, rotated"
    }
    corrected = dict(zip(against, holm([one.p for one in against.values()]), strict=True))
    return {
        "questions": len(questions),
        "passages": len(passages),
        "bytes": {"vectors": 4 * vectors.shape[1], "codes": pieces},
        "cpu_seconds": seconds,
        "rows": {
            name: {
                **{metric: statistics.mean(row[metric] for row in rows) for metric in SHOWN},
                **(
                    {"gain": [against[name].difference, against[name].low, against[name].high]}
                    if name in against
                    else {}
                ),
                **({"p": corrected[name]} if name in against else {}),
            }
            for name, rows in scores.items()
        },
    }


def _asked(retriever: Any, questions: list[str]) -> list[list[str]]:
    from ragzip.types import Query

    found = retriever.retrieve([Query(question) for question in questions], top_k=DEPTH)
    return [_first([str(passage.metadata["source"]) for passage in passages]) for passages in found]


def _first(ids: list[str]) -> list[str]:
    """The first ten documents of a ranking of passages."""
    return list(dict.fromkeys(ids))[:10]


def _scores(lists: list[list[str]], gold: list[set[str]], exact: list[list[str]]) -> list[dict[str, float]]:
    """For each question: nDCG and recall of its labelled passages, and the share of the exact ten that are there."""
    rows = []
    for ids, right, best in zip(lists, gold, exact, strict=True):
        gain = sum(1 / math.log2(place + 2) for place, one in enumerate(ids) if one in right)
        ideal = sum(1 / math.log2(place + 2) for place in range(min(len(right), 10)))
        there = len(set(ids) & right) / len(right)
        rows.append({"ndcg@10": gain / ideal, "recall@10": there, "same@10": len(set(ids) & set(best)) / len(best)})
    return rows


def _each(rows: list[dict[str, float]], metric: str) -> dict[str, float]:
    return {str(number): row[metric] for number, row in enumerate(rows)}


def render(record: dict[str, Any]) -> str:
    """The table."""
    results = record["results"]
    lines = [
        f"`{record['command']}`, {record['when']}, " + ", ".join(f"{k} {v}" for k, v in record["environment"].items()),
        "",
        f"{SET}: {results['questions']:,} questions, {results['passages']:,} passages, as vectors of"
        f" {results['bytes']['vectors']:,} bytes or codes of {results['bytes']['codes']}. same@10: share of the ten"
        " that whole vectors find."
        " The difference in nDCG@10 is to rotated codes without training, with its 95 % interval, and p of the paired"
        " randomisation test (Holm).",
        "",
        "| | " + " | ".join(SHOWN) + " | difference | p |",
        "|---" * (len(SHOWN) + 3) + "|",
    ]
    for name, row in results["rows"].items():
        gain = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*row["gain"]) if "gain" in row else ""
        p = f"{row['p']:.4f}" if "p" in row else ""
        lines.append(f"| {name} | " + " | ".join(f"{row[metric]:.3f}" for metric in SHOWN) + f" | {gain} | {p} |")
    return "\n".join(lines) + "\n"
