"""What storing vectors in fewer bytes costs: ndcg@10 on three retrieval sets, and a million vectors.

    python benchmarks/run.py retrieval_storage:sets         # a quarter of an hour on two cores, most of it encoding
    python benchmarks/run.py retrieval_storage:million      # ten minutes, 8 GB of disk

``sets`` indexes each corpus whole, once, and stores copies of the index in every way; questions are encoded once.
``million`` makes an index of a million synthetic passages whose vectors lie in clusters, and stores it in one way after
the other, each opened in a process of its own. Indexes are left in .bench/retrieval_storage.
"""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / ".bench" / "retrieval_storage"
SETS = ("scifact_retrieval", "hotpotqa_pooled500", "cranfield")
EXACT = "float32"
STORAGES = (EXACT, "float16", "float8", "int8", "pca192,float8", "pca96,float8", "dims=192,float8", "pq96", "pq48")
STORAGES += ("pq48+float16", "pq48+pca192,float8", "pq96x4+float8", "rabitq+float16", "hnsw32,int8+float16")
MILLION, CLUSTERS, WIDTH, QUESTIONS = 1_000_000, 20_000, 384, 100
DECAY = 2.7
MANY = ("auto", "pq96x4+float32", "ivf1024,pq96x4+float32", "pca192,float8")


def run(piece: str = "sets") -> dict[str, Any]:
    """One of the two."""
    return {"sets": _sets, "million": _million}[piece]()


def _sets() -> dict[str, Any]:
    from ragzip.evaluation.data import open_set
    from ragzip.evaluation.statistics import paired
    from ragzip.indexes import Index, build
    from ragzip.ingest import Document
    from ragzip.models import load_encoder

    results: dict[str, Any] = {}
    for name in SETS:
        data, index = open_set(name), RUNS / name / "index"
        documents = [Document(p.id, p.text, p.title, {"id": p.id}) for p in data.corpus]
        report = build(documents, index, sync=True)  # goes on where it was stopped
        if report.documents != len(documents):
            raise SystemExit(f"{index} holds {report.documents} of {len(documents)} documents")
        with Index.open(index) as opened:
            queries = load_encoder(opened.model_name()).encode_each([record.question for record in data.records])
            passages = len(opened)
        found: dict[str, Any] = {}
        for storage in STORAGES:
            found[storage] = one = _stored(index, storage, data.records, queries)
            difference = paired(one["ndcg"], found[EXACT]["ndcg"], bounds=(0.0, 1.0))
            one["difference"] = {key: getattr(difference, key) for key in ("difference", "low", "high", "p")}
        for one in found.values():
            one["ndcg"] = statistics.mean(one["ndcg"].values())
        results[name] = {"questions": len(data.records), "passages": passages, "storages": found}
    return results


def _stored(index: Path, storage: str, records: Sequence[Any], queries: Any) -> dict[str, Any]:
    """A copy of an index, stored so, and what its questions find."""
    import ir_measures

    from ragzip.evaluation.metrics.ranking import judgements, ranking
    from ragzip.indexes import Index, store_as

    ndcg = ir_measures.nDCG @ 10
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(index, Path(folder) / "index"))
        start = time.perf_counter()
        store_as(copy, storage)
        seconds = time.perf_counter() - start
        with Index.open(copy) as opened:
            entry = opened.manifest
            kept = sum(file.bytes for file in (*(shard.file for shard in entry.shards), *_given(entry.codec)))
            searched = entry.faiss.bytes if entry.faiss else kept
            times, scores = [], {}
            for number, (record, query) in enumerate(zip(records, queries, strict=True)):
                start = time.perf_counter()
                (hits,) = opened.search_vectors(query[None], 20)
                times.append(time.perf_counter() - start)
                grades = judgements(record)
                ranked = ranking(tuple(opened.passages(hits.rows)), grades)
                run_ = {"q": {document: float(-place) for place, document in enumerate(ranked)}}
                (value,) = ir_measures.iter_calc([ndcg], {"q": dict(grades)}, run_)
                scores[str(number)] = float(value.value)
            return {
                "ndcg": scores,
                "disk": (kept + sum(file.bytes for file in _given(entry.faiss))) / len(opened),
                "memory": searched / len(opened),
                "milliseconds": 1000 * statistics.median(times),
                "seconds": seconds,
            }


def _given(file: Any) -> tuple[Any, ...]:
    return () if file is None else (file,)


class Clustered:
    """Unit vectors that follow from the number in a text: one of 20,000 centres, and two of 8,000 disturbances.

    All shrink along their 384 directions, so that half of them hold 93 % of the squared length, as those of
    ``all-minilm-l6-v2`` on SciFact do; the directions are not the axes.
    """

    name, dimensions, max_tokens, fingerprint = "clustered", WIDTH, 64, "clustered 1"

    def __init__(self) -> None:
        import numpy as np

        draw = np.random.default_rng(0)
        self._centres = draw.standard_normal((CLUSTERS, WIDTH), np.float32)
        self._near = draw.standard_normal((8000, WIDTH), np.float32)
        turn, _ = np.linalg.qr(draw.standard_normal((WIDTH, WIDTH)))
        shape = (np.exp(-DECAY * np.arange(WIDTH) / WIDTH)[:, None] * turn).astype(np.float32)
        self._centres, self._near = self._centres @ shape, self._near @ shape

    def encode(self, texts: Sequence[str], **_: Any) -> Any:
        """``[n, 384]``; of a text that ends in ``?``, a point beside that of its number."""
        import numpy as np

        numbers = np.array([int(text.split()[1].rstrip(".?")) for text in texts])
        first, second = numbers * 7919 % 4001, 4001 + numbers // CLUSTERS * 613 % 3989
        vectors = self._centres[numbers * 31 % CLUSTERS] + 0.5 * (self._near[first] + self._near[second])
        if texts and texts[0].endswith("?"):
            vectors = vectors + 0.4 * self._near[(numbers * 17 + 5) % 8000]
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]


def _million() -> dict[str, Any]:
    folder = RUNS / "million" / "index"
    shutil.rmtree(folder, ignore_errors=True)
    built = _apart(_build, folder, MILLION)
    results: dict[str, Any] = {"passages": MILLION, "built": built, "storages": {}}
    truth = _apart(_exact, folder)
    for storage in MANY:
        made = _apart(_store, folder, storage)
        searched = _apart(_search, folder, truth["rows"])
        sizes = {key: made[key] for key in ("disk", "memory")}
        found = {key: searched[key] for key in ("opening", "milliseconds", "recall", "peak")}
        results["storages"][storage] = {"made_seconds": made["seconds"], "made_peak": made["peak"], **sizes, **found}
    return results


def _apart(function: Any, *arguments: Any) -> dict[str, Any]:
    """What a function gives in a fresh process, with its peak memory in bytes and its seconds."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found: dict[str, Any] = pool.apply(_watched, (function, arguments))
    return found


def _watched(function: Any, arguments: Any) -> dict[str, Any]:
    start = time.perf_counter()
    found = function(*arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": time.perf_counter() - start, "peak": peak, **found}


def _build(folder: Path, count: int) -> dict[str, Any]:
    from ragzip.indexes import build
    from ragzip.ingest import Document

    documents = (Document(f"{n}", f"passage {n}.", "", {}) for n in range(count))
    report = build(
        documents, folder, sync=True, retriever="dense", encoder=Clustered(), tokens=32, overlap=0,
        commit_passages=16_384,
    )  # fmt: skip
    return {"stages": dict(report.seconds)}


def _store(folder: Path, storage: str) -> dict[str, Any]:
    from ragzip.indexes import Index, store_as

    store_as(folder, storage)
    entry = Index.open(folder).manifest
    kept = sum(shard.file.bytes for shard in entry.shards)
    searched = entry.faiss.bytes if entry.faiss else kept
    disk = kept + sum(file.bytes for file in _given(entry.faiss))
    return {"disk": disk / len(Index.open(folder)), "memory": searched / len(Index.open(folder))}


def _queries() -> Any:
    return Clustered().encode([f"passage {n}?" for n in range(7, MILLION, MILLION // QUESTIONS)])


def _exact(folder: Path) -> dict[str, Any]:
    from ragzip.indexes import Index

    with Index.open(folder) as index:
        return {"rows": [index.vectors.search(query, 10, index.rows).rows.tolist() for query in _queries()]}


def _search(folder: Path, truth: list[list[int]]) -> dict[str, Any]:
    from ragzip.indexes import Index

    queries = _queries()
    start = time.perf_counter()
    index = Index.open(folder)
    index.search_vectors(queries[:1], 10)
    opening = time.perf_counter() - start
    times, shares = [], []
    for query, rows in zip(queries, truth, strict=True):
        start = time.perf_counter()
        (hits,) = index.search_vectors(query[None], 10)
        times.append(time.perf_counter() - start)
        shares.append(len({*hits.rows.tolist()} & {*rows}) / len(rows))
    return {
        "opening": opening,
        "milliseconds": 1000 * statistics.median(times),
        "recall": statistics.mean(shares),
    }


def render(record: dict[str, Any]) -> str:
    """Tables of either piece."""
    result = record["results"]
    head = f"`{record['command']}`, {record['when']}, "
    head += ", ".join(f"{k} {v}" for k, v in record["environment"].items())
    lines = _render_million(result) if "built" in result else _render_sets(result)
    return "\n".join([head, "", *lines]) + "\n"


def _render_sets(result: dict[str, Any]) -> list[str]:
    lines = [
        "Bytes are those of a passage of 384 numbers: on the disk, and of what is read for every question. In brackets"
        " the 95 % interval of the difference from exact search among float32 vectors, on the same questions.",
        "",
        "| set | questions | passages | storage | ndcg@10 | difference | bytes, disk | bytes, memory | ms a question |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in result.items():
        for storage, one in found["storages"].items():
            gap, size = one["difference"], f"{found['questions']:,} | {found['passages']:,}"
            shown = f"{gap['difference']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]" if storage != EXACT else "-"
            lines.append(
                f"| {name} | {size} | `{storage}` | {one['ndcg']:.4f} | {shown} |"
                f" {one['disk']:,.0f} | {one['memory']:,.0f} | {one['milliseconds']:.2f} |"
            )
    return lines


def _render_million(result: dict[str, Any]) -> list[str]:
    built = result["built"]
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in built["stages"].items())
    lines = [
        f"{result['passages']:,} passages of {WIDTH} numbers in {CLUSTERS:,} clusters, indexed for `dense` with the"
        f" default storage in {built['seconds']:.0f} s ({stages}) at a peak of {built['peak'] / 2**30:.1f} GiB. Opening"
        " is the first search of a fresh process, with the file cache warm.",
        "",
        "| storage | seconds to make | peak, GiB | bytes, disk | bytes, memory | opening, s | ms a question | recall |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for storage, one in result["storages"].items():
        seconds = "(when built)" if storage == MANY[0] else f"{one['made_seconds']:.0f}"
        lines.append(
            f"| `{storage}` | {seconds} | {one['made_peak'] / 2**30:.1f} | {one['disk']:,.0f} | {one['memory']:,.0f} |"
            f" {one['opening']:.2f} | {one['milliseconds']:.1f} | {one['recall']:.3f} |"
        )
    return lines
