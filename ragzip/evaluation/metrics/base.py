"""What a metric is: a value that prints as its name and says what it needs, what it counts in and which way is up."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ragzip.evaluation.outcome import Outcome

NEEDS = ("answers", "answer", "sentences", "qrels")
"""What a metric can need: reference answers, a generated answer, labelled evidence, judged passages or documents."""


class Metric(ABC):
    """Scores one outcome. Subclasses are frozen dataclasses: equal by value, hashable, picklable.

    A subclass gives ``name`` and ``score`` and overrides what differs from the defaults, as plain class attributes
    (``unit = "tokens"``) or properties.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """As printed and parsed: ``parse(metric.name) == metric``."""

    @abstractmethod
    def score(self, outcome: Outcome) -> float | None:
        """The outcome's value, or None where the metric says nothing about it."""

    @property
    def higher_is_better(self) -> bool:
        """Which way is up."""
        return True

    @property
    def unit(self) -> str:
        """``""``, ``tokens``, ``s``, ``MiB``, ``FLOP`` or ``x``."""
        return ""

    @property
    def quality(self) -> bool:
        """True for what a user wants (answers, evidence, retrieval), False for what it costs."""
        return True

    @property
    def needs(self) -> frozenset[str]:
        """Which of ``NEEDS`` a record or its run must have; ``qrels`` may come from labelled evidence."""
        return frozenset()

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Least and greatest value there can be, for honest intervals of few or equal values; None where open."""
        return (0.0, 1.0) if self.quality else None

    @property
    def ratio_of(self) -> tuple[str, str] | None:
        """Names of two metrics: the mean of this one is the sum of the first divided by the sum of the second."""
        return None

    def __str__(self) -> str:
        return self.name
