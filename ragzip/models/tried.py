"""What was tried once on this machine, so that all processes decide alike: the noise of one moment decides for none."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

from ragzip.models.cache import cache_dir

_MOST = 100_000  # bytes of the file; what is longer is none of ours
_VARY = ("processor", "cpu mhz", "bogomips", "apicid", "initial apicid", "core id", "physical id", "siblings", "power")


def tried(what: str, measure: Callable[[], float]) -> float:
    """A number that was measured here before, with the same torch and as many threads; else measured now and kept.

    Where the cache cannot be written it is measured by every process.

    Args:
        what: Its name.
        measure: Gives it, above 0.
    """
    path, key = cache_dir() / "tried.json", f"{what} {_machine()}"
    value = _read(path).get(key)
    if isinstance(value, float) and math.isfinite(value) and value > 0:
        return value
    value = measure()
    with contextlib.suppress(OSError):
        _write(path, {**_read(path), key: value})
    return value


def _machine() -> str:
    """The same for processors of one make, with one torch and as many threads."""
    import torch

    told = [platform.machine(), platform.processor(), torch.__version__, str(torch.get_num_threads())]
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text("utf-8", "replace").partition("\n\n")[0]
        told += [line for line in first.splitlines() if not line.lower().startswith(_VARY)]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, object]:
    try:
        if path.stat().st_size > _MOST:
            return {}
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, found: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tried-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(found, file)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
