"""Which words of a passage matter, whatever will be asked: from what people did ask, and from a language model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ragzip.text import Stretch, words
from ragzip.training.encoders import overlap
from ragzip.training.examples import Example

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ragzip.models.perplexity import Perplexity

_LETTERS = re.compile(r"\w+")
_COMMON = 150  # most frequent words, which a question shares with any passage
_SURPRISE = 0.7  # label of the most surprising word that nobody asked about


@dataclass(frozen=True)
class Paragraph:
    """A passage with all that was asked about it.

    Attributes:
        text: The passage's.
        questions: Each with the stretches that help to answer it and its reference answers.
    """

    text: str
    questions: tuple[tuple[str, tuple[Stretch, ...], tuple[str, ...]], ...]

    def answers(self) -> list[Stretch]:
        """Where the answers stand, within what helps; each place once."""
        found = set[Stretch]()
        low = self.text.lower()
        for _, support, answers in self.questions:
            for start, end in support:
                for answer in answers:
                    at = low.find(answer.lower(), start, end) if len(answer) > 1 else -1
                    if at >= 0 and len(low) == len(self.text):
                        found.add((at, at + len(answer)))
        return sorted(found)


def paragraphs(examples: Sequence[Example]) -> list[Paragraph]:
    """The helping passages of all examples, each once, with all questions about it."""
    found: dict[str, list[tuple[str, tuple[Stretch, ...], tuple[str, ...]]]] = {}
    for example in examples:
        for marked in example.positives:
            if marked.known and marked.support:
                found.setdefault(marked.text, []).append((example.question, marked.support, example.answers))
    return [Paragraph(text, tuple(asked)) for text, asked in found.items()]


def apart(given: Sequence[Paragraph], held: Sequence[Paragraph]) -> list[Paragraph]:
    """Those that are no other cut of a passage that is held out."""
    return [one for one in given if not any(overlap(one.text, other.text) for other in held)]


def common_words(texts: Sequence[str]) -> frozenset[str]:
    """The most frequent words of some texts: what needs no model to be dropped."""
    counts = Counter(word for text in texts for word in set(_LETTERS.findall(text.lower())))
    return frozenset(word for word, _ in counts.most_common(_COMMON))


def asked_for(paragraph: Paragraph, common: frozenset[str]) -> npt.NDArray[np.bool_]:
    """``[n_words]``: words of answers, and uncommon words that a question shares with what answers it."""
    import numpy as np

    places = words(paragraph.text)
    mask = np.zeros(len(places), dtype=bool)
    starts = np.array([start for start, _ in places])
    ends = np.array([end for _, end in places])
    for start, end in paragraph.answers():
        mask |= (starts < end) & (ends > start)
    keys = [set(_LETTERS.findall(paragraph.text[start:end].lower())) - common for start, end in places]
    for question, support, _ in paragraph.questions:
        wanted = {_stem(word) for word in _LETTERS.findall(question.lower()) if word not in common}
        for start, end in support:
            for number in np.flatnonzero((starts < end) & (ends > start)):
                if any(_stem(word) in wanted for word in keys[number]):
                    mask[number] = True
    return mask


def _stem(word: str) -> str:
    """Enough to see that "founded" and "founder" are of one family: the first letters."""
    return word[:6]


def labels(
    given: Sequence[Paragraph],
    reader: Perplexity | None,
    common: frozenset[str],
    on_progress: Callable[[int, int], None] | None = None,
) -> list[npt.NDArray[np.float32]]:
    """How much each word of each paragraph should be kept, 0 to 1.

    1 for words that were asked for. For the others 0.7 times the square of the word's rank, from 0 to 1, by how
    surprising a language model finds it within its passage; without a model 0.
    """
    import numpy as np

    found = []
    for number, paragraph in enumerate(given):
        mask = asked_for(paragraph, common)
        soft = np.zeros(len(mask), dtype=np.float32)
        if reader is not None and len(mask):
            soft = _SURPRISE * ranks(surprise(paragraph.text, reader)) ** 2
        found.append(np.where(mask, 1.0, soft).astype(np.float32))
        if on_progress and number % 50 == 0:
            on_progress(number, len(given))
    return found


def surprise(text: str, reader: Perplexity) -> npt.NDArray[np.float64]:
    """``[n_words]``: the mean loss of each word's tokens, read from the left."""
    tokens = reader.encode([text])
    return tokens[0].means(reader.read(tokens)[0].losses, words(text))


def ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Ranks from 0 (least) to 1 (greatest), ties in order."""
    import numpy as np

    order = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return (order / max(len(values) - 1, 1)).astype(np.float32)


def answer_recall(given: Sequence[Paragraph], scores: Sequence[npt.NDArray[np.float64]], keep: float) -> float:
    """Share of the answers that survive whole where a passage keeps this share of its characters, best words first."""
    import numpy as np

    kept = total = 0
    for paragraph, score in zip(given, scores, strict=True):
        places = np.array(words(paragraph.text)).reshape(-1, 2)
        sizes = places[:, 1] - places[:, 0] + 1
        order = np.argsort(-score, kind="stable")
        chosen = np.zeros(len(places), dtype=bool)
        chosen[order[np.cumsum(sizes[order]) <= keep * sizes.sum()]] = True
        for start, end in paragraph.answers():
            total += 1
            kept += bool(chosen[(places[:, 0] < end) & (places[:, 1] > start)].all())
    return kept / max(total, 1)


def baselines(
    held: Sequence[Paragraph], reader: Perplexity | None, counts: Mapping[str, int], keep: float, seed: int
) -> dict[str, float]:
    """``answer_recall`` of words at random, of rare words, and of words that surprise the language model."""
    import numpy as np

    draw = np.random.default_rng(seed)
    rare = [
        np.array(
            [
                -min((counts.get(k, 0) for k in _LETTERS.findall(p.text[a:b].lower())), default=10**6)
                for a, b in words(p.text)
            ],
            dtype=np.float64,
        )
        for p in held
    ]
    found = {
        "random words": answer_recall(held, [draw.random(len(words(p.text))) for p in held], keep),
        "rare words": answer_recall(held, rare, keep),
    }
    if reader is not None:
        found["self-information"] = answer_recall(held, [surprise(p.text, reader) for p in held], keep)
    return found


def word_counts(texts: Sequence[str]) -> dict[str, int]:
    """How many of the texts hold each word."""
    return dict(Counter(word for text in texts for word in set(_LETTERS.findall(text.lower()))))
