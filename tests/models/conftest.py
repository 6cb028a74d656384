import hashlib
from types import MappingProxyType

import pytest

from ragzip.models import catalogue
from tests.models import tools


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache folder of this test alone, and no hub to fall back to."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("RAGZIP_CACHE", str(folder))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    return folder


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory, tiny_lm_path):
    """A real GGUF file of a tiny model."""
    from pathlib import Path

    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    tools.write_gguf(Path(tiny_lm_path), path)
    return path


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the import path, for fake packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def installed(own_cache, site, tiny_gguf, monkeypatch):
    """The tiny model as an installed package, known to the catalogue."""
    spec = tools.make_package(site, tiny_gguf)
    monkeypatch.setattr(catalogue, "CATALOGUE", MappingProxyType({spec.name: spec}))
    return spec


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
