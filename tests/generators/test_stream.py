import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import Metaspace
from tokenizers.models import WordLevel

from ragzip import models
from ragzip.models.stream import BROKEN, AnswerText


@pytest.fixture(scope="module")
def tokenizer(tiny_lm_path):
    return models.load_tokenizer(tiny_lm_path)


def run(tokenizer, ids, stop=()):
    """The answer of a run of tokens, its pieces, and after how many tokens it was complete."""
    pieces = []
    answer = AnswerText(lambda i: tokenizer.decode(list(i)), stop=stop, on_text=pieces.append)
    used = next((n for n, token in enumerate(ids, 1) if answer.feed(token)), len(ids))
    return answer.finish(), pieces, used


@given(text=st.text(max_size=60).filter(lambda text: "<|" not in text))  # control tokens are no text
def test_stream_is_the_text_and_no_piece_has_half_a_character(tokenizer, text):
    answer, pieces, _ = run(tokenizer, tokenizer.encode(text).ids)
    assert answer == text.strip() or BROKEN in text
    assert "".join(pieces) == answer
    assert all(pieces)
    assert BROKEN in text or not any(BROKEN in piece for piece in pieces)


@given(ids=st.lists(st.integers(3, 383), max_size=60))
def test_any_tokens_give_what_decoding_all_at_once_gives(tokenizer, ids):
    """Also bytes that are no text: only a broken end is left out."""
    answer, pieces, _ = run(tokenizer, ids)
    assert answer == tokenizer.decode(ids).rstrip(BROKEN).strip().rstrip(BROKEN).strip() or BROKEN in answer
    assert "".join(pieces) == answer


@given(
    text=st.text(alphabet="ab\n .é", max_size=40),
    stop=st.lists(st.text(alphabet="ab\n .", min_size=1, max_size=4), min_size=1, max_size=3).map(tuple),
)
def test_text_ends_before_the_first_stop_string(tokenizer, text, stop):
    answer, pieces, _ = run(tokenizer, tokenizer.encode(text).ids, stop)
    ends = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    assert answer == text[: min(ends)[1] if ends else None].strip()
    assert "".join(pieces) == answer
    one_by_one = AnswerText(lambda _: "", stop=stop)
    for character in text:
        one_by_one.add(character)
    assert one_by_one.finish() == answer


def test_answer_is_complete_with_its_stop_string(tokenizer):
    ids = tokenizer.encode("one. two. three.").ids
    answer, _, used = run(tokenizer, ids, (". t",))
    assert answer == "one"
    assert used < len(ids)


def test_pieces_come_as_soon_as_they_are_certain(tokenizer):
    pieces = []
    answer = AnswerText(lambda i: tokenizer.decode(list(i)), stop=("zz",), on_text=pieces.append)
    for token in tokenizer.encode("xyz").ids:
        answer.feed(token)
    assert "".join(pieces) == "xy"  # the z may begin a stop string
    for token in tokenizer.encode("é").ids[:1]:
        answer.feed(token)
    assert "".join(pieces) == "xy"  # half a character
    for token in tokenizer.encode("é").ids[1:]:
        answer.feed(token)
    assert "".join(pieces) == "xyzé"


def test_text_of_a_server_goes_the_same_way():
    pieces = []
    answer = AnswerText(lambda _: "", stop=("END",), on_text=pieces.append)
    for piece in (" Hel", "lo E", "N", "Dmore"):
        answer.add(piece)
    assert answer.finish() == "Hello"
    assert pieces == ["Hel", "lo"]


@given(ids=st.lists(st.integers(0, 12), max_size=20))
def test_what_shows_nothing_takes_no_space_along(ids):
    """Decoders that put a space between words and leave control tokens out."""
    text = Tokenizer(WordLevel({"\u2581" * (i % 2) + str(i): i for i in range(9)}, "0"))
    text.add_special_tokens([AddedToken(f"<{i}>", special=True) for i in range(4)])
    text.decoder = Metaspace()
    answer, pieces, _ = run(text, ids)
    assert answer == text.decode(ids).strip()
    assert "".join(pieces) == answer
