"""Shared stages run once and change nothing."""

from __future__ import annotations

import dataclasses

import pytest

from ragzip import BM25Sentences, Pipeline, RandomSentences
from ragzip.compressors.truncate import Truncate
from ragzip.evaluation.baselines import ClosedBook, OracleSentences
from ragzip.evaluation.record import Record
from ragzip.evaluation.rows import plan
from ragzip.evaluation.stages import Stages
from ragzip.protocols import Compressor, Stack
from ragzip.tokens import text_of
from ragzip.types import Passage, Span, TextSegment
from tests.evaluation.parts import CALLS, PROMPT, Counted, Finding, Pieces, Reader, reading, record, small_set


@dataclasses.dataclass(frozen=True)
class Fails(Compressor[TextSegment, TextSegment]):
    """Works on nothing."""

    def compress(self, contexts):
        """Fails."""
        raise OSError("the disk is gone")

    def to_config(self):
        """By a name that is in no registry."""
        return {"type": "fails"}


PIPELINES = [
    reading(Counted(), BM25Sentences(budget=20)),
    reading(Counted(), BM25Sentences(budget=12)),
    reading(Counted(), RandomSentences(keep=0.5)),
    reading(),
    reading(Counted("nested"), Stack((BM25Sentences(budget=20), Stack((Truncate(tokens=9),), min_tokens=1000)))),
    reading(Stack((Fails(), RandomSentences(keep=0.5)), min_tokens=2)),
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
    assert CALLS.made == {"counted": 1, "nested": 1, "other": 1, "retrieve": 1}
    CALLS.made.clear()
    apart = Stages([record(0)], share=False)
    for pipeline in PIPELINES:
        apart.run(pipeline)
    assert CALLS.made == {"counted": 3, "nested": 1, "other": 2, "retrieve": 2}


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
        steps = [
            [(s.name, s.status, s.tokens_out) for s in one.steps]
            for one in (found.outcome.compression, answer.compression)
        ]
        assert steps[0] == steps[1]


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


ORACLE = OracleSentences(budget=30, threshold=2.0)


def test_without_labels_the_oracle_takes_what_holds_the_answer() -> None:
    one = dataclasses.replace(record(1), relevant=())
    (found,) = Stages([one]).run(reading(ORACLE))
    assert found.outcome.answer == one.answers[0]
    assert found.outcome.compression.tokens_out < 15


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("The Beatles", "It was sung by Beatles in a cellar."),
        ("1,000 km", "It is 1,000 km long."),
        ("Sa\u0303o Paulo", "He moved to S\u00e3o Paulo that year."),
        ("東京", "彼は東京に住んでいた。"),
    ],
)
def test_the_oracle_finds_what_answer_in_context_finds(answer: str, text: str) -> None:
    from ragzip.evaluation.metrics import parse

    passages = (Passage("a", f"Rain fell. {text} Nobody came."), Passage("b", "Dogs bark. Cats do not."))
    one = Record("x", "What was it?", (answer,), passages)
    metric = parse("answer_in_context")
    stages = Stages([one])
    (whole,), (oracle,) = stages.run(reading()), stages.run(reading(ORACLE))
    assert metric.score(whole.outcome) == metric.score(oracle.outcome) == 1.0
    assert oracle.outcome.compression.tokens_out < whole.outcome.compression.tokens_out


def test_where_no_labelled_sentence_holds_the_answer_others_do() -> None:
    one = record(2)
    wrong = Span("2-b", 0, len("A cat slept on the wall."))
    (found,) = Stages([dataclasses.replace(one, relevant=(wrong,))]).run(reading(ORACLE))
    assert found.outcome.answer == one.answers[0]
    assert "A cat slept" in text_of(found.outcome.compression.context)


def test_labels_are_found_in_passages_that_an_index_cut_anew() -> None:
    one = record(3)
    whole = one.passages[0]
    cut = whole.text.index("Nobody")
    oracle = Pipeline(Reader(), Pieces(3, cut), (OracleSentences(budget=40, threshold=2.0),), PROMPT)
    (found,) = Stages([dataclasses.replace(one, answers=("no such answer",))]).run(oracle)
    fact = whole.text[one.relevant[0].start : one.relevant[0].end]
    assert text_of(found.outcome.compression.context) == fact


def test_a_yes_without_labels_leaves_it_to_word_overlap() -> None:
    one = dataclasses.replace(record(2), answers=("yes",), relevant=())
    stages = Stages([one])
    (oracle,), (lexical,) = stages.run(reading(ORACLE)), stages.run(reading(BM25Sentences(budget=30)))
    assert oracle.outcome.compression.context.segments == lexical.outcome.compression.context.segments


@pytest.mark.parametrize("last", [Truncate(keep=0.5), BM25Sentences(keep=0.5), BM25Sentences(budget=14)])
def test_no_row_pays_for_counts_that_another_row_made_free(last, monkeypatch) -> None:
    """What a row counts does not depend on the rows before it, and is what the pipeline itself counts."""
    counted: list[int] = []
    original = Reader.count_tokens

    def counting(self, texts):
        counted.append(sum(map(len, texts)))
        return original(self, texts)

    monkeypatch.setattr(Reader, "count_tokens", counting)
    one = record(5)

    def made(run) -> int:
        counted.clear()
        run()
        return sum(counted)

    alone = made(lambda: Stages([one], generate=False).run(reading(last)))
    stages = Stages([one], generate=False)
    first = made(lambda: stages.run(reading()))
    after = made(lambda: stages.run(reading(last)))
    itself = made(lambda: reading(last).compress(one.question, one.passages))
    assert first + after == alone == itself


def test_a_stack_within_knows_labels_and_closed_books_too() -> None:
    for part in (OracleSentences(budget=60, threshold=2.0), ClosedBook()):
        plain, within = (Stages([record(0)]).run(reading(one)) for one in (part, Stack((Stack((part,)),))))
        assert plain[0].outcome.compression.context == within[0].outcome.compression.context


def test_closed_book_has_no_context() -> None:
    rows = {row.name: row for row in plan([("a", reading(BM25Sentences(budget=30)))])}
    (found,) = Stages([record(0)]).run(rows["closed_book"].pipeline)
    assert found.outcome.passages == ()
    assert found.outcome.compression.tokens_in == found.outcome.compression.tokens_out == 0
    assert found.outcome.answer == "unknown"
