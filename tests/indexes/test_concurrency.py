"""One writer at a time; readers at any time, from several threads, on the state they opened."""

from __future__ import annotations

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import ragzip.indexes.table
import ragzip.indexes.writer
from ragzip.errors import StoreError
from ragzip.indexes import Index, StoreMoved, info, open_cached, remove, using, verify
from ragzip.indexes.files import write_lock
from tests.indexes.tools import WordEncoder, content, document, documents, found, make, start


def test_a_second_writer_is_told_at_once(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(2))
    process = start("waiting", kb)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    began = time.monotonic()
    with pytest.raises(StoreError, match=rf"another process is indexing {kb}/.*Wait"):
        make(kb, documents(3), sync=False)
    assert time.monotonic() - began < 10
    assert process.communicate("go on\n")[1] == ""
    assert process.returncode == 0
    assert len(content(kb)) == 9
    # The lock of a killed writer is gone with it.
    process = start("waiting", kb)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate()
    make(kb, documents(3))
    assert len(content(kb)) == 3
    assert verify(kb) == []


def test_writers_in_one_process_exclude_each_other(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(2))
    with write_lock(kb), pytest.raises(StoreError, match="another process"):
        make(kb, documents(3))
    with write_lock(kb), pytest.raises(StoreError, match="another process"):
        remove(kb, ["docs/1.md"])

    def nested():
        yield document(0)
        with pytest.raises(StoreError, match="another process"):
            make(kb, documents(3))
        yield document(1)

    assert make(kb, nested()).unchanged == 2


def test_readers_see_one_commit_while_a_writer_goes_on(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(3))
    process = start("endless", kb)
    encoder = WordEncoder()
    query = encoder.encode(["amber bridge"])
    try:
        assert process.stdout is not None
        process.stdout.readline()
        last = 0
        commits = set()
        end = time.monotonic() + 4
        while time.monotonic() < end:

            def look(index: Index) -> int:
                sources = [entry.source for entry in index.documents()]
                assert len(sources) == index.manifest.documents
                assert len(list(index)) == index.manifest.passages == len(index.search_vectors(query, 10**6)[0].rows)
                hits = index.search_terms(["title"], 10**6)[0]
                assert len(hits.rows) == index.manifest.passages
                return index.manifest.commit

            commit = using(kb, look)
            assert commit >= last
            commits.add(commit)
            last = commit
        assert len(commits) > 3
    finally:
        process.kill()
        process.communicate()


def test_an_opened_index_keeps_its_state(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(6))
    with Index.open(kb) as old:
        expected = found(kb), list(old)
        query = WordEncoder().encode(["amber"])
        before = old.search_vectors(query, 99), old.search_terms(["amber"], 99), old.documents()
        make(kb, [document(n, version=1) for n in range(4)])
        make(kb, [document(n, version=2) for n in range(20)])
        assert list(old) == expected[1]
        again = old.search_vectors(query, 99), old.search_terms(["amber"], 99), old.documents()
        np.testing.assert_equal(again, before)
    assert info(kb).documents == 20


def test_an_index_whose_files_are_replaced_before_use_says_so(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(6))
    query = WordEncoder().encode(["amber"])
    looks = [
        lambda index: index.search_vectors(query, 3),
        lambda index: index.search_terms(["amber"], 3),
        lambda index: list(index),
        lambda index: index.search_vectors(query, 3, ["even=true"]),
        lambda index: index.vectors,
    ]
    opened = [Index.open(kb) for _ in looks]
    make(kb, [document(n, version=1) for n in range(6)])
    for index, look in zip(opened, looks, strict=True):
        with pytest.raises(StoreMoved, match="rewritten since it was opened"):
            look(index)


def test_a_search_that_meets_a_replaced_file_is_done_again(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(6))
    tries = []

    def use(index):
        tries.append(index.manifest.commit)
        if len(tries) == 1:
            make(kb, [document(n, version=1) for n in range(6)])
        return [passage.metadata["version"] for passage in index]

    assert set(using(kb, use)) == {1}
    assert len(tries) == 2
    assert tries[0] < tries[1]


def test_the_cache_opens_each_commit_once(tmp_path, monkeypatch):
    kb = tmp_path / "kb"
    make(kb, documents(2))
    first = open_cached(kb)
    assert open_cached(str(kb)) is first
    monkeypatch.chdir(tmp_path)
    assert open_cached("kb") is first
    make(tmp_path / "other", documents(3))
    lazy = open_cached("other")
    monkeypatch.chdir(tmp_path.parent)  # what is opened later is found all the same
    assert open_cached(tmp_path / "other") is lazy
    assert len(lazy.search_terms(["amber bridge"], 3)[0].rows)
    make(kb, documents(2))
    assert open_cached(kb) is first
    make(kb, documents(3))
    second = open_cached(kb)
    assert second is not first
    assert second.manifest.documents == 3
    kb.rename(tmp_path / "moved")
    with pytest.raises(StoreError, match="no such index"):
        open_cached(kb)
    make(kb, documents(1))
    assert open_cached(kb).manifest.documents == 1


def test_many_threads_read_one_index(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(30))
    queries = [f"{a} {b}" for a in ("amber", "bridge", "ocean") for b in ("delta", "north", "7")]
    encoder = WordEncoder()

    def look(text: str) -> object:
        index = open_cached(kb)
        vectors = index.search_vectors(encoder.encode([text]), 7)[0]
        filtered = index.search_vectors(encoder.encode([text]), 7, [f"number<={len(text)}"])[0]
        terms = index.search_terms([text], 7)[0]
        return [[p.id for p in index.passages(hits.rows)] for hits in (vectors, filtered, terms)]

    expected = [look(text) for text in queries]
    for _ in range(3):
        make(kb, documents(30), rebuild=True)
        barrier = threading.Barrier(6)

        def work(number: int, barrier: threading.Barrier = barrier) -> list[object]:
            barrier.wait()
            return [look(text) for text in queries]

        with ThreadPoolExecutor(6) as pool:
            assert all(result == expected for result in pool.map(work, range(6)))


def test_a_table_that_stays_locked_is_an_error_with_a_hint(tmp_path, monkeypatch):
    kb = tmp_path / "kb"
    make(kb, documents(2))
    monkeypatch.setattr(ragzip.indexes.table, "WAIT_SECONDS", 0.1)
    holder = sqlite3.connect(kb / Index.open(kb).manifest.table, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(StoreError, match=r"in use by another process.*Try again"):
            list(Index.open(kb))
        with pytest.raises(StoreError, match="in use by another process"):
            make(kb, documents(3))
    finally:
        holder.close()
    assert len(content(kb)) == 2


def test_a_writer_waits_for_readers_and_not_the_other_way_round(tmp_path):
    """A reader in the middle of a long iteration holds no lock."""
    kb = tmp_path / "kb"
    make(kb, documents(30))
    with Index.open(kb) as index:
        passages = iter(index)
        next(passages)
        began = time.monotonic()
        make(kb, [document(n, version=1) for n in range(30)])
        assert time.monotonic() - began < 20
        assert len(list(passages)) == len(index) - 1
