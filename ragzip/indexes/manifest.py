"""The manifest: the one file whose replacement is a commit.

A reader that has read it knows every file of one state of the index. Files it lists are never changed, except the
SQLite table, whose rows carry the commits that added and removed them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ragzip.errors import ConfigError, StoreDamaged, StoreError, StoreMismatch
from ragzip.indexes.files import FileEntry, new_file, rebuild_hint
from ragzip.indexes.storage import AUTO, parse

FORMAT = 5
# 1: no parts, one storage; 2: no parts older than their commit; 3: residuals not turned; 4: these not in planes
_READ = (1, 2, 3, 4, FORMAT)
NAME = "manifest.json"
PENDING = "manifest.rebuild.json"
Retrieval = Literal["dense", "bm25", "fusion", "multi_vector", "graph", "jpq"]
PARTS: tuple[Retrieval, ...] = ("multi_vector", "graph", "jpq")  # what is searched by a part of its own
WORDLESS: tuple[Retrieval, ...] = ("dense", "multi_vector", "jpq")  # what is searched without the term index
_MOST_BYTES = 64 * 1024 * 1024
_FILE = re.compile(
    r"vectors/\d{6,}\.npy|faiss-\d{6,}\.index|bm25-\d{6,}/[a-z_]+(\.[a-z_]+)*|passages-\d{6,}\.sqlite"
    r"|codec-\d{6,}\.safetensors|part-[a-z_]+-\d{6,}/[a-z0-9_]+(\.[a-z0-9_]+)*"
)


class StoreMoved(StoreError):
    """A writer replaced files since this index was opened: open it again."""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """The encoder the vectors come from.

    Attributes:
        name: As ``load_encoder`` takes it.
        fingerprint: Of its weights.
        dimensions: Width of its vectors.
    """

    name: str
    fingerprint: str
    dimensions: int


@dataclass(frozen=True, slots=True)
class Chunking:
    """How documents were cut.

    Attributes:
        tokens: Most tokens a passage.
        overlap: Tokens shared with the passage before.
        unit: Whose tokens: ``model``, or ``words`` where there is no model.
        loader: Version of the loaders.
    """

    tokens: int
    overlap: int
    unit: str
    loader: int

    @property
    def recipe(self) -> str:
        """One string that differs when passages would."""
        return f"{self.tokens}+{self.overlap} {self.unit} v{self.loader}"


@dataclass(frozen=True, slots=True)
class Shard:
    """Vectors of consecutive rows: ``[rows, dimensions]`` float32, or the codes of the manifest's codec."""

    file: FileEntry
    rows: int


@dataclass(frozen=True, slots=True)
class PartEntry:
    """What a retriever needs beside vectors and terms.

    Attributes:
        kind: Name of the retriever.
        rows: It covers rows 0 to ``rows`` of the table, dead ones included.
        settings: ``options`` it is made with, and what else it remembers; values of JSON.
        files: What is known of single rows.
        whole: Made from these for all passages alive at the end of a run; None until one has ended.
        of: The commit whose passages these were; None where they are those of this one.
    """

    kind: str
    rows: int
    settings: Mapping[str, Any]
    files: tuple[FileEntry, ...]
    whole: tuple[FileEntry, ...] | None
    of: int | None = None

    def older(self, commit: int) -> PartEntry:
        """The same after passages came or went; ``commit`` is the last one that knew nothing of it."""
        if self.whole is None or self.of is not None:
            return self
        return dataclasses.replace(self, of=commit)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One state of an index.

    Attributes:
        id: Random; also in the SQLite table, so that mixed-up files are noticed.
        commit: Number of commits so far.
        retriever: How it is meant to be searched.
        model: None for bm25 alone.
        chunking: Of the last run; documents record their own.
        documents: That are alive.
        passages: That are alive.
        rows: Given out so far, dead ones included.
        digest: Sum of the digests of the documents alive, modulo 2^256, in hex.
        table: File name of the SQLite table.
        table_bytes: Its least size.
        shards: In row order.
        faiss: Over the vectors alive, in row order; None between the commits of one run, and where shards are scanned.
        bm25: Files of the term index over the same passages; empty between the commits of one run.
        parts: One of a kind.
        storage: How vectors are kept and searched, as ``storage.parse`` reads it.
        codec: What the shards hold; None while that is float32.
        serial: Last number given to a file.
        created: When, ISO 8601.
        updated: When, ISO 8601.
        version: Of the ragzip that wrote it.
        seconds: That runs have spent on each search structure, by the names of ``weight.structures``; None where an
            older ragzip made it, and nobody knows.
    """

    id: str
    commit: int
    retriever: Retrieval
    model: ModelEntry | None
    chunking: Chunking
    documents: int
    passages: int
    rows: int
    digest: str
    table: str
    table_bytes: int
    shards: tuple[Shard, ...]
    faiss: FileEntry | None
    bm25: tuple[FileEntry, ...]
    serial: int
    created: str
    updated: str
    version: str
    parts: tuple[PartEntry, ...] = ()
    storage: str = AUTO
    codec: FileEntry | None = None
    seconds: Mapping[str, float] | None = None

    @property
    def given(self) -> frozenset[str]:
        """Names of the files beside the table that no other file can give back: vectors, and how they are coded."""
        codec = {self.codec.name} if self.codec else set()
        return frozenset({shard.file.name for shard in self.shards} | codec)

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Everything listed but the SQLite table."""
        parts = (file for part in self.parts for file in (*part.files, *(part.whole or ())))
        single = (file for file in (self.codec, self.faiss) if file is not None)
        return (*(s.file for s in self.shards), *single, *self.bm25, *parts)

    @property
    def settled(self) -> bool:
        """Whether the shards hold what the storage says, or there are too few passages for it."""
        if self.model is None or self.codec is not None:
            return True
        rows = parse(self.storage).rows
        return rows.plain or self.passages < rows.least

    @property
    def searchable(self) -> bool:
        """Whether the search structures belong to this commit; without them a search works, but slower."""
        found = self.faiss is not None or not parse(self.storage).indexed(self.passages)
        vectors = self.retriever == "bm25" or (found and self.settled)
        terms = bool(self.bm25) or self.retriever in WORDLESS
        made = {p.kind for p in self.parts if p.rows == self.rows and p.whole is not None and p.of is None}
        parts = len(made) == len(self.parts) and (self.retriever not in PARTS or self.retriever in made)
        return self.passages == 0 or (vectors and terms and parts)


def is_name(name: str) -> bool:
    """Whether a file below the index folder has a name that only an index gives."""
    return _FILE.fullmatch(name) is not None


def exists(root: Path) -> bool:
    """Whether there is a manifest, good or bad."""
    return (root / NAME).is_file()


def write(root: Path, manifest: Manifest, name: str = NAME) -> None:
    """Commits: from the moment of the rename, the index is what this manifest says."""
    body = dataclasses.asdict(manifest)
    text = json.dumps({"format": FORMAT, "checksum": _checksum(body), **body}, indent=1)
    with new_file(root / name) as out:
        out.write(text.encode("utf-8"))


def read(root: Path, name: str = NAME) -> Manifest:
    """The manifest of an index folder.

    Raises:
        StoreError: There is no folder, or no index in it.
        StoreMismatch: Another format version.
        StoreDamaged: Not what was written.
    """
    path = root / name
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise StoreDamaged(f"{path}: far too large for a manifest.", hint=rebuild_hint(root))
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(root) from None
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be read: {error.strerror or error}.", hint="Check its permissions."
        ) from error
    try:
        values = json.loads(data)
        version = values["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreDamaged(f"{path}: is no manifest: {error!r}.", hint=rebuild_hint(root)) from error
    if version not in _READ:
        age = "a newer ragzip" if isinstance(version, int) and version > FORMAT else "another ragzip"
        raise StoreMismatch(
            f"{path}: format {version!r}, written by {age}; this ragzip reads format {FORMAT}.",
            hint=f"Upgrade ragzip, or make it anew. {rebuild_hint(root)}",
        )
    try:
        return _parse(values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreDamaged(f"{path}: is damaged: {error}.", hint=rebuild_hint(root)) from error


def _missing(root: Path) -> StoreError:
    if not root.exists():
        return StoreError(
            f"{root}: no such index.", hint=f"Make one: ragzip index PATH... --index {root}; or check the spelling."
        )
    if not root.is_dir():
        return StoreError(f"{root}: an index is a folder, and this is a file.", hint="Name the index folder.")
    if (root / PENDING).is_file() or any(root.glob("passages-*.sqlite")):
        return StoreError(
            f"{root}: indexing was stopped before its first commit.", hint="Run the same ragzip index command again."
        )
    return StoreError(
        f"{root}: this folder holds no index.",
        hint=f"Make one: ragzip index PATH... --index {root}; or check the path.",
    )


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _parse(values: dict[str, Any]) -> Manifest:
    body = {key: value for key, value in values.items() if key not in ("format", "checksum")}
    if values.get("checksum") != _checksum(body):
        raise ValueError("its checksum does not match")
    model = ModelEntry(**body["model"]) if body["model"] is not None else None
    shards = tuple(Shard(_file(s["file"]), int(s["rows"])) for s in body["shards"])
    manifest = Manifest(
        **{
            **body,
            "model": model,
            "chunking": Chunking(**body["chunking"]),
            "shards": shards,
            "parts": tuple(_part(entry) for entry in body.get("parts", ())),
            "faiss": _file(body["faiss"]) if body["faiss"] is not None else None,
            "bm25": tuple(_file(entry) for entry in body["bm25"]),
            "codec": _file(body["codec"]) if body.get("codec") is not None else None,
            "seconds": _seconds(body.get("seconds")),
        }
    )
    try:
        parse(manifest.storage)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    if manifest.retriever not in get_args(Retrieval):
        raise ValueError(f"unknown retriever {manifest.retriever!r}")
    if not _FILE.fullmatch(manifest.table):
        raise ValueError(f"{manifest.table!r} is no file of an index")
    if model is not None and sum(shard.rows for shard in shards) != manifest.rows:
        raise ValueError("its shards do not hold its rows")
    return manifest


def _part(values: dict[str, Any]) -> PartEntry:
    files, whole = (None if values[key] is None else tuple(map(_file, values[key])) for key in ("files", "whole"))
    if not isinstance(values["settings"]["options"], dict) or files is None:
        raise ValueError(f"its part {values['kind']!r} is none")
    of = values.get("of")
    return PartEntry(
        str(values["kind"]), int(values["rows"]), values["settings"], files, whole, None if of is None else int(of)
    )


def _seconds(values: dict[str, Any] | None) -> dict[str, float] | None:
    return None if values is None else {str(name): float(value) for name, value in values.items()}


def _file(values: dict[str, Any]) -> FileEntry:
    entry = FileEntry(**values)
    if not _FILE.fullmatch(entry.name):
        raise ValueError(f"{entry.name!r} is no file of an index")
    return entry
