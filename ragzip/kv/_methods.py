"""Which methods can work on one cache."""

from __future__ import annotations

from typing import Any

from ragzip.errors import ConfigError
from ragzip.kv._eviction import Eviction
from ragzip.kv.precomputed import PrecomputedKV
from ragzip.kv.quantized import QuantizedKV

_KINDS = (Eviction, QuantizedKV, PrecomputedKV)


def check_methods(methods: Any) -> None:
    """Refuses what is no tuple of one eviction and one ``quantized_kv`` at most, or of ``precomputed_kv`` alone.

    Raises:
        ConfigError: Says which.
    """
    if not isinstance(methods, tuple):
        raise ConfigError("kv", f"must be a tuple of methods, not {methods!r:.60}", hint="Example: kv=(SnapKV(),)")
    strange = [method for method in methods if not isinstance(method, _KINDS)]
    if strange:
        raise ConfigError(
            "kv",
            f"{type(strange[0]).__name__} is no method for caches",
            hint="Make it a subclass of ragzip.kv.Eviction.",
        )
    if len(methods) > 1 and any(isinstance(method, PrecomputedKV) for method in methods):
        raise ConfigError("kv", "holds precomputed_kv with another one", hint="It stands alone.")
    if any(sum(isinstance(method, kind) for method in methods) > 1 for kind in _KINDS):
        raise ConfigError("kv", "holds two of a kind", hint="One eviction and one quantized_kv, at most.")
