"""FAISS indexes as files of an index folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ragzip.errors import StoreDamaged
from ragzip.indexes.files import FileEntry, guarded, new_file, rebuild_hint

_BUFFER = 1 << 20


def write_faiss(root: Path, name: str, index: Any) -> FileEntry:
    """Writes a FAISS index through Python's own file: FAISS does not look at what closing a file says.

    Raises:
        StoreError: The disk does not take it.
    """
    import faiss

    with guarded(root), new_file(root / name) as out:
        given: Any = faiss
        faiss.write_index(index, given.BufferedIOWriter(given.PyCallbackIOWriter(out.write), _BUFFER))
        return out.entry(name)


def read_faiss(root: Path, file: FileEntry) -> Any:
    """A FAISS index, which stays in the page cache where its kind allows it.

    Raises:
        FileNotFoundError: It is gone.
        StoreDamaged: It is none.
    """
    import faiss

    path = root / file.name
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise StoreDamaged(f"{path}: FAISS cannot read it: {error}.", hint=rebuild_hint(root)) from error


@contextmanager
def one_thread() -> Iterator[None]:
    """One query is no faster on several threads, and leaves the others to the models."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
