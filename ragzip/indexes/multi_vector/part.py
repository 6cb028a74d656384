"""Makes the token vectors of an index: codes and encodings of its passages, and a FAISS index over the encodings."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import ConfigError, ModelError, StoreDamaged
from ragzip.indexes import parts
from ragzip.indexes.encoding import check_model
from ragzip.indexes.files import FileEntry, mend_hint, rebuild_hint
from ragzip.indexes.manifest import ModelEntry, PartEntry
from ragzip.indexes.multi_vector import candidates, lists
from ragzip.indexes.multi_vector.codec import BITS, MOST_CENTROIDS, Codec, centroids_for, heaviest, train_codec
from ragzip.indexes.multi_vector.fde import FDE, FDERecipe
from ragzip.indexes.multi_vector.selfcheck import recall
from ragzip.indexes.multi_vector.tokens import ARRAYS, Batch, Tokens, read_arrays, shrink, write_array, write_batch
from ragzip.indexes.table import clean
from ragzip.indexes.text import searched_text
from ragzip.models import resolve
from ragzip.models.shipped import LATE_INTERACTION

if TYPE_CHECKING:
    from ragzip.indexes.encoding import LazyEncoder
    from ragzip.indexes.index import Index
    from ragzip.indexes.multi_vector.reader import MultiVectors
    from ragzip.models.late_interaction import LateInteraction, TokenVectors

STEP = 2048
"""Passages that are taken in by one commit."""

_SAMPLE = 2048  # passages, at least, from which the codec is learned
_TEACH = 16  # token vectors for each centroid
_MOST_SMALL = 32
_POOR = 0.9
_CODEC, _LATER = ("centroids", "cuts", "means"), ("rotation", "leading")  # those of the second are not in older indexes


@dataclass(frozen=True)
class MultiVectorPart:
    """Options of ``multi_vector`` in an index.

    Attributes:
        model: A late-interaction model, as ``load_late_interaction`` takes it.
        repetitions: Of the fixed dimensional encodings; see ``FDERecipe``.
        planes: Hyperplanes a repetition.
        projection: Width of a vector in a partition; 0 for the model's own.
        width: Of an encoding, where repetitions * 2**planes * projection are more; 0 for these, however many.
        residual_bits: For each dimension of a token's vector beside its centroid: 0, 1, 2, 4, 6 or 8. With 6, all but a
            few of the best passages by MaxSim stay the best; 4 and 2 take fewer bytes, and more of these change.
        centroids: How many at most; 0 for the power of two below 16 times the root of the number of tokens, above
            4,096 only while there are 128 tokens for each, and at most 16,384; 256 and less make a code one byte.
        keep: Share of a passage's tokens that are kept for MaxSim: those that receive most attention.
        seed: Of all draws.
    """

    kind: ClassVar[str] = "multi_vector"

    model: str = LATE_INTERACTION
    repetitions: int = 10
    planes: int = 2
    projection: int = 0
    width: int = 3840
    residual_bits: int = 6
    centroids: int = 0
    keep: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError("model", f"must be the name or folder of a model, not {self.model!r}")
        FDERecipe(1 << 16, self.repetitions, self.planes, self.projection or 1, self.width, self.seed)
        if self.residual_bits not in BITS:
            raise ConfigError(
                "residual_bits", f"must be one of {', '.join(map(str, BITS))}, not {self.residual_bits!r}"
            )
        if type(self.centroids) is not int or not 0 <= self.centroids <= MOST_CENTROIDS:
            raise ConfigError("centroids", f"must be from 0 to {MOST_CENTROIDS}, not {self.centroids!r}")
        if not isinstance(self.keep, int | float) or isinstance(self.keep, bool) or not 0 < self.keep <= 1:
            raise ConfigError("keep", f"must be above 0 and at most 1, not {self.keep!r}")

    def ready(self, encoder: LazyEncoder) -> None:
        """The model is here; loads nothing.

        Raises:
            ModelError: It is not.
        """
        resolve(self.model)

    def extend(self, index: Index, entry: PartEntry, folder: str) -> PartEntry:
        """Encodes the next passages; the first time it learns the codec from a sample of all."""
        model = _load(self.model, index, entry)
        learned_from = entry.settings.get("learned_from", _SAMPLE)
        if learned_from < _SAMPLE and 2 * learned_from <= len(index):
            # what few passages taught does not fit many: while there are few, all of them are taken in again
            entry = parts.empty(self)
        waiting = index.rows[index.rows >= entry.rows]
        rows = waiting[:STEP]
        last = int(rows[-1]) + 1 if len(waiting) > STEP else index.manifest.rows
        encoded = self._encoded(model, index, rows)
        files = list(entry.files)
        settings = {**entry.settings, "batches": [*entry.settings.get("batches", ())]}
        if "learned" not in settings:
            sample = encoded if len(waiting) == len(rows) else self._sample(model, index, waiting)
            files += self._learn(index, folder, model, sample, len(waiting) / len(sample))
            settings |= {
                "learned": folder, "learned_from": len(sample), "dimensions": model.dimensions,
                "fingerprint": model.fingerprint, "name": model.name,
            }  # fmt: skip
        codec, fde = learned(index, dataclasses.replace(entry, settings=settings, files=tuple(files)))
        batch = self._batch(codec, fde, encoded, rows - entry.rows, last - entry.rows)
        files += write_batch(index.path, f"{folder}/0_", batch)
        settings["batches"].append([f"{folder}/0_", last - entry.rows])
        return _joined(index, dataclasses.replace(entry, rows=last, settings=settings, files=tuple(files)), folder)

    def finish(self, index: Index, entry: PartEntry, folder: str) -> PartEntry:
        """The FAISS index over the encodings of the passages alive, lists of them, and from time to time a check."""
        codec, fde = learned(index, entry)
        tokens = tokens_of(index, entry, codec)
        file = candidates.build(index.path, f"{folder}/encodings.faiss", tokens, index.rows)
        done = dataclasses.replace(entry, whole=(file, *lists.build(index.path, f"{folder}/lists", tokens, index.rows)))
        checked = entry.settings.get("check", {}).get("passages", 0)
        if len(index) < 2 * checked:
            return done
        found = recall(_load(self.model, index, entry), index, tokens, fde)
        if found.recall < _POOR:
            warnings.warn(
                f"{index.path}: of the ten best passages by MaxSim, the encodings of multi_vector find only"
                f" {found.recall:.0%} among {found.candidates} of {found.sample}. The lists of centroids find others."
                " Ask for more candidates, or make the index with more repetitions or a greater width.",
                stacklevel=2,
            )
        settings = {**entry.settings, "check": {"passages": len(index), **dataclasses.asdict(found)}}
        return dataclasses.replace(done, settings=settings)

    def open(self, index: Index, entry: PartEntry) -> MultiVectors:
        """What searches."""
        from ragzip.indexes.multi_vector.reader import MultiVectors

        return MultiVectors(index, entry)

    def without(self, entry: PartEntry, damaged: Set[str]) -> PartEntry:
        """Nothing: it is read from passages again."""
        return parts.empty(self)

    def compact(self, index: Index, entry: PartEntry, rows: NDArray[np.int64], folder: str) -> PartEntry:
        """The same without the rows that go."""
        if "learned" not in entry.settings:
            return dataclasses.replace(entry, rows=0)
        codec, _ = learned(index, entry)
        tokens = tokens_of(index, entry, codec)
        files = _moved(index, entry, folder)
        settings = {**entry.settings, "learned": folder, "batches": []}
        for number, start in enumerate(range(0, len(rows), 4 * STEP)):
            part = rows[start : start + 4 * STEP]
            files += write_batch(index.path, f"{folder}/{number}_", tokens.take(part))
            settings["batches"].append([f"{folder}/{number}_", len(part)])
        return dataclasses.replace(entry, rows=len(rows), settings=settings, files=tuple(files))

    def _sample(self, model: LateInteraction, index: Index, waiting: NDArray[np.int64]) -> list[TokenVectors]:
        """Passages that are spread over those to come, with token vectors enough for all centroids."""
        some = _spread(waiting, _SAMPLE)
        sample = self._encoded(model, index, some)
        vectors = max(sum(len(one.vectors) for one in sample), 1)
        centroids = self.centroids or centroids_for(vectors * len(waiting) // len(some))
        wanted = min(-(-_TEACH * centroids * len(some) // vectors), len(waiting))
        if wanted > len(some):
            others = np.setdiff1d(_spread(waiting, wanted), some)
            sample += self._encoded(model, index, others)
        return sample

    def _learn(
        self, index: Index, folder: str, model: LateInteraction, sample: Sequence[TokenVectors], times: float
    ) -> list[FileEntry]:
        """The codec and the matrices of the encodings, written down."""
        vectors = np.concatenate([one.vectors for one in sample])
        if not len(vectors):
            vectors = np.zeros((1, model.dimensions), np.float32)
        codec = train_codec(
            vectors,
            bits=self.residual_bits,
            centroids=self.centroids,
            expected=round(times * len(vectors)),
            seed=self.seed,
        )
        arrays: dict[str, NDArray[Any]] = {name: getattr(codec, name) for name in _CODEC}
        arrays |= {name: getattr(codec, name) for name in _LATER if getattr(codec, name) is not None}
        arrays |= FDE(self.recipe(model.dimensions)).matrices
        return [write_array(index.path, f"{folder}/{name}.npy", values) for name, values in arrays.items()]

    def recipe(self, dimensions: int) -> FDERecipe:
        """Of the encodings of vectors so wide."""
        projection = min(self.projection, dimensions)
        raw = FDERecipe(dimensions, self.repetitions, self.planes, projection, 0, self.seed)
        return dataclasses.replace(raw, width=self.width if self.width < raw.raw_width else 0)

    def _encoded(self, model: LateInteraction, index: Index, rows: NDArray[np.int64]) -> list[TokenVectors]:
        passages = index.passages(rows)
        texts = [clean(searched_text(passage)) for passage in passages]
        found = model.encode_documents(texts, weigh=self.keep < 1)
        for passage, one in zip(passages, found, strict=True):
            if one.vectors.shape[1:] != (model.dimensions,) or not np.isfinite(one.vectors).all():
                what = f"{model.name}: gave no finite vectors of {model.dimensions} for {passage.id}."
                raise ModelError(what, hint="Check the model.")
        return found

    def _batch(
        self, codec: Codec, fde: FDE, encoded: Sequence[TokenVectors], at: NDArray[np.int64], rows: int
    ) -> Batch:
        kept = [heaviest(one.weights, self.keep) for one in encoded]
        vectors = np.concatenate(
            [np.zeros((0, codec.dimensions), np.float32), *(o.vectors[k] for o, k in zip(encoded, kept, strict=True))]
        )
        counts = np.zeros(rows, np.int32)
        counts[at] = [len(some) for some in kept]
        encodings = np.zeros((rows, fde.recipe.final_width), np.float32)
        encodings[at] = fde.documents([one.vectors for one in encoded])
        return Batch(counts, *codec.encode(vectors), *shrink(encodings))


def _spread(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """So many of some rows, evenly."""
    found: NDArray[np.int64] = rows[np.unique(np.linspace(0, len(rows) - 1, most).astype(np.int64))]
    return found


def learned(index: Index, entry: PartEntry) -> tuple[Codec, FDE]:
    """The codec and the encodings of a part, as they were learned.

    Raises:
        StoreDamaged: They are not what the manifest says.
    """
    settings = entry.settings
    options, folder = settings["options"], settings["learned"]
    mine = MultiVectorPart(**options)
    recipe = mine.recipe(settings["dimensions"])
    names = ["planes", *(["sketch"] if recipe.projection else []), *(["final"] if recipe.width else [])]
    _listed(index, entry, [f"{folder}/{name}.npy" for name in (*_CODEC, *names)])
    there = {file.name for file in entry.files}
    arrays = read_arrays(index.path, folder, [*_CODEC, *(n for n in _LATER if f"{folder}/{n}.npy" in there)])
    codec = Codec(**arrays, bits=mine.residual_bits)
    return codec, FDE(recipe, read_arrays(index.path, folder, names))


def tokens_of(index: Index, entry: PartEntry, codec: Codec) -> Tokens:
    """What is kept of all rows.

    Raises:
        StoreDamaged: It is not what the manifest says.
    """
    batches = entry.settings["batches"]
    _listed(index, entry, [f"{prefix}{name}.npy" for prefix, _ in batches for name in ARRAYS])
    return Tokens(index.path, batches, codec, entry.rows)


def _listed(index: Index, entry: PartEntry, names: Sequence[str]) -> None:
    """Only files that the manifest lists are read, whatever a part's settings say."""
    strange = set(names) - {file.name for file in entry.files}
    if strange:
        raise StoreDamaged(
            f"{index.path}: the settings of multi_vector name {min(strange)!r}, which the manifest does not list.",
            hint=mend_hint(index.path),
        )


def _load(name: str, index: Index, entry: PartEntry) -> LateInteraction:
    """The model, which must be the one that the codes come from."""
    from ragzip.models.late_interaction import load_late_interaction

    model = load_late_interaction(name)
    check(model, index, entry)
    return model


def check(model: LateInteraction, index: Index, entry: PartEntry) -> None:
    """Makes sure that a model is the one that token vectors come from.

    Raises:
        StoreMismatch: It is not; says which is which.
    """
    settings = entry.settings
    if "fingerprint" in settings:
        its = ModelEntry(settings["name"], settings["fingerprint"], settings["dimensions"])
        hint = f"Get the model it was made with, or make it anew. {rebuild_hint(index.path)}"
        check_model(its, model.name, model.fingerprint, where=f"{index.path}: multi_vector", hint=hint)


def _moved(index: Index, entry: PartEntry, folder: str) -> list[FileEntry]:
    """What was learned, written again in another folder."""
    old = entry.settings["learned"]
    mine = [name.removeprefix(f"{old}/") for name in (file.name for file in entry.files) if name.startswith(f"{old}/")]
    names = [name.removesuffix(".npy") for name in mine if not name[0].isdigit()]
    arrays = read_arrays(index.path, old, names)
    return [write_array(index.path, f"{folder}/{name}.npy", values) for name, values in arrays.items()]


def _joined(index: Index, entry: PartEntry, folder: str) -> PartEntry:
    """Puts many small batches at the end into one, so that many short runs do not end in too many open files."""
    batches = entry.settings["batches"]
    for most in (STEP, STEP * _MOST_SMALL):  # many small ones into a full one, and many full ones into a large one
        small = next((n for n, (_, rows) in enumerate(reversed(batches)) if rows >= most), len(batches))
        if small >= _MOST_SMALL:
            break
    else:
        return entry
    codec, _ = learned(index, entry)
    joined = batches[-small:]
    rows = sum(size for _, size in joined)
    whole = Tokens(index.path, joined, codec, rows).take(np.arange(rows))
    gone = {f"{prefix}{name}.npy" for prefix, _ in joined for name in ARRAYS}
    files = [file for file in entry.files if file.name not in gone]
    files += write_batch(index.path, f"{folder}/1_", whole)
    settings = {**entry.settings, "batches": [*batches[:-small], [f"{folder}/1_", rows]]}
    return dataclasses.replace(entry, settings=settings, files=tuple(files))
