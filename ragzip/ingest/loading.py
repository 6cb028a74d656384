"""Paths to documents: finds the files, picks the reader, and turns whatever goes wrong into a reason."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os.path
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TextIO, overload

from ragzip.ingest.decode import Empty, Unreadable, check_encoding, decode, open_regular, read_bytes, too_big, whole
from ragzip.ingest.document import LOADER_VERSION, Document, Skipped, Unchanged
from ragzip.ingest.formats.content import Content, reason
from ragzip.ingest.formats.docx import read_docx
from ragzip.ingest.formats.html import read_html
from ragzip.ingest.formats.lines import Line, read_lines
from ragzip.ingest.formats.markup import read_markdown, read_rst, read_text
from ragzip.ingest.formats.pdf import read_pdf
from ragzip.ingest.formats.records import mostly_jsonl, read_csv, read_jsonl
from ragzip.ingest.topics import read_topics
from ragzip.ingest.walk import STDIN, TOPICS, Found, find, say, show

MAX_BYTES = 256 * 1024 * 1024
"""Files over this size are skipped; record files are streamed and may be larger."""

_TEXT = {".md": read_markdown, ".markdown": read_markdown, ".rst": read_rst, ".txt": read_text}
_PARSED = {".html": "trafilatura", ".htm": "trafilatura", ".pdf": "pypdf", ".docx": "python-docx"}
_RECORDS = frozenset({".jsonl", ".ndjson", ".csv", ".tsv"})
_BARE_NAMES = frozenset({"readme", "license", "changelog"})
SUFFIXES = (*_TEXT, *_PARSED, *sorted(_RECORDS))
"""The formats that are read wherever they are found."""

Known = Callable[[str, str], bool]


@overload
def load(
    paths: Sequence[str],
    *,
    base: Path,
    encoding: str | None = ...,
    max_bytes: int = ...,
    stdin: TextIO | BinaryIO | None = ...,
    exclude: Sequence[Path] = ...,
    known: None = ...,
) -> Iterator[Document | Skipped]: ...
@overload
def load(
    paths: Sequence[str],
    *,
    base: Path,
    encoding: str | None = ...,
    max_bytes: int = ...,
    stdin: TextIO | BinaryIO | None = ...,
    exclude: Sequence[Path] = ...,
    known: Known,
) -> Iterator[Document | Skipped | Unchanged]: ...
def load(
    paths: Sequence[str],
    *,
    base: Path,
    encoding: str | None = None,
    max_bytes: int = MAX_BYTES,
    stdin: TextIO | BinaryIO | None = None,
    exclude: Sequence[Path] = (),
    known: Known | None = None,
) -> Iterator[Document | Skipped | Unchanged]:
    """The documents behind some paths, one at a time, each file once.

    Folders are read recursively, in sorted order, in the formats of ``SUFFIXES`` and files called README, LICENSE
    or CHANGELOG. A file given by name is read as text whatever its suffix. Whatever cannot be read comes as
    ``Skipped``, in its place; no error of a file or of the library that reads it gets out.

    Args:
        paths: Files, folders, globs (``"docs/**/*.md"``), ``-`` for standard input (text, or JSON lines where the first
            line and half of all are objects), ``python:topics`` for the Python language reference.
        base: Sources inside this folder are written relative to it, others absolute.
        encoding: What to read text as where it is not UTF-8; None: such files are skipped.
        max_bytes: Larger files are skipped; record files are streamed and may be larger.
        stdin: What ``-`` reads; None: the process's standard input.
        exclude: Files and folders to pass over without a word, such as the index being written.
        known: Asked ``known(source, raw_hash)`` before a format that costs time is parsed (HTML, PDF, Word); where
            it says True, an ``Unchanged`` comes in the document's place.

    Raises:
        UsageError: ``encoding`` is none; at once, as ``check_paths`` is for paths.
    """
    return _load(paths, _Loader(base, check_encoding(encoding), max_bytes, stdin, known), exclude)


def _load(paths: Sequence[str], loader: _Loader, exclude: Sequence[Path]) -> Iterator[Document | Skipped | Unchanged]:
    for found in find(paths, exclude):
        if found.path == TOPICS:
            yield from read_topics()
        elif found.path == STDIN:
            yield from loader.stdin()
        else:
            yield from loader.file(found)


class _Loader:
    """The settings of one ``load``."""

    def __init__(
        self, base: Path, encoding: str | None, limit: int, stdin: TextIO | BinaryIO | None, known: Known | None
    ) -> None:
        self._base = os.path.abspath(base)  # noqa: PTH100 - resolve() would lose the names of links
        self._encoding, self._limit, self._stdin, self._known = encoding, limit, stdin, known

    def file(self, found: Found) -> Iterator[Document | Skipped | Unchanged]:
        source = show(found.path, self._base)
        if found.problem:
            yield Skipped(source, found.problem, found.root)
            return
        try:
            yield from self._read(found, source)
        except Unreadable as error:
            yield Skipped(source, str(error), found.root, gone=isinstance(error, Empty))
        except OSError as error:
            yield Skipped(source, say(error, "file"), found.root)
        except Exception as error:  # noqa: BLE001 - the libraries raise anything on damaged files
            kind = os.path.splitext(found.path)[1].lower() or "text"  # noqa: PTH122
            yield Skipped(source, f"cannot be read as {kind}: {reason(error)}", found.root)

    def _read(self, found: Found, source: str) -> Iterator[Document | Skipped | Unchanged]:
        name = source.rsplit("/", 1)[-1]
        stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a string, not always a path
        suffix = suffix.lower()
        if suffix in _RECORDS:
            yield from self._records(found, source, suffix)
            return
        if suffix not in _TEXT and suffix not in _PARSED and name.lower() not in _BARE_NAMES and not found.named:
            said = f"unsupported format {suffix}" if suffix else "unsupported format (no suffix)"
            yield Skipped(source, said, found.root)
            return
        data = read_bytes(found.path, self._limit)
        if not data.strip():
            raise Empty("empty file")
        raw_hash = ""
        if suffix in _PARSED:
            raw_hash = self._raw_hash(data, name, _PARSED[suffix])
            if self._known is not None and self._known(source, raw_hash):
                yield Unchanged(source, found.root, raw_hash)
                return
        content = self._parse(data, stem, suffix)
        if not content.text.strip():
            raise Empty("empty file")
        for where, why in content.skipped:
            yield Skipped(f"{source}:{where}", why, found.root)
        yield _document(content, source, found.root, raw_hash)

    def _parse(self, data: bytes, stem: str, suffix: str) -> Content:
        if suffix == ".pdf":
            return read_pdf(data, stem, self._limit)
        if suffix == ".docx":
            return read_docx(data, stem, self._limit)
        if suffix in _PARSED:
            return read_html(data, stem, self._encoding)
        return _TEXT.get(suffix, read_text)(decode(data, self._encoding), stem)

    def _records(self, found: Found, source: str, suffix: str) -> Iterator[Document | Skipped]:
        count = 0
        with open_regular(found.path) as file:
            lines = read_lines(file, self._encoding)
            if suffix in (".jsonl", ".ndjson"):
                records = read_jsonl(lines, source, found.root)
            else:
                records = read_csv(lines, source, found.root, tabs=suffix == ".tsv")
            for record in records:
                count += 1
                yield record
        if count == 0:
            yield Skipped(source, "no records", found.root, gone=True)

    def _raw_hash(self, data: bytes, name: str, library: str) -> str:
        """Everything that the document depends on, without making it."""
        said = (LOADER_VERSION, _version(library), self._encoding, self._limit, name)
        return hashlib.sha256(repr(said).encode("utf-8", "surrogatepass") + b"\0" + data).hexdigest()

    def stdin(self) -> Iterator[Document | Skipped]:
        source = "stdin"
        try:
            text = self._stdin_text()
        except Unreadable as error:
            yield Skipped(source, str(error), STDIN)
            return
        except (OSError, ValueError) as error:  # closed, or in an encoding that is not its own
            yield Skipped(source, reason(error), STDIN)
            return
        if not text.strip():
            yield Skipped(source, "empty", STDIN)
        elif mostly_jsonl(text):
            lines = (Line(number, line) for number, line in enumerate(text.split("\n"), 1))
            yield from read_jsonl(lines, source, STDIN)
        else:
            yield _document(read_text(text, source), source, STDIN, "")

    def _stdin_text(self) -> str:
        stream = self._stdin if self._stdin is not None else sys.stdin
        if stream is None:
            return ""
        # The bytes under a text stream: its encoding is the terminal's, and its errors are silent.
        data = getattr(stream, "buffer", stream).read(self._limit + 1)
        if len(data) > self._limit:
            raise Unreadable(too_big(len(data), self._limit))
        return whole(data) if isinstance(data, str) else decode(data, self._encoding)


def _document(content: Content, source: str, root: str, raw_hash: str) -> Document:
    return Document(source, content.text, content.title, {}, content.sections, content.pages, root, raw_hash)


@functools.cache
def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return ""
