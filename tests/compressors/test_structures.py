"""What is a structure and what is prose, by layout alone."""

from __future__ import annotations

import json
import time
import timeit

import pytest

from ragzip.compressors._structures import json_prose, structures
from ragzip.text import sentences

PROSE = "The lamp burnt oil. The keeper lived alone for years. Ships passed at night, and nobody saw them."


def blocks_of(text: str) -> list[str]:
    return [text[start:end] for start, end in structures(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('Prose {"a": [1]} on. See [1] and [2, 3].', ['{"a": [1]}']),
        ("a,b,c\n1,2,3\n4,5,6\n\nFoo, bar, baz.\nOne, two, three.\nA, b, c.", ["a,b,c\n1,2,3\n4,5,6"]),
        ('a;"b;c";d\n1;2;3\n4;5;6', ['a;"b;c";d\n1;2;3\n4;5;6']),
        ("Intro:\n- a\n- b\n  more\n\n- c\n\nEnd.", ["- a\n- b\n  more\n\n- c"]),
        ("1. do\n   ```\n   x\n   ```\n2. then\n\nProse", ["1. do\n   ```\n   x\n   ```\n2. then"]),
        ("def:\n\n    x = 1\n\n    y = 2\n\nok", ["    x = 1\n\n    y = 2"]),
        ("a | b\n--|--\n1 | 2\n\nx | y", ["a | b\n--|--\n1 | 2"]),
        ("+--+\n|a |\n+--+\nText", ["+--+\n|a |\n+--+"]),
        ("```\nnever closed\ntext", []),
        ("- one item of a list", []),
        ("\n\n".join(f"{i}. " + PROSE * 4 for i in range(3)), []),
        ("    an indented paragraph\n    of plain words", []),
        ('{"a": {"b": 1}, "cut', ['{"b": 1}']),
    ],
)
def test_what_is_a_structure(text, found):
    assert blocks_of(text) == found


CODE = {
    "python": "def area(r):\n    if r < 0: raise ValueError\n    return r\n\n\nclass Shape:\n    pass",
    "module": "import os\nfrom a.b import c\n\n# How many.\nN = 3\n\n\n@cached\ndef f(x: int) -> str:\n"
    '    """What it does.\n\n    A lamp. A keeper. The oil\n    is not code, and these lines\n    are many.\n    """\n'
    "    return str(x)\n\n\nprint(f(N))",
    "string": 'TEXT = """\nThe lamp burnt oil.\n"""\n\ndef f():\n    return TEXT',
    "imports": "import os\nimport sys",
    "script": "x = load()\ny = x.mean(axis=0)\nprint(y)",
    "javascript": 'import {a} from "b";\n\nfunction area(r) {\n  const x = 1;\n  return r * x;\n}\n\nlet y = area(2);',
    "comments": "/**\n * Says what it does, in words\n * that are not code.\n */\nfunction f(a) {\n  return a;\n}",
    "c": '#include <stdio.h>\n\nint main(void)\n{\n    int x = 1;\n    printf("%d", x);\n    return 0;\n}',
    "java": "public class Lamp {\n    private int oil;\n\n    public int oil() {\n        return this.oil;\n    }\n}",
    "go": 'package main;\n\nfunc main() {\n\tx := 1\n\tfmt.Println("a", x)\n}',
    "rust": "use std::fmt;\n\npub fn area(r: f64) -> f64 {\n    let x = r * r;\n    x * 3.14\n}",
    "shell": '#!/bin/sh\nif [ -f "$1" ]; then\n  echo "$1"\nfi\nfor x in a b; do\n  run "$x"\ndone',
    "ruby": "def area(r)\n  r * 2\nend",
    "sql": "SELECT name, oil\nFROM lamps\nWHERE oil > 3\nORDER BY name;",
    "sql indented": "SELECT\n    name,\n    oil\nFROM lamps;",
    "css": ".lamp {\n  color: red;\n  margin: 0 auto;\n}",
    "yaml": "services:\n  web:\n    image: nginx\n    ports: 80",
    "if": "if ready:\n    light(lamp)\nelse:\n    wait()",
}


@pytest.mark.parametrize("name", CODE)
def test_code_at_the_left_edge_is_one_structure(name):
    code = CODE[name]
    assert blocks_of(code) == [code]
    assert blocks_of(f"{code}\n") == [code]
    assert blocks_of(f"The code is this:\n\n{code}\n\n{PROSE}\n") == [code]
    assert blocks_of(f"# Heading\n\n{PROSE}\n{code}\n{PROSE}") == [code]


def test_two_blank_lines_belong_to_code_and_three_do_not():
    one, two = "def f():\n    return 1", "def g():\n    return 2"
    assert blocks_of(f"{one}\n\n\n{two}") == [f"{one}\n\n\n{two}"]
    assert blocks_of(f"{one}\n\n\n\n{two}") == [one, two]


@pytest.mark.parametrize(
    "text",
    [
        "Note:\n    Take the lamp with you.\n    Keep it dry and bright.",
        "note:\n    take the lamp with you\n    keep it dry and bright",
        "Note: the lamp is old.\nWarning: it may go out: then light it.\nSo: be careful.",
        "He wrote: keep the lamp.\nShe answered:\nI will keep it; always.\n\nThe end:",
        "The following are met:\n\n   the lamp is lit\n   the keeper is awake",
        "The tenant shall:\n  pay the rent (if any);\n  keep the house dry; and\n  leave by noon;",
        "We carried oil;\nwe carried rope;\nand we carried the lamp;\nso we were slow.",
        "lamp:\n    a thing that burns oil\nkeeper:\n    one who keeps a lamp",
        "From: Anna\nTo: Ben\nSubject: Lamps\n\nDear Ben:\n\n    I write of lamps.",
        "anna: yes\nben: no\nanna: maybe",
        "# Lamps\n\nThe lamp burnt.\n\n## Oil\n\nThe oil was dear.\n# Ships\n# Night",
        "the keeper's lamp;\nthe ship's rope (if any);\nthe captain's 'oil';\nthe town's lamp [1];",
        "long walk (as ever)\n    to the harbour",
        "for example:\n    the lamp burnt oil\n    and the keeper slept",
        "if you are alone at night:\n    light the lamp\n    and read a book",
        "Duties on oil fell, and the\nimport duties on rope rose in the\nclass of goods\nfrom the harbour to the town.",
        "import duties rose and fell\n    as the ships came in\n    and went out again",
        "class of 1871:\n    the keeper\n    the captain",
        "from the harbour they import oil\n  and from the town they import rope",
        "let the lamp burn\n  and the keeper sleep\nvar and vale are names",
        "public houses (of which there were\nmany) closed at ten\n    and the keepers went home",
        "return to the harbour\n    when the lamp is lit\nwith the keeper (as ever)",
        "function of the lamp (see below)\n    is to burn oil",
        "SELECT COMMITTEE ON LAMPS\nFROM THE HARBOUR OFFICE\n\nUPDATE\n\nThe lamp is out.",
        "O lamp of the night\n    that burnest so bright,\nO keeper alone,\n    in a tower of stone;",
        "Open at 12:30: the tower\nClosed at 18:00: the gate\n    Mondays: both",
        "See https://example.org/?a=b\nand https://example.org/?c=d\nand https://example.org/?e=f",
        '<p class="a">The lamp burnt oil.</p>\n<p class="b">The keeper slept.</p>\n<p class="c">Ships passed.</p>',
        "'''Lamps''' burn oil.\n'''Keepers are men\n    who keep lamps.",
        "def",
        "import os",
        "A lamp {\nand no more",
    ],
)
def test_prose_is_no_code(text):
    assert blocks_of(text) == []
    assert blocks_of(f"{PROSE}\n{text}\n{PROSE}") == []


def test_a_string_that_is_never_closed_does_not_take_the_prose():
    assert blocks_of(f'def f():\n    return 1\n\nx = """\n{PROSE}\n{PROSE}') == ["def f():\n    return 1"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Before <table><tr><td>a. b</td></tr></table> after.", ["<table><tr><td>a. b</td></tr></table>"]),
        (
            'One.\n<TABLE class="x">\n<Tr><TD>Of oil. Much.</TD></tr>\n</Table >\nTwo.',
            ['<TABLE class="x">\n<Tr><TD>Of oil. Much.</TD></tr>\n</Table >'],
        ),
        ("A.\n<pre>\nx. y.\n\nz.\n</pre>\nB.", ["<pre>\nx. y.\n\nz.\n</pre>"]),
        ("<table><th>a<table><td>b</table>c</table> d", ["<table><th>a<table><td>b</table>c</table>"]),
        ("<table> never closed. <table><td>a. b</table> c", ["<table><td>a. b</table>"]),
        ("<table><td>a. b. Never closed.", []),
        ("<pre>Never closed. At all.", []),
        ("Closed </table> and </pre> but not opened.", []),
        ("The <table> tag is closed by </table>, as ever.", []),
        ("An empty <pre/> and a </pre>.", []),
        ("<tablecloth><td>a</tablecloth> <prefix>b</prefix>", []),
        ("```\n<pre>\n```\n\nProse. More.\n\n```\n</pre>\n```", ["```\n<pre>\n```", "```\n</pre>\n```"]),
    ],
)
def test_what_is_a_structure_in_html(text, found):
    assert blocks_of(text) == found


def test_only_prose_in_values_is_prose():
    text = json.dumps({"a": PROSE, "b": "x" * 200, PROSE: 1, "list": f"- a\n- b\n\n{PROSE}"})
    assert [value for _, value in json_prose(text)] == [PROSE]


def test_long_json_is_not_copied_for_each_string():
    class Watched(str):
        """Counts the characters that are copied out of it."""

        __slots__ = ("copied",)

        def __getitem__(self, key):
            found = super().__getitem__(key)
            self.copied = getattr(self, "copied", 0) + len(found)
            return found

    text = Watched(json.dumps({f"k{i}": "the lamp and the keeper " * 5 for i in range(2_000)}))
    json_prose(text)
    assert getattr(text, "copied", 0) <= 2 * len(text)


@pytest.mark.parametrize(
    "unit",
    [
        "def f():\n",
        "import a\n    the lamp\n",
        "x = 1\n\n\n",
        "# a remark\n",
        'x = """\n',
        "a:\n  lamp\n",
        "<table>",
        "<pre ",
        "<table><pre></table>",
        " " * 400 + "x\n",
        "a " * 240 + "\n",
        "x(" * 240 + "\n",
        "import a " * 50 + "\n",
    ],
)
def test_looking_for_structures_takes_about_linear_time(unit):
    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        return min(timeit.repeat(lambda: structures(text), timer=time.process_time, number=1, repeat=3))

    assert seconds(640_000) < 100 * seconds(40_000)  # sixteen times the text; the square would be 256


@pytest.mark.parametrize("rule", ["{}x|-", "-{}x|", "|{}-{}x"])
def test_blanks_in_what_may_be_a_rule_take_about_linear_time(rule):
    def seconds(size: int) -> float:
        text = "a|b\n" + rule.replace("{}", " " * size)
        return min(timeit.repeat(lambda: structures(text), timer=time.process_time, number=1, repeat=3))

    assert seconds(320_000) < 100 * max(seconds(20_000), 1e-4)


def test_rows_whose_last_cells_are_empty_are_rows():
    table = "name\tage\tnote\nAnn\t3\tok\nBob\t4\t\nCid\t\t\nDan\t6\t"
    for text in (table, f"{table}\n\nThat is all.", f"{table} \r\n"):
        assert [text[a:b] for a, b in structures(text)] == [table]
    assert structures("It rained.\t\nIt snowed.\t\nIt stopped.\t") == []


@pytest.mark.parametrize(
    "table",
    [
        "Name\tAge\t\nAnn\t3\nBob\t4\t\nCid\t5",
        "Name\tAge\t\nAnn\t3",
        "id\tcmd\n1\tls\n2\tcat\nx = 3\tpwd\ny = 4\tcd\nz = 5\tmv",
        "key: a\tb\nfoo = 1\tx\nbar = 2\ty\nbaz = 3\tz\nAnn\t4\nBob\t5",
    ],
)
def test_rows_with_tabs_left_behind_or_cells_like_code_are_one_table(table):
    assert [text[a:b] for text in [f"{table}\n"] for a, b in structures(text)] == [table]


BACKTICKS = "``` pip install x ``` is the way.\n\nThe cat is nice.\n\n"


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        (f"{BACKTICKS}```\nalpha()\n```\n\nDogs run.\n\n```\nbeta()\n```", ["```\nalpha()\n```", "```\nbeta()\n```"]),
        (
            "````markdown\nSee:\n```python\nx()\n```\nEnd.\n````\n\nProse.",
            ["````markdown\nSee:\n```python\nx()\n```\nEnd.\n````"],
        ),
        ("~~~\n```python\nx()\n~~~\n\nProse.", ["~~~\n```python\nx()\n~~~"]),
        ("end of code\n```\n\nProse.\n\n```python\nx()\n```", ["```python\nx()\n```"]),
        ("end of code\n~~~\n\nProse.\n\n```python\nx()\n```", ["```python\nx()\n```"]),
        ("end\n````\n\nProse.\n\n```\nx()\n```\n\nMore.\n\n~~~\ny()\n~~~", ["```\nx()\n```", "~~~\ny()\n~~~"]),
    ],
)
def test_fences_within_fences_and_lines_that_are_none(text, blocks):
    assert [text[start:end] for start, end in structures(text)] == blocks
    cut = [text[start:end] for start, end in sentences(text)]
    for block in blocks:  # code is one sentence there, prose beside it is not
        assert any(block in sentence or sentence in block for sentence in cut)
    assert any(sentence == "Prose." or sentence == "Dogs run." for sentence in cut)


INDENTED = (
    "\tThe first paragraph tells of a man. He went to sea.\n\tThe second tells of his wife. She stayed.\n\tThe end."
)
TRANSCRIPT = "00:01\tAlice: I think that we should leave now.\n00:04\tBob: We have been here for an hour already.\n"


@pytest.mark.parametrize("text", [INDENTED, TRANSCRIPT, TRANSCRIPT * 4])
def test_tabs_before_prose_make_no_table(text):
    assert structures(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "name\tage\nAnn\t3\nBob\t4",
        "\tage\tcity\nAnn\t3\tRome\nBob\t4\tParis",
        "\tage\nAnn\t3\nBob\t4",
        "a\tb c d\te\nf\tg h i\tj",
    ],
)
def test_tabs_between_cells_make_one(text):
    ((start, end),) = structures(text)
    assert text[:start].strip() == "" and end == len(text)


def test_what_is_indented_no_deeper_than_an_item_is_no_part_of_it():
    text = "  - one\n  - two\n\n  A paragraph that stands as far in as they do."
    assert [text[a:b] for a, b in structures(text)] == ["  - one\n  - two"]
    deeper = "- one\n\n  more of it\n- two"
    assert structures(deeper) == [(0, len(deeper))]


@pytest.mark.parametrize("piece", ["[[link]] of a page\n", '{"', "[[", '["a", ', "a [[b]]\n\n"])
def test_broken_json_takes_time_in_proportion(piece):
    """An error of the parser counts the lines before it."""
    import time

    from ragzip.compressors._json_text import json_in

    times = []
    for size in (200_000, 800_000):
        text = piece * (size // len(piece))
        start = time.process_time()
        assert not list(json_in(text))
        times.append(time.process_time() - start)
    assert times[1] < 8 * max(times[0], 0.05)


def test_json_far_into_a_text_is_found_where_it_stands():
    text = "[[link]] and so on\n" * 5000 + '{"a": [1, 2]} and [[more]] ' + '["x"]'
    found = [text[a:b] for a, b in structures(text)]
    assert '{"a": [1, 2]}' in found
    assert '["x"]' in found


LONG_CELL = "A thing of use that many people have at home, which costs little and lasts for years if it is kept dry."


@pytest.mark.parametrize(
    "text",
    [
        "term\tmeaning\n"
        + "".join(f"thing{n}\tA thing that is used by many people every day.\n" for n in range(4)).strip(),
        "\n".join(f"s{n}\tname\t{n}.50\t3\t{LONG_CELL}" for n in range(4)),
        "Ann\t3\n\t4\nBob\t5\nCarl\t6",
    ],
)
def test_tables_with_sentences_in_them_are_tables(text):
    assert structures(text) == [(0, len(text))]


@pytest.mark.parametrize(
    "text",
    [
        "  - item one\n\n\tmore of item one\n  - two",
        " - one\n - two\n\n\tcode or more\n - three",
        "    - deep\n- top\n\n  more of top\n- next",
        "  1. one\n\n  Text in line with it\n\n  2. two",
    ],
)
def test_lists_of_uneven_indentation_are_one(text):
    ((start, end),) = structures(text)
    assert text[:start].strip() == "" and end == len(text)
