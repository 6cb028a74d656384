"""Parts of an index: made once, kept up to date, whatever comes, goes, is killed or damaged."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from collections.abc import Set
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from ragzip.errors import ConfigError, StoreDamaged, StoreError, StoreMismatch
from ragzip.indexes import Index, info, manifest, parts, remove, repair, verify
from ragzip.indexes.files import new_file
from ragzip.indexes.manifest import FileEntry, PartEntry
from tests.indexes.tools import document, documents, make

STEP = 5


@dataclass(frozen=True)
class LengthPart:
    """Keeps the length of every passage: a shard a step, and the sorted lengths of all of them."""

    kind: ClassVar[str] = "graph"
    unit: str = "characters"
    fail_at: int = 0

    def ready(self, encoder) -> None:
        pass

    def extend(self, index: Index, entry: PartEntry, folder: str) -> PartEntry:
        rows = index.rows[index.rows >= entry.rows][:STEP]
        last = int(rows[-1]) + 1 if len(rows) == STEP else index.manifest.rows
        if self.fail_at and last > self.fail_at:
            raise KeyboardInterrupt
        lengths = np.zeros(last - entry.rows, np.int64)
        lengths[rows - entry.rows] = [len(passage.text) for passage in index.passages(rows)]
        return dataclasses.replace(entry, rows=last, files=(*entry.files, self._write(index, folder, lengths)))

    def finish(self, index: Index, entry: PartEntry, folder: str) -> PartEntry:
        lengths = np.sort(self._lengths(index, entry)[index.rows])
        return dataclasses.replace(entry, whole=(self._write(index, folder, lengths),))

    def open(self, index: Index, entry: PartEntry) -> np.ndarray:
        return np.load(index.path / entry.whole[0].name)

    def without(self, entry: PartEntry, damaged: Set[str]) -> PartEntry:
        return parts.empty(self)

    def compact(self, index: Index, entry: PartEntry, rows: np.ndarray, folder: str) -> PartEntry:
        kept = self._lengths(index, entry)[rows]
        return dataclasses.replace(entry, rows=len(rows), files=(self._write(index, folder, kept),))

    def _lengths(self, index: Index, entry: PartEntry) -> np.ndarray:
        found = [np.load(index.path / file.name) for file in entry.files]
        return np.concatenate([np.empty(0, np.int64), *found])

    def _write(self, index: Index, folder: str, values: np.ndarray) -> FileEntry:
        name = f"{folder}/lengths.npy"
        with new_file(index.path / name) as out:
            np.lib.format.write_array_header_1_0(out, {"descr": "<i8", "fortran_order": False, "shape": values.shape})
            out.write(values.astype("<i8").tobytes())
        return out.entry(name)


@pytest.fixture(autouse=True)
def builder(monkeypatch):
    monkeypatch.setitem(parts.BUILDERS, "graph", f"{__name__}:LengthPart")


def is_right(kb) -> None:
    """The part holds what it would if made from nothing."""
    with Index.open(kb) as index:
        lengths = index.opened("graph", lambda index, entry: np.load(index.path / entry.whole[0].name))
        assert sorted(len(passage.text) for passage in index) == lengths.tolist()
    assert info(kb).searchable
    assert verify(kb) == []


def test_it_is_made_in_steps_and_kept_up_to_date_by_every_run(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(9), retriever="graph")
    assert info(kb).parts == ("graph",)
    is_right(kb)
    with Index.open(kb) as index:
        assert len(index.part("graph").files) > 2
    make(kb, [document(30)], sync=False)
    is_right(kb)
    make(kb, [document(3, version=1), document(30)], sync=False)
    is_right(kb)
    remove(kb, ["docs/2.md", "docs/30.md"])
    is_right(kb)


def test_random_histories_end_where_a_fresh_one_does(tmp_path):
    rng = random.Random(5)
    kb = tmp_path / "kb"
    make(kb, documents(4), retriever="graph")
    for _ in range(8):
        held = rng.sample(range(12), rng.randint(1, 9))
        make(kb, [document(number, version=rng.randrange(2)) for number in held], sync=rng.random() < 0.7)
        is_right(kb)
    assert info(kb).dead < info(kb).passages  # it has been compacted on the way


def test_a_stopped_run_leaves_what_it_did_and_the_next_goes_on(tmp_path):
    kb = tmp_path / "kb"
    with pytest.raises(KeyboardInterrupt):
        make(kb, documents(9), retriever="graph", settings={"fail_at": 12})
    assert not info(kb).searchable
    with Index.open(kb) as index:
        (entry,) = index.manifest.parts
        assert 5 <= entry.rows <= 12
        assert len(index.search_terms(["amber"], 3)[0].rows)  # other searches work
        with pytest.raises(StoreError, match=r"stopped before graph was done.*--retriever graph"):
            index.part("graph")
    raw = json.loads((kb / "manifest.json").read_text())
    body = {k: v for k, v in raw.items() if k not in ("format", "checksum")}
    body["parts"][0]["settings"]["options"]["fail_at"] = 0
    (kb / "manifest.json").write_text(
        json.dumps({"format": manifest.FORMAT, "checksum": manifest._checksum(body), **body})
    )
    make(kb, documents(9))
    is_right(kb)


def test_an_index_without_it_says_how_to_add_it_and_takes_it_later(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(3))
    with Index.open(kb) as index, pytest.raises(StoreMismatch, match=r"made without what graph needs.*--retriever"):
        index.part("graph")
    make(kb, documents(3), retriever="graph")
    is_right(kb)
    make(kb, [*documents(3), document(7)], retriever="fusion")  # and it stays
    is_right(kb)


def test_options_stay_and_changing_them_needs_a_rebuild(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(3), retriever="graph", settings={"unit": "bytes"})
    make(kb, documents(4))
    with pytest.raises(StoreMismatch, match=r"made with unit='bytes', not 'words'.*--rebuild"):
        make(kb, documents(5), retriever="graph", settings={"unit": "words"})
    assert info(kb).documents == 4
    make(kb, documents(5), retriever="graph", settings={"unit": "words"}, rebuild=True)
    with Index.open(kb) as index:
        assert parts.options_of(index.part("graph"))["unit"] == "words"
    is_right(kb)
    make(kb, documents(5), rebuild=True)  # what is not said is as before
    with Index.open(kb) as index:
        assert parts.options_of(index.part("graph"))["unit"] == "words"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"retriever": "graph", "settings": {"unti": "x"}}, "unti.*no option"),
        ({"retriever": "dense", "settings": {"unit": "x"}}, "'dense' has no options"),
    ],
)
def test_options_that_are_none(tmp_path, options, match):
    with pytest.raises(ConfigError, match=match):
        make(tmp_path / "kb", documents(2), **options)
    assert not (tmp_path / "kb").exists() or not manifest.exists(tmp_path / "kb")


@pytest.mark.parametrize("which", ["files", "whole"])
@pytest.mark.parametrize("how", ["other bytes", "missing"])
def test_a_damaged_part_is_named_and_repaired(tmp_path, which, how):
    kb = tmp_path / "kb"
    make(kb, documents(6), retriever="graph")
    with Index.open(kb) as index:
        name = getattr(index.part("graph"), which)[0].name
    path = kb / name
    if how == "missing":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    with pytest.raises(StoreDamaged, match=r"lengths.npy is.*repair --index"):
        Index.open(kb)
    report = repair(kb)
    assert report.damaged == (name,)
    assert report.made_anew == ("graph",)
    is_right(kb)
    assert repair(kb).damaged == ()


def test_damaged_structures_are_repaired_and_damaged_vectors_are_not(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(6))
    entry = Index.open(kb).manifest
    for name in (entry.faiss.name, entry.bm25[0].name):
        (kb / name).write_bytes(b"\0" + (kb / name).read_bytes()[1:][::-1])
    assert set(repair(kb).made_anew) == {"faiss", "bm25"}
    assert verify(kb) == []
    (kb / entry.shards[0].file.name).write_bytes(b"")
    with pytest.raises(StoreDamaged, match=r"vectors are damaged.*--rebuild"):
        repair(kb)


@pytest.mark.parametrize("version", [1, 2])
def test_an_index_of_an_older_format_opens(tmp_path, version):
    kb = tmp_path / "kb"
    make(kb, documents(3), retriever=None if version == 1 else "graph")
    raw = json.loads((kb / "manifest.json").read_text())
    gone = ("format", "checksum", "seconds", *(("parts",) if version == 1 else ()))
    body = {k: v for k, v in raw.items() if k not in gone}
    for part in body.get("parts", ()):
        del part["of"]
    (kb / "manifest.json").write_text(json.dumps({"format": version, "checksum": manifest._checksum(body), **body}))
    assert verify(kb) == []
    make(kb, documents(4))
    assert info(kb).format == manifest.FORMAT
    assert Index.open(kb).manifest.seconds is None  # and not what one more document took
    if version == 2:
        is_right(kb)
    make(kb, documents(4), rebuild=True)
    assert Index.open(kb).manifest.seconds


def test_a_part_is_searched_until_rows_are_numbered_anew(tmp_path, monkeypatch):
    kb = tmp_path / "kb"
    make(kb, documents(9), retriever="graph")
    seen = []
    real = LengthPart.extend

    def watched(self, index, entry, folder):
        with Index.open(kb) as opened:
            seen.append(len(opened.opened("graph", self.open)))
        return real(self, index, entry, folder)

    monkeypatch.setattr(LengthPart, "extend", watched)
    before = len(Index.open(kb))
    make(kb, [document(number, version=1) for number in range(9)])  # everything is replaced: it is compacted
    assert info(kb).dead == 0
    assert seen
    assert set(seen) == {before}
    is_right(kb)


def test_folders_of_stopped_writers_are_swept(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(3), retriever="graph")
    stray = kb / "part-graph-000099"
    shutil.copytree(next(kb.glob("part-graph-*")), stray)
    make(kb, documents(4))
    assert not stray.exists()
    is_right(kb)


@dataclass(frozen=True)
class WordPart(LengthPart):
    """A second kind, beside the first."""

    kind: ClassVar[str] = "multi_vector"


def test_two_parts_in_one_index_live_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setitem(parts.BUILDERS, "multi_vector", f"{__name__}:WordPart")
    kb = tmp_path / "kb"
    make(kb, documents(9), retriever="graph")
    make(kb, documents(9), retriever="multi_vector")
    for number in range(6):
        make(kb, [document(number, version=1), document(20 + number)], sync=number % 2 == 1)
        assert info(kb).parts == ("graph", "multi_vector")
        is_right(kb)
        with Index.open(kb) as index:
            for kind in ("graph", "multi_vector"):
                assert len(np.load(kb / index.part(kind).whole[0].name)) == len(index)
    with Index.open(kb) as index:
        name = index.part("multi_vector").files[0].name
    (kb / name).unlink()
    assert repair(kb).made_anew == ("multi_vector",)
    is_right(kb)


def test_a_rebuild_for_another_retriever_drops_the_part(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(3), retriever="graph")
    make(kb, documents(3), retriever="bm25", rebuild=True)
    assert info(kb).parts == ()
    assert not list(kb.glob("part-*"))
    assert verify(kb) == []


def test_a_stopped_rebuild_with_other_options_does_not_go_on(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(9), retriever="graph")
    with pytest.raises(KeyboardInterrupt):
        make(kb, documents(9), retriever="graph", rebuild=True, settings={"unit": "old", "fail_at": 12})
    make(kb, documents(9), retriever="graph", rebuild=True, settings={"unit": "new", "fail_at": 0})
    with Index.open(kb) as index:
        assert parts.options_of(index.part("graph"))["unit"] == "new"
    is_right(kb)


def test_a_stopped_repair_goes_on_with_the_same_options(tmp_path, monkeypatch):
    kb = tmp_path / "kb"
    make(kb, documents(6), retriever="graph", settings={"unit": "mine"})
    with Index.open(kb) as index:
        (kb / index.part("graph").files[0].name).unlink()
    monkeypatch.setattr(LengthPart, "extend", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        repair(kb)
    monkeypatch.undo()
    monkeypatch.setitem(parts.BUILDERS, "graph", f"{__name__}:LengthPart")
    repair(kb)
    with Index.open(kb) as index:
        assert parts.options_of(index.part("graph"))["unit"] == "mine"
    is_right(kb)


def test_repair_looks_at_the_passages(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(6))
    (table,) = kb.glob("passages-*.sqlite")
    table.write_bytes(table.read_bytes()[:-3000])
    with pytest.raises(StoreDamaged, match=r"passages.*--rebuild"):
        repair(kb)


def test_files_of_others_are_left_alone(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(3), retriever="graph")
    mine = kb / "part-time-job" / "notes.md"
    mine.parent.mkdir()
    mine.write_text("mine")
    make(kb, documents(4))
    assert mine.read_text() == "mine"


def test_an_index_without_passages_gives_nothing(tmp_path):
    from ragzip.retrievers import for_index
    from ragzip.types import Query

    kb = tmp_path / "kb"
    make(kb, documents(2), retriever="graph")
    make(kb, [])
    assert info(kb).passages == 0
    assert for_index(kb).retrieve([Query("amber")]) == [[]]
