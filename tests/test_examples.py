"""The examples run as they stand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ragzip import Graph, Pipeline

ROOT = Path(__file__).resolve().parent.parent
PIPELINES = sorted((ROOT / "examples" / "pipelines").glob("*.yaml"))
METHODS = sorted((ROOT / "examples" / "compressors").glob("*.yaml"))
RETRIEVERS = sorted((ROOT / "examples" / "retrievers").glob("*.yaml"))


@pytest.mark.parametrize("path", [*PIPELINES, *METHODS, *RETRIEVERS], ids=lambda path: path.stem)
def test_pipelines_load_check_and_stay_the_same(path: Path) -> None:
    pipeline = Pipeline.load(path)
    pipeline.check()
    assert Pipeline.from_yaml(pipeline.to_yaml()) == pipeline


def test_the_preset_in_yaml_is_the_one_in_python() -> None:
    assert Pipeline.load(ROOT / "examples" / "retrievers" / "hipporag2.yaml").retriever == Graph.hipporag2("kb/")


def test_yaml_in_the_docs_and_the_readme_loads() -> None:
    found = 0
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for block in page.read_text(encoding="utf-8").split("```yaml\n")[1:]:
            text = block.split("```")[0]
            if text.startswith(("ragzip:", "#")):
                Pipeline.from_yaml(text, source=page.name).check()
                found += 1
            elif text.startswith("retriever:"):
                Pipeline.from_yaml(f"{text}generator: echo\n", source=page.name).check()
                found += 1
    assert found >= 5


def test_python_in_the_docs_and_the_readme_compiles() -> None:
    found = 0
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for block in page.read_text(encoding="utf-8").split("```python\n")[1:]:
            compile(block.split("```")[0], page.name, "exec")
            found += 1
    assert found >= 3


def test_links_in_the_docs_lead_somewhere() -> None:
    import re

    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_a_compressor_of_ones_own() -> None:
    command = [sys.executable, str(ROOT / "examples" / "own_compressor.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "The lamp burnt rape oil." in done.stdout
    assert "lived alone" not in done.stdout
    assert "shared_words ok" in done.stdout


def run(folder: Path, *arguments: str, text: str | None = None) -> str:
    command = [sys.executable, "-m", "ragzip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, input=text)
    return done.stdout


def test_looking_without_any_model(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("# Lamps\n\nThe lamp burnt rape oil. " + "The keeper lived alone. " * 60)
    run(tmp_path, "index", "notes.md", "--index", "kb/", "--retriever", "bm25")
    pipeline = str(ROOT / "examples" / "pipelines" / "look.yaml")
    found = json.loads(run(tmp_path, "query", "What did the lamp burn?", "--pipeline", pipeline, "--json"))
    assert found["tokens_out"] <= 300 < found["tokens_in"]


@pytest.mark.models
def test_the_readme_as_a_new_user(tmp_path: Path) -> None:
    """Index, query, YAML, ten lines of Python and a pipe, with the real models."""
    pages = [page for page in (ROOT / "docs").glob("*.md") if page.name != "numbers.md"]  # tables, longer than all else
    (tmp_path / "docs").mkdir()
    for page in pages:
        shutil.copy(page, tmp_path / "docs")
    run(tmp_path, "index", "docs", "--index", "kb/")
    question = "What happens when a compression step fails?"
    found = json.loads(run(tmp_path, "query", question, "--index", "kb/", "--budget", "300", "--json"))
    assert found["answer"]
    assert found["tokens_out"] <= 300 < found["tokens_in"]
    assert found["prompt_tokens"] > found["tokens_out"]
    assert found["ttft_seconds"] > 0
    for citation in found["citations"]:
        assert citation["text"] in (ROOT / "docs" / Path(citation["source"]).name).read_text(encoding="utf-8")

    pipeline = str(ROOT / "examples" / "pipelines" / "local.yaml")
    small = ("--set", "compressors.1.budget=100", "--set", "generator.max_new_tokens=8")
    found = json.loads(run(tmp_path, "query", question, "--pipeline", pipeline, *small, "--json"))
    assert found["tokens_out"] <= 100
    assert [step["name"] for step in found["steps"]] == ["dedupe", "sentence_filter"]

    script = [sys.executable, str(ROOT / "examples" / "quickstart.py"), "docs", question]
    done = subprocess.run(script, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "tokens (" in done.stdout

    text = (ROOT / "docs" / "footguns.md").read_text(encoding="utf-8")
    squeezed = run(tmp_path, "compress", "--query", "Why is fork a bad idea?", "--budget", "60", text=text)
    assert "fork" in squeezed
    assert len(squeezed) < len(text) / 5


def test_the_example_records_are_sound() -> None:
    from ragzip.evaluation.data import open_set

    found = open_set(str(ROOT / "examples" / "questions.jsonl"))
    assert (len(found.records), found.task, found.labels) == (12, "short", "sentences")
    for record in found.records:
        (span,) = record.relevant
        text = next(p.text for p in record.passages if p.id == span.passage_id)
        sentence = text[span.start : span.end]
        assert sentence.endswith(".")
        assert any(answer.lower() in sentence.lower() for answer in record.answers)


@pytest.mark.models
def test_the_example_evaluation_runs(tmp_path: Path) -> None:
    arguments = [
        "eval",
        "examples/pipelines/given.yaml",
        "--data",
        "examples/questions.jsonl",
        "--limit",
        "2",
        "--json",
    ]
    command = [sys.executable, "-m", "ragzip", *arguments, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    metrics = json.loads(done.stdout)["metrics"]
    assert {"closed_book", "no_compression", "sentence_filter", "oracle_sentences@120"} <= set(metrics)
    whole, small = metrics["no_compression"], metrics["sentence_filter"]
    assert small["tokens_out"]["mean"] <= 120 < whole["tokens_out"]["mean"]
    assert 0 < small["prefill_flops"]["mean"] < whole["prefill_flops"]["mean"]
    assert metrics["oracle_sentences@120"]["answer_in_context"]["mean"] == 1.0


def test_every_published_method_has_a_row_with_its_paper_and_an_example() -> None:
    import re

    rows = re.findall(
        r"^\| \[`(\w+)`\]\((\S+)\) \|(.*)\|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {name for name, _, _ in rows} == {path.stem for path in METHODS}
    for name, target, row in rows:
        assert target == f"examples/compressors/{name}.yaml"
        assert "http" in row or name == "structured", f"{name} names no paper"
        example = Pipeline.load(ROOT / target)
        assert name in {part["type"] for part in example.to_config()["compressors"]}


@pytest.mark.models
@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_every_method_compresses_with_its_real_model(path: Path) -> None:
    from ragzip.evaluation.data import open_set

    pipeline = Pipeline.load(path)
    for record in open_set(str(ROOT / "examples" / "questions.jsonl")).records[:2]:
        result = pipeline.compress(record.question, record.passages)
        assert all(step.status in ("ok", "no_gain") for step in result.steps), result.steps
        assert result.tokens_out <= result.tokens_in
        if path.stem not in ("gate", "structured"):
            assert result.tokens_out < result.tokens_in
