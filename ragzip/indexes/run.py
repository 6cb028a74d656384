"""The state of one indexing run: what came, what waits for the next commit, and what it all took."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ragzip.errors import ConfigError, StoreError, StoreMismatch
from ragzip.indexes import manifest, parts, sparing, stored
from ragzip.indexes.encoding import Encoder, LazyEncoder, Progress, check_model
from ragzip.indexes.files import rebuild_hint
from ragzip.indexes.manifest import Chunking, Manifest, PartEntry, Retrieval
from ragzip.indexes.report import BuildReport
from ragzip.indexes.soundness import damage
from ragzip.indexes.storage import AUTO, parse
from ragzip.indexes.table import clean
from ragzip.indexes.table_writer import NewDocument
from ragzip.indexes.vectors import Matrix
from ragzip.indexes.writer import Writer, check_new, sweep
from ragzip.ingest import LOADER_VERSION, Document, Skipped, Unchanged, chunk
from ragzip.models import EMBEDDER
from ragzip.types import Passage

DEFAULT_RETRIEVER: Retrieval = "fusion"
DEFAULT_TOKENS = 180
DEFAULT_OVERLAP = 30
_LEAST_TOKENS = 16
_MOST_WAITING = 4096

Item = Document | Skipped | Unchanged
IsKnown = Callable[[str, str], bool]
"""``known(source, raw_hash)``: whether the index holds just this file, cut as it would be cut now."""


@dataclass(frozen=True)
class Options:
    """As ``build`` takes them; None stands for what the index has, or for the default."""

    retriever: Retrieval | None
    model: str | None
    tokens: int | None
    overlap: int | None
    commit_passages: int
    rebuild: bool
    settings: Mapping[str, Any]
    storage: str | None = None
    spare: bool = False

    def __post_init__(self) -> None:
        if self.retriever is not None and self.retriever not in get_args(Retrieval):
            raise ConfigError(
                "retriever", f"unknown kind {self.retriever!r}", hint=f"Known: {', '.join(get_args(Retrieval))}."
            )
        if self.storage is not None:
            parse(self.storage)
        for name, value, least in (
            ("tokens", self.tokens, _LEAST_TOKENS),
            ("overlap", self.overlap, 0),
            ("commit_passages", self.commit_passages, 1),
        ):
            if value is not None and value < least:
                raise ConfigError(name, f"must be at least {least}, not {value}")


class Run:
    """One call of ``build``.

    Args:
        root: The index folder.
        options: As given.
        encoder: As given.
        on_progress: As given.
    """

    def __init__(self, root: Path, options: Options, encoder: Encoder | None, on_progress: Progress | None) -> None:
        self._root, self._options = root, options
        self._given, self._on_progress = encoder, on_progress
        self._writer: Writer | None = None
        self._beside: Manifest | None = None
        self._ready = False
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._counts: Counter[str] = Counter()
        self._skipped: list[Skipped] = []
        self._came: set[str] = set()  # roots that said something
        self._waiting, self._waiting_passages = list[NewDocument](), 0
        self._waiting_roots: list[tuple[str, str]] = []
        self._renewed: list[tuple[str, int]] = []

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Adds to a stage's time."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] += time.perf_counter() - start

    def timed(self, items: Iterator[Item]) -> Iterator[Item]:
        """The items, with the time it takes to get them counted as reading."""
        while True:
            with self.clock("read"):
                item = next(items, None)
            if item is None:
                return
            yield item

    def is_known(self, source: str, raw_hash: str) -> bool:
        """Whether the index holds just this file, cut as it would be cut now."""
        if self._writer is None or not raw_hash:
            return False
        found = self._writer.table.known(clean(source), "")
        return found is not None and (found.raw_hash, found.recipe) == (raw_hash, self._chunking.recipe)

    def start(self) -> None:
        """Opens what there is, under the lock.

        Raises:
            StoreError: It does not go with the options, or is damaged.
        """
        root, options = self._root, self._options
        there = manifest.exists(root)
        if not options.rebuild:
            entry = manifest.read(root) if there else None
            self._settle(entry)
            held = entry.parts if entry is not None else ()
            self._parts = parts.wanted(self._retriever, options.settings, held, root)
            if entry is None:
                check_new(root)
                self._check_parts(held)
                sweep(root, ())
                return
            if damaged := damage(root, entry):
                raise damaged
            self._check(entry)
            self._check_parts(held)
            stored.check_change(root, entry, self._storage)
            sweep(root, (entry,))
            self._writer = Writer(root, entry, manifest.NAME)
            return
        self._beside = _readable(root, manifest.NAME) if there else None
        pending = _readable(root, manifest.PENDING)
        before = self._beside or pending
        self._settle(before)
        held = before.parts if before is not None else ()
        if options.retriever is not None:  # what another retriever needed is not made again
            held = tuple(part for part in held if part.kind == options.retriever)
        self._parts = parts.wanted(self._retriever, options.settings, held, root, anew=True)
        self._check_parts(())
        if not there:
            check_new(root)
        pending = pending if pending is not None and self._resumable(pending) else None
        if self._beside is not None or not there:
            keep = [entry for entry in (self._beside, pending) if entry is not None]
            sweep(root, keep, pending=pending is not None)
        if pending is not None:
            self._writer = Writer(root, pending, manifest.PENDING, self._beside)

    def _check_parts(self, held: Sequence[PartEntry]) -> None:
        """What parts are made from has to be here, where they are not begun: encoding comes first and takes long."""
        begun = {entry.kind for entry in held if entry.rows}
        for builder in self._parts:
            if builder.kind not in begun:
                builder.ready(self._encoder)

    def _settle(self, before: Manifest | None) -> None:
        """Fills in what the caller left open."""
        options = self._options
        self._retriever: Retrieval = options.retriever or (before.retriever if before else DEFAULT_RETRIEVER)
        named = before.model.name if before and before.model else EMBEDDER
        name = "" if self._retriever == "bm25" else options.model or named
        if (given := [o for o in ("storage", "model") if getattr(options, o) is not None]) and not name:
            raise ConfigError(given[0], "bm25 has no vectors", hint="Leave it out.")
        self._storage = parse((options.storage or (before.storage if before else AUTO)) if name else AUTO)
        self._encoder = LazyEncoder(name, self._given, self._on_progress)
        tokens = options.tokens or (before.chunking.tokens if before else DEFAULT_TOKENS)
        overlap = options.overlap
        if overlap is None:
            same = before is not None and before.chunking.tokens == tokens
            overlap = before.chunking.overlap if before and same else min(DEFAULT_OVERLAP, tokens // 6)
        if overlap > tokens // 2:
            raise ConfigError("overlap", f"must be at most half of the {tokens} tokens of a passage, not {overlap}")
        self._chunking = Chunking(tokens, overlap, "model" if name else "words", LOADER_VERSION)

    def _check(self, entry: Manifest) -> None:
        mine, its = self._encoder.name, entry.model.name if entry.model else ""
        if bool(mine) != bool(its):
            raise StoreMismatch(
                f"{self._root}: made for {entry.retriever}, {'with' if its else 'without'} vectors, not for"
                f" {self._retriever}.",
                hint=f"Use --retriever {entry.retriever}, or make it anew with --rebuild.",
            )
        if mine != its:
            # Another name may be the same model: its fingerprint decides.
            self._check_model(entry)

    def _check_model(self, entry: Manifest) -> None:
        if entry.model is None:
            return
        hint = f"Index with --model {entry.model.name}, or make it anew. {rebuild_hint(self._root)}"
        mine = self._encoder
        check_model(entry.model, mine.name, mine.fingerprint, where=str(self._root), hint=hint)

    def _resumable(self, pending: Manifest) -> bool:
        """Whether a rebuild that was stopped is this one."""
        same = (pending.model.name if pending.model else "") == self._encoder.name
        if not same or pending.chunking != self._chunking or not (self._root / pending.table).is_file():
            return False
        if not all(parts.restored(entry) in self._parts for entry in pending.parts):
            return False
        try:
            self._check_model(pending)
            stored.check_change(self._root, pending, self._storage)
        except StoreMismatch:
            return False
        return True

    def take(self, item: Item) -> None:
        """Deals with one thing that the loader gave."""
        if isinstance(item, Skipped):
            self._skip(item)
            return
        source, root = clean(item.source), clean(item.root)
        self._came.add(root)
        writer = self._writer or self._create()
        with self.clock("store"):
            first = writer.table.see(source)
            known = writer.table.known(source, root) if first else None
        if not first:
            reason = "another document of this run has the same source; the first one counts"
            self._skipped.append(Skipped(item.source, reason, item.root))
            return
        if isinstance(item, Unchanged):
            if known is None or (known.raw_hash, known.recipe) != (item.raw_hash, self._chunking.recipe):
                raise StoreError(f"{self._root}: {source} was given as unchanged, but is not known as such.")
            content_hash = known.content_hash
        else:
            with self.clock("read"):
                content_hash = item.content_hash
        recipe = self._chunking.recipe
        if known is not None and (known.content_hash, known.recipe) == (content_hash, recipe):
            self._counts["unchanged"] += 1
            if known.raw_hash != item.raw_hash:
                self._renewed.append((item.raw_hash, known.number))
            if not known.rooted:
                self._waiting_roots.append((source, root))
        elif isinstance(item, Document):
            self._counts["updated" if known else "added"] += 1
            passages = self._chunk(item)
            self._waiting_passages += len(passages)
            self._waiting.append(
                NewDocument(
                    source, clean(item.title), content_hash, item.raw_hash, recipe, root, passages,
                    replaces=known.number if known else None,
                )
            )  # fmt: skip
        if (
            self._waiting_passages >= self._options.commit_passages
            or len(self._waiting) + len(self._waiting_roots) >= _MOST_WAITING
        ):
            self.flush()

    def _skip(self, item: Skipped) -> None:
        self._skipped.append(item)
        if item.gone:
            self._came.add(clean(item.root))
        elif self._writer is not None:
            with self.clock("store"):
                self._writer.table.keep(clean(item.source))

    def _create(self) -> Writer:
        """Makes the index, now that there is something to put into it."""
        self._prepare(None)
        with self.clock("store"):
            self._writer = Writer.create(
                self._root,
                manifest.PENDING if self._options.rebuild else manifest.NAME,
                retriever=self._retriever,
                model=self._encoder.entry(),
                chunking=self._chunking,
                beside=self._beside,
                storage=str(self._storage),
            )
        return self._writer

    def _prepare(self, entry: Manifest | None) -> None:
        """Before the first passage is made: is the encoder the index's, and does it read passages whole?"""
        if self._ready:
            return
        if self._encoder.name:
            with self.clock("load"):
                most = self._encoder.encoder.max_tokens
            self._storage.check(self._encoder.encoder.dimensions)
            if entry is not None:
                self._check_model(entry)
            if self._chunking.tokens > most:
                raise ConfigError(
                    "tokens",
                    f"passages of {self._chunking.tokens} are more than {self._encoder.name} reads ({most})",
                    hint=f"Use {most} or less, or an encoder with a longer window.",
                )
        self._ready = True

    def _chunk(self, document: Document) -> list[Passage]:
        self._prepare(self._writer.manifest if self._writer else None)
        text, title, source = clean(document.text), clean(document.title), clean(document.source)
        # "is": cleaning gives back the very string where there was nothing to clean.
        if text is not document.text or title is not document.title or source is not document.source:
            document = dataclasses.replace(document, text=text, title=title, source=source)
        with self.clock("chunk"):
            return chunk(
                document,
                tokens=self._chunking.tokens,
                overlap=self._chunking.overlap,
                count_tokens=self._encoder.count_tokens,
            )

    def flush(self) -> None:
        """Encodes and commits what waits."""
        writer = self._writer
        if writer is None or not (self._waiting or self._waiting_roots):
            return
        documents, roots = self._waiting, self._waiting_roots
        self._waiting, self._waiting_passages, self._waiting_roots = [], 0, []
        before = self._seconds["encode"]
        start = time.perf_counter()
        writer.store(documents, roots, lambda: self._encode(documents))
        self._seconds["store"] += time.perf_counter() - start - (self._seconds["encode"] - before)
        self._counts["written"] += sum(len(document.passages) for document in documents)

    def _encode(self, documents: Sequence[NewDocument]) -> Iterator[Matrix]:
        passages = [passage for document in documents for passage in document.passages]
        # Even slices of one to two batches: a document of any length is encoded in bounded memory, and none is tiny.
        slices = max(1, len(passages) // self._options.commit_passages)
        blocks = self._encoder.vectors(passages, -(-len(passages) // slices))
        while True:
            with self.clock("encode"):
                block = next(blocks, None)
            if block is None:
                return
            yield block

    def end(self, roots: Sequence[str]) -> BuildReport:
        """Removes what is gone, makes the index fast to search, and says what happened.

        Args:
            roots: Under which documents that did not come are gone.
        """
        removed = 0
        writer = self._writer
        if writer is not None:
            with self.clock("finish"):
                if self._renewed:
                    with writer.table.transaction():
                        writer.table.renew(self._renewed)
                if self._options.spare:
                    roots = self._heard(writer, roots)
                if self._options.rebuild:
                    removed = writer.drop(writer.table.unseen(None))
                elif roots:
                    removed = writer.drop(writer.table.unseen([clean(root) for root in roots]))
                writer.finish(self._retriever, self._chunking, self._parts, self._storage, self._encoder.name)
        now = writer.manifest if writer is not None else None
        return BuildReport(
            str(self._root),
            added=self._counts["added"],
            updated=self._counts["updated"],
            unchanged=self._counts["unchanged"],
            removed=removed,
            documents=now.documents if now else 0,
            passages=now.passages if now else 0,
            written=self._counts["written"],
            skipped=tuple(self._skipped),
            seconds={stage: round(seconds, 6) for stage, seconds in self._seconds.items()},
        )

    def _heard(self, writer: Writer, roots: Sequence[str]) -> list[str]:
        """The roots under which what did not come is gone; of the silent ones it stays, and is said to."""
        silent = sparing.silent(writer, roots, self._came)
        if (silent or self._options.rebuild) and not self._came:
            raise sparing.refused(str(self._root), roots, self._skipped)
        self._skipped += sparing.spared(silent)
        return [root for root in roots if root not in silent]

    def close(self) -> None:
        """Gives the table back; what waits for a commit is dropped."""
        if self._writer is not None:
            self._writer.close()


def _readable(root: Path, name: str) -> Manifest | None:
    try:
        return manifest.read(root, name)
    except StoreError:
        return None
