"""Several looks at the same passages: what is found first is read beside the question when they are read again.

The second step of a question of two steps ("Where was the director of the film born?") is recognised only once the
first is known (who directed it).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ragzip.models.pruner import Judged

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ragzip.models.pruner import Pruner, Seen

WORTH = 0.1
"""The least score of a sentence that is followed: one that scores less surely does not help."""

LEAST = 16
"""Characters of a sentence that can be followed."""

AGAIN = 10
"""Passages that are read again, at most: looks after the first one cost the same for any number of passages."""

_TITLE = 80  # characters of a title: it must not take the room of the sentence
_ROOM = 0.4  # of the tokens before the passage: with fewer left, another look would read the question and little more
_WORD = re.compile(r"\w")


@dataclass(frozen=True, slots=True)
class Read:
    """A passage that is to be judged.

    Attributes:
        text: Its text, or a stretch of it.
        title: Its title, or "".
        places: Its sentences: first character and one past the last of each, in order.
        owner: Stretches of one passage have the same; they are not searched again for what one of them says.
    """

    text: str
    title: str
    places: tuple[tuple[int, int], ...]
    owner: str


def told(title: str, sentence: str) -> str:
    """A sentence that was found, as it is read behind the question; the beginning of its title before it."""
    return f"{title[:_TITLE]}: {sentence}" if title else sentence


def judge(
    pruner: Pruner, question: str, given: Sequence[Read], *, hops: int | None = None, seen: Seen | None = None
) -> list[Judged]:
    """Judges passages, in as many looks as there are hops.

    Every look after the first reads the question together with the best sentence that was not yet followed, and those
    ten of the other passages that have most words in common with both (BM25). Of each token's scores, and of each
    passage's, the highest counts. What has no word or fewer than 16 characters is not followed.

    Args:
        pruner: The model.
        question: Any string.
        given: The passages of one context.
        hops: Looks at most; None is as many as the model was trained for. It ends earlier where nothing more is found
            that scores at least 0.1, where there is no other passage, and where the question leaves no room for more.
        seen: What the model read before, and need not read again; filled with what it reads now.
    """
    import numpy as np

    from ragzip.indexes.bm25 import build

    found = pruner.judge(question, [one.text for one in given], [one.title for one in given], seen=seen)
    more_looks = (pruner.hops if hops is None else hops) - 1
    if more_looks and pruner.room(question) < _ROOM * pruner.room(""):
        return found
    followed: set[str] = set()
    for _ in range(more_looks):
        best, sentence = _best(given, found, followed)
        if not sentence:
            break
        followed.add(sentence)
        said = told(given[best].title, sentence)
        others = [i for i, one in enumerate(given) if one.owner != given[best].owner and one.text != given[best].text]
        if len(others) > AGAIN:
            texts = [f"{given[i].title}\n{given[i].text}" for i in others]
            positions, _ = build(texts).search(f"{question} {said}", AGAIN)
            others = [others[position] for position in sorted(positions.tolist())]
        if not others:
            break
        again = pruner.judge(
            question,
            [given[i].text for i in others],
            [given[i].title for i in others],
            found=said,
            seen=seen,
        )
        for i, more in zip(others, again, strict=True):
            keep = np.maximum(found[i].keep, more.keep)
            found[i] = Judged(found[i].offsets, keep, float(np.maximum(found[i].relevance, more.relevance)))
    return found


def _best(given: Sequence[Read], found: Sequence[Judged], followed: set[str]) -> tuple[int, str]:
    """The passage and the text of the best sentence that can be followed and was not; ``(0, "")`` if there is none."""
    best, score = (0, ""), WORTH
    for number, (one, result) in enumerate(zip(given, found, strict=True)):
        for (start, end), value in zip(one.places, sentence_means(one.places, result), strict=True):
            text = one.text[start:end]
            better = value > score or (value == score and not best[1])
            if better and len(text) >= LEAST and _WORD.search(text) and text not in followed:
                best, score = (number, text), float(value)
    return best


def sentence_means(places: Sequence[tuple[int, int]], judged: Judged) -> npt.NDArray[np.float64]:
    """The mean of the token probabilities of each sentence, ``[n_sentences]``; of one without a token, 0.

    A token belongs where its last character stands; one between two sentences counts for the first.
    """
    import numpy as np

    if not places:
        return np.zeros(0)
    firsts = np.asarray([start for start, _ in places])
    owner = (np.searchsorted(firsts, judged.offsets[:, 1] - 1, side="right") - 1).clip(0)
    sums = np.bincount(owner, weights=judged.keep, minlength=len(places))
    counts = np.bincount(owner, minlength=len(places))
    return sums / np.maximum(counts, 1)
