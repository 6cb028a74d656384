"""Whatever happens to the files of an index: one clear error that says where, what and how to mend it."""

from __future__ import annotations

import importlib
import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from ragzip.errors import StoreDamaged, StoreError, StoreMismatch
from ragzip.indexes import Index, info, manifest, repair, soundness, verify
from tests.indexes.tools import ROOT, WordEncoder, content, document, documents, found, make


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    kb = tmp_path_factory.mktemp("sound") / "kb"
    make(kb, documents(9))
    make(kb, [document(30)], sync=False)
    return kb


@pytest.fixture
def kb(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / "kb"))


def use(kb: Path) -> None:
    """Opens everything."""
    with Index.open(kb) as index:
        index.search_terms(["amber"], 3)
        index.search_vectors(WordEncoder().encode(["amber"]), 3)
        index.search_vectors(WordEncoder().encode(["amber"]), 3, ["number>=0"])
        list(index)


def files(kb: Path) -> list[str]:
    entry = Index.open(kb).manifest
    return [*(file.name for file in entry.files), entry.table]


def mends(kb: Path) -> None:
    make(kb, documents(3), rebuild=True)
    assert verify(kb) == []
    assert len(content(kb)) == 3
    use(kb)


@pytest.mark.parametrize("number", range(11))
def test_a_missing_file(kb, number):
    name = files(kb)[number]
    (kb / name).unlink()
    with pytest.raises(StoreDamaged, match=rf"{Path(name).name} is missing.*--rebuild") as caught:
        Index.open(kb)
    with pytest.raises(StoreDamaged, match="missing"):
        info(kb)
    assert [problem for problem in verify(kb) if Path(name).name in problem.what]
    if "index repair" in caught.value.hint:
        assert repair(kb).made_anew
        use(kb)
    else:
        with pytest.raises(StoreDamaged):
            repair(kb)
    mends(kb)


@pytest.mark.parametrize("number", range(11))
def test_a_file_cut_short(kb, number):
    path = kb / files(kb)[number]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreDamaged, match=rf"{path.name} has \d+ bytes, not \d+.*--rebuild"):
        Index.open(kb)
    assert verify(kb)
    mends(kb)


@pytest.mark.parametrize("number", range(10))
def test_a_flipped_bit_is_found_by_verify(kb, number):
    path = kb / files(kb)[number]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    (problem,) = verify(kb)
    assert path.name in problem.what
    assert "checksum" in problem.what
    assert "--rebuild" in problem.hint
    if "index repair" in problem.hint:
        assert repair(kb).damaged == (str(path.relative_to(kb)),)
        assert verify(kb) == []
    else:
        with pytest.raises(StoreDamaged):
            repair(kb)
    mends(kb)


@pytest.mark.parametrize("number", range(10))
def test_garbage_of_the_right_size_is_no_traceback(kb, number):
    """What opening does not notice, use does, or it gives some result: nothing but a StoreError comes out."""
    path = kb / files(kb)[number]
    size = path.stat().st_size
    path.write_bytes((b"\x93NUMPY garbage!!" * size)[:size])
    mends_needed = False
    try:
        use(kb)
    except StoreDamaged as error:
        mends_needed = True
        assert "--rebuild" in error.hint
    assert mends_needed or verify(kb)


def test_a_broken_table(kb):
    path = kb / Index.open(kb).manifest.table
    size = path.stat().st_size
    path.write_bytes(b"not a database at all" * size)
    with pytest.raises(StoreDamaged, match=r"table is damaged.*--rebuild"):
        use(kb)
    assert verify(kb)
    with pytest.raises(StoreDamaged):
        make(kb, documents(9))
    mends(kb)


def test_a_table_with_a_broken_page(kb):
    path = kb / Index.open(kb).manifest.table
    data = bytearray(path.read_bytes())
    for start in range(8192, len(data), 4096):
        data[start : start + 64] = b"\xff" * 64
    path.write_bytes(data)
    with pytest.raises(StoreDamaged):
        use(kb)
    assert verify(kb)
    mends(kb)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE passages SET text = text || '!' WHERE row = 3",
        "UPDATE passages SET metadata = '{}' WHERE row = 3",
        "DELETE FROM passages WHERE row = 3",
        "DELETE FROM documents WHERE id = 2",
        "UPDATE documents SET digest = '00' WHERE id = 2",
        "UPDATE documents SET removed = 1 WHERE id = 2",
    ],
)
def test_a_table_that_was_meddled_with(kb, sql):
    table = sqlite3.connect(kb / Index.open(kb).manifest.table)
    table.execute(sql)
    table.commit()
    table.close()
    problems = verify(kb)
    assert problems
    assert all("--rebuild" in problem.hint for problem in problems)
    mends(kb)


def test_a_table_of_another_index(kb, tmp_path):
    make(tmp_path / "other", documents(20))
    shutil.copy(tmp_path / "other" / Index.open(tmp_path / "other").manifest.table, kb / Index.open(kb).manifest.table)
    with pytest.raises(StoreDamaged, match="does not belong"):
        list(Index.open(kb))
    assert verify(kb)


def test_an_older_copy_of_the_table(kb, tmp_path):
    old = tmp_path / "old.sqlite"
    table = kb / Index.open(kb).manifest.table
    shutil.copy(table, old)
    make(kb, documents(60))
    shutil.copy(old, kb / Index.open(kb).manifest.table)
    with pytest.raises(StoreDamaged):
        list(Index.open(kb))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b'{"format": 1}',
        b'{"format": 1, "checksum": "x", "id": 3}',
        b'{"checksum": ""}',
        b"[" * 100_000,
    ],
)
def test_a_manifest_that_is_none(kb, data):
    (kb / "manifest.json").write_bytes(data)
    with pytest.raises(StoreDamaged, match=r"manifest\.json.*--rebuild"):
        Index.open(kb)
    (problem,) = verify(kb)
    assert "manifest.json" in problem.what
    with pytest.raises(StoreDamaged):
        make(kb, documents(9))
    mends(kb)


def edited(kb: Path, **changes: object) -> None:
    """Writes a manifest whose checksum is right and whose contents are not."""
    values = json.loads((kb / "manifest.json").read_text())
    body = {k: v for k, v in values.items() if k not in ("format", "checksum")} | changes
    values = {"format": 1, "checksum": manifest._checksum(body), **body}
    (kb / "manifest.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    "changes",
    [
        {"table": "../../etc/passwd"},
        {"table": "/etc/passwd"},
        {"faiss": {"name": "../x.index", "bytes": 1, "sha256": ""}},
        {"bm25": [{"name": "bm25-000001/../../x", "bytes": 1, "sha256": ""}]},
        {"shards": []},
        {"shards": 5},
        {"retriever": "magic"},
        {"model": {"name": "x"}},
        {"chunking": None},
        {"more": 1},
    ],
)
def test_a_manifest_that_lies(kb, changes):
    edited(kb, **changes)
    with pytest.raises(StoreDamaged, match="--rebuild"):
        Index.open(kb)


def test_a_single_changed_digit(kb):
    path = kb / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"documents": 10', '"documents": 11'))
    assert path.read_text() != text
    with pytest.raises(StoreDamaged, match="checksum"):
        Index.open(kb)


@pytest.mark.parametrize(
    ("version", "who"), [(manifest.FORMAT + 1, "a newer ragzip"), (0, "another ragzip"), ("x", "another ragzip")]
)
def test_another_format(kb, version, who):
    values = json.loads((kb / "manifest.json").read_text())
    (kb / "manifest.json").write_text(json.dumps({**values, "format": version}))
    with pytest.raises(
        StoreMismatch,
        match=rf"format {version!r}, written by {who}; this ragzip reads format {manifest.FORMAT}.*Upgrade",
    ):
        Index.open(kb)
    with pytest.raises(StoreMismatch):
        make(kb, documents(9))
    mends(kb)


def test_no_index(tmp_path):
    with pytest.raises(StoreError, match="no such index") as error:
        Index.open(tmp_path / "none")
    assert "ragzip index" in error.value.hint
    with pytest.raises(StoreError, match="holds no index"):
        Index.open(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="this is a file"):
        Index.open(tmp_path / "file")


def test_a_damaged_index_stays_until_its_rebuild_is_done(kb):
    (kb / "manifest.json").write_bytes(b"garbage")
    before = sorted(path.name for path in kb.rglob("*"))

    def failing():
        yield from documents(5)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        make(kb, failing(), rebuild=True)
    assert (kb / "manifest.json").read_bytes() == b"garbage"
    assert set(before) <= {path.name for path in kb.rglob("*")}
    mends(kb)
    assert not {name for name in before if name.startswith(("faiss", "passages"))} & {p.name for p in kb.iterdir()}


def test_a_rebuild_may_change_everything(kb):
    other = WordEncoder(12, name="other")
    report = make(kb, documents(4), rebuild=True, encoder=other, retriever="dense", tokens=40, overlap=4, roots=["/x"])
    told = info(kb)
    assert (told.model, told.dimensions, told.retriever, told.tokens, told.overlap) == ("other", 12, "dense", 40, 4)
    assert (report.added, report.documents, told.documents) == (4, 4, 4)
    make(kb, documents(4), rebuild=True, retriever="bm25", encoder=None)
    assert (info(kb).model, info(kb).retriever) == ("", "bm25")
    # What is left open stays as it was.
    make(kb, documents(5), rebuild=True, retriever=None, tokens=None, overlap=None)
    assert (info(kb).retriever, info(kb).tokens, info(kb).documents) == ("bm25", 24, 5)


def test_a_rebuild_of_nothing_keeps_what_there_is(kb):
    held = content(kb)
    assert make(kb, [], rebuild=True).documents == 0
    assert content(kb) == held


def test_a_rebuild_drops_other_roots(kb):
    make(kb, [document(50, root="/else")], roots=["/else"])
    make(kb, documents(2), rebuild=True, roots=[ROOT])
    assert sorted(content(kb)) == ["docs/0.md", "docs/1.md"]


def test_vectors_that_are_not_finite_are_found(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(2))
    shard = Index.open(kb).manifest.shards[0]
    path = kb / shard.file.name
    array = np.load(path)
    array[1, 1] = np.nan
    np.save(path, array)
    assert path.stat().st_size == shard.file.bytes
    values = json.loads((kb / "manifest.json").read_text())
    from ragzip.indexes.files import checksum

    shards = values["shards"]
    shards[0]["file"]["sha256"] = checksum(path)
    edited(kb, shards=shards)
    assert any("not finite" in problem.what for problem in verify(kb))


def test_reading_writes_nothing(kb):
    def state():
        return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in kb.rglob("*")}

    before = state()
    use(kb)
    found(kb)
    info(kb)
    verify(kb)
    assert state() == before


def test_a_file_that_cannot_be_read_is_not_thrown_away(kb, monkeypatch):
    before = {path.name: path.read_bytes() for path in kb.rglob("*") if path.is_file()}

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    for module in (soundness, importlib.import_module("ragzip.indexes.repair")):
        monkeypatch.setattr(module, "checksum", refused)
    monkeypatch.setattr(soundness, "_known", {})
    for use_it in (Index.open, repair):
        with pytest.raises(StoreError, match="cannot be read: Permission denied") as caught:
            use_it(kb)
        assert not isinstance(caught.value, StoreDamaged)
    after = {path.name: path.read_bytes() for path in kb.rglob("*") if path.is_file()}
    assert {name: data for name, data in after.items() if name in before} == before
