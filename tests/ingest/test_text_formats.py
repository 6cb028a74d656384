from __future__ import annotations

import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.errors import UsageError
from ragzip.ingest import Document, Skipped, load, python_topics
from ragzip.ingest.decode import Unreadable, decode
from ragzip.ingest.formats.markup import read_markdown, read_rst, read_text
from tests.ingest.tools import documents, items, only, put, why


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marked_encodings(tmp_path, encoding):
    text = "Grüße aus 東京 🙂\r\nzweite Zeile\n"
    path = put(tmp_path, "a.txt", text.encode(encoding))
    assert only(tmp_path, path).text == text


def test_utf16_big_endian():
    assert decode("\ufeffhé".encode("utf-16-be")) == "hé"


def test_latin1_is_refused_with_the_byte_and_read_when_named(tmp_path):
    path = put(tmp_path, "a.txt", "Hello café".encode("latin-1"))
    assert why(tmp_path, path) == "not UTF-8 (byte 0xE9 at 9); convert it or pass --encoding"
    assert only(tmp_path, path, encoding="latin-1").text == "Hello café"


def test_a_named_encoding_leaves_utf8_files_alone(tmp_path):
    assert only(tmp_path, put(tmp_path, "a.txt", "café"), encoding="latin-1").text == "café"


@pytest.mark.parametrize("encoding", ["utf-16-le", "iso2022_jp", "shift_jis"])
def test_named_encodings(tmp_path, encoding):
    text = "日本語のテキスト"
    assert only(tmp_path, put(tmp_path, "a.txt", text.encode(encoding)), encoding=encoding).text == text


@pytest.mark.parametrize("encoding", ["klingon", "base64", "rot13", ""])
def test_no_such_encoding_is_said_at_once(tmp_path, encoding):
    with pytest.raises(UsageError, match="no text encoding"):
        load([str(tmp_path)], base=tmp_path, encoding=encoding)


def test_binary_and_empty(tmp_path):
    assert why(tmp_path, put(tmp_path, "a.txt", b"abc\0def")) == "binary file"
    assert why(tmp_path, put(tmp_path, "b.txt", b"")) == "empty file"
    assert why(tmp_path, put(tmp_path, "c.md", b" \n\t\n")) == "empty file"
    assert why(tmp_path, put(tmp_path, "d.md", b"\xef\xbb\xbf")) == "empty file"
    assert "UTF-16" in why(tmp_path, put(tmp_path, "e.txt", b"\xff\xfea"))


@given(st.binary(max_size=200))
def test_decoding_gives_storable_text_or_a_reason(data):
    try:
        text = decode(data)
    except Unreadable:
        return
    text.encode("utf-8")


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200))
def test_utf8_round_trip(text):
    assert decode(text.encode()) == text.removeprefix("\ufeff")


MARKDOWN = """---
title: "The Guide"
draft: true
---

Intro before any heading.

# Top #
text
## Sub `code` [link](http://x) {#anchor}
```python
# not a heading
===
```
~~~
``` still fenced
## nor this
~~~~
    # indented code
#hashtag
### Deep
Setext One
==========
More.

Setext Two
---
- item
---
a | b
--- | ---
<!--
# commented out
-->

####### seven
two lines of
a paragraph
---
## Last\r
"""


def test_markdown_sections():
    content = read_markdown(MARKDOWN, "stem")
    assert content.title == "The Guide"
    assert content.text == MARKDOWN
    assert [(path, MARKDOWN[at:].splitlines()[0]) for at, path in content.sections] == [
        ("Top", "# Top #"),
        ("Top > Sub code link", "## Sub `code` [link](http://x) {#anchor}"),
        ("Top > Sub code link > Deep", "### Deep"),
        ("Setext One", "Setext One"),
        ("Setext One > Setext Two", "Setext Two"),
        ("Setext One > Last", "## Last"),
    ]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# Hello\ntext", "Hello"),
        ("Hello\n===\ntext", "Hello"),
        ("no heading", "stem"),
        ("#\n# Second", "Second"),
        ("+++\ntitle = 'Toml'\n+++\n# H", "Toml"),
        ("---\ntitle: never closed\n\n# H", "H"),
        ("---\nnot: a title\n---\n# H", "H"),
        ("```\n# in code\n", "stem"),
    ],
)
def test_markdown_title(text, title):
    assert read_markdown(text, "stem").title == title


RST = """=======
 Title
=======

Intro.

Section
-------
Text.

Sub
~~~
Text::

    Not a heading
    -------------

Second
------
=====  =====
A      B
=====  =====

a paragraph
of two lines
------------
"""


def test_rst_sections():
    content = read_rst(RST, "stem")
    assert content.title == "Title"
    assert [path for _, path in content.sections] == [
        "Title",
        "Title > Section",
        "Title > Section > Sub",
        "Title > Second",
    ]
    assert content.sections[0][0] == 0
    assert all(RST[at - 1] == "\n" for at, _ in content.sections[1:])


def test_rst_headings_on_neighbouring_lines():
    assert [path for _, path in read_rst("AA\n==\nBB\n--\ntext\n", "s").sections] == ["AA", "AA > BB"]


def test_text_title():
    assert read_text("A Short Line\n\nThen prose.", "stem").title == "A Short Line"
    assert read_text("A sentence that ends.\n\nThen prose.", "stem").title == "stem"
    assert read_text("First line\nsecond line of the paragraph", "stem").title == "stem"
    assert read_text("one line", "stem").title == "stem"


@given(st.text(alphabet="#=-~`> ab\n\r\t<!+", max_size=300))
def test_headings_of_any_text_are_in_order_and_inside(text):
    for read in (read_markdown, read_rst, read_text):
        content = read(text, "stem")
        offsets = [at for at, _ in content.sections]
        assert offsets == sorted(set(offsets))
        assert all(0 <= at < len(text) for at in offsets)
        assert content.text == text


@pytest.mark.parametrize("read", [read_markdown, read_rst, read_text])
@pytest.mark.parametrize(
    "unit", ["#", " ", "# ", "=\n", "a\n-\n", "`", "```\n", "<!--", "[", "](", "-", "a", "x\n", "{#", "- "]
)
def test_headings_take_linear_time(read, unit):
    read(unit * 10, "stem")
    begin = time.perf_counter()
    read(unit * (400_000 // len(unit)), "stem")
    assert time.perf_counter() - begin < 10  # quadratic would take many minutes


def test_content_hash_moves_with_everything_that_passages_show():
    document = Document("s", "text", "title", {"a": 1}, ((0, "A"),), (0,))
    others = [
        Document("s", "text2", "title", {"a": 1}, ((0, "A"),), (0,)),
        Document("s", "text", "other", {"a": 1}, ((0, "A"),), (0,)),
        Document("s", "text", "title", {"a": 2}, ((0, "A"),), (0,)),
        Document("s", "text", "title", {"a": 1}, ((0, "B"),), (0,)),
        Document("s", "text", "title", {"a": 1}, ((0, "A"),), (1,)),
    ]
    assert len({document.content_hash, *(other.content_hash for other in others)}) == 6
    same = Document("elsewhere", "text", "title", {"a": 1}, ((0, "A"),), (0,), "root", "raw")
    assert same.content_hash == document.content_hash
    assert len(Document("s", "\ud800").content_hash) == 64


def test_stdin_text(tmp_path):
    (document,) = load(["-"], base=tmp_path, stdin=io.BytesIO("Grüße.\n".encode()))
    assert (document.source, document.text, document.root) == ("stdin", "Grüße.\n", "-")
    (document,) = load(["-", "-"], base=tmp_path, stdin=io.StringIO("Text."))
    assert document.text == "Text."


def test_stdin_json_lines(tmp_path):
    lines = '{"text": "One."}\n\n{"id": "x", "text": "Two."}\n'
    found = list(load(["-"], base=tmp_path, stdin=io.StringIO(lines)))
    assert [(item.source, item.text) for item in found] == [("stdin#L1", "One."), ("stdin#x", "Two.")]
    *same, broken = load(["-"], base=tmp_path, stdin=io.StringIO(lines + '{"id": "y", "te'))  # a pipe that broke off
    assert same == found
    assert isinstance(broken, Skipped)
    assert not broken.gone
    (document,) = load(["-"], base=tmp_path, stdin=io.StringIO(lines + "and prose\n" * 3))
    assert document.text == lines + "and prose\n" * 3


def test_stdin_that_cannot_be_used(tmp_path):
    def reason(stream, **options):
        (skipped,) = load(["-"], base=tmp_path, stdin=stream, **options)
        assert isinstance(skipped, Skipped)
        return skipped.reason

    assert reason(io.StringIO("")) == "empty"
    assert reason(io.BytesIO(b"a\0b")) == "binary file"
    assert "0xE9" in reason(io.BytesIO(b"caf\xe9"))
    assert reason(io.BytesIO(b"x" * 101), max_bytes=100).startswith("too big")
    closed = io.StringIO()
    closed.close()
    assert "closed" in reason(closed)


def test_python_topics(tmp_path):
    topics = list(python_topics())
    assert len(topics) > 50
    by_source = {document.source: document for document in topics}
    loop = by_source["python:topics/while"]
    assert loop.title == "The while statement"
    assert "loop terminates" in loop.text
    assert loop.sections
    assert documents(tmp_path, "python:topics") == topics
    assert {document.root for document in topics} == {"python:topics"}


def test_lone_surrogates_never_get_out(tmp_path):
    put(tmp_path, "a.jsonl", '{"text": "a\\ud800b", "title": "\\udfff", "k\\ud800": ["\\ud800"]}')
    (document,) = items(tmp_path)
    assert document.text == "a\ufffdb"
    repr(document.metadata).encode()
    document.title.encode()


def test_comments_that_never_end_take_linear_time():
    content = read_markdown("# Title\n\n" + "<!-- a\n" * 200_000 + "## Last\n", "stem")  # a minute if it were quadratic
    assert content.title == "Title"
    assert [path for _, path in content.sections][-1].endswith("Last")
