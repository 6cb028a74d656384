"""From files to passages.

``load`` turns files, folders, globs and standard input into documents, ``chunk`` cuts a document into passages
with character spans. What cannot be read comes out as ``Skipped`` with the reason; nothing is lost silently.
"""

from ragzip.ingest.chunking import chunk
from ragzip.ingest.document import LOADER_VERSION, Document, Skipped, Unchanged
from ragzip.ingest.loading import MAX_BYTES, SUFFIXES, load
from ragzip.ingest.topics import python_topics
from ragzip.ingest.walk import check_paths, roots

__all__ = [
    "LOADER_VERSION",
    "MAX_BYTES",
    "SUFFIXES",
    "Document",
    "Skipped",
    "Unchanged",
    "check_paths",
    "chunk",
    "load",
    "python_topics",
    "roots",
]
