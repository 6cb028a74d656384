"""Runs: what is written, that a kill costs one question, and that bad input is refused before anything is done."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from ragzip import BM25Sentences, Pipeline
from ragzip.errors import GenerationError, UsageError
from ragzip.evaluation.record import DataSet
from ragzip.evaluation.rows import plan
from ragzip.evaluation.runner import Settings, evaluate
from ragzip.types import Query
from tests.evaluation.parts import (
    DOWN,
    PROMPT,
    Counted,
    Finding,
    Pieces,
    Reader,
    reading,
    rows_of,
    small_set,
    steady,
)


def test_a_run_is_written_whole(tmp_path) -> None:
    seen = []
    run = evaluate(rows_of(), small_set(6), tmp_path / "run", on_progress=lambda *a: seen.append(a))
    assert seen == [(i, 6) for i in range(1, 7)]
    assert {path.name for path in run.path.iterdir()} >= {
        "config.yaml", "environment.json", "questions.jsonl", "records.jsonl", "metrics.json", "summary.json",
    }  # fmt: skip
    assert run.names == ["closed_book", "no_compression", "mine", *(
        f"{kind}@14" for kind in ("oracle_sentences", "truncate", "random_sentences", "bm25_sentences")
    )]  # fmt: skip
    values = json.loads((run.path / "metrics.json").read_text())
    assert set(values) == set(run.names)
    for metric in ("em", "f1", "match", "answer_in_context", "sentence_f1", "tokens_in", "tokens_out", "ttft"):
        found = values["mine"][metric]
        assert set(found) == {"mean", "low", "high", "n"}
        assert found["n"] == 6
        assert found["low"] <= found["mean"] <= found["high"]
    assert values["no_compression"]["em"]["mean"] == 1.0
    assert values["closed_book"]["em"]["mean"] == 0.0
    assert values["mine"]["em"]["mean"] == values["mine"]["answer_in_context"]["mean"]
    assert values["mine"]["tokens_out"]["mean"] <= 14
    sums = [sum(run.values("mine", key).values()) for key in ("tokens_in", "tokens_out")]
    assert values["mine"]["ratio"]["mean"] == pytest.approx(sums[0] / sums[1])
    assert "ratio" not in values["closed_book"]
    assert run.config["data"]["sha256"] == small_set(6).sha256
    assert run.config["rows"]["mine"]["pipeline"]["compressors"][0]["budget"] == 14
    assert run.summary["comparisons"]["closed_book"]["em"]["difference"] == -1.0
    line = run.rows("mine")[0]
    assert line["answer"] == "Ada0"
    assert line["steps"][0]["name"] == "bm25_sentences"


def test_rows_that_follow_another_spend_no_more(tmp_path) -> None:
    run = evaluate(rows_of(Counted(), BM25Sentences(keep=0.4)), small_set(6), tmp_path / "run")
    spent = run.values("mine", "tokens_out")
    for kind in ("truncate", "random_sentences", "bm25_sentences", "oracle_sentences"):
        theirs = run.values(f"{kind}=mine", "tokens_out")
        assert set(theirs) == set(spent)
        assert all(theirs[key] <= spent[key] for key in spent)


def test_the_same_command_gives_the_same_metrics(tmp_path) -> None:
    first = evaluate(rows_of(), small_set(6), tmp_path / "a", Settings(limit=4, seed=3))
    second = evaluate(rows_of(), small_set(6), tmp_path / "b", Settings(limit=4, seed=3))
    assert steady(first) == steady(second)
    assert first.config == second.config
    again = evaluate(rows_of(), small_set(6), tmp_path / "a", Settings(limit=4, seed=3))
    assert again.metrics == first.metrics


def test_batches_change_no_answer(tmp_path) -> None:
    rows = plan([("mine", reading(BM25Sentences(budget=14))), ("other", reading(BM25Sentences(keep=0.5)))])
    one = evaluate(rows, small_set(6), tmp_path / "a")
    four = evaluate(rows, small_set(6), tmp_path / "b", Settings(batch=4))
    assert steady(one) == steady(four)


def test_a_metric_without_its_labels_is_refused(tmp_path) -> None:
    data = small_set(3)
    bare = DataSet("bare", tuple(dataclasses.replace(r, answers=(), relevant=()) for r in data.records))
    with pytest.raises(UsageError, match="em needs reference answers, and bare has none"):
        evaluate(rows_of(), bare, tmp_path / "run", Settings(metrics=("em",)))
    with pytest.raises(UsageError, match="sentence_f1 needs labelled sentences"):
        evaluate(rows_of(), bare, tmp_path / "run", Settings(metrics=("sentence_f1",)))
    with pytest.raises(UsageError, match="no_such"):
        evaluate(rows_of(), data, tmp_path / "run", Settings(metrics=("no_such",)))
    assert not (tmp_path / "run").exists()
    run = evaluate(rows_of(), bare, tmp_path / "run")  # without answers nothing is generated
    assert run.config["generate"] is False
    assert "ttft" not in run.metrics["mine"]
    assert run.metrics["mine"]["tokens_out"]["mean"] <= 14


def test_some_records_without_answers_are_left_out_of_the_means(tmp_path) -> None:
    records = [dataclasses.replace(r, answers=()) if i % 2 else r for i, r in enumerate(small_set(6).records)]
    run = evaluate(rows_of(), DataSet("half", tuple(records)), tmp_path / "run")
    assert run.metrics["mine"]["em"]["n"] == 3
    assert run.metrics["mine"]["tokens_out"]["n"] == 6


def test_records_without_passages_need_a_retriever(tmp_path) -> None:
    records = tuple(dataclasses.replace(r, passages=(), relevant=()) for r in small_set(3).records)
    data = DataSet("bare", records)
    with pytest.raises(UsageError, match="3 of 3 records have no passages"):
        evaluate(rows_of(), data, tmp_path / "run")
    pipeline = Pipeline(Reader(), Finding(), (BM25Sentences(budget=14),), PROMPT)
    run = evaluate(plan([("found", pipeline)]), data, tmp_path / "run")
    assert run.metrics["no_compression"]["em"]["mean"] == 1.0
    assert run.metrics["closed_book"]["em"]["mean"] == 0.0
    assert len(run.questions["q0"]["passages"]) == 2


def test_some_records_without_passages_have_empty_contexts(tmp_path) -> None:
    """As where a search found nothing for a question of a set that has no corpus."""
    whole = small_set(4)
    bare = dataclasses.replace(whole.records[1], passages=(), relevant=())
    data = dataclasses.replace(whole, records=(whole.records[0], bare, *whole.records[2:]))
    notes: list[str] = []
    run = evaluate(rows_of(BM25Sentences(budget=9)), data, tmp_path / "run", on_note=notes.append)
    assert any(note.startswith(f"1 of 4 records have no passages ({bare.id!r}") for note in notes)
    for name in run.names:
        (line,) = [line for line in run.rows(name) if line["id"] == bare.id]
        assert line["metrics"]["tokens_out"] == 0
        assert line["metrics"]["em"] is not None


@pytest.mark.parametrize("value", [70.5, -0.1, float("nan"), float("inf")])
def test_a_metric_that_is_not_what_it_says_is_named_at_the_first_question(tmp_path, monkeypatch, value) -> None:
    from ragzip.evaluation.metrics import parse

    monkeypatch.setattr(type(parse("em")), "score", lambda self, outcome: value)
    with pytest.raises(UsageError, match=r"the metric 'em' is .* for .*not from 0 to 1"):
        evaluate(rows_of(BM25Sentences(budget=9)), small_set(4), tmp_path / "run")


def test_a_negative_seed_is_refused_first() -> None:
    with pytest.raises(UsageError, match="seed must be at least 0, not -1"):
        Settings(limit=3, seed=-1)


def test_given_passages_are_the_retrieval_result_unless_there_is_a_retriever(tmp_path) -> None:
    pipeline = Pipeline(Reader(), Finding(1), (BM25Sentences(budget=14),), PROMPT)
    run = evaluate(plan([("found", pipeline), ("given", reading(BM25Sentences(budget=14)))]), small_set(2), tmp_path)
    assert run.rows("found")[0]["passages"] == ["0-a"]
    assert run.rows("given")[0]["passages"] == ["0-a", "0-b", "0-c"]


def test_a_row_that_cannot_answer_says_so_and_the_others_go_on(tmp_path) -> None:
    small = Pipeline(Reader(fails_over=40), compressors=(BM25Sentences(budget=14),), prompt=PROMPT)
    run = evaluate(plan([("mine", small)]), small_set(3), tmp_path / "run")
    assert run.summary["failed"] == {"no_compression": 3}
    assert "em" not in run.metrics["no_compression"]
    assert run.metrics["mine"]["em"]["n"] == 3
    assert "em" not in run.summary["comparisons"].get("mine", {})
    assert "a prompt of" in run.rows("no_compression")[0]["error"]


def test_a_server_that_fails_ends_the_run_and_the_next_one_goes_on(tmp_path) -> None:
    DOWN.add("station3")
    try:
        with pytest.raises(GenerationError, match="server is down"):
            evaluate(rows_of(), small_set(6), tmp_path / "run")
    finally:
        DOWN.clear()
    seen: list[int] = []
    run = evaluate(rows_of(), small_set(6), tmp_path / "run", on_progress=lambda done, total: seen.append(done))
    assert seen == [4, 5, 6]
    assert run.summary["failed"] == {}
    assert steady(run) == steady(evaluate(rows_of(), small_set(6), tmp_path / "whole"))


def test_a_failed_answer_blanks_answers_alone(tmp_path) -> None:
    small = Pipeline(Reader(fails_over=40), compressors=(BM25Sentences(budget=14),), prompt=PROMPT)
    run = evaluate(plan([("mine", small)]), small_set(3), tmp_path / "run")
    for metric in ("tokens_in", "tokens_out", "answer_in_context", "compress_seconds"):
        assert run.metrics["no_compression"][metric]["n"] == 3, metric


def test_failing_steps_are_counted(tmp_path) -> None:
    from tests.pipelines.parts import Failing

    records = tuple(
        dataclasses.replace(r, question=("bad: " if i % 2 else "") + r.question)
        for i, r in enumerate(small_set(6).records)
    )
    run = evaluate(plan([("mine", reading(Failing()))]), DataSet("some", records), tmp_path / "run")
    assert run.summary["failed_steps"] == {"mine": {"failing: error": 3}}


def test_a_closed_book_is_not_blamed_for_its_retrieval(tmp_path) -> None:
    pipeline = Pipeline(Reader(), Finding(), (BM25Sentences(budget=14),), PROMPT)
    run = evaluate(plan([("found", pipeline)]), small_set(4), tmp_path / "run")
    assert "recall@5" in run.metrics["found"]
    assert not {"recall@5", "mrr", "sentence_recall"} & set(run.metrics["closed_book"])
    assert run.metrics["closed_book"]["tokens_in"]["mean"] == 0


def test_a_pipeline_may_be_named_like_a_baseline(tmp_path) -> None:
    named = [(name, reading(BM25Sentences(budget=14))) for name in ("closed_book_2", "oracle_sentences_2")]
    run = evaluate(plan(named), small_set(3), tmp_path / "run")
    for name, _ in named:
        assert run.metrics[name]["sentence_recall"]["n"] == 3
    bare = DataSet("bare", tuple(dataclasses.replace(r, answers=(), relevant=()) for r in small_set(3).records))
    assert "oracle_sentences_2" in evaluate(plan(named), bare, tmp_path / "bare").names


def test_batches_have_no_times(tmp_path) -> None:
    run = evaluate(rows_of(), small_set(6), tmp_path / "run", Settings(batch=3))
    assert not [m for m in run.metrics["mine"] if "seconds" in m or m == "ttft"]
    assert run.summary["break_even"] is None
    with pytest.raises(UsageError, match="timed by itself"):
        evaluate(rows_of(), small_set(6), tmp_path / "other", Settings(batch=3, metrics=("ttft",)))


def test_what_cannot_be_scored_is_said_before_it_is_run(tmp_path) -> None:
    records = [dataclasses.replace(r, answers=(), relevant=()) for r in small_set(3).records]
    notes: list[str] = []
    run = evaluate(rows_of(), DataSet("bare", tuple(records)), tmp_path / "a", on_note=notes.append)
    assert notes[0].startswith("0 of 3 records of bare have answers")
    assert not [name for name in run.names if name.startswith("oracle")]
    with pytest.raises(UsageError, match="needs a local model"):
        evaluate(rows_of(), small_set(3), tmp_path / "b", Settings(metrics=("prefill_flops",)))


@pytest.mark.parametrize("prices", [(-1.0, 0.0), (float("nan"), 1.0), (1.0, float("inf")), (1e308, 1e308)])
def test_prices_are_checked_first(prices) -> None:
    with pytest.raises(UsageError, match="is no price"):
        Settings(prices=prices)


def test_when_nothing_answers_the_run_stops(tmp_path) -> None:
    with pytest.raises(GenerationError, match="no pipeline could answer"):
        evaluate(plan([("mine", Pipeline(Reader(fails_over=1), prompt=PROMPT))]), small_set(3), tmp_path / "run")


def test_a_smaller_key_value_cache_is_counted(tmp_path, tiny_lm_path) -> None:
    from ragzip.generators.huggingface import HuggingFace
    from ragzip.kv.streaming_llm import StreamingLLM

    rows = [
        (str(keep), Pipeline(HuggingFace(tiny_lm_path, max_new_tokens=2, kv=(StreamingLLM(keep=keep),))))
        for keep in (0.5, 0.25)
    ]
    run = evaluate(plan(rows), small_set(3), tmp_path / "run", Settings(metrics=("kv_memory",)))
    half, quarter = (run.metrics[name]["kv_memory"]["mean"] for name in ("0.5", "0.25"))
    assert quarter == pytest.approx(half / 2, rel=0.1)
    assert quarter > 0


def test_every_row_and_question_pays_for_what_it_reads(tmp_path, monkeypatch) -> None:
    """Segments that another row has compressed, or an earlier question, are compressed again."""
    from ragzip.compressors.comp_llm import CompLLM
    from ragzip.compressors.top_k import TopK
    from ragzip.generators.huggingface import HuggingFace
    from ragzip.models.concepts import ConceptEncoder
    from tests.compressors.soft_parts import base_of, made

    tiny = made(CompLLM)
    read: list[int] = []
    real = ConceptEncoder._encode

    def counted(self, segments, rate):
        read.append(sum(1 for segment in set(segments) if (rate, segment) not in self._known))
        return real(self, segments, rate)

    monkeypatch.setattr(ConceptEncoder, "_encode", counted)
    reader = HuggingFace(base_of(CompLLM), max_new_tokens=2)
    stacks = {"a": (tiny,), "b": (TopK(3), tiny)}
    rows = [(name, Pipeline(reader, prompt=PROMPT, compressors=stack)) for name, stack in stacks.items()]
    data = small_set(1)
    (record,) = data.records
    twice = dataclasses.replace(data, records=(record, dataclasses.replace(record, id="again")))
    evaluate(plan(rows, baselines="reference"), twice, tmp_path / "run")
    assert len(read) == 6  # a rehearsal, and each question, for both rows
    assert len(set(read[2:])) == 1
    assert read[-1] > 0


def test_a_real_model_has_its_operations_and_times_counted(tmp_path, tiny_lm_path) -> None:
    from ragzip.generators.huggingface import HuggingFace

    pipeline = Pipeline(HuggingFace(tiny_lm_path, max_new_tokens=4), compressors=(BM25Sentences(budget=30),))
    run = evaluate(plan([("mine", pipeline)]), small_set(3), tmp_path / "run")
    found = run.metrics["mine"]
    for metric in ("prefill_flops", "decode_flops", "ttft", "prefill_seconds", "decode_seconds", "peak_memory"):
        assert found[metric]["mean"] > 0, metric
    assert found["prefill_flops"]["mean"] < run.metrics["no_compression"]["prefill_flops"]["mean"]
    parts = [found[f"{stage}_seconds"]["mean"] for stage in ("retrieve", "compress", "prefill")]
    assert found["ttft"]["mean"] == pytest.approx(math.fsum(parts))


def test_passages_of_one_id_and_two_texts_are_kept_apart(tmp_path) -> None:
    """Two indexes cut one document otherwise: what a row kept is told in its own passage."""

    rows = [(f"cut {cut}", Pipeline(Reader(), Pieces(0, cut), (BM25Sentences(budget=14),), PROMPT)) for cut in (20, 30)]
    run = evaluate(plan(rows, baselines="reference"), small_set(1), tmp_path / "run")
    question = json.loads((run.path / "questions.jsonl").read_text().splitlines()[0])
    found = {passage["id"]: passage["text"] for passage in question["passages"]}
    assert set(found) == {"kb#0", "kb#0 (2)", "kb#1", "kb#1 (2)", "kb#2"}
    lines = {line["pipeline"]: line for line in map(json.loads, (run.path / "records.jsonl").read_text().splitlines())}
    for name, cut in (("cut 20", 20), ("cut 30", 30)):
        line = lines[name]
        first = next(id for id in line["passages"] if id.startswith("kb#0"))
        assert len(found[first]) == cut
        read = Pieces(0, cut).retrieve([Query("q", "q0")])[0]
        assert [found[id] for id in line["passages"]] == [passage.text for passage in read]
        assert {span[0] for span in line["kept"]} <= set(line["passages"])
