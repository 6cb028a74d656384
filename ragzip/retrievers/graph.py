"""Graph: passages that a walk from the question comes by: from what is near it to what that speaks of, and on.

The walk is personalised PageRank over passages, entities and documents, as in HippoRAG 2 (Gutierrez et al., ICML 2025,
arXiv 2502.14802), whose graph comes from a language model; this one is found in the text itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from ragzip.errors import ConfigError
from ragzip.retrievers.options import at_least, check_index
from ragzip.types import Passage, Query

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ragzip.indexes import Hits, Index
    from ragzip.indexes.graph.network import Network

Method = Literal["pagerank", "submodular"]
Seeding = Literal["best", "all"]

_CANDIDATES = 500
_SHARES = ("near", "next", "document", "link", "title", "mention", "name", "term", "triple")


@dataclass(frozen=True)
class Graph:
    """Retrieval by a walk through the graph of an index that was made with ``--retriever graph``.

    The walk starts, and starts again, at the passages nearest to the question, at those that share its words, and at
    the entities it names; where it is most often is found. A passage leads to its neighbours, to the names in it, and
    so to the passages about these: what the second step of a question needs, though the question does not name it.

    Attributes:
        index: The index folder.
        top_k: How many passages at most.
        filters: As for ``dense``; the walk crosses what they leave out, but only what passes is found.
        method: ``pagerank``, or ``submodular``: of the best ``pool`` by that, those which together stand for all of
            them and are unlike each other (arXiv 2507.19715); scores are then 1 over the place.
        seeding: ``best``: the walk starts from the ``seeds`` best passages, by how near they are; ``all``: from all
            of them, as in HippoRAG 2, and from the entities by ``1 / passages`` each.
        seeds: Of ``best``: from how many passages, at most, of each search.
        temperature: Of ``best``: a passage whose cosine is less by this much starts 1/e as many walks.
        entities: Of ``best``: share of the starts at entities, where the question names any.
        words: Of ``best``: share of the starts at passages found by words (BM25), where there are any.
        passage_weight: Of ``all``: weight of the nearest passage beside the entities.
        damping: How likely the walk goes on at each step.
        hops: Steps that are followed from a start, at most.
        budget: Edges that are followed for a question, at most.
        mix: Share of the cosine in the score, beside that of the walk; each over its greatest for the question.
        pool: Of ``submodular``: how many passages it chooses from.
        diversity: Of ``submodular``: weight of the distance of a pair.
        near: How much edges to the nearest passages count at a passage; and likewise
        next: to the passages before and after;
        document: between passages of one document;
        link: to linked documents;
        title: between a passage and what its title names;
        mention: between a passage and the title of another that stands in it;
        name: and a name, found by capitals;
        term: and a rare word;
        triple: and the two ends of a fact, where a language model found some.
    """

    index: str
    top_k: int = 20
    filters: tuple[str, ...] = ()
    method: Method = "pagerank"
    seeding: Seeding = "best"
    seeds: int = 20
    temperature: float = 0.03
    entities: float = 0.3
    words: float = 0.3
    passage_weight: float = 0.05
    damping: float = 0.9
    hops: int = 20
    budget: int = 100_000
    mix: float = 0.05
    pool: int = 100
    diversity: float = 0.002
    near: float = 0.1
    next: float = 1.0
    document: float = 0.3
    link: float = 1.0
    title: float = 1.0
    mention: float = 0.5
    name: float = 0.5
    term: float = 0.3
    triple: float = 1.0

    def __post_init__(self) -> None:
        check_index(self.index, self.top_k, self.filters)
        for name, known in (("method", get_args(Method)), ("seeding", get_args(Seeding))):
            if getattr(self, name) not in known:
                raise ConfigError(name, f"must be {' or '.join(known)}, not {getattr(self, name)!r}")
        for name in ("seeds", "hops", "budget", "pool"):
            at_least(name, getattr(self, name), 1)
        for name, least, most in (
            ("entities", 0, 1), ("words", 0, 1), ("mix", 0, 1), ("damping", 0, 0.99), ("temperature", 0.001, math.inf),
            ("passage_weight", 0, math.inf), ("diversity", 0, math.inf), *((name, 0, math.inf) for name in _SHARES),
        ):  # fmt: skip
            _within(name, getattr(self, name), least, most)
        if self.entities + self.words > 1:
            raise ConfigError("entities", f"and words must be at most 1 together, not {self.entities + self.words:g}")

    @property
    def structures(self) -> tuple[str, ...]:
        """Of the index, those that it reads."""
        words = self.words > 0 and self.seeding == "best"
        return ("vectors", "faiss", "graph", *(("bm25",) if words else ()))

    @classmethod
    def hipporag2(cls, index: str, top_k: int = 20, filters: tuple[str, ...] = ()) -> Self:
        """With the weights of HippoRAG 2.

        Damping 0.5; starts at entities by 1 over their passages, and at all passages by 0.05 times their cosine,
        stretched to run from 0 to 1; all edges alike; ranked by the walk alone. A question that names no entity is
        answered by cosine alone.
        """
        return cls(
            index, top_k, filters, seeding="all", damping=0.5, mix=0.0, budget=1_000_000, near=1.0, next=1.0,
            document=1.0, link=1.0, title=1.0, mention=1.0, name=1.0, term=1.0, triple=1.0,
        )  # fmt: skip

    def load(self) -> None:
        """Opens the index and its graph, and loads its encoder now rather than at the first question."""
        from ragzip.indexes import using

        using(self.index, lambda index: self._search(index, [Query("?")], 1))

    def retrieve(self, queries: Sequence[Query], *, top_k: int | None = None) -> list[list[Passage]]:
        """The passages of each question, best first; equal scores in the order of the index.

        Raises:
            StoreError: The index cannot be opened, or its graph was not finished.
            StoreMismatch: It was made without a graph, or with another encoder than the one here.
            ModelError: The encoder is not here.
        """
        from ragzip.indexes import using

        k = self.top_k if top_k is None else at_least("top_k", top_k, 1)
        return using(self.index, lambda index: self._search(index, queries, k)) if queries else []

    def _search(self, index: Index, queries: Sequence[Query], k: int) -> list[list[Passage]]:
        name = index.model_name()
        if len(index) == 0:
            return [[] for _ in queries]
        from ragzip.indexes.graph.network import open_network
        from ragzip.models import load_encoder

        network = index.opened("graph", open_network)
        encoder = load_encoder(name)
        index.check_model(encoder)
        found = []
        for query in queries:
            vector = encoder.encode_queries([query.text])[0]
            hits = self._find(index, network, query.text, vector, k)
            found.append(index.passages(hits.rows, hits.scores))
        return found

    def _find(self, index: Index, network: Network, text: str, vector: NDArray[np.float32], k: int) -> Hits:
        """The rows of one question, best first."""
        import numpy as np

        from ragzip.indexes.ranking import Hits, among, top

        depth = _CANDIDATES if k <= _CANDIDATES else len(index)
        asked = vector[None, :]
        wide = len(index) if self.seeding == "all" else max(depth, self.seeds)
        (nearest,) = index.search_vectors(asked, wide)
        allowed = nearest
        rows = network.rows  # older than the index where documents are being added
        passes = None if rows is index.rows else index.rows
        if self.filters:
            (allowed,) = index.search_vectors(asked, depth, self.filters)
            passes = index.rows_where(self.filters)
        restart = self._restart(index, network, text, nearest)
        if restart is None:
            return Hits(allowed.rows[:k], allowed.scores[:k])
        walked = self._walked(network, restart)
        reached = np.flatnonzero(walked > 0)
        if passes is not None:
            reached = reached[among(rows[reached], passes)]
        best = top(rows[reached], walked[reached].astype(np.float32), depth)
        candidates = np.union1d(best.rows, allowed.rows[:depth])
        cosines = np.maximum(index.vectors.scores(vector, candidates), 0.0)
        places, there = network.places(candidates)
        share = np.where(there, walked[places], 0.0) / max(float(walked.max()), 1e-30)
        greatest = max(float(nearest.scores[0]), 1e-9)
        scores = (1 - self.mix) * share + self.mix * np.minimum(cosines / greatest, 1.0)
        ranked = top(candidates, scores.astype(np.float32), len(candidates))
        if self.method == "submodular":
            ranked = self._chosen(index, ranked, k)
        return Hits(ranked.rows[:k], ranked.scores[:k])

    def _restart(self, index: Index, network: Network, text: str, nearest: Hits) -> NDArray[np.float64] | None:
        """Where walks start, ``[nodes]``, summing to 1; None for cosines alone."""
        import numpy as np

        restart = np.zeros(network.nodes)
        named = network.named(text)
        rarity = 1.0 / np.maximum(network.spread[named], 1)
        if self.seeding == "all":
            if len(named) == 0:
                return None
            low, high = float(nearest.scores[-1]), float(nearest.scores[0])
            stretched = (nearest.scores.astype(np.float64) - low) / max(high - low, 1e-9)
            places, there = network.places(nearest.rows)
            restart[places[there]] = self.passage_weight * stretched[there]
            restart[network.passages + named] = rarity
            restart /= restart.sum()
            return restart
        (worded,) = index.search_terms([text], self.seeds) if self.words else (nearest,)
        at_entities = self.entities if len(named) else 0.0
        at_words = self.words if len(worded.rows) else 0.0
        self._start(restart, network, nearest, max(1.0 - at_entities - at_words, 0.0), self.temperature)
        if at_words:
            self._start(restart, network, worded, at_words, _OF_BEST * float(worded.scores[0]))
        if at_entities:
            restart[network.passages + named] += at_entities * rarity / rarity.sum()
        return restart

    def _start(
        self, restart: NDArray[np.float64], network: Network, hits: Hits, share: float, temperature: float
    ) -> None:
        import numpy as np

        scores = hits.scores[: self.seeds].astype(np.float64)
        weights = np.exp((scores - scores[0]) / temperature)
        places, there = network.places(hits.rows[: self.seeds])
        restart[places[there]] += share * weights[there] / weights.sum()

    def _walked(self, network: Network, restart: NDArray[np.float64]) -> NDArray[np.float64]:
        """How often the walk is at each passage, ``[passages]``."""
        from ragzip.indexes.graph.pagerank import pagerank

        shares = [*(getattr(self, name) for name in _SHARES), self.triple]
        tolerance = 1.0 / (self.budget * (1.0 - self.damping))
        steps = network.steps(shares)
        found = pagerank(
            network.indptr, network.indices, steps, restart,
            damping=self.damping, tolerance=tolerance, hops=self.hops,
        )  # fmt: skip
        return found[: network.passages]

    def _chosen(self, index: Index, ranked: Hits, k: int) -> Hits:
        """The best of a ranking in the order of their choice, then, where more are wanted, the rest."""
        import numpy as np

        from ragzip.indexes.graph.select import covering
        from ragzip.indexes.ranking import Hits

        rows, scores = ranked.rows[: self.pool], ranked.scores[: self.pool].astype(np.float64)
        order = np.argsort(rows)
        vectors = np.empty((len(rows), index.vectors.dimensions), np.float32)
        vectors[order] = index.vectors.take(rows[order])
        similarity = np.clip((vectors @ vectors.T).astype(np.float64), 0.0, 1.0)
        chosen = covering(scores / max(scores.sum(), 1e-9), similarity, self.diversity, k)
        whole = np.concatenate([rows[chosen], ranked.rows[len(rows) :]])[:k]
        return Hits(whole, (1.0 / np.arange(1, len(whole) + 1)).astype(np.float32))


_OF_BEST = 0.1
"""A passage whose BM25 score is less by this share of the best one's starts 1/e as many walks."""


def _within(name: str, value: Any, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most or value == math.inf:
        limits = f"from {least:g} to {most:g}" if most < math.inf else f"of at least {least:g}"
        raise ConfigError(name, f"must be a number {limits}, not {value!r}")
