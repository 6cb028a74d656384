"""Which metrics a run reports: those asked for, or all that the set has labels for."""

from __future__ import annotations

from collections.abc import Sequence

from ragzip.errors import UsageError
from ragzip.evaluation.metrics import Metric, parse
from ragzip.evaluation.record import DataSet, Record

_ANSWERS = {"short": ("em", "f1", "match"), "yes_no": ("em", "f1", "match"), "long": ("rouge_l", "f1")}
_EVIDENCE = ("sentence_precision", "sentence_recall", "sentence_f1")
_RETRIEVAL = ("recall@5", "recall@20", "ndcg@10", "mrr")
_INDEX = ("index_bytes", "build_seconds")
_SIZES = ("tokens_in", "tokens_out", "ratio")
_WRITING = ("prompt_tokens", "new_tokens")
_TIMES = ("retrieve_seconds", "compress_seconds")
_WRITING_TIMES = ("prefill_seconds", "decode_seconds", "ttft", "total_seconds", "prefill_flops", "decode_flops")
_TIMED = frozenset(
    ("retrieve_seconds", "compress_seconds", "prefill_seconds", "decode_seconds", "ttft", "total_seconds")
)

_WHAT = {
    "answers": "reference answers",
    "sentences": "labelled sentences ('relevant')",
    "qrels": "relevance judgements ('qrels' or 'relevant')",
    "answer": "generated answers",
}


def select(names: Sequence[str], data: DataSet, *, generate: bool, retrieves: bool, timed: bool = True) -> list[Metric]:
    """The metrics of a run.

    Args:
        names: As asked for; empty takes all that apply.
        data: The set.
        generate: Whether answers are generated.
        retrieves: Whether any pipeline has a retriever.
        timed: Whether each question is timed by itself; times of batches are no times of questions.

    Raises:
        UsageError: An unknown name, or a metric that needs labels the set lacks.
    """
    there = _there(data.records, generate)
    if names:
        chosen = [parse(name) for name in dict.fromkeys(names)]
        for metric in chosen:
            missing = next((what for need, what in _WHAT.items() if need in metric.needs and need not in there), "")
            if missing:
                where = "this run makes none" if missing == _WHAT["answer"] else f"{data.name} has none"
                raise UsageError(
                    f"the metric {metric.name} needs {missing}, and {where}",
                    hint="Leave it out, or choose another set.",
                )
            if not retrieves and metric.name in _INDEX:
                raise UsageError(
                    f"the metric {metric.name} needs an index, and no pipeline retrieves from one",
                    hint="Leave it out, or add a retriever.",
                )
            if not timed and metric.name in _TIMED:
                raise UsageError(
                    f"the metric {metric.name} needs every question timed by itself", hint="Leave --batch at 1."
                )
        return chosen
    wanted: list[str] = []
    if "answers" in there:
        wanted += [*(_ANSWERS[data.task] if data.task in _ANSWERS and generate else ()), "answer_in_context"]
    if data.labels == "sentences":
        wanted += _EVIDENCE
    if "qrels" in there and (retrieves or any(record.qrels for record in data.records)):
        wanted += [*_RETRIEVAL, *(_INDEX if retrieves else ())]
    wanted += [*_SIZES, *(_WRITING if generate else ()), *_TIMES, *(_WRITING_TIMES if generate else ()), "peak_memory"]
    return [parse(name) for name in wanted if timed or name not in _TIMED]


def measured(metrics: Sequence[Metric], *, generate: bool, timed: bool = True) -> list[Metric]:
    """The metrics of a run with those that its break-even and savings are made of."""
    wanted = [*_SIZES[:2], *(_TIMES if timed else ())]
    if generate:
        wanted += [*_WRITING, *(("prefill_seconds", "ttft") if timed else ())]
    return list(dict.fromkeys([*metrics, *map(parse, wanted)]))


def _there(records: Sequence[Record], generate: bool) -> set[str]:
    there = {"answer"} if generate else set()
    if any(record.answers for record in records):
        there.add("answers")
    if any(record.relevant for record in records):
        there |= {"sentences", "qrels"}
    if any(record.qrels for record in records):
        there.add("qrels")
    return there
