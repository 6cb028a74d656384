"""Files of records: JSON lines and CSV, one document a record, streamed.

The text is the first of the fields ``text``, ``contents``, ``content``, ``body``, ``passage``, ``abstract``; a CSV
file with none of these is read as ``column: value`` lines. ``title`` is the title, ``id`` (or ``_id``, ``doc_id``,
``docid``) goes into the source, everything else becomes metadata. A bad record is skipped, and the next is read.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ragzip.ingest.decode import whole
from ragzip.ingest.document import Document, Skipped
from ragzip.ingest.formats._rows import Feed, header_of, rows
from ragzip.ingest.formats.content import on_one_line, reason
from ragzip.ingest.formats.lines import Line

TEXT_FIELDS = ("text", "contents", "content", "body", "passage", "abstract")
ID_FIELDS = ("id", "_id", "doc_id", "docid")
_KNOWN = frozenset((*TEXT_FIELDS, *ID_FIELDS, "title"))
RESERVED = frozenset({"source", "start", "end", "section", "page"})
"""Metadata that passages write themselves; a field of this name is kept with an underscore after it."""

_LONGEST_ID = 200
_LONGEST_VALUE = 256


def read_jsonl(lines: Iterable[Line], source: str, root: str) -> Iterator[Document | Skipped]:
    """One document a line; empty lines are passed over."""
    names = _Names(source)
    for line in lines:
        where = f"{source}:{line.number}"
        if line.problem:
            yield Skipped(where, line.problem, root)
        elif line.text.strip():
            record = _parse(line.text)
            if isinstance(record, str):
                yield Skipped(where, record, root)
            else:
                yield _document(record, names, line.number, where, root)


def mostly_jsonl(text: str) -> bool:
    """Whether the first line that is not empty is a JSON object, and so are half of them at least.

    A stream that broke off within a line is still one of records.
    """
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines or isinstance(_parse(lines[0]), str):
        return False
    whole_ones = sum(line.lstrip()[0] == "{" and not isinstance(_parse(line), str) for line in lines)
    return 2 * whole_ones >= len(lines)


def _parse(text: str) -> dict[str, Any] | str:
    try:
        # What JSON has no word for (NaN, Infinity) some writers use for "nothing".
        record = json.loads(text, parse_constant=lambda _: None)
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:
        return f"not JSON: {reason(error)}"
    return record if isinstance(record, dict) else f"a JSON {type(record).__name__}, not an object"


def read_csv(lines: Iterable[Line], source: str, root: str, *, tabs: bool) -> Iterator[Document | Skipped]:
    """One document a row; the first row names the columns unless it looks like data.

    Comma, semicolon or bar, whichever the first line has most of. Tab-separated files know no quotes around line
    ends: quotes around a whole field are taken off, all others are text.
    """
    names = _Names(source)
    feed = Feed(lines)
    header: list[str] | None = None
    for row in rows(feed, tabs):
        where = f"{source}:{feed.first}"
        if isinstance(row, str):
            yield Skipped(where, row, root)
            continue
        if feed.problem:
            yield Skipped(where, feed.problem, root)
            continue
        if not any(cell.strip() for cell in row):
            continue
        if header is None:
            header, is_header = header_of(row, _KNOWN)
            if is_header:
                continue
        if any("\0" in cell for cell in row):
            yield Skipped(where, "NUL bytes in this row", root)
            continue
        record = {header[at] if at < len(header) else f"column_{at + 1}": cell for at, cell in enumerate(row) if cell}
        yield _document(record if _text_field(header) else _spelled(record), names, feed.first, where, root)


def _text_field(keys: Iterable[str]) -> str | None:
    by_name = {key.strip().lower(): key for key in keys}
    return next((by_name[name] for name in TEXT_FIELDS if name in by_name), None)


def _spelled(record: dict[str, str]) -> dict[str, str]:
    """A record without a text field, with one that spells it out; short values stay as metadata."""
    lines = [f"{key}: {value.strip()}" for key, value in record.items() if value.strip() and key.lower() != "title"]
    short = {key: value for key, value in record.items() if len(value) <= _LONGEST_VALUE}
    return {**short, "text": "\n".join(lines)}


class _Names:
    """Sources for the records of one file, no two the same."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._seen: set[bytes] = set()

    def name(self, record: Mapping[str, Any], line: int) -> str:
        by_name = {key.strip().lower(): value for key, value in reversed(tuple(record.items()))}
        by_name |= {key: value for key, value in record.items() if key in ID_FIELDS}
        given = next((by_name[key] for key in ID_FIELDS if isinstance(by_name.get(key), str | int)), "")
        own = " ".join(str(given).split()) if not isinstance(given, bool) else ""
        name = f"{self._source}#{own}" if own and len(own) <= _LONGEST_ID else f"{self._source}#L{line}"
        while self._taken(name):
            name += f"@L{line}"
        return whole(name)

    def _taken(self, name: str) -> bool:
        # Eight bytes a record: a file may have many millions.
        key = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        if key in self._seen:
            return True
        self._seen.add(key)
        return False


def _document(record: Mapping[str, Any], names: _Names, line: int, where: str, root: str) -> Document | Skipped:
    field = _text_field(record)
    if field is None:
        return Skipped(where, f"no text: none of the fields {', '.join(TEXT_FIELDS)}", root, gone=True)
    text = record[field]
    if not isinstance(text, str):
        return Skipped(where, f"its {field!r} is {_kind(text)}, not text", root, gone=True)
    if not text.strip():
        return Skipped(where, f"its {field!r} is empty", root, gone=True)
    key = next((key for key in record if key.strip().lower() == "title"), None)
    title = record[key] if key is not None and isinstance(record[key], str) else ""
    metadata: dict[str, Any] = {}
    for name, value in record.items():
        if name not in (field, key) or (name == key and not isinstance(value, str)):
            name = whole(name)
            metadata[name + "_" if name in RESERVED else name] = _plain(value)
    return Document(names.name(record, line), whole(text), whole(on_one_line(title)), metadata, root=root)


def _kind(value: Any) -> str:
    kinds = {"NoneType": "null", "list": "a list", "dict": "an object", "bool": "a truth value"}
    return kinds.get(type(value).__name__, "a number")


def _plain(value: Any, depth: int = 0) -> Any:
    """A value as metadata: scalars and lists as they are, deeper structure as JSON text."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list) and depth == 0:
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, list | dict):
        return json.dumps(value)
    return value
