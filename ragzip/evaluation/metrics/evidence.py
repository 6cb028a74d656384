"""What compression kept of the evidence: the answer itself, and the labelled supporting sentences."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ragzip import text as text_
from ragzip.evaluation.metrics.base import Metric
from ragzip.evaluation.metrics.normalise import normalise, references, stands_in
from ragzip.evaluation.outcome import Outcome
from ragzip.text import Stretch
from ragzip.tokens import text_of
from ragzip.types import SoftSegment, Span

_IN_NO_TEXT = frozenset({"yes", "no", "maybe", ""})
_Spans = dict[str, list[Stretch]]


@dataclass(frozen=True)
class AnswerInContext(Metric):
    """``answer_in_context``: 1 if a normalised reference stands in the final context, titles included.

    None without references, where they are of the kind that stands in no text (yes, no, maybe, none), and for a
    context with soft rows, which cannot be read.
    """

    name = "answer_in_context"
    needs = frozenset({"answers"})

    def score(self, outcome: Outcome) -> float | None:
        """0 or 1."""
        wanted = [answer for answer in references(outcome.record.answers) if answer not in _IN_NO_TEXT]
        context = outcome.compression.context
        if not wanted or any(isinstance(s, SoftSegment) and s.embeddings.shape[0] for s in context.segments):
            return None
        read = normalise(text_of(context))
        return float(any(stands_in(answer, read) for answer in wanted))


@dataclass(frozen=True)
class Sentences(Metric):
    """``sentence_precision``, ``sentence_recall``, ``sentence_f1``: kept sentences against labelled ones.

    The sentences are those of every passage that the record brings or that was retrieved. A sentence is labelled, or
    kept, when at least half of its characters other than white space are; a label too short to fill half of any
    sentence makes the one that holds most of it labelled. Kept characters are those that the final context's segments
    name as their sources, soft ones included. None where no sentence is labelled.

    Attributes:
        part: Which of the three.
    """

    part: Literal["precision", "recall", "f1"]
    needs = frozenset({"sentences"})

    @property
    def name(self) -> str:
        """``sentence_`` and the part."""
        return f"sentence_{self.part}"

    def score(self, outcome: Outcome) -> float | None:
        """0 to 1; all three are 0 where no labelled sentence was kept, also where nothing was."""
        right, kept, labelled = counts(outcome)
        if not labelled:
            return None
        if self.part == "f1":
            return 2 * right / (kept + labelled)
        return right / labelled if self.part == "recall" else right / kept if kept else 0.0


def counts(outcome: Outcome) -> tuple[int, int, int]:
    """Sentences that are both kept and labelled; that are kept; that are labelled.

    A labelled stretch of a passage that is neither in the record nor retrieved is a labelled sentence that was missed.
    """
    context = outcome.compression.context
    texts = {p.id: p.text for p in reversed((*context.passages, *outcome.passages, *outcome.record.passages))}
    wanted = _by_passage(outcome.record.relevant)
    found = _by_passage(span for segment in context.segments for span in segment.sources)
    right = kept = 0
    labelled = sum(len(stretches) for passage_id, stretches in wanted.items() if passage_id not in texts)
    for passage_id in sorted((wanted.keys() | found.keys()) & texts.keys()):
        text = texts[passage_id]
        gold, mine = _labelled(text, wanted.get(passage_id, [])), _covered(text, found.get(passage_id, []))
        right, kept, labelled = right + len(gold & mine), kept + len(mine), labelled + len(gold)
    return right, kept, labelled


def _by_passage(spans: Iterable[Span]) -> _Spans:
    found: _Spans = {}
    for span in dict.fromkeys(spans):
        found.setdefault(span.passage_id, []).append((span.start, span.end))
    return found


def _labelled(text: str, stretches: list[Stretch]) -> set[Stretch]:
    """The labelled sentences: those covered, and for each label that covers half of none, the one with most of it."""
    covered = _covered(text, stretches)
    gold = set(covered)
    for start, end in stretches:
        if any(left < end and start < right for left, right in covered):
            continue
        parts = {
            (a, b): _visible(text[max(a, start) : min(b, end)]) for a, b in _sentences(text) if a < end and start < b
        }
        if any(parts.values()):
            gold.add(max(parts, key=lambda sentence: parts[sentence]))
    return gold


def _covered(text: str, stretches: list[Stretch]) -> set[Stretch]:
    """The sentences at least half of whose characters other than white space lie in the stretches."""
    merged = text_.merge(stretches)
    found: set[Stretch] = set()
    at = 0
    for start, end in _sentences(text):
        while at < len(merged) and merged[at][1] <= start:
            at += 1
        inside, number = 0, at
        while number < len(merged) and merged[number][0] < end:
            left, right = merged[number]
            if left <= start and end <= right:
                inside = -1
                break
            inside += _visible(text[max(left, start) : min(right, end)])
            number += 1
        if inside < 0 or 2 * inside >= _visible(text[start:end]):
            found.add((start, end))
    return found


def _visible(text: str) -> int:
    return sum(map(len, text.split()))


@functools.lru_cache(maxsize=512)  # three metrics and many pipelines ask about the same passages in turn
def _sentences(text: str) -> tuple[Stretch, ...]:
    return tuple(text_.sentences(text))
