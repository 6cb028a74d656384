"""``model#layers=4``: an encoder that stops after so many of its layers.

Matryoshka in depth (2D Matryoshka Sentence Embeddings, arXiv 2402.14776): a model trained for it gives vectors that are
nearly as good from its first layers, in proportionally less time; one that was not trained for it loses more.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ragzip.errors import ModelError

_NAME = re.compile(r"(.+)#layers=([0-9]+)")


def split(name: str) -> tuple[str, int | None]:
    """A model's name and how many of its layers are wanted, None for all.

    Raises:
        ModelError: A ``#`` that says no layers.
    """
    found = _NAME.fullmatch(name)
    if found is not None:
        return found.group(1), int(found.group(2))
    if "#layers" in name:
        raise ModelError(f"{name!r}: says no layers.", hint="As in all-minilm-l6-v2#layers=4.")
    return name, None


def joined(name: str, layers: int | None) -> str:
    """The other way round."""
    return name if layers is None else f"{name}#layers={layers}"


def fingerprint_of(whole: str, layers: int | None) -> str:
    """A fingerprint that differs from the whole model's."""
    return whole if layers is None else hashlib.sha256(f"{whole} {layers}".encode()).hexdigest()


def keep(model: Any, layers: int, name: str) -> None:
    """Drops the layers of a ``transformers`` model that come after the first so many.

    Raises:
        ModelError: It has fewer, or none that could be told apart.
    """
    stack = _stack(model, layers, name)
    del stack[layers:]
    model.config.num_hidden_layers = layers


@contextmanager
def first_layers(model: Any, layers: int, name: str = "the model") -> Iterator[None]:
    """Within it a ``transformers`` model stops after so many of its layers; 0, or as many as it has, for all.

    Raises:
        ModelError: It has fewer, or none that could be told apart.
    """
    count = getattr(model.config, "num_hidden_layers", 0)
    if layers in (0, count):
        yield
        return
    stack = _stack(model, layers, name)
    whole = dict(stack._modules)
    try:
        del stack[layers:]
        model.config.num_hidden_layers = layers
        yield
    finally:
        stack._modules.clear()
        stack._modules.update(whole)
        model.config.num_hidden_layers = count


def _stack(model: Any, layers: int, name: str) -> Any:
    """The module list of a model's layers."""
    import torch

    count = getattr(model.config, "num_hidden_layers", 0)
    stacks = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count > 0]
    if len(stacks) != 1:
        raise ModelError(f"{name}: its layers cannot be told apart.", hint="Use it with all of them.")
    if not 1 <= layers <= count:
        raise ModelError(f"{name}: the model has {count} layers.", hint=f"Say 1 to {count}.")
    return stacks[0]
