"""``ragzip check``, ``list``, ``show``, ``models``, and the program as a whole."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ragzip import Pipeline, __version__, registry
from tests.cli.conftest import Call
from tests.indexes.tools import documents, make


def test_list_names_everything(call: Call) -> None:
    result = call("list")
    for kind in registry.KINDS:
        for name in registry.names(kind):
            assert name in result.out
    found = json.loads(call("list", "compressors", "--json").out)
    assert list(found) == ["compressor"]
    assert all(idea for idea in found["compressor"].values())
    assert call("list", "nonsense").code == 2


@pytest.mark.parametrize("kind", registry.KINDS)
def test_show_gives_every_option(call: Call, kind: registry.Kind) -> None:
    from ragzip import config

    for name in registry.names(kind):
        out = call("show", name).out
        for field in config.options(registry.get(kind, name)):
            assert field.name in out


def test_show_spells_a_pipeline_out(call: Call, look: Path) -> None:
    assert Pipeline.from_yaml(call("show", look).out) == Pipeline.load(look)


def test_show_gives_a_passage_back(call: Call, kb: Path) -> None:
    found = call("show", "docs/dogs.txt#0", "--index", kb)
    assert "Dogs bark at night." in found.out
    missing = call("show", "docs/none#0", "--index", kb)
    assert missing.code in (1, 2)
    assert "docs/none#0" in missing.err


def test_show_nothing(call: Call) -> None:
    result = call("show", "sentence_fliter")
    assert result.code == 2
    assert "Did you mean 'sentence_filter'" in result.err


def test_check_says_what_fits_and_what_is_missing(call: Call, look: Path) -> None:
    fine = call("check", look)
    assert fine.code == 0
    assert "compressors[0] budget   any -> same" in fine.out
    gone = call("check", look, "--set", "retriever.index=gone/")
    assert gone.code == 1
    assert "gone" in gone.err
    look.write_text(look.read_text().replace("budget", "bugdet"), encoding="utf-8")
    typo = call("check", look)
    assert typo.code == 2
    assert f"{look}:4: compressors.0.type: unknown compressor 'bugdet'" in typo.err


@pytest.mark.parametrize(
    ("kind", "without"), [("bm25", ""), ("dense", "vectors"), ("lexsem", "vectors"), ("multi_vector", "multi_vector")]
)
def test_check_knows_what_an_index_lacks(call: Call, kb: Path, tmp_path: Path, kind: str, without: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"generator: echo\nretriever: {{type: {kind}, index: '{kb}'}}\n", encoding="utf-8")
    result = call("check", path)
    assert result.code == bool(without)
    assert (f"was made for bm25 and has no {without}" in result.err) == bool(without)


def test_check_asks_for_no_words_where_they_are_counted_at_opening(tmp_path: Path, call: Call) -> None:
    kb, path = tmp_path / "kb", tmp_path / "p.yaml"
    make(kb, documents(3), retriever="dense")
    path.write_text(f"generator: echo\nretriever: {{type: bm25, index: '{kb}'}}\n", encoding="utf-8")
    assert call("check", path).code == 0


def test_check_names_a_model_that_is_not_here(call: Call, look: Path) -> None:
    text = look.read_text().replace("{type: echo}", "{type: huggingface, model: nobody/nothing}")
    look.write_text(text, encoding="utf-8")
    result = call("check", look)
    assert result.code == 1
    assert "ragzip models fetch nobody/nothing" in result.err


def test_check_names_every_model_and_file_that_is_not_here(call: Call, look: Path) -> None:
    parts = "compressors: [{type: summary, encoder: nobody/encoder}]\nretriever: {type: oracle, path: nowhere.jsonl}\n"
    server = (
        "generator: {type: openai, model: served/elsewhere, base_url: 'http://localhost:1/v1', tokenizer: nobody/t}"
    )
    look.write_text(f"ragzip: 1\n{parts}{server}\n")
    result = call("check", look)
    assert result.code == 1
    for said in ("fetch nobody/encoder", "fetch nobody/t", "no file 'nowhere.jsonl'"):
        assert said in result.err
    assert "served/elsewhere" not in result.err


@pytest.mark.parametrize("said", ["2024-02-30", "0x_", "9" * 5000])
def test_values_that_only_look_like_numbers_are_one_clear_line(call: Call, look: Path, said: str) -> None:
    result = call("check", look, "--set", f"seed={said}")
    assert result.code == 2
    assert "seed" in result.err
    assert "unexpected" not in result.err


def test_models_are_listed(call: Call) -> None:
    names = [m["name"] for m in json.loads(call("models", "--json").out)["models"]]
    assert names == ["all-minilm-l6-v2", "smollm2-135m-instruct"]
    assert all(name in call("models").out for name in names)


def test_version_help_and_no_arguments(call: Call) -> None:
    assert call("--version").out.strip() == __version__
    assert "query" in call("--help").out
    assert call().code in (0, 2)
    for command in ("index", "query", "compress", "check", "list", "show", "models"):
        assert call(command, "--help").code == 0


def test_output_survives_a_reader_that_goes_away() -> None:
    command = f"{sys.executable} -m ragzip list | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.strip()
    assert done.returncode == 0


def test_a_reader_that_goes_away_while_a_command_writes_is_no_failure(call: Call, monkeypatch) -> None:
    """typer catches it before we can, and exits with 1."""

    def gone(*args, **more):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("ragzip.cli.inspect.table", gone)
    monkeypatch.setattr("ragzip.cli.app._abandon_stdout", lambda: None)
    assert call("list").code == 0


def test_an_unexpected_error_is_one_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(kind: str) -> list[str]:
        raise RuntimeError("the wheel came off\nand more")

    monkeypatch.setattr(registry, "names", broken)
    result = call("list")
    assert result.code == 1
    assert "unexpected RuntimeError: the wheel came off" in result.err
    assert "and more" not in result.err
    monkeypatch.setenv("RAGZIP_DEBUG", "1")
    with pytest.raises(RuntimeError):
        call("list")


def test_interrupting_is_quiet(look: Path) -> None:
    # A background job's children ignore SIGINT, so the child takes Python's own handler back first.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import ragzip.cli as c; c.main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "query", "--pipeline", str(look)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        process.stdin.write(b"cat\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert b"Traceback" not in err
