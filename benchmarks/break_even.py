"""Is the predicted break-even what is measured? Fitted on some context lengths, checked on others.

    python benchmarks/run.py break_even        # some minutes; needs the nq_multidoc set

Costs are fitted to questions with 1, 3, 8 and 20 documents; the time to the first token is then predicted and measured
for other questions with 1, 2, 5, 12 and 30 documents. Both runs lie in .bench/break_even.
"""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / ".bench" / "break_even"
FITTED, CHECKED = (1, 3, 8, 20), (1, 2, 5, 12, 30)
QUESTIONS, SEED, BUDGET = 8, 0, 200
METHODS = ("sentence_filter", "bm25_sentences", "truncate")


def run() -> dict[str, Any]:
    """For each method the break-even, and measured times divided by predicted ones at lengths that were not fitted."""
    import os

    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does
    from ragzip.evaluation.breakeven import break_even, fit_run, predict

    fitted, checked = _run("fitted", FITTED, 0), _run("checked", CHECKED, QUESTIONS)
    fit, found = fit_run(fitted), break_even(fitted, window=8192, seed=SEED)
    results: dict[str, Any] = {}
    for name in METHODS:
        says = found["rows"][name]
        results[f"{name}, budget {BUDGET}"] = {
            "compressor, ms per context token": round(1000 * says["compress_per_token"], 4),
            "generator, ms per prompt token": round(1000 * says["prefill_per_token"], 4),
            "pays from, context tokens": says["pays_from"] if says["pays_from"] is not None else says["note"],
            "95 % interval": f"{says['low']} to {says['high']}",
            **_check(checked, name, lambda n, row=name: predict(fit, row, n)),
        }
    return results


def _check(run: Any, name: str, predicted: Any) -> dict[str, Any]:
    """By number of documents: tokens, measured seconds, and measured divided by predicted."""
    tokens = run.values(name, "tokens_in")
    with_it, without = run.values(name, "ttft"), run.values("no_compression", "ttft")
    rows: dict[str, Any] = {}
    right = total = 0
    for count in CHECKED:
        ids = [key for key in tokens if key.endswith(f"@{count}")]
        ratios = [[a[key] / predicted(tokens[key])[side] for key in ids] for side, a in ((0, with_it), (1, without))]
        median = [statistics.median(values) for values in ratios]
        size = statistics.median(tokens[key] for key in ids)
        gain = statistics.median(with_it[key] / without[key] for key in ids)
        expected = statistics.median(predicted(tokens[key])[0] / predicted(tokens[key])[1] for key in ids)
        rows[f"{count} documents ({size:,.0f} tokens)"] = (
            f"with/without measured {gain:.2f}, predicted {expected:.2f}; "
            f"measured/predicted: with {median[0]:.2f}, without {median[1]:.2f}"
        )
        right += (gain < 1) == (expected < 1)
        total += 1
    return {**rows, "lengths where the verdict is right": f"{right} of {total}"}


def _run(name: str, counts: tuple[int, ...], first: int) -> Any:
    from ragzip import BM25Sentences, HuggingFace, Pipeline, SentenceFilter, Truncate
    from ragzip.evaluation.data import open_set
    from ragzip.evaluation.record import DataSet
    from ragzip.evaluation.rows import plan
    from ragzip.evaluation.runner import Settings, evaluate

    longest = open_set("nq_multidoc@30").sample(2 * QUESTIONS, SEED)
    records = tuple(
        dataclasses.replace(record, id=f"{record.id}@{count}", passages=record.passages[:count], relevant=())
        for record in longest.records[first : first + QUESTIONS]
        for count in counts
    )
    data = DataSet(f"nq_multidoc, {counts} documents", records, longest.version, longest.source, longest.split)
    generator = HuggingFace(max_new_tokens=2)
    parts = (SentenceFilter(budget=BUDGET), BM25Sentences(budget=BUDGET), Truncate(tokens=BUDGET))
    named = [(method, Pipeline(generator, compressors=(part,))) for method, part in zip(METHODS, parts, strict=True)]
    return evaluate(plan(named, baselines="reference"), data, RUNS / name, Settings(seed=SEED))
