"""The retrievers over an index: one protocol, the same laws."""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.errors import ConfigError, StoreError, StoreMismatch, UsageError
from ragzip.indexes import Index
from ragzip.protocols import Retriever
from ragzip.retrievers import BM25, Dense, Fusion, for_index
from ragzip.types import Passage, Query
from tests.indexes.tools import WordEncoder, document, documents, make

QUESTIONS = ["amber bridge copper", "title 7", "ocean north 3", "kettle"]


@pytest.fixture(autouse=True)
def encoder(monkeypatch):
    words = WordEncoder()
    monkeypatch.setattr("ragzip.models.load_encoder", lambda name, **_: words)
    return words


@pytest.fixture(scope="module")
def kb(tmp_path_factory):
    folder = tmp_path_factory.mktemp("retrievers") / "kb"
    make(folder, documents(20))
    return str(folder)


def each(kb: str, **options: object) -> list[Retriever]:
    return [Dense(kb, **options), BM25(kb, **options), for_index(kb, **options)]


@pytest.mark.parametrize("number", range(3))
def test_laws(kb, number):
    retriever = each(kb)[number]
    assert isinstance(retriever, Retriever)
    queries = [Query(text) for text in QUESTIONS]
    results = retriever.retrieve(queries)
    assert len(results) == len(queries)
    assert any(results)
    index = Index.open(kb)
    for query, passages in zip(queries, results, strict=True):
        assert retriever.retrieve([query]) == [passages]
        assert len(passages) <= 20
        assert len({p.id for p in passages}) == len(passages)
        scores = [p.score for p in passages]
        assert all(isinstance(score, float) and np.isfinite(score) for score in scores)
        assert scores == sorted(scores, reverse=True)
        for passage in passages:
            stored = index.passage(passage.id)
            assert (stored.text, stored.title, stored.metadata) == (passage.text, passage.title, passage.metadata)
        for k in (1, 5):
            assert [p.id for p in retriever.retrieve([query], top_k=k)[0]] == [p.id for p in passages[:k]]
    assert retriever.retrieve([]) == []
    assert pickle.loads(pickle.dumps(retriever)) == retriever
    assert hash(retriever) == hash(pickle.loads(pickle.dumps(retriever)))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: retriever.retrieve(queries), range(8))) == [results] * 8
    for bad in (0, -1, 2.5, True, "3"):
        with pytest.raises(ConfigError) as error:
            retriever.retrieve(queries, top_k=bad)
        assert error.value.path == "top_k"


@pytest.mark.parametrize("number", range(3))
def test_more_than_there_is_and_empty_questions(kb, number):
    retriever = each(kb, top_k=10_000)[number]
    size = len(Index.open(kb))
    found = retriever.retrieve([Query("amber"), Query(""), Query("zzzz 日本"), Query("x" * 5_000_000)])
    assert all(len(passages) <= size for passages in found)
    if isinstance(retriever, BM25):
        assert [len(passages) for passages in found[1:]] == [0, 0, 0]
    else:
        assert len(found[0]) == size


@pytest.mark.parametrize("number", range(3))
def test_filters(kb, number):
    plain, filtered = each(kb, top_k=500)[number], each(kb, top_k=500, filters=("number<5", "even=true"))[number]
    for text in QUESTIONS:
        expected = [p.id for p in plain.retrieve([Query(text)])[0] if p.metadata["number"] in (0, 2, 4)]
        got = [p.id for p in filtered.retrieve([Query(text)])[0]]
        if isinstance(plain, Fusion):
            assert set(got) <= {f"docs/{n}.md#{m}" for n in (0, 2, 4) for m in range(99)}
        else:
            assert got == expected


def test_an_empty_index_gives_nothing(tmp_path):
    make(tmp_path / "kb", [document(1)])
    make(tmp_path / "kb", [])
    for retriever in each(str(tmp_path / "kb")):
        assert retriever.retrieve([Query("amber"), Query("b")]) == [[], []]


def test_a_new_commit_is_seen(tmp_path):
    make(tmp_path / "kb", documents(3))
    retriever = BM25(str(tmp_path / "kb"))
    assert retriever.retrieve([Query("the 1234")])[0] == []
    make(tmp_path / "kb", [*documents(3), document(1234)])
    assert retriever.retrieve([Query("the 1234")])[0][0].metadata["number"] == 1234


def test_questions_are_encoded_one_at_a_time(kb, encoder):
    Dense(kb).retrieve([Query(text) for text in QUESTIONS])
    assert encoder.calls == [[text] for text in QUESTIONS]


@pytest.mark.parametrize("kind", [Dense, BM25])
@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"index": ""}, "index"),
        ({"index": 3}, "index"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"filters": ("a=1", "nonsense")}, "filters.1"),
        ({"filters": ["a=1"]}, "filters"),
    ],
)
def test_wrong_options(kind, options, path):
    with pytest.raises(ConfigError) as error:
        kind(**{"index": "kb", **options})
    assert error.value.path == path


def test_what_the_index_does_not_have(tmp_path):
    with pytest.raises(StoreError, match="no such index"):
        Dense(str(tmp_path / "kb")).retrieve([Query("x")])
    make(tmp_path / "kb", documents(2), retriever="bm25")
    with pytest.raises(StoreMismatch, match=r"made for bm25.*--rebuild"):
        Dense(str(tmp_path / "kb")).retrieve([Query("x")])
    with pytest.raises(StoreMismatch, match="made for bm25"):
        for_index(tmp_path / "kb", kind="fusion")


def test_another_model_than_the_indexs(kb, monkeypatch):
    other = WordEncoder(name="other")
    other.name = "words"
    monkeypatch.setattr("ragzip.models.load_encoder", lambda name, **_: other)
    with pytest.raises(StoreMismatch, match=r"made with words \(\w+\), not with words \(\w+\).*--rebuild"):
        Dense(kb).retrieve([Query("x")])


def test_an_encoder_that_gives_no_numbers(kb, encoder, monkeypatch):
    monkeypatch.setattr(encoder, "_one", lambda text: np.full(16, np.nan))
    with pytest.raises(UsageError, match="finite"):
        Dense(kb).retrieve([Query("x")])


def test_for_index_is_what_the_manifest_names(tmp_path):
    for kind, expected in (("dense", Dense), ("bm25", BM25), ("fusion", Fusion)):
        kb = tmp_path / kind
        make(kb, documents(2), retriever=kind)
        retriever = for_index(kb, top_k=7, filters=("even=true",))
        assert type(retriever) is expected
        assert retriever.top_k == 7
        parts = retriever.retrievers if isinstance(retriever, Fusion) else (retriever,)
        assert all(part.filters == ("even=true",) and part.index == str(kb) for part in parts)
        assert retriever.retrieve([Query("title")])
    assert for_index(kb, 7) == Fusion(
        (Dense(str(kb), 7), BM25(str(kb), 7)), top_k=7, weights=(0.6, 0.4), normalize="minmax"
    )
    assert for_index(tmp_path / "fusion", kind="bm25") == BM25(str(tmp_path / "fusion"))
    assert for_index(tmp_path / "fusion", kind="dense") == Dense(str(tmp_path / "fusion"))
    with pytest.raises(ConfigError, match="hybrid"):
        for_index(tmp_path / "dense", kind="hybrid")
    # Words are found in an index that was made for vectors alone, too.
    assert BM25(str(tmp_path / "dense")).retrieve([Query("title")])[0]


class Fixed:
    """Gives lists by question."""

    def __init__(self, **lists: list[str]) -> None:
        self.lists, self.asked = lists, []

    def retrieve(self, queries, *, top_k=None):
        self.asked.append(top_k)
        return [[Passage(i, f"text {i}", score=9.0) for i in self.lists[q.text][:top_k]] for q in queries]


IDS = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)


@given(st.lists(IDS, min_size=1, max_size=4), st.integers(1, 100), st.integers(1, 10), st.integers(1, 10))
def test_fusion_adds_reciprocal_ranks(lists, k, depth, top_k):
    parts = tuple(Fixed(q=ids) for ids in lists)
    (got,) = Fusion(parts, k=k, depth=depth, top_k=top_k).retrieve([Query("q")])
    deep = [ids[: max(depth, top_k)] for ids in lists]
    expected = {i: sum(1 / (k + ids.index(i) + 1) for ids in deep if i in ids) for ids in deep for i in ids}
    assert [p.id for p in got] == sorted(expected, key=lambda i: -expected[i])[:top_k]
    assert [p.score for p in got] == [pytest.approx(expected[p.id]) for p in got]
    assert all(part.asked == [max(depth, top_k)] for part in parts)


def test_fusion_counts_a_repeated_passage_once():
    (got,) = Fusion((Fixed(q=["a", "b", "a"]), Fixed(q=["b"]))).retrieve([Query("q")])
    assert [(p.id, p.score) for p in got] == [("b", 1 / 62 + 1 / 61), ("a", 1 / 61)]


def test_fusion_of_several_questions():
    fusion = Fusion((Fixed(x=["a"], y=["b"]), Fixed(x=["c"], y=[])))
    assert [[p.id for p in found] for found in fusion.retrieve([Query("x"), Query("y")])] == [["a", "c"], ["b"]]


@pytest.mark.parametrize(
    ("options", "path"),
    [({"retrievers": ()}, "retrievers"), ({"k": 0}, "k"), ({"depth": 0}, "depth"), ({"top_k": 0}, "top_k")],
)
def test_fusion_options(options, path):
    with pytest.raises(ConfigError) as error:
        Fusion(**{"retrievers": (BM25("kb"),), **options})
    assert error.value.path == path


def test_building_a_retriever_loads_nothing():
    code = (
        "import sys; from ragzip.retrievers import *;"
        "Fusion((Dense('kb'), BM25('kb'))); Oracle('x.jsonl');"
        "print([m for m in ('numpy', 'faiss', 'bm25s', 'torch', 'sqlite3', 'tokenizers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
