"""What a metric is: a value that prints as its name and says what it needs, what it counts in and which way is up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from ragzip.evaluation.outcome import Outcome

NEEDS = ("answers", "answer", "sentences", "qrels")
"""What a metric can need: reference answers, a generated answer, labelled evidence, judged passages or documents."""


class Metric(ABC):
    """Scores one outcome. Subclasses are frozen dataclasses: equal by value, hashable, picklable.

    A subclass gives ``_name`` (or ``name``) and ``score``, and overrides what differs from the defaults: the class
    variables with an underscore, or the properties themselves.
    """

    _name: ClassVar[str] = ""
    _higher_is_better: ClassVar[bool] = True
    _unit: ClassVar[str] = ""
    _quality: ClassVar[bool] = True
    _needs: ClassVar[frozenset[str]] = frozenset()
    _ratio_of: ClassVar[tuple[str, str] | None] = None

    @property
    def name(self) -> str:
        """As printed and parsed: ``parse(metric.name) == metric``."""
        return self._name

    @abstractmethod
    def score(self, outcome: Outcome) -> float | None:
        """The outcome's value, or None where the metric says nothing about it."""

    @property
    def higher_is_better(self) -> bool:
        """Which way is up."""
        return self._higher_is_better

    @property
    def unit(self) -> str:
        """``""``, ``tokens``, ``s``, ``MiB``, ``FLOP`` or ``x``."""
        return self._unit

    @property
    def quality(self) -> bool:
        """True for what a user wants (answers, evidence, retrieval), False for what it costs."""
        return self._quality

    @property
    def needs(self) -> frozenset[str]:
        """Which of ``NEEDS`` a record or its run must have; ``qrels`` may come from labelled evidence."""
        return self._needs

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Least and greatest value there can be, for honest intervals of few or equal values; None where open."""
        return (0.0, 1.0) if self.quality else None

    @property
    def ratio_of(self) -> tuple[str, str] | None:
        """Names of two metrics: the mean of this one is the sum of the first divided by the sum of the second."""
        return self._ratio_of

    def __str__(self) -> str:
        return self.name
