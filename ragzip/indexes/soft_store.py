"""Rows that were compressed before they were asked for: content-addressed, memory-mapped, one folder a setting.

A store keeps what a soft compressor makes of a piece of text (a segment, a passage) under a hash of that piece, so that
it serves every document and every question in which the piece stands. ``store.json`` says whose rows they are and lists
shards; a shard's files are written once, whole, before the manifest that names them takes the place of the one before.
Killed in between, the store is as it was. Small shards are joined from time to time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import ConfigError, StoreDamaged, StoreError, StoreMismatch
from ragzip.indexes.files import FileEntry, guarded, new_file, unreadable, write_lock
from ragzip.indexes.soft_arrays import PARTS, Precision, arrays_of, joined
from ragzip.indexes.soft_shards import Shard, changed, next_number, opened, small_ones, sweep_shards, write_shard

Unit = str | tuple[int, ...]
"""A piece of text, or the ids of its tokens."""

FOLDER = "soft"
"""Below an index: its stores."""

MANIFEST = "store.json"
FORMAT = 1
SHARD_BYTES = 4 * 128
"""That the files of a shard take beside their numbers."""

_MOST_MANIFEST = 50_000_000
_DECIDING = ("method", "fingerprint", "space", "rate", "columns")


@dataclass(frozen=True, slots=True)
class Setting:
    """What a store's rows were made with; rows of one setting are of no use to another.

    Attributes:
        method: The compressor's registry name.
        model: Name of its weights.
        fingerprint: Of its weights.
        space: Whose input embeddings the rows are.
        rate: Text tokens for one row, or 0 where the method has none.
        columns: Width of a row.
    """

    method: str
    model: str
    fingerprint: str
    space: str
    rate: int
    columns: int


class SoftStore:
    """A store that is read. Files are mapped, not loaded."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.setting, self.precision, self.shards = _read(root)
        while True:
            try:
                self.opened = [opened(root, shard, hint=_anew(root)) for shard in self.shards]
                return
            except StoreDamaged:
                found = _read(root)
                if found[2] == self.shards:
                    raise
                self.setting, self.precision, self.shards = found  # shards were joined meanwhile

    def __len__(self) -> int:
        """Pieces it holds."""
        return sum(shard.pieces for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Size of its files."""
        return sum(file.bytes for shard in self.shards for file in shard.files)

    def get(self, units: Sequence[Unit]) -> dict[Unit, NDArray[np.float32]]:
        """The rows of those pieces that are here: ``[n, columns]`` each."""
        found: dict[Unit, NDArray[np.float32]] = {}
        left = list(dict.fromkeys(units))
        keys = np.asarray([key_of(unit) for unit in left], dtype="S16")
        for shard in self.opened:
            if not left:
                break
            at = np.searchsorted(shard["keys"], keys).clip(max=max(len(shard["keys"]) - 1, 0))
            hit = shard["keys"][at] == keys if len(shard["keys"]) else np.zeros(len(keys), dtype=bool)
            for unit, place in ((left[i], at[i]) for i in np.flatnonzero(hit)):
                start, count = map(int, shard["places"][place])
                rows = np.asarray(shard["rows"][start : start + count], dtype=np.float32)
                if "scales" in shard:
                    rows *= np.asarray(shard["scales"][start : start + count])[:, None]
                found[unit] = rows
            left, keys = [left[i] for i in np.flatnonzero(~hit)], keys[~hit]
        return found

    @property
    def identity(self) -> str:
        """Equal for stores of the same pieces, made with the same, however they were filled."""
        keys = sorted({bytes(key) for shard in self.opened for key in shard["keys"]})
        about = repr([*(getattr(self.setting, name) for name in _DECIDING), self.precision])
        return hashlib.sha256(about.encode() + b"".join(key.ljust(16, b"\0") for key in keys)).hexdigest()

    def verify(self) -> list[str]:
        """What is wrong with its files: those that are missing, cut short or changed."""
        shards = self.shards
        while True:
            problems = [problem for shard in shards for problem in changed(self.root, shard)]
            now = _read(self.root)[2] if problems else shards
            if now == shards:
                return problems
            shards = now  # some were joined meanwhile


class Filling:
    """A store that is written: pieces come in, and shards are committed."""

    def __init__(self, root: Path, setting: Setting, precision: Precision = "float16") -> None:
        if precision not in get_args(Precision):
            raise ConfigError("precision", f"must be float16 or int8, not {precision!r}")
        self.root, self.setting = root, setting
        self.precision: Precision = precision
        self.present: SoftStore | None = None
        if (root / MANIFEST).is_file():
            self.present = SoftStore(root)
            check_setting(self.present.setting, setting, root)
            if self.present.precision != precision:
                raise StoreMismatch(
                    f"{root} holds {self.present.precision}, not {precision}", hint="Give another folder, or remove it."
                )

    @property
    def bytes(self) -> int:
        """Of what is committed."""
        return self.present.bytes if self.present is not None else 0

    def cost(self, rows: int) -> int:
        """Bytes that a piece of so many rows takes."""
        width = self.setting.columns + 4 if self.precision == "int8" else 2 * self.setting.columns
        return 32 + rows * width

    def missing(self, units: Iterable[Unit]) -> list[Unit]:
        """Those of the pieces that are not here, once each."""
        wanted = list(dict.fromkeys(units))
        here = self.present.get(wanted) if self.present is not None else {}
        return [unit for unit in wanted if unit not in here]

    def commit(self, made: Mapping[Unit, NDArray[np.float32]]) -> None:
        """Writes those pieces that are not here as a shard; whoever opens the store from now on sees them.

        Many small shards are joined with it.

        Raises:
            StoreError: The disk is full, or cannot be written.
            StoreDamaged: A value is not finite.
        """
        shards = self._listed()
        if self.present is None or self.present.shards != shards:  # an interrupt came behind the last manifest
            self.present = SoftStore(self.root) if shards else None
            made = {unit: made[unit] for unit in self.missing(made)}
        with guarded(self.root):
            sweep_shards(self.root, shards)  # what a commit left that was stopped
        if not made:
            return
        order = sorted(made, key=key_of)
        arrays = arrays_of([key_of(unit) for unit in order], [made[unit] for unit in order], self.precision)
        kept = shards[: len(shards) - small_ones(shards)]
        if any(changed(self.root, shard) for shard in shards[len(kept) :]):
            kept = shards  # joined, what is damaged would look sound
        if len(kept) < len(shards) and self.present is not None:
            arrays = joined([*self.present.opened[len(kept) :], arrays])
        with guarded(self.root):
            more = write_shard(self.root, next_number(shards), arrays)
            text = json.dumps(
                {
                    "format": FORMAT,
                    **asdict(self.setting),
                    "precision": self.precision,
                    "shards": [asdict(shard) for shard in (*kept, more)],
                },
                indent=1,
            )
            with new_file(self.root / MANIFEST) as file:
                file.write(text.encode())
        self.present = None  # its files are not held open twice
        self.present = SoftStore(self.root)
        with guarded(self.root):
            sweep_shards(self.root, self.present.shards)

    def _listed(self) -> tuple[Shard, ...]:
        """The shards that the manifest names, whatever came of the commit that wrote it."""
        return _read(self.root)[2] if (self.root / MANIFEST).is_file() else ()


def lock(root: Path) -> Any:
    """Held by whoever fills a store."""
    return write_lock(root)


def key_of(unit: Unit) -> bytes:
    """Sixteen bytes that stand for a piece."""
    kind, data = (b"s", unit.encode("utf-8", "surrogatepass")) if isinstance(unit, str) else (b"i", _bytes(unit))
    return hashlib.blake2b(kind + data, digest_size=16).digest()


def find_store(place: str | Path, setting: Setting) -> Path:
    """The folder of the store at a place, or of an index's, which fits a setting.

    Args:
        place: A store's folder, or an index's.
        setting: What the rows must have been made with.

    Raises:
        StoreError: There is none.
        StoreMismatch: Those that are there were made with something else; says what differs.
    """
    root = Path(place)
    if (root / MANIFEST).is_file():
        check_setting(_read(root)[0], setting, root)
        return root
    others: list[tuple[Path, Setting, int]] = []
    damaged: StoreDamaged | None = None
    for path in sorted((root / FOLDER).glob(f"*/{MANIFEST}")):
        try:
            there, _, shards = _read(path.parent)
            others.append((path.parent, there, sum(shard.pieces for shard in shards)))
        except StoreDamaged as error:
            damaged = error  # of no matter, if a sound one fits
    fitting = [(pieces, path) for path, there, pieces in others if same_rows(there, setting)]
    if fitting:
        return max(fitting, key=lambda found: found[0])[1]  # of two precisions the one that holds more
    if damaged is not None:
        raise damaged
    same = [(path, there) for path, there, _ in others if there.method == setting.method]
    rate = f" --set rate={setting.rate}" if setting.rate else ""
    fill = f"ragzip index compress {root} --with {setting.method} --model {setting.model}{rate}"
    if same:
        check_setting(same[-1][1], setting, same[-1][0], hint=f"Fill one beside it: {fill}")
    raise StoreError(f"no store of {setting.method} at {root}", hint=f"Fill one: {fill}")


def store_folder(index: str | Path, setting: Setting, precision: Precision) -> Path:
    """Where an index keeps the store of a setting."""
    mark = hashlib.sha256(repr((setting.fingerprint, setting.space)).encode()).hexdigest()[:12]
    rate = f"-{setting.rate}" if setting.rate else ""
    return Path(index) / FOLDER / f"{setting.method}{rate}-{mark}{'-int8' if precision == 'int8' else ''}"


def stores_identity(place: str | Path, method: str) -> str:
    """A hash of what the stores of a method at a place, or of an index, hold; "" where there are none."""
    root = Path(place)
    found = []
    for path in [root / MANIFEST, *sorted((root / FOLDER).glob(f"*/{MANIFEST}"))]:
        try:
            if path.is_file() and _read(path.parent)[0].method == method:
                found.append(SoftStore(path.parent).identity)
        except (StoreDamaged, FileNotFoundError):
            continue  # something that fails with its own words when it is used
    return hashlib.sha256("".join(found).encode()).hexdigest()[:16] if found else ""


def verify_stores(index: str | Path) -> list[str]:
    """What is wrong with the stores beside an index."""
    problems: list[str] = []
    for path in sorted((Path(index) / FOLDER).glob(f"*/{MANIFEST}")):
        try:
            problems += SoftStore(path.parent).verify()
        except StoreDamaged as error:
            problems.append(error.message)
    return problems


def same_rows(there: Setting, here: Setting) -> bool:
    """Whether rows made with one are those made with the other; the name of the weights does not matter."""
    return all(getattr(there, name) == getattr(here, name) for name in _DECIDING)


def check_setting(there: Setting, here: Setting, root: Path, *, hint: str = "") -> None:
    """Whether a store was made with what it is to be used with; the name of the weights does not matter.

    Args:
        there: What it was made with.
        here: What it is to be used with.
        root: Its folder.
        hint: What to do where they differ; "" is to make it anew.

    Raises:
        StoreMismatch: It was not; names both sides.
    """
    for name in _DECIDING:
        old, new = getattr(there, name), getattr(here, name)
        if old != new:
            what = f"{name} {str(old)[:16]!r}, not {str(new)[:16]!r}"
            raise StoreMismatch(
                f"{root}: was made by {there.method!r} with weights {there.model!r} ({what})", hint=hint or _anew(root)
            )


def _read(root: Path) -> tuple[Setting, Precision, tuple[Shard, ...]]:
    path = root / MANIFEST
    try:
        if path.stat().st_size > _MOST_MANIFEST:
            raise ValueError("it is too long")
        values = json.loads(path.read_text("utf-8"))
        if values["format"] != FORMAT or values["precision"] not in get_args(Precision):
            raise ValueError(f"format {values['format']!r}, precision {values['precision']!r}")
        setting = Setting(**{key: values[key] for key in Setting.__slots__})
        shards = tuple(
            Shard(int(s["pieces"]), int(s["rows"]), tuple(FileEntry(**file) for file in s["files"]))
            for s in values["shards"]
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreDamaged(f"{path} cannot be read: {error}", hint=_anew(root)) from error
    except OSError as error:
        raise unreadable(path, error) from error
    for file in (file for shard in shards for file in shard.files):
        if Path(file.name).name != file.name or file.name.split(".")[1:2][0] not in PARTS:
            raise StoreDamaged(f"{path} names {file.name!r}, which is no file of a store", hint=_anew(root))
    return setting, values["precision"], shards


def _bytes(ids: tuple[int, ...]) -> bytes:
    return np.asarray(ids, dtype="<i4").tobytes()


def _anew(root: Path) -> str:
    return f"Remove {root} and fill it again: ragzip index compress INDEX --with METHOD --model MODEL"
