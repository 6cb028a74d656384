"""The ``graph`` retriever: the laws of all, and what only a walk finds."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from ragzip import config
from ragzip.errors import ConfigError, StoreMismatch
from ragzip.indexes import Index, info, verify
from ragzip.indexes.graph.part import GraphPart
from ragzip.ingest import Document
from ragzip.protocols import Retriever
from ragzip.retrievers import Dense, Graph, for_index
from ragzip.types import Query
from tests.indexes.tools import ROOT, WordEncoder, document, documents, make, stop

QUESTIONS = ["amber bridge copper", "title 7", "ocean north 3", "kettle", "", "zzzz 日本"]


@pytest.fixture(autouse=True)
def encoder(monkeypatch):
    words = WordEncoder()
    monkeypatch.setattr("ragzip.models.load_encoder", lambda name, **_: words)
    return words


@pytest.fixture(scope="module")
def kb(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graph") / "kb"
    make(folder, documents(20), retriever="graph")
    return str(folder)


def each(kb, **options):
    plain = Graph(kb, **options)
    return [
        plain,
        replace(plain, method="submodular", pool=30),
        replace(Graph.hipporag2(kb), **options),
        replace(plain, entities=1.0, words=0.0),
    ]


@pytest.mark.parametrize("number", range(4))
def test_laws(kb, number):
    retriever = each(kb)[number]
    assert isinstance(retriever, Retriever)
    queries = [Query(text) for text in QUESTIONS]
    results = retriever.retrieve(queries)
    assert [len(passages) for passages in results] == [20] * len(queries)
    index = Index.open(kb)
    for query, passages in zip(queries, results, strict=True):
        assert retriever.retrieve([query]) == [passages]
        assert len({p.id for p in passages}) == len(passages)
        scores = [p.score for p in passages]
        assert all(isinstance(score, float) and np.isfinite(score) for score in scores)
        assert scores == sorted(scores, reverse=True)
        for passage in passages:
            stored = index.passage(passage.id)
            assert (stored.text, stored.title, stored.metadata) == (passage.text, passage.title, passage.metadata)
        for k in (1, 5, 60):
            more = [p.id for p in retriever.retrieve([query], top_k=k)[0]]
            assert more[:20] == [p.id for p in passages][:k]
    assert retriever.retrieve([]) == []
    assert pickle.loads(pickle.dumps(retriever)) == retriever
    assert config.from_config("retriever", config.to_config(retriever)) == retriever
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: retriever.retrieve(queries), range(6))) == [results] * 6


@pytest.mark.parametrize("number", range(4))
def test_more_than_there_is_gives_all(kb, number):
    size = len(Index.open(kb))
    found = each(kb, top_k=10_000)[number].retrieve([Query(text) for text in ("amber", "", "x" * 300_000)])
    assert [len({p.id for p in passages}) for passages in found] == [size] * 3


@pytest.mark.parametrize("number", range(4))
def test_filters_leave_out_and_give_all_that_pass(kb, number):
    filtered = each(kb, top_k=500, filters=("number<5", "even=true"))[number]
    passing = {p.id for p in Index.open(kb) if p.metadata["number"] in (0, 2, 4)}
    for text in QUESTIONS:
        assert {p.id for p in filtered.retrieve([Query(text)])[0]} == passing
    nothing = each(kb, filters=("number=99",))[number]
    assert nothing.retrieve([Query("amber")]) == [[]]


def test_a_passage_that_only_a_name_leads_to_is_found(tmp_path):
    far = Document("far", "Winters bring skating, and herons nest on poles.", "Orrin Vale", root=ROOT)
    near = Document("near", "The amber bridge copper prize went to a skater from Orrin Vale.", "Prize", root=ROOT)
    kb = str(tmp_path / "kb")
    make(kb, [*documents(30), far, near], retriever="graph", tokens=60)
    question = Query("amber bridge copper prize")
    found = [p.title for p in Graph(kb).retrieve([question], top_k=4)[0]]
    assert found[0] == "Prize"
    assert "Orrin Vale" in found
    assert "Orrin Vale" not in [p.title for p in Dense(kb).retrieve([question], top_k=8)[0]]
    apart = Graph(kb, mention=0.0, title=0.0, name=0.0, term=0.0, near=0.0)
    assert "Orrin Vale" not in [p.title for p in apart.retrieve([question], top_k=4)[0]]


def test_a_walk_of_one_step_and_one_edge_still_finds_what_is_near(kb):
    for options in ({"hops": 1}, {"budget": 1}, {"damping": 0.0}, {"mix": 1.0}):
        found = Graph(kb, words=0.0, entities=0.0, **options).retrieve([Query("amber bridge")], top_k=3)[0]
        assert found[0].id == Dense(kb).retrieve([Query("amber bridge")], top_k=1)[0][0].id


def test_by_cosine_alone_it_is_dense(kb):
    for text in QUESTIONS:
        dense = np.array([p.score for p in Dense(kb).retrieve([Query(text)], top_k=9)[0]])
        scores = [p.score for p in Graph(kb, mix=1.0).retrieve([Query(text)], top_k=9)[0]]
        np.testing.assert_allclose(scores, np.maximum(dense, 0) / dense[0], atol=1e-5)


def test_hipporag2_without_an_entity_is_dense(kb):
    question = [Query("qqq")]
    assert Graph.hipporag2(kb).retrieve(question) == Dense(kb).retrieve(question)


@pytest.mark.parametrize(
    "items",
    [
        [document(1, sentences=1)],
        [Document(f"docs/{n}", "The same words.", "Same", root=ROOT) for n in range(6)],
        [Document("docs/a", "...", "!!!", root=ROOT), Document("docs/b", "🙂", "", root=ROOT)],
    ],
)
def test_odd_corpora(tmp_path, items):
    kb = str(tmp_path / "kb")
    make(kb, items, retriever="graph")
    ids = [p.id for p in Index.open(kb)]
    for retriever in each(kb):
        for found in retriever.retrieve([Query("same words"), Query(""), Query("!")]):
            assert sorted(p.id for p in found) == sorted(ids)


def test_equal_passages_come_in_the_order_of_the_index(tmp_path):
    kb = str(tmp_path / "kb")
    make(kb, [Document(f"docs/{n}", "The same words.", "Same", root=ROOT) for n in range(6)], retriever="graph")
    found = Graph(kb, next=0.0, near=0.0, document=0.0).retrieve([Query("other")])[0]
    groups = {}
    for passage in found:
        groups.setdefault(passage.score, []).append(passage.id)
    assert all(ids == sorted(ids) for ids in groups.values())


def test_an_empty_index_gives_nothing_and_one_without_a_graph_says_so(tmp_path):
    kb = str(tmp_path / "kb")
    make(kb, documents(3))
    with pytest.raises(StoreMismatch, match="--retriever graph"):
        Graph(kb).retrieve([Query("a")])
    with pytest.raises(StoreMismatch):
        for_index(kb, kind="graph")
    make(kb, documents(3), retriever="graph")
    assert for_index(kb) == Graph(kb)
    make(kb, [])
    assert Graph(kb).retrieve([Query("a"), Query("b")]) == [[], []]


def test_what_is_added_is_found_and_what_is_removed_is_not(tmp_path):
    kb = str(tmp_path / "kb")
    make(kb, documents(3), retriever="graph")
    retriever = Graph(kb)
    retriever.load()
    make(kb, [*documents(2), document(1234)])
    found = [p.metadata["number"] for p in retriever.retrieve([Query("title 1234")])[0]]
    assert found[0] == 1234
    assert 2 not in found


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"index": ""}, "index"),
        ({"top_k": 0}, "top_k"),
        ({"filters": ["a=1"]}, "filters"),
        ({"method": "walk"}, "method"),
        ({"seeding": "none"}, "seeding"),
        ({"damping": 1.0}, "damping"),
        ({"damping": float("nan")}, "damping"),
        ({"entities": 0.8, "words": 0.3}, "entities"),
        ({"mix": True}, "mix"),
        ({"near": -0.1}, "near"),
        ({"near": float("inf")}, "near"),
        ({"temperature": 0}, "temperature"),
        ({"hops": 0}, "hops"),
        ({"budget": 2.5}, "budget"),
    ],
)
def test_options_that_cannot_be(options, path):
    with pytest.raises(ConfigError) as error:
        Graph(**{"index": "kb", **options})
    assert error.value.path == path


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("when", ["reading", "finishing"])
def test_while_documents_are_added_the_graph_of_before_is_walked(tmp_path, monkeypatch, when, number):
    kb = tmp_path / "kb"
    make(kb, documents(12), retriever="graph")
    before = [replace(r, top_k=100).retrieve([Query("copper 5")]) for r in each(str(kb))][number][0]
    kept = stop(kb, when, lambda items: make(kb, items, sync=False, commit_passages=1), GraphPart, monkeypatch)
    assert not info(kb).searchable
    assert verify(kb) == []
    alive = {p.id for p in Index.open(kb)}
    retriever = replace(each(str(kb))[number], top_k=100)
    for text in QUESTIONS:
        (found,) = retriever.retrieve([Query(text)])
        assert {p.id for p in found} == alive
    (found,) = retriever.retrieve([Query("copper 5")])
    assert len(kept) > 8
    assert {p.id for p in found[:5]} & {p.id for p in before[:5]}
    (new,) = replace(retriever, filters=("number=40",)).retrieve([Query("amber bridge")])
    assert new
    make(kb, [], sync=False)
    assert info(kb).searchable
    assert {p.id for p in retriever.retrieve([Query("copper 5")])[0]} == alive
