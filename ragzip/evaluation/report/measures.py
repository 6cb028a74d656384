"""How metrics print: quality in percent, costs with their unit, and which way is up."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ragzip.errors import RagzipError
from ragzip.evaluation.metrics import Metric, parse
from ragzip.evaluation.report.words import word


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _seconds(value: float) -> str:
    if 0 < abs(value) < 0.0095:
        return f"{value * 1000:.1f} ms"
    return f"{value:.3f} s" if abs(value) < 10 else f"{value:,.1f} s"


def _mebibytes(value: float) -> str:
    return f"{value:,.0f} MiB"


def _ratio(value: float) -> str:
    return f"{value:.1f}x" if abs(value) < 100 else f"{value:,.0f}x"


def _flop(value: float) -> str:
    for prefix in ("", "k", "M", "G", "T", "P"):
        if abs(value) < 999.5 or prefix == "P":
            return f"{value:.3g} {prefix}FLOP"
        value /= 1000
    return ""


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _bytes(value: float) -> str:
    return f"{value:,.0f} B"


def _any(value: float) -> str:
    return f"{value:.3g}"


COSTS: Mapping[str, Callable[[float], str]] = {
    "tokens_out": _count,
    "ratio": _ratio,
    "ttft": _seconds,
    "total_seconds": _seconds,
    "tokens_in": _count,
    "prompt_tokens": _count,
    "new_tokens": _count,
    "retrieve_seconds": _seconds,
    "compress_seconds": _seconds,
    "prefill_seconds": _seconds,
    "decode_seconds": _seconds,
    "peak_memory": _mebibytes,
    "prefill_flops": _flop,
    "decode_flops": _flop,
    "kv_memory": _mebibytes,
    "index_bytes": _bytes,
    "build_seconds": _seconds,
}
"""Metrics that say what an answer took and how they print, in column order. All others say how good an answer is."""

HEADINGS: Mapping[str, str] = {
    "tokens_out": "tokens out",
    "tokens_in": "tokens in",
    "prompt_tokens": "prompt tokens",
    "new_tokens": "new tokens",
    "total_seconds": "total",
    "retrieve_seconds": "retrieve",
    "compress_seconds": "compress",
    "prefill_seconds": "prefill",
    "decode_seconds": "decode",
    "peak_memory": "peak memory",
    "prefill_flops": "prefill FLOP",
    "decode_flops": "decode FLOP",
    "kv_memory": "key-value cache",
    "index_bytes": "index, a passage",
    "build_seconds": "to build",
}

_UNITS: Mapping[str, Callable[[float], str]] = {
    "tokens": _count,
    "s": _seconds,
    "MiB": _mebibytes,
    "B": _bytes,
    "FLOP": _flop,
    "x": _ratio,
}


def heading(metric: str) -> str:
    """How a column of this metric is headed."""
    return HEADINGS.get(metric, word(metric))


def _known(metric: str) -> Metric | None:
    """The metric behind a name; None where the package that added it is not here."""
    try:
        return parse(metric)
    except RagzipError:
        return None


def _printer(metric: str) -> Callable[[float], str]:
    if metric in COSTS:
        return COSTS[metric]
    known = _known(metric)
    if known is None:
        return _any
    if known.quality and not known.unit:
        return _percent if known.bounds == (0.0, 1.0) else _any
    return _UNITS.get(known.unit, _any)


def show_value(metric: str, value: float | None) -> str:
    """A value as it prints, ``–`` where there is none."""
    return "–" if value is None else _printer(metric)(value).replace("-", "−")


def in_percent(metric: str) -> bool:
    """Whether it prints in percent."""
    return _printer(metric) is _percent


def is_quality(metric: str) -> bool:
    """Whether a metric says how good an answer is."""
    if metric in COSTS:
        return False
    known = _known(metric)
    return known is None or known.quality


def better_if_higher(metric: str) -> bool:
    """Whether more of it is better."""
    if metric in COSTS:
        return metric == "ratio"
    known = _known(metric)
    return known is None or known.higher_is_better
