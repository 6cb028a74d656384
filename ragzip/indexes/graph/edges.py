"""From what is known of single rows to one graph over the passages alive.

Beside passages there are nodes for entities (titles, names, rare terms, what triples are about) and for documents. An
entity in ``m`` passages costs ``m`` edges and not ``m`` squared, so that the graph grows with the text. An edge has a
kind; the edges of one kind from one node have weights that sum to 1, and how much a kind counts is for the search to
say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragzip.indexes.graph.mentions import Found, Phrasebook, Stream, names, rare_candidates, together
from ragzip.indexes.graph.rows import stream
from ragzip.indexes.graph.tensors import Arrays
from ragzip.indexes.graph.words import phrases

KINDS = ("near", "next", "document", "link", "title", "mention", "name", "term", "triple", "fact")
"""Nearest vectors; next passage; same document; link; passage and what its title names; passage and another's title;
and a name; and a rare term; and what a triple is about; the two ends of a triple."""

NEAR, NEXT, DOCUMENT, LINK, TITLE, MENTION, NAME, TERM, TRIPLE, FACT = range(len(KINDS))
_BUCKETS = 1 << 22


@dataclass
class _Edges:
    """Directed edges as they are found; of several of one kind between two nodes the heaviest counts."""

    sources: list[NDArray[np.int64]] = field(default_factory=list)
    targets: list[NDArray[np.int64]] = field(default_factory=list)
    kinds: list[NDArray[np.uint8]] = field(default_factory=list)
    weights: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, kind: int, sources: NDArray[Any], targets: NDArray[Any], weights: Any = 1.0) -> None:
        self.sources.append(sources.astype(np.int64))
        self.targets.append(targets.astype(np.int64))
        self.kinds.append(np.full(len(sources), kind, np.uint8))
        self.weights.append(np.broadcast_to(np.asarray(weights, np.float32), len(sources)))

    def both(self, kind: int, sources: NDArray[Any], targets: NDArray[Any], there: Any = 1.0, back: Any = 1.0) -> None:
        self.add(kind, sources, targets, there)
        self.add(kind, targets, sources, back)

    def rows(self, nodes: int) -> Arrays:
        """Compressed sparse rows, by source, kind, target."""
        sources, targets = np.concatenate(self.sources), np.concatenate(self.targets)
        kinds, weights = np.concatenate(self.kinds), np.concatenate(self.weights)
        real = (weights > 0) & (sources != targets)
        sources, targets, kinds, weights = sources[real], targets[real], kinds[real], weights[real]
        order = np.lexsort((-weights, targets, kinds, sources))
        sources, targets, kinds, weights = sources[order], targets[order], kinds[order], weights[order]
        first = np.ones(len(sources), bool)
        first[1:] = np.any([np.diff(column.astype(np.int64)) != 0 for column in (sources, targets, kinds)], axis=0)
        sources, targets, kinds, weights = sources[first], targets[first], kinds[first], weights[first]
        group = sources * len(KINDS) + kinds
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        sums = np.add.reduceat(weights.astype(np.float64), starts) if len(starts) else np.empty(0)
        counts = np.diff(np.append(starts, len(group)))
        return {
            "indptr": np.searchsorted(sources, np.arange(nodes + 1)).astype(np.int64),
            "indices": targets.astype(np.int32),
            "kinds": kinds,
            "weights": (weights / np.repeat(sums, counts)).astype(np.float32),
        }


def assemble(
    files: Callable[[], Iterable[Arrays]], alive: NDArray[np.int64], *, most_passages: int, rare_in: int
) -> Arrays:
    """The graph over the rows alive.

    Args:
        files: Gives what is known of rows, file by file, in row order; read twice.
        alive: Rows, ascending; at least one.
        most_passages: Names that stand in more passages tie nothing together and are left out.
        rare_in: A word is a rare term where it stands in at least two passages and at most so many.

    Returns:
        ``indptr``, ``indices``, ``kinds`` and ``weights`` of the edges; ``keys``, the phrases of the entities, sorted;
        ``spread``, how many passages each entity has; ``shape``: passages, entities, documents.
    """
    first = _First(len(alive))
    for arrays in files():
        first.take(arrays, alive)
    titles = Phrasebook(np.unique(np.concatenate([np.empty(0, np.uint64), *first.titles])))
    mentioned, named, termed = [], [], []
    for arrays in files():
        text = stream(arrays, _positions(arrays["rows"], alive))
        mentioned.append(titles.find(text))
        named.append(names(text))
        termed.append(first.rare(text, rare_in))
    owned = _distinct(np.concatenate([np.empty(0, np.int64), *first.title_owners]), _joined(first.titles))
    mentions = _mentions(together(mentioned), owned, most_passages)
    known = together(named)
    strong = np.unique(known.keys[known.sure])
    known = _only(known, np.isin(known.keys, strong) & ~titles.at(known.keys)[1])
    name_pairs = _frequent(_distinct(known.owners, known.keys), 2, most_passages)
    terms = together(termed)
    terms = _only(terms, ~titles.at(terms.keys)[1] & ~np.isin(terms.keys, name_pairs[1]))
    term_pairs = _frequent(_distinct(terms.owners, terms.keys), 2, rare_in)
    about = _joined(first.triples).reshape(-1, 2)
    about_owners = np.concatenate([np.empty(0, np.int64), *first.triple_owners])
    triple_pairs = _distinct(np.repeat(about_owners, 2), about.ravel())
    pairs = ((TITLE, owned), (MENTION, mentions), (NAME, name_pairs), (TERM, term_pairs), (TRIPLE, triple_pairs))
    keys = np.unique(np.concatenate([found[1] for _, found in pairs]))
    spread = np.zeros(len(keys), np.int64)
    for _, (_, its) in pairs:
        spread += np.bincount(np.searchsorted(keys, its), minlength=len(keys))
    edges = _Edges()
    passages = len(alive)
    for kind, (owners, its) in pairs:
        at = np.searchsorted(keys, its)
        telling = np.log1p(passages / np.maximum(spread[at], 1))
        edges.both(kind, owners, passages + at, telling, 1.0)
    subjects, objects = (passages + np.searchsorted(keys, about[:, side]) for side in (0, 1))
    edges.both(FACT, subjects, objects)
    documents = first.structure(edges, passages + len(keys))
    graph = edges.rows(passages + len(keys) + documents)
    shape = np.array([passages, len(keys), documents], np.int64)
    return {**graph, "keys": keys, "spread": spread, "shape": shape}


class _First:
    """What the first reading of the files gives."""

    def __init__(self, passages: int) -> None:
        self.passages = passages
        self.titles: list[NDArray[np.uint64]] = []
        self.title_owners: list[NDArray[np.int64]] = []
        self.triples: list[NDArray[np.uint64]] = []
        self.triple_owners: list[NDArray[np.int64]] = []
        self._near: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
        self._links: list[tuple[NDArray[np.int64], NDArray[np.uint64]]] = []
        self._sources: NDArray[np.uint64] = np.zeros(passages, np.uint64)
        self._standing = np.zeros(_BUCKETS, np.int32)  # in how many passages the words of a bucket stand

    def take(self, arrays: Arrays, alive: NDArray[np.int64]) -> None:
        positions = _positions(arrays["rows"], alive)
        live = positions >= 0
        self._sources[positions[live]] = arrays["sources"][live]
        for owner, name, whose, values in (
            ("title_rows", "titles", self.title_owners, self.titles),
            ("triple_rows", "triples", self.triple_owners, self.triples),
        ):
            at = _positions(arrays[owner], alive)
            whose.append(at[at >= 0])
            values.append(arrays[name][at >= 0])
        at = _positions(arrays["link_rows"], alive)
        self._links.append((at[at >= 0], arrays["links"][at >= 0]))
        near = _positions(arrays["near"], alive)
        at = np.broadcast_to(positions[:, None], near.shape)
        real = (near >= 0) & (at >= 0)
        self._near.append((at[real], near[real], arrays["cosines"][real].astype(np.float32)))
        _, words = _words(stream(arrays, positions))
        self._standing += np.bincount(words & np.uint32(_BUCKETS - 1), minlength=_BUCKETS).astype(np.int32)

    def rare(self, text: Stream, rare_in: int) -> Found:
        """The words that may stand in few passages: others share their bucket at most."""
        keep = rare_candidates(text) & (self._standing[text.hashes & np.uint32(_BUCKETS - 1)] <= rare_in)
        owners, words = _words(Stream(text.owners[keep], text.hashes[keep], text.flags[keep]))
        keys = next(phrases(words, 1), np.empty(0, np.uint64))
        return Found(owners, keys, np.ones(len(keys), bool))

    def structure(self, edges: _Edges, at: int) -> int:
        """Edges between passages, and between them and documents, whose nodes begin at ``at``; gives their number."""
        for sources, targets, cosines in self._near:
            edges.both(NEAR, sources, targets, cosines, cosines)
        positions = np.arange(self.passages)
        follows = np.flatnonzero(self._sources[1:] == self._sources[:-1])
        edges.both(NEXT, positions[follows], positions[follows + 1])
        book = Phrasebook(np.unique(self._sources))
        inverse, _ = book.at(self._sources)
        linking = np.concatenate([one for one, _ in self._links])
        where, known = book.at(np.concatenate([one for _, one in self._links]))
        linking, where = linking[known], where[known]
        wanted = np.bincount(inverse) > 1
        wanted[where] = True
        number = np.cumsum(wanted) - 1
        members = np.flatnonzero(wanted[inverse])
        edges.both(DOCUMENT, members, at + number[inverse[members]])
        edges.both(LINK, linking, at + number[where])
        return int(wanted.sum())


def _positions(rows: NDArray[np.int64], alive: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of each row among those alive, or -1."""
    places = np.searchsorted(alive, rows).clip(max=max(len(alive) - 1, 0))
    return np.where(alive[places] == rows, places, -1).astype(np.int64)


def _words(text: Stream) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """The different words of each passage."""
    both = np.unique(text.owners.astype(np.uint64) << np.uint64(32) | text.hashes)
    return (both >> np.uint64(32)).astype(np.int64), (both & np.uint64(0xFFFFFFFF)).astype(np.uint32)


_Pairs = tuple[NDArray[np.int64], NDArray[np.uint64]]


def _joined(parts: list[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    return np.concatenate([part.ravel() for part in parts]) if parts else np.empty(0, np.uint64)


def _only(found: Found, keep: NDArray[np.bool_]) -> Found:
    return Found(found.owners[keep], found.keys[keep], found.sure[keep])


def _distinct(owners: NDArray[np.int64], keys: NDArray[np.uint64]) -> _Pairs:
    """Each passage with each of its phrases once."""
    order = np.lexsort((owners, keys))
    owners, keys = owners[order], keys[order]
    first = np.ones(len(keys), bool)
    first[1:] = (owners[1:] != owners[:-1]) | (keys[1:] != keys[:-1])
    return owners[first], keys[first]


def _frequent(pairs: _Pairs, least: int, most: int) -> _Pairs:
    """Those whose phrase stands in so many passages."""
    _, inverse, counts = np.unique(pairs[1], return_inverse=True, return_counts=True)
    fits = (counts[inverse] >= least) & (counts[inverse] <= most)
    return pairs[0][fits], pairs[1][fits]


def _mentions(found: Found, owned: _Pairs, most: int) -> _Pairs:
    """Titles in other passages; a title that is a common word ("Her") counts only where it is written as a name."""
    everywhere = _distinct(found.owners, found.keys)
    usual = np.setdiff1d(everywhere[1], _frequent(everywhere, 1, most)[1])
    kept = _only(found, ~np.isin(found.keys, usual) | found.sure)
    owners, keys = _frequent(_distinct(kept.owners, kept.keys), 1, most)
    # Not where the passage itself has this title.
    different = np.unique(np.concatenate([keys, owned[1]]))
    width = int(max(owners.max(initial=0), owned[0].max(initial=0))) + 1
    own = np.isin(_coded(owners, keys, different, width), _coded(*owned, different, width))
    return owners[~own], keys[~own]


def _coded(
    owners: NDArray[np.int64], keys: NDArray[np.uint64], different: NDArray[np.uint64], width: int
) -> NDArray[np.int64]:
    """A pair as one number."""
    return np.searchsorted(different, keys).astype(np.int64) * width + owners
