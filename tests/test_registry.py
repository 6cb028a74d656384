"""Names to classes."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

from ragzip import registry
from ragzip.errors import ConfigError


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_name_leads_to_a_class_that_knows_its_name(kind: registry.Kind) -> None:
    assert registry.names(kind)
    for name in registry.names(kind):
        cls = registry.get(kind, name)
        assert registry.name_of(cls) == name
        assert registry.kind_of(cls) == kind
        assert (cls.__doc__ or "").strip(), f"{name} needs a docstring"


def test_listing_imports_no_component() -> None:
    code = (
        "import sys; from ragzip import registry\n"
        "for k in registry.KINDS: registry.names(k)\n"
        "print([m for m in sys.modules if m.startswith(('ragzip.compressors', 'ragzip.retrievers'))])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_registering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_extra", {kind: {} for kind in registry.KINDS})
    registry.register("compressor", "mine", "ragzip.compressors.identity:Identity")
    registry.register("compressor", "mine", "ragzip.compressors.identity:Identity")
    assert "mine" in registry.names("compressor")
    with pytest.raises(ConfigError, match="already"):
        registry.register("compressor", "budget", "other:Thing")
    with pytest.raises(ConfigError, match="snake case"):
        registry.register("compressor", "Mine!", "other:Thing")
    registry.register("compressor", "broken", "no_such_module:Thing")
    with pytest.raises(ConfigError, match="no_such_module"):
        registry.get("compressor", "broken")


def test_entry_points_are_found_and_cannot_replace_a_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        importlib.metadata.EntryPoint("theirs", "ragzip.compressors.top_k:TopK", "ragzip.compressor"),
        importlib.metadata.EntryPoint("budget", "evil:Thing", "ragzip.compressor"),
    ]
    monkeypatch.setattr(registry, "_entry_points", {})
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    assert "theirs" in registry.names("compressor")
    assert registry.get("compressor", "budget").__module__ == "ragzip.compressors.budget"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("SentenceFilter", "sentence_filter"), ("TopK", "top_k"), ("BM25", "bm25"), ("QA", "qa"), ("OpenAI", "open_ai")],
)
def test_snake_case(name: str, expected: str) -> None:
    assert registry.snake(name) == expected
