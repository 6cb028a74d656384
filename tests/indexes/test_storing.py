"""Indexes whose vectors are kept in fewer bytes: made, added to, changed, damaged, and stopped at any step."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from ragzip.errors import ConfigError, ModelError, StoreDamaged, StoreMismatch
from ragzip.indexes import Index, info, remove, store_as, verify
from ragzip.indexes.storage import parse
from tests.indexes.tools import WordEncoder, content, document, documents, make

FLAT = ["float32", "float16", "float8", "int8", "pca8,float8", "dims=12,pca8,int8", "pq8"]
DEEP = ["pq4+float16", "pq8x4+float8", "rabitq+float16", "hnsw8", "hnsw8,int8+pca12,float8", "ivf16+int8"]
DEEP += ["ivf16,pq4+float32", "ivf16,rabitq+float32", "int8+float16", "ivf4,pq16x4+float16"]
QUERIES = WordEncoder().encode(["amber bridge copper", "ocean 3", "kettle", "", "island north 7"])


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Over a thousand passages, some of them dead."""
    kb = tmp_path_factory.mktemp("plain") / "kb"
    make(kb, documents(240), commit_passages=150)
    make(kb, [document(n, version=int(n % 40 == 4)) for n in range(230)])
    assert len(Index.open(kb)) > 1000
    assert info(kb).dead > 0
    return kb


@pytest.fixture
def kb(plain, tmp_path):
    return Path(shutil.copytree(plain, tmp_path / "kb"))


def vectors(kb: Path) -> np.ndarray:
    """As float32, by document and place."""
    held = content(kb)
    return np.stack([np.frombuffer(passage[-1], np.float32) for source in sorted(held) for passage in held[source]])


def searched(kb: Path, k: int = 10) -> list[list[int]]:
    with Index.open(kb) as index:
        return [hits.rows.tolist() for hits in index.search_vectors(QUERIES, k)]


def recall(kb: Path, k: int = 10) -> float:
    """How many of those found score no less than the k-th best of what the index keeps, by brute force."""
    with Index.open(kb) as index:
        kept = index.vectors.reduced(index.rows).astype(np.float64)
        scores = index.vectors.codec.reduce(QUERIES).astype(np.float64) @ kept.T
        least = np.sort(scores, axis=1)[:, -k:][:, :1]
        found = np.stack([hits.rows for hits in index.search_vectors(QUERIES, k)])
        good = np.take_along_axis(scores, np.searchsorted(index.rows, found), axis=1) >= least - 1e-6
        return float(good.mean())


@pytest.mark.parametrize("line", [*FLAT, *DEEP])
def test_every_storage_finds_what_is_nearest_in_what_it_keeps(kb, line):
    store_as(kb, line)
    told, storage = info(kb), parse(line)
    assert verify(kb) == []
    assert (told.storage, told.kept_as, told.searchable) == (str(storage), str(storage.rows), True)
    with Index.open(kb) as index:
        entry = index.manifest
        assert (entry.faiss is not None) == (line in DEEP)
        assert (entry.codec is None) == storage.rows.plain
        kept = sum(shard.file.bytes for shard in entry.shards)
        assert kept <= entry.rows * storage.rows.bytes(16) + 200 * len(entry.shards)
        assert entry.passages < entry.rows
        assert recall(kb) >= (1 if line in FLAT else 0.9)
        found = index.search_vectors(QUERIES, 10)
        for query, hits in zip(QUERIES, found, strict=True):
            order = np.sort(hits.rows)
            scores = dict(zip(order.tolist(), index.vectors.scores(query, order).tolist(), strict=True))
            np.testing.assert_allclose(hits.scores, [scores[row] for row in hits.rows.tolist()], atol=1e-5)
        # With a filter nothing but what is kept is looked at.
        some = index.search_vectors(QUERIES, 5, ["even=true"])
        for query, hits in zip(QUERIES, some, strict=True):
            wanted = index.search_vectors(query[None], 100_000, ["even=true"])[0]
            np.testing.assert_array_equal(hits.rows, wanted.rows[:5])


@pytest.mark.parametrize("line", ["pca8,float8", "int8+float16", "pq8"])
def test_adding_removing_and_compacting_never_rounds_twice(kb, line):
    store_as(kb, line)
    codec = Index.open(kb).manifest.codec
    held = content(kb)
    encoder = WordEncoder()
    # Many small runs: shards are joined on the way.
    for n in range(600, 670):
        make(kb, [document(n)], sync=False, encoder=encoder)
    remove(kb, [f"docs/{n}.md" for n in range(130)])
    assert info(kb).dead == 0
    assert verify(kb) == []
    assert Index.open(kb).manifest.codec == codec
    now = content(kb)
    assert all(now[source] == held[source] for source in held if source in now)
    assert sum(map(len, encoder.calls)) == sum(len(now[f"docs/{n}.md"]) for n in range(600, 670))
    if line != "int8+float16":
        assert recall(kb) == 1


def test_more_lists_find_more_and_all_of_them_everything(kb):
    found = []
    for probed in (1, 4, 16):
        store_as(kb, f"ivf16:{probed}+float32")
        assert info(kb).storage == f"ivf16:{probed}+float32"
        found.append(recall(kb))
    assert found == sorted(found)
    assert found[0] < found[-1] == 1


@pytest.mark.parametrize("line", ["ivf16:1", "ivf16:2,pq4", "ivf16:2,rabitq"])
def test_as_many_are_found_as_were_asked_for_whatever_the_lists_hold(tmp_path, line):
    """Most passages are the same: their list holds them all, and the others next to nothing."""
    kb = tmp_path / "kb"
    same = [document(1, sentences=1)] * 1000
    items = [dataclasses.replace(one, source=f"docs/{number}.md") for number, one in enumerate(same)]
    make(kb, [*items, *(document(number, sentences=1) for number in range(1000, 1100))], commit_passages=500)
    store_as(kb, f"{line}+float32")
    with Index.open(kb) as index:
        for k in (1, 10, 500, len(index), 5000):
            assert [len(hits.rows) for hits in index.search_vectors(QUERIES, k)] == [min(k, len(index))] * len(QUERIES)


def test_few_passages_stay_as_they_are_until_there_are_enough(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(40), storage="pca8,float8")
    assert (info(kb).storage, info(kb).kept_as, info(kb).searchable) == ("pca8,float8", "float32", True)
    assert recall(kb) == 1
    make(kb, [document(1)], storage="int8")
    assert (info(kb).storage, info(kb).kept_as) == ("int8", "float32")
    make(kb, documents(240))
    assert (info(kb).storage, info(kb).kept_as) == ("int8", "int8")
    assert verify(kb) == []


@pytest.mark.parametrize("line", ["pca8,float8", "pq4+float8", "hnsw8+float16"])
def test_one_passage(tmp_path, line):
    kb = tmp_path / "kb"
    make(kb, [document(1, sentences=1)], storage=line)
    assert len(Index.open(kb)) == 1
    assert [len(rows) for rows in searched(kb)] == [1] * len(QUERIES)
    assert verify(kb) == []


def test_a_storage_is_kept_and_can_be_changed_as_long_as_vectors_are_whole(kb):
    store_as(kb, "pq4+float32")
    make(kb, [document(800)], sync=False)
    assert info(kb).storage == "pq4+float32"
    store_as(kb, "hnsw8+float32")
    store_as(kb, "ivf16+float16")
    store_as(kb, "float16")
    assert Index.open(kb).manifest.faiss is None
    held = content(kb)
    for other in ("float32", "float8", "pca8,float16", "auto"):
        with pytest.raises(StoreMismatch, match=r"kept as float16.*--rebuild --storage"):
            store_as(kb, other)
        with pytest.raises(StoreMismatch, match=r"kept as float16"):
            make(kb, [document(801)], storage=other)
    assert content(kb) == held
    make(kb, documents(240), storage="pca8,float8", rebuild=True)
    assert (info(kb).storage, info(kb).kept_as) == ("pca8,float8", "pca8,float8")
    assert verify(kb) == []


def test_what_cannot_be_stored_is_refused_before_anything_is_done(tmp_path, kb):
    held = Index.open(kb).manifest
    for line in ("pca16,float8", "pq3", "nothing", "pq3+float32"):
        encoder = WordEncoder()
        with pytest.raises(ConfigError, match="storage"):
            make(tmp_path / "new", documents(3), storage=line, encoder=encoder)
        assert not encoder.calls
        with pytest.raises(ConfigError, match="storage"):
            store_as(kb, line)
    assert Index.open(kb).manifest == held
    with pytest.raises(ConfigError, match="bm25 has no vectors"):
        make(tmp_path / "terms", documents(3), retriever="bm25", storage="float8")
    make(tmp_path / "terms", documents(3), retriever="bm25")
    with pytest.raises(ConfigError, match="bm25 has no vectors"):
        make(tmp_path / "terms", documents(3), storage="float8")
    with pytest.raises(StoreMismatch, match="no vectors"):
        store_as(tmp_path / "terms", "float8")


def test_an_index_without_a_storage_is_as_before(kb):
    entry = Index.open(kb).manifest
    assert (entry.storage, entry.codec) == ("auto", None)
    assert entry.faiss is not None
    store_as(kb, "auto")
    assert Index.open(kb).manifest.faiss == entry.faiss


def test_vectors_that_are_no_numbers(kb):
    store_as(kb, "pca8,float8")
    held = content(kb)

    class Broken(WordEncoder):
        def encode(self, texts, **options):
            found = super().encode(texts, **options)
            found[-1, 3] = np.nan
            return found

    with pytest.raises(ModelError, match="not finite"):
        make(kb, [document(900)], sync=False, encoder=Broken())
    assert content(kb) == held


@pytest.mark.parametrize("name", ["codec-", "faiss-", "vectors/"])
def test_a_damaged_file_is_named(kb, name):
    store_as(kb, "int8+pca8,float8")
    (file,) = {entry.name for entry in Index.open(kb).manifest.files if entry.name.startswith(name)}
    path = kb / file
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)
    os.utime(path, (1, 1))
    with pytest.raises(StoreDamaged, match=path.name):
        Index.open(kb)
    assert path.name in str(verify(kb)[0])


class Stopped(BaseException):
    """Instead of a signal, so that the test goes on."""


@pytest.mark.parametrize("line", ["pca8,float8", "int8+float16"])
def test_stopped_while_the_storage_changes(kb, line, monkeypatch):
    """At whichever step: the index is sound, finds what is nearest, and the next run ends where it would have."""
    held, finds = content(kb), searched(kb)
    fsync = os.fsync
    for last in range(1, 100):
        copy = Path(shutil.copytree(kb, kb.parent / f"kb{last}"))
        steps = iter(range(1, last))

        def stop(handle: int, steps=steps) -> None:
            if next(steps, None) is None:
                raise Stopped
            fsync(handle)

        monkeypatch.setattr(os, "fsync", stop)
        try:
            store_as(copy, line)
        except Stopped:
            done = False
        else:
            done = True
        monkeypatch.setattr(os, "fsync", fsync)
        assert verify(copy) == []
        if info(copy).kept_as == "float32":
            assert content(copy) == held
            assert searched(copy) == finds
        store_as(copy, line)
        assert verify(copy) == []
        assert (info(copy).storage, info(copy).kept_as) == (line, str(parse(line).rows))
        files = {Path(file.name).name for file in Index.open(copy).manifest.files}
        stray = {path.name for path in copy.rglob("*") if path.is_file()} - files
        assert stray == {"manifest.json", "write.lock", Index.open(copy).manifest.table}
        if done:
            break
    assert 5 < last < 99
