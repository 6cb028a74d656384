"""Rerank: another retriever's passages, the most relevant first."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.config import from_config, to_config
from ragzip.errors import ConfigError, ModelError
from ragzip.models.pruner import Judged
from ragzip.protocols import Retriever
from ragzip.retrievers import BM25, Fusion
from ragzip.retrievers.rerank import Rerank
from ragzip.testing.pruners import tiny_pruner
from ragzip.types import Passage, Query


class Fixed:
    """Gives the passages it was made with."""

    def __init__(self, **lists: list[Passage]) -> None:
        self.lists, self.asked, self.ready = lists, [], 0

    def load(self):
        self.ready += 1

    def retrieve(self, queries, *, top_k=None):
        self.asked.append(top_k)
        return [self.lists[query.text][:top_k] for query in queries]


class Relevances:
    """A pruner for which a passage is as relevant as its text says; it reads once."""

    hops = 1

    def __init__(self):
        self.calls, self.loaded = [], []

    def room(self, question):
        return 20

    def judge(self, question, texts, titles, *, found="", seen=None):
        self.calls.append((question + found, list(texts), list(titles)))
        says = [float(text.split()[0]) for text in texts]
        keep = [np.full(len(text), said, dtype=np.float32) for text, said in zip(texts, says, strict=True)]
        offsets = [np.asarray([(i, i + 1) for i in range(len(text))]) for text in texts]
        return [Judged(o, k, said) for o, k, said in zip(offsets, keep, says, strict=True)]


@pytest.fixture
def model(monkeypatch):
    made = Relevances()
    monkeypatch.setattr(
        "ragzip.models.load_pruner", lambda name, **options: made.loaded.append((name, options)) or made
    )
    return made


NUMBERS = st.lists(st.integers(0, 4).map(lambda n: n / 4), max_size=9)


@given(NUMBERS, st.integers(1, 10), st.integers(1, 10))
def test_the_first_passages_by_falling_relevance(numbers, depth, top_k):
    found = [Passage(f"p{i}", str(n), f"t{i}", 9.0, {"i": i}) for i, n in enumerate(numbers)]
    inner, made = Fixed(q=found), Relevances()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("ragzip.models.load_pruner", lambda name, **options: made)
        reranker = Rerank(inner, depth=depth, top_k=top_k)
        (got,) = reranker.retrieve([Query("q")])
        for k in range(1, top_k + 1):
            assert [p.id for p in reranker.retrieve([Query("q")], top_k=k)[0]] == [
                p.id for p in ranked(found[: max(depth, k)])[:k]
            ]
    assert got == [dataclasses.replace(p, score=float(p.text)) for p in ranked(found[: max(depth, top_k)])[:top_k]]
    assert inner.asked[0] == max(depth, top_k)


def ranked(passages):
    return sorted(passages, key=lambda p: -float(p.text))


def test_a_question_is_one_batch_of_its_own(model):
    lists = {"x": [Passage("a", "0.1", "A"), Passage("b", "0.9")], "y": [Passage("c", "0.5")], "z": []}
    reranker = Rerank(Fixed(**lists), model="some/model", dtype="fp32", device="cpu")
    got = reranker.retrieve([Query("x"), Query("y"), Query("z")])
    assert [[p.id for p in passages] for passages in got] == [["b", "a"], ["c"], []]
    assert model.calls == [("x", ["0.1", "0.9"], ["A", ""]), ("y", ["0.5"], [""])]
    assert model.loaded[0] == ("some/model", {"dtype": "fp32", "device": "cpu"})


def test_a_relevance_that_is_no_number_is_refused(model):
    with pytest.raises(ModelError, match=r"some/model.*no number"):
        Rerank(Fixed(x=[Passage("a", "0.1"), Passage("b", "nan")]), model="some/model").retrieve([Query("x")])


def test_another_look_reads_the_best_sentence_beside_the_question(model):
    texts = [f"{score} of one sentence" for score in ("0.1", "0.9", "0.5")]
    found = [Passage(name.lower(), text, name) for name, text in zip("ABC", texts, strict=True)]
    reranker = Rerank(Fixed(x=found))
    model.hops = 3
    assert len(Rerank(Fixed(x=found), hops=1).retrieve([Query("x")])[0]) == 3
    model.calls.clear()
    (got,) = reranker.retrieve([Query("x")])
    assert [p.id for p in got] == ["b", "c", "a"]
    assert model.calls == [
        ("x", texts, ["A", "B", "C"]),
        (f"xB: {texts[1]}", [texts[0], texts[2]], ["A", "C"]),
        (f"xC: {texts[2]}", texts[:2], ["A", "B"]),
    ]


def test_an_empty_question_changes_nothing_and_loads_nothing(model):
    found = [Passage("a", "0.1", score=3.0), Passage("b", "0.9", score=2.0)]
    reranker = Rerank(Fixed(**{" ": found}))
    assert reranker.retrieve([Query(" ")]) == [found]
    assert reranker.retrieve([Query(" ")], top_k=1) == [found[:1]]
    assert reranker.retrieve([]) == []
    assert model.loaded == []


def test_load_loads_both(model):
    inner = Fixed()
    assert Rerank(inner).load() is model
    assert (inner.ready, len(model.loaded)) == (1, 1)


def test_config_round_trip_and_pickle():
    made = Rerank(Fusion((BM25("kb"), BM25("other"))), model="folder/x", depth=30, top_k=5)
    assert isinstance(made, Retriever)
    assert from_config("retriever", to_config(made)) == made
    assert pickle.loads(pickle.dumps(made)) == made
    assert to_config(made)["type"] == "rerank"


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"retriever": "bm25"}, "retriever"),
        ({"model": ""}, "model"),
        ({"depth": 0}, "depth"),
        ({"top_k": 1.5}, "top_k"),
        ({"hops": 0}, "hops"),
        ({"hops": True}, "hops"),
        ({"dtype": "int4"}, "dtype"),
        ({"device": "abacus"}, "device"),
    ],
)
def test_options_out_of_range(options, path):
    with pytest.raises(ConfigError) as caught:
        Rerank(**{"retriever": BM25("kb"), **options})
    assert caught.value.path == path
    with pytest.raises(ConfigError):
        Rerank(BM25("kb")).retrieve([Query("q")], top_k=0)


def test_with_a_real_model_of_random_weights(tmp_path, tiny_encoder_path):
    found = [Passage(str(i), "the river is open. " * i, "T") for i in range(6)]
    reranker = Rerank(Fixed(q=found), model=str(tiny_pruner(tmp_path, tiny_encoder_path)), dtype="fp32", device="cpu")
    (got,) = reranker.retrieve([Query("q")])
    scores = [passage.score for passage in got]
    assert {p.id for p in got} == {p.id for p in found}
    assert scores == sorted(scores, reverse=True)
    assert got[-1].id == "0"  # nothing in it
    assert all(0 <= score <= 1 for score in scores)
