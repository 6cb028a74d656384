"""``ragzip expand`` on what ``compress`` and ``query`` write."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Call, Result

TEXT = "The lamp burnt rape oil. The keeper lived alone. Ships passed at night. Nobody saw them."


@pytest.fixture
def pipe(call: Call, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    def piping(data: str, *arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data.encode("utf-8"))))
        return call(*arguments)

    return piping


@pytest.fixture
def short(pipe, tmp_path: Path, tiny_lm_path: Path) -> Path:
    """What compress --json makes of two passages: the first sentence of each."""
    rows = "\n".join(json.dumps({"text": TEXT, "title": title}) for title in ("Lamp", "Keeper"))
    options = ("-q", "Who kept the lamp?", "--compress", "bm25_sentences", "--keep", "0.5", "--tokenizer", tiny_lm_path)
    result = pipe(rows, "compress", "--json", *options)
    assert result.code == 0
    found = json.loads(result.out)
    assert found["tokens_out"] < found["tokens_in"]
    assert [passage["text"] for passage in found["passages"]] == [TEXT, TEXT]
    path = tmp_path / "short.json"
    path.write_text(result.out, "utf-8")
    return path


def test_a_segment_with_what_stands_around(call: Call, short: Path) -> None:
    segments = json.loads(short.read_text("utf-8"))["segments"]
    result = call("expand", short, "--segment", "1", "--json")
    assert result.code == 0
    excerpts = [json.loads(line) for line in result.out.splitlines()]
    assert [(e["start"], e["end"]) for e in excerpts] == [(s["start"], s["end"]) for s in segments[0]["spans"]]
    assert all(TEXT[e["start"] : e["end"]] == e["text"] for e in excerpts)
    assert call("expand", short, "--segment", "1", "--around", "9").out == TEXT + "\n"


def test_a_passage_and_a_span_from_standard_input(pipe, short: Path) -> None:
    written = short.read_text("utf-8")
    assert pipe(written, "expand", "--passage", "1").out == TEXT + "\n"
    assert pipe(written, "expand", "--span", "0:4-8").out == "lamp\n"
    assert pipe(written, "expand", "--span", "0:4-8", "--characters", "4").out == "The lamp bur\n"


def test_several_stretches_say_where_they_stand(call: Call, tmp_path: Path) -> None:
    spans = [{"passage_id": "p", "start": 0, "end": 8}, {"passage_id": "p", "start": 25, "end": 35}]
    value = {"passages": [{"id": "p", "text": TEXT, "title": "Lamp"}], "segments": [{"spans": spans}]}
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"context": value}, indent=1), "utf-8")
    assert call("expand", path, "--segment", "1").out == "[p:0-8] Lamp\nThe lamp\n\n[p:25-35] Lamp\nThe keeper\n"


def test_a_citation_of_an_answer_from_the_index(pipe, kb: Path) -> None:
    from ragzip.indexes import Index

    passage = next(p for p in Index.open(kb) if "black cat" in p.text)
    start = passage.text.index("black cat")
    cited = {"citations": [{"passage_id": passage.id, "start": start, "end": start + 9, "text": "black cat"}]}
    answer = json.dumps({"question": "q", "answer": "a", **cited})
    assert pipe(answer, "expand", "-i", kb, "--citation", "1").out == "black cat\n"
    around = pipe(answer, "expand", "-i", kb, "--citation", "1", "--around", "1").out
    assert "The cat sat on the mat. It was a black cat with a white paw." in around
    refused = pipe(answer, "expand", "--citation", "1")
    assert refused.code == 2
    assert "--index" in refused.err
    assert "no passage 'x'" in pipe(answer, "expand", "-i", kb, "--passage", "x").err


@pytest.mark.parametrize(
    ("data", "arguments", "message"),
    [
        ("{}", ("--segment", "1"), "no passages, context or citations"),
        ("not json", ("--segment", "1"), "not JSON"),
        ('{"passages": []}\n{"passages": []}', ("--segment", "1"), "2 JSON lines"),
        ('{"passages": []}\n{"passages": []}', ("--segment", "1", "--line", "3"), "no line 3"),
        ('{"passages": [{"id": "a", "text": "x"}]}', (), "There is no segment; no citation; --passage a."),
        ('{"passages": [{"id": "a", "text": "x"}]}', ("--segment", "2"), "no segment 2"),
        ('{"passages": [{"id": "a", "text": "x"}]}', ("--citation", "1"), "no citation 1"),
        ('{"passages": [{"id": "a", "text": "x"}]}', ("--passage", "b"), "no passage 'b'"),
        ('{"passages": [{"id": "a", "text": "x"}]}', ("--passage", "a", "--segment", "1"), "cannot go together"),
        ('{"passages": [{"id": "a", "text": "x"}]}', ("--span", "a:3"), "is not ID:START-END"),
        ('{"passages": [{"id": "a", "text": "x"}]}', ("--span", f"a:0-{'9' * 5000}"), "is not ID:START-END"),
        ('{"passages": [{"id": "a", "text": "x"}]}', ("--span", "a:0-²"), "is not ID:START-END"),
        ('{"passages": [{"id": "a", "text": "x"}]}', ("--span", "a:0-7"), "7 is beyond its end"),
        ('{"passages": [{"id": "a"}]}', ("--passage", "a"), "passages[0] has no 'text'"),
        ('{"citations": 3, "passages": [3]}', ("--citation", "1"), "passages should be a list"),
    ],
)
def test_errors_say_what_there_is(pipe, data: str, arguments: tuple[str, ...], message: str) -> None:
    result = pipe(data, "expand", *arguments)
    assert result.code == 2
    assert message in result.err


def test_a_file_that_is_not_there(call: Call, tmp_path: Path) -> None:
    assert "no file" in call("expand", tmp_path / "none.json", "--segment", "1").err


def test_half_pairs_do_not_stop_it(pipe) -> None:
    data = '{"passages": [{"id": "a", "text": "x\\ud800y"}]}'
    assert pipe(data, "expand", "--passage", "a").out == "x?y\n"


def test_an_answer_with_its_context_needs_no_index(pipe, call: Call, look: Path) -> None:
    answer = call("query", "black cat", "--pipeline", look, "--json", "--show-context").out
    segment = json.loads(answer)["context"]["segments"][0]
    span = segment["spans"][0]
    result = pipe(answer, "expand", "--segment", "1", "--json")
    found = [json.loads(line) for line in result.out.splitlines()]
    assert (found[0]["start"], found[0]["end"]) == (span["start"], span["end"])
    assert found[0]["text"] in segment["text"]
    assert len(pipe(answer, "expand", "--passage", span["passage_id"]).out) > len(found[0]["text"])
    assert "context" not in json.loads(call("query", "black cat", "--pipeline", look, "--json").out)


@pytest.mark.parametrize("what", ["citation", "segment"])
def test_a_passage_that_has_changed_since_is_no_original(pipe, kb: Path, what: str) -> None:
    from ragzip.indexes import Index

    passage = next(p for p in Index.open(kb) if "black cat" in p.text)
    start = passage.text.index("black cat")
    span = {"passage_id": passage.id, "start": start, "end": start + 9}

    def answer(text: str) -> str:
        segments = {"segments": [{"text": text, "spans": [span]}]}
        return json.dumps({"question": "q", "citations": [{**span, "text": text}], **segments, "passages": []})

    assert pipe(answer("black cat"), "expand", "-i", kb, f"--{what}", "1").out == "black cat\n"
    result = pipe(answer("white dog"), "expand", "-i", kb, f"--{what}", "1")
    assert result.code == 2
    assert f"{passage.id} has changed since" in result.err
    rewritten = pipe(answer("it tells of a cat that is black"), "expand", "-i", kb, "--segment", "1")
    assert rewritten.out == "black cat\n"  # of what was rewritten nobody can tell
