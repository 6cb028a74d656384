"""What late interaction is trained on and measured by: questions with passages, and the pool of those held out."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ragzip.indexes.text import searched_text
from ragzip.models import load_encoder
from ragzip.training.examples import Example, Marked
from ragzip.types import Passage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Rank = Callable[[Sequence[str], Sequence[str]], npt.NDArray[np.float32]]

_CLAIM = "Is this true? "  # before claims where they are asked; those who search for them leave it out
_ASKED = 0.5  # share of the claims that keep it
_UNTITLED = 0.2  # share of the questions whose passages are read without titles
_HELPING = 2  # passages that help a question, at most, for each of which there is an item
_DEPTH = 10
_CLOSEST = 12  # passages that a question is confused with
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Item:
    """A question with passages to be told apart.

    Attributes:
        question: As it is searched for.
        passages: The first one helps, the others look like it and do not.
        helping: As they are searched, all passages that help.
    """

    question: str
    passages: tuple[Marked, ...]
    helping: frozenset[str]

    @property
    def texts(self) -> tuple[str, ...]:
        """The passages as they are searched."""
        return tuple(map(searched, self.passages))


def searched(marked: Marked) -> str:
    """A passage as an index gives it to encoders."""
    return searched_text(Passage("", marked.text, marked.title))


def items(examples: Sequence[Example], negatives: int, seed: int) -> list[Item]:
    """One item for every passage that helps, two for a question at most.

    Args:
        examples: With negatives.
        negatives: In an item, where its example has so many.
        seed: Decides which negatives, which titles are left out, and which claims are asked.
    """
    draw = random.Random(f"{seed} items")  # noqa: S311 - no secret
    found = []
    for example in examples:
        question = example.question
        if question.startswith(_CLAIM) and draw.random() >= _ASKED:
            question = question.removeprefix(_CLAIM)
        bare = draw.random() < _UNTITLED
        some = [[replace(m, title="") if bare else m for m in g] for g in (example.positives, example.negatives)]
        helping, others = ({searched(m): m for m in group} for group in some)
        for text in helping:
            others.pop(text, None)
        for positive in draw.sample(list(helping.values()), min(_HELPING, len(helping))):
            drawn = draw.sample(list(others.values()), min(negatives, len(others)))
            found.append(Item(question, (positive, *drawn), frozenset(helping)))
    return found


def confused(
    found: Sequence[Item], vectors: Callable[[Sequence[str]], npt.NDArray[np.float32]], seed: int
) -> list[Item]:
    """The items with all but one of their negatives replaced by passages of any item that are closest to the question.

    Args:
        found: As ``items`` makes them.
        vectors: Gives unit vectors of texts.
        seed: Decides which of the closest, and which negative stays.
    """
    import numpy as np

    draw = random.Random(f"{seed} confused")  # noqa: S311 - no secret
    pool = {searched(marked): marked for item in found for marked in item.passages}
    texts, rows = list(pool), vectors(list(pool))
    out = []
    for start in range(0, len(found), _BLOCK):
        some = found[start : start + _BLOCK]
        scores = vectors([item.question for item in some]) @ rows.T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :_CLOSEST]
        for item, places in zip(some, order, strict=True):
            first, *others = item.passages
            near = [pool[texts[i]] for i in places if texts[i] not in item.helping and pool[texts[i]] not in others]
            stay = draw.sample(others, min(1, len(others)))
            more = draw.sample(near, min(len(others) - len(stay), len(near)))
            out.append(replace(item, passages=(first, *stay, *more)))
    return out


@dataclass(frozen=True, slots=True)
class Pool:
    """Questions over the passages of all of them.

    Attributes:
        questions: Each once.
        texts: Passages as they are searched, each once.
        helping: For each question the numbers of the passages that help.
    """

    questions: tuple[str, ...]
    texts: tuple[str, ...]
    helping: tuple[frozenset[int], ...]

    @classmethod
    def of(cls, held: Sequence[Item]) -> Pool:
        """The pool of held-out items."""
        texts = dict.fromkeys(text for item in held for text in (*item.texts, *sorted(item.helping)))
        place = {text: number for number, text in enumerate(texts)}
        asked = {item.question: frozenset(place[text] for text in item.helping) for item in held}
        return cls(tuple(asked), tuple(texts), tuple(asked.values()))

    def metrics(self, rank: Rank) -> dict[str, float]:
        """``ndcg@10`` and ``mrr`` of scores ``[questions, texts]``; passages that help are all worth the same."""
        import numpy as np

        scores = np.asarray(rank(self.questions, self.texts))
        gains, firsts = [], []
        for row, wanted in zip(scores, self.helping, strict=True):
            order = np.argsort(-row, kind="stable")
            places = np.flatnonzero(np.isin(order, list(wanted)))
            best = (1 / np.log2(np.arange(min(len(wanted), _DEPTH)) + 2)).sum()
            gains.append((1 / np.log2(places[places < _DEPTH] + 2)).sum() / best)
            firsts.append(1 / (1 + places[0]))
        return {"ndcg@10": float(np.mean(gains or [0.0])), "mrr": float(np.mean(firsts or [0.0]))}


def by_encoder(base: str, *, dtype: str = "auto", device: str) -> Rank:
    """Cosines ``[questions, texts]`` of one vector a text: what dense retrieval ranks by."""

    def rank(questions: Sequence[str], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        encoder = load_encoder(base, dtype=dtype, device=device)
        cosines: npt.NDArray[np.float32] = encoder.encode(questions) @ encoder.encode(texts).T
        return cosines

    return rank
