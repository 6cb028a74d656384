"""``>>`` as mypy and pyright see it: stacks that cannot work are refused before anything runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FILES = ("sound.py", "unsound.py")


def expected(name):
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# refused")}


def mypy():
    """File name -> the lines with errors. With the options of the project, strict, so that what is cached counts."""
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--no-pretty", "--explicit-package-bases"]
    command += [f"tests/typing/{name}" for name in FILES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    found = re.findall(r"^tests[/\\]typing[/\\](\w+\.py):(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout, [(name, int(line)) for name, line, _ in found]


def pyright():
    """The whole report, and file name and line of each error."""
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(
        [*command, *(f"tests/typing/{name}" for name in FILES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
    )
    try:
        report = json.loads(done.stdout)
    except ValueError:
        # the checker itself is an npm package: without network, and with nothing cached, there is nothing to run
        pytest.skip(f"pyright does not run here: {(done.stderr or done.stdout)[-200:]}")
    errors = [found for found in report["generalDiagnostics"] if found["severity"] == "error"]
    assert report["summary"]["filesAnalyzed"] >= len(FILES)
    return report, [(Path(e["file"]).name, e["range"]["start"]["line"] + 1) for e in errors]


@pytest.mark.slow
def test_mypy_accepts_sound_stacks_and_refuses_the_others():
    output, errors = mypy()
    for name in FILES:
        assert {line for file, line in errors if file == name} == expected(name), output


def test_pyright_accepts_sound_stacks_and_refuses_the_others():
    report, errors = pyright()
    for name in FILES:
        assert {line for file, line in errors if file == name} == expected(name), report


def test_there_is_something_to_refuse():
    assert len(expected("unsound.py")) > 15
    assert not expected("sound.py")
