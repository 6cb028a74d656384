"""Questions that are asked again, together with a sentence that was found: what helps once that is known."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from ragzip.indexes.looks import LEAST, told
from ragzip.text import sentences
from ragzip.training.examples import Example, Marked

_ASTRAY = 0.2  # of the second looks, so many follow a sentence that does not help


def second_looks(examples: Sequence[Example], *, share: float, seed: int) -> list[Example]:
    """Examples whose question is the one of another example with a sentence of one of its passages.

    Where several passages help, one of the marked sentences of each is followed, and the other passages are what
    helps now; sometimes it is a sentence that does not help, and all of them are. Where one passage helps, and its
    sentences are marked, nothing is left that helps: these examples have negatives only.

    Args:
        examples: With negatives.
        share: Of the examples with one passage that helps, so many are asked again.
        seed: For every draw.
    """
    draw = random.Random(f"{seed} second looks")  # noqa: S311 - no secret
    found: list[Example] = []
    for example in examples:
        if len(example.positives) > 1:
            found += _followed(example, draw)
        elif draw.random() < share and example.negatives:
            known = [one for marked in example.positives for one in _after(example, marked, draw)]
            found += [replace(one, positives=()) for one in known]
    return found


def _followed(example: Example, draw: random.Random) -> list[Example]:
    found = []
    astray = draw.randrange(len(example.positives)) if draw.random() < _ASTRAY * len(example.positives) else None
    for number, marked in enumerate(example.positives):
        if number == astray and example.negatives:
            found += _after(example, draw.choice(example.negatives), draw)
            continue
        others = tuple(other for other in example.positives if other.text != marked.text)
        found += [replace(one, positives=others) for one in _after(example, marked, draw) if others]
    return [replace(one, id=f"{one.id} {number}") for number, one in enumerate(found)]


def _after(example: Example, marked: Marked, draw: random.Random) -> list[Example]:
    """The example asked again after a sentence of this passage, or none where it has no sentence to follow."""
    places = [
        (start, end)
        for start, end in sentences(marked.text)
        if end - start >= LEAST
        and (not marked.relevant or any(a < end and start < b for a, b in marked.support if marked.known))
    ]
    if not places:
        return []
    start, end = draw.choice(places)
    question = f"{example.question} {told(marked.title, marked.text[start:end])}"
    negatives = tuple(other for other in example.negatives if other.text != marked.text)
    return [replace(example, id=f"{example.id} again", question=question, negatives=negatives)]
