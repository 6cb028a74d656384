"""Do the encodings find what MaxSim finds? On data without clusters they do not, and it is better to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ragzip.indexes.multi_vector.candidates import nearest
from ragzip.indexes.multi_vector.fde import FDE
from ragzip.indexes.multi_vector.maxsim import maxsim
from ragzip.indexes.multi_vector.tokens import Tokens
from ragzip.indexes.ranking import top
from ragzip.text import sentences

if TYPE_CHECKING:
    from ragzip.indexes.index import Index
    from ragzip.models.late_interaction import LateInteraction

_QUERIES, _SAMPLE, _CANDIDATES, _BEST = 24, 4096, 200, 10
_BLOCK = 256  # passages whose token vectors are in memory at once


@dataclass(frozen=True)
class Recall:
    """How many of the best passages by MaxSim are among the candidates.

    Attributes:
        recall: Share of the ten best that are, the mean over queries.
        queries: Sentences of passages.
        sample: Passages that were searched.
        candidates: How many of them the encodings chose.
    """

    recall: float
    queries: int
    sample: int
    candidates: int


def recall(model: LateInteraction, index: Index, tokens: Tokens, fde: FDE) -> Recall:
    """Measures it with sentences of the index's own passages, spread evenly, over a sample of them."""
    rows = index.rows
    sample = rows[np.unique(np.linspace(0, len(rows) - 1, _SAMPLE).astype(np.int64))]
    asked = sample[np.unique(np.linspace(0, len(sample) - 1, _QUERIES).astype(np.int64))]
    texts = []
    for passage in index.passages(asked):
        found = sentences(passage.text)
        start, end = found[len(found) // 2] if found else (0, 0)
        texts.append(passage.text[start:end] or passage.title)
    queries, shares = model.encode_queries(texts), []
    scores = np.empty((len(queries), len(sample)), np.float32)
    for start in range(0, len(sample), _BLOCK):
        held = tokens.vectors(sample[start : start + _BLOCK])
        for number, query in enumerate(queries):
            scores[number, start : start + _BLOCK] = maxsim(tokens.codec.turn(query), *held)
    for query, mine in zip(queries, scores, strict=True):
        best = top(sample, mine, _BEST).rows
        chosen = nearest(tokens, fde.queries([query])[0], sample, _CANDIDATES).rows
        shares.append(float(np.isin(best, chosen).mean()))
    return Recall(round(float(np.mean(shares)), 4), len(texts), len(sample), min(_CANDIDATES, len(sample)))
