"""What texts say and how close they are to a question, by a sentence encoder that reads all of them, in windows.

The encoder cuts what is longer than its window without a word. Here such a text is several windows, between sentences
where possible, and a question several parts. A text's own vector is the mean of its windows'; its closeness to a
question is that of the window and the part that are closest, as one sentence that answers is enough. What fits is read
as it is: texts that all fit give the bits that one plain call of the encoder gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from ragzip.text import Stretch, cut_before, sentences
from ragzip.tokens import title_of
from ragzip.types import Context, Segment

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ragzip.models import Encoder


@dataclass(frozen=True, eq=False, slots=True)
class Reading:
    """What an encoder made of some texts.

    Attributes:
        windows: ``[n_windows, d]``, rows of length 1; those of a text together, in the order of the texts.
        owners: ``[n_windows]``: the text that each belongs to. Every text has one at least.
        sizes: ``[n_windows]``: tokens, at least 1; of texts that surely fit 1.
    """

    windows: npt.NDArray[np.float32]
    owners: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.float32]

    def vectors(self) -> npt.NDArray[np.float32]:
        """``[n_texts, d]``, rows of length 1: of a long text the mean of its windows, weighted by their lengths."""
        import numpy as np

        first = np.flatnonzero(np.diff(self.owners, prepend=-1))
        if len(first) == len(self.owners):
            return self.windows
        long = np.diff(first, append=len(self.owners)) > 1
        sums = np.add.reduceat(self.windows * self.sizes[:, None], first)[long]
        found = self.windows[first]
        found[long] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        return found

    def closeness(self, question: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The cosine of each text's best window to the question's best part, 0 to 1: ``[n_texts]``.

        Args:
            question: ``[n_parts, d]``, as ``asked`` gives it; in float64, the cosines are, too.
        """
        import numpy as np

        near = reduce(np.maximum, (self.windows @ part for part in question)).clip(0.0, 1.0)
        found = np.zeros(int(self.owners.max(initial=-1)) + 1, dtype=near.dtype)
        np.maximum.at(found, self.owners, near)
        return found


def read(encoder: Encoder, texts: Sequence[str], titles: Sequence[str]) -> Reading:
    """Reads texts, whole, in one call of the encoder: those of one context together, and of no other.

    Args:
        encoder: Any.
        texts: Any strings, one at least.
        titles: Put before every window of its text, unless they take half of it.
    """
    import numpy as np

    whole = [led(text, title) for text, title in zip(texts, titles, strict=True)]
    owners: list[int] = []
    windows: list[str] = []
    sizes: list[int] = []
    doubtful = [text for text in whole if not _surely_fits(encoder, text)]
    known = dict(zip(doubtful, encoder.count_tokens(doubtful), strict=True)) if doubtful else {}
    for number, text in enumerate(whole):
        found, counts = [text], [known.get(text, 1)]
        if counts[0] > encoder.room:
            found = cut(encoder, texts[number], led("", titles[number])) or found
            counts = encoder.count_tokens(found)
        owners += [number] * len(found)
        windows += found
        sizes += counts
    return Reading(encoder.encode(windows), np.asarray(owners), np.maximum(np.asarray(sizes, dtype=np.float32), 1.0))


def asked(encoder: Encoder, question: str) -> npt.NDArray[np.float32]:
    """The question's vector, run by itself, or those of its parts if it is longer than the window: ``[n_parts, d]``."""
    (whole,) = encoder.asking([question])
    parts = [] if _surely_fits(encoder, whole) else cut(encoder, question, encoder.query_prompt)
    return encoder.encode(parts or [whole])


def led(text: str, title: str) -> str:
    """A text as encoders read it: behind its title, if it has one."""
    return f"{title}: {text}" if title else text


def _surely_fits(encoder: Encoder, text: str) -> bool:
    """Whether a text fits without counting: a token stands for one byte at least."""
    return len(text) <= encoder.room and len(text.encode("utf-8", "surrogatepass")) <= encoder.room


def titles_of(context: Context[Segment]) -> list[str]:
    """For each segment the title of its passage, or "", as it is laid out."""
    passages = {passage.id: passage for passage in reversed(context.passages)}
    return [title_of(segment, passages) for segment in context.segments]


def relevance(encoder: Encoder, question: str, texts: Sequence[str], titles: Sequence[str]) -> list[float]:
    """How close each text is to the question, 0 to 1.

    Args:
        encoder: The question runs by itself, and the texts together: call it for one context at a time.
        question: What is asked.
        texts: Any strings; one without a word scores 0.
        titles: Put before every window of its text, unless they take half of it.
    """
    found = [0.0] * len(texts)
    speak = [number for number, text in enumerate(texts) if text.strip()]
    if speak:
        parts = asked(encoder, question)
        reading = read(encoder, [texts[number] for number in speak], [titles[number] for number in speak])
        for number, score in zip(speak, reading.closeness(parts).tolist(), strict=True):
            found[number] = score
    return found


def cut(encoder: Encoder, text: str, lead: str) -> list[str]:
    """A text as pieces that the encoder reads whole, between sentences if possible.

    Each has ``lead`` before it, a title or a prompt, unless that takes half of the room.
    """
    most = encoder.room
    whole, taken = encoder.count_tokens([lead + text, lead])
    if whole <= most:
        return [lead + text] if text.strip() else []
    if 2 * taken > most:
        lead, taken = "", 0
    places = sentences(text)
    pieces: list[Stretch] = []
    for place, count in zip(places, encoder.count_tokens([lead + text[a:b] for a, b in places]), strict=True):
        pieces += _split(encoder, text, lead, place, count, most)
    return [lead + text[start:end] for start, end in _merged(encoder, text, lead, pieces, most - taken)]


def _merged(encoder: Encoder, text: str, lead: str, pieces: Sequence[Stretch], left: int) -> list[Stretch]:
    """Neighbouring pieces put together as long as they fit."""
    gaps = [0, *(end for _, end in pieces)]
    counts = encoder.count_tokens([text[gap:end] for gap, (_, end) in zip(gaps, pieces, strict=False)])
    groups: list[list[Stretch]] = []
    taken = 0
    for piece, count in zip(pieces, counts, strict=True):
        if groups and taken + count <= left:
            groups[-1].append(piece)
            taken += count
        else:
            groups.append([piece])
            taken = count
    joined = [(group[0][0], group[-1][1]) for group in groups]
    exact = encoder.count_tokens([lead + text[start:end] for start, end in joined])
    # Counts do not add up exactly; where they are off, the pieces stay apart.
    return [
        place
        for group, whole, count in zip(groups, joined, exact, strict=True)
        for place in ([whole] if count <= encoder.room else group)
    ]


def _split(encoder: Encoder, text: str, lead: str, place: Stretch, count: int, most: int) -> list[Stretch]:
    """A sentence that is longer than the room, halved until its parts are not."""
    start, end = place
    if count <= most or end - start < 2:
        return [place]
    middle = (start + end) // 2
    space = text.find(" ", middle, end - 1)
    at = start + max(cut_before(text[start:end], middle - start), 1)
    if 0 < space - middle < (end - start) // 4:
        at = space
    found: list[Stretch] = []
    for part in ((start, at), (at, end)):
        (tokens,) = encoder.count_tokens([lead + text[part[0] : part[1]]])
        found += _split(encoder, text, lead, part, tokens, most)
    return found
