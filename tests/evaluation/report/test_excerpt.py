from hypothesis import given
from hypothesis import strategies as st

from ragzip.evaluation.report.excerpt import Excerpt


@st.composite
def texts_with_spans(draw):
    text = draw(st.text(alphabet="ab .é🦊שא", max_size=300))
    ends = st.integers(0, len(text))
    spans = draw(st.lists(st.tuples(ends, ends).map(lambda pair: tuple(sorted(pair))), max_size=5))
    return text, spans


def _utf16(text):
    return text.encode("utf-16-le")


@given(texts_with_spans())
def test_places_say_what_the_spans_say_in_utf16(pair):
    text, spans = pair
    excerpt = Excerpt.of(text, spans, 1000)
    assert excerpt.text == text
    assert excerpt.gaps == ()
    covered = {i for start, end in spans for i in range(start, end)}
    shown = b"".join(_utf16(text)[2 * a : 2 * b] for a, b in excerpt.places(spans)).decode("utf-16-le")
    # Neighbours a blank apart are joined, nothing else is added and nothing is lost.
    assert shown.replace(" ", "") == "".join(text[i] for i in sorted(covered)).replace(" ", "")


@given(texts_with_spans(), st.integers(8, 120))
def test_bounded_and_every_left_out_character_is_counted(pair, bound):
    text, spans = pair
    excerpt = Excerpt.of(text, spans, bound)
    assert len(excerpt.text) <= max(bound, 1)
    assert len(excerpt.text) + sum(count for _, count in excerpt.gaps) == len(text)
    units = len(_utf16(excerpt.text)) // 2
    assert all(0 <= place <= units for place, _ in excerpt.gaps)
    for start, end in excerpt.places(spans):
        assert 0 <= start < end <= units


def test_a_kept_sentence_deep_in_a_huge_passage_is_shown():
    text = "x" * 500_000 + "The answer is here." + "y" * 500_000
    span = (500_000, 500_019)
    excerpt = Excerpt.of(text, [span, (0, len(text))], 4_000)
    assert len(excerpt.text) <= 4_000
    ((start, end),) = excerpt.places([span])
    assert excerpt.text[start:end] == "The answer is here."
