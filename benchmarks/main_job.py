"""Speed and memory of the main job: start-up, what ragzip adds to its models, indexing, time to first token."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.corpus import QUESTIONS, documents
from benchmarks.measure import median, seconds, watching

PASSAGES = 10_000


def start_up(runs: int = 7) -> dict[str, float]:
    """Seconds of a cold ``ragzip --help`` and ``import ragzip`` in a new process, and of an empty Python."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import ragzip": [sys.executable, "-c", "import ragzip; ragzip.Pipeline"],
        "ragzip --help": [sys.executable, "-m", "ragzip", "--help"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            times[name].append(seconds(lambda c=command: subprocess.run(c, check=True, capture_output=True)))
    return {name: round(median(values), 3) for name, values in times.items()}


def indexing(folder: Path, count: int = 3000, runs: int = 3) -> dict[str, float]:
    """Indexing against the bare cost of encoding the same passages, sorted by length, with plain transformers."""
    from ragzip import indexes, ingest
    from ragzip.models import load_encoder

    encoder = load_encoder("all-minilm-l6-v2")
    chosen, passages = [], []
    for document in documents():
        chosen.append(document)
        passages += ingest.chunk(document, count_tokens=encoder.count_tokens)
        if len(passages) >= count:
            break
    texts = [f"{p.title}\n{p.text}" for p in passages]
    bare, whole, stages = [], [], []
    for run in range(runs):
        bare.append(seconds(lambda: _bare(encoder, texts)))
        reports: list[Any] = []
        target = folder / f"timing-{run}"
        whole.append(seconds(lambda t=target, r=reports: r.append(indexes.build(iter(chosen), t, sync=True))))
        stages.append(reports[0])
    ratios = [a / b for a, b in zip(whole, bare, strict=True)]
    return {
        "passages": len(passages),
        "bare encoding, passages/s": round(len(texts) / median(bare), 1),
        "indexing, passages/s": round(len(texts) / median(whole), 1),
        "indexing / bare encoding": round(median(ratios), 3),
    }


def _bare(encoder: Any, texts: list[str]) -> None:
    """What anyone would write: tokenise, sort by length, batches of 32, mean pooling."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder.folder)
    model = encoder._model
    lengths = [len(ids) for ids in tokenizer(texts, truncation=True, max_length=256)["input_ids"]]
    order = sorted(range(len(texts)), key=lambda i: -lengths[i])
    with torch.inference_mode():
        for start in range(0, len(order), 32):
            batch = [texts[i] for i in order[start : start + 32]]
            inputs = tokenizer(batch, padding=True, truncation=True, max_length=256, return_tensors="pt")
            hidden = model(**inputs).last_hidden_state.float()
            mask = inputs["attention_mask"].unsqueeze(-1)
            torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


def build_large(folder: Path) -> Path:
    """An index of 10,000 real passages."""
    from ragzip import indexes, ingest
    from ragzip.models import load_encoder

    encoder = load_encoder("all-minilm-l6-v2")
    chosen, total = [], 0
    for document in documents():
        chosen.append(document)
        total += len(ingest.chunk(document, count_tokens=encoder.count_tokens))
        if total >= PASSAGES:
            break
    target = folder / "large"
    indexes.build(iter(chosen), target, sync=True)
    return target


def as_queried() -> Any:
    """The prompt of ``ragzip query``."""
    from ragzip.cli.query import SENTENCE
    from ragzip.pipelines.prompt import LongForm

    return LongForm(instruction=SENTENCE)


def around_the_models(index: Path, runs: int = 3) -> dict[str, float]:
    """Milliseconds of a query outside the encoder's and the generator's own forward passes."""
    import ragzip
    from ragzip.models import Encoder, load_causal_lm

    language_model = load_causal_lm("smollm2-135m-instruct").model
    retriever = ragzip.for_index(str(index), top_k=20)
    generator = ragzip.HuggingFace(max_new_tokens=1)
    pipeline = ragzip.Pipeline(generator, retriever, ragzip.SentenceFilter(budget=400), as_queried())
    pipeline.answer(QUESTIONS[0])
    totals, around = [], []
    for _ in range(runs):
        for question in QUESTIONS:
            with watching((Encoder, "encode"), (type(language_model), "generate")) as watch:
                total = seconds(lambda q=question: pipeline.answer(q))
            totals.append(total)
            around.append(total - watch.total)
    return {
        "whole query to the first token, ms": round(median(totals) * 1000, 1),
        "around the models, ms": round(median(around) * 1000, 1),
        "around the models, worst, ms": round(max(around) * 1000, 1),
    }


def first_token(index: Path, runs: int = 2) -> dict[str, float]:
    """Time to first token with ``sentence_filter`` at 400 tokens against no compression, over 20 passages."""
    import ragzip

    generator = ragzip.HuggingFace(max_new_tokens=1)
    retriever = ragzip.for_index(str(index), top_k=20)
    plain = ragzip.Pipeline(generator, retriever, prompt=as_queried())
    squeezed = ragzip.Pipeline(generator, retriever, ragzip.SentenceFilter(budget=400), as_queried())
    for pipeline in (plain, squeezed):
        pipeline.answer(QUESTIONS[0])
    ratios, before, after, sizes = [], [], [], []
    for _ in range(runs):
        for question in QUESTIONS:
            a, b = squeezed.answer(question), plain.answer(question)
            after.append(a.timings.first_token)
            before.append(b.timings.first_token)
            ratios.append(a.timings.first_token / b.timings.first_token)
            sizes.append(b.compression.tokens_out)
    return {
        "context tokens without compression": median([float(n) for n in sizes]),
        "first token without compression, s": round(median(before), 3),
        "first token at 400 tokens, s": round(median(after), 3),
        "ratio": round(median(ratios), 3),
    }


def run() -> dict[str, Any]:
    """All of it, one part after the other."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results: dict[str, Any] = {"start-up, s": start_up(), "indexing": indexing(folder)}
        large = build_large(folder)
        results["query over 10,000 passages"] = around_the_models(large)
        results["time to first token, 20 passages"] = first_token(large)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    results["peak memory of this run, MiB"] = round(peak)
    return results
