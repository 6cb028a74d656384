"""JPQ: codes of a few bytes a passage, with centroids that were trained together with the encoder of questions.

Joint optimisation of query encoding and product quantisation (https://arxiv.org/abs/2108.00644), and with balanced
codes RepCONC (https://arxiv.org/abs/2110.05789); the passages' vectors stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ragzip.errors import ModelError
from ragzip.retrievers.options import at_least, check_index
from ragzip.types import Passage, Query

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ragzip.indexes import Hits, Index
    from ragzip.indexes.jpq.reader import TrainedCodes
    from ragzip.models import Encoder


@dataclass(frozen=True)
class JPQ:
    """Retrieval by the inner product of a question's vector with what the codes of passages stand for.

    The index has to be made for it (``ragzip index ... --retriever jpq --set model=FOLDER``, with what ``ragzip train
    jpq`` made), and says which model encodes questions; each is encoded on its own.

    Attributes:
        index: The index folder.
        top_k: How many passages at most.
        rescore: So many, or ``top_k`` where that is more, are ranked again by the vectors of the index, and scores are
            then cosines, those of ``dense``; 0 ranks by the codes alone. The question is then encoded a second time, by
            the encoder of the passages: the trained one was made to undo the errors of the codes, which vectors
            do not have.
        filters: ``key=value``, ``key>=3``, ``source=docs/*``; all must hold, and then every passage left is scored.
    """

    index: str
    top_k: int = 20
    rescore: int = 0
    filters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_index(self.index, self.top_k, self.filters)
        at_least("rescore", self.rescore, 0)

    @property
    def structures(self) -> tuple[str, ...]:
        """Of the index, those that it reads."""
        return ("jpq", "vectors") if self.rescore else ("jpq",)

    def load(self) -> None:
        """Opens the index and loads its models now rather than at the first question."""
        from ragzip.indexes import using

        using(self.index, lambda index: self._search(index, [Query("?")], 1))

    def retrieve(self, queries: Sequence[Query], *, top_k: int | None = None) -> list[list[Passage]]:
        """The best passages of each question, best first; equal scores in the order of the index.

        Raises:
            StoreError: The index cannot be opened, or indexing was stopped before its codes were done.
            StoreMismatch: It was made without codes, or with another model.
            ModelError: A model is not here.
        """
        from ragzip.indexes import using

        k = self.top_k if top_k is None else at_least("top_k", top_k, 1)
        return using(self.index, lambda index: self._search(index, queries, k)) if queries else []

    def _search(self, index: Index, queries: Sequence[Query], k: int) -> list[list[Passage]]:
        if len(index) == 0:
            return [[] for _ in queries]
        from ragzip.indexes.jpq.part import gone
        from ragzip.indexes.jpq.reader import TrainedCodes
        from ragzip.models import load_encoder

        codes: TrainedCodes = index.opened("jpq", TrainedCodes)
        try:
            encoder = load_encoder(codes.model_name)
        except ModelError as error:
            raise gone(index, error) from error
        codes.check_model(encoder)
        texts = [query.text for query in queries]
        allowed = index.rows_where(self.filters) if self.filters else None
        wanted = max(self.rescore, k) if self.rescore else k
        found = [codes.search(vector, wanted, allowed) for vector in encoder.encode_each(texts)]
        if self.rescore:
            plain = load_encoder(index.model_name())
            found = _scored_again(index, plain, texts, found, k)
        return [index.passages(hits.rows, hits.scores) for hits in found]


def _scored_again(index: Index, encoder: Encoder, texts: Sequence[str], found: Sequence[Hits], k: int) -> list[Hits]:
    """The best ``k`` of what was found, by the index's own vectors."""
    import numpy as np

    from ragzip.indexes.ranking import top

    index.check_model(encoder)
    ranked = []
    for vector, hits in zip(encoder.encode_queries(texts), found, strict=True):
        rows: NDArray[np.int64] = np.sort(hits.rows)
        ranked.append(top(rows, index.vectors.scores(vector, rows), k))
    return ranked
