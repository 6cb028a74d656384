"""Token counts as the frozen generator consumes them, and the one way a context is laid out as text.

A context is laid out as its segments one after the other with a blank line between; a segment whose passage has a
title is preceded by it on a line of its own, and so is one that was written from several that share one. Prompts
render with ``lay_out`` and the counter counts what it gives, so that a budget that is met in the count is met in the
prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ragzip.types import Context, Passage, S_co, Segment, SoftSegment, TextSegment

SEPARATOR = "\n\n"


def lay_out(context: Context[S_co], *, titles: bool = True) -> tuple[str | S_co, ...]:
    """The context's segments with titles and separators between them, as pieces of a prompt.

    A title is printed once for neighbouring segments of one passage, and nothing at all where one of the two is soft:
    rows and text of one passage are read on. Segments without text or rows are left out.
    Where passage ids repeat, the first passage counts, as in ``Context.passage``.
    """
    by_id = {passage.id: passage for passage in reversed(context.passages)} if titles else {}
    pieces: list[str | S_co] = []
    last_passage: str | None = None
    titled: str | None = None  # the passage whose title what comes next would stand under
    last: Segment | None = None
    for segment in context.segments:
        if isinstance(segment, TextSegment) and not segment.text.strip():
            continue
        if isinstance(segment, SoftSegment) and segment.embeddings.shape[0] == 0:
            continue
        passage_id = segment.sources[0].passage_id if segment.sources else None
        title = title_of(segment, by_id) if passage_id is None or passage_id != titled else ""
        same = passage_id is not None and passage_id == last_passage
        on = same and last is not None and _reads_on(last, segment)
        lead = (SEPARATOR if pieces and not on else "") + (title + "\n" if title else "")
        if lead:
            pieces.append(lead)
        pieces.append(segment)
        last_passage, last = passage_id, segment
        titled = None if mixed(segment, by_id) else passage_id
    return tuple(pieces)


def title_of(segment: Segment, passages: Mapping[str, Passage]) -> str:
    """The title that is printed before a segment, or "": that of its first passage, and none where it is ``mixed``.

    Args:
        segment: With spans or without.
        passages: By id.
    """
    first = passages.get(segment.sources[0].passage_id) if segment.sources else None
    return first.title if first is not None and not mixed(segment, passages) else ""


def mixed(segment: Segment, passages: Mapping[str, Passage]) -> bool:
    """Whether a segment was written from passages with several titles: it belongs under none of them.

    One whose text is that of its spans, word for word, does not count: a part of it would get a title that it has not.
    """
    found = [passages.get(span.passage_id) for span in segment.sources]
    if len({passage.title if passage else "" for passage in found}) < 2:
        return False
    if not isinstance(segment, TextSegment):
        return True
    texts = [p.text[s.start : s.end] if p else "" for p, s in zip(found, segment.sources, strict=True)]
    return segment.text != segment.joiner.join(texts)


def _reads_on(first: Segment, second: Segment) -> bool:
    """Whether one of two segments of a passage is soft, and the second one goes on where the first one ends.

    Parts of what was rewritten name all that it was read from, the same each.
    """
    if not first.sources or not (isinstance(first, SoftSegment) or isinstance(second, SoftSegment)):
        return False
    if first.sources == second.sources:
        return True
    last, following = first.sources[-1], second.sources[0]
    return last.passage_id == following.passage_id and following.start >= last.end


def text_of(context: Context[Segment], *, titles: bool = True) -> str:
    """The context's text as the generator reads it; soft segments contribute nothing."""
    pieces = lay_out(context, titles=titles)
    return "".join(p if isinstance(p, str) else p.text if isinstance(p, TextSegment) else "" for p in pieces)


@dataclass(frozen=True)
class TokenCounter:
    """Counts with a generator's ``count_tokens``; see ``protocols.Counter``.

    Attributes:
        count_tokens: Tokens of each text, without special tokens.
        titles: Whether the prompt renders titles.
    """

    count_tokens: Callable[[Sequence[str]], Sequence[int]]
    titles: bool = True

    def texts(self, texts: Sequence[str]) -> Sequence[int]:
        """Tokens of each text on its own."""
        return self.count_tokens(texts) if texts else []

    def context(self, context: Context[Segment]) -> int:
        """Tokens of the whole context as laid out, one per soft row."""
        rows, runs = 0, [""]
        for piece in lay_out(context, titles=self.titles):
            if isinstance(piece, SoftSegment):  # the texts on both sides of rows are read apart
                rows += int(piece.embeddings.shape[0])
                runs.append("")
            else:
                runs[-1] += piece if isinstance(piece, str) else piece.text
        texts = [run for run in runs if run]
        return rows + (sum(map(int, self.count_tokens(texts))) if texts else 0)
