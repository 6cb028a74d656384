"""CrossEncoder: another retriever's passages, in the order of a cross-encoder."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.config import from_config, to_config
from ragzip.errors import ConfigError, ModelError
from ragzip.indexes import build
from ragzip.ingest import Document
from ragzip.models import load_pair_scorer
from ragzip.protocols import Retriever
from ragzip.retrievers import BM25, Fusion
from ragzip.retrievers.cross_encoder import CrossEncoder
from ragzip.testing import RetrieverContract
from ragzip.testing.pair_scorers import tiny_pair_scorer
from ragzip.types import Passage, Query

WORDS = ["river", "fox", "sea", "railway", "city", "(these)"]
TEXT = st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)
PASSAGES = st.lists(st.tuples(TEXT, st.sampled_from(["", "Fox"])), max_size=7).map(
    lambda found: [Passage(f"p{i}", text, title, 9.0, {"i": i}) for i, (text, title) in enumerate(found)]
)


class Fixed:
    """Gives the passages it was made with."""

    def __init__(self, lists: dict[str, list[Passage]]) -> None:
        self.lists, self.asked, self.ready = lists, [], 0

    def load(self):
        self.ready += 1

    def retrieve(self, queries, *, top_k=None):
        self.asked.append(top_k)
        return [self.lists[query.text][:top_k] for query in queries]


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_encoder_path):
    return str(tiny_pair_scorer(tmp_path_factory.mktemp("pairs") / "m", tiny_encoder_path, activation="Identity"))


def made(inner, model, **options):
    return CrossEncoder(inner, model, dtype="fp32", device="cpu", **options)


@pytest.fixture(scope="module")
def kb(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cross") / "kb"
    texts = ["word and fox", "a river", "the sea 漢字", "railway a word"]
    build([Document(f"{i}.md", f"{texts[i % 4]} {i}.") for i in range(9)], folder, sync=True, retriever="bm25")
    return str(folder)


class TestCrossEncoder(RetrieverContract):
    """The laws of every retriever."""

    @pytest.fixture(autouse=True)
    def parts(self, kb, model):
        self.kb, self.model = kb, model

    def make(self):
        return CrossEncoder(BM25(self.kb), self.model, dtype="fp32", device="cpu")


class TestFusion(RetrieverContract):
    """The laws of every retriever, of weighted scores."""

    @pytest.fixture(autouse=True)
    def parts(self, kb, model):
        self.kb, self.model = kb, model

    def make(self):
        words = BM25(self.kb)
        judged = CrossEncoder(words, self.model, dtype="fp32", device="cpu")
        return Fusion((words, judged), weights=(0.7, 0.3), normalize="minmax")


@given(PASSAGES, PASSAGES, st.integers(1, 8), st.integers(1, 8))
def test_passages_by_falling_score(model, one, other, depth, top_k):
    inner = Fixed({"fox?": one, "sea?": other, "none": []})
    retriever = made(inner, model, depth=depth, top_k=top_k)
    queries = [Query("fox?"), Query("sea?"), Query("none")]
    results = retriever.retrieve(queries)
    assert inner.asked == [max(depth, top_k)]
    assert results == [retriever.retrieve([query])[0] for query in queries]  # questions keep to themselves
    scorer = load_pair_scorer(model, dtype="fp32", device="cpu")
    for query, given_, got in zip(queries, (one, other, []), results, strict=True):
        seen = given_[: max(depth, top_k)]
        alone = {p.id: float(scorer.score(query.text, [p.text], [p.title])[0]) for p in seen}
        assert len(got) == min(len(seen), top_k)
        for passage in got:
            assert passage.score == pytest.approx(alone[passage.id], abs=1e-4)
            assert dataclasses.replace(passage, score=9.0) in seen
        left = [alone[p.id] for p in seen if p.id not in {found.id for found in got}]
        scores = [p.score for p in got]
        assert scores == sorted(scores, reverse=True)
        assert all(score <= scores[-1] + 1e-4 for score in left)


def test_an_empty_question_changes_nothing_and_loads_nothing():
    found = [Passage("a", "x", score=3.0), Passage("b", "y", score=2.0)]
    retriever = CrossEncoder(Fixed({" ": found}), "no/such/folder")
    assert retriever.retrieve([Query(" ")]) == [found]
    assert retriever.retrieve([Query(" ")], top_k=1) == [found[:1]]
    assert retriever.retrieve([]) == []
    with pytest.raises(ModelError, match="no/such/folder"):
        retriever.load()


def test_load_loads_both(model):
    inner = Fixed({})
    assert made(inner, model).load().name == model
    assert inner.ready == 1


def test_config_round_trip_and_pickle():
    retriever = CrossEncoder(BM25("kb"), "cross-encoder/ms-marco-MiniLM-L6-v2", depth=30, top_k=5)
    assert isinstance(retriever, Retriever)
    assert from_config("retriever", to_config(retriever)) == retriever
    assert pickle.loads(pickle.dumps(retriever)) == retriever
    assert to_config(retriever)["type"] == "cross_encoder"


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"retriever": "bm25"}, "retriever"),
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"depth": 0}, "depth"),
        ({"top_k": 1.5}, "top_k"),
        ({"dtype": "int4"}, "dtype"),
        ({"device": "abacus"}, "device"),
    ],
)
def test_options_out_of_range(options, path):
    with pytest.raises(ConfigError) as caught:
        CrossEncoder(**{"retriever": BM25("kb"), "model": "m", **options})
    assert caught.value.path == path
    with pytest.raises(ConfigError):
        CrossEncoder(BM25("kb"), "m").retrieve([Query("q")], top_k=0)
