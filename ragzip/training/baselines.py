"""What cheap methods reach on held-out examples: the rows that trained weights have to beat on their cards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from ragzip.compressors._extractive import Sentences, SentenceScorer
from ragzip.compressors._writer import Block
from ragzip.compressors.bm25_sentences import BM25Sentences
from ragzip.compressors.random_sentences import RandomSentences
from ragzip.compressors.sentence_filter import SentenceFilter
from ragzip.evaluation.metrics.answers import F1
from ragzip.evaluation.metrics.normalise import normalise
from ragzip.models import Dtype
from ragzip.protocols import WordCounter
from ragzip.text import sentences
from ragzip.training.examples import Marked
from ragzip.types import Passage, Query, context_of

Baselines = dict[str, dict[str, float]]

_TOLD = 40  # words that baselines of a summary keep, titles included: about what is to be written


def of_groups(
    drawn: Sequence[tuple[str, Sequence[Marked]]],
    base: str,
    seed: int,
    *,
    by_sentence: bool = False,
    dtype: str = "auto",
    device: str = "auto",
) -> Baselines:
    """``sentence`` and ``passage``, as ``ragzip.training.joint.evaluate`` defines them, of three baselines.

    Args:
        drawn: Questions with passages, the one that helps first.
        base: The encoder of ``sentence_filter``.
        seed: Of ``random_sentences``.
        by_sentence: A passage counts as its best sentence does; else it is read as one.
        dtype: The encoder's number format.
        device: Where it runs.
    """
    found: Baselines = {}
    for name, method in _methods(base, seed, dtype, device).items():
        hits: list[float] = []
        firsts: list[float] = []
        for question, group in drawn:
            if len(group) > 1:
                units = [(m.title, _cut(m.text) if by_sentence else [m.text]) for m in group]
                scores = [max(row) for row in _score(method, question, units)]
                firsts.append(float(scores[0] > max(scores[1:])))
            marked = group[0]
            places = sentences(marked.text)
            helping = [2 * _overlap(place, marked) > place[1] - place[0] for place in places]
            if marked.known and any(helping) and not all(helping):
                (row,) = _score(method, question, [(marked.title, _cut(marked.text))])
                hits.append(float(helping[max(range(len(row)), key=row.__getitem__)]))
        sentence, passage = _mean(hits), _mean(firsts)
        found[name] = {"score": (sentence + passage) / 2, "sentence": sentence, "passage": passage}
    return found


def of_items(
    items: Sequence[tuple[str, str, Sequence[str]]], base: str, seed: int, *, dtype: str = "auto", device: str = "auto"
) -> Baselines:
    """``sentence`` and ``mrr`` of three baselines.

    Args:
        items: Questions, each with a sentence that helps and some that do not.
        base: The encoder of ``sentence_filter``.
        seed: Of ``random_sentences``.
        dtype: The encoder's number format.
        device: Where it runs.
    """
    found: Baselines = {}
    for name, method in _methods(base, seed, dtype, device).items():
        ranks = []
        for question, right, others in items:
            if others:
                (row,) = _score(method, question, [("", [right, *others])])
                ranks.append(1 + sum(score >= row[0] for score in row[1:]))
        found[name] = {"sentence": _mean([float(rank == 1) for rank in ranks]), "mrr": _mean([1 / r for r in ranks])}
    return found


def of_summaries(
    items: Sequence[tuple[str, Sequence[Block], str]],
    base: str,
    seed: int,
    *,
    dtype: str = "auto",
    device: str = "auto",
) -> Baselines:
    """``overlap`` and ``gate`` of three baselines that keep the best sentences, and one that is silent.

    Args:
        items: Questions with passages and what is to be written for them, "" where nothing is.
        base: The encoder of ``sentence_filter``.
        seed: Of ``random_sentences``.
        dtype: The encoder's number format.
        device: Where it runs.
    """
    targets = [target for _, _, target in items]
    found: Baselines = {}
    for name, method in _methods(base, seed, dtype, device).items():
        made = replace(method, budget=_TOLD).bind(WordCounter())
        given = [
            context_of(Query(question), tuple(Passage(str(i), b.text, b.title) for i, b in enumerate(blocks)))
            for question, blocks, _ in items
        ]
        kept = [" ".join(segment.text for segment in context.segments) for context in made.compress(given)]
        found[f"{name}, {_TOLD} words"] = summary_scores(kept, targets)
    found["nothing"] = summary_scores([""] * len(targets), targets)
    return found


def summary_scores(told: Sequence[str], targets: Sequence[str]) -> dict[str, float]:
    """``overlap`` and ``gate`` of texts; see ``ragzip.training.recomp_abstractive.evaluate``."""
    metric = F1()
    pairs = list(zip(told, targets, strict=True))
    silence = _mean([float(not text) for text, target in pairs if not target])
    speech = _mean([float(bool(text)) for text, target in pairs if target])
    return {
        "overlap": _mean([metric.compare(normalise(text), normalise(target)) for text, target in pairs]),
        "gate": (silence + speech) / 2,
    }


def _methods(base: str, seed: int, dtype: str, device: str) -> dict[str, SentenceScorer]:
    return {
        "sentence_filter": SentenceFilter(model=base, dtype=cast("Dtype", dtype), device=device),
        "bm25_sentences": BM25Sentences(),
        "random_sentences": RandomSentences(seed=seed),
    }


def _score(method: SentenceScorer, question: str, groups: Sequence[tuple[str, list[str]]]) -> list[list[float]]:
    given = [
        Sentences(tuple(texts), Passage(str(number), " ".join(texts), title))
        for number, (title, texts) in enumerate(groups)
    ]
    return [list(row) for row in method.score(Query(question), given)]


def _cut(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


def _overlap(place: tuple[int, int], marked: Marked) -> int:
    return sum(max(min(place[1], end) - max(place[0], start), 0) for start, end in marked.support)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
