"""Compression and prefill together against the prefill of everything: twenty passages, one question at a time.

    python benchmarks/run.py end_to_end        # some minutes on two cores; needs the nq_multidoc data

Every question is answered up to its first token with each compressor and without any, in another order each time, and
ratios are taken within a question. Splitting, counting, prompt and tokenizer are within the times; loading of models
is not.
"""

from __future__ import annotations

import random
from typing import Any

from benchmarks.measure import median

QUESTIONS, ROUNDS, SEED = 12, 2, 0
WAYS: dict[str, dict[str, Any]] = {
    "provence": {"type": "provence"},
    "provence, at most a quarter of the tokens": {"type": "provence", "keep": 0.25},
    "provence, a quarter of the tokens, filled": {"type": "provence", "threshold": 0.0, "keep": 0.25},
    "provence, at most 200 tokens": {"type": "provence", "budget": 200},
    "recomp_extractive, 200 tokens": {"type": "recomp_extractive", "budget": 200},
    "sentence_filter, 200 tokens": {"type": "sentence_filter", "budget": 200},
    "llmlingua2, 200 tokens": {"type": "llmlingua2", "budget": 200},
}


def run(questions: int = QUESTIONS, rounds: int = ROUNDS) -> dict[str, Any]:
    """For each way the median ratio to no compression, and the median seconds of its parts."""
    import os

    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does
    from ragzip import config
    from ragzip.evaluation.data import open_set
    from ragzip.evaluation.sweep import prompt_for
    from ragzip.generators.huggingface import HuggingFace
    from ragzip.pipelines import Pipeline

    reader = HuggingFace(max_new_tokens=1)
    prompt = prompt_for("short")
    pipelines = {"none": Pipeline(reader, prompt=prompt)}
    for name, values in WAYS.items():
        pipelines[name] = Pipeline(reader, None, config.from_config("compressor", values), prompt)
    records = open_set("nq_multidoc@20").sample(questions, SEED).records
    for pipeline in pipelines.values():
        pipeline.answer(records[0].question, passages=records[0].passages)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in pipelines}
    tokens: dict[str, list[float]] = {name: [] for name in pipelines}
    ratios: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(rounds):
        for record in records:
            order = list(pipelines)
            random.Random(f"{turn} {record.id}").shuffle(order)
            taken: dict[str, float] = {}
            for name in order:
                answer = pipelines[name].answer(record.question, passages=record.passages)
                taken[name] = answer.timings.compress + answer.timings.prefill
                seconds[name].append((answer.timings.compress, answer.timings.prefill))
                tokens[name].append(float(answer.compression.tokens_out))
            for name in WAYS:
                ratios[name].append(taken[name] / taken["none"])
    return {
        name: {
            "context tokens": round(median(tokens[name])),
            "compression, s": round(median([compress for compress, _ in times]), 3),
            "prefill, s": round(median([prefill for _, prefill in times]), 3),
            **({"compression + prefill / prefill of all": round(median(ratios[name]), 3)} if name in ratios else {}),
        }
        for name, times in seconds.items()
    }


def render(record: dict[str, Any]) -> str:
    """One line for each way."""
    keys = ("context tokens", "compression, s", "prefill, s", "compression + prefill / prefill of all")
    lines = [
        f"`{record['command']}`, {record['when']}, " + ", ".join(f"{k} {v}" for k, v in record["environment"].items()),
        "",
        f"{QUESTIONS} questions of NQ with twenty passages, {ROUNDS} rounds; medians.",
        "",
        "| compressor | " + " | ".join(keys) + " |",
        "|---" * (1 + len(keys)) + "|",
    ]
    for name, values in record["results"].items():
        lines.append(f"| {name} | " + " | ".join(f"{values[k]:,}" if k in values else "" for k in keys) + " |")
    return "\n".join(lines) + "\n"
