"""The BM25 index: postings with their scores computed ahead, in the layout of bm25s, which loads and searches them.

They are built here rather than by ``bm25s.BM25.index`` because that wants every passage's tokens in memory as Python
objects; this takes a stream and needs less memory than the passages' vectors do. The numbers are the same.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import StoreDamaged
from ragzip.indexes.files import FileEntry, entry_of, guarded, rebuild_hint, sync_folder
from ragzip.indexes.ranking import NO_HITS, Hits, top
from ragzip.indexes.terms import VERSION, Analyzer, stemmer_name

K1, B = 1.5, 0.75
_CHUNK = 4096
_ABOUT = "terms.json"


class Postings:
    """Which passages have which terms, with the score each gives; searches by position, 0 for the first passage.

    Args:
        engine: A loaded ``bm25s.BM25``.
        stemmer: The stemmer of its terms.
    """

    def __init__(self, engine: Any, stemmer: str) -> None:
        self._engine, self._stemmer = engine, stemmer

    def __len__(self) -> int:
        return int(self._engine.scores["num_docs"])

    def search(self, text: str, k: int, allowed: NDArray[np.int64] | None = None) -> Hits:
        """The best positions that have at least one of the text's terms.

        Args:
            text: The question; see ``Analyzer.asked`` for what of it counts.
            k: How many at most.
            allowed: Only these positions, ascending; None all.
        """
        numbers = self._engine.get_tokens_ids(Analyzer(self._stemmer).asked(text))
        if not numbers or len(self) == 0:
            return NO_HITS
        scores = self._engine.get_scores_from_ids(numbers)
        positions = np.flatnonzero(scores > 0) if allowed is None else allowed[scores[allowed] > 0]
        return top(positions.astype(np.int64), scores[positions], k)

    def save(self, root: Path, folder: str) -> tuple[FileEntry, ...]:
        """Writes the files of a new folder below the index folder."""
        target = root / folder
        with guarded(root):
            target.mkdir(parents=True)
            self._engine.save(target, show_progress=False)
            about = {"version": VERSION, "stemmer": self._stemmer}
            (target / _ABOUT).write_text(json.dumps(about), encoding="utf-8")
            names = sorted(path.name for path in target.iterdir())
            entries = tuple(entry_of(root, f"{folder}/{name}") for name in names)
            sync_folder(target)
            sync_folder(root)
        return entries


def build(texts: Iterable[str]) -> Postings:
    """Builds postings over texts in order, in one pass.

    Args:
        texts: What is searched of each passage, as ``searched_text`` gives it.
    """
    stemmer = stemmer_name()
    analyzer = Analyzer(stemmer)
    numbers = _Numbers(analyzer)
    lengths = array("q")
    found = array("i")
    chunks: list[_Chunk] = []
    done = 0
    for text in texts:
        before = len(found)
        found.extend(map(numbers.__getitem__, analyzer.words(text)))
        lengths.append(len(found) - before)
        if len(lengths) - done == _CHUNK:
            chunks.append(_Chunk(found, lengths, done))
            found, done = array("i"), len(lengths)
    chunks.append(_Chunk(found, lengths, done))
    return Postings(_engine(numbers.terms, np.array(lengths, dtype=np.int64), chunks), stemmer)


class _Numbers(dict[str, int]):
    """Word to number of its term; each word is stemmed once."""

    def __init__(self, analyzer: Analyzer) -> None:
        super().__init__()
        self._analyzer = analyzer
        self.terms: dict[str, int] = {}

    def __missing__(self, word: str) -> int:
        number = self[word] = self.terms.setdefault(self._analyzer.term(word), len(self.terms))
        return number


class _Chunk:
    """Counted terms of a few thousand passages, sorted by term and passage."""

    def __init__(self, numbers: array[int], lengths: array[int], first: int) -> None:
        owners = np.repeat(np.arange(first, len(lengths)), np.array(lengths[first:], dtype=np.int64))
        keys = np.array(numbers, dtype=np.int64) << 32 | owners
        pairs, counts = np.unique(keys, return_counts=True)
        self.terms: NDArray[np.int32] = (pairs >> 32).astype(np.int32)
        # Small types: this is what the whole index is held in until its columns can be laid out.
        self.first = first
        self.owners: NDArray[np.uint16] = ((pairs & 0xFFFFFFFF) - first).astype(np.uint16)
        self.counts: NDArray[np.uint16] = np.minimum(counts, 0xFFFF).astype(np.uint16)


def _engine(vocabulary: dict[str, int], lengths: NDArray[np.int64], chunks: list[_Chunk]) -> Any:
    """Puts the chunks together, column by column of the term-passage matrix, as bm25s lays it out."""
    import bm25s

    engine = bm25s.BM25(k1=K1, b=B, method="lucene", backend="numpy", csc_backend="numpy")
    frequencies = np.zeros(len(vocabulary), np.int64)
    for chunk in chunks:
        frequencies += np.bincount(chunk.terms, minlength=len(vocabulary))
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(frequencies)])
    data = np.empty(starts[-1], np.float32)
    indices = np.empty(starts[-1], np.int32)
    total = len(lengths)
    # As bm25s' "lucene": Kamphuis et al., Which BM25 Do You Mean? (2020).
    weight = np.log(1 + (total - frequencies + 0.5) / (frequencies + 0.5)).astype(np.float32)
    norm = K1 * ((1 - B) + B * lengths / max(float(lengths.mean()) if total else 0.0, 1e-9))
    heads = starts[:-1].copy()
    while chunks:
        chunk = chunks.pop(0)
        terms, first, counts = np.unique(chunk.terms, return_index=True, return_counts=True)
        inside = np.arange(len(chunk.terms)) - np.repeat(first, counts)
        places = heads[chunk.terms] + inside
        owners = chunk.owners.astype(np.int32) + chunk.first
        indices[places] = owners
        data[places] = weight[chunk.terms] * (chunk.counts / (norm[owners] + chunk.counts))
        heads[terms] += counts
    engine.scores = {"data": data, "indices": indices, "indptr": starts, "num_docs": total}
    engine.vocab_dict = vocabulary
    engine.unique_token_ids_set = set(vocabulary.values())
    engine.nonoccurrence_array = None
    return engine


def load(root: Path, files: tuple[FileEntry, ...], count: int) -> Postings:
    """Opens saved postings; the arrays stay in the page cache.

    Raises:
        FileNotFoundError: A file is gone.
        StoreDamaged: They are not what the manifest says.
    """
    import bm25s

    folder = root / files[0].name.split("/")[0]
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        version, stemmer = about["version"], about["stemmer"]
        postings = Postings(bm25s.BM25.load(folder, mmap=True, show_progress=False), stemmer)
        entries = {key: len(postings._engine.scores[key]) for key in ("data", "indices")}
        sound = len(set(entries.values())) == 1 and len(postings) == count
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise StoreDamaged(f"{folder}: the term index is damaged: {error!r}.", hint=rebuild_hint(root)) from error
    if not sound:
        raise StoreDamaged(f"{folder}: the term index is not this index's.", hint=rebuild_hint(root))
    if version != VERSION:
        raise StoreDamaged(
            f"{folder}: terms of version {version!r}; this ragzip has {VERSION}.", hint=rebuild_hint(root)
        )
    return postings
