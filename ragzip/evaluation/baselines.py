"""The rows that are always there, so that no method is compared with nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ragzip.compressors._extractive import Sentences, SentenceScorer
from ragzip.compressors.bm25_sentences import BM25Sentences
from ragzip.compressors.random_sentences import RandomSentences
from ragzip.compressors.truncate import Truncate
from ragzip.errors import ConfigError
from ragzip.evaluation.record import Record
from ragzip.protocols import Compressor, Selector, runtime_field
from ragzip.text import intersect
from ragzip.types import Context, Query, Segment, Span, TextSegment

_LABELLED, _ANSWER = 4.0, 2.0
_NO_WORDS = frozenset({"", "yes", "no", "maybe"})


@dataclass(frozen=True)
class OracleSentences(SentenceScorer):
    """Keeps the sentences that the labels name: what any choice of sentences could reach at best, or close to it.

    Labelled sentences come first, those that hold a reference answer before the others, and BM25 decides among equals.
    Where a question has no labels in these passages, sentences that hold a reference answer take their place. All
    other sentences are dropped. It reads labels, so no real system can do what it does.

    Attributes:
        records: The labels, by the query's id; given by the runner.
    """

    records: Mapping[str, Record] | None = runtime_field()

    def score(self, query: Query, groups: Sequence[Sentences]) -> Sequence[Sequence[float]]:
        """From 2 where a sentence is to be kept, below 1 where it is not."""
        record = (self.records or {}).get(query.id)
        if record is None:
            raise ConfigError("oracle_sentences", f"has no labels for the query {query.id!r}")
        texts = [text.casefold() for text in record.answers if text.strip().casefold() not in _NO_WORDS]
        holds = re.compile("|".join(rf"(?<!\w){re.escape(text.strip())}(?!\w)" for text in texts)) if texts else None
        lexical = BM25Sentences().score(query, groups)
        most = max((score for scores in lexical for score in scores), default=0.0) or 1.0
        found: list[list[float]] = []
        for group, scores in zip(groups, lexical, strict=True):
            marked = _marked(group, record.relevant)
            found.append(
                [
                    (_LABELLED if mark else 0.0)
                    + (_ANSWER if holds is not None and holds.search(text.casefold()) else 0.0)
                    + 0.9 * score / most
                    for text, mark, score in zip(group.texts, marked, scores, strict=True)
                ]
            )
        # With labels in these passages, an answer elsewhere is chance.
        labelled = any(score >= _LABELLED for scores in found for score in scores)
        least = _LABELLED if labelled else _ANSWER
        return [[score if score >= least else 0.0 for score in scores] for scores in found]


def _marked(group: Sentences, relevant: Sequence[Span]) -> list[bool]:
    """For each sentence whether at least half of it is labelled."""
    passage = group.passage
    spans = [(s.start, s.end) for s in relevant if passage is not None and s.passage_id == passage.id]
    if passage is None or not spans:
        return [False] * len(group.texts)
    marks, position = [], 0
    for text in group.texts:
        start = passage.text.find(text, position)
        if start < 0:  # no part of the passage: something rewrote it
            marks.append(False)
            continue
        position = start + len(text)
        covered = sum(end - begin for begin, end in intersect([(start, position)], sorted(spans)))
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
