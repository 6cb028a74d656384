"""``ragzip compress`` as a filter."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ragzip.protocols import Compressor
from ragzip.types import Context, Span, TextSegment
from tests.cli.conftest import Call, Result

TEXT = "The lamp burnt rape oil. The keeper lived alone. Ships passed at night. " * 6


@pytest.fixture
def pipe(call: Call, monkeypatch: pytest.MonkeyPatch, tiny_lm_path: Path) -> Callable[..., Result]:
    def piping(data: str | bytes, *arguments: str) -> Result:
        raw = data.encode("utf-8") if isinstance(data, str) else data
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
        return call("compress", "--tokenizer", str(tiny_lm_path), *arguments)

    return piping


def count(path: Path, text: str) -> int:
    from ragzip.models import load_tokenizer

    return len(load_tokenizer(str(path)).encode(text, add_special_tokens=False).ids)


@pytest.mark.parametrize("budget", [1, 7, 40, 100])
def test_a_budget_is_met_in_text(pipe, tiny_lm_path: Path, budget: int) -> None:
    result = pipe(TEXT, "--query", "lamp", "--compress", "budget", "--budget", str(budget))
    assert result.code == 0
    assert count(tiny_lm_path, result.out.removesuffix("\n")) <= budget
    assert "tokens" in result.err


def test_text_that_fits_comes_out_as_it_went_in(pipe) -> None:
    assert pipe("One  line.\n", "--query", "q", "--compress", "budget", "--budget", "4000").out == "One  line.\n"


def test_json_lines_in_json_lines_out(pipe) -> None:
    rows = [
        {"id": "a", "title": "Lamp", "text": "The lamp burnt oil. It was bright.", "year": 1871, "score": 2.0},
        {"id": "a", "title": "Keeper", "text": "The keeper lived alone. He had a dog.", "score": 1.0},
    ]
    lines = "\n".join(json.dumps(row) for row in rows)
    result = pipe(lines, "--query", "lamp", "--compress", "truncate", "--keep", "0.5")
    assert result.code == 0
    out = [json.loads(line) for line in result.out.splitlines()]
    assert out
    for row in out:
        original = next(r for r in rows if r["title"] == row["title"])
        assert {k: v for k, v in row.items() if k not in ("text", "spans")} == {
            k: v for k, v in original.items() if k != "text"
        }
        assert " ".join(original["text"][a:b] for a, b in row["spans"]) == row["text"]


class Writes(Compressor[TextSegment, TextSegment]):
    """Writes one segment about the first passages, and one about the last."""

    def compress(self, contexts):
        made = []
        for context in contexts:
            spans = [Span(passage.id, 0, 3) for passage in context.passages]
            segments = (TextSegment("Both.", (*spans[:-1], Span("0", 4, 7))), TextSegment("Last.", (spans[-1],)))
            made.append(Context(context.query, segments, context.passages))
        return made


@pytest.mark.parametrize("key", ["text", "contents"])
def test_what_was_made_from_several_lines_names_them_all(pipe, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setattr("ragzip.cli.compress.build_stack", lambda *_: (Writes(),))
    rows = [
        {"id": "doc-a", "title": "A", key: "The lamp burnt.", "year": 1871},
        {"title": "B", key: "The keeper slept."},
        {"id": 7, "title": "C", key: "The ship passed."},
        {"id": "doc-d", "title": "D", key: "The oil was dear."},
    ]
    result = pipe("\n".join(json.dumps(row) for row in rows), "--query", "lamp")
    assert result.code == 0, result.err
    both, last = result.out.splitlines()
    assert json.loads(both) == {
        key: "Both.",
        "sources": [
            {"id": "doc-a", "start": 0, "end": 3},
            {"id": 1, "start": 0, "end": 3},
            {"id": 7, "start": 0, "end": 3},
            {"id": "doc-a", "start": 4, "end": 7},
        ],
    }
    assert last == json.dumps({"id": "doc-d", "title": "D", key: "Last.", "spans": [[0, 3]]})


def test_a_sentence_filter_runs_in_a_pipe(pipe, tiny_encoder_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = pipe(
        TEXT, "--query", "lamp", "--compress", "truncate", "--compress", "dedupe", "--budget", "30", "--quiet"
    )
    assert (result.code, result.err) == (0, "")


def test_nothing_in_nothing_out(pipe) -> None:
    result = pipe("", "--query", "q", "--compress", "budget", "--budget", "10")
    assert (result.code, result.out) == (0, "")
    assert pipe("text", "--query", "q", "--compress", "budget", "--budget", "0").out == ""


@pytest.mark.parametrize(
    ("data", "arguments", "words"),
    [
        (b"caf\xe9", ["--query", "q"], "UTF-8"),
        ("text", ["--query", " "], "query is empty"),
        ('{"text": "a"}\n{"text": ', ["--query", "q"], "line 2"),
        ('{"text": "a"}\n{"body": 3}', ["--query", "q"], "line 2"),
        ('{"text": "a"}\n[]', ["--query", "q"], "line 2"),
        ('[{"text": "a"}]', ["--query", "q"], "JSON array"),
        ('{\n "text": "a"\n}\n', ["--query", "q"], "one JSON object over several lines"),
        ('{"id": 1}\n{"text": "a"}', ["--query", "q"], "line 1"),
        ('{"text": "a", "score": NaN}', ["--query", "q"], "NaN"),
        ('{"text": "a"}\n{"text": "a", "x": 1e999}', ["--query", "q"], "line 2: not JSON: 1e999 is larger"),
        ("text", ["--query", "q", "--format", "xml"], "xml"),
        ("text", ["--query", "q", "--compress", "nope"], "nope"),
        ("text", ["--query", "q", "--keep", "0"], "keep"),
        ("text", ["--query", "q", "--budget", "-1"], "budget"),
    ],
)
def test_bad_input(pipe, data: str | bytes, arguments: list[str], words: str) -> None:
    result = pipe(data, *arguments)
    assert result.code in (1, 2)
    assert result.out == ""
    assert words in result.err


def test_a_score_beyond_all_numbers_is_no_score(pipe) -> None:
    line = f'{{"text": "One. Two.", "score": {"9" * 400}}}'
    result = pipe(line, "--query", "q", "--compress", "budget", "--budget", "50")
    assert result.code == 0
    assert json.loads(result.out)["text"] == "One. Two."


def test_letters_that_the_terminal_lacks_are_written_as_numbers() -> None:
    command = [sys.executable, "-m", "ragzip", "compress", "--query", "q", "--compress", "budget", "--budget", "50"]
    done = subprocess.run(
        command,
        input="It costs 5 € a — piece.".encode(),
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert done.stdout.decode("latin-1").strip() == "It costs 5 \\u20ac a \\u2014 piece."


def test_json_stays_json_where_the_terminal_lacks_letters() -> None:
    command = [sys.executable, "-m", "ragzip", "compress", "--query", "q", "--compress", "budget", "--budget", "50"]
    line = json.dumps({"text": "It costs 5 € a piece. 😀 é"}, ensure_ascii=False)
    done = subprocess.run(
        command,
        input=line.encode(),
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "cp1251"},
    )
    assert json.loads(done.stdout.decode("cp1251"))["text"] == "It costs 5 € a piece. 😀 é"


def test_a_lone_surrogate_passes_as_a_question_mark(pipe) -> None:
    result = pipe('{"text": "Lone \\ud800 here. Two."}', "--query", "q", "--compress", "budget", "--budget", "50")
    assert result.code == 0
    assert json.loads(result.out)["text"] == "Lone ? here. Two."


def test_text_that_begins_with_a_bracket_is_text(pipe) -> None:
    text = "[1] A note. {more} text.\n"
    assert pipe(text, "--query", "q", "--compress", "budget", "--budget", "50").out == text


def test_what_is_left_of_a_line_is_one_line(pipe) -> None:
    texts = ["Intro here.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nThe end of it.", "- x\n- y\n\nMore words."]
    rows = [{"id": f"d{i}", "text": text, "n": i} for i, text in enumerate(texts)]
    result = pipe("\n".join(map(json.dumps, rows)), "-q", "end", "-c", "structured", "--budget", "60")
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [line["id"] for line in lines] == ["d0", "d1"]
    assert "| 1 | 2 |" in lines[0]["text"]
    assert [line["n"] for line in lines] == [0, 1]


def test_ids_that_tell_lines_apart_stay(pipe) -> None:
    def ids(*names):
        data = "\n".join(json.dumps({"id": name, "text": "Some words here. And more."}) for name in names)
        result = pipe(data, "-q", "words", "-c", "budget", "--json", "--budget", "99")
        return [passage["id"] for passage in json.loads(result.out)["passages"]]

    assert ids("a", "b") == ["a", "b"]
    assert ids(7, "x") == ["7", "x"]
    assert ids("a", "a") == ids("", "b") == ids(None, "b") == ["0", "1"]
