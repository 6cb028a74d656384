"""Shared stages run once and change nothing."""

from __future__ import annotations

import pytest

from ragzip import BM25Sentences, Pipeline, RandomSentences
from ragzip.compressors.truncate import Truncate
from ragzip.evaluation.baselines import OracleSentences
from ragzip.evaluation.rows import plan
from ragzip.evaluation.stages import Stages
from ragzip.tokens import text_of
from tests.evaluation.parts import CALLS, PROMPT, Counted, Finding, Reader, reading, record, small_set

PIPELINES = [
    reading(Counted(), BM25Sentences(budget=20)),
    reading(Counted(), BM25Sentences(budget=12)),
    reading(Counted(), RandomSentences(keep=0.5)),
    reading(),
    Pipeline(Reader(), Finding(), (Counted("other"),), PROMPT),
    Pipeline(Reader(), Finding(), (Counted("other"), Truncate(tokens=9)), PROMPT),
]


def bits(answered) -> list[tuple]:
    """Everything but the times."""
    found = []
    for one in answered:
        o = one.outcome
        steps = [(s.name, s.status, s.tokens_in, s.tokens_out, s.detail) for s in o.compression.steps]
        sizes = (o.compression.tokens_in, o.compression.tokens_out)
        found.append((o.record.id, o.passages, o.compression.context, sizes, steps, o.answer, o.costs.prompt_tokens))
    return found


@pytest.mark.parametrize("size", [1, 4])
def test_sharing_changes_no_bit(size: int) -> None:
    records = small_set(size).records
    shared, alone = Stages(records), Stages(records, share=False)
    for pipeline in PIPELINES:
        assert bits(shared.run(pipeline)) == bits(alone.run(pipeline))


def test_shared_stages_run_once() -> None:
    CALLS.made.clear()
    stages = Stages([record(0)])
    for pipeline in PIPELINES:
        stages.run(pipeline)
    assert CALLS.made == {"counted": 1, "other": 1, "retrieve": 1}
    CALLS.made.clear()
    apart = Stages([record(0)], share=False)
    for pipeline in PIPELINES:
        apart.run(pipeline)
    assert CALLS.made == {"counted": 3, "other": 2, "retrieve": 2}


def test_it_answers_as_the_pipeline_itself_does() -> None:
    one = record(3)
    for pipeline in PIPELINES:
        (found,) = Stages([one]).run(pipeline)
        given = None if pipeline.retriever else one.passages
        from ragzip.types import Query

        answer = pipeline.answer(Query(one.question, one.id), passages=given)
        assert found.outcome.answer == answer.text
        assert found.outcome.compression.context == answer.compression.context
        assert found.outcome.compression.tokens_in == answer.compression.tokens_in
        assert found.outcome.compression.tokens_out == answer.compression.tokens_out
        assert [s.status for s in found.outcome.compression.steps] == [s.status for s in answer.compression.steps]


def test_another_generator_with_the_same_tokenizer_shares_compression(tiny_lm_path) -> None:
    from ragzip.generators.huggingface import HuggingFace

    CALLS.made.clear()
    stages = Stages([record(0)])
    for tokens in (4, 6):
        stages.run(Pipeline(HuggingFace(tiny_lm_path, max_new_tokens=tokens), compressors=(Counted(),)))
    assert CALLS.made == {"counted": 1}


def test_an_answer_that_fails_costs_that_answer_alone() -> None:
    small = Pipeline(Reader(fails_over=40), prompt=PROMPT)
    stages = Stages(small_set(3).records)
    found = stages.run(small)
    assert all(one.error and one.outcome.answer is None for one in found)
    found = stages.run(Pipeline(Reader(fails_over=40), compressors=(Truncate(tokens=10),), prompt=PROMPT))
    assert not any(one.error for one in found)


def test_oracle_sentences_are_the_labelled_ones() -> None:
    for number in range(4):
        one = record(number)
        (found,) = Stages([one]).run(reading(OracleSentences(budget=60, threshold=2.0)))
        assert found.outcome.answer == one.answers[0]
        span = one.relevant[0]
        context = found.outcome.compression.context
        assert [s for segment in context.segments for s in segment.sources] == [span]
        assert one.passages[0].text[span.start : span.end] in text_of(context)


def test_without_labels_the_oracle_takes_what_holds_the_answer() -> None:
    import dataclasses

    one = dataclasses.replace(record(1), relevant=())
    (found,) = Stages([one]).run(reading(OracleSentences(budget=60, threshold=2.0)))
    assert found.outcome.answer == one.answers[0]
    nothing = dataclasses.replace(one, answers=("Nemo",))
    (found,) = Stages([nothing]).run(reading(OracleSentences(budget=60, threshold=2.0)))
    assert found.outcome.compression.tokens_out == 0


def test_closed_book_has_no_context() -> None:
    rows = {row.name: row for row in plan([("a", reading(BM25Sentences(budget=30)))])}
    (found,) = Stages([record(0)]).run(rows["closed_book"].pipeline)
    assert found.outcome.compression.tokens_out == 0
    assert found.outcome.answer == "unknown"
