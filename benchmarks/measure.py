"""Helpers: what machine this is, medians and ratios, and stopwatches around the models."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

from ragzip.models.runtime import choose_device, choose_dtype


def environment() -> dict[str, Any]:
    """Versions and hardware that a number depends on."""
    names = ("ragzip", "torch", "transformers", "faiss-cpu", "bm25s", "numpy", "tokenizers")
    model = next((x.split(":")[1].strip() for x in _cpuinfo() if x.startswith("model name")), platform.machine())
    return {
        "python": platform.python_version(),
        "cpu": model,
        "cores": os.cpu_count(),
        "computes": str(choose_dtype("auto", choose_device("auto"))).removeprefix("torch."),
        **{name: metadata.version(name) for name in names},
    }


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def median(values: list[float]) -> float:
    return statistics.median(values)


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@dataclass
class Stopwatch:
    """Seconds spent inside the watched calls; nested ones count once."""

    total: float = 0.0
    depth: int = 0


@contextmanager
def watching(*targets: tuple[Any, str]) -> Iterator[Stopwatch]:
    """Times every call of ``(owner, method name)``; the owners get their methods back."""
    watch = Stopwatch()

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            watch.depth += 1
            start = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                watch.depth -= 1
                if watch.depth == 0:
                    watch.total += time.perf_counter() - start

        return timed

    patches = [mock.patch.object(owner, name, wrap(getattr(owner, name))) for owner, name in targets]
    for patch in patches:
        patch.start()
    try:
        yield watch
    finally:
        for patch in patches:
            patch.stop()
