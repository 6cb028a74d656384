"""A run made of numbers, as the analyses see one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class FakeRun:
    config: dict[str, Any]
    lines: dict[str, list[dict[str, Any]]]
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self):
        return list(self.config["rows"])

    def rows(self, name):
        return self.lines[name]

    def values(self, name, metric):
        found = ((line["id"], line["metrics"].get(metric)) for line in self.lines[name])
        return {key: float(value) for key, value in found if value is not None}


def run_of(rows, *, baseline="no_compression", settings=None, sha="a" * 64, environment=None, metrics=None, **config):
    """``rows``: name -> metric -> list (by position) or mapping (by id) of values; None leaves one out."""
    lines = {}
    for name, columns in rows.items():
        columns = {m: v if isinstance(v, dict) else {f"r{i}": x for i, x in enumerate(v)} for m, v in columns.items()}
        ids = list(dict.fromkeys(key for column in columns.values() for key in column))
        lines[name] = [
            {
                "pipeline": name,
                "id": key,
                "steps": [{"name": "x"}] if (settings or {}).get(name, {}).get("steps", name != baseline) else [],
                "metrics": {m: column.get(key) for m, column in columns.items()},
                "prompt_tokens": int(columns.get("prompt_tokens", {}).get(key) or 0),
            }
            for key in ids
        ]
    names = metrics or list(dict.fromkeys(m for columns in rows.values() for m in columns))
    own = {name: {"kind": "given", "baseline": baseline, **(settings or {}).get(name, {})} for name in rows}
    data = {"name": "toy", "sha256": sha}
    return FakeRun(
        {"data": data, "baseline": baseline, "metrics": names, "rows": own, **config}, lines, environment or {}
    )


def timed_run(rows, *, n=60, seed=0, sizes=(200, 2000), prefill=(0.02, 3.6e-4, 0.0), overhead=50, noise=0.02, **more):
    """A run whose costs follow known lines. ``rows``: name -> (fixed, per token, tokens left as a function)."""
    rng = np.random.default_rng(seed)
    size = rng.integers(*sizes, n, endpoint=True)

    def scatter(values):
        return np.asarray(values) * (1 + noise * rng.standard_normal(n))

    made = {}
    for name, (fixed, slope, left) in {"no_compression": (0.0, 1e-6, lambda x: x), **rows}.items():
        out = np.array([int(left(x)) for x in size])
        prompt = out + overhead
        compress = scatter(fixed + slope * size)
        read = scatter(prefill[0] + prompt * (prefill[1] + prefill[2] * prompt))
        made[name] = {
            "tokens_in": size.tolist(),
            "tokens_out": out.tolist(),
            "prompt_tokens": prompt.tolist(),
            "retrieve_seconds": [0.01] * n,
            "compress_seconds": compress.tolist(),
            "prefill_seconds": read.tolist(),
            "ttft": (0.01 + compress + read).tolist(),
            "new_tokens": [5] * n,
        }
    return run_of(made, **more)


def run_with(rows, base, **more):
    """``rows``: name -> (cost, values)."""
    made = {"no_compression": {"em": list(base), "tokens_out": [1000] * len(base)}}
    made |= {name: {"em": list(values), "tokens_out": [cost] * len(values)} for name, (cost, values) in rows.items()}
    return run_of(made, **more)
