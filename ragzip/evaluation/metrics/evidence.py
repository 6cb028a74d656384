"""What compression kept of the evidence: the answer itself, and the labelled supporting sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ragzip import text as text_
from ragzip.evaluation.metrics.base import Metric
from ragzip.evaluation.metrics.normalise import normalise, references, stands_in
from ragzip.evaluation.metrics.places import Home, locate, sentences, visible
from ragzip.evaluation.outcome import Outcome
from ragzip.text import Stretch
from ragzip.tokens import text_of
from ragzip.types import SoftSegment

_IN_NO_TEXT = frozenset({"yes", "no", "maybe", ""})
_Stretches = dict[Home, list[Stretch]]


@dataclass(frozen=True)
class AnswerInContext(Metric):
    """``answer_in_context``: 1 if a normalised reference stands in the final context, titles included.

    None without references, where they are of the kind that stands in no text (yes, no, maybe, none), and for a
    context with soft rows, which cannot be read.
    """

    _name = "answer_in_context"
    _needs = frozenset({"answers"})

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
    name as their sources, soft ones included. A passage of an index of its own is found in the record's by its
    document's id or its text. None where no sentence is labelled, and where none of the passages could be found.

    Attributes:
        part: Which of the three.
    """

    part: Literal["precision", "recall", "f1"]
    _needs = frozenset({"sentences"})

    @property
    def name(self) -> str:
        """``sentence_`` and the part."""
        return f"sentence_{self.part}"

    def score(self, outcome: Outcome) -> float | None:
        """0 to 1; all three are 0 where no labelled sentence was kept, also where nothing was."""
        counted = counts(outcome) if outcome.record.relevant else None
        if counted is None or not counted[2]:
            return None
        right, kept, labelled = counted
        if self.part == "f1":
            return 2 * right / (kept + labelled)
        return right / labelled if self.part == "recall" else right / kept if kept else 0.0


def counts(outcome: Outcome) -> tuple[int, int, int] | None:
    """Sentences that are both kept and labelled; that are kept; that are labelled.

    A labelled stretch of a passage that is neither in the record nor retrieved is a labelled sentence that was missed.
    None where nothing that was retrieved is known to the set: a miss cannot be told from another name.
    """
    context, record = outcome.compression.context, outcome.record
    places = locate(record, (*context.passages, *outcome.passages))
    if not places.comparable:
        return None
    wanted: _Stretches = {}
    found: _Stretches = {}
    right = kept = labelled = 0
    for span in dict.fromkeys(record.relevant):
        stands = places.labelled(span)
        labelled += not stands
        for home, stretch in stands:
            wanted.setdefault(home, []).append(stretch)
    for span in dict.fromkeys(span for segment in context.segments for span in segment.sources):
        for home, stretch in places.kept(span):
            found.setdefault(home, []).append(stretch)
    for home in sorted(wanted.keys() | found.keys()):
        text = places.texts[home]
        gold, mine = _labelled(text, wanted.get(home, [])), _covered(text, found.get(home, []))
        right, kept, labelled = right + len(gold & mine), kept + len(mine), labelled + len(gold)
    return right, kept, labelled


def _labelled(text: str, stretches: list[Stretch]) -> set[Stretch]:
    """The labelled sentences: those covered, and for each label that covers half of none, the one with most of it."""
    covered = _covered(text, stretches)
    gold = set(covered)
    for start, end in stretches:
        if any(left < end and start < right for left, right in covered):
            continue
        parts = {
            (a, b): visible(text[max(a, start) : min(b, end)]) for a, b in sentences(text) if a < end and start < b
        }
        if any(parts.values()):
            gold.add(max(parts, key=lambda sentence: parts[sentence]))
    return gold


def _covered(text: str, stretches: list[Stretch]) -> set[Stretch]:
    """The sentences at least half of whose characters other than white space lie in the stretches."""
    merged = text_.merge(stretches)
    found: set[Stretch] = set()
    at = 0
    for start, end in sentences(text):
        while at < len(merged) and merged[at][1] <= start:
            at += 1
        inside, number = 0, at
        while number < len(merged) and merged[number][0] < end:
            left, right = merged[number]
            if left <= start and end <= right:
                inside = -1
                break
            inside += visible(text[max(left, start) : min(right, end)])
            number += 1
        if inside < 0 or 2 * inside >= visible(text[start:end]):
            found.add((start, end))
    return found
