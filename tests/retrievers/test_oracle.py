"""The oracle gives what is labelled, and says which line is wrong."""

from __future__ import annotations

import json

import pytest

from ragzip.errors import ConfigError, IngestError, UsageError
from ragzip.retrievers import Oracle
from ragzip.types import Passage, Query


def write(path, *lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return str(path)


def test_labelled_passages_in_order(tmp_path):
    gold = [{"id": "p2", "title": "T", "text": "two"}, {"text": "three", "metadata": {"k": 1}}, {"id": 7, "text": ""}]
    path = write(
        tmp_path / "gold.jsonl",
        {"question": "Who?", "passages": gold},
        "",
        {"query": " What? ", "id": "q2", "passages": [{"id": "x", "text": "ten"}], "answers": ["unused"]},
        {"id": 3, "question": "None?", "passages": []},
    )
    oracle = Oracle(path)
    first = [
        Passage("p2", "two", "T", 1.0),
        Passage(f"{path}:1#1", "three", "", 1.0, {"k": 1}),
        Passage("7", "", "", 1.0),
    ]
    ten = [Passage("x", "ten", "", 1.0)]
    asked = [
        Query("Who?"),
        Query("What?"),
        Query("something else", id="q2"),
        Query("?", id="3"),
        Query(" Who?\n", id="-"),
    ]
    assert oracle.retrieve(asked) == [first, ten, ten, [], first]
    assert oracle.retrieve([Query("Who?")], top_k=1) == [first[:1]]
    assert Oracle(path, top_k=2).retrieve([Query("Who?")]) == [first[:2]]
    assert oracle.retrieve([]) == []
    with pytest.raises(UsageError, match="no passages for the question 'Why"):
        oracle.retrieve([Query("Who?"), Query("Why?")])


def test_a_changed_file_is_read_again(tmp_path):
    path = write(tmp_path / "gold.jsonl", {"question": "q", "passages": [{"text": "a"}]})
    assert Oracle(path).retrieve([Query("q")])[0][0].text == "a"
    write(tmp_path / "gold.jsonl", {"question": "q", "passages": [{"text": "bb"}]})
    assert Oracle(path).retrieve([Query("q")])[0][0].text == "bb"


GOOD = {"question": "q", "passages": [{"text": "a"}]}


def test_an_id_of_two_questions_is_refused(tmp_path):
    path = tmp_path / "o.jsonl"
    one = {"id": "q1", "question": "First?", "passages": [{"id": "p1", "text": "One."}]}
    write(path, one, {**one, "question": "Second?"})
    assert len(Oracle(str(path)).retrieve([Query("First?", "q1")])[0]) == 1
    write(path, one, {**one, "question": "Second?", "passages": [{"id": "p2", "text": "Two."}]})
    with pytest.raises(IngestError, match="the id 'q1' has other passages"):
        Oracle(str(path)).retrieve([Query("First?", "q1")])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[1]", "no JSON object"),
        ("{}", "no question"),
        ({"question": " ", "passages": []}, "no question"),
        ({"question": 3, "passages": []}, "no question"),
        ({"question": "x"}, "no list of passages"),
        ({"question": "x", "passages": "text"}, "no list of passages"),
        ({"question": "x", "passages": [{"text": "a"}, "b"]}, "passage 1: has no text"),
        ({"question": "x", "passages": [{"id": "b"}]}, "passage 0: has no text"),
        ({"question": "x", "passages": [{"text": "a", "title": 3}]}, "must be text"),
        ({"question": "x", "passages": [{"text": "a", "id": "i"}, {"text": "b", "id": "i"}]}, "same id"),
        ({"question": "q", "passages": [{"text": "b"}]}, "question of line 1"),
    ],
)
def test_a_wrong_line(tmp_path, line, message):
    path = write(tmp_path / "gold.jsonl", GOOD, line)
    with pytest.raises(IngestError, match=rf"gold\.jsonl:2.*{message}") as error:
        Oracle(path).retrieve([Query("q")])
    assert error.value.hint


def test_files_that_are_none(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        Oracle(str(tmp_path / "none")).retrieve([Query("q")])
    with pytest.raises(UsageError, match="directory"):
        Oracle(str(tmp_path)).retrieve([Query("q")])
    (tmp_path / "latin").write_bytes(b'{"question": "caf\xe9"}')
    with pytest.raises(IngestError, match="latin:1"):
        Oracle(str(tmp_path / "latin")).retrieve([Query("q")])
    bom = tmp_path / "bom.jsonl"
    bom.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode())
    assert Oracle(str(bom)).retrieve([Query("q")])[0][0].text == "a"
    with pytest.raises(ConfigError, match="path"):
        Oracle("")
    with pytest.raises(ConfigError, match="top_k"):
        Oracle("x", top_k=0)
