"""The cache folder: models made here are whole or not there at all.

``<cache>/models/<name>`` is a folder in the layout of ``transformers`` with a ``ragzip.json`` beside the weights that
records where they came from and the size and checksum of every file. A folder is filled under a temporary name and
renamed when it is complete, under a lock, so that neither a killed process nor two at once leave half a model behind.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

from ragzip.errors import ModelError
from ragzip.models.catalogue import ModelSpec
from ragzip.models.digests import digest, remember

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}

FORMAT = 1
RECORD = "ragzip.json"
LOCK_SECONDS = 900.0

OnStatus = Callable[[str], None]
OnProgress = Callable[[int, int], None]


def cache_dir() -> Path:
    """``RAGZIP_CACHE``, else the platform's cache folder for ragzip."""
    chosen = os.environ.get("RAGZIP_CACHE", "").strip()
    folder = Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("ragzip", appauthor=False))
    return folder.absolute()


def digest_memory() -> Path:
    """Where file checksums are remembered between processes."""
    return cache_dir() / "digests.json"


def model_folder(name: str) -> Path:
    """Where a built-in model lies in the cache, whether or not it is there."""
    return cache_dir() / "models" / name


def trouble(spec: ModelSpec) -> str:
    """Why the cached folder of a model cannot be used, or "" where it can.

    Sizes are compared at every call. Contents are compared with the recorded checksums whenever a file's size or
    time of change is not one that was checked before.
    """
    folder = model_folder(spec.name)
    if not folder.is_dir():
        return "not in the cache"
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
        files = record["files"]
        if record["format"] != FORMAT or record["source_sha256"] != spec.sha256:
            return "made by another version of ragzip or from another source"
        for name, want in files.items():
            path = folder / name
            if path.stat().st_size != want["bytes"]:
                return f"{name} has {path.stat().st_size} bytes, not {want['bytes']}"
            if digest(path, digest_memory()) != want["sha256"]:
                return f"{name} does not match its checksum"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{RECORD} or a file it names cannot be read ({type(error).__name__})"
    return ""


def install(
    spec: ModelSpec,
    fill: Callable[[Path], dict[str, Any]],
    *,
    needed_bytes: int,
    on_status: OnStatus | None = None,
) -> Path:
    """Puts a model into the cache, once, whole, even when several processes ask at the same time.

    Args:
        spec: Which.
        fill: Writes the model's files into the empty folder it is given, and returns what to record of their source.
        needed_bytes: Disk space that filling takes at its peak.
        on_status: Told in a few words what is going on.

    Returns:
        The folder.

    Raises:
        ModelError: The cache cannot be written, the disk is full, or another process holds the lock for 15 minutes.
    """
    folder = model_folder(spec.name)
    with _told(folder), _locked(spec.name, on_status):
        if not trouble(spec):
            return folder  # another process made it while this one waited
        _sweep(folder)
        free = shutil.disk_usage(folder.parent).free
        if free < needed_bytes:
            raise _full(needed_bytes, free)
        temp = folder.with_name(f".tmp-{spec.name}-{os.getpid()}-{secrets.token_hex(4)}")
        try:
            temp.mkdir()
            source = fill(temp)
            _record(temp, spec, source)
            _swap(temp, folder)
        finally:
            shutil.rmtree(temp, ignore_errors=True)
        for name, want in json.loads((folder / RECORD).read_text("utf-8"))["files"].items():
            remember(folder / name, want["sha256"], digest_memory())
    return folder


def _record(folder: Path, spec: ModelSpec, source: dict[str, Any]) -> None:
    """Writes ``ragzip.json`` last, with everything before it safely on the disk."""
    import hashlib

    files: dict[str, dict[str, Any]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": checksum}
    record = {"format": FORMAT, "model": spec.name, **source, "source_sha256": spec.sha256, "files": files}
    with (folder / RECORD).open("w", encoding="utf-8") as file_out:
        json.dump(record, file_out, indent=2)
        file_out.flush()
        os.fsync(file_out.fileno())


def _swap(temp: Path, folder: Path) -> None:
    """Renames ``temp`` to ``folder``; a damaged folder of that name goes first. Killed in between, none is there."""
    if folder.exists():
        old = folder.with_name(f".tmp-{folder.name}-old-{secrets.token_hex(4)}")
        folder.rename(old)
        shutil.rmtree(old, ignore_errors=True)
    temp.rename(folder)


def _sweep(folder: Path) -> None:
    """Removes what killed processes left. The lock is held, so nothing that is swept is in use."""
    for leftover in folder.parent.glob(f".tmp-{folder.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def _locked(name: str, on_status: OnStatus | None) -> Iterator[None]:
    folder = cache_dir()
    (folder / "models").mkdir(parents=True, exist_ok=True)
    (folder / "locks").mkdir(exist_ok=True)
    lock = FileLock(folder / "locks" / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if on_status:
            on_status(f"waiting for another process that is preparing {name}")
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise ModelError(
                f"another process has been preparing {name!r} for more than {LOCK_SECONDS / 60:.0f} minutes",
                hint=f"Stop it, or remove {lock.lock_file}.",
            ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Turns failures of the disk into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _full(0, 0) from error
        raise ModelError(
            f"the cache folder {folder.parent.parent} cannot be written: {error.strerror or error}",
            hint="Set RAGZIP_CACHE to a folder that can be.",
        ) from error
    except Exception as error:
        if _is_full(error):
            raise _full(0, 0) from error
        raise


def _is_full(error: Exception) -> bool:
    """Whether a library's own kind of error says that the disk is full: tokenizers passes on only the number."""
    return any(f"os error {number})" in str(error) for number in _FULL)


def _full(needed: int, free: int) -> ModelError:
    sizes = f": {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free" if needed else ""
    return ModelError(
        f"no space left in the cache folder {cache_dir()}{sizes}",
        hint="Make room, or set RAGZIP_CACHE to a folder on another disk. Nothing half-written was kept.",
    )
