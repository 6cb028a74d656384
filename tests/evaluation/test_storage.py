"""Tuning an index's storage: what is measured is what the index then does."""

from __future__ import annotations

import numpy as np
import pytest

from ragzip.errors import ConfigError, StoreMismatch, UsageError
from ragzip.evaluation.storage import candidates, tune
from ragzip.indexes import Index, info, store_as
from ragzip.indexes.storage import parse
from tests.indexes.tools import WordEncoder, documents, make

LINES = ["float32", "float16", "pca8,float8", "pq4", "pq4+float8", "auto"]


@pytest.fixture(scope="module")
def kb(tmp_path_factory):
    kb = tmp_path_factory.mktemp("tuned") / "kb"
    make(kb, documents(220), commit_passages=300)
    assert 1000 < len(Index.open(kb)) < 2000
    return kb


@pytest.fixture(scope="module")
def tuned(kb):
    return tune(kb, storages=LINES, questions=40, encoder=WordEncoder())


def test_what_was_measured(kb, tuned):
    by = {one.storage: one for one in tuned.measured}
    assert list(by) == LINES
    assert (tuned.passages, tuned.dimensions, tuned.questions, tuned.k) == (len(Index.open(kb)), 16, 40, 10)
    assert by["float32"].recall == by["auto"].recall == 1
    # Rounding cannot find what is not there: fewer bytes, no more recall.
    assert 1 >= by["float16"].recall >= by["pca8,float8"].recall
    assert by["float32"].recall >= by["pq4+float8"].recall > by["pq4"].recall > 0.1
    rows = Index.open(kb).manifest.rows
    assert rows * 8 < by["pca8,float8"].disk < rows * 8 + 2000
    assert by["auto"].disk > 2 * rows * 64
    assert by["pq4+float8"].memory < by["pq4+float8"].disk
    assert all(one.milliseconds > 0 and one.seconds >= 0 and 0 < one.mrr <= 1 for one in tuned.measured)
    assert info(kb).storage == "auto"


def test_fronts_are_what_nothing_beats(tuned):
    for cost in ("disk", "memory", "milliseconds"):
        for one in tuned.measured:
            beaten = any(
                getattr(o, cost) <= getattr(one, cost) and o.recall >= one.recall and o is not one
                for o in tuned.measured
                if (getattr(o, cost), o.recall) != (getattr(one, cost), one.recall)
            )
            assert (cost in one.fronts) != beaten


def test_the_cheapest_that_finds_enough(tuned):
    for least in (0.2, 0.9, 1.0):
        chosen = tuned.best(least)
        assert chosen.recall >= least
        assert chosen.disk == min(one.disk for one in tuned.measured if one.recall >= least)
    assert tuned.best(1.0, "memory").memory == min(one.memory for one in tuned.measured if one.recall == 1)
    with pytest.raises(UsageError, match="none has a recall of 2"):
        tuned.best(2)


def test_the_index_does_what_was_measured(kb, tuned, tmp_path):
    import shutil

    copy = tmp_path / "kb"
    shutil.copytree(kb, copy)
    store_as(copy, "pca8,float8")
    measured = next(one for one in tuned.measured if one.storage == "pca8,float8")
    with Index.open(kb) as exact, Index.open(copy) as stored:
        assert sum(f.bytes for f in (*(s.file for s in stored.manifest.shards), stored.manifest.codec)) == measured.disk
        queries = WordEncoder().encode_each([passage.text.split(". ")[0] + "." for passage in exact][:300])
        pairs = zip(exact.search_vectors(queries, 10), stored.search_vectors(queries, 10), strict=True)
        share = np.mean([len({*a.rows.tolist()} & {*b.rows.tolist()}) / 10 for a, b in pairs])
    assert share == pytest.approx(measured.recall, abs=0.2)
    with pytest.raises(StoreMismatch, match=r"kept as pca8,float8, and no longer whole.*--rebuild"):
        tune(copy, encoder=WordEncoder())


def test_the_same_seed_measures_the_same(kb):
    one, other = (tune(kb, storages=["pq4"], questions=20, seed=3, encoder=WordEncoder()) for _ in range(2))
    assert (one.measured[0].recall, one.measured[0].mrr) == (other.measured[0].recall, other.measured[0].mrr)


def test_what_cannot_be_made_is_left_out(kb):
    found = tune(kb, storages=["pq5", "ivf900,int8+float16", "float16"], questions=5, encoder=WordEncoder())
    assert [one.storage for one in found.measured] == ["float16"]
    assert found.left_out == ("pq5", "ivf900,int8+float16")
    with pytest.raises(UsageError, match="pq5"):
        tune(kb, storages=["pq5"], encoder=WordEncoder())


def test_bad_input(kb, tmp_path):
    with pytest.raises(ConfigError, match="questions"):
        tune(kb, questions=0)
    with pytest.raises(ConfigError, match="nothing"):
        tune(kb, storages=["nothing"], encoder=WordEncoder())
    make(tmp_path / "small", documents(3))
    with pytest.raises(UsageError, match="kept as float32 whatever"):
        tune(tmp_path / "small", encoder=WordEncoder())
    make(tmp_path / "terms", documents(3), retriever="bm25")
    with pytest.raises(StoreMismatch, match="no vectors"):
        tune(tmp_path / "terms")
    with pytest.raises(StoreMismatch, match="made with words"):
        tune(kb, questions=3, encoder=WordEncoder(name="others"))


@pytest.mark.parametrize("width", [32, 384, 768, 1024])
@pytest.mark.parametrize("passages", [1000, 50_000, 3_000_000])
def test_every_candidate_can_be_made(width, passages):
    for line in candidates(width, passages):
        storage = parse(line)
        storage.check(width)
        assert str(storage) == line
        if not line.startswith("ivf"):
            assert storage.structure is None or storage.indexed(passages)
