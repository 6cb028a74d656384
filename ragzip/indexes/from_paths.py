"""Paths into an index: ingest and ``build`` put together, as the command line and scripts want it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ragzip import ingest
from ragzip.errors import IngestError
from ragzip.indexes.build import build
from ragzip.indexes.encoding import Progress
from ragzip.indexes.manifest import Retrieval
from ragzip.indexes.report import BuildReport


def build_index(
    paths: str | Path | Sequence[str | Path],
    index: str | Path,
    *,
    sync: bool = True,
    retriever: Retrieval | None = None,
    model: str | None = None,
    tokens: int | None = None,
    overlap: int | None = None,
    encoding: str | None = None,
    rebuild: bool = False,
    settings: Mapping[str, Any] | None = None,
    storage: str | None = None,
    stdin: BinaryIO | None = None,
    on_progress: Progress | None = None,
) -> BuildReport:
    """Indexes files and folders; run again, only what changed is indexed.

    Args:
        paths: Files, folders, globs, ``-`` for standard input, ``python:topics``.
        index: The index folder; it is never indexed itself.
        sync: Whether to remove what was indexed from these paths before and is gone.
        retriever: ``dense``, ``bm25``, ``fusion``, ``multi_vector``, ``graph`` or ``jpq``; None: as before, or fusion.
        model: The encoder; None: as before, or the built-in one.
        tokens: Most tokens of a passage; None: as before, or 180.
        overlap: Tokens shared by neighbouring passages; None: as before, or 30.
        encoding: Of text files that are not UTF-8.
        rebuild: Whether to start afresh; the old index stays until the new one is done.
        settings: Options of the part that ``multi_vector``, ``graph`` or ``jpq`` needs.
        storage: How vectors are kept and searched; None: as before, or ``auto``.
        stdin: What ``-`` reads.
        on_progress: Called with the passages encoded so far and 0.

    Raises:
        UsageError: A path that does not exist, or a glob that matches nothing; found before anything is read.
        IngestError: There is nothing to index; what an index has of the paths stays.
        StoreError, StoreMismatch, StoreDamaged, ConfigError, ModelError: As ``build``.
    """
    given = [str(p) for p in ([paths] if isinstance(paths, str | Path) else paths)]
    ingest.check_paths(given)
    folder = Path(index)
    report = build(
        lambda known: ingest.load(
            given, base=folder.resolve().parent, encoding=encoding, stdin=stdin, exclude=[folder], known=known
        ),
        folder,
        sync=sync,
        roots=ingest.roots(given),
        retriever=retriever,
        model=model,
        tokens=tokens,
        overlap=overlap,
        rebuild=rebuild,
        settings=settings,
        storage=storage,
        spare=True,
        on_progress=on_progress,
    )
    if not report.documents:
        left_out = "".join(f"\n  {item.source}: {item.reason}" for item in report.skipped[:10])
        raise IngestError(
            f"no document found in {', '.join(given)}{left_out}",
            hint="Formats: .md .txt .rst .html .pdf .docx .jsonl .csv",
        )
    return report
