"""How much quality may be lost: ``1%`` of the baseline's, or ``0.01`` (``1pt``) in the metric's own unit."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ragzip.errors import UsageError

_FORM = re.compile(r"\+?(\d+(?:\.\d*)?|\.\d+)(?:e([+-]?\d{1,3}))?\s*(%|pts?)?")


@dataclass(frozen=True, slots=True)
class Loss:
    """A limit on what a candidate may lose against the baseline.

    Attributes:
        limit: From 0 to below 1: a share of the baseline's mean where relative, else of the metric's 0 to 1.
        relative: Which of the two.
    """

    limit: float
    relative: bool

    def __post_init__(self) -> None:
        if isinstance(self.limit, bool) or not math.isfinite(self.limit) or not 0 <= self.limit < 1:
            raise UsageError(f"a loss must be at least 0 and below 1 (100%), not {self.limit!r}.", hint=_HINT)

    @staticmethod
    def parse(text: str) -> Loss:
        """``1%``: relative to the baseline's mean. ``0.01`` and ``1pt``: absolute, one point of a hundred.

        Raises:
            UsageError: Anything else; a bare number of 1 or more, which could mean either.
        """
        word = text.strip().lower()
        match = _FORM.fullmatch(word)
        if match is None:
            raise UsageError(f"{text!r} is no loss.", hint=_HINT)
        value = float(match[1] + (f"e{match[2]}" if match[2] else ""))
        if match[3] is None and value >= 1:
            raise UsageError(f"{text!r} could mean {word}% or {word}pt.", hint=_HINT)
        try:
            return Loss(value / 100 if match[3] else value, match[3] == "%")
        except UsageError as error:
            raise UsageError(f"{text!r}: {error.message}", hint=_HINT) from error

    def __str__(self) -> str:
        """As ``parse`` reads it."""
        shown = f"{100 * self.limit:.10g}"
        return f"{shown}%" if self.relative else f"{shown}pt"

    def shown(self, value: float) -> str:
        """A loss in the limit's unit: ``0.4%`` or ``0.4 points``."""
        value = 100 * value + 0.0  # no "-0"
        return f"{value:.2g}%" if self.relative else f"{value:.2g} points"


_HINT = "Write 1% (of the baseline's mean), or 1pt or 0.01 (of the metric's 0 to 1)."
