"""Windows over long texts, batches of windows, and the encoder that takes tokens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.errors import ModelError
from ragzip.models import load_encoder
from ragzip.models.token_windows import batches, borders, special_ids, split, windows
from ragzip.text import sentences, words


def letters(text):
    """A tokenizer that makes each character that is no space a token, or its space and it."""
    return np.asarray([(i - (i > 0 and text[i - 1] == " "), i + 1) for i, c in enumerate(text) if c != " "]).reshape(
        -1, 2
    )


@given(st.text(st.sampled_from("ab. 字。"), max_size=80), st.integers(1, 30))
def test_windows_cover_every_token_once_and_are_never_too_long(text, room):
    offsets = letters(text)
    found = windows(text, offsets, room)
    assert [i for start, end in found for i in range(start, end)] == list(range(len(offsets)))
    assert all(0 < end - start <= room for start, end in found)


def test_windows_end_with_sentences_else_words_else_anywhere():
    text = "aaa bbb. cc ddd. eeee ff."
    pieces = [[text[offsets[0, 0] : offsets[-1, 1]].strip() for offsets in (letters(text)[a:b] for a, b in found)]
              for found in (windows(text, letters(text), room) for room in (14, 7, 4))]  # fmt: skip
    assert pieces[0] == ["aaa bbb. cc ddd.", "eeee ff."]
    assert pieces[1] == ["aaa bbb.", "cc ddd.", "eeee ff."]
    assert windows("x" * 10, letters("x" * 10), 4) == [(0, 4), (4, 7), (7, 10)]
    assert windows("a" * 9 + " bcd", letters("a" * 9 + " bcd"), 10) == [(0, 9), (9, 12)]


def test_windows_are_of_similar_length():
    text = "word. " * 100
    lengths = [end - start for start, end in windows(text, letters(text), 300)]
    assert lengths == [250, 250]
    assert split((0, 10), 9, []) == [(0, 5), (5, 10)]


@given(st.text(st.sampled_from("ab. \u5b57\u3002"), max_size=40))
def test_borders_are_where_another_unit_begins(text):
    offsets = letters(text)
    for units in (sentences(text), words(text)):
        own = [next(n for n, (a, b) in enumerate(units) if a < end <= b) for _, end in offsets]
        assert borders(units, offsets).tolist() == [i for i in range(1, len(own)) if own[i] != own[i - 1]]


@given(st.lists(st.integers(1, 6000), max_size=40))
def test_batches_hold_every_row_once_and_little_padding(lengths):
    found = batches(lengths, "cpu")
    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    for batch in found:
        longest = max(lengths[row] for row in batch)
        assert len(batch) == 1 or longest * len(batch) <= 4096
        assert min(lengths[row] for row in batch) >= longest * 3 // 4
    assert len(batches(lengths, "cuda")) <= len(found)


class TestEncoder:
    @pytest.fixture
    def encoder(self, tiny_encoder_path):
        return load_encoder(tiny_encoder_path, dtype="fp32", device="cpu")

    def test_tokens_are_those_of_the_text(self, encoder):
        texts = ["The river runs to the sea.", "", "odd \ud800 one", "Numbers 1, 22"]
        rows = encoder.tokens(texts)
        assert [len(ids) for ids, _ in rows] == encoder.count_tokens(texts)
        for text, (ids, offsets) in zip(texts, rows, strict=True):
            assert offsets.shape == (len(ids), 2)
            assert "".join(text[a:b] for a, b in offsets) == text
        given = encoder.encode_tokens([ids for ids, _ in rows])
        np.testing.assert_allclose(given, encoder.encode(texts), atol=1e-5)

    def test_token_vectors_add_up_to_the_text(self, encoder):
        texts = ["The river runs to the sea.", "", "Numbers 1, 22", "long " * 300]
        rows = [ids for ids, _ in encoder.tokens(texts)]
        for text, (own, around) in zip(texts, encoder.token_vectors(rows), strict=True):
            assert len(own) == min(encoder.count_tokens([text])[0], encoder.max_tokens - 2)
            whole = own.sum(axis=0) + around
            np.testing.assert_allclose(whole / np.linalg.norm(whole), encoder.encode([text])[0], atol=1e-5)

    def test_other_pooling_has_no_token_vectors(self, encoder):
        from dataclasses import replace

        with pytest.raises(ModelError, match="mean"):
            replace(encoder, _mode="cls").token_vectors([np.asarray([5])])

    def test_special_tokens_are_found(self, encoder):
        assert special_ids(encoder._cutting) == ([1], [2])
