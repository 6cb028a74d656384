"""Which chunks of a context are worth their tokens: the policies of ``refrag``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ragzip import models
from ragzip.compressors._groups import best_first
from ragzip.indexes import looks
from ragzip.models.perplexity import load_perplexity
from ragzip.models.shipped import PROVENCE
from ragzip.types import TextSegment

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.compressors._layout import Layout
    from ragzip.compressors.refrag import REFRAG
    from ragzip.models.chunks import ChunkEncoder

_ASKS = "\n\nQuestion:"


def chosen(method: REFRAG, encoder: ChunkEncoder, layout: Layout, units: Sequence[int], vectors: Tensor) -> list[int]:
    """Places in ``units``, those to expand first first; in the order of the text where the question is empty.

    Args:
        method: Its policy, dtype and device.
        encoder: Of the chunks.
        layout: The context in chunks.
        units: Those that are not blank.
        vectors: Theirs, ``[n, encoder dimensions]``.
    """
    question = layout.context.query.text
    if not question.strip():
        return list(range(len(units)))
    if method.policy == "provence":
        return best_first(_by_provence(method, question, layout, units))
    if method.policy == "perplexity":
        return best_first(_by_perplexity(method, encoder, question, layout, units))
    asked = encoder.vectors([question])[0]
    if method.policy == "trained":
        return best_first(encoder.wish(asked, vectors).tolist())
    import torch

    return best_first(torch.nn.functional.cosine_similarity(asked[None], vectors).tolist())


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


def _by_provence(method: REFRAG, question: str, layout: Layout, units: Sequence[int]) -> list[float]:
    """The mean keep probability of each chunk's tokens, with each segment read as a whole."""
    pruner = models.load_pruner(PROVENCE, dtype=method.dtype, device=method.device)
    segments = sorted({layout.units[unit].segment for unit in units})
    given = []
    for index in segments:
        segment, passage = layout.context.segments[index], layout.passage(index)
        text = segment.text if isinstance(segment, TextSegment) else ""
        owner = passage.id if passage else f"\0{index}"
        given.append(looks.Read(text, layout.title(index), tuple(layout.places(index)), owner))
    judged = looks.judge(pruner, question, given)
    scores: dict[int, float] = {}
    for index, one, found in zip(segments, given, judged, strict=True):
        means = looks.sentence_means(one.places, found)
        scores.update(zip(layout.of_segment[index], map(float, means), strict=True))
    return [scores[unit] for unit in units]


def _by_perplexity(
    method: REFRAG, encoder: ChunkEncoder, question: str, layout: Layout, units: Sequence[int]
) -> list[float]:
    """How little the question surprises the generator behind each chunk, in nats a token, as its negative."""
    reader = load_perplexity(encoder.space, dtype=method.dtype, device=method.device)
    asked = question.strip()[: 4 * reader.longest]
    while asked and reader.count([f" {asked}"])[0] > reader.longest:
        asked = asked[: len(asked) * 3 // 4]
    texts = reader.encode([f"{layout.text(unit)}{_ASKS}" for unit in units])
    return [-reading.after for reading in reader.read(texts, suffix=f" {asked}")]
