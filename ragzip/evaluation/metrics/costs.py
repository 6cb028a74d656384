"""What an answer took: tokens, seconds, memory, operations. Lower is better, except for the ratio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ragzip.errors import ConfigError
from ragzip.evaluation.metrics.base import Metric
from ragzip.evaluation.outcome import Outcome
from ragzip.registry import suggest

_MIB = 2**20


@dataclass(frozen=True)
class _Kind:
    unit: str
    read: Callable[[Outcome], float | None]
    generated: bool = False  # without an answer there is none


_KINDS = {
    "tokens_in": _Kind("tokens", lambda o: o.compression.tokens_in),
    "tokens_out": _Kind("tokens", lambda o: o.compression.tokens_out),
    "prompt_tokens": _Kind("tokens", lambda o: o.costs.prompt_tokens, generated=True),
    "new_tokens": _Kind("tokens", lambda o: o.costs.new_tokens, generated=True),
    "retrieve_seconds": _Kind("s", lambda o: o.costs.retrieve),
    "compress_seconds": _Kind("s", lambda o: o.costs.compress),
    "prefill_seconds": _Kind("s", lambda o: o.costs.prefill, generated=True),
    "decode_seconds": _Kind("s", lambda o: o.costs.decode, generated=True),
    "ttft": _Kind("s", lambda o: o.costs.ttft, generated=True),
    "total_seconds": _Kind("s", lambda o: o.costs.ttft + o.costs.decode, generated=True),
    "peak_memory": _Kind("MiB", lambda o: None if o.costs.peak_memory is None else o.costs.peak_memory / _MIB),
    "prefill_flops": _Kind("FLOP", lambda o: o.costs.prefill_flops, generated=True),
    "decode_flops": _Kind("FLOP", lambda o: o.costs.decode_flops, generated=True),
    "kv_memory": _Kind(
        "MiB", lambda o: None if o.costs.kv_memory is None else o.costs.kv_memory / _MIB, generated=True
    ),
    "index_bytes": _Kind("B", lambda o: o.costs.index_bytes),
    "build_seconds": _Kind("s", lambda o: o.costs.build_seconds),
}

COST_NAMES = tuple(_KINDS)


@dataclass(frozen=True)
class Cost(Metric):
    """One number of the account of an outcome.

    Attributes:
        cost: Which: one of ``COST_NAMES``.
    """

    cost: str
    _higher_is_better = False
    _quality = False

    def __post_init__(self) -> None:
        if self.cost not in _KINDS:
            raise ConfigError("cost", f"no cost {self.cost!r}", hint=suggest(str(self.cost), list(_KINDS)))

    @property
    def name(self) -> str:
        """The cost's own."""
        return self.cost

    @property
    def unit(self) -> str:
        """Tokens, seconds, bytes, MiB (2**20 bytes) or floating point operations."""
        return _KINDS[self.cost].unit

    @property
    def needs(self) -> frozenset[str]:
        """A generated answer, for what generating it costs."""
        return frozenset({"answer"}) if _KINDS[self.cost].generated else frozenset()

    def score(self, outcome: Outcome) -> float | None:
        """As measured; None where it was not, or where nothing was generated."""
        kind = _KINDS[self.cost]
        if kind.generated and outcome.answer is None:
            return None
        found = kind.read(outcome)
        return None if found is None else float(found)


@dataclass(frozen=True)
class Ratio(Metric):
    """``ratio``: tokens of the context before compression, divided by those after it.

    Of a set it is the ratio of the sums, not the mean of the ratios, which a few tiny contexts would rule.
    """

    _name = "ratio"
    _unit = "x"
    _quality = False
    _ratio_of = ("tokens_in", "tokens_out")

    def score(self, outcome: Outcome) -> float | None:
        """None where there was nothing to compress, or nothing is left."""
        before, after = outcome.compression.tokens_in, outcome.compression.tokens_out
        return before / after if before and after else None
