from __future__ import annotations

import itertools
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip.errors import UsageError
from ragzip.ingest import Document, chunk, python_topics
from ragzip.ingest.formats.markup import read_markdown
from ragzip.ingest.pack import CHARACTERS_PER_TOKEN, Unit, cut, pack
from ragzip.text import sentences

_TOKEN = re.compile(r"\w{1,6}|[^\w\s]")


def count(texts):
    """Adds up over white space, as word pieces do, with two special tokens."""
    return [len(_TOKEN.findall(text)) + 2 for text in texts]


def rough(texts):
    """Does not add up: pieces together take more than alone, as with byte pairs and line ends."""
    return [len(text.encode("utf-8", "replace")) // 3 + text.count("\n") * 2 for text in texts]


def unknown(texts):
    """One token for a word of any length, none for some characters."""
    return [len(text.split()) - text.count("z") for text in texts]


def markdown(text: str, source: str = "a.md") -> Document:
    content = read_markdown(text, "a")
    return Document(source, content.text, content.title, {}, content.sections)


def check_laws(document: Document, tokens: int, overlap: int, counter) -> list:
    passages = chunk(document, tokens=tokens, overlap=overlap, count_tokens=counter)
    text = document.text
    covered = bytearray(len(text))
    for number, passage in enumerate(passages):
        start, end = passage.metadata["start"], passage.metadata["end"]
        assert passage.id == f"{document.source}#{number}"
        assert passage.metadata["source"] == document.source
        assert passage.text == text[start:end]
        assert passage.text
        assert passage.text == passage.text.strip()
        covered[start:end] = b"\1" * (end - start)
        assert len(passage.text) <= tokens * CHARACTERS_PER_TOKEN
        whole = f"{passage.title}\n{passage.text}" if passage.title else passage.text
        assert counter([whole])[0] <= tokens or len(passage.text) == 1
    assert all(seen or char.isspace() for seen, char in zip(covered, text, strict=True))
    starts = [passage.metadata["start"] for passage in passages]
    assert starts == sorted(starts)
    assert passages == chunk(document, tokens=tokens, overlap=overlap, count_tokens=counter)
    return passages


def shared(passages, text):
    """The text that each two neighbours have in common."""
    for first, second in itertools.pairwise(passages):
        if second.metadata["start"] < first.metadata["end"]:
            yield second.metadata["start"], text[second.metadata["start"] : first.metadata["end"]]


words = st.sampled_from(
    ["a", "word", "Lo.", "ng", "zzz", "x" * 40, "\n", "\n\n", "#", "东京。", "é", "🙂", "\t", "```\n"]
)
prose = st.lists(words, max_size=120).map(" ".join)
anything = prose | st.text(max_size=400) | st.text(alphabet="ab. \n", max_size=600)


@settings(deadline=None, max_examples=300)
@given(anything, st.integers(16, 80), st.data())
def test_laws(text, tokens, data):
    overlap = data.draw(st.integers(0, tokens // 2))
    sections = data.draw(
        st.lists(
            st.tuples(st.integers(0, 500), st.sampled_from(["", "A", "A > B", "A > C", "D", "x" * 300])), max_size=6
        )
    )
    title = data.draw(st.sampled_from(["", "A", "Some title", "t " * 200, "\u0301" * 90]))
    document = Document("s", text, title, {"k": 1}, tuple(sorted(sections)))
    passages = check_laws(document, tokens, overlap, count)
    begins = {start for start, _ in sentences(text)}
    for at, both in shared(passages, text):
        assert count([both])[0] - 2 <= overlap
        assert at in begins or sections  # sections cut sentences apart, and then begin them
    check_laws(document, tokens, overlap, rough)
    check_laws(document, tokens, overlap, unknown)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from(["One two three.", "A b?", "Seven words are standing here in line."]), min_size=1))
def test_prose_is_cut_at_sentence_borders_only(parts):
    document = Document("s", " ".join(parts))
    found = sentences(document.text)
    passages = check_laws(document, 20, 8, count)
    assert {passage.metadata["start"] for passage in passages} <= {start for start, _ in found}
    assert {passage.metadata["end"] for passage in passages} <= {end for _, end in found}


def test_neighbours_share_whole_sentences():
    text = " ".join(f"This is sentence number {n} here." for n in range(40))
    passages = check_laws(Document("s", text), 40, 10, count)
    both = list(shared(passages, text))
    assert len(both) == len(passages) - 1
    assert all(re.fullmatch(r"This is sentence number \d+ here\.", piece) for _, piece in both)
    assert not list(shared(chunk(Document("s", text), tokens=40, overlap=0, count_tokens=count), text))


def test_no_scraps_at_the_end():
    text = " ".join(f"This is sentence number {n} here." for n in range(23))
    for tokens in range(30, 200, 7):
        sizes = count([p.text for p in chunk(Document("s", text), tokens=tokens, overlap=0, count_tokens=count)])
        assert max(sizes) - min(sizes) <= 18, (tokens, sizes)


def test_passages_stay_in_their_section():
    body = " ".join(f"Some sentence number {n} in this place." for n in range(12))
    text = f"# Top\n\n{body}\n\n## One\n\n{body}\n\n## Two\n\n{body}\n"
    passages = check_laws(markdown(text), 60, 10, count)
    borders = [text.index("## One"), text.index("## Two")]
    for passage in passages:
        start, end = passage.metadata["start"], passage.metadata["end"]
        assert not any(start < border < end for border in borders)
    assert {p.metadata["section"] for p in passages} == {"Top", "Top > One", "Top > Two"}
    assert {p.title for p in passages} == {"Top", "Top > One", "Top > Two"}


def test_small_sections_go_together_under_what_they_share():
    text = "# Top\n\nIntro text.\n\n" + "".join(f"## Part {n}\n\nShort text {n}.\n\n" for n in range(4))
    (passage,) = check_laws(markdown(text), 100, 10, count)
    assert passage.metadata["section"] == "Top"
    assert passage.text == text.strip()


def test_a_heading_without_text_goes_with_the_section_below():
    body = " ".join(f"Some sentence number {n} in this place." for n in range(12))
    passages = check_laws(markdown(f"# Top\n\n## Sub\n\n{body}"), 60, 0, count)
    assert passages[0].text.startswith("# Top\n\n## Sub")
    assert passages[0].metadata["section"] == "Top > Sub"
    assert len(passages) > 1


def test_titles():
    def title(name, path):
        return chunk(Document("s", "Text.", name, {}, ((0, path),)), count_tokens=count)[0].title

    assert title("Doc", "") == "Doc"
    assert title("Doc", "A > B") == "Doc > A > B"
    assert title("Doc", "doc > B") == "Doc > B"
    assert title("", "A > B") == "A > B"
    assert title("", "") == ""
    assert title("Doc", "A" * 150 + " > B" * 20) == "Doc > B"
    assert len(title("D" * 500, "A")) <= 200
    assert len(title("", "A" * 500)) <= 200


def test_a_long_title_leaves_room_for_the_text():
    text = " ".join(f"This is sentence number {n} here." for n in range(10))
    passages = check_laws(Document("s", text, "many words in a title " * 9), 30, 0, count)
    assert all(count([p.title])[0] <= 12 for p in passages)


def test_metadata_and_pages():
    document = Document("s", "One. " * 30 + "Two. " * 30, "", {"year": 2020}, (), (0, 150))
    passages = check_laws(document, 20, 0, count)
    assert [p.metadata["page"] for p in passages] == [1 if p.metadata["start"] < 150 else 2 for p in passages]
    assert {p.metadata["page"] for p in passages} == {1, 2}
    assert all(p.metadata["year"] == 2020 for p in passages)
    assert "page" not in chunk(Document("s", "One."), count_tokens=count)[0].metadata


def test_code_is_cut_at_line_ends():
    code = "\n".join(f"call_{n}(first, second); # not. A. Sentence." for n in range(40))
    text = f"Before.\n\n```python\n{code}\n```\n\nAfter."
    for passage in check_laws(markdown(text), 60, 10, count):
        lines = passage.text.split("\n")
        assert all(line in text.split("\n") for line in lines)


def test_table_rows_stay_whole():
    rows = "\n".join(f"| name {n} | value. Of {n} | other |" for n in range(40))
    text = f"| a | b | c |\n|---|---|---|\n{rows}\n"
    for passage in check_laws(Document("s", text), 60, 0, count):
        assert all(line.strip() in text.split("\n") for line in passage.text.split("\n"))


def test_long_sentences_are_cut_between_words_then_characters():
    text = "word " * 500
    for passage in check_laws(Document("s", text), 30, 5, count):
        assert set(passage.text.split()) == {"word"}
    passages = check_laws(Document("s", "x" * 3000), 30, 5, count)
    assert "".join(p.text for p in passages) == "x" * 3000


def test_letters_keep_their_marks():
    text = "e\u0301" * 1000 + "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 300
    for passage in check_laws(Document("s", text), 40, 0, rough):
        assert passage.text[0] in "e\U0001f468"


@given(st.text(max_size=200), st.integers(1, 40))
def test_cut(text, size):
    pieces = cut(text, 0, len(text), size)
    assert all(0 < end - start <= size for start, end in pieces)
    assert [c for a, b in pieces for c in text[a:b] if not c.isspace()] == [c for c in text if not c.isspace()]


@pytest.mark.parametrize(("tokens", "overlap"), [(15, 0), (0, 0), (-1, 0), (100, 51), (100, -1)])
def test_sizes_that_cannot_be(tokens, overlap):
    with pytest.raises(UsageError) as caught:
        chunk(Document("s", "Text."), tokens=tokens, overlap=overlap, count_tokens=count)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", " ", "\n\t \r\n", "\u2028\u00a0"])
def test_nothing_gives_nothing(text):
    assert chunk(Document("s", text, "Title", {}, ((0, "A"),)), count_tokens=count) == []


def test_sentences_and_passages_are_each_counted_in_one_call():
    calls = []

    def counting(texts):
        calls.append(len(texts))
        return count(texts)

    (document,) = (d for d in python_topics() if d.source.endswith("/compound"))
    chunk(document, count_tokens=counting)
    assert len(calls) <= 4
    assert calls[0] > 100


def test_large_documents_are_counted_in_slices():
    sizes = []

    def counting(texts):
        sizes.append(sum(map(len, texts)))
        return count(texts)

    text = "This is a sentence of some words. " * 100_000
    passages = chunk(Document("s", text), count_tokens=counting)
    assert max(sizes) <= 5_000_000
    assert passages[-1].metadata["end"] == len(text.rstrip())


def test_real_text():
    for document in list(python_topics())[::4]:
        check_laws(document, 180, 30, count)


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "a ",
        "a. ",
        "\n",
        "a\n",
        "a\n\n",
        "# a\n",
        "# a\ntext. text.\n",
        "| a | b |\n",
        "```\n",
        "🙂",
        "。",
        "z",
        ". ",
        "   x",
    ],
)
@pytest.mark.parametrize("counter", [count, unknown])
def test_time_is_linear(unit, counter):
    def seconds(length):
        document = markdown(unit * (length // len(unit)))
        begin = time.process_time()
        chunk(document, count_tokens=counter)
        return time.process_time() - begin

    seconds(1000)
    small, large = seconds(50_000), seconds(400_000)
    assert large < 40 * small + 1.0, (small, large)


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 20), st.integers(1, 12), st.booleans()), max_size=60),
    st.integers(12, 24),
    st.data(),
)
def test_pack(raw, room, data):
    overlap = data.draw(st.integers(0, room // 2))
    most = data.draw(st.integers(10, 200))
    units, at = [], 0
    for length, gap, size, whole in raw:
        units.append(Unit(at + gap, at + gap + min(length, most), size, whole))
        at = units[-1].end
    packs = pack(units, room, overlap, most)
    assert [unit for packed in packs for unit in packed.units[packed.carried :]] == units
    for number, (found, carried) in enumerate(packs):
        assert sum(unit.tokens for unit in found) <= room
        assert found[-1].end - found[0].start <= most
        assert len(found) > carried
        assert all(unit.whole for unit in found[:carried])
        assert sum(unit.tokens for unit in found[:carried]) <= overlap
        assert list(found[:carried]) == (list(packs[number - 1].units[-carried:]) if carried else [])
        assert not carried or carried < len(packs[number - 1].units)


def test_no_passage_is_over_by_one():
    def one_more(texts):
        """Two sentences together take one token more than apart."""
        return [len(text.split()) + (text.count(".") > 1) for text in texts]

    text = " ".join(f"Sentence {n} has five words." for n in range(60))
    for tokens in range(16, 60):
        check_laws(Document("s", text), tokens, 0, one_more)
        check_laws(Document("s", text), tokens, tokens // 2, one_more)


def test_sections_far_apart_stay_apart():
    passages = check_laws(markdown("# A\n\nx\n" + "\n" * 20_000 + "# B\n\ny\n"), 100, 0, count)
    assert [p.metadata["section"] for p in passages] == ["A", "B"]
