"""Equal texts, and equal windows of texts, are read once, and all of them get what one alone gets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.models import chunks, load_encoder, load_pair_scorer
from ragzip.models.chunks import load_chunks
from ragzip.models.dual_encoder import DualEncoder, load_dual_encoder
from ragzip.models.encoder import Encoder
from ragzip.models.pair_scorer import PairScorer
from ragzip.models.token_classifier import TokenClassifier, load_token_classifier
from ragzip.models.token_windows import firsts
from ragzip.testing.pair_scorers import tiny_pair_scorer
from ragzip.testing.soft import tiny_soft
from ragzip.testing.token_classifiers import tiny_token_classifier

TEXTS = ["One fact.", "Another fact, and more of it.", "", "One fact.", "A third.", "One fact.", ""]
LONG = "word " * 5000


@given(st.lists(st.sampled_from("abcdef"), max_size=40))
def test_each_item_is_found_at_its_first_place(items):
    places, distinct = firsts(items)
    assert [items[distinct[place]] for place in places] == items
    assert [items.index(items[first]) for first in distinct] == distinct
    assert len(distinct) == len(set(items))
    assert distinct == sorted(distinct)


@pytest.fixture(scope="module")
def readers(tmp_path_factory, tiny_encoder_path, tiny_lm_path):
    """By name: what gives an array for each text, and where the rows of its forward passes can be counted."""
    made = tmp_path_factory.mktemp("equal")
    options = {"dtype": "fp32", "device": "cpu"}
    encoder, dual = load_encoder(tiny_encoder_path, **options), load_dual_encoder(tiny_encoder_path, **options)
    classifier = load_token_classifier(str(tiny_token_classifier(made / "bert", family="bert")), **options)
    scorer = load_pair_scorer(str(tiny_pair_scorer(made / "pairs", tiny_encoder_path)), **options)
    folder = tiny_soft(made / "refrag", "refrag", base=tiny_lm_path, encoder=tiny_encoder_path)
    soft = load_chunks(str(folder), **options)

    def keep(texts):
        return [found.keep for found in classifier.scores(texts)]

    return {
        "encoder": (encoder.encode, Encoder, "_forward", 1),
        "ids": (lambda texts: encoder.encode_tokens([i for i, _ in encoder.tokens(texts)]), Encoder, "_forward", 1),
        "dual": (dual.encode, DualEncoder, "_sums", 1),
        "classifier": (keep, TokenClassifier, "_forward", 1),
        "pairs": (lambda texts: scorer.score("Which fact?", texts), PairScorer, "_run", 1),
        "chunks": (soft.vectors, chunks, "pooled", 1),
    }


def key(row):
    """The ids of a row; pairs have a number of their own before them."""
    return tuple(row[1]) if isinstance(row, tuple) and isinstance(row[1], list) else tuple(row)


@pytest.fixture(params=["encoder", "ids", "dual", "classifier", "pairs", "chunks"])
def reader(request, readers, monkeypatch):
    """What reads texts, and the rows that it read."""
    read, owner, name, place = readers[request.param]
    rows, whole = [], getattr(owner, name)

    def count(*given, **more):
        rows.extend(key(row) for row in given[place])
        return whole(*given, **more)

    monkeypatch.setattr(owner, name, count)
    return read, rows


def test_equal_texts_are_read_once(reader):
    read, rows = reader
    found = read(TEXTS)
    assert len(rows) == len(set(rows))
    assert {3, 4} & {len(rows)}  # a token classifier has nothing to read in an empty text
    assert len(found) == len(TEXTS)
    for text, one in zip(TEXTS, found, strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(read([text])[0]), atol=1e-5)
        np.testing.assert_array_equal(np.asarray(one), np.asarray(found[TEXTS.index(text)]))


@pytest.mark.parametrize("name", ["dual", "classifier", "pairs"])
def test_equal_windows_of_a_long_text_are_read_once(name, readers, monkeypatch):
    read, owner, method, place = readers[name]
    rows, whole = [], getattr(owner, method)
    monkeypatch.setattr(owner, method, lambda *given: rows.extend(map(key, given[place])) or whole(*given))
    (found,) = read([LONG])
    assert np.isfinite(found).all()
    assert len(rows) == len(set(rows)) <= 16  # of some 200: they differ in length, and in where a word is cut


def test_no_texts(reader):
    assert len(reader[0]([])) == 0
