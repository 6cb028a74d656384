"""What may be imported when: the core is light, and the public surface is what it says."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import ragzip
from ragzip import registry

HEAVY = (
    "torch", "transformers", "faiss", "sentence_transformers", "datasets", "sklearn", "scipy", "pandas", "bm25s",
    "openai", "trafilatura", "pypdf", "docx", "gguf", "huggingface_hub", "numba",
)  # fmt: skip
LIGHT = [
    "import ragzip",
    "from ragzip.cli import main",
    "from ragzip import Pipeline, SentenceFilter, HuggingFace, OpenAI, Dense, BM25, Fusion",
    "from ragzip.cli.app import run; run(['--help'])",
    "from ragzip.cli.app import run; run(['list'])",
    "from ragzip.cli.app import run; run(['models'])",
    "from ragzip import *; Pipeline(HuggingFace(), Dense('kb'), SentenceFilter() >> Budget(10)).to_yaml()",
    "import ragzip; y = ragzip.Pipeline(ragzip.HuggingFace(), ragzip.Dense('kb'), ragzip.SentenceFilter()).to_yaml();"
    "ragzip.Pipeline.from_yaml(y).check()",
]


@pytest.mark.parametrize("code", LIGHT)
def test_light_things_import_nothing_heavy(code: str) -> None:
    probe = f"import sys\n{code}\nprint('HEAVY', [m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout


def test_importing_ragzip_configures_nothing() -> None:
    probe = (
        "import os, logging, random, sys\n"
        "before = (dict(os.environ), logging.root.level, list(logging.root.handlers), random.getstate(), os.getcwd())\n"
        "import ragzip; ragzip.Pipeline\n"
        "after = (dict(os.environ), logging.root.level, list(logging.root.handlers), random.getstate(), os.getcwd())\n"
        "print(before == after)"
    )
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "True"


def test_the_surface_is_what_it_says() -> None:
    assert sorted(ragzip.__all__) == sorted(ragzip._MODULE)
    for name in ragzip.__all__:
        assert getattr(ragzip, name).__name__ == name
    assert set(ragzip.__all__) <= set(dir(ragzip))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = ragzip.Nothing


@pytest.mark.parametrize("kind", ["retriever", "compressor", "generator", "prompt", "kv"])
def test_every_component_that_comes_along_has_its_name_here(kind) -> None:
    for name in registry._BUILTIN[kind]:
        component = registry.get(kind, name)
        assert getattr(ragzip, component.__name__) is component


def test_every_module_imports() -> None:
    for module in pkgutil.walk_packages(ragzip.__path__, "ragzip."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
