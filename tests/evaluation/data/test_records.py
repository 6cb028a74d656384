"""Files of records: what is written is read, whatever the file's form, and what is wrong is said with its line."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.errors import IngestError, UsageError
from ragzip.evaluation.data import _lines, open_set
from ragzip.evaluation.data.records import labels_of, task_of
from ragzip.evaluation.record import DataSet, Record
from ragzip.types import Passage, Span

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
SOME = TEXTS.filter(str.strip)


@st.composite
def records(draw):
    ids = draw(st.lists(SOME, unique=True, max_size=3))
    passages = tuple(Passage(own, draw(TEXTS), draw(TEXTS)) for own in ids)
    spans = []
    for passage in passages:
        if passage.text and draw(st.booleans()):
            start = draw(st.integers(0, len(passage.text) - 1))
            spans.append(Span(passage.id, start, draw(st.integers(start + 1, len(passage.text)))))
    qrels = draw(st.dictionaries(SOME, st.integers(-2, 3), max_size=2))
    answers = tuple(draw(st.lists(TEXTS, max_size=3)))
    return Record(draw(SOME), draw(SOME), answers, passages, tuple(spans), qrels)


SETS = st.lists(records(), min_size=1, max_size=5, unique_by=lambda record: record.id).map(tuple)


def write(path, lines, *, open_=open):
    with open_(path, "wt", encoding="utf-8", newline="") as file:
        file.write("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


@given(SETS, st.booleans())
def test_what_is_written_is_read(tmp_path, given_records, escaped):
    lines = [json.dumps(record.to_json(), ensure_ascii=escaped) + "\n" for record in given_records]
    plain = open_set(str(write(tmp_path / "set.jsonl", lines)))
    packed = open_set(str(write(tmp_path / "set.jsonl.gz", lines, open_=gzip.open)))
    marked = open_set(
        str(write(tmp_path / "other.jsonl", ["\ufeff", "\r\n", *(x.replace("\n", "\r\n") for x in lines)]))
    )
    assert plain.records == packed.records == marked.records == given_records
    assert plain.sha256 == packed.sha256 == marked.sha256 == DataSet("x", given_records).sha256
    assert (plain.name, packed.name, marked.name) == ("set", "set", "other")


@given(SETS, st.data())
def test_the_hash_tells_records_apart(given_records, data):
    at = data.draw(st.integers(0, len(given_records) - 1))
    changed = list(given_records)
    changed[at] = Record("fresh", changed[at].question + "!")
    assert DataSet("x", tuple(changed)).sha256 != DataSet("x", given_records).sha256


@given(st.integers(0, 30), st.integers(0, 5))
def test_a_sample_is_the_same_every_time_and_keeps_the_order(limit, seed):
    whole = DataSet("x", tuple(Record(str(n), "q") for n in range(20)))
    some = whole.sample(limit, seed)
    assert some == whole.sample(limit, seed)
    assert len(some.records) == min(limit, 20)
    numbers = [int(record.id) for record in some.records]
    assert numbers == sorted(set(numbers))
    assert whole.sample(None) is whole


def test_samples_of_two_seeds_differ():
    whole = DataSet("x", tuple(Record(str(n), "q") for n in range(50)))
    assert whole.sample(10, 0).records != whole.sample(10, 1).records


def test_what_may_be_left_out(tmp_path):
    found = open_set(
        str(
            write(
                tmp_path / "a.jsonl",
                [
                    "\n",
                    {"question": "a?", "answer": "one"},
                    {"question": "b?", "answers": "two", "passages": [{"text": "T."}, "plain"], "id": 7},
                    {"question": "c?", "passages": None, "relevant": None, "answers": None, "extra": [1]},
                ],
            )
        )
    )
    assert [record.id for record in found.records] == ["2", "7", "4"]
    assert [record.answers for record in found.records] == [("one",), ("two",), ()]
    assert found.records[1].passages == (Passage("1", "T."), Passage("2", "plain"))
    assert (found.source, found.split, found.version) == (str(tmp_path / "a.jsonl"), "", "1")


GOOD = {"question": "q?", "answers": ["a"], "passages": [{"id": "p", "text": "Some text."}]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{no json\n", ":2: not JSON"),
        ("[1]\n", ":2: not a JSON object but a list"),
        ("7\n", "but a number"),
        ('{"question": ' + "[" * 100_000 + "\n", ":2: not JSON"),
        ('{"question": "q", "id": ' + "9" * 5000 + "}\n", ":2: not JSON"),
        ({}, ":2: question is missing"),
        ({"question": 3}, "question is a number, not text"),
        ({"question": " \u2003"}, "question is empty"),
        ({**GOOD, "answers": [1]}, "answers.0 is a number, not text"),
        ({**GOOD, "answers": ["a", None]}, "answers.1 is missing"),
        ({**GOOD, "answers": {"text": "a"}}, "answers is an object, not a list"),
        ({"question": "q", "answer": True}, "answer is true or false"),
        ({**GOOD, "id": ""}, "id is empty"),
        ({**GOOD, "id": 1.5}, "id is a number, not text"),
        ({**GOOD, "id": True}, "id is true or false"),
        ({**GOOD, "passages": {"p": "x"}}, "passages is an object, not a list"),
        ({**GOOD, "passages": [7]}, "passages.0 is a number, not an object"),
        ({**GOOD, "passages": [{"id": "p"}]}, "passages.0.text is missing"),
        ({**GOOD, "passages": [{"text": "x", "title": 1}]}, "passages.0.title is a number"),
        ({**GOOD, "passages": [{"id": "p", "text": ""}, {"id": "p", "text": ""}]}, "'p' comes twice"),
        ({**GOOD, "passages": [{"id": "2", "text": ""}, {"text": ""}]}, "'2' comes twice"),
        ({**GOOD, "relevant": [{"passage_id": "x", "start": 0, "end": 1}]}, "no passage of this record has the id 'x'"),
        ({**GOOD, "relevant": [{"passage_id": "p", "start": 0, "end": 11}]}, "[0, 11) is no stretch of the 10 char"),
        ({**GOOD, "relevant": [{"passage_id": "p", "start": 3, "end": 3}]}, "[3, 3) is no stretch"),
        ({**GOOD, "relevant": [{"passage_id": "p", "start": -1, "end": 3}]}, "[-1, 3) is no stretch"),
        ({**GOOD, "relevant": [{"passage_id": "p", "start": 0}]}, "relevant.0.end is missing"),
        ({**GOOD, "relevant": [{"passage_id": "p", "start": False, "end": 2}]}, "relevant.0.start is true or false"),
        ({**GOOD, "relevant": [{"passage_id": "p", "start": 0.0, "end": 2}]}, "not a whole number"),
        ({**GOOD, "relevant": ["p"]}, "relevant.0 is text, not an object"),
        ({**GOOD, "qrels": {"p": "1"}}, "qrels.p is text, not a whole number"),
        ({**GOOD, "qrels": ["p"]}, "qrels is a list, not an object"),
        ('{"question": "q\\ud800"}\n', ":2: half a surrogate pair"),
        ('{"question": "q", "passages": [{"text": "x", "id": "\\uDFFF"}]}\n', ":2: half a surrogate pair"),
        ({"question": "q", "id": "1"}, ":2: the record id '1' stands at"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, said):
    path = write(tmp_path / "bad.jsonl", [{"question": "fine"}, line])
    with pytest.raises(IngestError) as caught:
        open_set(str(path))
    assert caught.value.message.startswith(f"{path}:2: ")
    assert said in caught.value.message


def test_whole_surrogate_pairs_are_characters(tmp_path):
    found = open_set(str(write(tmp_path / "a.jsonl", ['{"question": "\\ud83d\\ude00"}\n'])))
    assert found.records[0].question == "😀"


@pytest.mark.parametrize("lines", [[], ["\n", "  \n"], ["\ufeff"]])
def test_an_empty_set_is_an_error(tmp_path, lines):
    with pytest.raises(IngestError, match="has no record"):
        open_set(str(write(tmp_path / "empty.jsonl", lines)))


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "a"}\n{"question": "\xe9"}\n')
    with pytest.raises(IngestError, match=r"latin\.jsonl:2: not UTF-8 at byte 15"):
        open_set(str(tmp_path / "latin.jsonl"))
    (tmp_path / "no.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(IngestError, match=r"no\.jsonl\.gz: cannot be read"):
        open_set(str(tmp_path / "no.jsonl.gz"))
    packed = gzip.compress(b'{"question": "a"}\n' * 1000)
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[:-20])
    with pytest.raises(IngestError, match=r"cut\.jsonl\.gz: cannot be read"):
        open_set(str(tmp_path / "cut.jsonl.gz"))
    (tmp_path / "torn.jsonl.gz").write_bytes(packed[:12] + b"\xff" * 40 + packed[52:])
    with pytest.raises(IngestError, match=r"torn\.jsonl\.gz"):
        open_set(str(tmp_path / "torn.jsonl.gz"))


def test_lines_and_files_have_bounds(tmp_path, monkeypatch):
    monkeypatch.setattr(_lines, "LONGEST_LINE", 100)
    monkeypatch.setattr(_lines, "LARGEST_FILE", 250)
    just = {"question": "q" * 83}
    assert len(json.dumps(just)) + 1 == 100
    assert len(open_set(str(write(tmp_path / "fits.jsonl", [just, just]))).records) == 2
    with pytest.raises(IngestError, match=r"long\.jsonl:1: the line is longer than"):
        open_set(str(write(tmp_path / "long.jsonl", [{"question": "q" * 84}])))
    with pytest.raises(IngestError, match=r"large\.jsonl\.gz: larger than"):
        open_set(str(write(tmp_path / "large.jsonl.gz", [just] * 3, open_=gzip.open)))


def test_a_file_has_no_splits(tmp_path):
    with pytest.raises(UsageError, match="has no splits"):
        open_set(str(write(tmp_path / "a.jsonl", [GOOD])), split="dev")


@pytest.mark.parametrize(
    ("answers", "qrels", "task"),
    [
        (("yes",), {}, "yes_no"),
        (("Maybe.",), {}, "yes_no"),
        (("yes", "indeed"), {}, "short"),
        (("word " * 25,), {}, "long"),
        (("word " * 25, "short"), {}, "short"),
        ((), {"d": 1}, "retrieval"),
        (("",), {}, "short"),
        ((), {}, "short"),
    ],
)
def test_the_task_follows_from_the_answers(answers, qrels, task):
    assert task_of([Record("1", "q", answers, qrels=qrels)]) == task


def test_labels_follow_from_the_spans():
    passage = Passage("p", "One. Two.")
    whole = Record("1", "q", passages=(passage,), relevant=(Span("p", 0, 9),))
    part = Record("2", "q", passages=(passage,), relevant=(Span("p", 0, 4),))
    none = Record("3", "q", passages=(passage,))
    assert [labels_of(some) for some in ([none], [whole, none], [whole, part])] == ["", "passages", "sentences"]


@pytest.mark.parametrize(("key", "meant"), [("anwsers", "answers"), ("passage", "passages"), ("relevent", "relevant")])
def test_a_misspelt_field_is_not_passed_over(tmp_path, key, meant):
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps({"question": "q?", key: []}) + "\n")
    with pytest.raises(IngestError, match=f"{key}.*{meant}"):
        open_set(str(path))
    path.write_text(json.dumps({"question": "q?", "comment": "kept", "source": "x"}) + "\n")
    assert len(open_set(str(path)).records) == 1
