from __future__ import annotations

import csv
import json
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragzip.ingest import Document, Skipped, load
from ragzip.ingest.formats import _rows, lines, records
from tests.ingest.tools import documents, items, only, put, why


def test_jsonl(tmp_path):
    rows = [
        {"text": "One.", "title": "T", "year": 2020, "tags": ["a", 1], "deep": {"x": [1]}},
        {"id": 7, "contents": "Two.", "source": "web", "page": 3, "none": None, "ok": True},
        {"_id": "q/8", "Body": "Three.", "TITLE": "Upper"},
    ]
    put(tmp_path, "a.jsonl", "\n\n".join(json.dumps(row) for row in rows))
    one, two, three = documents(tmp_path)
    assert (one.source, one.text, one.title) == ("a.jsonl#L1", "One.", "T")
    assert one.metadata == {"year": 2020, "tags": ["a", 1], "deep": '{"x": [1]}'}
    assert (two.source, two.text, two.title) == ("a.jsonl#7", "Two.", "")
    # What passages write themselves is kept beside, not over it.
    assert two.metadata == {"id": 7, "source_": "web", "page_": 3, "none": None, "ok": True}
    assert (three.source, three.text, three.title) == ("a.jsonl#q/8", "Three.", "Upper")


def test_the_first_text_field_counts(tmp_path):
    put(tmp_path, "a.ndjson", json.dumps({"abstract": "A.", "body": "B.", "text": "T."}))
    (document,) = documents(tmp_path)
    assert document.text == "T."
    assert document.metadata == {"abstract": "A.", "body": "B."}


def test_bad_lines_are_skipped_one_by_one(tmp_path):
    content = b"\n".join(
        [
            b'{"text": "good"}',
            b'{"text": "cut off',
            b"[1, 2]",
            b'"text"',
            b'{"title": "no text"}',
            b'{"text": ["a"]}',
            b'{"text": "  "}',
            b'{"text": null}',
            b'{"text": "caf\xe9"}',
            b'{"text": 1' + b"0" * 5000 + b"}",
            b"[" * 100_000,
            b'{"text": "last", "x": NaN, "y": 1e999}',
        ]
    )
    put(tmp_path, "a.jsonl", content)
    found = items(tmp_path)
    good = [item for item in found if isinstance(item, Document)]
    assert [item.text for item in good] == ["good", "last"]
    assert good[1].metadata == {"x": None, "y": None}
    reasons = {item.source: item.reason for item in found if isinstance(item, Skipped)}
    assert list(reasons) == [f"a.jsonl:{line}" for line in range(2, 12)]
    assert reasons["a.jsonl:2"].startswith("not JSON: ")
    assert reasons["a.jsonl:3"] == "a JSON list, not an object"
    assert "none of the fields text" in reasons["a.jsonl:5"]
    assert reasons["a.jsonl:6"] == "its 'text' is a list, not text"
    assert reasons["a.jsonl:7"] == "its 'text' is empty"
    assert "0xE9" in reasons["a.jsonl:9"]
    assert all("\n" not in reason and len(reason) < 300 for reason in reasons.values())


def test_one_id_twice_gives_two_sources(tmp_path):
    put(tmp_path, "a.jsonl", '{"id": "x", "text": "1"}\n{"id": "x", "text": "2"}\n{"id": "L9", "text": "3"}\n')
    assert [document.source for document in documents(tmp_path)] == ["a.jsonl#x", "a.jsonl#x@L2", "a.jsonl#L9"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_marked_record_files(tmp_path, encoding):
    put(tmp_path, "a.jsonl", '{"text": "é1"}\r\n{"text": "é2"}\r\n'.encode(encoding))
    put(tmp_path, "b.csv", "text,n\né3,1\n".encode(encoding))
    assert [document.text for document in documents(tmp_path)] == ["é1", "é2", "é3"]


def test_named_encoding_line_by_line(tmp_path):
    put(tmp_path, "a.jsonl", b'{"text": "caf\xe9"}\n' + '{"text": "café 2"}\n'.encode())
    found = documents(tmp_path, encoding="latin-1")
    assert [document.text for document in found] == ["café", "café 2"]


def test_empty_and_binary_record_files(tmp_path):
    assert why(tmp_path, put(tmp_path, "a.jsonl", b"")) == "no records"
    assert why(tmp_path, put(tmp_path, "b.csv", b"\n\n")) == "no records"
    assert why(tmp_path, put(tmp_path, "c.csv", b"a,b\n")) == "no records"
    assert why(tmp_path, put(tmp_path, "d.jsonl", b"\x00\x01\x02")) == "binary file"


def test_huge_line_is_skipped_and_the_next_read(tmp_path, monkeypatch):
    monkeypatch.setattr("ragzip.ingest.formats.lines.read_lines.__kwdefaults__", {"longest": 1000})
    put(tmp_path, "a.jsonl", '{"text": "' + "x" * 50_000 + '"}\n{"text": "next"}\n')
    put(tmp_path, "b.csv", "text\n" + "x" * 50_000 + "\nnext\n")
    skipped_json, next_json, skipped_csv, next_csv = items(tmp_path)
    assert (skipped_json.source, skipped_csv.source) == ("a.jsonl:1", "b.csv:2")
    assert skipped_json.reason == skipped_csv.reason == "longer than 1,000 characters"
    assert next_json.text == next_csv.text == "next"


def test_a_line_exactly_at_the_limit():
    import io

    found = list(lines.read_lines(io.BytesIO(b"abcd\nabcde\nabc"), None, longest=4))
    assert [(line.text, bool(line.problem)) for line in found] == [("abcd\n", False), ("\n", True), ("abc", False)]


def test_record_files_are_streamed(tmp_path):
    row = json.dumps({"text": "word " * 200}) + "\n"
    put(tmp_path, "a.jsonl", row * 20_000)  # 20 MB
    put(tmp_path, "b.csv", "text\n" + ("word " * 200 + "\n") * 20_000)
    stream = load([str(tmp_path)], base=tmp_path, max_bytes=1000)
    next(stream)
    tracemalloc.start()
    try:
        assert sum(1 for _ in stream) == 39_999
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


CSV = """id,title,text,year
a,First,"Hello, ""world"".
Second line.",2020
,,,
b,Second,Plain,2021,extra
c,Third,,2022
"""


def test_csv_with_a_text_column(tmp_path):
    put(tmp_path, "a.csv", CSV)
    a, b, c = items(tmp_path)
    assert (a.source, a.title, a.text) == ("a.csv#a", "First", 'Hello, "world".\nSecond line.')
    assert a.metadata == {"id": "a", "year": "2020"}
    assert b.metadata == {"id": "b", "year": "2021", "column_5": "extra"}
    assert isinstance(c, Skipped)
    assert c.source == "a.csv:6"


def test_csv_without_a_text_column(tmp_path):
    put(tmp_path, "people.csv", "name;role\nAda;programmer\nAlan;\n")
    ada, alan = documents(tmp_path)
    assert (ada.source, ada.text) == ("people.csv#L2", "name: Ada\nrole: programmer")
    assert ada.metadata == {"name": "Ada", "role": "programmer"}
    assert alan.text == "name: Alan"


def test_csv_without_a_header(tmp_path):
    put(tmp_path, "a.tsv", '0\tHe said "no" and left.\n1\t"quoted ""x"" all"\n2\t"open\n')
    texts = [document.text for document in documents(tmp_path)]
    assert texts == [
        'column_1: 0\ncolumn_2: He said "no" and left.',
        'column_1: 1\ncolumn_2: quoted "x" all',
        'column_1: 2\ncolumn_2: "open',
    ]


def test_csv_bad_rows(tmp_path):
    body = b"text,n\ngood,1\nnul\0byte,2\ncaf\xe9,3\n" + b'"spans\nli\xe9nes",4\nlast,5\n'
    # The NUL stands beyond the first block: before that the file counts as binary.
    put(tmp_path, "a.csv", b"text,n\n" + b"filler,0\n" * 2000 + body[7:])
    found = items(tmp_path)
    skipped = {item.source: item.reason for item in found if isinstance(item, Skipped)}
    assert skipped["a.csv:2003"] == "NUL bytes in this row"
    assert "0xE9" in skipped["a.csv:2004"]
    assert "0xE9" in skipped["a.csv:2005"]
    assert len(skipped) == 3
    assert [item.text for item in found if isinstance(item, Document)][-2:] == ["good", "last"]
    put(tmp_path, "b.csv", body)
    assert why(tmp_path, tmp_path / "b.csv") == "binary file"


def test_quote_that_is_never_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(_rows, "LONGEST_LINE", 1000)
    before = csv.field_size_limit()
    put(tmp_path, "a.csv", 'text,n\n"open,1\n' + "x,1\n" * 1000 + "last,2\n")
    found = items(tmp_path)
    assert isinstance(found[0], Skipped)
    assert found[0].source == "a.csv:2"
    assert "limit" in found[0].reason
    assert found[-1].text == "last"
    assert csv.field_size_limit() == before


def test_a_long_field_is_read_whole(tmp_path):
    path = put(tmp_path, "a.csv", "text,n\n" + "x" * 500_000 + ",1\n")
    assert len(only(tmp_path, path).text) == 500_000


cells = st.text(alphabet=st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]), max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=8))
def test_csv_round_trip(tmp_path: Path, rows):
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "other"])
        writer.writerows(rows)
    found = [item for item in items(tmp_path) if isinstance(item, Document)]
    expected = [(text, other) for text, other in rows if text.strip()]
    assert [(item.text, item.metadata.get("other", "")) for item in found] == expected


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(st.lists(st.dictionaries(st.sampled_from(["text", "id", "title", "source", "x"]), values), max_size=5))
def test_any_json_lines_give_storable_documents_with_unique_sources(tmp_path: Path, rows):
    put(tmp_path, "a.jsonl", "\n".join(json.dumps(row) for row in rows))
    found = items(tmp_path)
    assert len(found) == max(1, len(rows))
    sources = [item.source for item in found]
    assert len(set(sources)) == len(sources)
    for item in found:
        if isinstance(item, Document):
            json.dumps([item.source, item.text, item.title, dict(item.metadata)], allow_nan=False).encode()
            item.text.encode()
            assert not records.RESERVED & set(item.metadata)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(st.binary(max_size=300), st.sampled_from(["a.csv", "a.tsv", "a.jsonl"]))
def test_any_bytes_as_records(tmp_path: Path, data, name):
    for item in items(tmp_path, put(tmp_path, name, data)):
        assert isinstance(item, Document | Skipped)
        item.source.encode()


@pytest.mark.parametrize("column", ["ID", "Id", " id ", "Doc_ID"])
def test_ids_are_found_in_any_case(tmp_path, column):
    put(tmp_path, "a.csv", f"{column},Text\n7,One.\n8,Two.\n")
    assert [document.source for document in documents(tmp_path)] == ["a.csv#7", "a.csv#8"]


def test_of_two_ids_the_one_that_is_spelled_so_counts(tmp_path):
    put(tmp_path, "a.jsonl", json.dumps({"ID": "upper", "id": "lower", "text": "One."}))
    assert [document.source for document in documents(tmp_path)] == ["a.jsonl#lower"]


def test_a_quote_that_is_not_closed_costs_its_row_and_no_other(tmp_path):
    put(tmp_path, "a.csv", 'id,text\n1,"one apple\n2,two\n3,three\n')
    found = items(tmp_path)
    assert {item.source: item.text for item in found if isinstance(item, Document)} == {
        "a.csv#2": "two",
        "a.csv#3": "three",
    }
    (skipped,) = [item for item in found if isinstance(item, Skipped)]
    assert (skipped.source, skipped.reason) == ("a.csv:2", "not CSV: a quote that is not closed")
    assert not skipped.gone
    put(tmp_path, "a.csv", 'id,text\n1,"an end\nwithout a line end"')
    assert [document.text for document in documents(tmp_path)] == ["an end\nwithout a line end"]


@pytest.mark.parametrize(
    ("head", "row", "text"),
    [
        ("country,2020,2021", "Chile,5,6", "country: Chile\n2020: 5\n2021: 6"),
        ("name,name,text", "a,b,Words.", "Words."),
        (f"id,{'x' * 65},text", "1,b,Words.", "Words."),
        ("sep=;\nname;role", "Ada;smith", "name: Ada\nrole: smith"),
        ("nan,inf", "a,b", "nan: a\ninf: b"),
    ],
)
def test_headers(tmp_path, head, row, text):
    put(tmp_path, "a.csv", f"{head}\n{row}\n")
    (document,) = documents(tmp_path)
    assert document.text == text


def test_rows_of_numbers_are_no_header(tmp_path):
    put(tmp_path, "a.csv", "Berlin,3645000,1987\nParis,2100000,1990\n")
    assert len(documents(tmp_path)) == 2


@pytest.mark.parametrize("title", ["__init__", "C*", "**kwargs", "[sic](was here)", "`a`"])
def test_titles_of_records_are_no_markup(tmp_path, title):
    put(tmp_path, "a.jsonl", json.dumps({"text": "One.", "title": title}))
    assert [document.title for document in documents(tmp_path)] == [title]


@pytest.mark.parametrize(
    "rows", ["Mozart,1756,1791\nBach,1685,1750\n", "Title,Alice,3\nMr,Bob,4\n", "17,id,foo\n18,x,bar\n"]
)
def test_data_with_words_or_years_of_headers_are_data(tmp_path, rows):
    put(tmp_path, "a.csv", rows)
    assert len(documents(tmp_path)) == 2


def test_many_open_quotes_take_time_linear_in_the_file(tmp_path):
    put(tmp_path, "a.csv", "id,text\n" + 'a","some words of a sentence here\n' * 8_000)
    started = time.perf_counter()
    assert len(items(tmp_path)) > 7_000
    assert time.perf_counter() - started < 5
