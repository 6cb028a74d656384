"""Terms and BM25: any script, and the numbers of bm25s."""

from __future__ import annotations

import random
import sys

import bm25s
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ragzip.indexes.bm25 as module
from ragzip.errors import StoreError
from ragzip.indexes import Index
from ragzip.indexes.bm25 import K1, B, build, load
from ragzip.indexes.terms import Analyzer, count_words, stemmer_name
from ragzip.ingest import Document
from tests.indexes.tools import document, documents, make


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("The cats are RUNNING.", ["the", "cat", "are", "run"]),
        ("object.__getattr__(self, 'x_y')", ["object", "getattr", "self", "x", "y"]),
        ("Straße STRASSE", ["strass", "strass"]),
        ("naïve café", ["naïve", "café"]),
        ("cafe\u0301", ["café"]),
        ("ﬁne Ｆｕｌｌ", ["fine", "full"]),
        ("東京 tower", ["東", "京", "東京", "tower"]),
        ("猫", ["猫"]),
        ("한국어를", ["한", "국", "어", "를", "한국", "국어", "어를"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("مُحَمَّد", ["مُحَمَّد"]),
        ("Привет, МИР", ["привет", "мир"]),
        ("❤️ 🙂 … --", []),
        ("", []),
        ("a" * 200, ["a" * 64]),
        ("3.14 and 2024-01-02", ["3", "14", "and", "2024", "01", "02"]),
    ],
)
def test_terms(text, terms):
    assert Analyzer("porter2").terms(text) == terms


def test_a_question_meets_its_passage_in_any_script():
    texts = [
        "私は東京に住んでいます。",
        "ภาษาไทยง่ายมาก",
        "Ich wohne in München.",
        "The runners were running",
        "नमस्ते दुनिया",
    ]
    postings = build(texts)
    for number, question in enumerate(["東京", "ไทย", "münchen", "runner", "दुनिया"]):
        assert postings.search(question, 5).rows.tolist() == [number]


def test_function_words_of_a_question_count_only_alone():
    postings = build(["to be or not to be", "the biggest whale", "what is it"])
    assert postings.search("What is the biggest?", 5).rows.tolist() == [1]
    assert postings.search("What is it?", 5).rows.tolist() == [2]
    assert postings.search("to be", 5).rows.tolist() == [0]


@given(st.text())
def test_any_text_has_terms_that_find_it(text):
    terms = Analyzer("porter2").terms(text)
    assert all(terms)
    hits = build(["something else", text]).search(text, 5)
    assert (1 in hits.rows.tolist()) == bool(terms)


@settings(max_examples=50)
@given(
    st.lists(st.lists(st.sampled_from("bcdefghj"), max_size=12).map(" ".join), max_size=30),
    st.lists(st.sampled_from("bcdefgxyz"), min_size=1, max_size=5, unique=True),
)
def test_scores_are_those_of_bm25s(texts, question):
    module._CHUNK, before = 4, module._CHUNK
    try:
        postings = build(texts)
    finally:
        module._CHUNK = before
    hits = postings.search(" ".join(question), 100)
    tokens = [text.split() for text in texts]
    expected = np.zeros(len(texts), np.float32)
    if any(tokens):
        reference = bm25s.BM25(k1=K1, b=B, method="lucene", backend="numpy")
        reference.index(tokens, show_progress=False)
        wanted = [term for term in question if term in reference.vocab_dict]
        if wanted:
            expected = reference.get_scores(wanted)
    got = np.zeros(len(texts), np.float32)
    got[hits.rows] = hits.scores
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert (hits.scores > 0).all()


def test_bm25s_reads_what_is_saved(tmp_path):
    make(tmp_path / "kb", documents(8), retriever="bm25")
    with Index.open(tmp_path / "kb") as index:
        folder = tmp_path / "kb" / index.manifest.bm25[0].name.split("/")[0]
        theirs = bm25s.BM25.load(folder)
        _, scores = theirs.retrieve([["amber", "bridg"]], k=4, show_progress=False)
        ours = index.search_terms(["amber bridge"], 4)[0]
        np.testing.assert_allclose(np.sort(scores[0]), np.sort(ours.scores), rtol=1e-6)
        assert not [path for path in folder.iterdir() if path.suffix in (".pkl", ".pickle")]


def test_repeated_words_count_once_and_a_huge_question_is_answered():
    rng = random.Random(0)
    words = [f"word{n}" for n in range(3000)]
    postings = build([" ".join(rng.choices(words, k=50)) for _ in range(500)])
    once, often = postings.search("word1 word2", 10), postings.search("word1 word2 word1 word1", 10)
    np.testing.assert_equal(once, often)
    assert len(postings.search(" ".join(words) * 200, 10).rows) == 10


def test_passages_without_any_word(tmp_path):
    make(tmp_path / "kb", [Document("a.md", "!!! ???"), Document("b.md", "🙂 🙂")], retriever="bm25")
    with Index.open(tmp_path / "kb") as index:
        assert len(index) == 2
        assert len(index.search_terms(["!!!", "word", ""], 3)[0].rows) == 0
    assert len(load(tmp_path / "kb", index.manifest.bm25, 2)) == 2


def test_without_a_stemmer(tmp_path, monkeypatch):
    make(tmp_path / "stemmed", [document(1)], retriever="bm25")
    monkeypatch.setitem(sys.modules, "Stemmer", None)
    assert stemmer_name() == ""
    make(tmp_path / "kb", [Document("a.md", "running cats")], retriever="bm25")
    with Index.open(tmp_path / "kb") as index:
        assert len(index.search_terms(["cats"], 3)[0].rows) == 1
        assert len(index.search_terms(["cat"], 3)[0].rows) == 0
    with pytest.raises(StoreError, match="pip install PyStemmer"):
        Index.open(tmp_path / "stemmed").search_terms(["amber"], 3)
    monkeypatch.undo()
    # With the stemmer back, terms that were not stemmed are still searched as they are.
    assert len(Index.open(tmp_path / "kb").search_terms(["cats"], 3)[0].rows) == 1


@pytest.mark.parametrize(
    ("text", "size"), [("Two words.", 3), ("東京 a", 3), ("", 0), ("हिन्दी", 1), ("a_b", 3), ("e\u0301a", 1)]
)
def test_sizes_in_words(text, size):
    assert count_words(text) == size


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("Donau\u00addampf", "Donaudampf"),
        ("co\u200boperate", "cooperate"),
        ("\ufeffword", "word"),
        ("İstanbul", "istanbul"),
    ],
)
def test_marks_that_nobody_sees_split_no_word(text, asked):
    analyzer = Analyzer(stemmer_name())
    assert analyzer.words(text) == analyzer.words(asked) == [asked.lower()]
