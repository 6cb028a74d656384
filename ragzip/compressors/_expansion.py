"""Which chunks of a context are worth their tokens: the policies of ``refrag``."""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ragzip import models
from ragzip.compressors._groups import owner
from ragzip.compressors._layout import Layout
from ragzip.errors import ModelError
from ragzip.indexes import looks
from ragzip.models.perplexity import load_perplexity
from ragzip.models.shipped import PROVENCE
from ragzip.types import TextSegment

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.compressors.refrag import REFRAG
    from ragzip.models.chunks import ChunkEncoder

_WORD = re.compile(r"\w")
_ASKS = "\n\nQuestion:"


SCALES: dict[str, tuple[float, float]] = {
    "provence": (0.0, 1.0),
    "similarity": (-1.0, 1.0),
    "perplexity": (-math.inf, 0.0),
}
"""From the least to the greatest score of a policy; those of other policies have no bounds."""


BY_VECTORS = frozenset({"similarity", "trained"})
"""The policies that need vectors of the chunks; the others read the text."""


def most_as_text(share: float, count: int) -> int:
    """How many of so many chunks may stay text."""
    return math.floor(share * count + 1e-9)


def scores(
    method: REFRAG, encoder: ChunkEncoder, layout: Layout, units: Sequence[int], vectors: Tensor | None
) -> list[tuple[float, float]]:
    """What each chunk of ``units`` is worth by the method's policy, and what parts equal ones; greater is better.

    Without a question all are alike.

    Args:
        method: Its policy, dtype and device.
        encoder: Of the chunks.
        layout: The context in chunks.
        units: Those that are not blank.
        vectors: Theirs, ``[n, encoder dimensions]``; only the policies ``BY_VECTORS`` need them.

    Raises:
        ModelError: A score is not a finite number.
    """
    question = layout.context.query.text
    if not question.strip():
        return [(0.0, 0.0)] * len(units)
    if method.policy == "provence":
        found = _by_provence(method, question, layout, units)
    elif method.policy == "perplexity":
        found = [(score, 0.0) for score in _by_perplexity(method, encoder, question, layout, units)]
    else:
        read = encoder.vectors([layout.text(unit) for unit in units]) if vectors is None else vectors
        found = [(float(score), 0.0) for score in _by_vectors(method, encoder, question, read)]
    if not all(math.isfinite(score) for both in found for score in both):
        raise ModelError(
            f"the policy {method.policy!r} gave a score that is not a number", hint="Read with dtype: fp32."
        )
    return found


def load_policy(method: REFRAG, encoder: ChunkEncoder) -> None:
    """Loads what a policy reads with beside the encoder, unless it is loaded already.

    Raises:
        ModelError: It is not here, or the weights have no policy that was trained.
    """
    if method.policy == "trained":
        encoder.check_policy()
    if method.policy == "provence":
        models.load_pruner(PROVENCE, dtype=method.dtype, device=method.device)
    if method.policy == "perplexity":
        load_perplexity(encoder.space, dtype=method.dtype, device=method.device)


def _by_vectors(method: REFRAG, encoder: ChunkEncoder, question: str, vectors: Tensor) -> list[float]:
    """By what was learned about vectors, or by their cosines to the question's.

    A question that is longer than the encoder's window is read in parts: the closest one counts, or their mean.
    """
    import torch

    asked = encoder.vectors(encoder.parts(question))
    if method.policy == "trained":
        return list(encoder.wish(asked.mean(0), vectors).tolist())
    return list(torch.nn.functional.cosine_similarity(asked[:, None], vectors[None], dim=-1).amax(0).tolist())


def _by_provence(method: REFRAG, question: str, layout: Layout, units: Sequence[int]) -> list[tuple[float, float]]:
    """The score of the best sentence that a chunk has a part of, 0 to 1, and the chunk's own.

    Segments are read as wholes, and what has no word scores 0.
    """
    pruner = models.load_pruner(PROVENCE, dtype=method.dtype, device=method.device)
    sentences = Layout(layout.context)
    segments = sorted({layout.units[unit].segment for unit in units})
    given = []
    for index in segments:
        segment = layout.context.segments[index]
        text = segment.text if isinstance(segment, TextSegment) else ""
        given.append(looks.Read(text, layout.title(index), tuple(sentences.places(index)), owner(segment, index)))
    best: dict[int, tuple[float, float]] = {}
    for index, one, judged in zip(segments, given, looks.judge(pruner, question, given), strict=True):
        said = [bool(_WORD.search(one.text, a, b)) for a, b in one.places]
        means = (looks.sentence_means(one.places, judged) * said).tolist()
        own = looks.sentence_means(layout.places(index), judged)
        for unit, mean in zip(layout.of_segment[index], own, strict=True):
            place = layout.units[unit]
            first = bisect_right(one.places, place.start, key=lambda sentence: sentence[1])
            last = bisect_left(one.places, place.end, key=lambda sentence: sentence[0])
            best[unit] = max(means[first:last], default=0.0), float(mean)
    return [best[unit] for unit in units]


def _by_perplexity(
    method: REFRAG, encoder: ChunkEncoder, question: str, layout: Layout, units: Sequence[int]
) -> list[float]:
    """How little the question surprises the generator behind each chunk, in nats a token, as its negative."""
    reader = load_perplexity(encoder.space, dtype=method.dtype, device=method.device)
    asked = question.strip()[-4 * reader.longest :]  # of a very long one the end: that is where it asks
    while asked and reader.count([f" {asked}"])[0] > reader.longest:
        asked = asked[-(len(asked) * 3 // 4) :] if len(asked) > 1 else ""
    texts = reader.encode([f"{layout.text(unit)}{_ASKS}" for unit in units])
    return [-reading.after for reading in reader.read(texts, suffix=f" {asked}")]
