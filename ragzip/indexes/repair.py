"""Mending what can be made again from the rest of an index: the search structures, and parts of retrievers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ragzip.errors import StoreDamaged
from ragzip.indexes import manifest, parts
from ragzip.indexes.files import FileEntry, checksum, rebuild_hint, unreadable, write_lock
from ragzip.indexes.graph.part import LOST, TRIPLES
from ragzip.indexes.index import Index
from ragzip.indexes.writer import Writer, sweep


@dataclass(frozen=True)
class RepairReport:
    """What was mended.

    Attributes:
        path: The index folder.
        damaged: Names of the files that were not what the manifest says.
        made_anew: What was made again: ``faiss``, ``bm25``, or the name of a retriever's part.
        lost: What stood in damaged files, now or in an earlier repair, and does not follow from passages and vectors;
            in words.
    """

    path: str
    damaged: tuple[str, ...]
    made_anew: tuple[str, ...]
    lost: tuple[str, ...] = ()


def repair(path: str | Path) -> RepairReport:
    """Reads every file of an index, and makes those again that are damaged and follow from the others.

    Raises:
        StoreDamaged: Passages or vectors are damaged, which nothing but the documents can mend.
        StoreError: There is no index, another process is indexing, or the disk is full.
    """
    root = Path(path)
    manifest.read(root)
    with write_lock(root):
        entry = manifest.read(root)
        _check_table(root, entry)
        wrong = {file.name for file in entry.files if _is_wrong(root, file)}
        lost = sorted(wrong & entry.given)
        if lost:
            raise StoreDamaged(f"{root / lost[0]}: vectors are damaged.", hint=rebuild_hint(root))
        if not wrong and entry.searchable:
            return RepairReport(str(root), (), (), tuple(_lost(root, entry)))
        builders = parts.wanted(entry.retriever, {}, entry.parts, root)
        sweep(root, (entry,))
        writer = Writer(root, entry, manifest.NAME)
        try:
            changed, made = _without(entry, wrong)
            writer.forget(faiss=changed.faiss, bm25=changed.bm25, parts=changed.parts)
            writer.finish(entry.retriever, builders=builders)
        finally:
            writer.close()
    return RepairReport(str(root), tuple(sorted(wrong)), made, tuple(_lost(root, changed)))


def _check_table(root: Path, entry: manifest.Manifest) -> None:
    """Passages are what everything else is made from.

    Raises:
        StoreDamaged: They are not what was stored.
    """
    path = root / entry.table
    if not path.is_file() or path.stat().st_size < entry.table_bytes:
        raise StoreDamaged(f"{path}: is missing or cut short.", hint=rebuild_hint(root))
    with Index(root, entry) as index:
        problems = index.table.check()
    if problems:
        raise StoreDamaged(f"{path}: {problems[0]}.", hint=rebuild_hint(root))


def _is_wrong(root: Path, file: FileEntry) -> bool:
    try:
        return checksum(root / file.name) != file.sha256
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return True
    except OSError as error:  # not the file's fault: what is made from it must not be thrown away
        raise unreadable(root / file.name, error) from error


def _lost(root: Path, entry: manifest.Manifest) -> Iterator[str]:
    for part in entry.parts:
        if LOST in part.settings:
            yield f"the facts of a language model; to have them found again: ragzip index triples {root} --model MODEL"


def _without(entry: manifest.Manifest, names: set[str]) -> tuple[manifest.Manifest, tuple[str, ...]]:
    """A manifest without what hangs on some files, and what that is."""
    made: list[str] = []
    if entry.faiss is not None and entry.faiss.name in names:
        entry = dataclasses.replace(entry, faiss=None)
        made.append("faiss")
    if any(file.name in names for file in entry.bm25):
        entry = dataclasses.replace(entry, bm25=())
        made.append("bm25")
    kept = []
    for part in entry.parts:
        if any(file.name in names for file in part.files):
            made.append(part.kind)
            fresh = parts.restored(part).without(part, names)
            lost = TRIPLES in part.settings or LOST in part.settings
            # remembered until they are found again: whoever stops a repair would not hear of it
            kept.append(dataclasses.replace(fresh, settings={**fresh.settings, LOST: True}) if lost else fresh)
        elif any(file.name in names for file in part.whole or ()):
            made.append(part.kind)
            kept.append(dataclasses.replace(part, whole=None, of=None))
        else:
            kept.append(part)
    return dataclasses.replace(entry, parts=tuple(kept)), tuple(made)
