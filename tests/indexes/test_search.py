"""Searching: against brute force, with and without filters, with and without the structures that make it fast."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import ragzip.indexes.ann
from ragzip.errors import ConfigError, StoreMismatch, UsageError
from ragzip.indexes import Index, info
from ragzip.indexes.ranking import top
from tests.indexes.tools import WordEncoder, document, documents, make

QUERIES = ["amber bridge copper", "ocean 3", "kettle", "", "nothing known"]


@pytest.fixture(scope="module")
def kb(tmp_path_factory):
    """Forty documents in several shards, some replaced and some removed, so that rows are not positions."""
    folder = tmp_path_factory.mktemp("search") / "kb"
    make(folder, documents(40, sentences=5))
    make(folder, [document(n, sentences=5, version=int(n % 9 == 4)) for n in range(38)])
    assert info(folder).dead > 0
    return folder


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The same, but stopped before the search structures were made."""
    folder = tmp_path_factory.mktemp("stopped") / "kb"

    def failing():
        yield from [document(n, sentences=5, version=int(n % 9 == 4)) for n in range(38)]
        raise RuntimeError

    make(folder, documents(38, sentences=5), commit_passages=1)
    with pytest.raises(RuntimeError):
        make(folder, failing(), commit_passages=1)
    assert not info(folder).searchable
    return folder


def order(index: Index, scores: np.ndarray, k: int) -> list[int]:
    """Rows by score, then by row."""
    rows = index.rows.tolist()
    return [row for _, row in sorted(zip((-scores).tolist(), rows, strict=True))][:k]


@pytest.mark.parametrize("k", [1, 3, 20, 10_000])
def test_dense_search_is_brute_force(kb, k):
    queries = WordEncoder().encode(QUERIES)
    with Index.open(kb) as index:
        for query, hits in zip(queries, index.search_vectors(queries, k), strict=True):
            scores = index.vectors.take(index.rows) @ query
            assert len(hits.rows) == min(k, len(index))
            by_row = dict(zip(index.rows.tolist(), scores, strict=True))
            np.testing.assert_allclose(hits.scores, [by_row[row] for row in hits.rows.tolist()], atol=1e-6)
            np.testing.assert_allclose(np.sort(hits.scores), np.sort(scores)[-k:], atol=1e-6)
            assert hits.rows.tolist() == [r for _, r in sorted(zip(-hits.scores, hits.rows.tolist(), strict=True))]


def test_one_query_does_not_depend_on_the_others(kb):
    queries = WordEncoder().encode(QUERIES)
    with Index.open(kb) as index:
        together = index.search_vectors(queries, 9)
        alone = [index.search_vectors(queries[n : n + 1], 9)[0] for n in range(len(queries))]
        np.testing.assert_equal(together, alone)


def test_equal_passages_come_in_row_order_at_the_cut(tmp_path):
    from ragzip.ingest import Document

    make(tmp_path / "kb", [Document(f"{n}.md", "The very same words." if n % 3 else f"Odd {n}.") for n in range(60)])
    with Index.open(tmp_path / "kb") as index:
        query = WordEncoder().encode(["The very same words."])
        same = [row for row, passage in zip(index.rows.tolist(), index, strict=True) if passage.text.startswith("The")]
        for k in (1, 2, 7, 39, 40):
            assert index.search_vectors(query, k)[0].rows.tolist() == same[:k]
            assert index.search_vectors(query, k, ["source=*.md"])[0].rows.tolist() == same[:k]
            assert index.search_terms(["very same words"], k)[0].rows.tolist() == same[:k]


def test_stopped_indexing_finds_the_same(kb, stopped):
    queries = WordEncoder().encode(QUERIES)
    with Index.open(kb) as full, Index.open(stopped) as half:
        assert len(full) == len(half)
        for filters in ([], ["even=true"]):
            for one, other in (
                (full.search_vectors(queries, 10_000, filters), half.search_vectors(queries, 10_000, filters)),
                (full.search_terms(QUERIES, 10_000, filters), half.search_terms(QUERIES, 10_000, filters)),
            ):
                for a, b in zip(one, other, strict=True):
                    scores_a = {p.id: s for p, s in zip(full.passages(a.rows), a.scores.tolist(), strict=True)}
                    scores_b = {p.id: s for p, s in zip(half.passages(b.rows), b.scores.tolist(), strict=True)}
                    assert scores_a == pytest.approx(scores_b, abs=1e-6)


FILTERS = {
    "number=7": lambda m: m["number"] == 7,
    "number!=7": lambda m: m["number"] != 7,
    "number>=30": lambda m: m["number"] >= 30,
    "number<3.5": lambda m: m["number"] < 3.5,
    "even=true": lambda m: m["even"],
    "even!=true": lambda m: not m["even"],
    "source=docs/1*": lambda m: m["source"].startswith("docs/1"),
    "source!=docs/1*": lambda m: not m["source"].startswith("docs/1"),
    "source==docs/1*": lambda m: False,
    "missing=1": lambda m: False,
    "missing!=1": lambda m: True,
    "missing<1": lambda m: False,
    "title=Title 7": lambda m: m["number"] == 7,
    "id=*#0": lambda m: m["start"] == 0,
}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(sorted(FILTERS)), min_size=1, max_size=3), st.integers(1, 30), st.sampled_from(QUERIES))
def test_filters_are_brute_force(kb, chosen, k, text):
    with Index.open(kb) as index:
        passing = [all(FILTERS[f](p.metadata) for f in chosen) for p in index]
        query = WordEncoder().encode([text])
        rows = index.rows[np.array(passing, bool)]
        expected = top(rows, np.einsum("ij,j->i", index.vectors.take(rows), query[0]), k)
        np.testing.assert_equal(index.search_vectors(query, k, chosen)[0], expected)
        unfiltered = index.search_terms([text], 10_000)[0]
        inside = np.isin(unfiltered.rows, rows)
        (terms,) = index.search_terms([text], k, chosen)
        assert terms.rows.tolist() == unfiltered.rows[inside][:k].tolist()
        assert terms.scores.tolist() == unfiltered.scores[inside][:k].tolist()


def test_wrong_calls(kb, tmp_path):
    with Index.open(kb) as index:
        good = WordEncoder().encode(["amber"])
        for bad in (good * np.nan, good[0], good / 0 if False else good + np.inf):
            with pytest.raises(UsageError, match="finite"):
                index.search_vectors(bad, 3)
        with pytest.raises(StoreMismatch, match="16 wide, the query's 15"):
            index.search_vectors(good[:, :15], 3)
        with pytest.raises(ConfigError, match=r"filters\.1: 'nonsense' is no filter"):
            index.search_vectors(good, 3, ["a=b", "nonsense"])
        with pytest.raises(KeyError):
            index.passages([10**9])
        assert [len(h.rows) for h in index.search_vectors(good, 0)] == [0]
        assert [len(h.rows) for h in index.search_terms(["amber"], 0)] == [0]
        assert index.search_vectors(good[:0], 3) == []
        assert index.search_terms([], 3) == []
        assert index.passages([]) == []


def test_an_index_of_nothing(tmp_path):
    make(tmp_path / "kb", [document(1)])
    make(tmp_path / "kb", [])
    with Index.open(tmp_path / "kb") as index:
        assert (len(index), list(index), index.documents()) == (0, [], [])
        query = WordEncoder().encode(["amber"])
        for filters in ([], ["a=b"]):
            assert len(index.search_vectors(query, 3, filters)[0].rows) == 0
            assert len(index.search_terms(["amber"], 3, filters)[0].rows) == 0


@pytest.mark.parametrize(("dimensions", "kind"), [(16, "PQ4x4fs,Refine(SQ8)"), (10, "SQ8"), (4, "PQ1x4fs,Refine(SQ8)")])
def test_large_indexes_are_compressed_and_scored_exactly(tmp_path, monkeypatch, dimensions, kind):
    monkeypatch.setattr(ragzip.indexes.ann, "EXACT_BELOW", 300)
    encoder = WordEncoder(dimensions)
    docs = [document(n, sentences=20) for n in range(40)]
    make(tmp_path / "kb", docs, encoder=encoder, commit_passages=100)
    with Index.open(tmp_path / "kb") as index:
        assert ragzip.indexes.ann.kind(len(index), dimensions) == kind
        queries = encoder.encode(QUERIES[:3])
        right = 0
        for query, hits in zip(queries, index.search_vectors(queries, 10), strict=True):
            scores = index.vectors.take(index.rows) @ query
            by_row = dict(zip(index.rows.tolist(), scores, strict=True))
            np.testing.assert_allclose(hits.scores, [by_row[row] for row in hits.rows.tolist()], atol=1e-6)
            right += len({*hits.rows.tolist()} & {*order(index, scores, 10)})
        assert right >= 27
        assert len(index.search_vectors(queries, 10**6)[0].rows) > 200
    kept = (tmp_path / "kb" / index.manifest.faiss.name).stat().st_size
    assert kept < len(index) * dimensions * 4 + 20_000


def test_search_leaves_the_threads_of_others_alone(kb):
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        Index.open(kb).search_vectors(WordEncoder().encode(["amber"]), 3)
        assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(before)


@given(
    arrays.arrays(np.float32, st.integers(0, 30), elements=st.sampled_from([0.0, 0.5, 1.0, -1.0])),
    st.integers(1, 35),
    st.randoms(),
)
def test_top_is_sorting(scores, k, random):
    rows = list(range(0, 3 * len(scores), 3))
    random.shuffle(rows)
    hits = top(np.array(rows, np.int64), scores, k)
    expected = sorted(zip((-scores).tolist(), rows, strict=True))[:k]
    assert [(-s, r) for s, r in zip(hits.scores.tolist(), hits.rows.tolist(), strict=True)] == expected
