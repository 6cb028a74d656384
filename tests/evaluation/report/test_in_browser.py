"""The page in a real browser, where one is on the PATH: its script runs under its policy and shows the examples."""

import os
import shutil
import subprocess

import pytest

from ragzip.evaluation.report import html
from tests.evaluation.report.fake import make_run

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(
    not BROWSER or not os.environ.get("RAGZIP_TEST_BROWSER"),
    reason="needs Chromium on the PATH and RAGZIP_TEST_BROWSER=1",
)
def test_the_script_runs_and_hostile_text_does_not(tmp_path):
    path = html.write(make_run(8), tmp_path / "report.html")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=3000", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    dom = done.stdout
    assert dom.count('class="pick"') == 8
    assert 'class="kept' in dom
    assert "<img" not in dom
