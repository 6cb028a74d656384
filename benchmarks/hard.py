"""All hard compressors at several budgets beside the baselines, on five development sets.

    make bench-hard           # hours on two cores; goes on where it stopped

Methods that run the language model for every question take seconds a question, so they face fewer questions, and the
others stand beside them on the same ones. Run folders, with every record and the HTML report, are left in
.bench/hard/PART/SET.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from benchmarks.quality import _interval, _number, _reporter, _whole

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / ".bench" / "hard"
SETS = ("musique", "nq_multidoc", "hotpotqa", "2wikimultihopqa", "squad")
SEED = 0
QUARTER = 0.25
_SHOWN = (
    "f1",
    "match",
    "em",
    "sentence_f1",
    "sentence_recall",
    "answer_in_context",
    "tokens_out",
    "ratio",
    "compress_seconds",
    "prefill_seconds",
    "ttft",
)

PARTS: dict[str, dict[str, Any]] = {
    # methods with a classifier or an encoder
    "fast": {
        "questions": 100,
        "budgets": (100, 200, 400),
        "methods": ("provence", "recomp_extractive", "coverage", "sentence_filter", "llmlingua2"),
        "quarter": ("provence", "recomp_extractive", "sentence_filter"),
        "baselines": "all",
    },
    # methods that run the language model over the context, or write
    "slow": {
        "questions": 30,
        "budgets": (200,),
        "methods": (
            "provence",
            "exit",
            "recomp_abstractive",
            "summary",
            "llmlingua",
            "long_llmlingua",
            "selective_context",
            "semantic_drop",
        ),
        "quarter": (),
        "baselines": "all",
    },
}


def rows(part: str) -> list[Any]:
    """The rows of one part: every method at every budget, and what they are compared with."""
    from ragzip import config
    from ragzip.evaluation.rows import plan
    from ragzip.evaluation.sweep import prompt_for
    from ragzip.generators.huggingface import HuggingFace
    from ragzip.pipelines import Pipeline

    given = PARTS[part]
    reader = Pipeline(HuggingFace(max_new_tokens=32, stop=("\n",)), prompt=prompt_for("short"))

    def pipeline(method: str, **options: Any) -> Any:
        made = config.from_config("compressor", {"type": method, **options})
        return dataclasses.replace(reader, compressors=(made,), name="")

    named = [(f"{m}@{b}", pipeline(m, budget=b)) for m in given["methods"] for b in given["budgets"]]
    quarters = [(f"{m}@quarter", pipeline(m, keep=QUARTER)) for m in given["quarter"]]
    found = plan([*named, *quarters[:1]], baselines=given["baselines"], seed=SEED)
    names = {row.name for row in found}
    return found + [row for row in plan([*named, *quarters], baselines="reference", seed=SEED) if row.name not in names]


def run() -> dict[str, Any]:
    """Runs all parts on all sets; gives the numbers that the page shows."""
    import os

    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does
    from ragzip.evaluation.data import open_set
    from ragzip.evaluation.report.html import write
    from ragzip.evaluation.runner import Settings, evaluate

    results: dict[str, Any] = {}
    for part, given in PARTS.items():
        results[part] = {}
        for name in SETS:
            settings = Settings(given["questions"], SEED)
            found = evaluate(rows(part), open_set(name), RUNS / part / name, settings, on_progress=_reporter(name))
            write(found, found.path / "report.html")
            results[part][name] = {
                "data": {key: value for key, value in found.config["data"].items() if key != "source"},
                "metrics": {row: {m: v for m, v in found.metrics[row].items() if m in _SHOWN} for row in found.names},
                "comparisons": {
                    row: {m: v for m, v in values.items() if m in ("f1", "match")}
                    for row, values in found.summary["comparisons"].items()
                },
                "failed": found.summary["failed"],
            }
    return results


def render(record: dict[str, Any]) -> str:
    """For each part and set one table of the rows."""
    lines = [
        f"`{record['command']}`, {record['when']}, " + ", ".join(f"{k} {v}" for k, v in record["environment"].items()),
        "",
        "In brackets the 95 % interval. The mark says whether a score differs from `no_compression` (paired"
        " randomisation test, corrected by Holm over the rows of the set): `+` higher, `-` lower, no mark: not"
        " significant. `@100` is a budget of 100 tokens, `@quarter` a quarter of the context's.",
    ]
    for part, sets in record["results"].items():
        for name, result in sets.items():
            data = result["data"]
            lines += [
                "",
                f"### {name}, {part} methods",
                "",
                f"{data['records']} of {data['of']} questions, {data['split']} split, version {data['version']}, "
                f"sha256 `{data['sha256'][:12]}`.",
                "",
                "| row | F1 | match | sentence F1 | answer in context | tokens | ratio | compress, s "
                "| first token, s |",
                "|---|---|---|---|---|---|---|---|---|",
            ]
            for row, metrics in result["metrics"].items():
                against = result["comparisons"].get(row, {})
                cells = [row, *(_interval(metrics.get(m), against.get(m)) for m in ("f1", "match"))]
                cells += [_number(metrics.get(m)) for m in ("sentence_f1", "answer_in_context")]
                cells.append(_whole(metrics.get("tokens_out")))
                ratio = metrics.get("ratio")
                cells.append(f"{ratio['mean']:.1f}x" if ratio else "")
                cells += [_number(metrics.get(m)) for m in ("compress_seconds", "ttft")]
                lines.append("| " + " | ".join(cells) + " |")
            if result["failed"]:
                said = ", ".join(f"{row} {count}" for row, count in result["failed"].items())
                lines += ["", f"Prompts beyond the window, not scored: {said}."]
    return "\n".join(lines) + "\n"
