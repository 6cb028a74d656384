"""Controls of soft compression: rows that say nothing of the passages, and none."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
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
    """A control: the text that ``refrag`` leaves, with rows of other passages between, or with dots.

    Attributes:
        inner: The compressor.
        rows: Whether there are rows at all; without them three dots stand for each run, so that titles stay.
    """

    inner: REFRAG
    rows: bool = True

    @property
    def space(self) -> str:
        """That of the compressor."""
        return self.inner.space

    def compress(self, contexts: Sequence[Context[TextSegment]]) -> Sequence[Context[Segment]]:
        """The same contexts with other rows, or without."""
        change = self._strange if self.rows else _dotted
        return [dataclasses.replace(c, segments=tuple(change(c))) for c in self.inner.compress(contexts)]

    def _strange(self, context: Context[Segment]) -> Iterator[Segment]:
        """As many rows of neighbouring chunks of another text."""
        draw, pool = random.Random(context.query.text), _other_rows(self.inner)
        for segment in context.segments:
            if isinstance(segment, SoftSegment):
                start = draw.randrange(len(pool))
                places = [(start + i) % len(pool) for i in range(len(segment.embeddings))]
                segment = dataclasses.replace(segment, embeddings=pool[places])
            yield segment


def _dotted(context: Context[Segment]) -> Iterator[Segment]:
    """One text for each passage, with dots where rows stood."""
    for _, run in groupby(context.segments, key=lambda segment: segment.sources[0].passage_id):
        some = list(run)
        text = "".join(segment.text if isinstance(segment, TextSegment) else " ... " for segment in some)
        yield TextSegment(text, tuple(span for segment in some for span in segment.sources))


@cache
def _other_rows(method: REFRAG) -> Any:
    """Rows of paragraphs that no soft training read, one behind the other."""
    from ragzip.evaluation.data import open_set

    encoder, records = method.load(), open_set("squad").sample(200, SEED).records
    texts = [passage.text for record in records for passage in record.passages]
    chunks = [text[a:b] for text in texts for a, b in encoder.cut(text) if text[a:b].strip()]
    return encoder.project(chunks, encoder.vectors(chunks))


def _others() -> list[str]:
    from ragzip.evaluation.data import open_set

    records = open_set("squad:train").sample(200, SEED).records
    return [passage.text for record in records for passage in record.passages]
