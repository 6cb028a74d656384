"""``ragzip index`` and its subcommands."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ragzip.errors import IngestError
from tests.cli.conftest import Call


def test_indexing_reports_and_is_incremental(call: Call, docs: Path, kb: Path) -> None:
    again = json.loads(call("index", docs, "--index", kb, "--json").out)
    assert (again["added"], again["updated"], again["unchanged"], again["removed"]) == (0, 0, 3, 0)
    (docs / "dogs.txt").write_text("Dogs sleep all day.", encoding="utf-8")
    (docs / "cats.md").unlink()
    (docs / "new.txt").write_text("Birds sing.", encoding="utf-8")
    changed = json.loads(call("index", docs, "--index", kb, "--json").out)
    assert (changed["added"], changed["updated"], changed["unchanged"], changed["removed"]) == (1, 1, 1, 1)


def test_other_paths_stay(call: Call, docs: Path, kb: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("Fish swim.", encoding="utf-8")
    report = json.loads(call("index", other, "--index", kb, "--json").out)
    assert (report["added"], report["removed"], report["documents"]) == (1, 0, 4)


def test_add_and_remove(call: Call, docs: Path, kb: Path, tmp_path: Path) -> None:
    extra = tmp_path / "extra.txt"
    extra.write_text("Fish swim.", encoding="utf-8")
    assert json.loads(call("index", "add", extra, "--index", kb, "--json").out)["added"] == 1
    assert json.loads(call("index", "remove", "extra.txt", "--index", kb, "--json").out)["removed"] == 1
    nothing = call("index", "remove", "extra.txt", "--index", kb)
    assert nothing.code == 2
    assert "matches" in nothing.err


def test_info_and_verify(call: Call, kb: Path) -> None:
    info = json.loads(call("index", "info", "--index", kb, "--json", "--sources").out)
    assert info["documents"] == 3
    assert sorted(info["sources"]) == ["docs/cats.md", "docs/dogs.txt", "docs/sub/rain.rst"]
    assert "documents" in call("index", "info", "--index", kb).out
    assert call("index", "verify", "--index", kb).code == 0
    victim = next(p for p in sorted(kb.rglob("*")) if p.is_file() and "bm25" in str(p) and p.stat().st_size > 20)
    data = bytearray(victim.read_bytes())
    data[-1] ^= 0xFF
    victim.write_bytes(bytes(data))
    damaged = call("index", "verify", "--index", kb)
    assert damaged.code == 1
    assert victim.name in damaged.out


def test_what_cannot_be_read_is_listed_with_the_reason(call: Call, docs: Path) -> None:
    (docs / "broken.pdf").write_bytes(b"%PDF-1.7 nonsense")
    (docs / "latin.txt").write_bytes("caf\xe9 au lait".encode("latin-1"))
    (docs / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    result = call("index", docs, "--index", docs.parent / "kb2", "--retriever", "bm25")
    assert result.code == 0
    for name in ("broken.pdf", "latin.txt", "image.png"):
        assert name in result.err
        assert name not in result.out
    assert "UTF-8" in result.err
    again = call("index", docs, "--index", docs.parent / "kb3", "--retriever", "bm25", "--encoding", "latin-1")
    assert "latin.txt" not in again.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["index", "missing/", "--index", "new/"], "missing"),
        (["index", "EMPTY", "--index", "new/"], "no document"),
        (["index", "DOCS"], "--index"),
        (["index", "add", "DOCS", "--index", "new/"], "no index"),
        (["index", "info", "--index", "new/"], "new"),
        (["index", "info", "--index", "DOCS"], "not"),
        (["index", "verify", "--index", "new/"], "new"),
        (["index", "remove", "x", "--index", "new/"], "new"),
        (["index", "DOCS", "--index", "new/", "--retriever", "sparse"], "sparse"),
        (["index", "DOCS", "--index", "new/", "--tokens", "3"], "tokens"),
        (["index", "DOCS", "--index", "new/", "--model", "no-such-model"], "no-such-model"),
    ],
)
def test_bad_calls_leave_nothing_behind(
    call: Call, docs: Path, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    result = call(*[{"DOCS": str(docs), "EMPTY": str(tmp_path / "empty")}.get(a, a) for a in arguments])
    assert result.code in (1, 2)
    assert result.err.startswith("error: ")
    assert words in result.err
    assert not (tmp_path / "new" / "manifest.json").exists()


def test_standard_input(call: Call, docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import sys

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"The moon is made of rock.\n")))
    report = json.loads(call("index", "-", "--index", docs.parent / "kb4", "--retriever", "bm25", "--json").out)
    assert report["added"] == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_a_read_only_place(call: Call, docs: Path) -> None:
    docs.parent.chmod(0o500)
    try:
        result = call("index", docs, "--index", docs.parent / "kb5", "--retriever", "bm25")
    finally:
        docs.parent.chmod(0o700)
    assert result.code == 1


@pytest.mark.parametrize("harm", ["truncate", "delete", "garble"])
def test_a_damaged_index_is_never_called_fine(call: Call, docs: Path, kb: Path, harm: str) -> None:
    """Every file in turn: reading, indexing again and removing say so; --rebuild mends it."""
    names = [p.relative_to(kb) for p in sorted(kb.rglob("*")) if p.is_file() and not p.name.endswith(".lock")]
    assert len(names) > 3
    for name in names:
        path, before = kb / name, (kb / name).read_bytes()
        if harm == "truncate":
            path.write_bytes(before[: len(before) // 2])
        elif harm == "delete":
            path.unlink()
        elif name.suffix == ".sqlite":
            path.write_bytes(b"\0" * 100 + before[100:])
        else:
            path.write_bytes(before[:-1] + bytes([before[-1] ^ 0x55]))
        if name.name == "manifest.json" and harm == "delete":
            path.write_bytes(before)
            continue
        for arguments in (["query", "cat", "--compress", "none", "--index", kb], ["index", docs, "--index", kb]):
            result = call(*arguments)
            assert result.code == 1, (name, arguments, result.out)
            assert "--rebuild" in result.err, (name, arguments, result.err)
        assert call("index", docs, "--index", kb, "--rebuild", "--retriever", "bm25").code == 0
        assert call("index", "verify", "--index", kb).code == 0
        for old in [p for p in kb.rglob("*") if p.is_file()]:
            old.unlink()
        assert call("index", docs, "--index", kb, "--retriever", "bm25").code == 0


def test_an_empty_source_removes_nothing(call: Call, kb: Path) -> None:
    for nothing in ("", "/", " "):
        result = call("index", "remove", nothing, "--index", kb)
        assert result.code == 2
        assert "an empty source names no document" in result.err
    assert json.loads(call("index", "info", "--index", kb, "--json").out)["documents"] == 3


def test_an_empty_folder_does_not_empty_an_index(call: Call, docs: Path, kb: Path) -> None:
    """More often it is one that is not mounted."""
    for path in [path for path in docs.rglob("*") if path.is_file()]:
        path.unlink()
    result = call("index", docs, "--index", kb)
    assert result.code == 1
    assert "Nothing was removed" in result.err
    assert call("index", docs, "--index", kb, "--rebuild").code == 1
    assert json.loads(call("index", "info", "--index", kb, "--json").out)["documents"] == 3
    (docs / "new.txt").write_text("Fish swim.")
    assert json.loads(call("index", docs, "--index", kb, "--json").out)["removed"] == 3


def test_what_a_file_does_not_say_any_more_goes(call: Call, docs: Path, tmp_path: Path) -> None:
    (docs / "x.jsonl").write_text('{"id": "a", "text": "The first record."}\n{"id": "b", "text": "The second one."}\n')
    (docs / "y.csv").write_text("text\nA row of a table.\n")
    index = tmp_path / "kb3"
    assert json.loads(call("index", docs, "--index", index, "--retriever", "bm25", "--json").out)["documents"] == 6
    (docs / "x.jsonl").write_text('{"id": "a", "text": "The first record."}\n{"id": "b", "text": broken\n')
    report = json.loads(call("index", docs, "--index", index, "--json").out)
    assert report["removed"] == 0  # nobody knows which record the broken line was
    (docs / "x.jsonl").write_text("")
    (docs / "y.csv").write_text("text\n")
    (docs / "dogs.txt").write_text("")
    report = json.loads(call("index", docs, "--index", index, "--json").out)
    assert (report["removed"], report["documents"]) == (4, 2)


def test_of_several_folders_the_empty_one_stays_and_is_told(call: Call, docs: Path, kb: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "fish.txt").write_text("Fish swim.")
    call("index", docs, notes, "--index", kb)
    for path in [path for path in docs.rglob("*") if path.is_file()]:
        path.unlink()
    (notes / "fish.txt").unlink()
    (notes / "birds.txt").write_text("Birds fly.")
    report = json.loads(call("index", docs, notes, "--index", kb, "--json").out)
    assert (report["added"], report["removed"], report["documents"]) == (1, 1, 4)
    assert any("no document found" in skipped["reason"] for skipped in report["skipped"])
    assert call("index", docs, "--index", kb).code == 1
    assert json.loads(call("index", "info", "--index", kb, "--json").out)["documents"] == 4


def test_a_stopped_rebuild_and_an_empty_folder_keep_the_index(docs: Path, kb: Path) -> None:
    from ragzip.indexes import Index, build_index
    from ragzip.indexes.run import Run

    flush = Run.flush

    def stop(self):
        flush(self)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Run, "flush", stop)
        with pytest.raises(KeyboardInterrupt):
            build_index(docs, kb, rebuild=True, retriever="bm25")
    assert list(kb.glob("manifest.rebuild*"))
    for path in [path for path in docs.rglob("*") if path.is_file()]:
        path.unlink()
    with pytest.raises(IngestError, match="stays"):
        build_index(docs, kb, rebuild=True, retriever="bm25")
    assert len(list(Index.open(kb).documents())) == 3


def test_records_without_text_go_and_neighbours_of_skipped_files_are_no_part_of_them(
    call: Call, docs: Path, tmp_path: Path
) -> None:
    index = tmp_path / "kb4"
    lines = [f'{{"id": "{name}", "text": "Record {name}."}}' for name in "abc"]
    (docs / "x.jsonl").write_text("\n".join(lines))
    (docs / "chat").mkdir()
    (docs / "chat" / "a.txt").write_text("Talk.")
    (docs / "chat:12").write_text("no suffix, which is skipped")
    assert json.loads(call("index", docs, "--index", index, "--retriever", "bm25", "--json").out)["documents"] == 7
    (docs / "x.jsonl").write_text("\n".join([lines[0], '{"id": "c", "text": ""}']))
    (docs / "chat" / "a.txt").unlink()
    assert json.loads(call("index", docs, "--index", index, "--json").out)["removed"] == 3
