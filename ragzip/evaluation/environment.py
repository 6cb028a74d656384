"""What a number depends on besides the config: versions, machine, commit."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ragzip.models.runtime import choose_device, choose_dtype, settle_threads

_PACKAGES = ("ragzip", "torch", "transformers", "tokenizers", "faiss-cpu", "bm25s", "numpy", "ir-measures")


def environment() -> dict[str, Any]:
    """Python, system, processor, memory, accelerator, threads, number format, versions, and a checkout's commit."""
    settle_threads()  # as the first model would: those that will be used are told
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": _threads(),
        "memory_gib": _memory(),
        "device": _device(),
        "computes": _computes(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
        "commit": _commit(),
    }


MACHINE = ("cpu", "cores", "threads", "device", "computes", "python", "versions")
"""What numbers depend on: a run does not go on where one of these is another."""


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first thing that numbers depend on and that changed, in words; "" where nothing did."""
    for key in MACHINE:
        if before.get(key) != now.get(key):
            return f"{key} was {before.get(key)!r:.120} and is {now.get(key)!r:.120}"
    return ""


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _computes() -> str:
    """The number format that ``dtype: auto`` is here."""
    return str(choose_dtype("auto", choose_device("auto"))).removeprefix("torch.")


def _commit() -> str:
    """The checkout's commit with ``+`` where files changed, or "" for an installed package."""
    root = Path(__file__).resolve().parents[2]
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return ""

    def ask(*arguments: str) -> str:
        command = [git, "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        return ask("rev-parse", "--short=12", "HEAD") + ("+" if ask("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.TimeoutExpired):
        return ""
