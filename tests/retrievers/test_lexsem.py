"""LexSem: dense retrieval with modulated question vectors, on an index of a real encoder of random weights."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ragzip.config import from_config, to_config
from ragzip.errors import ConfigError, StoreMismatch
from ragzip.indexes import Index, build
from ragzip.ingest import Document
from ragzip.models import load_encoder
from ragzip.models.lexsem import load_bridge
from ragzip.protocols import Retriever
from ragzip.retrievers import Dense
from ragzip.retrievers.lexsem import LexSem
from ragzip.testing import RetrieverContract
from ragzip.types import Query

QUESTIONS = [Query(text) for text in ("Which city is the capital?", "fox", "", "333 and (these)", "zzz 日本")]
TEXTS = ["The river runs to the sea.", "A quick fox jumps.", "The capital of the country.", "Numbers 1, 22 and 333."]


@pytest.fixture(scope="module")
def kb(tmp_path_factory, tiny_encoder_path):
    folder = tmp_path_factory.mktemp("lexsem") / "kb"
    made = [Document(f"{i}.md", f"{TEXTS[i % 4]} Number {i}.", f"T{i}", {"even": i % 2 == 0}) for i in range(24)]
    build(made, folder, sync=True, model=tiny_encoder_path, tokens=80, overlap=0)
    return str(folder)


class TestLexSem(RetrieverContract):
    """The laws of every retriever."""

    @pytest.fixture(autouse=True)
    def index(self, kb):
        self.kb = kb

    def make(self):
        return LexSem(self.kb, strength=2.0)


def test_laws(kb):
    retriever = LexSem(kb, strength=3.0)
    assert isinstance(retriever, Retriever)
    results = retriever.retrieve(QUESTIONS)
    assert [len(found) for found in results] == [20] * 5
    assert retriever.retrieve([]) == []
    for query, found in zip(QUESTIONS, results, strict=True):
        assert retriever.retrieve([query]) == [found]
        assert retriever.retrieve([query], top_k=3) == [found[:3]]
        scores = [passage.score for passage in found]
        assert scores == sorted(scores, reverse=True)
    assert pickle.loads(pickle.dumps(retriever)) == retriever
    assert from_config("retriever", to_config(retriever)) == retriever
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: retriever.retrieve(QUESTIONS), range(8))) == [results] * 8
    some = LexSem(kb, top_k=50, filters=("even=true",)).retrieve(QUESTIONS)
    assert all(len(found) == 12 and all(p.metadata["even"] for p in found) for found in some)


def test_scores_are_cosines_with_the_modulated_vector(kb):
    index = Index.open(kb)
    encoder = load_encoder(index.model_name())
    (tokens, _) = encoder.tokens(["Which city is the capital?"])[0]
    vector = load_bridge(None, encoder).modulate(encoder.encode_each(["Which city is the capital?"]), [tokens], 3.0)
    expected = np.sort(index.vectors.take(index.rows) @ vector[0])[::-1]
    (got,) = LexSem(kb, top_k=24, strength=3.0).retrieve(QUESTIONS[:1])
    np.testing.assert_allclose([passage.score for passage in got], expected, atol=1e-6)


def test_without_strength_or_words_it_is_dense(kb):
    for strength in (0, 0.0):
        for got, dense in zip(
            LexSem(kb, strength=strength).retrieve(QUESTIONS), Dense(kb).retrieve(QUESTIONS), strict=True
        ):
            np.testing.assert_allclose([p.score for p in got], [p.score for p in dense], atol=1e-6)
    assert [p.id for p in LexSem(kb, strength=9.0).retrieve([Query("")])[0]] == [
        p.id for p in Dense(kb).retrieve([Query("")])[0]
    ]
    assert LexSem(kb, strength=9.0).retrieve(QUESTIONS[:1]) != Dense(kb).retrieve(QUESTIONS[:1])


def test_indexes_without_vectors_or_passages(tmp_path, tiny_encoder_path):
    build([Document("a", "text")], tmp_path / "words", sync=True, retriever="bm25")
    with pytest.raises(StoreMismatch, match="bm25"):
        LexSem(str(tmp_path / "words")).retrieve(QUESTIONS)
    build(
        [Document("a", "text", root="/f")], tmp_path / "kb", sync=True, roots=["/f"], model=tiny_encoder_path, tokens=80
    )
    build([], tmp_path / "kb", sync=True, roots=["/f"])
    assert LexSem(str(tmp_path / "kb")).retrieve(QUESTIONS[:2]) == [[], []]


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"index": ""}, "index"),
        ({"top_k": 0}, "top_k"),
        ({"model": ""}, "model"),
        ({"model": 3}, "model"),
        ({"strength": -0.1}, "strength"),
        ({"strength": float("nan")}, "strength"),
        ({"strength": float("inf")}, "strength"),
        ({"strength": True}, "strength"),
        ({"filters": ("nonsense",)}, "filters.0"),
    ],
)
def test_options_out_of_range(options, path):
    with pytest.raises(ConfigError) as caught:
        LexSem(**{"index": "kb", **options})
    assert caught.value.path == path
