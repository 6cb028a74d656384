"""Controls of soft compression: rows that say nothing of the passages, and none."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ragzip.compressors.refrag import REFRAG
from ragzip.protocols import Compressor
from ragzip.types import Context, Segment, SoftSegment, TextSegment

SEED = 0


@dataclass(frozen=True)
class OtherTexts(Compressor[TextSegment, Segment]):
    """A control: what another compressor makes of other passages, in the place of its own, behind the right titles.

    Attributes:
        inner: The compressor.
        rows: Whether there are rows at all; without them the titles stand alone.
    """

    inner: Compressor[TextSegment, Segment]
    rows: bool = True

    @property
    def space(self) -> str:
        """That of the compressor."""
        return str(getattr(self.inner, "space", ""))

    def compress(self, contexts: Sequence[Context[TextSegment]]) -> Sequence[Context[Segment]]:
        """Rows of passages of other questions; without them a lone full stop for each passage."""
        if not self.rows:
            return [
                dataclasses.replace(c, segments=tuple(dataclasses.replace(s, text=".") for s in c.segments))
                for c in contexts
            ]
        others = _others()
        found = []
        for context in contexts:
            draw = random.Random(context.query.text)
            strange = tuple(dataclasses.replace(s, text=draw.choice(others)) for s in context.segments)
            (after,) = self.inner.compress([dataclasses.replace(context, segments=strange)])
            found.append(after)
        return found


@dataclass(frozen=True)
class OtherRows(Compressor[TextSegment, Segment]):
    """A control: the text that ``refrag`` leaves, with the rows of chunks of other passages, or without any.

    Attributes:
        inner: The compressor.
        rows: Whether there are rows at all.
    """

    inner: REFRAG
    rows: bool = True

    @property
    def space(self) -> str:
        """That of the compressor."""
        return self.inner.space

    def compress(self, contexts: Sequence[Context[TextSegment]]) -> Sequence[Context[Segment]]:
        """The same contexts with other rows."""
        found = []
        for context in self.inner.compress(contexts):
            draw = random.Random(context.query.text)
            segments: list[Segment] = []
            for segment in context.segments:
                if not isinstance(segment, SoftSegment):
                    segments.append(segment)
                elif self.rows:
                    pool = _other_rows(self.inner)
                    places = [draw.randrange(len(pool)) for _ in range(len(segment.embeddings))]
                    segments.append(dataclasses.replace(segment, embeddings=pool[places]))
            found.append(dataclasses.replace(context, segments=tuple(segments)))
        return found


@cache
def _other_rows(method: REFRAG) -> Any:
    encoder = method.load()
    chunks = [text[a:b] for text in _others() for a, b in encoder.cut(text) if text[a:b].strip()]
    return encoder.project(chunks, encoder.vectors(chunks))


def _others() -> list[str]:
    from ragzip.evaluation.data import open_set

    records = open_set("squad:train").sample(200, SEED).records
    return [passage.text for record in records for passage in record.passages]
