"""What the graph reads in text: words, phrases, names, titles and links, against slow and simple readings."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.indexes.graph.links import key, links
from ragzip.indexes.graph.mentions import Phrasebook, Stream, names
from ragzip.indexes.graph.words import (
    CAPITAL,
    JOINED,
    LINK,
    MOST_WORDS,
    NUMBER,
    START,
    names_of,
    phrase,
    phrases,
    words,
)

TEXTS = st.lists(
    st.sampled_from(
        [
            "Anna",
            "anna",
            "of",
            "the",
            "The",
            "Berg",
            "berg",
            "Lake",
            "42",
            "B2",
            "日本",
            "été",
            "ÉTÉ",
            "W",
            "ran",
            "\u0301",
            "🙂",
        ]
    ),
    max_size=40,
)
GAPS = st.sampled_from([" ", "  ", ". ", ", ", "-", "\n", "'", " (", ") ", ""])


@st.composite
def texts(draw):
    return "".join(word + draw(GAPS) for word in draw(TEXTS))


def as_stream(*passages: str) -> Stream:
    found = [words(text) for text in passages]
    owners = np.repeat(np.arange(len(found)), [len(one.hashes) for one in found])
    return Stream(
        owners.astype(np.int64),
        np.concatenate([np.empty(0, np.uint32), *(one.hashes for one in found)]),
        np.concatenate([np.empty(0, np.uint8), *(one.flags for one in found)]),
    )


def of(text: str) -> int:
    return phrase(words(text).hashes)


@given(st.text(max_size=200) | texts())
def test_a_phrase_is_the_same_number_wherever_it_stands(text):
    hashes = words(text).hashes
    for size, values in enumerate(phrases(hashes), start=1):
        assert len(values) == len(hashes) - size + 1
        assert [phrase(hashes[at : at + size]) for at in range(len(values))] == values.tolist()
    assert words(text.lower()).hashes.tolist() == words(text.lower().title().lower()).hashes.tolist()


@given(texts(), texts())
def test_different_words_are_different_numbers(a, b):
    one, other = words(a).hashes.tolist(), words(b).hashes.tolist()
    if one != other:
        assert phrase(one) != phrase(other)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("we met Anna Berg of Lake Town. Then", ["Anna Berg of Lake Town"]),
        ("in Paris, France and", ["Paris", "France"]),
        ("saw George W. Bush there", ["George W. Bush"]),
        ("at St. Louis now", ["St. Louis"]),
        ("the House of the", ["House"]),
        ("by Jean-Luc O'Neil", ["Jean-Luc O'Neil"]),
        ("on 4 May 1990 at", ["May"]),
        ("nothing here, 日本語 неделя", []),
        ("", []),
    ],
)
def test_names(text, found):
    stream = as_stream("so " + text)
    result = names(stream)
    assert sorted(result.keys[result.sure].tolist()) == sorted(of(name) for name in found)


def test_what_begins_a_sentence_is_no_sure_name():
    result = names(as_stream("Swimming is fun. The Alps are high."))
    assert set(result.keys[result.sure].tolist()) == {of("The Alps"), of("Alps")}
    assert of("Swimming") in result.keys[~result.sure].tolist()


def simple_names(text: str) -> list[tuple[int, bool]]:
    """Names, word by word."""
    hashes, flags = words(text)
    found = []
    at = 0
    while at < len(hashes):
        end = at
        inside = [bool(flag & LINK or flag & CAPITAL) and not flag & NUMBER for flag in flags]
        while end < len(hashes) and inside[end] and (end == at or flags[end] & JOINED):
            end += 1
        capitals = [n for n in range(at, end) if flags[n] & CAPITAL]
        if capitals:
            first, last = capitals[0], capitals[-1] + 1
            opens = bool(flags[first] & START)
            found.append((phrase(hashes[first:last]), not opens or last - first > 1, last - first))
            if opens and last - first > 1 and flags[first + 1] & CAPITAL:
                found.append((phrase(hashes[first + 1 : last]), True, last - first - 1))
        at = max(end, at + 1)
    return [(value, sure) for value, sure, size in found if size <= MOST_WORDS]


@given(texts())
def test_names_are_those_a_loop_finds(text):
    result = names(as_stream(text))
    assert sorted(zip(result.keys.tolist(), result.sure.tolist(), strict=True)) == sorted(simple_names(text))


@given(st.lists(texts(), max_size=4), st.lists(texts(), max_size=6))
def test_a_phrasebook_finds_what_a_loop_finds(passages, known):
    keys = {of(text) for text in known if 0 < len(words(text).hashes) <= MOST_WORDS}
    book = Phrasebook(np.array(sorted(keys), np.uint64))
    expected = []
    for owner, text in enumerate(passages):
        hashes = words(text).hashes
        taken: list[set[int]] = []
        for size in range(MOST_WORDS, 0, -1):
            covered = set().union(*taken) if taken else set()
            fresh = []
            for at in range(len(hashes) - size + 1):
                places = set(range(at, at + size))
                if phrase(hashes[at : at + size]) in keys and not places <= covered:
                    fresh.append(places)
                    expected.append((owner, phrase(hashes[at : at + size])))
            taken += fresh
    result = book.find(as_stream(*passages))
    assert sorted(zip(result.owners.tolist(), result.keys.tolist(), strict=True)) == sorted(expected)


def test_a_title_stands_for_its_steps_and_for_itself_without_brackets():
    assert names_of("Cars (2006 film)") == {of("Cars 2006 film"), of("cars")}
    assert names_of("Guide > Install") == {of("guide"), of("install")}
    assert names_of("") == names_of("(...)") == set()
    assert names_of("one two three four five six seven eight nine") == set()


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("see [it](b.md#part) and [up](../c.md 'title')", ["docs/b.md", "c.md"]),
        ("[x]: b%20c.md\n<a href='/top/d.html?q=1'>", ["docs/b c.md", "top/d.html"]),
        ("<https://example.org/page> [w](https://example.org/page#x)", ["https://example.org/page"]),
        ("[self](a.md) [here](#below) nothing", []),
        ("[it](<b (1).md>) [broken](", ["docs/b (1).md"]),
    ],
)
def test_links(text, targets):
    assert links(text, "docs/a.md") == [key(target) for target in targets]


@given(st.text(alphabet="[]()<>:# ahref='\"=/.\n", max_size=300))
def test_any_text_has_its_links_read(text):
    assert len(links("](" + text, "a")) <= 256


def test_reading_links_takes_time_linear_in_the_text():
    assert links("](" + "[" * 100_000, "a") == []
    assert links("\n[" * 50_000 + "](", "a") == []


@pytest.mark.parametrize("odd", ["(", " ", "( ", "[("])
def test_odd_titles_and_gaps_take_no_longer_than_their_length(odd):
    """Patterns that try again from each character would take minutes here."""
    long = odd * 100_000
    started = time.perf_counter()
    names_of(f"Name{long}Name")
    words(f"Name{long}Name")
    assert time.perf_counter() - started < 5
