"""From spans: which sentences support an answer, and what compression kept and dropped of each passage."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from ragzip import text
from ragzip.types import Citation, Context, Passage, Segment, Span

_WORD = re.compile(r"\w+", re.UNICODE)
_MAX_CITATIONS = 3
_LEAST_GAIN = 0.15
# Words that carry no evidence by themselves. Short on purpose: rarity within the context does the rest.
_STOP_WORDS = """
    a an and are as at be but by can could did do does for from had has have he her his how i if in is it its may
    not of on or she should so such than that the their them then there these they this those to was we were what
    when where which who whom whose why will with would you your
"""
_STOP = frozenset(_STOP_WORDS.split())


@dataclass(frozen=True)
class Stretch:
    """Neighbouring characters of a passage that compression kept, or dropped."""

    text: str
    kept: bool


def kept_spans(context: Context[Any]) -> dict[str, list[tuple[int, int]]]:
    """Passage id -> the characters its segments came from: merged, ordered, clipped to the passage."""
    lengths = {passage.id: len(passage.text) for passage in reversed(context.passages)}
    found: dict[str, list[tuple[int, int]]] = {}
    for segment in context.segments:
        for span in segment.sources:
            if span.passage_id in lengths:
                end = min(span.end, lengths[span.passage_id])
                found.setdefault(span.passage_id, []).append((min(span.start, end), end))
    return {passage_id: text.merge(spans) for passage_id, spans in found.items()}


def highlight(context: Context[Any]) -> list[tuple[Passage, list[Stretch]]]:
    """Every retrieved passage, once, cut into kept and dropped stretches that join to its whole text."""
    kept = kept_spans(context)
    result, seen = [], set()
    for passage in context.passages:
        if passage.id in seen:
            continue
        seen.add(passage.id)
        stretches, position = [], 0
        for start, end in kept.get(passage.id, []):
            stretches.append(Stretch(passage.text[position:start], False))
            stretches.append(Stretch(passage.text[start:end], True))
            position = end
        stretches.append(Stretch(passage.text[position:], False))
        result.append((passage, [s for s in stretches if s.text]))
    return result


def cite(answer: str, context: Context[Segment]) -> tuple[Citation, ...]:
    """The sentences of the context that support the answer, best first, at most three.

    Support is lexical: the share of the answer's words a sentence holds, each weighed by its rarity in the
    context; the question's own words count a third. Sentences are taken while each still covers something new.
    An answer whose words stand in no sentence gets no citation, rather than a made-up one.
    """
    sentences = _sentences(context)
    if not sentences:
        return ()
    bags = [set(_words(text_)) for _, text_ in sentences]
    frequency = Counter(word for bag in bags for word in bag)
    asked = set(_words(context.query.text))
    weights = {
        word: math.log(1 + len(bags) / max(frequency[word], 1)) * (1 / 3 if word in asked else 1.0)
        for word in set(_words(answer))
    }
    total = sum(weights.values())
    chosen: list[int] = []
    uncovered = dict(weights)
    while uncovered and len(chosen) < _MAX_CITATIONS:
        gains = [sum(uncovered.get(word, 0.0) for word in bag) for bag in bags]
        ties = [len(bag & asked) for bag in bags]
        best = max(range(len(bags)), key=lambda i: (gains[i], ties[i], -i))
        if gains[best] <= 0 or gains[best] < _LEAST_GAIN * total:
            break
        chosen.append(best)
        uncovered = {word: weight for word, weight in uncovered.items() if word not in bags[best]}
    return tuple(_citation(context, sentences[i][0]) for i in chosen)


def _sentences(context: Context[Segment]) -> list[tuple[Span, str]]:
    found = []
    for passage_id, spans in kept_spans(context).items():
        whole = context.passage(passage_id).text
        for start, end in spans:
            for a, b in text.sentences(whole[start:end]):
                found.append((Span(passage_id, start + a, start + b), whole[start + a : start + b]))
    return found


def _words(value: str) -> list[str]:
    """Lower-case words without stop words; a plain plural counts as its singular."""
    words = (word.lower() for word in _WORD.findall(value))
    return [w[:-1] if len(w) > 3 and w.endswith("s") and not w.endswith("ss") else w for w in words if w not in _STOP]


def _citation(context: Context[Segment], span: Span) -> Citation:
    passage = context.passage(span.passage_id)
    source = str(passage.metadata.get("source") or passage.title or passage.id)
    return Citation(passage.id, source, span.start, span.end, passage.text[span.start : span.end])
