"""The Hugging Face hub: safetensors, JSON and tokenizer files only, and one clear line when it cannot be reached."""

from __future__ import annotations

import contextlib
import fnmatch
import importlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ragzip.errors import ModelError
from ragzip.models.cache import OnProgress, OnStatus, cache_dir
from ragzip.models.weights import looks_complete

_PATTERNS = ["*.safetensors", "*.json", "*.txt", "*.jinja", "tokenizer.model"]
_IGNORE = ["onnx/*", "openvino/*", "original/*", "consolidated*", "coreml/*"]
_SECONDS = 10.0
_unasked: set[str] = set()  # models of which the hub could not say, in this process, what belongs to them


def hub_cache() -> Path:
    """Where the hub's own library keeps what it fetched; shared with other programs."""
    for variable, below in (("HF_HUB_CACHE", ""), ("HF_HOME", "hub"), ("XDG_CACHE_HOME", "huggingface/hub")):
        value = os.environ.get(variable, "").strip()
        if value:
            return Path(value).expanduser() / below
    return Path.home() / ".cache" / "huggingface" / "hub"


def fetched(repo: str) -> Path | None:
    """The folder of a model that was fetched before, with whole weights, or None. Needs no network and no library."""
    name, _, revision = repo.partition("@")
    if ".." in revision.split("/") or revision.startswith("/"):
        return None
    folder = hub_cache() / f"models--{name.replace('/', '--')}"
    try:
        commit = (folder / "refs" / (revision or "main")).read_text("utf-8").strip()
    except (OSError, ValueError):
        commit = revision
    snapshot = folder / "snapshots" / commit
    return snapshot if commit and looks_complete(snapshot) else None


def download(repo: str, *, on_progress: OnProgress | None = None, on_status: OnStatus | None = None) -> Path:
    """Fetches a model, or finds it where it was fetched before.

    Args:
        repo: ``owner/name`` or ``owner/name@revision``.
        on_progress: Told bytes done and bytes in all, a few times a second.
        on_status: Told what is going on.

    Returns:
        Its folder in the hub's own cache.

    Raises:
        ModelError: No network, no such model, no access to it, or a model with pickled weights only.
    """
    known = fetched(repo)
    if known is not None and (_mark(repo, known).is_file() or repo in _unasked):
        return known
    import huggingface_hub

    hub_utils: Any = importlib.import_module("huggingface_hub.utils")

    class Silent(hub_utils.tqdm):  # type: ignore[misc]
        """The hub's bar, never drawn."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})

    name, _, revision = repo.partition("@")
    endpoint = os.environ.get("HF_ENDPOINT", "").strip() or None
    if on_status:
        on_status(f"asking the Hugging Face hub for {repo}")
    try:
        api = huggingface_hub.HfApi(endpoint=endpoint)
        info = api.model_info(name, revision=revision or None, timeout=_SECONDS, files_metadata=True)
        sizes = _wanted(repo, info.siblings or [])
        folder = hub_cache()
        blobs = folder / f"models--{name.replace('/', '--')}" / "blobs"
        if on_status:
            on_status(f"fetching {repo}, {sum(sizes.values()) / 1e6:.0f} MB")
        with watched(blobs, sum(sizes.values()), on_progress):
            path = huggingface_hub.snapshot_download(
                name,
                revision=revision or None,
                cache_dir=folder,
                endpoint=endpoint,
                allow_patterns=_PATTERNS,
                ignore_patterns=_IGNORE,
                etag_timeout=_SECONDS,
                tqdm_class=Silent,
            )
    except ModelError:
        raise
    except Exception as error:  # the hub's library raises errors of several libraries, by version
        if known is not None:
            _unasked.add(repo)
            if on_status:
                on_status(f"{repo} is taken as another program left it: the hub cannot be asked what belongs to it")
            return known
        raise _explain(repo, error) from error
    mark = _mark(repo, Path(path))
    with contextlib.suppress(OSError):  # without it the hub is asked again
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text("\n".join(sorted(sizes)), "utf-8")
    return Path(path)


def _mark(repo: str, snapshot: Path) -> Path:
    """The file that says that a snapshot has all that ragzip wants; other programs fetch what they want themselves."""
    name = repo.partition("@")[0].replace("/", "--")
    return cache_dir() / "hub" / f"{name}--{snapshot.name}"


def _wanted(repo: str, siblings: list[Any]) -> dict[str, int]:
    names = {str(s.rfilename): int(s.size or 0) for s in siblings}
    wanted = [name for name in names if _any(name, _PATTERNS) and not _any(name, _IGNORE)]
    if not any(n.endswith(".safetensors") and "/" not in n for n in wanted):
        raise ModelError(
            f"{repo!r} on the Hugging Face hub has no safetensors weights; pickled ones are not opened",
            hint="Choose a model, or a revision (owner/name@revision), with model.safetensors.",
        )
    return {name: names[name] for name in wanted}


def _any(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _explain(repo: str, error: Exception) -> ModelError:
    kind = type(error).__name__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if kind == "GatedRepoError" or status == 403:
        return ModelError(
            f"{repo!r} is behind a gate on the Hugging Face hub",
            hint="Ask for access on its page and log in with `hf auth login`.",
        )
    if kind in ("RepositoryNotFoundError", "RevisionNotFoundError") or status in (401, 404):
        return ModelError(
            f"{repo!r} is not on the Hugging Face hub, or is private",
            hint="Check its name; for a private one log in with `hf auth login`.",
        )
    if kind == "HFValidationError":
        return ModelError(f"{repo!r} is no model id", hint="An id has the form owner/name.")
    if kind == "OfflineModeIsEnabled":
        return ModelError("the Hugging Face hub is switched off by HF_HUB_OFFLINE", hint="Unset it to use the hub.")
    if isinstance(error, OSError) and getattr(error, "errno", None) == 28:
        return ModelError(f"no space left on the disk while fetching {repo!r}", hint="Make room and try again.")
    first = (str(error).strip().splitlines() or [kind])[0][:200]
    return ModelError(f"the Hugging Face hub cannot be reached ({kind}: {first})", hint="Check the network.")


@contextlib.contextmanager
def watched(folder: Path, total: int, on_progress: OnProgress | None) -> Iterator[None]:
    """Reports how many bytes arrived below a folder, four times a second, from a thread of its own.

    Watching the files works with every version of every downloader, whatever bar it would draw itself.
    """
    if on_progress is None:
        yield
        return
    before = size_of(folder)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.25):
            on_progress(min(max(size_of(folder) - before, 0), total), total)

    thread = threading.Thread(target=watch, daemon=True, name="ragzip-progress")
    on_progress(0, total)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    on_progress(total, total)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder, as far as they can be seen right now."""
    total = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(OSError):
                total += (Path(parent) / file).stat(follow_symlinks=False).st_size
    return total
