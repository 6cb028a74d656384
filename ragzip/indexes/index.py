"""Reading an index: one commit of it, from any thread, whatever writers do meanwhile."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import RagzipError, StoreDamaged, StoreError, StoreMismatch, UsageError
from ragzip.indexes import ann, bm25, manifest
from ragzip.indexes.encoding import Encoder, check_model
from ragzip.indexes.files import mend_hint, rebuild_hint
from ragzip.indexes.filters import Condition, parse
from ragzip.indexes.manifest import Manifest, ModelEntry, PartEntry, StoreMoved
from ragzip.indexes.nearest import Nearest
from ragzip.indexes.ranking import NO_HITS, Hits
from ragzip.indexes.soundness import damage
from ragzip.indexes.storage import parse as parse_storage
from ragzip.indexes.stored import codec_of
from ragzip.indexes.table import IndexedDocument, Table, from_row
from ragzip.indexes.text import searched_text
from ragzip.indexes.vectors import Vectors
from ragzip.types import Passage

T = TypeVar("T")
_MOST_FILTERS = 32
_TRIES = 20


class Index:
    """One commit of an index folder.

    Opening reads the manifest and looks at the sizes of the files; tables and vectors are opened on first use.
    A writer that commits meanwhile does not disturb it; one that replaces files not opened yet makes it raise
    ``StoreMoved``: open the index again.

    Attributes:
        path: The folder.
        manifest: What the index says of itself.
    """

    def __init__(self, path: Path, entry: Manifest) -> None:
        self.path = path
        self.manifest = entry
        self._lock = threading.RLock()
        self._table: Table | None = None
        self._rows: NDArray[np.int64] | None = None
        self._vectors: Vectors | None = None
        self._ann: ann.Ann | None = None
        self._postings: bm25.Postings | None = None
        self._checked: Encoder | None = None
        self._parts: dict[str, Any] = {}
        self._allowed: dict[tuple[str, ...], NDArray[np.int64]] = {}

    @classmethod
    def open(cls, path: str | Path, *, model: str | None = None, contents: bool = True) -> Self:
        """Opens the last commit of an index.

        Args:
            path: The index folder.
            model: The encoder it must have been made with, or None for any.
            contents: Whether to check more than the sizes of its files; ``verify`` does that itself.

        Raises:
            StoreError: There is no index.
            StoreMismatch: Another format version, or another model.
            StoreDamaged: A file is missing, or not what the manifest says; of large indexes only the size is looked at.
        """
        root = Path(path)
        for _ in range(_TRIES):
            entry = manifest.read(root)
            damaged = damage(root, entry, contents=contents)
            if damaged is None:
                break
            if not _moved(root, entry):
                raise damaged
        else:
            raise StoreMoved(f"{root}: is being rewritten all the time.", hint="Try again in a moment.")
        found = entry.model.name if entry.model else None
        if model is not None and model != found:
            raise StoreMismatch(
                f"{root}: made with {found or 'no model (bm25)'}, not with {model}.",
                hint=f"Use that model, or make it anew. {rebuild_hint(root)}",
            )
        return cls(root, entry)

    def close(self) -> None:
        """Gives the files back; the index opens them again when used again."""
        with self._lock:
            if self._table is not None:
                self._table.close()
            self._table = self._rows = self._vectors = self._ann = self._postings = None
            self._parts.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Passages alive."""
        return self.manifest.passages

    def model_name(self) -> str:
        """What ``load_encoder`` takes to encode questions for this index.

        Raises:
            StoreMismatch: The index has no vectors.
        """
        return self._model().name

    def check_model(self, encoder: Encoder) -> None:
        """Makes sure that an encoder is the one the vectors come from.

        Raises:
            StoreMismatch: It is not; says which is which.
        """
        entry = self._model()
        if self._checked is encoder:
            return
        hint = f"Get the model it was made with, or make it anew. {rebuild_hint(self.path)}"
        check_model(entry, encoder.name, encoder.fingerprint, where=str(self.path), hint=hint)
        self._checked = encoder

    def search_vectors(self, queries: NDArray[np.float32], k: int, filters: Sequence[str] = ()) -> list[Hits]:
        """The passages whose vectors have the greatest inner product with each query.

        Exact for the vectors as they are kept below 100,000 passages and wherever filters apply; above, and where the
        index's storage says so, a compressed index finds the candidates. Scores are those of the vectors that are
        kept, always. One query's result does not depend on the others.

        Args:
            queries: ``[n, dimensions]``, finite.
            k: How many at most for each.
            filters: As ``ragzip.indexes.filters`` describes.

        Raises:
            StoreMismatch: The index has no vectors, or of another width.
            UsageError: Queries that are not finite, or not a matrix.
            ConfigError: A filter that is none.
        """
        allowed = self.rows_where(filters) if filters else None
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        model = self._model()
        if queries.ndim != 2 or not np.isfinite(queries).all():
            raise UsageError(
                f"{self.path}: queries of shape {queries.shape} are no matrix of finite numbers.",
                hint=f"Check what {model.name} gives for a question.",
            )
        if queries.shape[1] != model.dimensions:
            raise StoreMismatch(
                f"{self.path}: vectors are {model.dimensions} wide, the query's {queries.shape[1]}.",
                hint=f"Encode with {model.name}.",
            )
        if k < 1 or len(self) == 0 or (allowed is not None and len(allowed) == 0):
            return [NO_HITS for _ in queries]
        return [self._nearest(query, k, allowed) for query in queries]

    def search_terms(self, texts: Sequence[str], k: int, filters: Sequence[str] = ()) -> list[Hits]:
        """The passages that share terms with each text, by BM25; those that share none are left out.

        Args:
            texts: Questions.
            k: How many at most for each.
            filters: As ``ragzip.indexes.filters`` describes.

        Raises:
            ConfigError: A filter that is none.
        """
        allowed = np.searchsorted(self.rows, self.rows_where(filters)).astype(np.int64) if filters else None
        if k < 1 or len(self) == 0:
            return [NO_HITS for _ in texts]
        postings = self.postings
        found = [postings.search(text, k, allowed) for text in texts]
        return [Hits(self.rows[hits.rows], hits.scores) for hits in found]

    def passages(
        self, rows: Sequence[int] | NDArray[np.int64], scores: Sequence[float] | NDArray[np.float32] | None = None
    ) -> list[Passage]:
        """The passages of these rows, in this order.

        Args:
            rows: As searches give them.
            scores: One for each, to be set on the passages.

        Raises:
            KeyError: There is no such row.
        """
        wanted = [int(row) for row in rows]
        found = self.table.some(wanted)
        values = [None] * len(wanted) if scores is None else [float(score) for score in scores]
        return [from_row(found[row], score) for row, score in zip(wanted, values, strict=True)]

    def passage(self, passage_id: str) -> Passage:
        """The passage with this id.

        Raises:
            KeyError: There is none.
        """
        row = self.table.find(passage_id)
        if row is None:
            raise KeyError(passage_id)
        return from_row(row)

    def documents(self) -> list[IndexedDocument]:
        """Every document, sorted by source."""
        return sorted((found[0] for found in self.table.documents()), key=lambda document: document.source)

    def __iter__(self) -> Iterator[Passage]:
        """Every passage, in row order, a page at a time."""
        return map(from_row, self.table.alive())

    # What is opened late.

    @property
    def table(self) -> Table:
        """The passage table at this commit."""
        with self._lock, self._opening():
            if self._table is None:
                entry = self.manifest
                self._table = Table(self.path, entry.table, entry.id, entry.commit, entry.rows)
            return self._table

    @property
    def rows(self) -> NDArray[np.int64]:
        """The rows alive, ascending, ``[passages]``: position to row."""
        with self._lock:
            if self._rows is None:
                self._rows = self._alive()
            return self._rows

    @property
    def vectors(self) -> Vectors:
        """All vectors, dead ones included, ``[rows, dimensions]``."""
        with self._lock, self._opening():
            if self._vectors is None:
                self._vectors = Vectors(self.path, self.manifest.shards, codec_of(self.path, self.manifest))
            return self._vectors

    @property
    def postings(self) -> bm25.Postings:
        """The term index; built in memory where the commit has none, because its writer was stopped."""
        with self._lock, self._opening():
            if self._postings is None:
                if self.manifest.bm25:
                    self._postings = bm25.load(self.path, self.manifest.bm25, len(self))
                else:
                    self._postings = bm25.build(searched_text(passage) for passage in self)
            return self._postings

    def part(self, kind: str) -> PartEntry:
        """What the manifest says of a part that can be searched: of this commit, or of an earlier one.

        Raises:
            StoreMismatch: The index was made without it.
            StoreError: Its writer was stopped before it was ever done.
        """
        found = next((entry for entry in self.manifest.parts if entry.kind == kind), None)
        again = f"ragzip index PATH... --index {self.path} --retriever {kind}"
        if found is None:
            raise StoreMismatch(f"{self.path}: was made without what {kind} needs.", hint=f"Add it: {again}")
        if found.whole is None:
            what = f"{self.path}: indexing was stopped before {kind} was done, or is still at it."
            raise StoreError(what, hint=f"Go on: {again}")
        return found

    def rows_of(self, entry: PartEntry) -> NDArray[np.int64]:
        """The rows that the ``whole`` of a part is of, ascending; some may be gone since."""
        if entry.of is None:
            return self.rows
        now = self.manifest
        table = Table(self.path, now.table, now.id, entry.of, 0)
        try:
            return _rows(table.intervals())
        finally:
            table.close()

    def opened(self, kind: str, opener: Callable[[Self, PartEntry], T]) -> T:
        """A part, opened once until this index is closed.

        Args:
            kind: Its name.
            opener: Opens it; what it raises for a missing or damaged file is told as for the index's own.

        Raises:
            StoreError: As ``part``.
        """
        with self._lock, self._opening():
            if kind not in self._parts:
                entry = self.part(kind)
                try:
                    self._parts[kind] = opener(self, entry)
                except (ValueError, KeyError, IndexError, TypeError) as error:
                    what = f"{self.path}: what {kind} needs is damaged: {error!r}."
                    raise StoreDamaged(what, hint=mend_hint(self.path)) from error
            found: T = self._parts[kind]
            return found

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """Tells files that a writer replaced from files that are missing."""
        try:
            yield
        except (FileNotFoundError, StoreDamaged) as error:
            if _moved(self.path, self.manifest):
                raise StoreMoved(f"{self.path}: was rewritten since it was opened.", hint="Open it again.") from error
            if isinstance(error, RagzipError):
                raise
            raise StoreDamaged(f"{self.path}: a file is missing: {error}.", hint=rebuild_hint(self.path)) from error

    def _model(self) -> ModelEntry:
        if self.manifest.model is None:
            raise StoreMismatch(
                f"{self.path}: was made for bm25 and has no vectors.",
                hint=f"Search it with bm25, or make it with vectors. {rebuild_hint(self.path)}",
            )
        return self.manifest.model

    def _alive(self) -> NDArray[np.int64]:
        entry = self.manifest
        if entry.passages == entry.rows:
            return np.arange(entry.rows, dtype=np.int64)
        return _rows(self.table.intervals())

    def _nearest(self, query: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None) -> Hits:
        if allowed is not None or self.manifest.faiss is None:
            return self.vectors.search(query, k, self.rows if allowed is None else allowed)
        with self._lock, self._opening():
            if self._ann is None:
                deep = parse_storage(self.manifest.storage).structure is not None
                self._ann = ann.Ann(self.path, self.manifest.faiss, len(self), self.vectors.codec.width, deep=deep)
            nearest = Nearest(self.vectors, self.rows, self._ann)
        return nearest.search(query, k)

    def rows_where(self, filters: Sequence[str]) -> NDArray[np.int64]:
        """The rows alive that pass filters, ascending; remembered, because a component asks with the same each time.

        Raises:
            ConfigError: A filter that is none.
        """
        key = tuple(filters)
        conditions = parse(key)
        with self._lock:
            found = self._allowed.get(key)
            if found is None:
                passing = [
                    row
                    for row, passage_id, title, _, metadata in self.table.alive(text=False)
                    if _passes(conditions, json.loads(metadata), {"id": passage_id, "title": title})
                ]
                found = np.array(passing, dtype=np.int64)
                while len(self._allowed) >= _MOST_FILTERS:
                    self._allowed.pop(next(iter(self._allowed)))
                self._allowed[key] = found
            return found


def _rows(spans: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of documents ``[documents, 2]``: where each begins, and how many it has."""
    counts = spans[:, 1]
    # Each document's rows are consecutive: its first row, plus how far into the document.
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    rows: NDArray[np.int64] = np.repeat(spans[:, 0], counts) + offsets
    return rows


def _passes(conditions: Sequence[Condition], metadata: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    return all(condition.holds(metadata, own) for condition in conditions)


def _moved(root: Path, entry: Manifest) -> bool:
    """Whether another commit has taken the place of this one."""
    try:
        now = manifest.read(root)
    except StoreError:
        return False
    return (now.id, now.commit) != (entry.id, entry.commit)
