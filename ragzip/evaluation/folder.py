"""The run folder: everything about a run, written so that a kill at any moment costs one question.

``config.yaml`` and ``environment.json`` are written first, then one block of lines a question in ``questions.jsonl``
and ``records.jsonl``, and at the end ``metrics.json``, ``summary.json`` and ``report.html``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock

from ragzip import yaml_io
from ragzip.errors import RagzipError, StoreDamaged, StoreError, StoreMismatch, UsageError
from ragzip.evaluation.environment import difference

FORMAT = 1
_MOST_CONFIG = 50_000_000  # characters: two hundred pipelines with baselines of their own
CONFIG, ENVIRONMENT, QUESTIONS, RECORDS = "config.yaml", "environment.json", "questions.jsonl", "records.jsonl"
METRICS, SUMMARY, REPORT, LOCK = "metrics.json", "summary.json", "report.html", ".lock"
# What a run leaves that was stopped before its config was there.
_BEGUN = frozenset((LOCK, ENVIRONMENT, *(name + ".tmp" for name in (CONFIG, ENVIRONMENT))))


@dataclass(frozen=True)
class Run:
    """A finished or unfinished run, read from its folder.

    Attributes:
        path: The folder.
        config: What was run: data, rows with every option, metrics, seed.
        environment: Where it was run.
    """

    path: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    _rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict, repr=False)
    _read: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    @staticmethod
    def load(path: str | Path) -> Run:
        """The run in a folder.

        Raises:
            UsageError: There is none.
            StoreMismatch: A run of another format version.
            StoreDamaged: Files that cannot be read as what they should be.
        """
        folder = Path(path)
        config = read_config(folder)
        if config is None:
            raise UsageError(f"{folder}: no run is there", hint="Give the folder that --out of 'ragzip eval' named.")
        return Run(folder, config, _read_json(folder / ENVIRONMENT))

    @property
    def names(self) -> list[str]:
        """The rows, in order."""
        return list(self.config["rows"])

    @property
    def finished(self) -> bool:
        """Whether the metrics of the whole run are there."""
        return (self.path / METRICS).exists() and (self.path / SUMMARY).exists()

    @property
    def metrics(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Row -> metric -> mean, low, high, n."""
        return self._once(METRICS)

    @property
    def summary(self) -> dict[str, Any]:
        """Comparisons with the baseline, break-even, fronts."""
        return self._once(SUMMARY)

    @property
    def questions(self) -> dict[str, dict[str, Any]]:
        """Record id -> question, answers, labels and passages."""
        if QUESTIONS not in self._read:
            self._read[QUESTIONS] = {line["id"]: line for line in _lines(self.path / QUESTIONS)}
        return self._read[QUESTIONS]

    def _once(self, name: str) -> dict[str, Any]:
        if name not in self._read:
            self._read[name] = _read_json(self.path / name)
        return self._read[name]

    def rows(self, name: str) -> list[dict[str, Any]]:
        """One line a record of a row, in the set's order."""
        if not self._rows:
            self._rows.update({row: [] for row in self.names})
            for number, line in enumerate(_lines(self.path / RECORDS), 1):
                sound = isinstance(line.get("steps"), list) and "id" in line and _numbers(line.get("metrics"))
                if line.get("pipeline") not in self._rows or not sound:
                    raise StoreDamaged(
                        f"{self.path / RECORDS}:{number}: no record of a row of this run",
                        hint="Run it again into a new folder.",
                    )
                self._rows[line["pipeline"]].append(line)
            self._require_all()
        return self._rows[name]

    def _require_all(self) -> None:
        wanted = self.config["data"]["records"]
        if self.finished and any(len(lines) != wanted for lines in self._rows.values()):
            raise StoreDamaged(
                f"{self.path / RECORDS}: not {wanted} records for every row", hint="Run it again into a new folder."
            )

    def values(self, name: str, metric: str) -> dict[str, float]:
        """Record id -> value, where there is one."""
        found = ((line["id"], line["metrics"].get(metric)) for line in self.rows(name))
        return {key: float(value) for key, value in found if value is not None}


def _numbers(metrics: Any) -> bool:
    return isinstance(metrics, dict) and all(
        value is None or isinstance(value, int | float) for value in metrics.values()
    )


class Writer:
    """Appends to a run folder; see ``opened``."""

    def __init__(self, folder: Path, done: list[str]) -> None:
        self.folder = folder
        self.done = done

    def add(self, question: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> None:
        """Writes one question's lines, all of them or none, and makes sure they are on the disk."""
        _append(self.folder / QUESTIONS, [question])
        _append(self.folder / RECORDS, lines)
        self.done.append(str(question["id"]))

    def finish(self, name: str, value: Any) -> None:
        """Writes ``metrics.json`` or ``summary.json`` whole."""
        write_json(self.folder / name, value)


@contextmanager
def opened(folder: Path, config: Mapping[str, Any], environment: Mapping[str, Any]) -> Iterator[Writer]:
    """A run folder to write to: new, or one whose run was interrupted.

    Args:
        folder: Made if it is not there.
        config: Of the run; a folder with another one is refused.
        environment: Of this machine, now.

    Raises:
        StoreMismatch: The folder holds another run.
        StoreError: Another process writes to it.
        UsageError: The folder holds something else, or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is no folder", hint="Give --out a folder of its own.")
    present = read_config(folder)
    if present is None and folder.exists() and any(path.name not in _BEGUN for path in folder.iterdir()):
        raise UsageError(f"{folder} holds something else than a run", hint="Give --out a folder of its own.")
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
            f"{folder}: another process is writing this run", hint="Wait for it, or give another --out."
        ) from error
    try:
        present = read_config(folder)
        if present is None:
            write_json(folder / ENVIRONMENT, environment)
            _write(folder / CONFIG, yaml_io.dump(dict(config)))
        else:
            _same(folder, present, config, environment)
        done = _recover(folder, list(config["rows"]))
        if (folder / METRICS).exists() and len(done) < config["data"]["records"]:
            raise StoreDamaged(
                f"{folder}: has {len(done)} of the {config['data']['records']} questions that it was finished with",
                hint="Run it again into a new folder.",
            )
        yield Writer(folder, done)
    finally:
        lock.release()


def read_config(folder: Path) -> dict[str, Any] | None:
    """The config of the run in a folder, or None where no run is."""
    path = folder / CONFIG
    if not path.is_file():
        return None
    try:
        values, _ = yaml_io.parse(path.read_text(encoding="utf-8"), source=str(path), most=_MOST_CONFIG)
    except (RagzipError, UnicodeDecodeError) as error:
        raise StoreDamaged(f"{path}: {error}", hint="Run it again into a new folder.") from error
    if not isinstance(values, dict) or "ragzip_run" not in values:
        return None
    version = values["ragzip_run"]
    if version != FORMAT:
        raise StoreMismatch(
            f"{folder}: a run of format {version!r}; this ragzip reads {FORMAT}",
            hint="Use the ragzip that made it, or run it again into a new folder.",
        )
    if not _sound(values):
        raise StoreDamaged(f"{path}: is no config of a run", hint="Run it again into a new folder.")
    return values


def _sound(config: Mapping[str, Any]) -> bool:
    """Whether a config has what is read of it."""
    rows, data, metrics = (config.get(key) for key in ("rows", "data", "metrics"))
    return (
        isinstance(rows, dict)
        and all(isinstance(row, dict) for row in rows.values())
        and isinstance(data, dict)
        and isinstance(data.get("records"), int)
        and isinstance(metrics, list)
        and all(isinstance(name, str) for name in metrics)
    )


def write_json(path: Path, value: Any) -> None:
    """A JSON file that appears whole or not at all."""
    _write(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _same(folder: Path, present: Mapping[str, Any], config: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
    """Whether the folder's run is this one, on this kind of machine."""
    wanted = yaml_io.parse(yaml_io.dump(dict(config)), most=_MOST_CONFIG)[0]
    known = [_common(wanted, present), _common(present, wanted)]  # an earlier ragzip may have looked at less
    for key in dict.fromkeys((*wanted, *present)):
        if (known[0] != known[1]) if key == "identities" else (_told(wanted, key) != _told(present, key)):
            detail = _difference(present.get(key), wanted.get(key), key)
            raise StoreMismatch(
                f"{folder}: holds another run: {detail}",
                hint="Give another --out; only the same command goes on where it stopped.",
            )
    if list(wanted["rows"]) != list(present["rows"]):
        raise StoreMismatch(
            f"{folder}: holds the same pipelines in another order",
            hint=f"Give them as there ({', '.join(list(present['rows'])[:3])}, ...), or another --out.",
        )
    before = _read_json(folder / ENVIRONMENT)
    changed = difference(before, environment)
    if changed:
        raise StoreMismatch(
            f"{folder}: was begun on another machine or with other versions: {changed}",
            hint="Such numbers do not mix: run it again into a new folder.",
        )
    commits = before.get("commits", [before.get("commit", "")])
    if environment.get("commit", "") not in commits:  # another state of the code is written down, not hidden
        write_json(folder / ENVIRONMENT, {**before, "commits": [*commits, environment.get("commit", "")]})


def _told(config: Mapping[str, Any], key: str) -> Any:
    """What a config says; of a set not where it was read, as its checksum says what it is."""
    value = config.get(key)
    if key == "data" and isinstance(value, Mapping) and value.get("sha256"):
        return {name: part for name, part in value.items() if name != "source"}
    return value


def _common(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The identities of what both of two configs know."""
    return {name: value for name, value in one.get("identities", {}).items() if name in other.get("identities", {})}


def _difference(old: Any, new: Any, path: str) -> str:
    """The first place where two configs differ, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            if old.get(key) != new.get(key):
                if key not in old or key not in new:
                    return f"{path}.{key} is {'there and not here' if key in old else 'here and not there'}"
                return _difference(old.get(key), new.get(key), f"{path}.{key}")
    return f"{path} is {_short(old)} there and {_short(new)} here"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _recover(folder: Path, names: list[str]) -> list[str]:
    """Cuts off what a kill left half-written; gives the ids of the questions that are complete, in order."""
    complete: list[str] = []
    questions = _whole_lines(folder / QUESTIONS)
    ends = (0, 0)
    block: list[tuple[str, str]] = []
    for line, stop in _whole_lines(folder / RECORDS):
        block.append((str(line.get("pipeline")), str(line.get("id"))))
        if len(block) < len(names):
            continue
        question, question_stop = next(questions, (None, 0))
        if question is None:
            break
        if [name for name, _ in block] != names or {key for _, key in block} != {str(question.get("id"))}:
            raise StoreDamaged(f"{folder / RECORDS}: lines out of order", hint="Run it again into a new folder.")
        complete.append(block[0][1])
        block, ends = [], (stop, question_stop)
    if (folder / METRICS).exists():
        return complete  # it was finished once: nothing of it is cut off
    for name, end in zip((RECORDS, QUESTIONS), ends, strict=True):
        _cut(folder / name, end)
    return complete


def _whole_lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """JSON lines with the byte each ends at; a last line that a kill tore is left out.

    Raises:
        StoreDamaged: A line before the last that is none.
    """
    if not path.exists():
        return
    position = 0
    damaged = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if damaged:
                raise StoreDamaged(f"{path}:{damaged}: damaged", hint="Run it again into a new folder.")
            position += len(raw)
            try:
                value = json.loads(raw) if raw.endswith(b"\n") else None
            except (ValueError, RecursionError):
                value = None
            if isinstance(value, dict):
                yield value, position
            else:
                damaged = number


def _cut(path: Path, end: int) -> None:
    if path.exists() and path.stat().st_size != end:
        os.truncate(path, end)


def _append(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=True, allow_nan=False) + "\n" for line in lines)
    with path.open("ab") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        raise StoreDamaged(f"{path} is missing", hint="Run the same command again: it goes on where it stopped.")
    for line, _ in _whole_lines(path):
        yield line


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if path.name == ENVIRONMENT:
            raise StoreDamaged(f"{path} is missing", hint="Run it again into a new folder.") from error
        raise UsageError(
            f"{path} is missing: the run is not finished",
            hint="Run the same 'ragzip eval' command again: it goes on where it stopped.",
        ) from error
    except (OSError, ValueError) as error:
        raise StoreDamaged(f"{path}: {error}", hint="Run it again into a new folder.") from error
    if not isinstance(value, dict):
        raise StoreDamaged(f"{path}: no JSON object", hint="Run it again into a new folder.")
    return value
