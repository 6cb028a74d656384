from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip.compressors._surroundings import in_parts, surroundings
from ragzip.testing.strategies import texts
from ragzip.text import sentences


def count(batch):
    """Two characters a token, at least one: pieces cost a little more than the whole."""
    return [(len(text) + 1) // 2 for text in batch]


@given(texts(300), st.integers(1, 40))
def test_parts_are_the_text_and_small(text, most):
    parts = in_parts(text, most, count)
    assert "".join(text[start:end] for start, end in parts) == text
    assert all(count([text[start:end]])[0] <= most or end - start < 2 for start, end in parts)
    assert len(parts) == 1 or all(start < end for start, end in parts)


def test_parts_end_at_words():
    text = "alpha beta gamma delta epsilon zeta"
    parts = [text[start:end] for start, end in in_parts(text, 6, count)]
    assert [word for part in parts for word in part.split()] == text.split()
    assert len(parts) > 2


def test_a_document_that_fits_is_whole():
    assert surroundings("One. Two.", [(0, 4), (5, 9)], 5, 2, count) == [((0, 9), [0, 1])]
    assert surroundings("", [], 5, 2, count) == []


def judged(text, room, overlap):
    parts = [
        (start + a, start + b) for start, end in sentences(text) for a, b in in_parts(text[start:end], overlap, count)
    ]
    return parts, surroundings(text, parts, room, overlap, count)


PROSE = st.lists(st.integers(1, 30), max_size=80).map(
    lambda sizes: " ".join(f"{'Word ' * (size - 1)}end." for size in sizes)
)


@settings(max_examples=60)
@given(st.one_of(texts(2000), PROSE), st.integers(40, 200))
def test_every_part_is_judged_once_in_a_stretch_that_fits_and_holds_it(text, room):
    parts, found = judged(text, room, room // 4)
    assert sorted(number for _, numbers in found for number in numbers) == list(range(len(parts)))
    for (start, end), numbers in found:
        assert count([text[start:end]])[0] <= room
        assert numbers
        assert all(start <= parts[number][0] and parts[number][1] <= end for number in numbers)


def test_a_sentence_in_the_middle_has_something_on_both_sides():
    text = " ".join(f"Sentence number {number} ends here." for number in range(100))
    parts, found = judged(text, 200, 20)
    assert len(found) > 8
    for (start, end), numbers in found:
        for number in numbers:
            first, last = parts[number]
            assert start == 0 or first > start
            assert end == len(text) or last < end
