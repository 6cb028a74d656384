"""Questions of several hops: how often are all supporting passages among the first five, and what does a graph cost?

    python benchmarks/run.py retrieval_graph:quality   # about half an hour on two cores, most of it encoding
    python benchmarks/run.py retrieval_graph:scale     # about half an hour

``quality``: the paragraphs of all questions of a set are one corpus. Weights of ``graph`` were chosen on the training
parts of hotpotqa, 2wikimultihopqa and musique, pooled likewise. ``scale``: passages of made-up text with vectors in
clusters; how building, adding and walking grow. Indexes are left in .bench/retrieval_graph.
"""

from __future__ import annotations

import hashlib
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / ".bench" / "retrieval_graph"
SETS = ("hotpotqa_pooled500", "2wikimultihopqa:dev", "musique:dev")
K, SEED = 5, 0
SIZES = (25_000, 100_000)
SHOWN = {
    "passages": "passages",
    "add_seconds": "seconds to make the graph",
    "grow_seconds": "seconds to add 1 % more",
    "edges": "edges",
    "bytes": "bytes a passage",
    "open_ms": "ms to open",
    "walk_ms": "ms of processor for a walk",
}


def run(piece: str = "quality") -> dict[str, Any]:
    """One of the two; gives the numbers that the page shows."""
    return quality() if piece == "quality" else scale()


def pooled(spec: str) -> tuple[dict[tuple[str, str], str], dict[str, tuple[str, frozenset[str]]]]:
    """All different paragraphs of a set with ids, and its questions with the ids of those that support the answer.

    Questions with fewer than two of these are left out.
    """
    from ragzip.evaluation.data import open_set

    data = open_set(spec)
    if data.corpus:
        gold = {r.id: frozenset(key for key, grade in r.qrels.items() if grade > 0) for r in data.records}
        paragraphs = {(p.title, p.text): p.id for p in data.corpus}
    else:
        paragraphs, gold = {}, {}
        for record in data.records:
            own = {
                p.id: paragraphs.setdefault((p.title, p.text), f"p{len(paragraphs)}")
                for p in record.passages
                if p.text.strip()
            }
            gold[record.id] = frozenset(own[span.passage_id] for span in record.relevant if span.passage_id in own)
    return paragraphs, {r.id: (r.question, gold[r.id]) for r in data.records if len(gold[r.id]) > 1}


def quality() -> dict[str, Any]:
    """Every set by every retriever."""
    from ragzip.evaluation.statistics import holm, paired
    from ragzip.indexes import build
    from ragzip.ingest import Document
    from ragzip.protocols import Retriever
    from ragzip.retrievers import BM25, Dense, Fusion, Graph

    results: dict[str, Any] = {}
    for spec in SETS:
        paragraphs, questions = pooled(spec)
        index = str(RUNS / spec.replace(":", "-"))
        documents = (Document(own, text, title, {"id": own}) for (title, text), own in paragraphs.items())
        build(documents, index, sync=True, retriever="graph")
        retrievers: dict[str, Retriever] = {
            "dense": Dense(index),
            "bm25": BM25(index),
            "fusion": Fusion((Dense(index), BM25(index))),
            "graph": Graph(index),
            "graph, submodular": Graph(index, method="submodular"),
            "graph, weights of HippoRAG 2": Graph.hipporag2(index),
        }
        found = {name: _found(retriever, questions) for name, retriever in retrievers.items()}
        all_there = {
            name: {q: float(questions[q][1] <= there) for q, there in values[0].items()}
            for name, values in found.items()
        }
        against = {n: paired(all_there[n], all_there["dense"], seed=SEED, bounds=(0, 1)) for n in found if n != "dense"}
        corrected = dict(zip(against, holm([one.p for one in against.values()]), strict=True))
        results[spec] = {
            "questions": len(questions),
            "passages": len(paragraphs),
            "rows": {
                name: {
                    "all": statistics.mean(all_there[name].values()),
                    "recall": statistics.mean(
                        len(questions[q][1] & t) / len(questions[q][1]) for q, t in there.items()
                    ),
                    "ms": 1000 * seconds,
                    **(
                        {"gain": [against[name].difference, against[name].low, against[name].high]}
                        if name in against
                        else {}
                    ),
                    **({"p": corrected[name]} if name in against else {}),
                }
                for name, (there, seconds) in found.items()
            },
        }
    return results


def _found(retriever: Any, questions: dict[str, tuple[str, frozenset[str]]]) -> tuple[dict[str, set[str]], float]:
    """The paragraphs among the first ``K`` passages of each question, and the median seconds of processor for one."""
    from ragzip.types import Query

    retriever.retrieve([Query("?")], top_k=K)
    found, seconds = {}, []
    for own, (question, _) in questions.items():
        start = time.process_time()
        (passages,) = retriever.retrieve([Query(question)], top_k=K)
        seconds.append(time.process_time() - start)
        found[own] = {str(p.metadata["id"]) for p in passages}
    return found, statistics.median(seconds)


class Clusters:
    """A stand-in encoder: vectors around one of a few thousand centres, which the text decides."""

    name, dimensions, max_tokens = "clusters", 384, 256
    fingerprint = hashlib.sha256(b"clusters").hexdigest()

    def encode(self, texts: Sequence[str], **_: Any) -> Any:
        found = np.stack([self._one(text) for text in texts])
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def _one(self, text: str) -> Any:
        number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")
        centre = np.random.default_rng(number % 3000).standard_normal(self.dimensions)
        return centre + np.random.default_rng(number).standard_normal(self.dimensions)


def written(number: int) -> Any:
    """A document of one passage: common words by Zipf's law, the titles of six others, four names, a rare word."""
    from ragzip.ingest import Document

    rng = np.random.default_rng(number)
    common = [f"w{rank}" for rank in rng.zipf(1.3, size=70) % 50_000]
    near = [f"Place{_letters(max(number + step, 0))} Town" for step in rng.integers(-500, 500, size=6)]
    names = [f"Given{_letters(rng.integers(2000))} Name{_letters(rng.integers(number // 8 + 9))}" for _ in range(4)]
    pieces = [*common, *near, *names, f"rareword{_letters(rng.integers(number // 2 + 2))}"]
    rng.shuffle(pieces)
    return Document(f"d{number}", " ".join(pieces) + ".", f"Place{_letters(number)} Town", {"id": number})


def _letters(number: int) -> str:
    """A number without digits, which names do not have."""
    return str(number).translate(str.maketrans("0123456789", "abcdefghij"))


def scale() -> dict[str, Any]:
    """Building, adding and walking, by the number of passages."""
    from ragzip.indexes import Index, build
    from ragzip.indexes.graph.network import open_network

    encoder = Clusters()
    results: dict[str, Any] = {}
    for size in SIZES:
        path = RUNS / f"scale-{size}"
        shutil.rmtree(path, ignore_errors=True)
        build(map(written, range(size)), path, sync=False, retriever="dense", encoder=encoder, tokens=180)
        made = build([], path, sync=False, retriever="graph", encoder=encoder)
        more = map(written, range(size, size + size // 100))
        grown = build(more, path, sync=False, encoder=encoder)
        start = time.perf_counter()
        with Index.open(path) as index:
            network = index.opened("graph", open_network)
            steps = network.steps(_shares())
            opened = time.perf_counter() - start
            entry = index.part("graph")
            files = (*entry.files, *(entry.whole or ()))
            results[str(size)] = {
                "passages": len(index),
                "add_seconds": made.seconds["finish"],
                "grow_seconds": grown.seconds["finish"],
                "edges": len(network.indices) // 2,
                "bytes": sum(file.bytes for file in files) / len(index),
                "open_ms": 1000 * opened,
                "walk_ms": 1000 * _walk(network, steps),
            }
        shutil.rmtree(path)
    return results


def _shares() -> list[float]:
    from ragzip.indexes.graph.edges import KINDS
    from ragzip.retrievers import Graph

    defaults = Graph("?")
    return [getattr(defaults, kind, defaults.triple) for kind in KINDS]


def _walk(network: Any, steps: Any) -> float:
    """The median seconds of processor of a walk from forty passages and three entities, with default options."""
    from ragzip.indexes.graph.pagerank import pagerank
    from ragzip.retrievers import Graph

    options = Graph("?")
    rng = np.random.default_rng(SEED)
    seconds = []
    for _ in range(50):
        restart = np.zeros(network.nodes)
        restart[rng.integers(network.passages, size=40)] += 0.7 / 40
        restart[network.passages + rng.integers(network.entities, size=3)] += 0.1
        restart /= restart.sum()
        start = time.process_time()
        pagerank(
            network.indptr, network.indices, steps, restart, damping=options.damping, hops=options.hops,
            tolerance=1 / (options.budget * (1 - options.damping)),
        )  # fmt: skip
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def render(record: dict[str, Any]) -> str:
    """A table for each piece."""
    lines = [
        f"`{record['command']}`, {record['when']}, " + ", ".join(f"{k} {v}" for k, v in record["environment"].items()),
        "",
    ]
    if record["command"].endswith(":scale"):
        lines += ["| " + " | ".join(SHOWN.values()) + " |", "|---" * len(SHOWN) + "|"]
        for values in record["results"].values():
            lines.append("| " + " | ".join(f"{values[key]:,.{_digits(values[key])}f}" for key in SHOWN) + " |")
        return "\n".join(lines) + "\n"
    lines += [
        f"Share of questions with all their supporting passages in the first {K}; recall of these in the first {K}; the"
        " difference to `dense` in the first share with its 95 % interval, and p of the paired randomisation test"
        " (Holm over the rows of a set); milliseconds of processor a question, encoding included, the median.",
        "",
        f"| set | questions | passages | retriever | all in {K} | recall@{K} | to dense | p | ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for spec, result in record["results"].items():
        for name, row in result["rows"].items():
            gain = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*row["gain"]) if "gain" in row else ""
            p = f"{row['p']:.4f}" if "p" in row else ""
            cells = [spec, f"{result['questions']:,}", f"{result['passages']:,}", name, f"{row['all']:.3f}"]
            lines.append("| " + " | ".join([*cells, f"{row['recall']:.3f}", gain, p, f"{row['ms']:.1f}"]) + " |")
    return "\n".join(lines) + "\n"


def _digits(value: float) -> int:
    return 0 if value >= 100 or value == int(value) else 1
