"""Pieces of text that were compressed before: looked up, and only what is missing is computed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic as _now
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ragzip.errors import StoreDamaged, StoreError
from ragzip.indexes.soft_arrays import Precision
from ragzip.indexes.soft_store import (
    SHARD_BYTES,
    Filling,
    Setting,
    SoftStore,
    Unit,
    check_setting,
    find_store,
    lock,
    same_rows,
    store_folder,
)
from ragzip.models.runtime import state
from ragzip.protocols import note

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from ragzip.types import Passage

_MANIFEST = "store.json"
_open: dict[Path, tuple[tuple[str, int, int], SoftStore]] = {}
_roots: dict[tuple[str, Setting], Path] = {}
_guard = threading.Lock()
_TOGETHER = 64  # passages that are compressed together
_SECONDS = 60.0  # what was computed is written after so long, so that no more is lost, whatever ends the process
_GROWTH = 0.1  # or after this share of the time so far, where that is more: each writing makes another shard
_COMMIT_BYTES = 150_000_000  # of rows that wait, in fp32: 75 MB of a shard in half precision


@runtime_checkable
class Storable(Protocol):
    """A compressor of which a part hangs on pieces of text alone, so that it can be computed before any question."""

    def setting(self) -> Setting:
        """What stored rows must have been made with."""
        ...

    def units(self, texts: Sequence[str], titles: Sequence[str]) -> list[list[Unit]]:
        """The pieces of each text."""
        ...

    def compute(self, units: Sequence[Unit]) -> Sequence[Tensor]:
        """``[n, columns]`` of each piece."""
        ...


@dataclass(frozen=True, slots=True)
class FillReport:
    """What filling a store came to.

    Attributes:
        folder: The store's.
        pieces: It holds now.
        added: Of these, now.
        rows: Added now.
        bytes: Of the store.
        full: Whether it stopped at the most bytes that were allowed.
    """

    folder: Path
    pieces: int
    added: int
    rows: int
    bytes: int
    full: bool


def encode(
    units: Sequence[Unit],
    compute: Callable[[Sequence[Unit]], Sequence[Tensor]],
    place: str,
    setting: Setting,
    asked: Mapping[Unit, Tensor | None] | None = None,
) -> dict[Unit, Tensor]:
    """The rows of pieces, each ``[n, d_model]``: from the store at a place where there is one, else computed.

    How many came from the store, and how many did not, is told to the account of the step.

    Args:
        units: The pieces.
        compute: Makes the rows of those that are not stored.
        place: A store's folder, or an index's, or "".
        setting: What stored rows must have been made with.
        asked: What ``stored`` said of some of them before.

    Raises:
        StoreMismatch: The store was made with something else.
        StoreError: There is none.
    """
    wanted = list(dict.fromkeys(units))
    found: dict[Unit, Tensor] = {}
    if place:
        said = dict(asked or {})
        said.update(stored([unit for unit in wanted if unit not in said], place, setting))
        found = {unit: rows for unit in wanted if (rows := said[unit]) is not None}
        note(f"{len(found)} of {len(wanted)} pieces from the store")
    left = [unit for unit in wanted if unit not in found]
    if left:
        found.update(zip(left, compute(left), strict=True))
    return found


def encode_each(
    parts: Sequence[Sequence[Unit]],
    compute: Callable[[Sequence[Unit]], Sequence[Tensor]],
    place: str,
    setting: Setting,
) -> list[dict[Unit, Tensor]]:
    """The rows of several lots of pieces with a store, as of ``encode``; what is missing of each is computed by itself.

    So they do not hang on what else is in the batch, rounding included.
    """
    wanted = list(dict.fromkeys(unit for part in parts for unit in part))
    said = stored(wanted, place, setting)
    note(f"{sum(rows is not None for rows in said.values())} of {len(wanted)} pieces from the store")
    found: list[dict[Unit, Tensor]] = []
    for part in parts:
        lot = {unit: rows for unit in part if (rows := said[unit]) is not None}
        left = [unit for unit in dict.fromkeys(part) if unit not in lot]
        found.append({**lot, **dict(zip(left, compute(left) if left else (), strict=True))})
    return found


def stored(units: Sequence[Unit], place: str, setting: Setting) -> dict[Unit, Tensor | None]:
    """The rows of each of the pieces, or None where a store does not hold it.

    Args:
        units: The pieces.
        place: A store's folder, or an index's.
        setting: What stored rows must have been made with.

    Raises:
        StoreMismatch: The store was made with something else.
        StoreDamaged: It holds rows that are no numbers.
        StoreError: There is none.
    """
    import numpy as np
    import torch

    found = _opened(place, setting).get(units)
    if not all(np.isfinite(rows).all() for rows in found.values()):
        raise StoreDamaged(
            f"the store of {setting.method} in {place} holds rows that are not finite",
            hint="Remove it and fill it again.",
        )
    return {unit: torch.from_numpy(found[unit]) if unit in found else None for unit in units}


def fill(
    method: Storable,
    passages: Iterable[Passage],
    index: str | Path,
    *,
    precision: Precision = "float16",
    most_bytes: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> FillReport:
    """Fills the store of an index with what a compressor makes of its passages; goes on where it stopped.

    Args:
        method: Any soft compressor.
        passages: Of the index.
        index: Its folder.
        precision: Of the rows.
        most_bytes: What the shards may take; what would be more is not stored. None goes on to the end.
        on_progress: Told how many passages are done.

    Raises:
        StoreMismatch: The folder holds a store of something else.
        StoreError: Another process fills it, or the disk is full.
    """
    setting = method.setting()
    root = store_folder(index, setting, precision)
    with lock(root):
        work = _Work(Filling(root, setting, precision), most_bytes)
        try:
            done = 0
            for some in _batches(passages):
                pieces = method.units([p.text for p in some], [p.title for p in some])
                left = work.missing(unit for part in pieces for unit in part)
                if not all(work.add(unit, rows.numpy()) for unit, rows in zip(left, method.compute(left), strict=True)):
                    break
                done += len(some)
                if on_progress:
                    on_progress(done)
        except StoreError:
            raise  # of the store itself: no place to write to
        except BaseException:
            work.commit()  # what was computed is not to be computed again
            raise
        work.commit()
        return work.report()


class _Work:
    """Pieces that wait for the next commit, and what was added so far."""

    def __init__(self, filling: Filling, most_bytes: int | None) -> None:
        self._filling, self._most = filling, most_bytes
        self._waiting: dict[Unit, npt.NDArray[np.float32]] = {}
        self._size = self._rows = self._held = self.added = self.rows = 0
        self.full = False
        self._begun = self._last = _now()

    def missing(self, units: Iterable[Unit]) -> list[Unit]:
        """Those that are neither stored nor waiting."""
        return [unit for unit in self._filling.missing(units) if unit not in self._waiting]

    def add(self, unit: Unit, rows: npt.NDArray[np.float32]) -> bool:
        """Takes a piece, unless the store would become larger than it may; whether it did."""
        size = self._filling.cost(len(rows)) + (0 if self._waiting else SHARD_BYTES)
        if self._most is not None and self._filling.bytes + self._size + size > self._most:
            self.full = True
            return False
        self._waiting[unit] = rows
        self._size += size
        self._rows += len(rows)
        self._held += rows.nbytes
        patience = max(_SECONDS, _GROWTH * (self._last - self._begun))
        if self._held >= _COMMIT_BYTES or _now() - self._last > patience:
            self.commit()
        return True

    def commit(self) -> None:
        """Writes what waits."""
        self._filling.commit(self._waiting)
        self.added += len(self._waiting)
        self.rows += self._rows
        self._waiting, self._size, self._rows, self._held = {}, 0, 0, 0
        self._last = _now()

    def report(self) -> FillReport:
        """What it came to."""
        store = self._filling.present
        pieces = len(store) if store is not None else 0
        return FillReport(self._filling.root, pieces, self.added, self.rows, self._filling.bytes, self.full)


def _opened(place: str, setting: Setting) -> SoftStore:
    """The store, opened once for each of its states; an older state is forgotten."""
    root = _roots.get((place, setting))
    if root is not None and (root / _MANIFEST).is_file():
        (at,) = state(root / _MANIFEST)
        known = _open.get(root)
        if known is not None and known[0] == at and same_rows(known[1].setting, setting):
            return known[1]
    root = find_store(place, setting)
    (at,) = state(root / _MANIFEST)
    with _guard:
        known = _open.get(root)
        if known is None or known[0] != at:
            known = _open[root] = (at, SoftStore(root))
        _roots[place, setting] = root
    check_setting(known[1].setting, setting, root)  # it may be another one by now
    return known[1]


def _batches(passages: Iterable[Passage]) -> Iterable[list[Passage]]:
    batch: list[Passage] = []
    for passage in passages:
        if passage.text.strip():
            batch.append(passage)
        if len(batch) == _TOGETHER:
            yield batch
            batch = []
    if batch:
        yield batch
