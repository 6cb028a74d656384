"""Semantic compression: a word without which its sentence means the same, to an encoder, can go."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ragzip import models
from ragzip.compressors._options import check_count
from ragzip.compressors._tokenwise import TokenScorer, Words
from ragzip.errors import ConfigError
from ragzip.models import EMBEDDER, Dtype, check_options
from ragzip.models.token_windows import borders, split
from ragzip.text import sentences
from ragzip.types import Query

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ragzip.models import Encoder

    Ints = npt.NDArray[np.int64]

_WINDOW = 64  # tokens of a sentence that are looked at together: the work for a word grows with it
_ROWS = 4096  # variants encoded at once: bounds memory


@dataclass(frozen=True)
class SemanticDrop(TokenScorer):
    """Drops the words whose removal moves the embedding of their sentence least (TCRA-LLM, arXiv:2310.15556).

    A word's score is ``1 - cos(e, e')``, 0 to 2, with ``e`` the embedding of its sentence and ``e'`` that of the
    sentence without the word; sentences longer than 64 tokens, or than the encoder's window, are taken in parts. The
    question is not read. Without threshold, keep and budget, half of the tokens are kept.

    The published method drops one word after the other, and looks at the rest anew. Here all words are dropped at once
    unless there are more ``rounds``: words that can stand for each other then go together.

    As published, every word costs a pass over its sentence: 24 times the work of reading the text once, on English
    prose. ``exact=False`` reads it once and takes the word's vectors out of the mean that is the embedding; on the
    same prose nine tenths of the better half of the words are the same.

    Attributes:
        exact: Whether sentences are encoded anew without each word. False needs an encoder that takes the mean of
            its token vectors, as most do.
        rounds: How often the words of a sentence are looked at. After each round the least needed go, an equal share of
            them each time, and the others are looked at without them. Each costs time.
        model: A sentence encoder: a name that ``ragzip models`` lists, a folder, or a model of the hub.
        dtype: ``auto`` (bf16 where that is much faster, else fp32), ``fp32``, ``bf16`` or ``fp16``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``xpu``.
    """

    scale: ClassVar[tuple[float, float]] = (0.0, 2.0)

    exact: bool = True
    rounds: int = 1
    model: str = EMBEDDER
    dtype: Dtype = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError("model", f"must be the name or folder of a model, not {self.model!r}")
        check_count("rounds", self.rounds, least=1)
        check_options(self.dtype, self.device)

    def load(self) -> Encoder:
        """The encoder, loaded now unless it is already."""
        return models.load_encoder(self.model, dtype=self.dtype, device=self.device)

    def score(self, query: Query, groups: Sequence[Words]) -> Sequence[Sequence[float]]:
        """Distances, 0 to 2; a word of which the encoder reads nothing (control characters) has 0."""
        import numpy as np

        encoder = self.load()
        scores = [np.zeros(len(group.spans)) for group in groups]
        parts = [
            (number, part)
            for number, (group, (ids, offsets)) in enumerate(
                zip(groups, encoder.tokens([group.text for group in groups]), strict=True)
            )
            for part in _parts(group, ids, offsets, min(_WINDOW, encoder.room))
        ]
        distinct = {part.key: part for _, part in parts}
        distances = _encoded if self.exact else _pooled
        rows = _in_rounds(list(distinct.values()), self.rounds, partial(distances, encoder))
        found = dict(zip(distinct, rows, strict=True))
        for number, part in parts:
            # A word that goes on in the next part counts by the part that needs it most.
            np.maximum.at(scores[number], part.first + np.arange(part.words), found[part.key])
        return [row.tolist() for row in scores]


@dataclass(frozen=True, eq=False, slots=True)
class _Part:
    """A sentence, or a part of a long one.

    Attributes:
        ids: ``[n_tokens]``.
        token: ``[n_pairs]``: tokens that belong to words.
        word: ``[n_pairs]``: the words that they belong to, counted from the part's first.
        first: The index of the part's first word in its group.
        words: How many words it has.
        key: Equal for parts that get equal scores.
    """

    ids: Ints
    token: Ints
    word: Ints
    first: int
    words: int
    key: tuple[bytes, bytes, bytes]


def _parts(group: Words, ids: Ints, offsets: Ints, most: int) -> Iterator[_Part]:
    import numpy as np

    from ragzip.compressors._words import touching

    if not len(ids):
        return
    token, word = touching(offsets, group.spans)
    between = borders(group.spans, offsets)
    edges = [0, *borders(sentences(group.text), offsets).tolist(), len(ids)]
    for sentence in itertools.pairwise(edges):
        for start, end in split(sentence, most, [lambda: between]):
            left, right = np.searchsorted(token, [start, end])
            if left == right:
                continue
            first, last = int(word[left:right].min()), int(word[left:right].max())
            own, tokens, words = ids[start:end], token[left:right] - start, word[left:right] - first
            key = (own.tobytes(), tokens.tobytes(), words.tobytes())
            yield _Part(own, tokens, words, first, last - first + 1, key)


def _in_rounds(
    parts: Sequence[_Part], rounds: int, distances: Callable[[Sequence[_Part]], Sequence[npt.NDArray[np.float64]]]
) -> list[npt.NDArray[np.float64]]:
    """For each part ``[n_words]``: how far its embedding moves without each word, and without those that went before.

    No word scores less than one that went in an earlier round.
    """
    import numpy as np

    scores = [np.zeros(part.words) for part in parts]
    left = [np.arange(part.words) for part in parts]
    least = [0.0] * len(parts)  # what the last word that went scored
    for _ in range(rounds):
        unsure = [i for i, some in enumerate(left) if len(some)]
        if not unsure:
            break
        for i, found in zip(unsure, distances([_only(parts[i], left[i]) for i in unsure]), strict=True):
            order = np.argsort(found, kind="stable")
            share = -(-parts[i].words // rounds)
            gone, stay = left[i][order[:share]], order[share:]
            scores[i][left[i]] = np.maximum(found, least[i])
            least[i], left[i] = scores[i][gone].max(), np.sort(left[i][stay])
    return scores


def _only(part: _Part, words: Ints) -> _Part:
    """The part with these of its words alone."""
    import numpy as np

    if len(words) == part.words:
        return part
    gone = np.setdiff1d(part.token[~np.isin(part.word, words)], part.token[np.isin(part.word, words)])
    stays = np.setdiff1d(np.arange(len(part.ids)), gone)
    held = np.isin(part.word, words)
    token, word = np.searchsorted(stays, part.token[held]), np.searchsorted(words, part.word[held])
    return replace(part, ids=part.ids[stays], token=token, word=word, words=len(words))


def _pooled(encoder: Encoder, parts: Sequence[_Part]) -> list[npt.NDArray[np.float64]]:
    """For each part ``[n_words]``: how far the embedding moves without the vectors of each word's tokens."""
    import numpy as np

    found = []
    for part, (vectors, around) in zip(parts, encoder.token_vectors([part.ids for part in parts]), strict=True):
        own = vectors.astype(np.float64)
        whole = own.sum(axis=0) + around
        words = np.zeros((part.words, own.shape[1]))
        np.add.at(words, part.word, own[part.token])
        without = whole - words
        norms = np.linalg.norm(without, axis=1) * np.linalg.norm(whole)
        found.append((1.0 - without @ whole / np.maximum(norms, 1e-12)).clip(0.0, 2.0))
    return found


def _encoded(encoder: Encoder, parts: Sequence[_Part]) -> list[npt.NDArray[np.float64]]:
    """For each part ``[n_words]``: how far the embedding moves when the part is encoded without each word."""
    import numpy as np

    found: list[npt.NDArray[np.float64]] = [np.zeros(0)] * len(parts)
    waiting: list[int] = []
    rows: list[Ints] = []
    # Parts of similar length are encoded together; which they are depends on this context alone.
    for place in sorted(range(len(parts)), key=lambda i: -len(parts[i].ids)):
        part = parts[place]
        stays = np.ones((part.words + 1, len(part.ids)), dtype=np.bool_)
        stays[part.word + 1, part.token] = False  # the first row is the whole part
        rows += [part.ids[row] for row in stays]
        waiting.append(place)
        if len(rows) >= _ROWS:
            _fill(encoder, parts, waiting, rows, found)
            waiting, rows = [], []
    if rows:
        _fill(encoder, parts, waiting, rows, found)
    return found


def _fill(
    encoder: Encoder,
    parts: Sequence[_Part],
    places: Sequence[int],
    rows: Sequence[Ints],
    found: list[npt.NDArray[np.float64]],
) -> None:
    vectors = encoder.encode_tokens(rows).astype("float64")
    start = 0
    for place in places:
        whole, end = vectors[start], start + parts[place].words + 1
        found[place] = (1.0 - vectors[start + 1 : end] @ whole).clip(0.0, 2.0)
        start = end
