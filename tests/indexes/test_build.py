"""Indexing: what is stored, what is skipped, and that any history ends where a fresh build does."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from ragzip.errors import ConfigError, ModelError, StoreError, StoreMismatch, UsageError
from ragzip.indexes import Index, info, remove, verify
from ragzip.ingest import Document, Skipped, Unchanged, chunk
from tests.indexes.tools import ROOT, WordEncoder, content, document, documents, found, make


def test_passages_come_back_as_they_were_cut(tmp_path):
    docs = documents(5)
    report = make(tmp_path / "kb", docs)
    encoder = WordEncoder()
    expected = {d.source: chunk(d, tokens=24, overlap=0, count_tokens=encoder.count_tokens) for d in docs}
    with Index.open(tmp_path / "kb") as index:
        assert len(index) == report.passages == report.written == sum(map(len, expected.values())) > 5
        assert list(index) == [passage for passages in expected.values() for passage in passages]
        for passage in index:
            assert index.passage(passage.id) == passage
        assert [d.source for d in index.documents()] == sorted(expected)
        rows = index.rows[[3, 1, 1]]
        assert [p.score for p in index.passages(rows, [0.5, 0.25, 0.125])] == [0.5, 0.25, 0.125]
        for missing in ("docs/0.md#999", "docs/0.md#", "docs/0.md#x", "nothing", "", "#0", "docs/0.md#²"):
            with pytest.raises(KeyError):
                index.passage(missing)
    assert verify(tmp_path / "kb") == []


def test_vectors_are_the_encoders(tmp_path):
    encoder = WordEncoder()
    make(tmp_path / "kb", documents(6), encoder=encoder)
    with Index.open(tmp_path / "kb") as index:
        texts = [f"{p.title}\n{p.text}" for p in index]
        np.testing.assert_array_equal(index.vectors.take(index.rows), encoder.encode(texts))


def test_unchanged_documents_are_not_encoded_again_and_nothing_is_written(tmp_path):
    make(tmp_path / "kb", documents(9))
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in (tmp_path / "kb").rglob("*") if p.is_file()}
    encoder = WordEncoder()
    report = make(tmp_path / "kb", documents(9), encoder=encoder)
    assert (report.unchanged, report.added, report.updated, report.removed, report.written) == (9, 0, 0, 0, 0)
    assert encoder.calls == []
    after = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in (tmp_path / "kb").rglob("*") if p.is_file()}
    assert after == before


def test_only_what_changed_is_encoded(tmp_path):
    make(tmp_path / "kb", documents(9))
    encoder = WordEncoder()
    docs = [document(n, version=int(n == 4)) for n in range(9)] + [document(20)]
    report = make(tmp_path / "kb", docs, encoder=encoder)
    assert (report.added, report.updated, report.unchanged) == (1, 1, 8)
    assert {text.split("\n")[0] for call in encoder.calls for text in call} == {"Title 4", "Title 20"}
    make(tmp_path / "fresh", docs)
    assert content(tmp_path / "kb") == content(tmp_path / "fresh")


def test_metadata_alone_is_a_change(tmp_path):
    make(tmp_path / "kb", [document(1, colour="red")])
    assert make(tmp_path / "kb", [document(1, colour="blue")]).updated == 1
    with Index.open(tmp_path / "kb") as index:
        assert {p.metadata["colour"] for p in index} == {"blue"}


def test_another_way_of_cutting_cuts_everything_again(tmp_path):
    make(tmp_path / "kb", documents(4))
    report = make(tmp_path / "kb", documents(4), tokens=40)
    assert report.updated == 4
    make(tmp_path / "fresh", documents(4), tokens=40)
    assert content(tmp_path / "kb") == content(tmp_path / "fresh")


def test_options_left_open_are_those_of_the_index(tmp_path):
    make(tmp_path / "kb", documents(4), tokens=40, overlap=8, retriever="dense")
    report = make(tmp_path / "kb", documents(5), tokens=None, overlap=None, retriever=None)
    assert (report.added, report.unchanged) == (1, 4)
    told = info(tmp_path / "kb")
    assert (told.tokens, told.overlap, told.retriever, told.documents) == (40, 8, "dense", 5)


def test_sync_removes_what_is_gone_from_its_roots_alone(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(4))
    make(kb, [document(n, root="/other") for n in range(10, 14)], roots=["/other"])
    report = make(kb, documents(2))
    assert report.removed == 2
    assert sorted(content(kb)) == sorted(f"docs/{n}.md" for n in (0, 1, 10, 11, 12, 13))
    assert make(kb, [], sync=False).removed == 0
    assert make(kb, [], roots=["/other"]).removed == 4
    assert sorted(content(kb)) == ["docs/0.md", "docs/1.md"]


def test_a_document_under_two_roots_goes_when_either_says_so(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(2))
    assert make(kb, [document(1, root="/docs/sub")], roots=["/docs/sub"]).unchanged == 1
    assert make(kb, [document(0)], roots=[ROOT]).removed == 1
    make(kb, documents(2))
    # Removing forgot the other root.
    assert make(kb, [], roots=["/docs/sub"]).removed == 0


def test_what_cannot_be_read_any_more_stays(tmp_path):
    kb = tmp_path / "kb"
    records = [Document(f"docs/table.csv#{n}", f"Row number {n}.", root=ROOT) for n in ("L2", "L3", "id7")]
    make(kb, [*documents(3), *records])
    skipped = [
        Skipped("docs/1.md", "no permission", ROOT),
        Skipped("docs/table.csv:3", "broken line", ROOT),
        Skipped("docs/new.pdf", "not a PDF", ROOT),
    ]
    report = make(kb, [document(0), records[0], *skipped])
    assert report.skipped == tuple(skipped)
    rows = ["docs/table.csv#L2", "docs/table.csv#L3", "docs/table.csv#id7"]  # of which the broken line may be any
    assert sorted(content(kb)) == ["docs/0.md", "docs/1.md", *rows]
    assert make(kb, [Skipped("docs", "no permission", ROOT)]).removed == 0
    assert make(kb, [document(0), document(1), *records[:2]]).removed == 1
    assert make(kb, [Skipped("doc", "no permission", ROOT)]).removed == 4


def test_the_first_of_two_with_one_source_counts(tmp_path):
    report = make(tmp_path / "kb", [document(1), document(1, version=1)])
    assert (report.added, report.documents, len(report.skipped)) == (1, 1, 1)
    assert "same source" in report.skipped[0].reason
    again = make(tmp_path / "kb", [document(1), document(1, version=1)])
    assert (again.unchanged, again.updated) == (1, 0)


def test_a_known_file_need_not_be_parsed(tmp_path):
    kb = tmp_path / "kb"
    paper = dataclasses.replace(document(1), raw_hash="abc")
    asked = []

    def load(raw_hash):
        def loading(known):
            asked.append(known(paper.source, raw_hash))
            same = Unchanged(paper.source, ROOT, raw_hash)
            yield same if asked[-1] else dataclasses.replace(paper, raw_hash=raw_hash)

        return loading

    assert make(kb, load("abc")).added == 1
    assert make(kb, load("abc")).unchanged == 1
    assert make(kb, load("abc"), tokens=40).updated == 1
    for _ in range(2):
        assert make(kb, load("def"), tokens=40).unchanged == 1
    assert asked == [False, True, False, False, True]
    with pytest.raises(StoreError, match="not known"):
        make(kb, [Unchanged("docs/never.pdf", ROOT, "x")])


def test_a_huge_document_is_one_commit_encoded_in_slices(tmp_path):
    encoder = WordEncoder()
    report = make(tmp_path / "kb", [document(1, sentences=100), document(2)], encoder=encoder)
    assert info(tmp_path / "kb").shards == 2
    assert max(map(len, encoder.calls)) < 16
    assert sum(map(len, encoder.calls)) == report.passages > 50


def test_strange_text_survives(tmp_path):
    texts = [
        "",
        " \n ",
        "a\0b. Next.",
        "lone \ud800 surrogate \udfff.",
        "日本語の文章。次の文。",
        "🙂🙂",
        "e\u0301" * 40,
    ]
    docs = [
        Document(f"docs/{n}\udc80.txt", t, f"t\udcff{n}", {"k": "\ud800", "f": 1.5}, root=ROOT)
        for n, t in enumerate(texts)
    ]
    report = make(tmp_path / "kb", docs)
    assert report.documents == len(texts)
    assert make(tmp_path / "kb", docs).unchanged == len(texts)
    with Index.open(tmp_path / "kb") as index:
        got = "".join(p.text for p in index)
        for piece in ("a\0b", "lone ? surrogate ?", "日本語の文章。", "🙂🙂"):
            assert piece in got
    assert verify(tmp_path / "kb") == []


def test_nothing_is_made_for_nothing(tmp_path):
    reason = Skipped("x.bin", "binary", ROOT)
    report = make(tmp_path / "a" / "kb", [reason])
    assert (report.documents, report.skipped) == (0, (reason,))
    assert not (tmp_path / "a").exists()

    def failing():
        raise UsageError("no such path")
        yield

    with pytest.raises(UsageError):
        make(tmp_path / "a" / "kb", failing())
    assert not (tmp_path / "a").exists()


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match=r"thesis\.tex"):
        make(tmp_path, documents(1))
    with pytest.raises(StoreError, match="this is a file"):
        make(tmp_path / "thesis.tex", documents(1))
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_loader_that_fails_midway_leaves_the_last_commit(tmp_path):
    def failing():
        yield from documents(11)
        raise RuntimeError("the network is down")

    with pytest.raises(RuntimeError, match="network"):
        make(tmp_path / "kb", failing())
    held = content(tmp_path / "kb")
    make(tmp_path / "fresh", documents(11))
    fresh = content(tmp_path / "fresh")
    assert 0 < len(held) < 11
    assert held == {source: fresh[source] for source in held}


@pytest.mark.parametrize("error", [OSError(5, "gone"), ModelError("no weights"), MemoryError(), KeyboardInterrupt()])
def test_errors_of_the_encoder_pass_as_they_are(tmp_path, error):
    class Failing(WordEncoder):
        def encode(self, texts, **options):
            raise error

    make(tmp_path / "kb", documents(2))
    with pytest.raises(type(error)) as raised:
        make(tmp_path / "kb", documents(4), encoder=Failing())
    assert raised.value is error
    assert len(content(tmp_path / "kb")) == 2
    assert not list((tmp_path / "kb").rglob("*.tmp"))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda n: np.full((n, 16), np.nan, np.float32), "not finite"),
        (lambda n: np.ones((n + 1, 16), np.float32), "17 texts|texts"),
        (lambda n: np.ones((n, 15), np.float32), "dimensions"),
    ],
)
def test_output_that_is_no_vectors_is_refused(tmp_path, output, message):
    class Broken(WordEncoder):
        def encode(self, texts, **options):
            return output(len(texts))

    with pytest.raises(ModelError, match=message):
        make(tmp_path / "kb", documents(2), encoder=Broken())
    assert Index.open(tmp_path / "kb").documents() == []


def test_another_model_is_refused_by_both_names(tmp_path):
    make(tmp_path / "kb", documents(3))
    other = WordEncoder(name="other-model")
    with pytest.raises(StoreMismatch, match=r"made with words .*not with other-model.*--rebuild"):
        make(tmp_path / "kb", documents(4), encoder=other)
    with pytest.raises(StoreMismatch, match="words"):
        Index.open(tmp_path / "kb", model="other-model")
    renamed = WordEncoder()
    renamed.name = "/the/same/model"
    assert make(tmp_path / "kb", documents(4), encoder=renamed).added == 1
    swapped = WordEncoder(name="other-model")
    swapped.name = "words"
    with pytest.raises(StoreMismatch, match="words"):
        make(tmp_path / "kb", documents(5), encoder=swapped)


def test_kinds_of_retriever(tmp_path):
    make(tmp_path / "terms", documents(3), retriever="bm25", encoder=None)
    told = info(tmp_path / "terms")
    assert (told.retriever, told.model, told.dimensions, told.shards, told.searchable) == ("bm25", "", 0, 0, True)
    with pytest.raises(StoreMismatch, match="without vectors"):
        make(tmp_path / "terms", documents(3), retriever="dense")
    with pytest.raises(StoreMismatch, match="no vectors"):
        Index.open(tmp_path / "terms").search_vectors(np.ones((1, 16), np.float32), 3)
    make(tmp_path / "kb", documents(3), retriever="dense")
    with pytest.raises(StoreMismatch, match="with vectors"):
        make(tmp_path / "kb", documents(3), retriever="bm25")
    # Between dense and fusion nothing needs to be encoded.
    before = content(tmp_path / "kb")
    encoder = WordEncoder()
    make(tmp_path / "kb", documents(3), retriever="fusion", encoder=encoder)
    assert encoder.calls == []
    assert content(tmp_path / "kb") == before
    manifest = json.loads((tmp_path / "kb" / "manifest.json").read_text())
    assert manifest["retriever"] == "fusion"
    assert manifest["bm25"]


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"tokens": 3}, "tokens"),
        ({"tokens": 24, "overlap": 20}, "overlap"),
        ({"overlap": -1}, "overlap"),
        ({"commit_passages": 0}, "commit_passages"),
        ({"retriever": "hybrid"}, "retriever"),
        ({"tokens": 2000}, "tokens"),
    ],
)
def test_options_outside_their_range(tmp_path, options, path):
    with pytest.raises(ConfigError) as raised:
        make(tmp_path / "kb", documents(1), **options)
    assert raised.value.path == path


def test_remove_by_source_folder_and_glob(tmp_path):
    kb = tmp_path / "kb"
    extra = [Document(name, "Some text here.", root=ROOT) for name in ("docs/[a].md", "sub/x.md", "t.csv#1", "t.csv#2")]
    make(kb, [*documents(12), *extra])
    with pytest.raises(UsageError, match="nope"):
        remove(kb, ["docs/0.md", "nope"])
    assert len(content(kb)) == 16
    report = remove(kb, ["docs/1*", "docs/[a].md", "sub/", "t.csv"])
    assert report.removed == 7
    assert report.documents == len(content(kb)) == 9
    assert verify(kb) == []
    assert remove(kb, ["docs"]).documents == 0
    assert Index.open(kb).search_terms(["amber"], 3)[0].rows.tolist() == []
    with pytest.raises(StoreError, match="no such index"):
        remove(tmp_path / "none", ["x"])


def test_dead_rows_are_cleared_away(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(10))
    make(kb, [document(n, version=int(n < 2)) for n in range(10)])
    assert info(kb).dead > 0
    make(kb, [document(n, version=1) for n in range(10)])
    told = info(kb)
    assert (told.dead, told.shards, told.documents) == (0, 1, 10)
    assert len(list(kb.glob("passages-*.sqlite"))) == len(list(kb.glob("faiss-*"))) == len(list(kb.glob("bm25-*"))) == 1
    make(tmp_path / "fresh", [document(n, version=1) for n in range(10)])
    assert content(kb) == content(tmp_path / "fresh")
    assert found(kb) == found(tmp_path / "fresh")
    assert verify(kb) == []
    # Roots survive: syncing still removes.
    assert make(kb, [document(1, version=1)]).removed == 9


def test_many_shards_are_joined(tmp_path):
    kb = tmp_path / "kb"
    make(kb, documents(70, sentences=2), commit_passages=1)
    assert info(kb).shards == len(list((kb / "vectors").iterdir())) == 7
    assert verify(kb) == []
    make(tmp_path / "fresh", documents(70, sentences=2), commit_passages=1000)
    assert content(kb) == content(tmp_path / "fresh")


def test_paths_with_strange_names(tmp_path, monkeypatch):
    kb = tmp_path / "a b" / "c#d?e%20f" / "ü'\";&"
    make(kb, documents(4))
    make(kb, [document(n, version=1) for n in range(4)])
    assert verify(kb) == []
    monkeypatch.chdir(kb.parent)
    assert content(Path(kb.name)) == content(kb)
    assert make(Path(kb.name), documents(1), rebuild=True).documents == 1


def test_progress_counts_passages(tmp_path):
    told = []
    report = make(tmp_path / "kb", documents(10), on_progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (report.passages, 0)


def test_what_names_a_document_is_no_glob(tmp_path):
    kb = tmp_path / "kb"
    names = ("docs/[draft] plan.md", "docs/d plan.md", "docs/a plan.md", "x/[ab]/1.md", "x/a/1.md")
    make(kb, [Document(name, "Some text here.", root=ROOT) for name in names])
    assert remove(kb, ["docs/[draft] plan.md", "x/[ab]"]).removed == 2
    assert content(kb).keys() == {"docs/d plan.md", "docs/a plan.md", "x/a/1.md"}
    assert remove(kb, ["docs/[da] plan.md"]).removed == 2


def test_a_folder_of_something_else_is_left_as_it_was(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="holds other files"):
        make(tmp_path, documents(2))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
