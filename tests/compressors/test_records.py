"""Tables and lists over a budget: by rows with their header, and by items."""

import csv
import itertools
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip.compressors._records import records
from ragzip.compressors.bm25_sentences import BM25Sentences
from ragzip.compressors.random_sentences import RandomSentences
from ragzip.compressors.structured import Structured
from ragzip.testing.contracts import count_words
from ragzip.tokens import TokenCounter
from ragzip.types import Passage, Query, context_of

COUNTER = TokenCounter(count_words)
TABLE = "| Name | Port |\n| --- | --- |\n" + "\n".join(f"| host{n} | {8000 + n} |" for n in range(40))
DATA = "name,port,owner\n" + "\n".join(f"host{n},{8000 + n},Ann{n} Lee" for n in range(40))
CODE = "```python\n" + "\n".join(f"def things_{n}(x):\n    return matters(x, {n})" for n in range(60)) + "\n```"
LIST = "\n".join(f"- About {w}\n  - more of {w} one\n  - more of {w} two" for w in ("ants", "bees", "cats", "dogs"))


def left(text, asked, budget):
    context = context_of(Query(asked), (Passage("p", text),))
    made = Structured(inner=BM25Sentences(), budget=budget).bind(COUNTER).compress([context])[0]
    assert COUNTER.context(made) <= budget
    for segment in made.segments:
        assert segment.text == segment.joiner.join(text[s.start : s.end] for s in segment.sources)
    return "\n".join(segment.text for segment in made.segments)


@pytest.mark.parametrize(
    ("text", "head", "rows"),
    [
        (TABLE, 2, 40),
        (DATA, 1, 40),
        (LIST, 0, 4),
        ("1. One\n2. Two\n   goes on\n\n3. Three", 0, 3),
        ("a\tb\n1\t2\n3\t4", 1, 2),
    ],
)
def test_what_is_a_record(text, head, rows):
    found = records(text)
    assert (len(found.head), len(found.rows)) == (head, rows)
    places = [*found.head, *found.rows]
    assert places == sorted(places) and all(a[1] <= b[0] for a, b in itertools.pairwise(places))
    assert "".join("".join(text[a:b].split()) for a, b in places) == "".join(text.split())


@pytest.mark.parametrize(
    "text",
    [
        "```\na = 1\nb = 2\n```",
        "<table>\n<tr><td>1</td></tr>\n</table>",
        "<table><tr><td><table><tr><td>1</td></tr></table></td></tr>\n<tr><td>2</td></tr></table>",
        "<pre>\na\nb\n</pre>",
        '{"a": 1,\n"b": 2}',
        "+--+\n| a |\n+--+",
        "x = 1\ny = 2",
        "\tx = 1\n\ty = f(x)\n\tz = g(y)",
        "add(1, 2, 3)\nadd(4, 5, 6)\nadd(7, 8, 9)",
        "",
    ],
)
def test_what_means_nothing_in_parts(text):
    assert records(text) is None


def test_rows_keep_their_header():
    assert left(TABLE, "port of host7", 24).splitlines()[:2] == TABLE.splitlines()[:2]
    assert "| host7 | 8007 |" in left(TABLE, "port of host7", 24)
    assert left(DATA, "port of host7", 12).splitlines() == ["name,port,owner", "host7,8007,Ann7 Lee"]


def test_an_item_keeps_what_is_below_it():
    assert left(LIST, "About cats", 16) == "- About cats\n  - more of cats one\n  - more of cats two"


def test_what_fits_whole_stays_whole():
    assert left(TABLE, "port of host7", 1000) == TABLE


@settings(max_examples=40)
@given(
    rows=st.lists(
        st.lists(st.sampled_from(["ant", "bee", "cat 1", "2"]), min_size=3, max_size=3), min_size=3, max_size=20
    ),
    budget=st.integers(0, 60),
)
def test_a_table_is_a_table_with_fewer_rows(rows, budget):
    head = ["name", "kind", "size"]
    text = "\n".join(",".join(row) for row in [head, *rows])
    found = list(csv.reader(left(text, "bee", budget).splitlines()))
    assert not found or found[0] == head
    rest = iter(rows)
    assert all(row in rest for row in found[1:])  # in their order


def test_code_is_whole_or_dropped():
    code = "\n".join(f"\tvalue{n} = compute(late{n})" for n in range(12))
    made = left(f"Intro is here.\n\n{code}\n\nThe end is late.", "late", 20)
    assert "value" not in made


@pytest.mark.parametrize("text", ["- a b c\n" + " " * 100_000 + "\n- b c d", "- a b c\n" * 20_000, "a\tb\n" * 20_000])
def test_time_is_linear(text):
    start = time.perf_counter()
    assert records(text) is not None
    assert time.perf_counter() - start < 3


ROWS = "".join(f"<tr><td>host{n}</td><td>{8000 + n}</td></tr>\n" for n in range(20))
HTML = f"<table class='x'>\n<thead><tr><th>Name</th><th>Port</th></tr></thead>\n<tbody>{ROWS}</tbody>\n</table>"
LINES = "\n".join(f'{{"name": "svc{n}", "port": {8000 + n}, "owner": "Ann Lee"}}' for n in range(20))


def test_rows_of_html_stay_within_their_table():
    found = left(f"Ports:\n\n{HTML}\n\nThe end is near.", "host7", 90)
    assert "<td>host7</td><td>8007</td>" in found
    assert "host8" not in found
    for tag in ("<table class='x'>", "<thead>", "<tr><th>Name</th>", "</thead>", "<tbody>", "</tbody>", "</table>"):
        assert found.count(tag) == 1
    assert found.index("<thead>") < found.index("host7") < found.index("</tbody>") < found.index("</table>")
    half = "<table>" + "<tr><td>x" * 20_000 + "</table>"  # nothing is closed
    started = time.perf_counter()
    assert records(half) is None
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("budget", [30, 60, 100])
def test_json_lines_are_kept_line_by_line(budget):
    found = left(LINES, "port of svc2?", budget)
    lines = found.splitlines()
    assert any(json.loads(line)["name"] == "svc2" for line in lines)
    assert len(lines) == len(set(lines))


@pytest.mark.parametrize("inner", [BM25Sentences(), RandomSentences(seed=1)])
@pytest.mark.parametrize("middle", [CODE, HTML, LINES, TABLE, "```yaml\n" + "key: value\n" * 90 + "```"])
def test_a_structure_that_does_not_fit_leaves_its_budget_to_the_prose(inner, middle):
    prose = " ".join(f"Sentence number {n} tells of things and matters." for n in range(30))
    text = f"{prose}\n\n{middle}\n\n{prose}"
    context = context_of(Query("things number 7"), (Passage("p", text),))
    for budget in (60, 120, 200):
        (made,) = Structured(inner=inner, budget=budget).bind(COUNTER).compress([context])
        assert 0.7 * budget <= COUNTER.context(made) <= budget
