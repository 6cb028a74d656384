"""How token vectors are searched: what finds passages, what leaves fewer, and indexes that older versions wrote."""

from __future__ import annotations

import dataclasses
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ragzip.indexes import Index, verify
from ragzip.indexes.multi_vector import part as module
from ragzip.indexes.multi_vector import reader as searching
from ragzip.indexes.multi_vector.candidates import nearest
from ragzip.indexes.multi_vector.lists import Lists
from ragzip.indexes.multi_vector.reader import MultiVectors
from ragzip.models.late_interaction import load_late_interaction
from ragzip.retrievers import MultiVector
from ragzip.testing.models import tiny_encoder
from ragzip.types import Query
from tests.indexes.tools import WordEncoder, documents, make

SMALL = {"repetitions": 4, "planes": 3, "projection": 8, "width": 0, "residual_bits": 8, "centroids": 32}
QUESTION = "amber bridge copper"

pytestmark = pytest.mark.filterwarnings("ignore:.*encodings of multi_vector find only")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_encoder(tmp_path_factory.mktemp("late") / "encoder"))


@pytest.fixture(autouse=True)
def words(monkeypatch):
    monkeypatch.setattr("ragzip.models.load_encoder", lambda name, **_: WordEncoder())


def build(kb, items, model, **settings):
    return make(kb, items, retriever="multi_vector", settings={"model": model, **SMALL, **settings})


@pytest.mark.parametrize("missed", [(MultiVectors, "_by_encodings"), (Lists, "search")])
@pytest.mark.parametrize("step", [1, 3])
def test_what_one_way_misses_the_other_finds(tmp_path, model, monkeypatch, missed, step):
    kb = tmp_path / "kb"
    build(kb, documents(40), model)
    monkeypatch.setattr(searching, "_TIMES", 6)
    (query,) = load_late_interaction(model).encode_queries([QUESTION])
    with Index.open(kb) as index:
        reader, rows = index.opened("multi_vector", MultiVectors), index.rows[::step]
        allowed = None if step == 1 else rows
        ranked = reader.search(query, 10_000, 0, allowed).rows
        worst = np.sort(ranked[-4:])
        monkeypatch.setattr(*missed, lambda *_: worst)
        best = reader.search(query, 4, 4, allowed).rows
    assert len(set(best) & set(ranked[:8])) >= 3


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_leading_bits_choose_what_is_ranked(tmp_path, model, monkeypatch, share):
    """Of passages that are all found, those are left that MaxSim over the vectors of leading bits puts first."""
    monkeypatch.setattr(searching, "_TIMES", 15)
    kb = tmp_path / "kb"
    build(kb, documents(30), model)
    (query,) = load_late_interaction(model).encode_queries([QUESTION])
    whole = searching.Whole(WordEncoder().encode([QUESTION])[0], share) if share else None
    with Index.open(kb) as index:
        reader = index.opened("multi_vector", MultiVectors)
        assert len(index) <= 15 * 12
        expected = {}
        for row in index.rows:
            codec, batch = reader._codec, reader._tokens.take(np.array([row]))
            vectors = codec.turned(batch.codes, batch.residuals, leading=True) @ codec.rotation.T
            mean = float((query @ vectors.T).max(1).mean())
            cosine = float(index.vectors.scores(whole.vector, np.array([row]))[0]) if whole else 0.0
            expected[int(row)] = (1 - share) * mean + share * cosine
        chosen = reader.search(query, 12, 12, None, whole).rows
        ranked = reader.search(query, 12, 0, None, whole).rows
    least = min(expected[int(row)] for row in chosen)
    assert all(score <= least + 1e-5 for row, score in expected.items() if row not in chosen)
    assert [row for row in ranked if row in chosen] == [row for row in chosen if row in ranked]


def test_what_a_filter_leaves_is_found_by_encodings_however_much_it_is(tmp_path, model):
    kb = tmp_path / "kb"
    build(kb, documents(40), model)
    with Index.open(kb) as index:
        reader = index.opened("multi_vector", MultiVectors)
        (query,) = load_late_interaction(model).encode_queries([QUESTION])
        encoding = reader._fde.queries([query])[0]
        for step, count in itertools.product((1, 2, 7, 50), (1, 4, 16)):
            rows = index.rows[::step]
            found = reader._by_encodings(encoding, count, rows)
            assert set(found) <= set(rows)
            assert len(found) >= min(count, len(rows)) // 2
            best = nearest(reader._tokens, encoding, rows, max(count // 4, 1)).rows
            assert np.isin(best, found).mean() >= 0.5  # whole numbers of a byte change a little


@pytest.mark.parametrize("lacks", ["rotation", "leading", "lists"])
def test_what_older_versions_wrote_is_read_and_added_to(tmp_path, model, monkeypatch, lacks):
    train, finish = module.train_codec, module.MultiVectorPart.finish
    plain = {"residual_bits": 8 if lacks == "rotation" else 4}  # with few bits, turning them changes what they lose
    with monkeypatch.context() as patch:
        if lacks == "lists":
            older = lambda *a: dataclasses.replace(made := finish(*a), whole=made.whole[:1])  # noqa: E731
            patch.setattr(module.MultiVectorPart, "finish", older)
        else:
            patch.setattr(module, "train_codec", lambda *a, **o: dataclasses.replace(train(*a, **o), **{lacks: None}))
        kb, other = tmp_path / "kb", tmp_path / "other"
        build(kb, documents(12), model, **plain)
    build(other, documents(12), model, **plain)
    with Index.open(kb) as index:
        reader = index.opened("multi_vector", MultiVectors)
        assert (reader._lists if lacks == "lists" else getattr(reader._codec, lacks)) is None
    for candidates in (0, 5):
        older, newer = (MultiVector(str(one), 5, candidates).retrieve([Query(QUESTION)])[0] for one in (kb, other))
        assert len({p.id for p in older} & {p.id for p in newer}) >= 3
        assert candidates or [p.id for p in older] == [p.id for p in newer]
    for count in (14, 5):
        for one in (kb, other):
            make(one, documents(count))
        with Index.open(kb) as index:
            reader = index.opened("multi_vector", MultiVectors)
            assert reader._lists is not None
            assert lacks == "lists" or getattr(reader._codec, lacks) is None  # it goes on as it began
        scores = [
            {p.id: p.score for p in MultiVector(str(one), 99, 0).retrieve([Query(QUESTION)])[0]} for one in (kb, other)
        ]
        assert scores[0] == pytest.approx(scores[1], abs=0.02)
        assert verify(kb) == []


def test_threads_that_search_the_same_index_find_what_one_finds(tmp_path, model):
    kb = tmp_path / "kb"
    build(kb, documents(30), model)
    texts = ["amber bridge", "copper", "kettle lantern 7 99", "title 3"]
    asked = load_late_interaction(model).encode_queries(texts) * 8
    with Index.open(kb) as index, ThreadPoolExecutor(4) as pool:
        reader = index.opened("multi_vector", MultiVectors)
        expected = [reader.search(query, 5, 5).rows.tolist() for query in asked]
        assert [hits.rows.tolist() for hits in pool.map(lambda query: reader.search(query, 5, 5), asked)] == expected


@pytest.mark.parametrize("bits", [0, 2, 6])
def test_passages_without_a_token_are_searched_with_few_candidates(tmp_path, model, monkeypatch, bits):
    monkeypatch.setattr(searching, "_SIEVED", 1)
    monkeypatch.setattr(searching, "_BLOCK", 1)
    kb = tmp_path / "kb"
    cls = type(load_late_interaction(model))
    real = cls.encode_documents

    def some(self, texts, **options):
        """Of every second text no token is left, as of one that is only signs that the tokenizer leaves out."""
        encoded = real(self, texts, **options)
        return [
            one._replace(vectors=one.vectors[:0], weights=one.weights[:0]) if int(text.split()[1]) % 2 else one
            for text, one in zip(texts, encoded, strict=True)
        ]

    with monkeypatch.context() as patch:
        patch.setattr(cls, "encode_documents", some)
        build(kb, documents(12), model, residual_bits=bits)
    for k in (2, 5, 100):
        for share in (0.0, 0.3):
            (passages,) = MultiVector(str(kb), k, k, dense=share).retrieve([Query(QUESTION)])
            assert len(passages) == min(k, len(Index.open(kb)))
