"""Answer quality against context tokens: every baseline and sentence_filter at four budgets, on five development sets.

    make bench-quality        # about an hour on two cores; goes on where it stopped

The pipeline is benchmarks/pipelines/sentence_filter.yaml. Run folders, with every record and the HTML report, are left
in .bench/quality/SET.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / ".bench" / "quality"
PIPELINE = ROOT / "benchmarks" / "pipelines" / "sentence_filter.yaml"
SETS = ("hotpotqa", "2wikimultihopqa", "musique", "nq_multidoc", "squad")
BUDGETS = (50, 100, 200, 400)
LIMIT, SEED = 100, 0

_SHOWN = ("f1", "em", "match", "answer_in_context", "sentence_recall", "tokens_out", "ratio", "ttft")
_EVERY = 60.0


def run() -> dict[str, Any]:
    """Runs all sets; gives the numbers that the page shows."""
    import os

    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does
    from ragzip.evaluation.data import open_set
    from ragzip.evaluation.report.html import write
    from ragzip.evaluation.rows import plan
    from ragzip.evaluation.runner import Settings, evaluate
    from ragzip.evaluation.sweep import expand

    rows = plan(expand(PIPELINE, [f"compressors.0.budget={','.join(map(str, BUDGETS))}"]), seed=SEED)
    results: dict[str, Any] = {}
    for name in SETS:
        found = evaluate(rows, open_set(name), RUNS / name, Settings(LIMIT, SEED), on_progress=_reporter(name))
        write(found, found.path / "report.html")
        results[name] = {
            "data": {key: value for key, value in found.config["data"].items() if key != "source"},
            "metrics": {row: {m: v for m, v in found.metrics[row].items() if m in _SHOWN} for row in found.names},
            "comparisons": {
                row: {m: v for m, v in values.items() if m in _SHOWN}
                for row, values in found.summary["comparisons"].items()
            },
            "break_even": {
                row: {key: value for key, value in values.items() if key != "points"}
                for row, values in found.summary["break_even"]["rows"].items()
            },
        }
    return results


def _reporter(name: str) -> Any:
    start, last = time.monotonic(), [0.0]

    def report(done: int, total: int) -> None:
        now = time.monotonic()
        if now - last[0] > _EVERY or done == total:
            last[0] = now
            print(f"{name}: {done} of {total}, {now - start:.0f} s", file=sys.stderr, flush=True)

    return report


def render(record: dict[str, Any]) -> str:
    """One table a set, in the order of the rows."""
    lines = [
        f"`{record['command']}`, {record['when']}, " + ", ".join(f"{k} {v}" for k, v in record["environment"].items()),
        "",
        f"Up to {LIMIT} questions a set, drawn with seed {SEED}. In brackets the 95 % interval. The mark after F1 says"
        " whether it differs from `no_compression` (paired randomisation test, corrected by Holm over the rows of the"
        " set): `+` higher, `-` lower, `n.s.` not significant.",
    ]
    for name, result in record["results"].items():
        data = result["data"]
        lines += [
            "",
            f"### {name}",
            "",
            f"{data['records']} of {data['of']} questions, {data['split']} split, version {data['version']}, "
            f"sha256 `{data['sha256'][:12]}`.",
            "",
            "| row | F1 | | match | answer in context | context tokens | ratio | first token, s |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row, metrics in result["metrics"].items():
            said = _said(result["comparisons"].get(row, {}).get("f1"))
            cells = [row, _interval(metrics.get("f1")), said, _number(metrics.get("match"))]
            cells += [_number(metrics.get("answer_in_context")), _whole(metrics.get("tokens_out"))]
            ratio = metrics.get("ratio")
            cells += [f"{ratio['mean']:.1f}x" if ratio else "", _number(metrics.get("ttft"))]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _said(comparison: dict[str, Any] | None) -> str:
    if comparison is None:
        return ""
    if not comparison["significant"]:
        return "n.s."
    return "+" if comparison["difference"] > 0 else "-"


def _interval(value: dict[str, Any] | None) -> str:
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]" if value else ""


def _number(value: dict[str, Any] | None) -> str:
    return f"{value['mean']:.3f}" if value else ""


def _whole(value: dict[str, Any] | None) -> str:
    return f"{value['mean']:,.0f}" if value else ""
