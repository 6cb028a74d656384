"""Answer quality against context tokens: every baseline and sentence_filter at four budgets, on five development sets.

    make bench-quality        # over an hour on two cores; goes on where it stopped

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
SETS = ("musique", "nq_multidoc", "squad", "hotpotqa", "2wikimultihopqa")
BUDGETS = (50, 100, 200, 400)
LIMIT, SEED = 100, 0

RIVALS = ("truncate", "random_sentences", "bm25_sentences")
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
            "failed": found.summary["failed"],
            "same_budget": _same_budget(found),
            "break_even": {
                row: {key: value for key, value in values.items() if key != "points"}
                for row, values in found.summary["break_even"]["rows"].items()
            },
        }
    return results


def _same_budget(run: Any) -> list[dict[str, Any]]:
    """sentence_filter against the others at the same budget, by F1 and match; corrected by Holm within a metric."""
    from ragzip.evaluation.statistics import holm, paired

    rows: list[dict[str, Any]] = []
    for metric in ("f1", "match"):
        pairs = [(budget, rival) for budget in BUDGETS for rival in RIVALS]
        tests = [
            paired(
                run.values(f"sentence_filter[budget={budget}]", metric),
                run.values(f"{rival}@{budget}", metric),
                seed=SEED,
            )
            for budget, rival in pairs
        ]
        corrected = holm([test.p for test in tests])
        for (budget, rival), test, p in zip(pairs, tests, corrected, strict=True):
            numbers = {"difference": test.difference, "low": test.low, "high": test.high, "p_corrected": p, "n": test.n}
            rows.append({"metric": metric, "budget": budget, "rival": rival, **numbers})
    return rows


def _reporter(name: str) -> Any:
    start, last = time.monotonic(), [0.0]

    def report(done: int, total: int) -> None:
        now = time.monotonic()
        if now - last[0] > _EVERY or done == total:
            last[0] = now
            print(f"{name}: {done} of {total}, {now - start:.0f} s", file=sys.stderr, flush=True)

    return report


def render(record: dict[str, Any]) -> str:
    """For each set one table of the rows, and one of sentence_filter against the same budgets spent otherwise."""
    lines = [
        f"`{record['command']}`, {record['when']}, " + ", ".join(f"{k} {v}" for k, v in record["environment"].items()),
        "",
        f"Up to {LIMIT} questions a set, drawn with seed {SEED}. In brackets the 95 % interval. The mark says whether a"
        " score differs from `no_compression` (paired randomisation test, corrected by Holm over the rows of the set):"
        " `+` higher, `-` lower, no mark: not significant. Each set is a family of tests of its own.",
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
            "| row | F1 | match | EM | answer in context | tokens | ratio | first token, s |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row, metrics in result["metrics"].items():
            against = result["comparisons"].get(row, {})
            scores = [_interval(metrics.get(m), against.get(m)) for m in ("f1", "match", "em")]
            cells = [row, *scores, _number(metrics.get("answer_in_context")), _whole(metrics.get("tokens_out"))]
            ratio = metrics.get("ratio")
            cells += [f"{ratio['mean']:.1f}x" if ratio else "", _number(metrics.get("ttft"))]
            lines.append("| " + " | ".join(cells) + " |")
        if result["failed"]:
            said = ", ".join(f"{row} {count}" for row, count in result["failed"].items())
            lines += ["", f"Prompts beyond the window, not scored: {said}."]
        lines += ["", "`sentence_filter` minus the others at the same budget (`*`: significant):", ""]
        lines += [f"| budget | {' | '.join(f'{rival}, {m}' for m in ('F1', 'match') for rival in RIVALS)} |"]
        lines += ["|---" * (1 + 2 * len(RIVALS)) + "|"]
        for budget in BUDGETS:
            here = [row for row in result["same_budget"] if row["budget"] == budget]
            lines.append(f"| {budget} | " + " | ".join(map(_against, here)) + " |")
    return "\n".join(lines) + "\n"


def _against(row: dict[str, Any]) -> str:
    mark = "*" if row["p_corrected"] < 0.05 else ""
    return f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]{mark}"


def _interval(value: dict[str, Any] | None, against: dict[str, Any] | None) -> str:
    if not value:
        return ""
    mark = "" if not against or not against["significant"] else " +" if against["difference"] > 0 else " -"
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]{mark}"


def _number(value: dict[str, Any] | None) -> str:
    return f"{value['mean']:.3f}" if value else ""


def _whole(value: dict[str, Any] | None) -> str:
    return f"{value['mean']:,.0f}" if value else ""
