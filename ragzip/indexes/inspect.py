"""Looking at an index without searching it: what it is, and whether it is sound."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragzip.errors import StoreError
from ragzip.indexes import ann, bm25, manifest, parts
from ragzip.indexes.files import checksum, rebuild_hint, unreadable
from ragzip.indexes.graph.part import TRIPLES
from ragzip.indexes.index import Index
from ragzip.indexes.manifest import Manifest, PartEntry, StoreMoved
from ragzip.indexes.soundness import remedy
from ragzip.indexes.storage import Rows, parse
from ragzip.indexes.table import IndexedDocument, add_digests, digest_of
from ragzip.indexes.vectors import BLOCK
from ragzip.indexes.weight import structures

_TRIES = 5
_MOST_SHOWN = 10


@dataclass(frozen=True)
class IndexInfo:
    """What an index says of itself.

    Attributes:
        path: The folder.
        format: Version of its layout.
        commit: How many commits it has seen.
        retriever: How it is searched.
        parts: What other retrievers can search it by.
        structures: Bytes of each search structure: ``vectors``, ``faiss``, ``bm25`` and the parts.
        part_settings: Of each part the options it was made with, and what else it says of itself.
        model: Name of its encoder, or "".
        fingerprint: Of the encoder's weights, or "".
        dimensions: Width of its vectors, or 0.
        storage: How vectors are kept and searched, as ``build`` takes it; "" without vectors.
        kept_as: What the vectors are now: float32 as long as there are too few passages to learn the storage from.
        tokens: Most tokens a passage.
        overlap: Tokens shared with the passage before.
        documents: How many.
        passages: How many.
        dead: Passages that are removed but still take room.
        shards: Files of vectors.
        bytes: On the disk.
        searchable: False where indexing was stopped: searches work, but slower until it is finished.
        created: When, ISO 8601.
        updated: When, ISO 8601.
        version: Of the ragzip that wrote it.
    """

    path: str
    format: int
    commit: int
    retriever: str
    parts: tuple[str, ...]
    structures: dict[str, int]
    part_settings: dict[str, dict[str, Any]]
    model: str
    fingerprint: str
    dimensions: int
    storage: str
    kept_as: str
    tokens: int
    overlap: int
    documents: int
    passages: int
    dead: int
    shards: int
    bytes: int
    searchable: bool
    created: str
    updated: str
    version: str


def info(path: str | Path) -> IndexInfo:
    """What an index says of itself; reads its manifest and the sizes of its files.

    Raises:
        StoreError: As ``Index.open``.
    """
    root = Path(path)
    entry = Index.open(root, contents=False).manifest
    model = entry.model
    size = sum(file.bytes for file in entry.files) + (root / entry.table).stat().st_size
    return IndexInfo(
        path=str(root),
        format=manifest.FORMAT,
        commit=entry.commit,
        retriever=entry.retriever,
        parts=tuple(part.kind for part in entry.parts),
        structures=structures(entry),
        part_settings={part.kind: _told(part) for part in entry.parts},
        model=model.name if model else "",
        fingerprint=model.fingerprint if model else "",
        dimensions=model.dimensions if model else 0,
        storage=entry.storage if model else "",
        kept_as=("" if not model else str(parse(entry.storage).rows) if entry.codec else str(Rows())),
        tokens=entry.chunking.tokens,
        overlap=entry.chunking.overlap,
        documents=entry.documents,
        passages=entry.passages,
        dead=entry.rows - entry.passages,
        shards=len(entry.shards),
        bytes=size,
        searchable=entry.searchable,
        created=entry.created,
        updated=entry.updated,
        version=entry.version,
    )


def _told(part: PartEntry) -> dict[str, Any]:
    """The options of a part; of ``multi_vector`` its check of the encodings, of ``graph`` how far facts were found."""
    found = {**parts.options_of(part)}
    check = part.settings.get("check")
    if check:
        found["encodings_find"] = check["recall"]
    if TRIPLES in part.settings:
        found["facts_until_row"] = part.settings[TRIPLES]
    return found


@dataclass(frozen=True)
class Problem:
    """Something wrong with an index.

    Attributes:
        what: Where and what.
        hint: What to do.
    """

    what: str
    hint: str

    def __str__(self) -> str:
        return f"{self.what} {self.hint}".strip()


def verify(path: str | Path) -> list[Problem]:
    """Reads the whole index and checks it against its manifest: checksums, SQLite, digests, vectors.

    Returns:
        What is wrong; empty for a sound index.
    """
    root = Path(path)
    for _ in range(_TRIES):
        try:
            return _verify(root)
        except StoreMoved:
            continue
    return [Problem(f"{root}: is being written all the time.", "Try again when indexing has finished.")]


def _verify(root: Path) -> list[Problem]:
    try:
        index = Index.open(root, contents=False)
    except StoreMoved:
        raise
    except StoreError as error:
        return [Problem(error.message, error.hint)]
    with index:
        found = _files(root, index.manifest)
        if not found:
            for check in (_table, _documents, _vectors, _structures):
                try:
                    found += check(index)
                except StoreMoved:
                    raise
                except StoreError as error:
                    found.append(Problem(error.message, error.hint))
        # A writer that committed meanwhile may have deleted files of this commit.
        if found and manifest.read(root).commit != index.manifest.commit:
            raise StoreMoved("")
    return found


def _files(root: Path, entry: Manifest) -> list[Problem]:
    found = []
    for file in entry.files:
        mend = remedy(root, entry, file.name)
        try:
            wrong = "does not match its checksum" if checksum(root / file.name) != file.sha256 else ""
        except OSError as error:
            wrong = f"cannot be read: {error.strerror or error}"
            if not isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
                mend = unreadable(root / file.name, error).hint  # it may well be sound
        if wrong:
            found.append(Problem(f"{root / file.name}: {wrong}.", mend))
    return found


def _table(index: Index) -> list[Problem]:
    table = index.path / index.manifest.table
    return [Problem(f"{table}: {what}.", rebuild_hint(index.path)) for what in index.table.check()]


def _documents(index: Index) -> list[Problem]:
    """Digests of documents against their passages, and of all of them against the manifest."""
    found: list[Problem] = []
    digests, documents, passages = "", 0, 0
    for document, first_row, digest in index.table.documents():
        documents += 1
        passages += document.passages
        digests = add_digests(digests, [digest])
        rows = list(index.table.rows(first_row, document.passages))
        if len(rows) != document.passages or digest_of(rows) != digest:
            found.append(_damaged(index, document))
    entry = index.manifest
    expected = (entry.documents, entry.passages, entry.digest)
    if (documents, passages, add_digests(digests, ())) != expected:
        found.append(
            Problem(
                f"{index.path / entry.table}: holds {documents} documents and {passages} passages that are not the"
                f" {entry.documents} and {entry.passages} of the manifest.",
                rebuild_hint(index.path),
            )
        )
    return found[:_MOST_SHOWN]


def _damaged(index: Index, document: IndexedDocument) -> Problem:
    return Problem(
        f"{index.path / index.manifest.table}: passages of {document.source} are not what was stored.",
        rebuild_hint(index.path),
    )


def _vectors(index: Index) -> list[Problem]:
    """Every vector that is searched must be finite."""
    if index.manifest.model is None or len(index) == 0:
        return []
    bad = sum(int((~np.isfinite(block).all(axis=1)).sum()) for block in index.vectors.blocks(index.rows))
    if not bad:
        return []
    return [Problem(f"{index.path}: {bad} vectors are not finite.", rebuild_hint(index.path))]


def _structures(index: Index) -> list[Problem]:
    """The search structures open and hold what they should."""
    entry = index.manifest
    if entry.faiss is not None and entry.model is not None:
        searcher = ann.Ann(index.path, entry.faiss, len(index), index.vectors.codec.width)
        if searcher.exact and len(index):
            for start in range(0, len(index), BLOCK):
                rows = index.rows[start : start + 1]
                hits = searcher.search(index.vectors.reduced(rows)[0], 1)
                if len(hits.rows) == 0:
                    return [Problem(f"{index.path / entry.faiss.name}: finds nothing.", rebuild_hint(index.path))]
    for part in entry.parts:
        if part.whole is not None:
            index.opened(part.kind, parts.restored(part).open)
    if entry.bm25:
        bm25.load(index.path, entry.bm25, len(index))
    return []
