"""The rows that are always there, so that no method is compared with nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ragzip.compressors._extractive import Sentences, SentenceScorer
from ragzip.compressors.bm25_sentences import BM25Sentences
from ragzip.compressors.random_sentences import RandomSentences
from ragzip.compressors.truncate import Truncate
from ragzip.errors import ConfigError
from ragzip.evaluation.metrics.normalise import normalise, references, stands_in
from ragzip.evaluation.metrics.places import Home, Places, locate
from ragzip.evaluation.record import Record
from ragzip.protocols import Compressor, Selector, runtime_field
from ragzip.text import Stretch, intersect, merge
from ragzip.types import Context, Query, Segment, Span, TextSegment

_LABELLED, _ANSWER = 4.0, 2.0
_NO_WORDS = frozenset({"", "yes", "no", "maybe"})


@dataclass(frozen=True)
class OracleSentences(SentenceScorer):
    """Keeps the sentences that the labels name: about what a choice of sentences could reach if it knew them.

    Labelled sentences come first, those that hold a reference answer before the others, and BM25 decides among equals.
    Where no labelled sentence holds a reference answer, others that hold one come after them. Where the labels and
    answers say nothing about these passages (a yes or no without labels), BM25 decides alone. All other sentences are
    dropped. It reads labels, so no real system can do what it does; neither is it a bound.

    Attributes:
        records: The labels, by the query's id; given by the runner.
    """

    records: Mapping[str, Record] | None = runtime_field()

    def score(self, query: Query, groups: Sequence[Sentences]) -> Sequence[Sequence[float]]:
        """From 2 where a sentence is to be kept, below 1 where it is not."""
        record = (self.records or {}).get(query.id)
        if record is None:
            raise ConfigError("oracle_sentences", f"has no labels for the query {query.id!r}")
        wanted = [text for text in references(record.answers) if text not in _NO_WORDS]
        lexical = BM25Sentences().score(query, groups)
        most = max((score for scores in lexical for score in scores), default=0.0) or 1.0
        passages = tuple({group.passage.id: group.passage for group in groups if group.passage}.values())
        places = locate(record, passages)
        labelled: dict[Home, list[Stretch]] = {}
        for span in record.relevant:
            for home, stretch in places.labelled(span):
                labelled.setdefault(home, []).append(stretch)
        marked = [_marked(group, places, labelled) for group in groups]
        holding = [[_holds(text, wanted) for text in group.texts] for group in groups]
        pairs = [pair for one, other in zip(marked, holding, strict=True) for pair in zip(one, other, strict=True)]
        told = any(mark and holds for mark, holds in pairs)
        silent = not any(mark or holds for mark, holds in pairs)
        found: list[list[float]] = []
        for marks, holds, scores in zip(marked, holding, lexical, strict=True):
            found.append([])
            for mark, has, score in zip(marks, holds, scores, strict=True):
                kept = mark or (has and not told) or silent
                worth = (_LABELLED if mark else 0.0) + (_ANSWER if has else 0.0)
                found[-1].append(max(worth, _ANSWER) + 0.9 * score / most if kept else 0.0)
        return found


def _holds(text: str, wanted: Sequence[str]) -> bool:
    """Whether a reference answer stands in it, as ``answer_in_context`` sees it."""
    if not wanted:
        return False
    whole = normalise(text)
    return any(stands_in(part, whole) for part in wanted)


def _marked(group: Sentences, places: Places, labelled: Mapping[Home, list[Stretch]]) -> list[bool]:
    """For each sentence whether at least half of it is labelled."""
    passage = group.passage
    if passage is None or not labelled:
        return [False] * len(group.texts)
    marks, position = [], 0
    for text in group.texts:
        start = passage.text.find(text, position)
        if start < 0:  # no part of the passage: something rewrote it
            marks.append(False)
            continue
        position = start + len(text)
        covered = sum(
            end - begin
            for home, stretch in places.kept(Span(passage.id, start, position))
            for begin, end in intersect([stretch], merge(labelled.get(home, [])))
        )
        marks.append(2 * covered >= len(text))
    return marks


@dataclass(frozen=True)
class ClosedBook(Selector):
    """Drops the whole context: what the generator knows by itself."""

    def compress(self, contexts: Sequence[Context[Segment]]) -> Sequence[Context[Segment]]:
        """Each context without any segment."""
        return [Context(context.query, (), context.passages) for context in contexts]


BUDGETED = ("oracle_sentences", "truncate", "random_sentences", "bm25_sentences")
"""Baselines that run at the budget of what they are compared with."""


def budgeted(name: str, budget: int, seed: int = 0) -> Compressor[TextSegment, TextSegment] | Selector:
    """One of ``BUDGETED`` at a budget in generator tokens."""
    if name == "truncate":
        return Truncate(tokens=budget)
    if name == "random_sentences":
        return RandomSentences(budget=budget, seed=seed)
    if name == "bm25_sentences":
        return BM25Sentences(budget=budget)
    return OracleSentences(budget=budget, threshold=_ANSWER)
