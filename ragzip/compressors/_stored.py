"""Pieces of text that were compressed before: looked up, and only what is missing is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ragzip.indexes.soft_store import Filling, Precision, Setting, SoftStore, Unit, find_store, lock, store_folder
from ragzip.models.runtime import kept, state
from ragzip.protocols import note

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.types import Passage

_MANIFEST = "store.json"
_TOGETHER = 64  # passages that are compressed together
_COMMIT_ROWS = 65_536  # rows of a shard: 75 MB in half precision with 576 columns


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
    setting: Callable[[], Setting],
) -> dict[Unit, Tensor]:
    """The rows of pieces, each ``[n, d_model]``: from the store at a place where there is one, else computed.

    How many came from the store, and how many did not, is told to the account of the step.

    Raises:
        StoreMismatch: The store was made with something else.
    """
    import torch

    wanted = list(dict.fromkeys(units))
    found: dict[Unit, Tensor] = {}
    if place:
        store = _opened(place, setting())
        found = {unit: torch.from_numpy(rows) for unit, rows in store.get(wanted).items()}
        note(f"{len(found)} of {len(wanted)} pieces from the store")
    left = [unit for unit in wanted if unit not in found]
    if left:
        found.update(zip(left, compute(left), strict=True))
    return found


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
        most_bytes: Where to stop; None goes on to the end.
        on_progress: Told how many passages are done.

    Raises:
        StoreMismatch: The folder holds a store of something else.
        StoreError: Another process fills it, or the disk is full.
    """
    setting = method.setting()
    root = store_folder(index, setting, precision)
    with lock(root):
        filling = Filling(root, setting, precision)
        waiting: dict[Unit, object] = {}
        counts = {"rows": 0, "waiting": 0, "added": 0, "done": 0}

        def commit() -> None:
            filling.commit(waiting)  # type: ignore[arg-type]
            counts["added"] += len(waiting)
            waiting.clear()
            counts["waiting"] = 0

        def full() -> bool:
            size = filling.present.bytes if filling.present is not None else 0
            return most_bytes is not None and size + counts["waiting"] * setting.columns * 2 >= most_bytes

        def work() -> bool:
            for some in _batches(passages):
                if full():
                    return True
                pieces = method.units([p.text for p in some], [p.title for p in some])
                left = [u for u in filling.missing(u for part in pieces for u in part) if u not in waiting]
                for unit, rows in zip(left, method.compute(left), strict=True):
                    waiting[unit] = rows.numpy()
                    counts["rows"] += len(rows)
                    counts["waiting"] += len(rows)
                counts["done"] += len(some)
                if counts["waiting"] >= _COMMIT_ROWS:
                    commit()
                if on_progress:
                    on_progress(counts["done"])
            return False

        try:
            stopped = work()
        except KeyboardInterrupt:
            commit()  # what was computed is not to be computed again
            raise
        commit()
        store = filling.present
        return FillReport(
            root,
            len(store) if store is not None else 0,
            counts["added"],
            counts["rows"],
            store.bytes if store is not None else 0,
            stopped,
        )


def _opened(place: str, setting: Setting) -> SoftStore:
    """The store, opened once for each of its states."""
    root = find_store(place, setting).root
    store: SoftStore = kept(("soft store", str(root), *state(root / _MANIFEST)), lambda: SoftStore(root))
    return store


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
