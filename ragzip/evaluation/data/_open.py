"""Finds the set a name or path means, and reads it."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ragzip.errors import IngestError, UsageError
from ragzip.evaluation.data import hub
from ragzip.evaluation.data._folder import VARIABLE, data_dir, looked_at
from ragzip.evaluation.data.beir import is_beir, read_beir
from ragzip.evaluation.data.records import SUFFIXES, distinct, is_records, read_records
from ragzip.evaluation.data.sets import SETS, NamedSet, Wanted
from ragzip.evaluation.record import DataSet, Task
from ragzip.registry import suggest

_NAME = re.compile(r"(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]*)(?:@(?P<size>\d{1,6}))?(?::(?P<split>[A-Za-z0-9_.-]+))?")
_WHERE = f"Name the folder with --data-dir DIR or {VARIABLE}."


class Source(NamedTuple):
    """One line of a listing of the named sets."""

    name: str
    splits: tuple[str, ...]
    task: Task
    description: str


def set_names() -> list[str]:
    """The names that ``open_set`` knows in the data folder."""
    return list(SETS)


def sources() -> list[Source]:
    """All named sets, whether their files are here or not."""
    return [Source(found.name, found.splits, found.task, found.description) for found in SETS.values()]


def open_set(spec: str, *, data: Path | None = None, split: str | None = None) -> DataSet:
    """Reads a set.

    Args:
        spec: In this order: a file of records (``.jsonl``, ``.jsonl.gz``); a BEIR folder, with ``:split`` after it
            where it has several; the folder of a named set; a name of the data folder, as ``squad``, ``squad:train``
            or ``nq_multidoc@20``; a name of the hub, ``hf:owner/name:config:split`` or ``owner/name``.
        data: The data folder; else see ``data_dir``.
        split: The split, if ``spec`` names none; the default is a set's development split where it has one.

    Raises:
        UsageError: Nothing of that name, or not this split of it; says what there is.
        IngestError: A file that is not in its form, with file and line; or a set without records.
    """
    if not spec.strip():
        raise UsageError("no data set is named", hint=suggest("", set_names()))
    if spec.startswith(hub.PREFIX):
        return hub.read_hub(spec, split or "")
    try:
        return _open(spec, data, split or "")
    except OSError as error:  # a name too long, a folder that may not be listed
        raise UsageError(f"{spec[:200]}: cannot be read: {error.strerror or error}") from error


def _open(spec: str, data: Path | None, split: str) -> DataSet:
    """As ``open_set``, for what is not marked as a name of the hub."""
    found = _from_path(spec, split) or _from_set_folder(spec, split) or _from_name(spec, data, split)
    if found is not None:
        return found
    path = _path(spec)
    if path.exists():
        problem = "is no BEIR folder (corpus.jsonl, queries.jsonl, qrels)" if path.is_dir() else "is no .jsonl file"
        raise UsageError(f"{spec} {problem}", hint=f"hf:{spec} reads it as a data set of the hub's form.")
    if is_records(path) or path.is_absolute() or spec.startswith((".", "~")):
        raise UsageError(f"{spec} does not exist", hint="A set is a file of records, a BEIR folder, or a name.")
    if hub.is_repository(spec):
        return hub.read_hub(spec, split)
    raise UsageError(f"unknown data set {spec!r}", hint=suggest(spec, set_names()))


def _from_path(spec: str, split: str) -> DataSet | None:
    """The set of a file or folder, or None where the path is neither."""
    path = _path(spec)
    if path.is_file() and is_records(path):
        if split:
            raise UsageError(f"{spec} is one file and has no splits", hint="Leave the split out.")
        return read_records(path)
    if path.is_dir():
        return read_beir(path, split) if is_beir(path) else None
    folder, colon, named = spec.rpartition(":")
    if colon and folder and not os.path.lexists(path) and is_beir(_path(folder)):
        return read_beir(_path(folder), hub.one_split(named, split))
    return None


def _from_set_folder(spec: str, split: str) -> DataSet | None:
    """The named set of a folder that is called as it, or None: the data folder need not be named then."""
    folder, colon, named = spec.rpartition(":")
    path, wanted = (_path(folder), hub.one_split(named, split)) if colon and folder else (_path(spec), split)
    if os.sep not in spec or not path.is_dir() or path.name not in SETS:
        return None
    place = path.absolute().parent
    return _read(SETS[path.name], place, place, wanted, 0)


def _from_name(spec: str, data: Path | None, split: str) -> DataSet | None:
    """The set of this name in the data folder, or None where there is none."""
    parts = _NAME.fullmatch(spec)
    if parts is None:
        return None
    name, size = parts["name"], int(parts["size"] or 0)
    folder = data_dir(data)
    wanted = hub.one_split(parts["split"] or "", split)
    if name in SETS:
        return _read(SETS[name], folder, data, wanted, size)
    if folder is None or size:
        return None
    own = folder / name
    if is_beir(own):
        return replace(read_beir(own, wanted), name=spec)
    file = next((path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()), None)
    return read_records(file) if file is not None and not wanted else None


def _read(named: NamedSet, folder: Path | None, data: Path | None, split: str, size: int) -> DataSet:
    split = split or named.splits[0]
    if split not in named.splits:
        raise UsageError(f"{named.name} has no split {split!r}", hint=f"It has: {', '.join(named.splits)}.")
    if size and not 1 <= size <= named.most:
        problem = f"needs a number of passages from 1 to {named.most}" if named.most else "takes no number of passages"
        raise UsageError(f"{named.name}@{size}: {named.name} {problem}")
    if folder is None:
        tried = ", ".join(str(place) for place in looked_at(data))
        raise UsageError(f"{named.name!r} is a set of the data folder, which is not at {tried}", hint=_WHERE)
    wanted = Wanted(folder, split, size or named.size)
    try:
        records, corpus = named.read(wanted)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise IngestError(
            f"{folder}: the files of {named.name!r} are not in the form they should have ({problem})",
            hint="See the README of the data folder; or convert the set to a file of records.",
        ) from error
    shown = named.name + (f"@{size}" if size and size != named.size else "")
    shown += f":{split}" if split != named.splits[0] else ""
    checked = tuple(distinct((f"{folder} ({shown}), record {n}", record) for n, record in enumerate(records, 1)))
    if not checked:
        raise IngestError(f"{folder}: the set {shown!r} has no record")
    return DataSet(shown, checked, named.version, str(folder), split, named.task, tuple(corpus), named.labels)


def _path(spec: str) -> Path:
    try:
        return Path(spec).expanduser()
    except RuntimeError:  # ~name of nobody
        return Path(spec)
