"""What a component must hold to, as tests that anyone can run on their own.

    from ragzip.testing import CompressorContract

    class TestMyFilter(CompressorContract):
        def make(self):
            return MyFilter(threshold=0.2)

Needs ``pip install 'ragzip[testing]'`` (pytest and hypothesis), which are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragzip.testing.contracts import CompressorContract
    from ragzip.testing.roles import GeneratorContract, RetrieverContract
    from ragzip.testing.strategies import contexts, passages, texts

_WHERE = {
    "CompressorContract": "contracts",
    "GeneratorContract": "roles",
    "RetrieverContract": "roles",
    "contexts": "strategies",
    "passages": "strategies",
    "texts": "strategies",
}

__all__ = ["CompressorContract", "GeneratorContract", "RetrieverContract", "contexts", "passages", "texts"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'ragzip.testing' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ragzip.testing.{_WHERE[name]}"), name)
