"""Hard negatives: passages that look like the answer to an encoder and are not."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ragzip.text import sentences
from ragzip.training.examples import Example, Marked, joined

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ragzip.models import Encoder

_POOL = 10  # for each held-out example so many others, whose passages can be its negatives
_NEAR = 40
_BLOCK = 512
_TELLING = 20  # characters of a stretch, from which on it is the same one wherever it stands
_SINGLE = "squad_sentences"


def mine_apart(
    kept: Sequence[Example], held: Sequence[Example], mining: Callable[[Sequence[Example]], list[Example]], seed: int
) -> tuple[list[Example], list[Example]]:
    """Examples to train on, and examples that are held out, with their negatives; apart.

    Passages that are held out do not come into training as some that do not help, nor sentences of them as some that
    stand around one that does. Those that are held out take theirs from one another and from a part of the others.

    Args:
        kept: To train on.
        held: Held out.
        mining: ``mine``, with its other arguments.
        seed: For drawing that part.
    """
    some = random.Random(f"{seed} beside").sample(kept, min(_POOL * len(held), len(kept)))  # noqa: S311 - no secret
    ids = {(example.set_name, example.id) for example in held}
    mined = [example for example in mining([*held, *some]) if (example.set_name, example.id) in ids]
    return mining(kept), mined


def mine(
    examples: Sequence[Example],
    encoder: Encoder | None,
    *,
    wanted: int,
    seed: int,
    near: int = _NEAR,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Example]:
    """The examples with at least ``wanted`` negatives where their sets have so many.

    Negatives are drawn from the ``near`` passages of the same set that are closest to the question, without
    those that help, other cuts of these that hold what helps, and those that hold one of the answers. Questions that
    came with passages of their own keep these. Single sentences that answer are put among the sentences that come
    closest, so that they make a passage with one sentence that helps.

    Args:
        examples: Of any sets.
        encoder: Whose idea of closeness is to be corrected; None goes by the words that are shared, as BM25 does.
        wanted: Negatives for an example.
        seed: For the draws.
        near: From how many.
        on_progress: Told texts encoded and texts in all.
    """
    out: list[Example] = []
    names = list(dict.fromkeys(example.set_name for example in examples))
    for name in names:
        some = [example for example in examples if example.set_name == name]
        if all(len(example.negatives) >= wanted for example in some):
            out += some
            continue
        out += _mine_set(some, encoder, wanted, near, random.Random(f"{seed} negatives {name}"), on_progress)  # noqa: S311
    return out


def _mine_set(
    examples: list[Example],
    encoder: Encoder | None,
    wanted: int,
    near: int,
    draw: random.Random,
    on_progress: Callable[[int, int], None] | None,
) -> list[Example]:
    pool = list({m.text: m for e in examples for m in (*e.positives, *e.negatives)}.values())
    closeness = _closeness([e.question for e in examples], [m.text for m in pool], encoder, on_progress)
    low = [m.text.lower() for m in pool]
    out = []
    for start in range(0, len(examples), _BLOCK):
        closest = _nearest(closeness(start, start + _BLOCK), near)
        for example, places in zip(examples[start : start + _BLOCK], closest, strict=True):
            own = {m.text for m in (*example.positives, *example.negatives)}
            helping = helping_texts(example)
            fit = [
                replace(pool[i], support=(), relevant=False, known=True)
                for i in places
                if pool[i].text not in own
                and not any(text in low[i] for text in helping)
                and not holds(low[i], example.answers)
            ]
            if example.set_name == _SINGLE:
                out.append(_surrounded(example, fit, wanted, draw))
                continue
            lacking = max(wanted - len(example.negatives), 0)
            more = draw.sample(fit, min(lacking, len(fit)))
            out.append(replace(example, negatives=(*example.negatives, *more)))
    return out


def _closeness(
    questions: Sequence[str],
    texts: Sequence[str],
    encoder: Encoder | None,
    on_progress: Callable[[int, int], None] | None,
) -> Callable[[int, int], npt.NDArray[np.float32]]:
    """What gives, for questions from one to another, their closeness to all texts: ``[questions, texts]``."""
    if encoder is None:
        ranked = by_words(texts)
        return lambda start, end: ranked(questions[start:end])
    rows = encoder.encode(texts, on_progress=on_progress)
    asked = encoder.encode(questions)
    return lambda start, end: asked[start:end] @ rows.T


def by_words(texts: Sequence[str]) -> Callable[[Sequence[str]], npt.NDArray[np.float32]]:
    """What gives BM25 scores of texts for questions, ``[questions, texts]``: 0 for a text that shares no word."""
    import numpy as np

    from ragzip.indexes import bm25

    postings = bm25.build(texts)

    def scores(questions: Sequence[str]) -> npt.NDArray[np.float32]:
        found = np.zeros((len(questions), len(texts)), np.float32)
        for row, question in zip(found, questions, strict=True):
            hits = postings.search(question, len(texts))
            row[hits.rows] = hits.scores
        return found

    return scores


def holds(low: str, answers: Sequence[str]) -> bool:
    """Whether a text in lower case holds one of the answers: short ones as words, yes and no never."""
    for answer in answers:
        wanted = answer.lower().strip()
        if len(wanted) > 3:
            if wanted in low:
                return True
        elif wanted and wanted not in ("yes", "no") and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", low):
            return True
    return False


def helping_texts(example: Example) -> list[str]:
    """What helps, in lower case: the marked stretches, or every sentence where they are not known."""
    found = []
    for marked in example.positives:
        stretches = marked.support if marked.known else sentences(marked.text)
        found += [marked.text[start:end].lower() for start, end in stretches if end - start >= _TELLING]
    return found


def _nearest(scores: npt.NDArray[np.float32], near: int) -> npt.NDArray[np.int64]:
    import numpy as np

    count = min(near, scores.shape[1])
    return np.argpartition(-scores, count - 1, axis=1)[:, :count]


def _surrounded(example: Example, near: Sequence[Marked], wanted: int, draw: random.Random) -> Example:
    """The one sentence that answers among close ones, and passages of close ones only."""
    near = list(near)
    draw.shuffle(near)

    def take(count: int) -> list[Marked]:
        some = near[:count]
        del near[:count]
        return some

    units = [*example.positives, *take(draw.randint(2, 5))]
    draw.shuffle(units)
    negatives = tuple(joined(take(draw.randint(3, 6))) for _ in range(wanted) if len(near) >= 6)
    return replace(example, positives=(joined(units),), negatives=negatives)
