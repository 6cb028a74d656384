"""Writing an index: every method that changes it ends in one new manifest, or changes nothing.

The order of a commit: vectors to the disk, rows to SQLite, manifest over the old one. Whatever a stopped writer left
beyond its last manifest is taken back by the next one.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import itertools
import re
import secrets
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import StoreDamaged, StoreError
from ragzip.indexes import ann, bm25, manifest, parts, stored, weight
from ragzip.indexes.files import LOCK, TEMPORARY, FileEntry, guarded, rebuild_hint, sync_file, sync_folder
from ragzip.indexes.index import Index
from ragzip.indexes.manifest import Chunking, Manifest, ModelEntry, Retrieval, Shard
from ragzip.indexes.storage import AUTO, Storage, parse
from ragzip.indexes.table import add_digests
from ragzip.indexes.table_writer import NewDocument, TableWriter
from ragzip.indexes.text import searched_text
from ragzip.indexes.vectors import SHARD_ROWS, Matrix, Vectors, write_shard

MOST_DEAD = 0.3
MOST_SMALL = 64
SMALL_SHARD = 16_384
_OURS = re.compile(
    r"(?:vectors/(\d{6,})\.npy|faiss-(\d{6,})\.index|bm25-(\d{6,})|passages-(\d{6,})\.sqlite|part-[a-z_]+-(\d{6,})"
    r"|codec-(\d{6,})\.safetensors)(?:\.tmp|-journal)?"
)


class Writer:
    """Changes an index; the caller holds its ``write_lock``.

    Args:
        root: The index folder.
        entry: Its last manifest.
        name: Where its manifests go: the real one, or the one of a rebuild under way.
        beside: Another manifest whose files are not to be touched.
    """

    def __init__(self, root: Path, entry: Manifest, name: str, beside: Manifest | None = None) -> None:
        self.root, self.manifest, self._name, self._beside = root, entry, name, beside
        self._spent: defaultdict[str, float] = defaultdict(float)  # since the last commit
        if not (root / entry.table).is_file():
            raise StoreDamaged(f"{root}: {entry.table} is missing.", hint=rebuild_hint(root))
        self.table = TableWriter(root, entry.table)
        try:
            self.table.sweep(entry.commit, entry.rows)
        except BaseException:
            self.table.close()
            raise
        self._serial = max(entry.serial, last_serial(root), beside.serial if beside else 0)

    @classmethod
    def create(
        cls,
        root: Path,
        name: str,
        *,
        retriever: Retrieval,
        model: ModelEntry | None,
        chunking: Chunking,
        beside: Manifest | None = None,
        storage: str = AUTO,
    ) -> Writer:
        """A new index without documents."""
        serial = max(last_serial(root), beside.serial if beside else 0) + 1
        table = f"passages-{serial:06d}.sqlite"
        index_id = secrets.token_hex(16)
        fresh = TableWriter.create(root, table, index_id)
        size = fresh.bytes
        fresh.close()
        now = _now()
        entry = Manifest(
            id=index_id, commit=0, retriever=retriever, model=model, chunking=chunking, documents=0, passages=0,
            rows=0, digest=add_digests("", ()), table=table, table_bytes=size, shards=(), faiss=None, bm25=(),
            serial=serial, created=now, updated=now, version=_version(),
            storage=storage, seconds={},
        )  # fmt: skip
        with guarded(root):
            sync_folder(root)
            manifest.write(root, entry, name)
        return cls(root, entry, name, beside)

    def close(self) -> None:
        """Gives the table back."""
        self.table.close()

    def store(
        self,
        documents: Sequence[NewDocument],
        roots: Iterable[tuple[str, str]],
        encode: Callable[[], Iterator[Matrix]],
    ) -> None:
        """Adds documents, replaces old versions, and records roots of unchanged ones, in one commit.

        Args:
            documents: In the order their rows are given out.
            roots: ``(source, root)`` of documents that were found unchanged.
            encode: The vectors of all their passages in order, in pieces; not called for an index without vectors.
        """
        now, commit = self.manifest, self.manifest.commit + 1
        if not documents:
            with self.table.transaction():
                self.table.add_roots(roots, commit)
            self._publish_searchable()
            return
        count = sum(len(document.passages) for document in documents)
        shards = now.shards
        if now.model is not None and count:
            name = f"vectors/{self._number()}.npy"
            codec = stored.codec_of(self.root, now)
            with self._clock(weight.VECTORS):
                codes = map(codec.encode, encode())
                shards += (write_shard(self.root, name, codec.columns, count, codes, codec.dtype),)
        replaced = [document.replaces for document in documents if document.replaces is not None]
        with self.table.transaction():
            gone, gone_passages = self.table.remove(replaced, commit, forget_roots=False)
            digests = self.table.insert(documents, now.rows, commit)
            self.table.add_roots([(d.source, d.root) for d in documents], commit)
            self.table.add_roots(roots, commit)
        self._publish(
            documents=now.documents + len(documents) - len(replaced),
            passages=now.passages + count - gone_passages,
            rows=now.rows + count,
            digest=add_digests(add_digests(now.digest, digests), gone, -1),
            shards=shards,
        )
        self._join_shards()

    def _join_shards(self) -> None:
        """Puts many small shards into one, so that a long run or many short ones do not end in too many open files."""
        entry = self.manifest
        small = list(itertools.takewhile(lambda shard: shard.rows < SMALL_SHARD, reversed(entry.shards)))[::-1]
        if len(small) < MOST_SMALL or entry.model is None:
            return
        vectors = Vectors(self.root, small, stored.codec_of(self.root, entry))
        joined = self._copied(vectors, np.arange(len(vectors)))
        self._publish(shards=(*entry.shards[: -len(small)], joined))
        for shard in small:
            with suppress(OSError):
                (self.root / shard.file.name).unlink()

    def drop(self, numbers: Iterable[int]) -> int:
        """Removes documents by their keys in one commit, and gives how many there were."""
        now = self.manifest
        with self.table.transaction():
            gone, passages = self.table.remove(numbers, now.commit + 1, forget_roots=True)
        if gone:
            self._publish(
                documents=now.documents - len(gone),
                passages=now.passages - passages,
                digest=add_digests(now.digest, gone, -1),
            )
        return len(gone)

    def part_folder(self, kind: str) -> str:
        """A new name for files of a part, below the index folder."""
        return f"part-{kind}-{self._number()}"

    def forget(self, **structures: Any) -> None:
        """Commits search structures and parts as they are given: some of them without files that are damaged."""
        self._publish_searchable(**structures)

    def finish(
        self,
        retriever: Retrieval,
        chunking: Chunking | None = None,
        builders: Sequence[parts.Part] | None = None,
        storage: Storage | None = None,
        model: str = "",
    ) -> None:
        """Clears up where it is worth it, makes the index fast to search, and deletes what nothing needs.

        Args:
            retriever: How it will be searched.
            chunking: Of this run; None as before.
            builders: Of its parts; None for those it has.
            storage: How vectors are kept from now on; None as before.
            model: What the encoder is called now, which is the same one wherever it lies; "" as before.
        """
        now = self.manifest
        if model and now.model is not None and now.model.name != model:
            self._publish_searchable(model=dataclasses.replace(now.model, name=model))
            now = self.manifest
        dead = now.rows - now.passages
        wanted = parts.wanted(retriever, {}, now.parts, self.root) if builders is None else builders
        if dead > MOST_DEAD * now.rows:
            self._bring_up(wanted)  # before that, so that they can be searched while they take in what is new
            self._compact()
        self._store_as(parse(now.storage) if storage is None else storage)
        chunking = chunking or now.chunking
        if not dataclasses.replace(self.manifest, retriever=retriever).searchable:
            self._make_searchable(retriever, chunking)
        elif (now.retriever, now.chunking) != (retriever, chunking):
            self._publish_searchable(retriever=retriever, chunking=chunking)
        self._bring_up(wanted)
        if self._name != manifest.NAME:
            with guarded(self.root):
                (self.root / self._name).replace(self.root / manifest.NAME)
                sync_folder(self.root)
            self._name, self._beside = manifest.NAME, None
        sweep(self.root, (self.manifest,))

    def _bring_up(self, builders: Sequence[parts.Part]) -> None:
        if self.manifest.passages:
            parts.brought_up(
                builders,
                lambda: Index(self.root, self.manifest),
                self.part_folder,
                lambda entries: self._publish_searchable(parts=entries),
                self._clock,
            )

    def _make_searchable(self, retriever: Retrieval, chunking: Chunking) -> None:
        # One after the other, so that neither is in memory with the other.
        faiss = self.manifest.faiss or (self._make_faiss() if retriever != "bm25" else None)
        terms = retriever not in manifest.WORDLESS
        files = self.manifest.bm25 or (self._make_bm25() if terms else ())
        self._publish_searchable(retriever=retriever, chunking=chunking, faiss=faiss, bm25=files)

    def _make_faiss(self) -> FileEntry | None:
        entry = self.manifest
        storage = parse(entry.storage)
        if entry.model is None or entry.passages == 0 or not storage.indexed(entry.passages):
            return None
        with self._clock(weight.FAISS), Index(self.root, entry) as index:
            return ann.build(self.root, f"faiss-{self._number()}.index", index.vectors, index.rows, storage.structure)

    def _store_as(self, storage: Storage) -> None:
        """Commits another storage, and shards of the kind that it keeps."""
        entry = self.manifest
        changes: dict[str, Any] = {}
        if entry.storage != str(storage):
            changes = {"storage": str(storage), "faiss": None}
        if not dataclasses.replace(entry, storage=str(storage)).settled:
            with self._clock(weight.VECTORS):
                with Index(self.root, entry) as index:
                    vectors, alive = index.vectors, index.rows
                codec, shards = stored.convert(self.root, vectors, alive, storage.rows, self._number)
            changes |= {"codec": codec, "shards": shards, "faiss": None}
        if changes:
            self._publish_searchable(**changes)

    def _copied(self, vectors: Vectors, rows: NDArray[np.int64]) -> Shard:
        """A shard of these rows as they are kept."""
        codec, name = vectors.codec, f"vectors/{self._number()}.npy"
        return write_shard(self.root, name, codec.columns, len(rows), vectors.code_blocks(rows), codec.dtype)

    def _make_bm25(self) -> tuple[FileEntry, ...]:
        if self.manifest.passages == 0:
            return ()
        with self._clock(weight.BM25), Index(self.root, self.manifest) as index:
            postings = bm25.build(searched_text(passage) for passage in index)
            return postings.save(self.root, f"bm25-{self._number()}")

    def _compact(self) -> None:
        """Writes everything alive into a new table and new shards, with rows numbered anew."""
        entry = self.manifest
        name = f"passages-{self._number()}.sqlite"
        with guarded(self.root):
            spans = self.table.copy_alive(self.root / name)
            sync_file(self.root / name)
            sync_folder(self.root)
        rows = np.concatenate([np.empty(0, np.int64), *(np.arange(first, first + n) for first, n in spans)])
        shards: list[Shard] = []
        if entry.model is not None:
            old = Vectors(self.root, entry.shards, stored.codec_of(self.root, entry))
            shards = [self._copied(old, rows[start : start + SHARD_ROWS]) for start in range(0, len(rows), SHARD_ROWS)]
        with Index(self.root, entry) as index:
            moved = [
                parts.restored(part).compact(index, part, rows[rows < part.rows], self.part_folder(part.kind))
                if part.rows
                else part
                for part in entry.parts
            ]
        self.table.close()
        self.table = TableWriter(self.root, name)
        moved = [dataclasses.replace(part, whole=None, of=None) for part in moved]  # of rows as they were numbered
        self._publish(table=name, rows=len(rows), shards=tuple(shards), parts=tuple(moved))

    def _publish(self, **changes: Any) -> None:
        """Commits, without the search structures, which belong to the state before; parts go on being of that."""
        entries = changes.get("parts", self.manifest.parts)
        changes["parts"] = tuple(part.older(self.manifest.commit) for part in entries)
        self._publish_searchable(**{"faiss": None, "bm25": (), **changes})

    def _publish_searchable(self, **changes: Any) -> None:
        entry = dataclasses.replace(
            self.manifest,
            commit=self.manifest.commit + 1,
            table_bytes=self.table.bytes,
            serial=self._serial,
            updated=_now(),
            version=_version(),
            seconds=weight.spent(self.manifest.seconds, self._spent),
            **changes,
        )
        with guarded(self.root):
            manifest.write(self.root, entry, self._name)
        self.manifest = entry
        self._spent.clear()

    @contextmanager
    def _clock(self, structure: str) -> Iterator[None]:
        """Adds to the seconds of a structure, which the next commit records."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._spent[structure] += time.perf_counter() - start

    def _number(self) -> str:
        self._serial += 1
        return f"{self._serial:06d}"


def sweep(root: Path, keep: Sequence[Manifest], *, pending: bool = False) -> None:
    """Deletes files of this index that no manifest lists; never a file of another kind. What resists stays.

    Args:
        root: The index folder.
        keep: The manifests whose files stay.
        pending: Whether the manifest of a rebuild under way stays.
    """
    names = {file.name for entry in keep for file in entry.files} | {entry.table for entry in keep}
    # A journal belongs to its table: SQLite itself removes it.
    names |= {f"{entry.table}-journal" for entry in keep} | {name.partition("/")[0] for name in names}
    for path in _ours(root):
        if path.relative_to(root).as_posix() not in names:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()
    for path in root.glob("part-*-*/*"):  # a folder stays as long as one of its files does
        name = path.relative_to(root).as_posix()
        if name not in names and manifest.is_name(name.removesuffix(TEMPORARY)):
            with suppress(OSError):
                path.unlink()
    leftovers = [manifest.NAME + TEMPORARY, manifest.PENDING + TEMPORARY, *([] if pending else [manifest.PENDING])]
    for name in leftovers:
        with suppress(OSError):
            (root / name).unlink()


def last_serial(root: Path) -> int:
    """The greatest number that a file in the folder has."""
    found = (_OURS.fullmatch(path.relative_to(root).as_posix()) for path in _ours(root))
    return max((int(next(filter(None, match.groups()))) for match in found if match), default=0)


def check_new(root: Path) -> None:
    """Makes sure that a folder is fit for a new index.

    Raises:
        StoreError: It holds something else.
    """
    own = {LOCK, "vectors", manifest.NAME, manifest.PENDING}
    own |= {name + TEMPORARY for name in own} | {path.name for path in _ours(root)}
    with guarded(root):
        others = sorted(path.name for path in root.iterdir() if path.name not in own) if root.exists() else []
    if others:
        raise StoreError(
            f"{root}: holds other files ({others[0]}) and no index.", hint="Name a new or empty folder for the index."
        )


def _ours(root: Path) -> list[Path]:
    found = [path for folder in (root, root / "vectors") if folder.is_dir() for path in folder.iterdir()]
    return [path for path in found if _OURS.fullmatch(path.relative_to(root).as_posix())]


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _version() -> str:
    try:
        return importlib.metadata.version("ragzip")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
