"""``ragzip query``."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Call

KEYS = {"question", "answer", "citations", "tokens_in", "tokens_out", "ratio", "prompt_tokens", "ttft_seconds", "steps"}


def test_json_is_one_object_a_question_and_nothing_else(call: Call, look: Path) -> None:
    result = call("query", "Where did the cat sit?", "Do dogs bark?", "--pipeline", look, "--json")
    assert result.code == 0
    objects = [json.loads(line) for line in result.out.splitlines()]
    assert [o["question"] for o in objects] == ["Where did the cat sit?", "Do dogs bark?"]
    for found in objects:
        assert set(found) >= KEYS
        assert found["tokens_out"] <= 12
        assert found["ratio"] == pytest.approx(found["tokens_in"] / found["tokens_out"], abs=1e-3)
        assert set(found["steps"][0]) >= {"name", "status", "tokens_in", "tokens_out", "seconds"}
        assert found["steps"][0]["name"] == "budget"
        for citation in found["citations"]:
            assert set(citation) == {"passage_id", "source", "start", "end", "text"}


def test_overrides_change_the_pipeline(call: Call, look: Path) -> None:
    small, large = (
        json.loads(call("query", "cat dog rain", "-p", look, "--set", f"compressors.0.tokens={n}", "--json").out)
        for n in (5, 100)
    )
    assert small["tokens_out"] <= 5 < large["tokens_out"]


def test_text_for_people(call: Call, look: Path) -> None:
    result = call("query", "Where did the cat sit?", "--pipeline", look, "--show-context")
    assert result.code == 0
    for part in ("Where did the cat sit?", "cats.md", "context", "budget", "first token after", "[-"):
        assert part in result.out


def test_questions_come_from_a_pipe(call: Call, look: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Where is the cat?\n\nDo dogs bark?\n")))
    result = call("query", "--pipeline", look, "--json")
    assert len(result.out.splitlines()) == 2
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    assert call("query", "--pipeline", look).code == 2


def test_an_index_joins_a_pipeline_without_retriever(call: Call, kb: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.yaml"
    bare.write_text("generator: echo\n", encoding="utf-8")
    found = json.loads(call("query", "cat", "--pipeline", bare, "--index", kb, "--json").out)
    assert found["tokens_in"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["query", "q"], "no index"),
        (["query", "q", "--index", "none/"], "none"),
        (["query", "", "--pipeline", "LOOK"], "empty"),
        (["query", "x" * 5_000_000, "--pipeline", "LOOK"], "5,000,000 characters"),
        (["query", "q", "--pipeline", "nope.yaml"], "no such file"),
        (["query", "q", "--pipeline", "LOOK", "--set", "x"], "path=value"),
        (["query", "q", "--pipeline", "LOOK", "--set", "compressors.0.tokns=1"], "Did you mean 'tokens'"),
        (["query", "q", "--pipeline", "LOOK", "--set", "retriever.index=gone/"], "gone"),
        (["query", "q", "--pipeline", "LOOK", "--index", "KB"], "its own index"),
        (["query", "q", "--index", "KB", "--compress", "sentence_fliter"], "Did you mean 'sentence_filter'"),
        (["query", "q", "--index", "KB", "--compress", "top_k", "--threshold", "1"], "has no 'threshold'"),
        (["query", "q", "--index", "KB", "--compress", "none", "--budget", "5"], "takes no --budget"),
        (["query", "q", "--index", "KB", "--keep", "7"], "keep"),
        (["query", "q", "--index", "KB", "--top-k", "0"], "top-k"),
        (["query", "q", "--index", "KB", "--retriever", "sparse"], "sparse"),
        (["query", "q", "--index", "KB", "--retriever", "lexsem"], "has no vectors"),
        (["query", "q", "--index", "KB", "--rerank", "./none"], "./none does not exist"),
        (["query", "q", "--index", "KB", "--retriever", "bm25", "--filter", "nonsense"], "nonsense"),
        (["query", "q", "--no-such-option"], "no-such-option"),
        (["qeury"], "qeury"),
    ],
)
def test_bad_calls_get_one_clear_line(
    call: Call, look: Path, kb: Path, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*[{"LOOK": str(look), "KB": str(kb)}.get(a, a) for a in arguments])
    assert result.code in (1, 2)
    assert result.out == ""
    first = result.err.splitlines()[0]
    assert first.startswith("error: ")
    assert words in result.err
    assert len(result.err) < 1500


def test_an_oracle_answers_from_a_pipeline(call: Call, tmp_path: Path) -> None:
    labelled = {"question": "hi", "passages": [{"id": "a", "text": "Cats sit."}]}
    (tmp_path / "o.jsonl").write_text(json.dumps(labelled) + "\n", encoding="utf-8")
    path = tmp_path / "oracle.yaml"
    path.write_text(f"retriever: {{type: oracle, path: {tmp_path / 'o.jsonl'}}}\ngenerator: echo\n", encoding="utf-8")
    assert json.loads(call("query", "hi", "--pipeline", path, "--json").out)["answer"] == "Cats sit."


@pytest.mark.parametrize(
    "option",
    [
        ["--compress", "top_k"],
        ["--budget", "5"],
        ["--keep", "0.5"],
        ["--threshold", "1"],
        ["--top-k", "3"],
        ["--retriever", "bm25"],
        ["--rerank", "provence"],
        ["--model", "x"],
        ["--max-new-tokens", "3"],
        ["--filter", "a=b"],
    ],
)
def test_options_that_a_pipeline_file_overrides_are_refused(call: Call, look: Path, option: list[str]) -> None:
    result = call("query", "cat", "--pipeline", look, *option)
    assert (result.code, result.out) == (2, "")
    assert f"{option[0]} has no effect" in result.err


@pytest.mark.models
def test_the_first_passages_are_ranked_anew(call: Call, kb: Path, tmp_path: Path) -> None:
    path = tmp_path / "echo.yaml"
    path.write_text("generator: echo\n", encoding="utf-8")
    asked = ("query", "What do cats eat?", "--pipeline", path, "--index", kb, "--json", "--show-context")
    before, after = (json.loads(call(*asked, *more).out) for more in ((), ("--rerank", "provence")))
    scores = [[passage["score"] for passage in found["context"]["passages"]] for found in (before, after)]
    assert len(scores[0]) == len(scores[1]) >= 1
    assert scores[0] != scores[1]
    assert all(0 <= score <= 1 for score in scores[1])


def test_questions_that_are_not_utf8(call: Call, look: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9 what\n")))
    result = call("query", "--pipeline", look, "--json")
    assert (result.code, result.out) == (2, "")
    assert "UTF-8" in result.err
    assert call("query", "caf\udce9", "--pipeline", look).code == 2


def test_the_prompt_loop_keeps_standard_output_clean(call: Call, look: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("Where is the cat?\nDo dogs bark?\n\nnever read\n"))
    result = call("query", "--pipeline", look, "--json")
    assert result.code == 0
    asked = [json.loads(line)["question"] for line in result.out.splitlines()]
    assert asked == ["Where is the cat?", "Do dogs bark?"]
    assert "? " in result.err


def test_a_filter_for_what_no_passage_has_says_so(call: Call, look: Path) -> None:
    for known, wanted in (("source=nowhere.md", False), ("suorce=cats.md", True)):
        result = call("query", "Where did the cat sit?", "-p", look, "--set", f"retriever.filters=['{known}']")
        assert result.code == 0
        assert "no passage was found" in result.err
        assert ("no passage has 'suorce'; there are" in result.err) is wanted


def test_without_a_retriever_nothing_is_loaded(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "given.yaml"
    path.write_text(
        "ragzip: 1\ncompressors: [{type: budget, tokens: 9}]\ngenerator: {type: huggingface, model: ./no}\n"
    )
    result = call("query", "q", "--pipeline", path)
    assert result.code == 2
    assert "has no retriever" in result.err and "--index" in result.err


@pytest.mark.parametrize(
    ("names", "says"), [(["provence,truncate"], "Repeat the option"), (["none", "provence"], "none stands alone")]
)
def test_chains_are_options_that_are_repeated(call: Call, kb: Path, names: list[str], says: str) -> None:
    given = [part for name in names for part in ("--compress", name)]
    result = call("query", "q", "--index", kb, *given)
    assert result.code == 2 and says in result.err


def test_values_of_the_retriever_that_an_index_brings_can_be_set(call: Call, kb: Path, tmp_path: Path) -> None:
    path = tmp_path / "given.yaml"
    path.write_text("ragzip: 1\ncompressors: [{type: budget, tokens: 99}]\ngenerator: echo\n")
    given = ("query", "cat dog rain", "-p", path, "--index", kb, "--retriever", "bm25", "--json")
    counts = []
    for k in (1, 3):
        result = call(*given, "--show-context", "--set", f"retriever.top_k={k}")
        assert result.code == 0, result.err
        counts.append(len(json.loads(result.out)["context"]["passages"]))
    assert counts[0] == 1 < counts[1]
