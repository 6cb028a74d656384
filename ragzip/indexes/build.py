"""Documents into an index: only what changed is cut and encoded, commit by commit.

Batches begin right after a commit and end at a document's border, so that a run that was stopped and started again
cuts the same batches as one that was not: encoders round differently in different company.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ragzip.errors import UsageError
from ragzip.indexes import manifest, stored
from ragzip.indexes.encoding import Encoder, Progress
from ragzip.indexes.files import write_lock
from ragzip.indexes.index import Index
from ragzip.indexes.manifest import Retrieval
from ragzip.indexes.report import BuildReport
from ragzip.indexes.run import IsKnown, Item, Options, Run
from ragzip.indexes.soundness import damage
from ragzip.indexes.storage import parse
from ragzip.indexes.writer import Writer, check_new, sweep
from ragzip.ingest import Skipped


def build(
    documents: Iterable[Item] | Callable[[IsKnown], Iterable[Item]],
    path: str | Path,
    *,
    sync: bool,
    roots: Sequence[str] = (),
    retriever: Retrieval | None = None,
    model: str | None = None,
    encoder: Encoder | None = None,
    tokens: int | None = None,
    overlap: int | None = None,
    commit_passages: int = 1024,
    rebuild: bool = False,
    settings: Mapping[str, Any] | None = None,
    storage: str | None = None,
    spare: bool = False,
    on_progress: Progress | None = None,
) -> BuildReport:
    """Makes an index, or brings one up to date.

    Killed at any moment, the index opens at its last commit, and the same call goes on from there.

    Args:
        documents: What there is now, streamed; or a function that gives it when told what is known already (pass
            its argument to ``ragzip.ingest.load``). Of two documents with one source the first counts.
        path: The index folder.
        sync: Whether documents recorded under ``roots`` that did not come are removed. What was skipped as
            unreadable keeps its old version.
        roots: As ``ragzip.ingest.roots`` gives them.
        retriever: How it will be searched: ``dense``, ``bm25``, ``fusion``, ``multi_vector``, ``graph`` or
            ``jpq``. None: as before, or fusion.
        model: The encoder. None: as before, or the built-in one.
        encoder: One that is loaded already.
        tokens: Most tokens a passage. None: as before, or 180.
        overlap: Tokens shared with the passage before. None: as before, or 30.
        commit_passages: How many passages, at least, are committed and encoded together.
        rebuild: Whether to start from nothing; the old index, good or damaged, is replaced when all is done.
        settings: Options of the part that ``multi_vector``, ``graph`` or ``jpq`` needs; what is not named is as before.
        storage: How vectors are kept and searched, as ``pca192,float8`` or ``pq48+float16``. None: as before, or
            ``auto``: float32, in a FAISS index that is exact below 100,000 passages.
        spare: Whether documents stay under roots from which nothing came at all, neither a document nor a file that was
            emptied.
        on_progress: Called with the passages encoded so far and 0.

    Raises:
        ConfigError: An option outside its range.
        StoreError: The disk is full, another process is indexing, the folder holds something else.
        StoreMismatch: The index was made with another model, format or kind of retriever, or its vectors are kept in
            another way than ``storage`` says.
        StoreDamaged: The index is damaged; ``rebuild=True`` mends it.
        IngestError: Nothing came from any root, and ``spare`` is set; then nothing is removed.
    """
    root = Path(path)
    options = Options(retriever, model, tokens, overlap, commit_passages, rebuild, settings or {}, storage, spare)
    run = Run(root, options, encoder, on_progress)
    if root.exists() and not root.is_dir():
        manifest.read(root)  # says so
    items = iter(documents(run.is_known) if callable(documents) else documents)
    if not root.exists() or not manifest.exists(root):
        # Nothing is made on the disk for a corpus without documents, or before a loader that fails at once.
        with run.clock("read"):
            head = _until_document(items)
        if not head or isinstance(head[-1], Skipped):
            return BuildReport(str(root), skipped=tuple(item for item in head if isinstance(item, Skipped)))
        items = itertools.chain(head, items)
        check_new(root)
    with write_lock(root):
        try:
            run.start()
            for item in run.timed(items):
                run.take(item)
            run.flush()
            return run.end(roots if sync else ())
        finally:
            run.close()


def remove(path: str | Path, sources: Sequence[str]) -> BuildReport:
    """Removes documents.

    Args:
        path: The index folder.
        sources: Sources, folders (everything below them) or globs; what is the name of something there is no glob.

    Raises:
        UsageError: One that matches nothing, or is empty; then nothing is removed.
        StoreError: As ``build``.
    """
    root = Path(path)
    if not all(pattern.strip("/ ") for pattern in sources):
        raise UsageError(
            "an empty source names no document", hint=f"What is there: ragzip index info --index {root} --sources"
        )
    manifest.read(root)
    with write_lock(root):
        entry = manifest.read(root)
        if damaged := damage(root, entry):
            raise damaged
        sweep(root, (entry,))
        writer = Writer(root, entry, manifest.NAME)
        try:
            started = time.perf_counter()
            unmatched = set(sources)
            numbers: list[int] = []
            held = writer.table.sources
            literal = {pattern for _, source in held() for pattern in sources if _names(pattern, source)}
            for number, source in held():
                matching = [p for p in sources if _names(p, source) or (p not in literal and fnmatchcase(source, p))]
                unmatched.difference_update(matching)
                numbers += [number] if matching else []
            if unmatched:
                raise UsageError(
                    f"{root}: no document matches {min(unmatched)!r}; nothing was removed.",
                    hint=f"See what is there: ragzip index info --index {root} --sources",
                )
            removed = writer.drop(numbers)
            writer.finish(entry.retriever)
            now = writer.manifest
            seconds = {"finish": time.perf_counter() - started}
        finally:
            writer.close()
    return BuildReport(
        str(root), removed=removed, documents=now.documents, passages=now.passages,
        unchanged=now.documents, seconds=seconds,
    )  # fmt: skip


def store_as(path: str | Path, storage: str) -> None:
    """Keeps and searches the vectors of an index in another way from now on; nothing is encoded.

    Args:
        path: The index folder.
        storage: As ``build`` takes it.

    Raises:
        ConfigError: It says no storage, or none for vectors of this width.
        StoreMismatch: The index has no vectors, or they are rounded already, in another way.
        StoreError: As ``build``.
    """
    root, wanted = Path(path), parse(storage)
    Index.open(root).model_name()
    with write_lock(root):
        with Index.open(root) as index:
            entry = index.manifest
        stored.check_change(root, entry, wanted)
        sweep(root, (entry,))
        writer = Writer(root, entry, manifest.NAME)
        try:
            writer.finish(entry.retriever, storage=wanted)
        finally:
            writer.close()


def _names(pattern: str, source: str) -> bool:
    """Whether it is this source, the file of this record, or below this folder, taken literally."""
    return source == pattern or source.startswith((pattern.rstrip("/") + "/", pattern + "#"))


def _until_document(items: Iterator[Item]) -> list[Item]:
    head: list[Item] = []
    for item in items:
        head.append(item)
        if not isinstance(item, Skipped):
            break
    return head
