"""Makes the codes of an index: those of each row once, and a FAISS index over the rows alive."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import ConfigError, ModelError, StoreDamaged, StoreMismatch
from ragzip.indexes import parts
from ragzip.indexes.encoding import check_model
from ragzip.indexes.faiss_files import write_faiss
from ragzip.indexes.files import FileEntry, guarded, mend_hint, new_file, rebuild_hint
from ragzip.indexes.jpq import quantizer
from ragzip.indexes.jpq.quantizer import Quantizer
from ragzip.indexes.manifest import ModelEntry, PartEntry, Shard
from ragzip.indexes.vectors import Vectors, write_shard
from ragzip.models import canonical, fingerprint, resolve

if TYPE_CHECKING:
    from ragzip.indexes.encoding import Encoder, LazyEncoder
    from ragzip.indexes.index import Index
    from ragzip.indexes.jpq.reader import TrainedCodes

STEP = 65_536
"""Rows that are taken in by one commit."""

_BLOCK = 4096
_MOST_SMALL = 32
_BYTE = np.dtype("|u1")


@dataclass(frozen=True)
class JPQPart:
    """Options of ``jpq`` in an index.

    Attributes:
        model: The folder that ``ragzip train jpq`` made for the index's encoder.
    """

    kind: ClassVar[str] = "jpq"

    model: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError(
                "model",
                f"must be a folder made by `ragzip train jpq`, not {self.model!r}",
                hint="Train it on this index, then name it: --set model=FOLDER",
            )

    def ready(self, encoder: LazyEncoder) -> None:
        """The trained folder is here, and for this encoder.

        Raises:
            ModelError: It is not here, or damaged.
            StoreMismatch: It was trained for another encoder.
        """
        its = encoder.entry()
        if its is not None:
            _fitting(resolve(self.model) / quantizer.FILE, its, "INDEX")

    def extend(self, index: Index, entry: PartEntry, folder: str) -> PartEntry:
        """Gives the next rows their codes, dead ones included."""
        files, settings = list(entry.files), {**entry.settings}
        if "name" in settings:
            learned = kept(index.path, entry)
        else:
            learned = self._learned(index)
            with guarded(index.path), new_file(index.path / folder / quantizer.FILE) as out:
                out.write(learned.dump())
                files.append(out.entry(f"{folder}/{quantizer.FILE}"))
            settings |= {"name": canonical(self.model), "fingerprint": fingerprint(self.model), "batches": []}
        vectors = index.vectors
        last = min(entry.rows + STEP, index.manifest.rows)
        blocks = (
            learned.encode(vectors.take(np.arange(start, min(start + _BLOCK, last))))
            for start in range(entry.rows, last, _BLOCK)
        )
        name = f"{folder}/codes.npy"
        shard = write_shard(index.path, name, learned.pieces, last - entry.rows, blocks, _BYTE)
        files.append(shard.file)
        settings["batches"] = [*settings["batches"], [name, shard.rows]]
        made = dataclasses.replace(entry, rows=last, settings=settings, files=tuple(files))
        return _joined(index.path, made, learned, folder)

    def finish(self, index: Index, entry: PartEntry, folder: str) -> PartEntry:
        """The FAISS index over the codes of the passages alive, scored by the trained centroids."""
        learned = kept(index.path, entry)
        codes = opened(index.path, entry, learned)
        made = faiss_index(learned.scoring)
        for block in codes.code_blocks(index.rows):
            made.add_sa_codes(block)
        file = write_faiss(index.path, f"{folder}/codes.faiss", made)
        return dataclasses.replace(entry, whole=(file,))

    def open(self, index: Index, entry: PartEntry) -> TrainedCodes:
        """What searches."""
        from ragzip.indexes.jpq.reader import TrainedCodes

        return TrainedCodes(index, entry)

    def without(self, entry: PartEntry, damaged: Set[str]) -> PartEntry:
        """What was learned stays where it is whole: the folder that was trained may be elsewhere by now."""
        left = tuple(file for file in entry.files if file.name.endswith(quantizer.FILE) and file.name not in damaged)
        return PartEntry(entry.kind, 0, {**entry.settings, "batches": []}, left, None) if left else parts.empty(self)

    def compact(self, index: Index, entry: PartEntry, rows: NDArray[np.int64], folder: str) -> PartEntry:
        """The codes of the rows that stay."""
        if "name" not in entry.settings:
            return dataclasses.replace(entry, rows=0)
        learned = kept(index.path, entry)
        with guarded(index.path), new_file(index.path / folder / quantizer.FILE) as out:
            out.write(learned.dump())
            files = [out.entry(f"{folder}/{quantizer.FILE}")]
        codes = opened(index.path, entry, learned)
        name = f"{folder}/codes.npy"
        shard = write_shard(index.path, name, learned.pieces, len(rows), codes.code_blocks(rows), _BYTE)
        settings = {**entry.settings, "batches": [[name, shard.rows]]}
        return PartEntry(entry.kind, len(rows), settings, (*files, shard.file), None)

    def _learned(self, index: Index) -> Quantizer:
        """What the folder holds, which must be for the index's encoder."""
        its = index.manifest.model
        if its is None:
            raise StoreMismatch(
                f"{index.path}: was made for bm25 and has no vectors.",
                hint=f"Make it with vectors. {rebuild_hint(index.path)}",
            )
        try:
            folder = resolve(self.model)
        except ModelError as error:
            raise gone(index, error) from error
        return _fitting(folder / quantizer.FILE, its, str(index.path))


def gone(index: Index, error: ModelError) -> ModelError:
    """What is to be said where the trained folder cannot be had."""
    return ModelError(
        f"{index.path}: jpq needs the folder that was trained for it: {error.message}",
        hint=f"Put it back, or train another and make the index anew. {rebuild_hint(index.path)}",
    )


def _fitting(path: Path, its: ModelEntry, corpus: str) -> Quantizer:
    """The quantizer in a file, which must be for an index's encoder.

    Raises:
        ModelError: It is not there, damaged, or of another width.
        StoreMismatch: It was trained for another encoder.
    """
    learned = quantizer.load(path)
    trained = ModelEntry(learned.model, learned.fingerprint, learned.dimensions)
    hint = f"Train it for this index: ragzip train jpq --corpus {corpus} --out FOLDER"
    check_model(trained, its.name, its.fingerprint, where=str(path), hint=hint)
    if learned.dimensions != its.dimensions:
        raise ModelError(
            f"{path} is for vectors of {learned.dimensions}, not of {its.dimensions}", hint="Train it again."
        )
    return learned


def check(encoder: Encoder, index: Index, entry: PartEntry) -> None:
    """Makes sure that an encoder of questions is the one that the centroids were trained with.

    Raises:
        StoreMismatch: It is not; says which is which.
    """
    its = ModelEntry(entry.settings["name"], entry.settings["fingerprint"], encoder.dimensions)
    hint = f"Get the model it was made with, or make it anew. {rebuild_hint(index.path)}"
    check_model(its, encoder.name, encoder.fingerprint, where=f"{index.path}: jpq", hint=hint)


def kept(root: Path, entry: PartEntry) -> Quantizer:
    """The quantizer that the part was made with, from the index itself.

    Raises:
        FileNotFoundError: It is gone.
        StoreDamaged: It is not what was written.
    """
    path = root / next(file.name for file in entry.files if file.name.endswith(quantizer.FILE))
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        return quantizer.load(path)
    except ModelError as error:
        raise StoreDamaged(f"{path}: is damaged: {error}.", hint=mend_hint(root)) from error


def opened(root: Path, entry: PartEntry, learned: Quantizer) -> Vectors:
    """The codes of all rows, read and scored as those of any shard."""
    return Vectors(root, _shards(entry), learned.codec)


def faiss_index(scoring: NDArray[np.float32]) -> Any:
    """An empty FAISS index for codes of these centroids ``[pieces, 256, w]``."""
    import faiss

    pieces, _, width = scoring.shape
    made: Any = faiss.IndexPQ(pieces * width, pieces, 8, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(np.ascontiguousarray(scoring).ravel(), made.pq.centroids)
    made.is_trained = True
    return made


def _shards(entry: PartEntry) -> list[Shard]:
    files = {file.name: file for file in entry.files}
    return [Shard(files[name], rows) for name, rows in entry.settings["batches"]]


def _joined(root: Path, entry: PartEntry, learned: Quantizer, folder: str) -> PartEntry:
    """Puts many small batches at the end into one, so that many short runs do not end in too many open files."""
    shards = _shards(entry)
    small = next((n for n, shard in enumerate(reversed(shards)) if shard.rows >= STEP), len(shards))
    if small < _MOST_SMALL:
        return entry
    whole = Vectors(root, shards[-small:], learned.codec)
    name = f"{folder}/joined.npy"
    rows = np.arange(len(whole))
    joined = write_shard(root, name, learned.pieces, len(whole), whole.code_blocks(rows), _BYTE)
    gone = {shard.file.name for shard in shards[-small:]}
    files = (*_without(entry.files, gone), joined.file)
    settings = {**entry.settings, "batches": [*entry.settings["batches"][:-small], [name, joined.rows]]}
    return dataclasses.replace(entry, settings=settings, files=files)


def _without(files: Sequence[FileEntry], names: set[str]) -> list[FileEntry]:
    return [file for file in files if file.name not in names]
