"""Which set a name means, and small files in the form of the named sets."""

import gzip
import itertools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.errors import IngestError, UsageError
from ragzip.evaluation.data import data_dir, open_set, set_names, sources
from ragzip.evaluation.data.sets._base import holding, joined, unique
from ragzip.evaluation.data.sets.natural_questions import place
from ragzip.evaluation.data.sets.retrieval import CHUNK, chunked
from ragzip.evaluation.data.sets.squad import locate
from ragzip.types import Passage, Span

RECORD = json.dumps({"question": "q?", "answers": ["a"]}) + "\n"


def put(folder, name, value):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = value if isinstance(value, list) else [value]
    path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))


def squad(*answers, context=" It rained. It poured all day. ", **question):
    qa = {"id": 5, "question": " When? ", "answers": [{"text": t, "answer_start": s} for t, s in answers], **question}
    return {"data": [{"title": "Wet_days", "paragraphs": [{"context": context, "qas": [qa]}]}]}


def test_where_the_data_folder_is(tmp_path, monkeypatch):
    monkeypatch.delenv("RAGZIP_DATA", raising=False)
    (tmp_path / "shared" / "data").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    (tmp_path / "named").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert data_dir() == tmp_path / "shared" / "data"
    monkeypatch.setenv("RAGZIP_DATA", str(tmp_path / "named"))
    assert data_dir() == tmp_path / "named"
    assert data_dir(tmp_path / "work") == tmp_path / "work"
    assert data_dir(tmp_path / "nowhere") is None
    monkeypatch.setenv("RAGZIP_DATA", str(tmp_path / "nowhere"))
    assert data_dir() is None
    with pytest.raises(UsageError) as caught:
        open_set("squad")
    assert str(tmp_path / "nowhere") in caught.value.message
    assert "--data-dir DIR" in caught.value.hint
    assert "RAGZIP_DATA" in caught.value.hint


def test_the_folder_of_a_named_set_is_that_set(tmp_path, monkeypatch):
    monkeypatch.setenv("RAGZIP_DATA", str(tmp_path / "nowhere"))
    put(tmp_path / "squad", "dev-v1.1.json.gz", squad(("rained", 4)))
    found = open_set(str(tmp_path / "squad"))
    assert (found.name, found.split, len(found.records)) == ("squad", "dev", 1)
    assert open_set(f"{tmp_path / 'squad'}:dev").records == found.records
    with pytest.raises(UsageError, match="no split 'test'"):
        open_set(f"{tmp_path / 'squad'}:test")


def test_unknown_names(tmp_path):
    with pytest.raises(UsageError) as caught:
        open_set("hotpot", data=tmp_path)
    assert caught.value.message == "unknown data set 'hotpot'"
    assert "Did you mean 'hotpotqa'?" in caught.value.hint
    assert all(name in caught.value.hint for name in set_names())
    for spec, said in {
        "": "no data set is named",
        "squad:dev:x": "unknown",
        "squad:test": "has no split 'test'",
        "squad@3": "takes no number",
        "nq_multidoc@31": "from 1 to 30",
        "squad": "has no squad/dev-v1.1.json.gz",
        "./here.jsonl": "does not exist",
        "/no/such/thing": "does not exist",
        "~nobody-of-that-name/x": "does not exist",
        "x" * 5000: "",
        "a\0b": "unknown",
    }.items():
        with pytest.raises(UsageError) as caught:
            open_set(spec, data=tmp_path)
        assert said in caught.value.message
    with pytest.raises(UsageError, match="in the name and 'dev' beside it"):
        open_set("squad:train", data=tmp_path, split="dev")


def test_paths_come_before_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "data", "squad/dev-v1.1.json.gz", squad(("rained", 4)))
    (tmp_path / "squad").mkdir()
    assert open_set("squad", data=tmp_path / "data").version  # a folder of that name that is no BEIR folder
    for name, text in {
        "corpus.jsonl": '{"_id": "d", "text": "t"}',
        "queries.jsonl": '{"_id": "q", "text": "t"}',
    }.items():
        (tmp_path / "squad" / name).write_text(text)
    (tmp_path / "squad" / "qrels.tsv").write_text("q\td\t1\n")
    assert open_set("squad", data=tmp_path / "data").task == "retrieval"


def test_own_sets_of_the_data_folder(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.jsonl").write_text(RECORD)
    monkeypatch.chdir(tmp_path)
    assert open_set("mine", data=tmp_path / "data").name == "mine"
    with pytest.raises(UsageError, match="unknown data set"):
        open_set("mine:train", data=tmp_path / "data")


def test_a_file_that_is_no_set(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UsageError, match=r"is no \.jsonl file"):
        open_set(str(tmp_path / "a.txt"))


def test_squad(tmp_path):
    put(tmp_path, "squad/dev-v1.1.json.gz", squad(("poured", 15), ("poured ", 15), ("all day", 22)))
    found = open_set("squad", data=tmp_path)
    passage = Passage("Wet days/0", "It rained. It poured all day.", "Wet days")
    assert found.records[0].passages == (passage,)
    assert (found.records[0].id, found.records[0].question) == ("5", "When?")
    assert found.records[0].answers == ("poured", "all day")
    assert found.records[0].relevant == (Span("Wet days/0", 11, 29),)
    assert (found.name, found.split, found.task, found.labels) == ("squad", "dev", "short", "sentences")
    put(tmp_path, "squad/dev-v2.0.json.gz", squad(is_impossible=True))
    unanswered = open_set("squad_v2", data=tmp_path).records[0]
    assert (unanswered.answers, unanswered.relevant) == (("",), ())


@pytest.mark.parametrize("value", [{"data": [{}]}, [], {"data": 7}, squad(("x", None)), squad(("x", "y"))])
def test_files_of_another_form(tmp_path, value):
    path = tmp_path / "squad" / "dev-v1.1.json.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(json.dumps(value).encode()))
    with pytest.raises(IngestError, match="files of 'squad' are not in the form"):
        open_set("squad", data=tmp_path)


def test_a_named_set_without_records(tmp_path):
    put(tmp_path, "musique/dev.jsonl.gz", [{"answerable": False}])
    with pytest.raises(IngestError, match="has no record"):
        open_set("musique", data=tmp_path)


def test_two_records_with_one_id(tmp_path):
    line = {"_id": "x", "question": "q", "answer": "a", "context": [], "supporting_facts": []}
    put(tmp_path, "hotpotqa/dev.jsonl.gz", [line, line])
    with pytest.raises(IngestError, match="record 2: the record id 'x'"):
        open_set("hotpotqa", data=tmp_path)


def nq(folder, questions=300, passages=31):
    put(
        folder,
        "nq_multidoc/passages.jsonl.gz",
        [{"pid": f"p{n}", "title": "T", "text": f"t{n}"} for n in range(passages)],
    )
    others = [f"p{n}" for n in range(1, passages)]
    lines = [
        {"qid": n, "question": "q", "answers": ["a"], "gold_pid": "p0", "distractor_pids": others}
        for n in range(questions)
    ]
    put(folder, "nq_multidoc/dev.jsonl.gz", lines)


@pytest.mark.parametrize(("name", "size"), [("nq_multidoc", 10), ("nq_multidoc@20", 20), ("nq_multidoc@1", 1)])
def test_gold_stands_anywhere_among_the_first_distractors(tmp_path, name, size):
    nq(tmp_path)
    found = open_set(name, data=tmp_path)
    assert found.name == name
    places = Counter()
    for record in found.records:
        ids = [passage.id for passage in record.passages]
        places[ids.index("p0")] += 1
        assert [own for own in ids if own != "p0"] == [f"p{n}" for n in range(1, size)]
        assert record.relevant == (Span("p0", 0, 2),)
    assert set(places) == set(range(size))
    assert max(places.values()) < 3 * 300 / size  # 3 times the mean is far beyond chance
    assert open_set(name, data=tmp_path).sha256 == found.sha256


def test_the_place_of_gold_never_changes():
    assert [place(qid, 10) for qid in (0, 1, 1155, "x")] == [4, 4, 6, 8]


@given(st.lists(st.sampled_from(["a", "b", "a (2)", "a (3)"])))
def test_unique_names(names):
    found = unique(names)
    assert len(set(found)) == len(names)
    assert all(fresh.startswith(name) for fresh, name in zip(found, names, strict=True))
    firsts = [names.index(name) for name in dict.fromkeys(names)]
    if len(set(names)) == len(names):
        assert found == names
    else:
        assert found[firsts[0]] == names[firsts[0]]


@given(st.lists(st.text(" .aé\n", max_size=6)), st.sampled_from(["", " ", "\n"]))
def test_joined_sentences_are_where_their_spans_say(sentences, joiner):
    passage, spans = joined("p", "T", sentences, joiner)
    assert passage.text == passage.text.strip()
    assert [span and passage.text[span.start : span.end] for span in spans] == [s.strip() or None for s in sentences]
    assert sorted(span for span in spans if span) == [span for span in spans if span]
    if not joiner:
        assert passage.text == "".join(sentences).strip()


def test_answers_are_found_at_or_near_where_they_are_said_to_be():
    text = "day one, day two, day three"
    assert locate(text, "day", 9) == (9, 12)
    assert locate(text, " day ", 8) == (9, 12)
    assert locate(text, "day", 14) == (18, 21)
    assert locate(text, "day", 12) == (9, 12)
    assert locate(text, "night", 0) is None
    assert locate(text, " ", 0) is None
    assert holding([(0, 8), (9, 17), (18, 27)], [(7, 10)]) == [(0, 8), (9, 17)]


@given(st.text(st.sampled_from("ab. \n🙂"), max_size=200).map(lambda text: text * 20))
def test_chunks_cover_everything_and_are_bounded(text):
    found = list(chunked(text))
    kept = "".join("".join(text[start:end].split()) for start, end in found)
    assert kept == "".join(text.split())
    assert all(0 < end - start <= CHUNK for start, end in found)
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(found))


def test_the_listing():
    assert [source.name for source in sources()] == set_names()
    assert all(source.splits and source.description for source in sources())
    assert len(set(set_names())) == len(set_names())


def test_nothing_heavy_is_imported():
    code = "import sys, ragzip.evaluation.data as d; d.sources(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert not {"datasets", "torch", "transformers", "pandas", "pyarrow", "numpy"} & set(done.stdout.split())
