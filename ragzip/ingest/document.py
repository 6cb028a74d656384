"""What loaders give: documents, and the sources they had to leave out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LOADER_VERSION = 3
"""Part of every content hash: raised when a loader reads the same bytes differently, so that indexes read again."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text with its structure.

    Attributes:
        source: Where it came from: a path relative to the base with forward slashes, ``file#id`` or ``file#L7`` for
            a record of a file, ``stdin``, ``python:topics/while``. Unique within one ``load``.
        text: The characters that passages count in. Files that are text keep their own characters, line endings
            included; only a byte order mark is removed.
        title: A heading, a field of the record, or the file's name.
        metadata: Plain values: the other fields of a record. Never one of the keys that passages reserve.
        sections: ``(offset, path)`` where a section begins, in order; the path is ``"Top > Sub"``. Characters
            before the first belong to no section.
        pages: Offset of each page's start, from page 1; empty for formats without pages.
        root: Which entry of ``roots(paths)`` it was found under.
        raw_hash: Hash of the file's bytes, where the format is worth asking ``load(known=...)`` before parsing;
            else "". Not part of ``content_hash``.
    """

    source: str
    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    sections: tuple[tuple[int, str], ...] = ()
    pages: tuple[int, ...] = ()
    root: str = ""
    raw_hash: str = ""

    @property
    def content_hash(self) -> str:
        """sha256, in hex, of all that passages are made of: text, title, metadata, sections, pages, loader version.

        Computed on every access: keep it where it is needed twice.
        """
        meta = json.dumps(dict(self.metadata), sort_keys=True, default=str, separators=(",", ":"))
        rest = json.dumps([LOADER_VERSION, self.title, self.sections, self.pages, len(self.text)])
        digest = hashlib.sha256()
        for part in (rest, "\0", meta, "\0", self.text):
            digest.update(part.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Skipped:
    """A source that was left out.

    Attributes:
        source: As in ``Document``; ``file:line`` for a record.
        reason: Why, in one line.
        root: As in ``Document``.
        gone: Whether it was read, and there is nothing in it: what an index knows of it is no longer so. Of others it
            keeps what it knows.
    """

    source: str
    reason: str
    root: str = ""
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Unchanged:
    """A source whose bytes the caller knows already; given only where ``load`` got ``known``.

    Attributes:
        source: As in ``Document``.
        root: As in ``Document``.
        raw_hash: As in ``Document``.
    """

    source: str
    root: str
    raw_hash: str
