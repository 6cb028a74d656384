"""Pipelines: answers, accounts, YAML."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from ragzip import Pipeline, Query, Stack, Status
from ragzip.compressors.reorder import Reorder
from ragzip.compressors.sentence_filter import SentenceFilter
from ragzip.compressors.structured import Structured
from ragzip.compressors.top_k import TopK
from ragzip.errors import ConfigError, UsageError
from ragzip.generators.echo import Echo
from ragzip.generators.huggingface import HuggingFace
from ragzip.pipelines.pipeline import MAX_QUESTION
from ragzip.pipelines.prompt import QA, Plain
from ragzip.protocols import Compressor
from ragzip.retrievers.dense import Dense
from ragzip.types import Context, Passage, TextSegment
from tests.pipelines.parts import PASSAGES, Failing, FirstWords, Fixed, TextOnly


def test_an_answer_accounts_for_everything() -> None:
    pipeline = Pipeline(TextOnly(), Fixed(), FirstWords())
    answer = pipeline.answer(Query("Where is the cat?", "q1"))
    compression = answer.compression
    assert answer.query.id == "q1"
    assert compression.context.passages == PASSAGES
    assert compression.tokens_in == sum(len((p.title + " " + p.text).split()) for p in PASSAGES)
    assert compression.tokens_out == 2 * 3 + 2
    assert compression.ratio == compression.tokens_in / compression.tokens_out
    (step,) = compression.steps
    assert (step.status, step.tokens_in, step.tokens_out) == (Status.OK, compression.tokens_in, compression.tokens_out)
    timings = answer.timings
    assert timings.first_token == pytest.approx(timings.retrieve + timings.compress + timings.prefill)
    assert timings.total == pytest.approx(timings.first_token + timings.decode)
    assert timings.decode == pytest.approx(0.25)


def test_many_is_each() -> None:
    pipeline = Pipeline(TextOnly(), Fixed(), FirstWords() >> TopK(2))
    questions = [f"question number {i}" for i in range(70)]
    assert [a.text for a in pipeline.answer_many(questions)] == [pipeline.answer(q).text for q in questions]


def test_streaming_gives_the_answer_in_pieces() -> None:
    pipeline = Pipeline(TextOnly(), Fixed())
    stream = pipeline.stream("Where is the cat?")
    assert "".join(stream).strip() == stream.answer.text
    assert list(stream) == []


def test_streaming_raises_where_it_is_read() -> None:
    stream = Pipeline(TextOnly()).stream("no retriever")
    with pytest.raises(UsageError, match="no retriever"):
        list(stream)
    with pytest.raises(UsageError, match="no retriever"):
        _ = stream.answer


def test_streaming_many_tells_the_questions_apart() -> None:
    pieces: dict[int, str] = {}
    questions = [f"number {i}" for i in range(40)]
    done: list[tuple[int, int]] = []
    answers = Pipeline(TextOnly(), Fixed()).answer_many(
        questions,
        on_text=lambda i, piece: pieces.update({i: pieces.get(i, "") + piece}),
        on_progress=lambda n, of: done.append((n, of)),
    )
    assert [pieces[i].strip() for i in range(40)] == [a.text for a in answers]
    assert done == [(32, 40), (40, 40)]


def test_passages_can_be_given() -> None:
    answer = Pipeline(TextOnly()).answer("cat?", passages=PASSAGES[:1])
    assert answer.compression.context.passages == PASSAGES[:1]
    assert answer.compression.ratio == 1.0


def test_no_passages_is_closed_book() -> None:
    answer = Pipeline(TextOnly(), compressors=FirstWords()).answer("cat?", passages=[])
    assert answer.compression.tokens_in == 0
    assert answer.citations == ()
    assert answer.compression.steps[0].status is Status.SKIPPED_SHORT


def test_one_bad_context_costs_only_itself() -> None:
    answers = Pipeline(TextOnly(), Fixed(), Failing()).answer_many(["good one", "bad one", "good two"])
    statuses = [a.compression.steps[0].status for a in answers]
    assert statuses == [Status.OK, Status.ERROR, Status.OK]
    assert "cannot do this one" in answers[1].compression.steps[0].detail
    assert answers[1].compression.tokens_out == answers[1].compression.tokens_in


@pytest.mark.parametrize("question", ["", "   ", "\n\t", "x" * (MAX_QUESTION + 1)])
def test_bad_questions_are_refused_before_any_work(question: str) -> None:
    with pytest.raises(UsageError):
        Pipeline(TextOnly(), Fixed()).answer(question)


def test_a_string_is_not_a_list_of_questions() -> None:
    with pytest.raises(UsageError, match="one string"):
        Pipeline(TextOnly(), Fixed()).answer_many("why?")


def test_passages_must_match_the_questions() -> None:
    with pytest.raises(UsageError, match="2 questions"):
        Pipeline(TextOnly()).answer_many(["a", "b"], passages=[PASSAGES])


def test_a_seed_reaches_the_generator_and_an_own_seed_stays() -> None:
    assert Pipeline(TextOnly(), Fixed(), seed=7).answer("q").text.startswith("seed 7")
    assert Pipeline(TextOnly(seed=3), Fixed(), seed=7).answer("q").text.startswith("seed 3")


def full() -> Pipeline:
    return Pipeline(
        HuggingFace(max_new_tokens=9),
        Dense("kb/", top_k=4),
        SentenceFilter(budget=100) >> TopK(3) >> Reorder(),
        Plain("Q {query} C {context}"),
        seed=3,
        name="mine",
    )


def test_yaml_is_the_pipeline() -> None:
    text = full().to_yaml()
    assert Pipeline.from_yaml(text) == full()
    assert Pipeline.from_yaml(text).to_yaml() == text
    assert pickle.loads(pickle.dumps(full())) == full()


def test_a_short_yaml_becomes_a_full_one() -> None:
    short = "ragzip: 1\ncompressors:\n  - top_k\n  - {type: budget, tokens: 5}\ngenerator: echo\n"
    pipeline = Pipeline.from_yaml(short)
    written = pipeline.to_yaml()
    assert pipeline.generator == Echo()
    assert [type(c).__name__ for c in pipeline.stack.compressors] == ["TopK", "Budget"]
    assert Pipeline.from_yaml(written).to_yaml() == written
    assert "seed: 0" in written


def test_stack_settings_survive() -> None:
    pipeline = Pipeline(Echo(), compressors=Stack((TopK(2),), timeout=3.0, min_tokens=50))
    assert Pipeline.from_yaml(pipeline.to_yaml()) == pipeline


def test_saving_and_loading(tmp_path) -> None:
    full().to_yaml(tmp_path / "p.yaml")
    assert Pipeline.load(tmp_path / "p.yaml") == full()
    changed = Pipeline.load(tmp_path / "p.yaml", overrides=["compressors.0.budget=7", "retriever.index=other/"])
    assert changed.stack.compressors[0] == SentenceFilter(budget=7)
    assert changed.retriever == Dense("other/", top_k=4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a pipeline is a mapping"),
        ("[1]", "a pipeline is a mapping"),
        ("ragzip: 2\ngenerator: echo", "p.yaml:1: ragzip: format 2"),
        ("ragzip: 1\ngenerator: echo\nretreiver: null", "p.yaml:3: retreiver: a pipeline has no 'retreiver'"),
        ("ragzip: 1", "needs the option 'generator'"),
        ("generator: echo\ncompressors:\n  - {type: top_k, k: many}", "p.yaml:3: compressors.0.k: should be a whole"),
        ("generator: echo\ncompressors:\n- top_kk", "p.yaml:3: compressors.0.type: unknown compressor 'top_kk'"),
        ("generator: echo\ncompressors: {a: 1}", "compressors: has no 'type'"),
        ("generator: echo\nseed: x", "p.yaml:2: seed: should be a whole number"),
    ],
)
def test_bad_yaml_says_where(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Pipeline.from_yaml(text, source="p.yaml")
    assert message in str(caught.value)


@pytest.mark.parametrize("override", ["x", "=3", "compressors.9.k=1", "nothing.at.all=1", "name.x=1", "seed=x"])
def test_bad_overrides_are_refused(override: str) -> None:
    with pytest.raises(ConfigError):
        Pipeline.from_yaml(full().to_yaml(), overrides=[override])


def test_missing_and_unreadable_files(tmp_path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        Pipeline.load(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="cannot read"):
        Pipeline.load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(ConfigError, match="not UTF-8"):
        Pipeline.load(tmp_path / "latin.yaml")


def test_parts_that_are_no_parts_are_refused() -> None:
    with pytest.raises(ConfigError, match="not a compressor"):
        Pipeline(Echo(), compressors=(TopK,)).check()
    with pytest.raises(ConfigError, match="not a generator"):
        Pipeline(Echo).check()
    with pytest.raises(ConfigError, match="not a retriever"):
        Pipeline(Echo(), retriever="kb/").check()


def test_pipelines_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        full().seed = 4
    assert QA() == QA()


def test_warming_up_loads_what_stands_within_other_parts() -> None:
    loaded: list[str] = []

    @dataclass(frozen=True)
    class Loads(Compressor[TextSegment, TextSegment]):
        name: str = ""

        def load(self) -> None:
            loaded.append(self.name)

        def compress(self, contexts: Sequence[Context[TextSegment]]) -> Sequence[Context[TextSegment]]:
            return contexts

    stack = Stack((Loads("a"), Structured(Stack((Loads("b"), Structured(Loads("c"))))), Structured(Loads("d"))))
    Pipeline(TextOnly(), compressors=stack).warm_up()
    assert loaded == ["a", "b", "c", "d"]


def test_two_passages_with_one_id_are_refused() -> None:
    pipeline = Pipeline(Echo(), None, FirstWords())
    one, same, other = (
        Passage("report.pdf", "Cats sleep."),
        Passage("report.pdf", "Cats sleep."),
        Passage("report.pdf", "No."),
    )
    assert pipeline.answer("Who sleeps?", passages=[one, same]).compression.context.passages == (one, same)
    for ask in (pipeline.answer, pipeline.compress):
        with pytest.raises(UsageError, match=r"two passages have the id 'report\.pdf'"):
            ask("Who sleeps?", passages=[one, other])


@dataclass(frozen=True)
class Gives(Fixed):
    """A retriever of somebody's own, which gives what it is told to."""

    lists: tuple[tuple[Passage, ...], ...] = ()

    def retrieve(self, queries: Sequence[Query], *, top_k: int | None = None) -> list[list[Passage]]:
        return [list(one) for one in self.lists]


def test_a_retriever_that_breaks_its_word_is_named_before_anything_is_computed() -> None:
    twice = (Passage("report.pdf", "Cats sleep."), Passage("report.pdf", "No."))
    for ask in ("answer", "compress"):
        with pytest.raises(UsageError, match=r"two passages have the id 'report\.pdf'"):
            getattr(Pipeline(Echo(), Gives(lists=(twice,)), FirstWords()), ask)("Who sleeps?")
    for lists in ((), (PASSAGES, PASSAGES)):
        with pytest.raises(UsageError, match=f"gave {len(lists)} lists of passages for 1 question"):
            Pipeline(Echo(), Gives(lists=lists)).answer("Who sleeps?")
