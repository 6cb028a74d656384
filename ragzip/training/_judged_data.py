"""What a judge of sentences learns from: a question with a passage, and which of the passage's sentences help."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ragzip.compressors._judge import Judge
from ragzip.text import sentences
from ragzip.training.examples import Example, Marked
from ragzip.training.pairs import drawn


@dataclass(frozen=True, slots=True)
class Judged:
    """A passage as the judge reads it, as token ids, and what is to be said of its sentences.

    Attributes:
        beginning: Question and passage.
        endings: One for each sentence.
        labels: Whether it helps: 1 or 0, one for each sentence.
    """

    beginning: tuple[int, ...]
    endings: tuple[tuple[int, ...], ...]
    labels: tuple[float, ...]

    @property
    def tokens(self) -> int:
        """Of all that is read, the beginning once."""
        return len(self.beginning) + sum(map(len, self.endings))


@dataclass(frozen=True, slots=True)
class Group:
    """The passages of one question, the one that helps first.

    Attributes:
        question: What is asked.
        passages: As they were marked.
        judged: The same as the judge reads them.
    """

    question: str
    passages: tuple[Marked, ...]
    judged: tuple[Judged, ...]

    @property
    def tokens(self) -> int:
        """Of all passages."""
        return sum(judged.tokens for judged in self.judged)


def make_groups(
    judge: Judge, examples: Sequence[Example], *, negatives: int, seed: int, max_tokens: int, most: int | None = None
) -> list[Group]:
    """One group for each passage that helps, of which it is known which sentences do.

    Args:
        judge: Whose prompts and tokens they become.
        examples: With negatives.
        negatives: Passages that do not help, beside each one that does; fewer where there are no more.
        seed: Decides which, and which sentences are left out.
        max_tokens: Passages that take more, with their sentences, are left out; a group goes with its first one.
        most: Sentences of a passage that are judged: all that help, as far as it goes, and others drawn among the
            rest. None is all of them.
    """
    known = [_known(example) for example in examples]
    draw = random.Random(f"{seed} sentences")  # noqa: S311 - no secret
    found = []
    for question, group in drawn([e for e in known if e.positives], negatives=negatives, seed=seed):
        read = [(marked, _judged(judge, question, marked, most, draw)) for marked in group]
        fit = [(marked, judged) for marked, judged in read if judged.endings and judged.tokens <= max_tokens]
        if fit and fit[0][0] is group[0] and any(fit[0][1].labels):
            found.append(Group(question, tuple(m for m, _ in fit), tuple(j for _, j in fit)))
    return found


def _known(example: Example) -> Example:
    return replace(example, positives=tuple(m for m in example.positives if m.known and m.support))


def _judged(judge: Judge, question: str, marked: Marked, most: int | None, draw: random.Random) -> Judged:
    """As ``EXIT`` asks: the title is the passage's first line, and sentences that are alike are asked of once."""
    labels: dict[str, float] = {}
    for start, end in sentences(marked.text):
        inside = sum(max(min(b, end) - max(a, start), 0) for a, b in marked.support)
        text = marked.text[start:end].strip()
        labels[text] = max(labels.get(text, 0.0), float(2 * inside > end - start))
    texts = list(labels)
    if most is not None and len(texts) > most:
        order = sorted(range(len(texts)), key=lambda i: (-labels[texts[i]], draw.random()))
        texts = [texts[i] for i in sorted(order[:most])]
    document = f"{marked.title}\n{marked.text}" if marked.title else marked.text
    beginning, endings = judge.prompts(question.strip(), document, texts)
    return Judged(tuple(beginning), tuple(map(tuple, endings)), tuple(labels[text] for text in texts))
