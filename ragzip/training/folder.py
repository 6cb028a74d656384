"""The folder that is trained into: one training, one config, one process, and it goes on where it stopped."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock

from ragzip import registry, yaml_io
from ragzip.errors import ConfigError, RagzipError, StoreDamaged, StoreError, StoreMismatch, UsageError
from ragzip.indexes.files import new_file
from ragzip.models.runtime import auto_is
from ragzip.training.card import check_card
from ragzip.training.loop import computed_in
from ragzip.training.options import CHECKPOINTS, OnEvent, Trainer, TrainingEvent, TrainingReport, trainer_config
from ragzip.training.ranks import Ranks, joined, launched

CONFIG, REPORT, LOCK, HISTORY = "training.yaml", "report.json", ".lock", "history.jsonl"
_READ = ("start", "base", "encoder", "judge", "model", "teacher", "generator", "corpus")
_RESULT = ("config.json", "adapter_config.json", "README.md")
_BEGUN = frozenset((LOCK, CONFIG + ".tmp"))  # what a training leaves that was stopped before its config was there
_ANEW = "Give another --out, or start afresh with --restart."


def train_into(
    out: str | Path,
    trainer: Trainer,
    *,
    data: Path | None = None,
    restart: bool = False,
    on_event: OnEvent | None = None,
) -> TrainingReport:
    """Trains into a folder, or goes on there, and checks the weights against their card.

    ``training.yaml`` holds the config, ``history.jsonl`` has a line for every evaluation, ``report.json`` appears at
    the end; where it is there already, nothing is trained.

    Args:
        out: Made if it is not there.
        trainer: What to train.
        data: Folder of the named sets; None looks where evaluation looks.
        restart: Forget what the folder holds of a training, this one or another.
        on_event: Told what is going on.

    Returns:
        What came out.

    Raises:
        UsageError: The folder holds something else than a training.
        StoreMismatch: It holds a training with another config; says which option differs.
        StoreError: Another process trains into it.
        UsageError: Several processes were launched, and the method trains in one.
        ModelError: The weights are not those of their card, or a model is not there.
    """
    folder = Path(out)
    if launched() > 1 and not getattr(trainer, "shared", False):
        raise UsageError(f"{registry.name_of(trainer)} trains in one process", hint="Start it without a launcher.")
    for option in _READ:  # before a restart forgets what is there
        name = getattr(trainer, option, None)
        if isinstance(name, str) and name and Path(name).expanduser().resolve() == folder.expanduser().resolve():
            what = "the weights to go on from" if option == "start" else f"what the training reads as {option}"
            raise UsageError(f"{folder} holds {what}", hint="Give another --out.")
    with (
        joined(str(getattr(trainer, "device", "auto"))) as group,
        _opened_by(group, folder, trainer_config(trainer), restart),
    ):
        report = read_report(folder)
        if report is None:
            # `auto` is tried anew in every process: a run goes on in the format it began in
            begun = computed_in(folder) if not restart and getattr(trainer, "dtype", "") == "auto" else ""
            told = _noting(folder, on_event) if group.first else None
            with auto_is(begun):
                report = trainer.run(folder, data=data, resume=not restart, on_event=told)
            if group.first:
                check_card(report.folder)
                _write(folder / REPORT, json.dumps(report_values(report, folder), indent=1, allow_nan=False) + "\n")
            group.same("done")
        else:
            check_card(report.folder)
    return report


def _noting(folder: Path, on_event: OnEvent | None) -> OnEvent:
    """Passes events on, and writes evaluations down: the curve of the training."""

    def heard(event: TrainingEvent) -> None:
        if event.kind == "eval":
            metrics = {key: value for key, value in event.metrics.items() if math.isfinite(value)}
            with (folder / HISTORY).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": event.step, **metrics}) + "\n")
        if on_event:
            on_event(event)

    return heard


def read_report(out: str | Path) -> TrainingReport | None:
    """The report of the finished training in a folder, or None where there is none.

    Raises:
        StoreDamaged: It cannot be read.
    """
    path = Path(out) / REPORT
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        metrics = {str(key): float("nan" if value is None else value) for key, value in values["metrics"].items()}
        steps, seconds = int(values["steps"]), float(values["seconds"])
        return TrainingReport(Path(out) / str(values["folder"]), steps, seconds, metrics, str(values["stopped"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreDamaged(f"{path} cannot be read: {error}", hint=_ANEW) from error


def report_values(report: TrainingReport, out: Path) -> dict[str, Any]:
    """A report as plain values; its folder relative to ``out`` where it lies in there."""
    inside = report.folder.is_relative_to(out)
    return {
        "folder": (report.folder.relative_to(out) if inside else report.folder.absolute()).as_posix(),
        "steps": report.steps,
        "seconds": round(report.seconds, 3),
        "metrics": {key: value if math.isfinite(value) else None for key, value in report.metrics.items()},
        "stopped": report.stopped,
    }


@contextmanager
def _opened_by(group: Ranks, folder: Path, config: Mapping[str, Any], restart: bool) -> Iterator[None]:
    """The folder, opened by the first of the processes that train together; the others wait for it."""
    if group.first:
        held = ExitStack()
        try:
            held.enter_context(_opened(folder, config, restart))
        except RagzipError as error:
            group.same(str(error))
            raise
        with held:
            group.same("")
            yield
        return
    problem: str = group.same(None)
    if problem:
        raise UsageError(problem, hint="See what the first process says.")
    yield


@contextmanager
def _opened(folder: Path, config: Mapping[str, Any], restart: bool) -> Iterator[None]:
    """The folder, locked, with this config in it and, after a restart, nothing of an earlier training."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is no folder", hint="Give --out a folder of its own.")
    if folder.exists() and not _ours(folder) and any(p.name not in _BEGUN for p in folder.iterdir()):
        raise UsageError(f"{folder} holds something else than a training", hint="Give --out a folder of its own.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be made: {error.strerror or error}", hint="Give --out a folder that can be made."
        ) from error
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise StoreError(
            f"{folder}: another process is training into it", hint="Wait for it, or give another --out."
        ) from error
    try:
        if restart:
            _forget(folder, config)
        anew = restart or not (folder / CONFIG).is_file()
        if anew:
            _write(folder / CONFIG, yaml_io.dump(dict(config)))
        else:
            _same(folder, config)
        try:
            yield
        except BaseException:
            with suppress(OSError):
                if anew and {path.name for path in folder.iterdir()} <= {LOCK, CONFIG}:
                    (folder / CONFIG).unlink()  # nothing was trained: another config may begin here
            raise
    finally:
        lock.release()


def _ours(folder: Path) -> bool:
    """Whether a training was begun in a folder: a file with the name of its config can be the user's own."""
    begun = any((folder / name).is_file() for name in (LOCK, REPORT, HISTORY)) or any(folder.glob(CHECKPOINTS))
    return (folder / CONFIG).is_file() and begun


def _forget(folder: Path, config: Mapping[str, Any]) -> None:
    """Removes what an earlier training would be taken up from, under whatever config; its weights are written over.

    Those of another method are removed, as their files can have other names and would outlive it.
    """
    if _method(folder) not in ("", config.get("type")):
        for path in (*folder.glob("*.safetensors"), *(folder / name for name in _RESULT)):
            path.unlink(missing_ok=True)
    (folder / REPORT).unlink(missing_ok=True)
    (folder / HISTORY).unlink(missing_ok=True)
    for path in folder.glob(CHECKPOINTS):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _method(folder: Path) -> str:
    """The method of the training that a folder holds, "" where it cannot be told."""
    try:
        present, _ = yaml_io.parse((folder / CONFIG).read_text(encoding="utf-8"), source=str(folder / CONFIG))
    except (OSError, ConfigError, UnicodeDecodeError):
        return ""
    return str(present.get("type", "")) if isinstance(present, dict) else ""


def _same(folder: Path, config: Mapping[str, Any]) -> None:
    """Whether the folder's training is this one."""
    path = folder / CONFIG
    try:
        present, _ = yaml_io.parse(path.read_text(encoding="utf-8"), source=str(path))
    except (ConfigError, UnicodeDecodeError) as error:
        raise StoreDamaged(f"{path} cannot be read: {error}", hint=_ANEW) from error
    if not isinstance(present, dict):
        raise StoreDamaged(f"{path} is no config of a training", hint=_ANEW)
    wanted = yaml_io.parse(yaml_io.dump(dict(config)))[0]
    for key in dict.fromkeys((*wanted, *present)):
        if wanted.get(key) != present.get(key):
            there, here = (repr(values[key]) if key in values else "not set" for values in (present, wanted))
            raise StoreMismatch(
                f"{folder}: was begun with another config: {key} is {there:.60} there and {here:.60} here", hint=_ANEW
            )


def _write(path: Path, text: str) -> None:
    with new_file(path) as file:
        file.write(text.encode())
