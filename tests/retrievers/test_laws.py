"""The laws of retrieval over every registered retriever; one that is added needs an entry here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragzip import registry
from ragzip.indexes.multi_vector import reader
from ragzip.ingest import Document
from ragzip.models import load_encoder
from ragzip.retrievers import BM25, JPQ, Dense, Fusion, Graph, LexSem, MultiVector, Oracle
from ragzip.retrievers.cross_encoder import CrossEncoder
from ragzip.retrievers.rerank import Rerank
from ragzip.testing import RetrieverContract
from ragzip.testing.models import tiny_encoder
from ragzip.testing.pair_scorers import tiny_pair_scorer
from ragzip.testing.pruners import tiny_pruner
from ragzip.types import Query
from tests.indexes.jpq_models import trained
from tests.indexes.tools import documents, make

RETRIEVERS = {
    "dense": [lambda it: Dense(it.kb)],
    "bm25": [lambda it: BM25(it.kb)],
    "lexsem": [lambda it: LexSem(it.kb), lambda it: LexSem(it.kb, strength=1.0)],
    "fusion": [
        lambda it: Fusion((Dense(it.kb), BM25(it.kb))),
        lambda it: Fusion((Graph(it.kb), MultiVector(it.kb)), weights=(0.3, 0.7), normalize="zscore"),
    ],
    "graph": [
        lambda it: Graph(it.kb),
        lambda it: Graph(it.kb, method="submodular", top_k=3),
        lambda it: Graph.hipporag2(it.kb),
    ],
    "multi_vector": [
        lambda it: MultiVector(it.kb, top_k=3),
        lambda it: MultiVector(it.kb, dense=0.0, candidates=2),
        lambda it: MultiVector(it.kb, candidates=0, dense=1.0),
    ],
    "jpq": [lambda it: JPQ(it.kb), lambda it: JPQ(it.kb, rescore=5)],
    "rerank": [lambda it: Rerank(BM25(it.kb), it.pruner, depth=4, dtype="fp32", device="cpu")],
    "cross_encoder": [lambda it: CrossEncoder(Dense(it.kb), it.scorer, depth=4, dtype="fp32", device="cpu")],
    "oracle": [lambda it: Oracle(it.labels)],
}
OVER_AN_INDEX = [name for name in RETRIEVERS if name != "oracle"]
LAWS = [name for name in vars(RetrieverContract) if name.startswith("test_")]


class Things:
    """Models, and an index that has all parts."""

    def __init__(self, folder: Path) -> None:
        self.base = str(tiny_encoder(folder / "encoder"))
        self.pruner = str(tiny_pruner(folder / "pruner", self.base))
        self.scorer = str(tiny_pair_scorer(folder / "scorer", self.base, activation="Identity"))
        self.jpq = trained(folder / "jpq", self.base)
        self.labels = str(folder / "labels.jsonl")
        found = [{"id": f"p{i}", "text": f"Text {i}."} for i in range(3)]
        rows = [{"question": f"Question {q.id}", "id": q.id, "passages": found} for q in RetrieverContract().queries()]
        Path(self.labels).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        self.kb = self.index(folder / "kb", documents(8))

    def index(self, kb: Path, items) -> str:
        small = {"repetitions": 4, "planes": 2, "projection": 8, "width": 0, "centroids": 8, "model": self.base}
        kinds = {"fusion": {}, "graph": {}, "multi_vector": small, "jpq": {"model": self.jpq}}
        for kind, settings in kinds.items():
            make(kb, items, encoder=load_encoder(self.base), retriever=kind, settings=settings)
        return str(kb)


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    return Things(tmp_path_factory.mktemp("laws"))


def test_every_retriever_is_here():
    assert set(RETRIEVERS) == set(registry._BUILTIN["retriever"])


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("filters", [(), ("source=docs/*",)])
def test_laws_where_encodings_find_only_some(things, law, filters, monkeypatch):
    monkeypatch.setattr(reader, "_ROOT", 0.0)
    monkeypatch.setattr(reader, "_TIMES", 1)
    contract = RetrieverContract()
    contract.make = lambda: MultiVector(things.kb, top_k=2, candidates=3, filters=filters)
    getattr(contract, law)()


@pytest.mark.filterwarnings("ignore:.*encodings of multi_vector find only")
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name, found in RETRIEVERS.items() for number in range(len(found))]
)
def test_laws(things, name, number, law):
    contract = RetrieverContract()
    contract.make = lambda: RETRIEVERS[name][number](things)
    assert registry.name_of(contract.make()) == name
    getattr(contract, law)()


CORPORA = {
    "one passage": [("a.md", "The only river of the town.")],
    "the same again and again": [(f"{i}.md", "The same river runs here.") for i in range(6)],
    "no words": [("a.md", "- . !"), ("b.md", "?"), ("c.md", "A harbour, and words.")],
}


@pytest.mark.filterwarnings("ignore:.*encodings of multi_vector find only")
@pytest.mark.parametrize("corpus", CORPORA)
def test_odd_corpora_are_searched_by_all(things, tmp_path, corpus):
    items = [Document(source, text, "", {}) for source, text in CORPORA[corpus]]
    other = object.__new__(Things)
    other.__dict__ |= things.__dict__
    other.kb = things.index(tmp_path / "kb", items)
    for name in OVER_AN_INDEX:
        for made in RETRIEVERS[name]:
            found = made(other).retrieve([Query("Which river?"), Query("")])
            assert len(found) == 2
            for passages in found:
                assert {p.metadata["source"] for p in passages} <= {source for source, _ in CORPORA[corpus]}
            if name not in ("bm25", "rerank"):  # by words nothing may be found
                assert found[0]


@pytest.mark.parametrize("name", OVER_AN_INDEX)
def test_filters_are_kept_by_all(things, name):
    queries = [Query("amber bridge copper"), Query("title 7")]
    where = ("source=docs/1*",)
    made = {
        "dense": lambda: Dense(things.kb, filters=where),
        "bm25": lambda: BM25(things.kb, filters=where),
        "lexsem": lambda: LexSem(things.kb, filters=where),
        "fusion": lambda: Fusion((Dense(things.kb, filters=where), BM25(things.kb, filters=where))),
        "graph": lambda: Graph(things.kb, filters=where),
        "multi_vector": lambda: MultiVector(things.kb, filters=where),
        "jpq": lambda: JPQ(things.kb, filters=where),
        "rerank": lambda: Rerank(Dense(things.kb, filters=where), things.pruner, dtype="fp32", device="cpu"),
        "cross_encoder": lambda: CrossEncoder(
            Dense(things.kb, filters=where), things.scorer, dtype="fp32", device="cpu"
        ),
    }[name]()
    for passages in made.retrieve(queries, top_k=100):
        assert all(str(p.metadata["source"]).startswith("docs/1") for p in passages)
        assert passages or name == "bm25"
