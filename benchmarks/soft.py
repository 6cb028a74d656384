"""Soft compression and smaller caches: answers, times and bytes.

    python benchmarks/run.py soft:answers    # xrag: against text, nothing, titles alone, and rows of other passages
    python benchmarks/run.py soft:concepts   # comp_llm: against text, fewer words as text, and its rows before training
    python benchmarks/run.py soft:front      # provence >> comp_llm at many budgets: on the front of F1 against tokens?
    python benchmarks/run.py soft:refrag     # refrag: chunks as text by two policies, and what its rows add
    python benchmarks/run.py soft:speed      # what rows cost and save before the first token
    python benchmarks/run.py soft:kv         # answers and bytes with smaller caches
    make bench-soft                          # all of them: about five hours on two cores

Weights are those that come with ragzip. Run folders are left in .bench/soft/PART/SET.
"""

from __future__ import annotations

import dataclasses
import random
import shutil
from pathlib import Path
from typing import Any

from benchmarks.hard import _table, _told
from benchmarks.measure import median
from benchmarks.quality import _reporter
from benchmarks.soft_controls import OtherRows, OtherTexts
from ragzip.compressors.refrag import REFRAG

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / ".bench" / "soft"
SEED = 0
ANSWERS: dict[str, Any] = {"sets": ("nq_multidoc@5", "hotpotqa"), "questions": (120, 533)}  # all of HotpotQA
EXPANDED: dict[str, Any] = {"sets": ("nq_multidoc@20", "hotpotqa"), "questions": 30}
CONCEPTS: dict[str, Any] = {"sets": ("nq_multidoc@5",), "questions": 50}
FRONT: dict[str, Any] = {"sets": ("nq_multidoc@5", "hotpotqa"), "questions": 100}
_BUDGETS = (24, 48, 96)  # tokens; comp_llm at rate 2 makes rows of twice as many
KV: dict[str, Any] = {"sets": ("nq_multidoc@5",), "questions": 10}
SPEED = {"questions": 6, "rounds": 2}
_METHODS = ("streaming_llm", "snapkv", "expected_attention", "h2o", "scissorhands", "sentence_kv")
_SHOWN = ("f1", "match", "answer_in_context", "tokens_out", "ratio", "compress_seconds", "prefill_seconds", "ttft")


def run(part: str) -> dict[str, Any]:
    """One part."""
    import os

    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does
    return {"answers": answers, "concepts": concepts, "front": front, "refrag": expanded, "speed": speed, "kv": kv}[
        part
    ]()


def answers() -> dict[str, Any]:
    """Rows of shipped weights against text, nothing, titles alone and rows of other passages."""
    from ragzip import registry
    from ragzip.compressors.xrag import XRAG

    registry.register("compressor", "other_texts", "benchmarks.soft_controls:OtherTexts")
    xrag = XRAG()
    rows: dict[str, Any] = {
        "xrag": {"compressors": (xrag,)},
        "xrag, rows of other passages": {"compressors": (OtherTexts(xrag),)},
        "titles alone": {"compressors": (OtherTexts(xrag, rows=False),)},
    }
    pairs = (("xrag", "xrag, rows of other passages"), ("xrag", "titles alone"), ("xrag", "closed_book"))
    return _evaluated("answers", rows, ANSWERS, pairs)


def concepts() -> dict[str, Any]:
    """Rows of comp_llm against as many tokens of text, against their start, and behind a text compressor."""
    from ragzip import registry
    from ragzip.compressors.comp_llm import CompLLM
    from ragzip.compressors.llmlingua2 import LLMLingua2
    from ragzip.compressors.provence import Provence

    registry.register("compressor", "other_texts", "benchmarks.soft_controls:OtherTexts")
    words = _words_alone(RUNS / "concepts" / "words")
    rows: dict[str, Any] = {f"comp_llm, rate {rate}": {"compressors": (CompLLM(rate=rate),)} for rate in (2, 4, 8)}
    rows |= {f"picked words alone, rate {rate}": {"compressors": (CompLLM(words, rate=rate),)} for rate in (2, 4)}
    rows |= {
        "comp_llm, rate 4, rows of other passages": {"compressors": (OtherTexts(CompLLM(rate=4)),)},
        "llmlingua2, a half": {"compressors": (LLMLingua2(keep=0.5),)},
        "llmlingua2, a quarter": {"compressors": (LLMLingua2(keep=0.25),)},
        "provence, a quarter": {"compressors": (Provence(keep=0.25),)},
        "provence, a half, then comp_llm, rate 2": {"compressors": (Provence(keep=0.5), CompLLM(rate=2))},
    }
    pairs = (
        ("comp_llm, rate 2", "picked words alone, rate 2"),
        ("comp_llm, rate 4", "picked words alone, rate 4"),
        ("comp_llm, rate 4", "comp_llm, rate 4, rows of other passages"),
        ("comp_llm, rate 2", "llmlingua2, a half"),
        ("comp_llm, rate 4", "llmlingua2, a quarter"),
        ("provence, a half, then comp_llm, rate 2", "comp_llm, rate 4"),
        ("provence, a half, then comp_llm, rate 2", "provence, a quarter"),
        ("comp_llm, rate 4", "closed_book"),
    )
    return _evaluated("concepts", rows, CONCEPTS, pairs)


def front() -> dict[str, Any]:
    """Text by provence, rows by comp_llm, and both after each other, at many sizes."""
    from ragzip.compressors.comp_llm import CompLLM
    from ragzip.compressors.provence import Provence
    from ragzip.evaluation.fronts import pareto

    rows: dict[str, Any] = {f"comp_llm, rate {rate}": {"compressors": (CompLLM(rate=rate),)} for rate in (2, 4, 8)}
    rows |= {f"provence, {most} tokens": {"compressors": (Provence(budget=most),)} for most in _BUDGETS}
    rows |= {
        f"provence, {2 * most} tokens, then comp_llm": {"compressors": (Provence(budget=2 * most), CompLLM(rate=2))}
        for most in _BUDGETS
    }
    pairs = tuple((f"provence, {2 * most} tokens, then comp_llm", f"provence, {most} tokens") for most in _BUDGETS)
    found = _evaluated("front", rows, FRONT, pairs)
    for result in found.values():
        metrics = {row: values for row, values in result["metrics"].items() if row in rows}
        points = {row: (values["tokens_out"]["mean"], values["f1"]["mean"]) for row, values in metrics.items()}
        result["front"] = pareto(points)
    return found


def expanded() -> dict[str, Any]:
    """refrag with a quarter of its chunks as text, or less: by two policies, and against its text without its rows."""
    from ragzip import registry
    from ragzip.compressors.provence import Provence

    registry.register("compressor", "other_rows", "benchmarks.soft_controls:OtherRows")
    close, keep = REFRAG(policy="similarity"), REFRAG(policy="provence")
    rows: dict[str, Any] = {
        "refrag, similarity": {"compressors": (close,)},
        "refrag, provence": {"compressors": (keep,)},
        "refrag, provence, every passage": {"compressors": (dataclasses.replace(keep, drop=False),)},
        "refrag, provence, the quarter filled": {"compressors": (dataclasses.replace(keep, threshold=0.0),)},
        "refrag, provence, rows of other passages": {"compressors": (OtherRows(keep),)},
        "refrag, provence, dots for its rows": {"compressors": (OtherRows(keep, rows=False),)},
        "provence, at most a quarter": {"compressors": (Provence(keep=0.25),)},
    }
    pairs = (
        ("refrag, provence", "refrag, similarity"),
        ("refrag, provence", "refrag, provence, every passage"),
        ("refrag, provence", "refrag, provence, the quarter filled"),
        ("refrag, provence", "refrag, provence, rows of other passages"),
        ("refrag, provence", "refrag, provence, dots for its rows"),
        ("refrag, provence", "provence, at most a quarter"),
        ("refrag, provence", "no_compression"),
        ("refrag, similarity", "no_compression"),
    )
    return _evaluated("refrag", rows, EXPANDED, pairs)


def _words_alone(out: Path) -> str:
    """The shipped weights of comp_llm without what was trained: rows are the embeddings of picked words."""
    from safetensors.torch import load_file, save_file

    from ragzip.models import resolve
    from ragzip.models.shipped import COMP_LLM

    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(resolve(COMP_LLM), out)
    tensors = load_file(out / "model.safetensors")
    for name in ("head.weight", "head.bias"):
        tensors[name].zero_()
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return str(out)


def kv() -> dict[str, Any]:
    """Every eviction at a half and a quarter of the positions, and caches of fewer bits."""
    from ragzip import registry
    from ragzip.kv.quantized import QuantizedKV

    rows: dict[str, Any] = {"whole cache": {}}
    for name in _METHODS:
        for keep in (0.5, 0.25):
            rows[f"{name}@{keep:g}"] = {"kv": (registry.get("kv", name)(keep=keep),)}
    rows["8 bits"] = {"kv": (QuantizedKV(8),)}
    rows["4 bits"] = {"kv": (QuantizedKV(4),)}
    rows["precomputed"] = {"kv": (registry.get("kv", "precomputed_kv")(),)}
    rows["snapkv@0.25, 8 bits"] = {"kv": (registry.get("kv", "snapkv")(keep=0.25), QuantizedKV(8))}
    found = _evaluated("kv", rows, KV, ())
    for name, result in found.items():
        # every cache has baselines of its own, which say nothing new: those of the whole one are enough
        result["metrics"] = {row: values for row, values in result["metrics"].items() if "[" not in row}
        result["bytes"] = _bytes(name, {row: parts for row, parts in rows.items() if parts})
    return found


def _bytes(name: str, rows: dict[str, Any]) -> dict[str, float]:
    """The median share of the prompt's cache that is left, on three questions."""
    from ragzip.evaluation.data import open_set

    records = open_set(name).sample(3, SEED).records
    shares = {}
    for row, parts in rows.items():
        pipeline = _reader(parts, max_new_tokens=1)
        made = [pipeline.answer(r.question, passages=r.passages).generation for r in records]
        shares[row] = round(median([one.kv_bytes / one.kv_bytes_full if one.kv_bytes_full else 1.0 for one in made]), 3)
    return shares


def _reader(parts: dict[str, Any], max_new_tokens: int = 32) -> Any:
    from ragzip.evaluation.sweep import prompt_for
    from ragzip.generators.huggingface import HuggingFace
    from ragzip.pipelines import Pipeline

    generator = HuggingFace(max_new_tokens=max_new_tokens, stop=("\n",), kv=parts.get("kv", ()))
    return Pipeline(generator, prompt=prompt_for("short"), compressors=parts.get("compressors", ()))


def _evaluated(part: str, rows: dict[str, Any], given: dict[str, Any], pairs: Any) -> dict[str, Any]:
    from benchmarks.hard import _pairs
    from ragzip.evaluation.data import open_set
    from ragzip.evaluation.report.html import write
    from ragzip.evaluation.rows import plan
    from ragzip.evaluation.runner import Settings, evaluate

    planned = plan([(name, _reader(parts)) for name, parts in rows.items()], baselines="reference", seed=SEED)
    results: dict[str, Any] = {}
    counts = given["questions"] if isinstance(given["questions"], tuple) else (given["questions"],) * len(given["sets"])
    for name, questions in zip(given["sets"], counts, strict=True):
        settings = Settings(questions, SEED)
        where = RUNS / part / name.replace("@", "_")
        found = evaluate(planned, open_set(name), where, settings, on_progress=_reporter(f"{part}, {name}"))
        write(found, found.path / "report.html")
        results[name] = {
            "data": {key: value for key, value in found.config["data"].items() if key != "source"},
            "metrics": {row: {m: v for m, v in found.metrics[row].items() if m in _SHOWN} for row in found.names},
            "comparisons": {
                row: {m: v for m, v in values.items() if m in ("f1", "match")}
                for row, values in found.summary["comparisons"].items()
            },
            "failed": found.summary["failed"],
            "pairs": _pairs(found, pairs, ("f1",)),
        }
    return results


def speed() -> dict[str, Any]:
    """Compression and prefill for about 3,000 tokens of context: text, and rows computed or from a store."""
    from ragzip.compressors._stored import fill
    from ragzip.compressors.comp_llm import CompLLM
    from ragzip.compressors.xrag import XRAG
    from ragzip.evaluation.data import open_set
    from ragzip.models.concepts import forget_segments

    folder = RUNS / "speed"
    shutil.rmtree(folder, ignore_errors=True)
    records = open_set("nq_multidoc@20").sample(SPEED["questions"], SEED).records
    passages = {p.id: p for record in records for p in record.passages}
    store = folder / "index"
    methods: dict[str, Any] = {"xrag": XRAG(), "comp_llm": CompLLM(rate=4), "refrag": REFRAG(policy="similarity")}
    for method in methods.values():
        fill(method, passages.values(), store)
    rows: dict[str, Any] = {
        "text": (),
        "xrag": (methods["xrag"],),
        "xrag, stored": (dataclasses.replace(methods["xrag"], store=str(store)),),
        "comp_llm, rate 4": (methods["comp_llm"],),
        "comp_llm, rate 4, stored": (dataclasses.replace(methods["comp_llm"], store=str(store)),),
        "refrag, a quarter by similarity": (methods["refrag"],),
        "refrag, a quarter by similarity, stored": (dataclasses.replace(methods["refrag"], store=str(store)),),
        "refrag, a quarter by provence": (REFRAG(policy="provence", threshold=0.0),),
        "refrag, a quarter by provence, stored": (REFRAG(policy="provence", threshold=0.0, store=str(store)),),
    }
    pipelines = {name: _reader({"compressors": parts}, max_new_tokens=1) for name, parts in rows.items()}
    for pipeline in pipelines.values():
        pipeline.answer(records[0].question, passages=records[0].passages)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    tokens: dict[str, list[float]] = {name: [] for name in rows}
    ratios: dict[str, list[float]] = {name: [] for name in rows}
    prefills: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(SPEED["rounds"]):
        for record in records:
            order = list(rows)
            random.Random(f"{turn} {record.id}").shuffle(order)
            taken = {}
            for name in order:
                forget_segments()  # every question's segments are new ones, unless they are stored
                answer = pipelines[name].answer(record.question, passages=record.passages)
                taken[name] = answer.timings
                seconds[name].append((answer.timings.compress, answer.timings.prefill))
                tokens[name].append(float(answer.compression.tokens_out))
            for name, timings in taken.items():
                ratios[name].append((timings.compress + timings.prefill) / taken["text"].prefill)
                prefills[name].append(timings.prefill / taken["text"].prefill)
    return {
        name: {
            "context tokens": round(median(tokens[name])),
            "compression, ms": round(1000 * median([c for c, _ in times]), 1),
            "more than counting, ms": round(
                1000 * median([c - b[0] for (c, _), b in zip(times, seconds["text"], strict=True)]), 1
            ),
            "prefill, ms": round(1000 * median([p for _, p in times]), 1),
            "prefill / that of text": round(median(prefills[name]), 3),
            "compression + prefill / prefill of text": round(median(ratios[name]), 3),
        }
        for name, times in seconds.items()
    }


def render(record: dict[str, Any]) -> str:
    """For each set one table of the rows, or the table of times."""
    lines = [
        f"`{record['command']}`, {record['when']}, " + ", ".join(f"{k} {v}" for k, v in record["environment"].items()),
        "",
    ]
    if record["command"].endswith("speed"):
        return "\n".join([*lines, *_times(record["results"])]) + "\n"
    lines.append(
        "In brackets the 95 % interval. The mark says whether a score differs from `no_compression` (paired"
        " randomisation test, corrected by Holm over the rows of the set): `+` higher, `-` lower, no mark: not"
        " significant."
    )
    for name, result in record["results"].items():
        data = result["data"]
        lines += ["", f"#### {name}", "", f"{data['records']} of {data['of']} questions, {data['split']} split.", ""]
        table = _table(result)
        if "bytes" in result:
            table = _with_bytes(table, result["bytes"], list(result["metrics"]))
        lines += table
        if "front" in result:
            lines += ["", "No other row has more F1 at no more tokens: " + "; ".join(result["front"]) + "."]
        for pair in result["pairs"]:
            lines += ["", _told(pair)]
    return "\n".join(lines) + "\n"


def _with_bytes(table: list[str], shares: dict[str, float], rows: list[str]) -> list[str]:
    cells = ["cache left", "---", *(f"{shares[row]:.3f}" if row in shares else "" for row in rows)]
    return [f"{line} {cell} |" for line, cell in zip(table, cells, strict=True)]


def _times(results: dict[str, Any]) -> list[str]:
    keys = list(next(iter(results.values())))
    lines = [
        f"{SPEED['questions']} questions of NQ with twenty passages, {SPEED['rounds']} rounds; medians.",
        "",
        "| context | " + " | ".join(keys) + " |",
        "|---" * (1 + len(keys)) + "|",
    ]
    return lines + [
        f"| {name} | " + " | ".join(f"{v:,}" for v in values.values()) + " |" for name, values in results.items()
    ]
