"""Sets of the Hugging Face hub, or of a local folder in a form that the ``datasets`` library reads."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ragzip.errors import IngestError, RagzipError, UsageError
from ragzip.evaluation.data.columns import as_record
from ragzip.evaluation.data.records import distinct, labels_of, parse_record, task_of
from ragzip.evaluation.record import DataSet, Record

VERSION = "1"
PREFIX = "hf:"

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(?::[\w.-]+){0,2}")
_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+)?")
_SPLITS = ("validation", "dev", "test", "train")
_SAME = {"dev": "validation", "validation": "dev"}


class HubName(NamedTuple):
    """``owner/name[:config][:split]``; "" where a part is not given."""

    path: str
    config: str = ""
    split: str = ""


def is_repository(spec: str) -> bool:
    """Whether a name has the form of a hub repository, ``owner/name[:config][:split]``."""
    return _REPOSITORY.fullmatch(spec) is not None


def parse_name(spec: str) -> HubName:
    """The parts of a name, with or without ``hf:``.

    One part after the repository is a split if it is called like one, else a configuration. An existing folder may
    stand in place of the repository.

    Raises:
        UsageError: It has another form.
    """
    path, *parts = spec.removeprefix(PREFIX).split(":")
    if not path or len(parts) > 2 or not all(parts):
        raise UsageError(f"{spec!r} is no data set name", hint="The form is hf:owner/name:config:split.")
    if len(parts) == 2:
        return HubName(path, *parts)
    if parts and parts[0] in _SPLITS:
        return HubName(path, "", parts[0])
    return HubName(path, *parts)


def read_hub(spec: str, split: str = "") -> DataSet:
    """A set through the ``datasets`` library; code that comes with a set is never run.

    Args:
        spec: ``hf:owner/name``, with ``:config`` and ``:split`` where needed; or a local folder after ``hf:``.
        split: The split, if ``spec`` names none; without either it is validation, dev, test or train, whichever is
            there first.

    Raises:
        UsageError: No such set, configuration or split, or the hub cannot be reached.
        IngestError: Rows whose columns are not known; says which row.
    """
    name = parse_name(spec)
    local = Path(name.path).expanduser()
    is_here = local.is_dir()
    shown = f"{PREFIX}{':'.join(part for part in (name.path, name.config) if part)}"
    if not is_here and not _NAME.fullmatch(name.path):
        raise UsageError(f"{name.path} is neither a folder nor owner/name on the hub")
    import datasets
    from datasets.exceptions import DatasetsError

    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        # A folder is streamed, and its locks lie elsewhere: nothing of it stays in the library's cache.
        with tempfile.TemporaryDirectory() as scratch:
            path = str(local) if is_here else name.path
            options: dict[str, Any] = {"cache_dir": scratch} if is_here else {}
            splits = datasets.get_dataset_split_names(path, name.config or None, **options)
            chosen = _choose(splits, one_split(name.split, split), shown)
            rows = datasets.load_dataset(path, name.config or None, split=chosen, streaming=is_here, **options)
            records = tuple(distinct(_records(rows, shown)))
    except RagzipError:
        raise
    except (OSError, ValueError, TypeError, RuntimeError, DatasetsError) as error:
        hint = "" if is_here else "Check the name and the network; a local file of records (.jsonl) needs neither."
        raise UsageError(f"{shown}: cannot be loaded: {_reason(error)}", hint=hint) from error
    finally:
        if not bars:
            datasets.enable_progress_bars()
    if not records:
        raise IngestError(f"{shown}:{chosen}: has no record")
    source = f"{shown}:{chosen}"
    split_name = "dev" if chosen == "validation" else chosen
    return DataSet(
        spec.removeprefix(PREFIX), records, VERSION, source, split_name, task_of(records), labels=labels_of(records)
    )


def _records(rows: Iterable[Any], shown: str) -> Iterator[tuple[str, Record]]:
    for number, row in enumerate(rows, 1):
        where = f"{shown}, row {number}"
        yield where, parse_record(as_record(row, where), where, number)


def _reason(error: Exception) -> str:
    """What an error says, on one line and without its middle where it is long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 400 else f"{text[:200]} ... {text[-200:]}"


def one_split(named: str, given: str) -> str:
    """The split of a name or of the argument beside it, "" where neither says.

    Raises:
        UsageError: They contradict each other.
    """
    if named and given and named != given:
        raise UsageError(f"the split is {named!r} in the name and {given!r} beside it", hint="Give it once.")
    return named or given


def _choose(splits: list[str], wanted: str, shown: str) -> str:
    if not wanted:
        return next((name for name in _SPLITS if name in splits), splits[0])
    for name in (wanted, _SAME.get(wanted, wanted)):
        if name in splits:
            return name
    raise UsageError(f"{shown} has no split {wanted!r}", hint=f"It has: {', '.join(splits)}.")
