"""Model names -> folders on this machine.

A name is looked for in this order: a local folder, the weights that come with ragzip, the cache, an installed model
package, the Hugging Face hub.
Nothing heavy is imported on the way unless a GGUF file must be converted or the hub asked.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from pathlib import Path
from typing import Any, Literal

from ragzip.errors import ModelError
from ragzip.models import catalogue, hub, layers, shipped
from ragzip.models.cache import OnStatus, cache_dir, digest_memory, install, model_folder, trouble
from ragzip.models.catalogue import ModelSpec
from ragzip.models.digests import digest
from ragzip.models.weights import is_adapter
from ragzip.registry import suggest

Place = Literal["local", "cache", "package", ""]
_CONVERSION_BYTES = 2.9  # a folder in bfloat16 for each byte of 4-bit GGUF, with some room


def resolve(name: str, *, on_status: OnStatus | None = None) -> Path:
    """The folder of a model, in the layout of ``transformers``; made or fetched where it has to be.

    Args:
        name: A local folder, a built-in model's name, the name of weights that come with ragzip, or an id on the
            Hugging Face hub (``owner/name``, with ``@revision`` if need be).
        on_status: Told what is going on where it takes more than a moment.

    Raises:
        ModelError: It is not to be had; the message says where it was looked for, and the hint how to get it.
    """
    local = _local(name)
    if local is not None:
        return local
    weights = shipped.find(name)
    if weights is not None:
        return shipped.checked_folder(weights)
    spec = catalogue.find(name)
    if spec is None:
        return _from_hub(name, on_status)
    why = trouble(spec)
    if not why:
        return model_folder(spec.name)
    source = package_path(spec)
    if source is not None:
        return from_package(spec, source, on_status=on_status)
    return _from_hub_for(spec, why, on_status)


def status(name: str) -> Place:
    """Where a model is now: "local" (a folder), "cache", "package" (installed), or "" where it is not here.

    The package of the trained weights is ragzip itself. Quick, and changes nothing: no download, no conversion, no
    heavy import.
    """
    try:
        if _local(name) is not None:
            return "local"
    except ModelError:
        return ""
    weights = shipped.find(name)
    if weights is not None:
        return "package" if weights.here else ""
    spec = catalogue.find(name)
    if spec is None:
        return "cache" if "/" in name and hub.fetched(name) else ""
    if not trouble(spec):
        return "cache"
    if package_path(spec) is not None:
        return "package"
    return "cache" if hub.fetched(spec.hub) else ""


def canonical(name: str) -> str:
    """One spelling for each model: its absolute path where it is a local folder, else the name itself.

    Two names with the same canonical spelling are the same model; soft segments are compared by it. Loads nothing.
    """
    whole, depth = layers.split(name)
    path = as_path(whole)
    if path is not None and (_path_like(whole) or (path / "config.json").is_file() or is_adapter(path)):
        return layers.joined(str(path.resolve()), depth)
    return name


def package_path(spec: ModelSpec) -> Path | None:
    """The model inside its installed package, or None. The package is found, never imported."""
    try:
        found = importlib.util.find_spec(spec.package)
    except (ImportError, ValueError):
        return None
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / spec.path
        if path.exists():
            return path
    return None


def from_package(
    spec: ModelSpec, source: Path, *, on_status: OnStatus | None = None, origin: str | None = None
) -> Path:
    """A usable folder from the model inside a package: the folder itself, or the cached conversion of a GGUF file.

    Args:
        spec: Which model.
        source: The folder or GGUF file.
        on_status: Told what is going on.
        origin: What to record as the source; None asks the installed package for its version.
    """
    weights = source if spec.is_gguf else source / Path(spec.weights).relative_to(spec.path)
    check(spec, weights)
    if not spec.is_gguf:
        return source

    def fill(folder: Path) -> dict[str, Any]:
        from ragzip.models.convert import convert

        if on_status:
            on_status(f"converting {spec.name} once, some seconds")
        convert(source, folder)
        return {"source": origin or _version(spec), "file": spec.weights}

    return install(spec, fill, needed_bytes=int(source.stat().st_size * _CONVERSION_BYTES), on_status=on_status)


def check(spec: ModelSpec, weights: Path) -> None:
    """Compares a weight file with the checksum that stands in the catalogue.

    Raises:
        ModelError: It is another file, or cannot be read.
    """
    try:
        found = digest(weights, digest_memory())
    except OSError as error:
        raise ModelError(
            f"{weights} cannot be read: {error.strerror or error}", hint=f"Reinstall it: {spec.install_command}"
        ) from error
    if found != spec.sha256:
        raise ModelError(
            f"{weights} is not the file that {spec.name!r} is known by (its checksum differs)",
            hint=f"Another version or a damaged file; reinstall it: {spec.install_command}",
        )


def _version(spec: ModelSpec) -> str:
    distribution = spec.requirement.partition("==")[0]
    try:
        return f"{distribution}=={importlib.metadata.version(distribution)}"
    except importlib.metadata.PackageNotFoundError:
        return distribution


def _path_like(name: str) -> bool:
    return (
        name.startswith(("/", "./", "../", "~", ".\\", "..\\"))
        or name in (".", "..")
        or Path(name).is_absolute()
        or name.partition("@")[0].count("/") > 1  # a revision has some, too: owner/name@refs/pr/1
        or (os.sep != "/" and os.sep in name)
    )


def as_path(name: str) -> Path | None:
    """The name as a path; None where it can be none: too long, or of a user that is not here."""
    try:
        path = Path(name).expanduser()
        path.is_file()
    except (OSError, RuntimeError, ValueError):
        return None
    return path


def _local(name: str) -> Path | None:
    if not name.strip() or "\0" in name:
        raise ModelError(f"{name!r} is no model name", hint=_known())
    path = as_path(name)
    if path is None:
        raise ModelError(f"{name!r:.60} is no path, and no model name", hint=_known())
    if (path / "config.json").is_file() or is_adapter(path):
        return path.absolute()
    if not _path_like(name):
        return None
    if path.suffix == ".gguf" and path.is_file():
        raise ModelError(f"{name} is a GGUF file", hint="Give a folder with config.json and model.safetensors.")
    what = "has no config.json" if path.is_dir() else "is no folder" if path.exists() else "does not exist"
    raise ModelError(f"model folder {name} {what}", hint=f"Give the folder with the model's files. {_known()}")


def _known() -> str:
    return f"Built-in models: {', '.join(_names())}."


def _names() -> list[str]:
    return [*catalogue.CATALOGUE, *shipped.SHIPPED]


def _from_hub(name: str, on_status: OnStatus | None) -> Path:
    if "/" not in name:
        raise ModelError(
            f"unknown model {name!r}",
            hint=f"{suggest(name, _names())} Or give a folder, or a hub id as owner/name.",
        )
    try:
        return hub.download(name, on_status=on_status)
    except ModelError as error:
        raise ModelError(
            f"model {name!r} is not here: {error.message}",
            hint=f"{error.hint} Or give the path of a folder with its files. {_known()}",
        ) from error


def _from_hub_for(spec: ModelSpec, why: str, on_status: OnStatus | None) -> Path:
    try:
        return hub.download(spec.hub, on_status=on_status)
    except ModelError as error:
        package = spec.requirement.partition("==")[0]
        cached = f"not in the cache ({cache_dir()})" if why == "not in the cache" else f"damaged in the cache ({why})"
        raise ModelError(
            f"model {spec.name!r} is not here: {cached}, package {package} not installed, and {error.message}",
            hint=(
                f"Three ways out: `ragzip models fetch {spec.name}` (or `{spec.install_command}`); "
                f"the path of a local folder with its files; "
                f"or a network connection, to get {spec.hub} from the Hugging Face hub."
            ),
        ) from error
