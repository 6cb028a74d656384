"""The Python language reference's topics: real text that every machine with Python has, for demos and trials."""

from __future__ import annotations

from collections.abc import Iterator

from ragzip.ingest.decode import whole
from ragzip.ingest.document import Document, Skipped
from ragzip.ingest.formats.markup import read_rst
from ragzip.ingest.walk import TOPICS


def python_topics() -> Iterator[Document]:
    """One document a topic of ``help()``: some 80 chapters, half a megabyte; what ``load(["python:topics"])`` gives.

    The text is that of the running Python's version. A Python built without its documentation gives nothing.
    """
    yield from (item for item in read_topics() if isinstance(item, Document))


def read_topics() -> Iterator[Document | Skipped]:
    """The topics, or the reason why there are none."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        yield Skipped(TOPICS, "this Python was built without its documentation", TOPICS)
        return
    for name, text in sorted(topics.items()):
        content = read_rst(whole(text), name)
        if content.text.strip():
            title = content.title.replace('"', "")
            yield Document(f"{TOPICS}/{name}", content.text, title, {}, content.sections, root=TOPICS)
