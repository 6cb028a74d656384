"""How close whole passages are to a question, by a sentence encoder that reads all of them, in windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ragzip.text import Stretch, cut_before, sentences
from ragzip.types import Context, Segment

if TYPE_CHECKING:
    from ragzip.models import Encoder

_SPECIAL = 2  # tokens that the encoder puts around a text


def titles_of(context: Context[Segment]) -> list[str]:
    """For each segment the title of the passage that its first span lies in, or ""."""
    titles = {passage.id: passage.title for passage in reversed(context.passages)}
    return [titles.get(segment.sources[0].passage_id, "") if segment.sources else "" for segment in context.segments]


def relevance(encoder: Encoder, question: str, texts: Sequence[str], titles: Sequence[str]) -> list[float]:
    """The cosine of each text to the question, 0 to 1; of one longer than the window, its best window's.

    Args:
        encoder: The question runs by itself, and the texts together: call it for one context at a time.
        question: What is asked.
        texts: Any strings; one without a word scores 0.
        titles: Put before every window of its text, unless they take half of it.
    """
    owners: list[int] = []
    windows: list[str] = []
    for number, (text, title) in enumerate(zip(texts, titles, strict=True)):
        for window in cut(encoder, text, title):
            owners.append(number)
            windows.append(window)
    found = [0.0] * len(texts)
    if not windows:
        return found
    asked = encoder.encode([question])[0]
    for owner, score in zip(owners, (encoder.encode(windows) @ asked).clip(0.0, 1.0).tolist(), strict=True):
        found[owner] = max(found[owner], float(score))
    return found


def cut(encoder: Encoder, text: str, title: str) -> list[str]:
    """A text as pieces that the encoder reads whole, each with the title before it, between sentences if possible."""
    room = max(encoder.max_tokens - _SPECIAL, 1)
    lead = f"{title}: " if title else ""
    whole, taken = encoder.count_tokens([lead + text, lead])
    if whole <= room:
        return [lead + text] if text.strip() else []
    if 2 * taken > room:
        lead, taken = "", 0
    places = sentences(text)
    pieces: list[Stretch] = []
    for place, count in zip(places, encoder.count_tokens([lead + text[a:b] for a, b in places]), strict=True):
        pieces += _split(encoder, text, lead, place, count, room)
    return [lead + text[start:end] for start, end in _merged(encoder, text, lead, pieces, room - taken)]


def _merged(encoder: Encoder, text: str, lead: str, pieces: Sequence[Stretch], room: int) -> list[Stretch]:
    """Neighbouring pieces put together as long as they fit."""
    gaps = [0, *(end for _, end in pieces)]
    counts = encoder.count_tokens([text[gap:end] for gap, (_, end) in zip(gaps, pieces, strict=False)])
    groups: list[list[Stretch]] = []
    taken = 0
    for piece, count in zip(pieces, counts, strict=True):
        if groups and taken + count <= room:
            groups[-1].append(piece)
            taken += count
        else:
            groups.append([piece])
            taken = count
    joined = [(group[0][0], group[-1][1]) for group in groups]
    most = encoder.max_tokens - _SPECIAL
    exact = encoder.count_tokens([lead + text[start:end] for start, end in joined])
    # Counts do not add up exactly; where they are off, the pieces stay apart.
    return [
        place
        for group, whole, count in zip(groups, joined, exact, strict=True)
        for place in ([whole] if count <= most else group)
    ]


def _split(encoder: Encoder, text: str, lead: str, place: Stretch, count: int, room: int) -> list[Stretch]:
    """A sentence that is longer than the room, halved until its parts are not."""
    start, end = place
    if count <= room or end - start < 2:
        return [place]
    middle = (start + end) // 2
    space = text.find(" ", middle, end - 1)
    at = start + max(cut_before(text[start:end], middle - start), 1)
    if 0 < space - middle < (end - start) // 4:
        at = space
    found: list[Stretch] = []
    for part in ((start, at), (at, end)):
        (tokens,) = encoder.count_tokens([lead + text[part[0] : part[1]]])
        found += _split(encoder, text, lead, part, tokens, room)
    return found
