"""Answers against references: exact match, word overlap, and whether a reference is said at all.

Several references: the best counts. A question without an answer (``answers == ("",)``) is answered right by an empty
answer only, as in SQuAD 2.0. Yes and no are verdicts, not words to be found: *I have no idea* is no *no*.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from dataclasses import dataclass

from ragzip.evaluation.metrics.base import Metric
from ragzip.evaluation.metrics.normalise import normalise, references, stands_in
from ragzip.evaluation.outcome import Outcome

VERDICTS = frozenset({"yes", "no", "maybe", "noanswer"})
"""References, normalised, that are right as a whole or wrong: those of the HotpotQA script, and ``maybe``."""


class AnswerMetric(Metric):
    """Compares the generated answer with each reference; 0 to 1, None without an answer or without references."""

    _needs = frozenset({"answers", "answer"})

    def score(self, outcome: Outcome) -> float | None:
        """The best over the references."""
        if outcome.answer is None or not outcome.record.answers:
            return None
        answer = normalise(outcome.answer)
        return max(self.compare(answer, reference) for reference in references(outcome.record.answers))

    @abstractmethod
    def compare(self, answer: str, reference: str) -> float:
        """The agreement of two normalised texts; an empty reference says that there is no answer."""


@dataclass(frozen=True)
class ExactMatch(AnswerMetric):
    """``em``: 1 if the normalised answer is a normalised reference (Rajpurkar et al., 2016)."""

    _name = "em"

    def compare(self, answer: str, reference: str) -> float:
        """Equality."""
        return float(answer == reference)


@dataclass(frozen=True)
class F1(AnswerMetric):
    """``f1``: harmonic mean of precision and recall of the answer's words (Rajpurkar et al., 2016).

    Where the answer or the reference is a verdict, whether they are the same (Yang et al., 2018).
    """

    _name = "f1"

    def compare(self, answer: str, reference: str) -> float:
        """Overlap of the bags of words; where one is empty, whether both are."""
        if answer in VERDICTS or reference in VERDICTS:
            return float(answer == reference)
        said, wanted = answer.split(), reference.split()
        if not said or not wanted:
            return float(said == wanted)
        common = sum((Counter(said) & Counter(wanted)).values())
        if not common:
            return 0.0
        precision, recall = common / len(said), common / len(wanted)
        return 2 * precision * recall / (precision + recall)


@dataclass(frozen=True)
class Match(AnswerMetric):
    """``match``: 1 if a normalised reference stands in the normalised answer, between word borders.

    A verdict has to be the answer's first word.
    """

    _name = "match"

    def compare(self, answer: str, reference: str) -> float:
        """Containment; without an answer to give, silence."""
        if reference in VERDICTS:
            return float(answer.split(" ", 1)[0] == reference)
        return float(stands_in(reference, answer)) if reference else float(not answer)
