"""All hard compressors at several budgets beside the baselines, on the development sets.

    python benchmarks/run.py hard:quarter        # or :evidence, :domains, :judge, :summary, :fast, :slow
    make bench-hard                              # all of them: hours on two cores; goes on where it stopped

Methods that run the language model for every question take seconds a question, so they face few questions, and the
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
MANY = ("musique", "nq_multidoc", "hotpotqa", "2wikimultihopqa")
SEED = 0
QUARTER = 0.25
_PAIRED = ("f1", "sentence_f1")
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

_PROVENCE = {"provence@quarter": {"type": "provence", "keep": QUARTER}}
_ONE_LOOK = {"provence@quarter, one look": {"type": "provence", "hops": 1, "keep": QUARTER}}
_FILLED = {
    "provence@quarter, filled": {"type": "provence", "threshold": 0.0, "keep": QUARTER},
    "recomp_extractive@quarter": {"type": "recomp_extractive", "keep": QUARTER},
    "sentence_filter@quarter": {"type": "sentence_filter", "keep": QUARTER},
    "bm25_sentences@quarter": {"type": "bm25_sentences", "keep": QUARTER},
}
_FILTERED = tuple(
    (name, "sentence_filter@quarter")
    for name in ("provence@quarter", "provence@quarter, filled", "recomp_extractive@quarter")
)

PARTS: dict[str, dict[str, Any]] = {
    # a quarter of the tokens, enough questions to tell it from all of them
    "quarter": {
        "sets": MANY,
        "questions": 100,
        "rows": {**_PROVENCE, **_ONE_LOOK},
        "baselines": "reference",
        "pairs": (("provence@quarter", "provence@quarter, one look"),),
    },
    # which sentences are kept, without answers: more rows in less time
    "evidence": {
        "sets": ("hotpotqa", "2wikimultihopqa", "musique"),
        "questions": 100,
        "rows": {**_PROVENCE, **_ONE_LOOK, **_FILLED},
        "baselines": "reference",
        "generate": False,
        "pairs": _FILTERED,
    },
    # texts unlike most of training: biomedical articles, reports with tables, stories (it read others), German
    "domains": {
        "sets": ("covidqa", "tatqa", "fairytaleqa", "xquad_de"),
        "questions": 30,
        "rows": {**_PROVENCE, **_FILLED, "llmlingua2@quarter": {"type": "llmlingua2", "keep": QUARTER}},
        "baselines": "reference",
        "generate": False,
        "pairs": _FILTERED,
        "pair_metrics": ("sentence_f1", "answer_in_context"),
    },
    # a language model as judge of sentences, before and after its training
    "judge": {
        "sets": ("hotpotqa", "nq_multidoc"),
        "questions": 30,
        "rows": {
            "exit": {"type": "exit"},
            "exit@200": {"type": "exit", "budget": 200},
            "exit@200, before training": {"type": "exit", "model": "smollm2-135m-instruct", "budget": 200},
            "provence@200": {"type": "provence", "budget": 200},
            "recomp_extractive@200": {"type": "recomp_extractive", "budget": 200},
            "bm25_sentences@200": {"type": "bm25_sentences", "budget": 200},
            "random_sentences@200": {"type": "random_sentences", "budget": 200},
        },
        "baselines": "reference",
        "generate": False,
        "pairs": (("exit@200", "exit@200, before training"), ("exit@200", "provence@200")),
    },
    # a summariser, before and after its training
    "summary": {
        "sets": ("hotpotqa", "nq_multidoc"),
        "questions": 40,
        "rows": {
            "recomp_abstractive": {"type": "recomp_abstractive"},
            "recomp_abstractive@100": {"type": "recomp_abstractive", "budget": 100},
            "recomp_abstractive@100, before training": {
                "type": "recomp_abstractive",
                "model": "smollm2-135m-instruct",
                "budget": 100,
            },
            "sentence_filter@200, then recomp_abstractive": [
                {"type": "sentence_filter", "budget": 200},
                {"type": "recomp_abstractive"},
            ],
            "provence@200, then recomp_abstractive": [
                {"type": "provence", "budget": 200},
                {"type": "recomp_abstractive"},
            ],
            "sentence_filter@40": {"type": "sentence_filter", "budget": 40},
            "provence@40": {"type": "provence", "budget": 40},
            "recomp_extractive@100": {"type": "recomp_extractive", "budget": 100},
            "sentence_filter@100": {"type": "sentence_filter", "budget": 100},
            "bm25_sentences@100": {"type": "bm25_sentences", "budget": 100},
            "random_sentences@100": {"type": "random_sentences", "budget": 100},
        },
        "baselines": "reference",
        "generate": False,
        "pairs": (
            ("recomp_abstractive@100", "recomp_abstractive@100, before training"),
            ("recomp_abstractive@100", "sentence_filter@100"),
            ("sentence_filter@200, then recomp_abstractive", "recomp_abstractive@100"),
            ("sentence_filter@200, then recomp_abstractive", "sentence_filter@40"),
            ("provence@200, then recomp_abstractive", "provence@40"),
        ),
        "pair_metrics": ("answer_in_context",),
    },
    # methods with a classifier or an encoder
    "fast": {
        "sets": ("hotpotqa", "nq_multidoc"),
        "questions": 30,
        "budgets": (100, 200, 400),
        "methods": ("provence", "recomp_extractive", "coverage", "sentence_filter", "llmlingua2"),
        "baselines": "all",
    },
    # methods that run the language model over the context, or write
    "slow": {
        "sets": ("hotpotqa", "nq_multidoc"),
        "questions": 10,
        "budgets": (100, 200, 400),
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
        "rows": {
            "gate": {"type": "gate"},
            "structured(provence)@100": {"type": "structured", "inner": {"type": "provence"}, "budget": 100},
            "structured(provence)@200": {"type": "structured", "inner": {"type": "provence"}, "budget": 200},
            "structured(provence)@400": {"type": "structured", "inner": {"type": "provence"}, "budget": 400},
        },
        "options": {"semantic_drop": {"exact": False}},
        "baselines": "reference",
    },
}


def rows(part: str) -> list[Any]:
    """The rows of one part: every method at every budget, and what they are compared with."""
    from ragzip.evaluation.rows import plan
    from ragzip.evaluation.sweep import prompt_for
    from ragzip.generators.huggingface import HuggingFace
    from ragzip.pipelines import Pipeline

    given = PARTS[part]
    reader = Pipeline(HuggingFace(max_new_tokens=32, stop=("\n",)), prompt=prompt_for("short"))
    options = given.get("options", {})
    values = {
        f"{_named(method, options)}@{budget}": {"type": method, "budget": budget, **options.get(method, {})}
        for method in given.get("methods", ())
        for budget in given["budgets"]
    }
    named = [
        (name, dataclasses.replace(reader, compressors=tuple(_stack(of))))
        for name, of in {**values, **given.get("rows", {})}.items()
    ]
    return plan(named, baselines=given["baselines"], seed=SEED)


def _stack(of: Any) -> list[Any]:
    """The compressors of a row: one, or several one behind the other."""
    from ragzip import config

    return [config.from_config("compressor", one) for one in (of if isinstance(of, list) else [of])]


def _named(method: str, options: dict[str, dict[str, Any]]) -> str:
    """The method with the options that are not its defaults."""
    told = ", ".join(f"{key}={value}" for key, value in options.get(method, {}).items())
    return f"{method}({told})" if told else method


def run(part: str) -> dict[str, Any]:
    """Runs one part on its sets; gives the numbers that the page shows."""
    import os

    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does
    from ragzip.evaluation.data import open_set
    from ragzip.evaluation.report.html import write
    from ragzip.evaluation.runner import Settings, evaluate

    results: dict[str, Any] = {}
    given = PARTS[part]
    for name in given["sets"]:
        settings = Settings(given["questions"], SEED, generate=given.get("generate"))
        progress = _reporter(f"{part}, {name}")
        found = evaluate(rows(part), open_set(name), RUNS / part / name, settings, on_progress=progress)
        write(found, found.path / "report.html")
        results[name] = {
            "data": {key: value for key, value in found.config["data"].items() if key != "source"},
            "metrics": {row: {m: v for m, v in found.metrics[row].items() if m in _SHOWN} for row in found.names},
            "comparisons": {
                row: {m: v for m, v in values.items() if m in ("f1", "match")}
                for row, values in found.summary["comparisons"].items()
            },
            "failed": found.summary["failed"],
            "pairs": _pairs(found, given.get("pairs", ()), given.get("pair_metrics", _PAIRED)),
        }
    return results


def _pairs(run: Any, pairs: Any, metrics: Any = _PAIRED) -> list[dict[str, Any]]:
    """Rows against rows, question by question, by each of the metrics that they have; corrected by Holm over all."""
    from ragzip.evaluation.statistics import holm, paired

    wanted = [(one, other, m) for one, other in pairs for m in metrics if m in run.metrics[one]]
    tests = [paired(run.values(one, m), run.values(other, m), seed=SEED) for one, other, m in wanted]
    corrected = holm([test.p for test in tests])
    return [
        {
            "row": one,
            "against": other,
            "metric": metric,
            "difference": test.difference,
            "low": test.low,
            "high": test.high,
            "p_corrected": p,
            "n": test.n,
        }
        for (one, other, metric), test, p in zip(wanted, tests, corrected, strict=True)
    ]


def render(record: dict[str, Any]) -> str:
    """For each set one table of the rows."""
    lines = [
        f"`{record['command']}`, {record['when']}, " + ", ".join(f"{k} {v}" for k, v in record["environment"].items()),
        "",
        "In brackets the 95 % interval. The mark says whether a score differs from `no_compression` (paired"
        " randomisation test, corrected by Holm over the rows of the set): `+` higher, `-` lower, no mark: not"
        " significant.",
    ]
    for name, result in record["results"].items():
        data = result["data"]
        lines += [
            "",
            f"#### {name}",
            "",
            f"{data['records']} of {data['of']} questions, {data['split']} split, version {data['version']}, "
            f"sha256 `{data['sha256'][:12]}`.",
            "",
            *_table(result),
        ]
        if result["failed"]:
            said = ", ".join(f"{row} {count}" for row, count in result["failed"].items())
            lines += ["", f"Prompts beyond the window, not scored: {said}."]
        for pair in result["pairs"]:
            lines += ["", _told(pair)]
    return "\n".join(lines) + "\n"


def _table(result: dict[str, Any]) -> list[str]:
    """A line for each row, a column for each measure that the set and the part have."""
    columns: dict[str, list[str]] = {"row": list(result["metrics"])}
    # contexts with soft rows have no words to look in, and the few of a row without any would not stand for the others
    seen = {row: found for row, metrics in result["metrics"].items() if (found := metrics.get("answer_in_context"))}
    whole = max((found["n"] for found in seen.values()), default=0)
    seen = {row: found for row, found in seen.items() if found["n"] == whole}
    for row, metrics in result["metrics"].items():
        marks = result["comparisons"].get(row, {})
        ratio = metrics.get("ratio")
        cells = {
            "F1": _interval(metrics.get("f1"), marks.get("f1")),
            "match": _interval(metrics.get("match"), marks.get("match")),
            "sentence F1": _interval(metrics.get("sentence_f1"), None),
            "answer in context": _number(seen.get(row)),
            "tokens": _whole(metrics.get("tokens_out")),
            "ratio": f"{ratio['mean']:.1f}x" if ratio else "",
            "compress, s": _number(metrics.get("compress_seconds")),
            "first token, s": _number(metrics.get("ttft")),
        }
        for name, cell in cells.items():
            columns.setdefault(name, []).append(cell)
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    lines = ["| " + " | ".join(shown) + " |", "|---" * len(shown) + "|"]
    return lines + ["| " + " | ".join(cells) + " |" for cells in zip(*shown.values(), strict=True)]


def _told(pair: dict[str, Any]) -> str:
    mark = "significant" if pair["p_corrected"] < 0.05 else "not significant"
    what = {"f1": "F1", "sentence_f1": "sentence F1", "answer_in_context": "answer in context"}[pair["metric"]]
    return (
        f"`{pair['row']}` minus `{pair['against']}`, {what}: {pair['difference']:+.3f} "
        f"[{pair['low']:+.3f}, {pair['high']:+.3f}], {mark}."
    )
