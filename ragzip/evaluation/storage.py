"""Which storage for this index: alternatives measured side by side, on its own passages.

A question is a sentence of a passage. What exact search among the float32 vectors finds is the truth of ``recall``;
``mrr`` is that of the passage the sentence is from, which float32 does not always find first either.
"""

from __future__ import annotations

import dataclasses
import random
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ragzip.errors import ConfigError, StoreMismatch, UsageError
from ragzip.evaluation.fronts import pareto
from ragzip.indexes import Index, ann, stored
from ragzip.indexes.encoding import Encoder
from ragzip.indexes.files import FileEntry, rebuild_hint
from ragzip.indexes.manifest import Shard
from ragzip.indexes.nearest import Nearest
from ragzip.indexes.ranking import Hits
from ragzip.indexes.storage import LEAST_ROWS, Storage, parse
from ragzip.indexes.vectors import Matrix, Vectors
from ragzip.text import sentences

Cost = Literal["disk", "memory", "milliseconds"]
_LEAST_WORDS = 5
_EQUAL = 1e-6
_MOST_HNSW = 200_000  # passages: it takes minutes to build for more
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Measured:
    """One storage.

    Attributes:
        storage: Its line.
        recall: Share of what is found that scores no less than the last one that exact search finds.
        mrr: One by the rank of the passage that the question is from, 0 where it is not among the first ``k``.
        disk: Bytes of vectors, codes and what is searched.
        memory: Bytes that are read for a question: what is searched, but not what scores the shortlist again.
        milliseconds: Median time of a question's search on one thread.
        seconds: To make it from float32 vectors.
        fronts: The costs by which no other is better in recall at no more.
    """

    storage: str
    recall: float
    mrr: float
    disk: int
    memory: int
    milliseconds: float
    seconds: float
    fronts: tuple[Cost, ...] = ()


@dataclass(frozen=True)
class StorageTuning:
    """What was measured.

    Attributes:
        path: The index folder.
        passages: How many.
        dimensions: Of their vectors.
        questions: How many.
        k: How many passages a question finds.
        measured: In the order they were named.
        left_out: Lines that need more passages, or other vectors.
    """

    path: str
    passages: int
    dimensions: int
    questions: int
    k: int
    measured: tuple[Measured, ...]
    left_out: tuple[str, ...]

    def best(self, least_recall: float, by: Cost = "disk") -> Measured:
        """The cheapest that finds enough; of equals the one with the greater recall.

        Raises:
            UsageError: There is none.
        """
        enough = [one for one in self.measured if one.recall >= least_recall]
        if not enough:
            most = max(one.recall for one in self.measured)
            raise UsageError(f"none has a recall of {least_recall:g}", hint=f"The best has {most:.3f}.")
        return min(enough, key=lambda one: (getattr(one, by), -one.recall, one.storage))


def candidates(dimensions: int, passages: int) -> list[str]:
    """Lines worth a try for so many vectors of a width."""
    half, quarter, eighth = dimensions // 2, dimensions // 4, dimensions // 8
    lists = max(16, 2 ** round(np.log2(4 * np.sqrt(passages))))
    found = ["auto", "float32", "float16", "float8", "int8", f"pca{half},float8", f"pca{quarter},float8"]
    found += [f"dims={half},float8", f"pq{eighth}", f"pq{eighth}+float16", f"pq{eighth}+pca{half},float8"]
    found += [f"pq{quarter}x4+float8", "rabitq+float16", f"ivf{lists},pq{quarter}x4+float8"]
    found.append(f"ivf{lists}:{lists // 2},pq{quarter}x4+float8")
    return found if passages > _MOST_HNSW else [*found, "hnsw32,int8+float16"]


def tune(
    path: str | Path,
    *,
    storages: Sequence[str] = (),
    questions: int = 200,
    k: int = 10,
    seed: int = 0,
    encoder: Encoder | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> StorageTuning:
    """Makes each storage in a temporary folder and measures it; the index stays as it is.

    Args:
        path: The index folder; its vectors must be float32 still.
        storages: Lines to try; none takes ``candidates``.
        questions: How many to make.
        k: How many passages each finds.
        seed: Of the passages and sentences that are drawn.
        encoder: One that is loaded already.
        on_progress: Told storages measured and storages in all.

    Raises:
        ConfigError: A line that says no storage.
        UsageError: There are too few passages for there to be a choice.
        StoreMismatch: There are no vectors, or they are not float32 any more.
    """
    for name, value in (("questions", questions), ("k", k)):
        if value < 1:
            raise ConfigError(name, f"must be at least 1, not {value}")
    with Index.open(path) as index:
        model = index.model_name()
        if index.manifest.codec is not None:
            raise StoreMismatch(
                f"{index.path}: its vectors are kept as {parse(index.manifest.storage).rows}, and no longer whole.",
                hint=f"{rebuild_hint(index.path)} --storage auto",
            )
        if len(index) < LEAST_ROWS:
            raise UsageError(
                f"{index.path}: {len(index):,} passages are kept as float32 whatever the storage",
                hint=f"There is a choice from {LEAST_ROWS:,} on.",
            )
        width = index.vectors.dimensions
        wanted, left_out = _fitting([parse(line) for line in storages or candidates(width, len(index))], index)
        if not wanted:
            raise UsageError(f"{index.path}: {left_out[0]} needs more passages, or wider vectors")
        asked, own = _questions(index, questions, seed)
        if encoder is None:
            from ragzip.models import load_encoder

            encoder = load_encoder(model)
        index.check_model(encoder)
        # One at a time, as when a question is asked.
        queries = np.concatenate([encoder.encode([text]) for text in asked])
        truth = [index.vectors.search(query, k, index.rows) for query in queries]
        measured: list[Measured] = []
        for storage in wanted:
            measured.append(_measure(index, storage, queries, truth, own))
            if on_progress is not None:
                on_progress(len(measured), len(wanted))
        return StorageTuning(str(index.path), len(index), width, len(asked), k, _with_fronts(measured), tuple(left_out))


def _fitting(storages: Sequence[Storage], index: Index) -> tuple[list[Storage], list[str]]:
    """Those that can be made of these vectors, and the lines of those that cannot."""
    found: list[Storage] = []
    left_out = []
    width = index.vectors.dimensions
    for storage in dict.fromkeys(storages):
        try:
            storage.check(width)
        except ConfigError:
            left_out.append(str(storage))
            continue
        few = len(index) < storage.rows.least or (storage.structure and not storage.indexed(len(index)))
        (left_out.append(str(storage)) if few else found.append(storage))
    return found, left_out


def _questions(index: Index, count: int, seed: int) -> tuple[list[str], list[int]]:
    """Sentences, and the row of the passage that each is from; one of a passage, no sentence twice."""
    rng = random.Random(seed)  # noqa: S311 - a sample, not a secret
    rows = index.rows.tolist()
    found: dict[str, int] = {}
    for row in rng.sample(rows, len(rows)):
        (passage,) = index.passages([row])
        parts = [passage.text[start:end] for start, end in sentences(passage.text)]
        long = [part for part in parts if len(_WORD.findall(part)) >= _LEAST_WORDS]
        if long:
            found.setdefault(rng.choice(long), row)
        if len(found) == count:
            break
    if not found:
        raise UsageError(f"{index.path}: no passage has a sentence of {_LEAST_WORDS} words to make a question of")
    return list(found), list(found.values())


def _measure(index: Index, storage: Storage, queries: Matrix, truth: Sequence[Hits], own: Sequence[int]) -> Measured:
    k = len(truth[0].rows)
    with tempfile.TemporaryDirectory(prefix="ragzip-") as folder:
        started = time.perf_counter()
        nearest, shards, others = _made(index, storage, Path(folder))
        seconds = time.perf_counter() - started
        for query in queries[:3]:
            nearest.search(query, k)
        recalls, ranks, times = [], [], []
        for query, expected, row in zip(queries, truth, own, strict=True):
            started = time.perf_counter()
            found = nearest.search(query, k).rows
            times.append(time.perf_counter() - started)
            # By score: one of two equal passages is as good as the other.
            exact = index.vectors.scores(query, np.sort(found))
            recalls.append(np.count_nonzero(exact >= expected.scores[-1] - _EQUAL) / k)
            place = np.flatnonzero(found == row)
            ranks.append(1 / (1 + int(place[0])) if len(place) else 0.0)
        kept = sum(shard.file.bytes for shard in shards)
        searched = others[-1].bytes if nearest.ann is not None else kept
        return Measured(
            str(storage),
            recall=float(np.mean(recalls)),
            mrr=float(np.mean(ranks)),
            disk=kept + sum(file.bytes for file in others),
            memory=searched,
            milliseconds=1000 * float(np.median(times)),
            seconds=seconds,
        )


def _made(index: Index, storage: Storage, folder: Path) -> tuple[Nearest, tuple[Shard, ...], list[FileEntry]]:
    """A storage in a folder: what searches it, its shards, and its other files, what is searched last."""
    vectors, rows, shards = index.vectors, index.rows, index.manifest.shards
    numbers = iter(range(1, 1 << 30))
    others: list[FileEntry] = []
    if not storage.rows.plain:
        file, shards = stored.convert(folder, vectors, rows, storage.rows, lambda: f"{next(numbers):06d}")
        others.append(file)
        codec = stored.codec_of(folder, dataclasses.replace(index.manifest, codec=file, storage=str(storage)))
        vectors = Vectors(folder, shards, codec)
    searcher = None
    if storage.indexed(len(rows)):
        others.append(ann.build(folder, "faiss-000000.index", vectors, rows, storage.structure))
        deep = storage.structure is not None
        searcher = ann.Ann(folder, others[-1], len(rows), vectors.codec.width, deep=deep)
    return Nearest(vectors, rows, searcher), shards, others


def _with_fronts(measured: Sequence[Measured]) -> tuple[Measured, ...]:
    on: dict[str, list[Cost]] = {one.storage: [] for one in measured}
    for cost in get_args(Cost):
        for name in pareto({one.storage: (getattr(one, cost), one.recall) for one in measured}):
            on[name].append(cost)
    return tuple(dataclasses.replace(one, fronts=tuple(on[one.storage])) for one in measured)
