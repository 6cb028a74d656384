"""What a sentence encoder reads of texts and questions that are longer than its window: all."""

from __future__ import annotations

import numpy as np
import pytest

from ragzip.compressors._relevance import asked, cut, led, read, relevance
from ragzip.models import load_encoder
from tests.matrix import HashedWords

LONG = [
    "的" * 600 + "谁建立了罗马？",
    "的" * 600 + "它有多高？",
    "word " * 300 + "Who built Rome?",
    "word " * 300 + "How tall is it?",
]
SHORT = ["", "The river runs to the sea.", "x", "Which city is the capital?"]


class Recording(HashedWords):
    """Says what it was asked, and how much was counted."""

    def __init__(self):
        self.calls, self.counted = [], 0

    def encode(self, texts, **options):
        self.calls.append(list(texts))
        return super().encode(texts, **options)

    def count_tokens(self, texts):
        self.counted += sum(map(len, texts))
        return super().count_tokens(texts)


def test_what_fits_is_one_plain_call():
    encoder = Recording()
    reading = read(encoder, SHORT, ["", "River", "", ""])
    parts = asked(encoder, " Who? ")
    assert encoder.calls == [["", "River: The river runs to the sea.", "x", "Which city is the capital?"], [" Who? "]]
    plain = HashedWords().encode(encoder.calls[0])
    assert np.array_equal(reading.vectors(), plain)
    assert np.array_equal(reading.closeness(parts), (plain @ HashedWords().encode([" Who? "])[0]).clip(0.0, 1.0))


def test_texts_without_a_word_are_close_to_nothing_and_nothing_is_read_for_them():
    encoder = Recording()
    assert relevance(encoder, "Who?", [" ", ""], ["Title", ""]) == [0.0, 0.0]
    assert encoder.calls == []


def test_a_prompt_stands_before_every_part_of_a_question_and_before_no_text():
    encoder = Recording()
    encoder.query_prompt, encoder.max_tokens = "query: ", 6
    assert len(asked(encoder, "Who came here? Who went there? Who stayed?")) == 3
    asked(encoder, "Who?")
    read(encoder, ["The river."], [""])
    parts, short, texts = encoder.calls
    assert parts == ["query: Who came here?", "query: Who went there?", "query: Who stayed?"]
    assert (short, texts) == (["query: Who?"], ["The river."])


def test_work_grows_with_the_length():
    counted = []
    for length in (5_000, 20_000):
        encoder = Recording()
        read(encoder, ["word " * length], [""])
        asked(encoder, "word " * length)
        assert sum(len(window.split()) for windows in encoder.calls for window in windows) == 2 * length
        counted.append(encoder.counted)
    assert counted[1] < 6 * counted[0]


class TestWithATinyEncoder:
    real_encoder = True

    @pytest.fixture(autouse=True)
    def load(self, tiny_encoder_path):
        self.encoder = load_encoder(tiny_encoder_path, dtype="fp32")

    def test_texts_that_differ_at_the_end_have_vectors_that_do(self):
        plain = self.encoder.encode(LONG)
        vectors = read(self.encoder, LONG, [""] * 4).vectors()
        for one, other in ((0, 1), (2, 3)):
            assert np.array_equal(plain[one], plain[other])
            assert np.abs(vectors[one] - vectors[other]).max() > 1e-4

    def test_questions_that_differ_at_the_end_find_other_texts(self):
        texts = read(self.encoder, SHORT, [""] * 4)
        for one, other in (LONG[:2], LONG[2:]):
            found = [texts.closeness(asked(self.encoder, question)) for question in (one, other)]
            assert np.abs(found[0] - found[1]).max() > 1e-4

    def test_a_long_text_is_the_weighted_mean_and_as_close_as_its_best_window(self):
        texts, titles = [SHORT[1], LONG[2], SHORT[3], LONG[1]], ["", "Title", "", ""]
        reading = read(self.encoder, texts, titles)
        parts = asked(self.encoder, LONG[3])
        assert len(parts) > 1
        for text, title, vector, close in zip(texts, titles, reading.vectors(), reading.closeness(parts), strict=True):
            windows = cut(self.encoder, text, led("", title))
            counts = self.encoder.count_tokens(windows)
            assert max(counts) <= self.encoder.room
            rows = self.encoder.encode(windows)
            mean = np.average(rows, axis=0, weights=counts)
            np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)
            assert close == pytest.approx(float((rows @ parts.T).max().clip(0.0, 1.0)), abs=1e-5)
