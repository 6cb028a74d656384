"""The hub's form, through local folders: nothing is downloaded, and the user's cache stays as it is."""

import importlib
import json
import sys

import pytest

from ragzip.errors import IngestError, UsageError
from ragzip.evaluation.data import hub, open_set
from ragzip.evaluation.data.columns import as_record
from ragzip.evaluation.data.records import parse_record
from ragzip.evaluation.record import Record
from ragzip.types import Passage, Span

SQUAD = {
    "id": "a",
    "title": "Ada",
    "context": "She was born. She died in 1852.",
    "question": "When?",
    "answers": {"text": ["1852", "in 1852", "1852"], "answer_start": [26, 23, 26]},
}
HOTPOT = {
    "id": "h",
    "question": "Who?",
    "answer": "Bob",
    "supporting_facts": {"title": ["B", "B", "C"], "sent_id": [1, 9, 0]},
    "context": {"title": ["A", "B", "B"], "sentences": [["One.", " Two."], ["It is.", " Bob did. "], ["Other."]]},
}


def read(row):
    return parse_record(as_record(row, "here"), "here", 3)


def test_squad():
    assert read(SQUAD) == Record(
        "a", "When?", ("1852", "in 1852"), (Passage("1", SQUAD["context"], "Ada"),), (Span("1", 14, 31),)
    )
    unanswerable = read({**SQUAD, "answers": {"text": [], "answer_start": []}})
    assert (unanswerable.answers, unanswerable.relevant) == (("",), ())


def test_hotpotqa_as_columns_and_as_pairs():
    expected = Record(
        "h",
        "Who?",
        ("Bob",),
        (Passage("A", "One. Two.", "A"), Passage("B", "It is. Bob did.", "B"), Passage("B (2)", "Other.", "B")),
        (Span("B", 7, 15),),
    )
    assert read(HOTPOT) == expected
    pairs = list(zip(HOTPOT["context"]["title"], HOTPOT["context"]["sentences"], strict=True))
    assert read({**HOTPOT, "context": pairs, "supporting_facts": [["B", 1], ["B", 9], ["C", 0]]}) == expected


def test_sentences_without_white_space_get_some():
    found = read({"question": "q", "context": {"title": ["A"], "sentences": [["One.", "Two."]]}})
    assert found.passages[0].text == "One. Two."


@pytest.mark.parametrize(
    ("row", "answers", "passages"),
    [
        ({"query": "q", "answers": ["a", "a", "b"]}, ("a", "b"), ()),
        ({"question": "q", "answer": {"value": "a", "aliases": ["b"]}}, ("a", "b"), ()),
        ({"question": "q", "contexts": ["x", "y"]}, (), (Passage("1", "x"), Passage("2", "y"))),
        (
            {"question": "q", "ctxs": [{"id": "7", "title": "T", "text": "x"}, {"id": "7", "text": "y"}]},
            (),
            (Passage("7", "x", "T"), Passage("7 (2)", "y")),
        ),
        ({"query": "q", "passages": {"passage_text": ["x"], "is_selected": [1]}}, (), (Passage("1", "x"),)),
        ({"question": "q", "paragraphs": [{"paragraph_text": "x", "title": "T"}]}, (), (Passage("1", "x", "T"),)),
    ],
)
def test_usual_columns(row, answers, passages):
    found = read(row)
    assert (found.id, found.question, found.answers, found.passages) == ("3", "q", answers, passages)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "q", "completion": "a"}, "here: no question among the columns prompt, completion"),
        ({"question": "q", "answers": [1]}, "here: answers.0 is a number"),
        ({"question": "q", "passages": {"url": ["x"]}}, "here: no list of texts among url"),
        ({"question": "q", "passages": 7}, "here: passages is a number"),
        ({**HOTPOT, "supporting_facts": ["B"]}, "supporting_facts holds 'B'"),
        ({**HOTPOT, "supporting_facts": [["B", "1"]]}, "not a title and a sentence number"),
    ],
)
def test_rows_that_are_no_records(row, said):
    with pytest.raises(IngestError) as caught:
        read(row)
    assert said in caught.value.message


def write(folder, **splits):
    folder.mkdir()
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"hf:{folder}"


def test_a_local_folder(tmp_path):
    own = Record("r", "q?", ("a",), (Passage("p", "Some text.", "T"),), (Span("p", 0, 4),), {"p": 1})
    other = Record("s", "r?", (), (Passage("a", "One."), Passage("b", "Two.")))
    spec = write(tmp_path / "mine", validation=[own.to_json()], train=[own.to_json(), other.to_json()])
    found = open_set(spec)
    assert found.records == (own,)
    assert (found.split, found.source, found.version) == ("dev", f"{spec}:validation", "1")
    for train in (open_set(f"{spec}:train"), open_set(spec, split="train")):
        assert train.records == (own, other)
        assert (train.split, train.labels, train.task) == ("train", "sentences", "short")
    assert open_set(spec, split="dev").records == found.records
    with pytest.raises(UsageError, match="has no split 'test'"):
        open_set(spec, split="test")
    with pytest.raises(UsageError, match="in the name and 'dev' beside it"):
        open_set(f"{spec}:train", split="dev")
    with pytest.raises(UsageError, match=r"cannot be loaded.*nope"):
        open_set(f"{spec}:nope:train")


def test_splits_with_other_columns_are_named(tmp_path):
    spec = write(tmp_path / "mine", validation=[HOTPOT], train=[SQUAD])
    with pytest.raises(UsageError, match=r"cannot be loaded: .*column names"):
        open_set(spec)


def test_parquet(tmp_path):
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "mine").mkdir()
    rows = [SQUAD, {**SQUAD, "id": "b", "answers": {"text": [], "answer_start": []}}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "mine" / "train.parquet")
    found = open_set(f"hf:{tmp_path / 'mine'}")
    assert found.records == tuple(read(row) for row in rows)
    assert found.split == "train"


def test_a_bad_row_is_named(tmp_path):
    spec = write(tmp_path / "mine", train=[SQUAD, {**SQUAD, "question": " "}])
    with pytest.raises(IngestError, match="row 2: the question is empty"):
        open_set(spec)
    spec = write(tmp_path / "twice", train=[SQUAD, SQUAD])
    with pytest.raises(IngestError, match=r"row 2: the record id 'a' stands at .*row 1"):
        open_set(spec)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="neither a folder nor owner/name"):
        open_set(f"hf:{tmp_path / 'none'}")


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    before = set(tmp_path.iterdir())
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    spec = write(tmp_path / "mine", train=[SQUAD])
    assert open_set(spec).records
    assert set(tmp_path.iterdir()) == before | {tmp_path / "mine"}


def test_an_empty_folder(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="cannot be loaded"):
        open_set(f"hf:{tmp_path / 'mine'}")


def test_names():
    assert hub.parse_name("hf:o/n") == ("o/n", "", "")
    assert hub.parse_name("hf:o/n:test") == ("o/n", "", "test")
    assert hub.parse_name("o/n:small") == ("o/n", "small", "")
    assert hub.parse_name("hf:o/n:small:held") == ("o/n", "small", "held")
    for bad in ("hf:", "hf:o/n:", "hf:o/n:a:b:c", "hf::x"):
        with pytest.raises(UsageError, match="no data set name"):
            hub.parse_name(bad)


class Library:
    """Stands in for the ``datasets`` library: says what it was asked for."""

    def __init__(self, rows=(), error=None):
        self.rows, self.error, self.asked = rows, error, []

    def are_progress_bars_disabled(self):
        return True

    def disable_progress_bars(self):
        pass

    def get_dataset_split_names(self, path, config, **options):
        if self.error:
            raise self.error
        return ["train", "test"]

    def load_dataset(self, *args, **options):
        self.asked.append((args, options))
        return self.rows


@pytest.fixture
def errors_of_the_library():
    """The library's own errors, which are caught whatever stands in for it; loaded before anything does."""
    importlib.import_module("datasets.exceptions")


@pytest.mark.usefixtures("errors_of_the_library")
def test_what_the_library_is_asked_for(monkeypatch):
    library = Library([SQUAD])
    monkeypatch.setitem(sys.modules, "datasets", library)
    found = open_set("some/thing:small")
    assert library.asked == [(("some/thing", "small"), {"split": "test", "streaming": False})]
    assert (found.name, found.source) == ("some/thing:small", "hf:some/thing:small:test")


@pytest.mark.usefixtures("errors_of_the_library")
def test_a_hub_that_cannot_be_reached(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", Library(error=ConnectionError("no way\n  at all")))
    with pytest.raises(UsageError) as caught:
        open_set("hf:some/thing")
    assert caught.value.message == "hf:some/thing: cannot be loaded: no way at all"
    assert "network" in caught.value.hint
    monkeypatch.setitem(sys.modules, "datasets", Library())
    with pytest.raises(IngestError, match="has no record"):
        open_set("hf:some/thing")
