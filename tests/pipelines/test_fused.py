"""Rerank before provence: with the same weights, each passage is read once, and judged as if it were read twice."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.compressors.provence import Provence
from ragzip.compressors.reorder import Reorder
from ragzip.compressors.top_k import TopK
from ragzip.generators.echo import Echo
from ragzip.models.pruner import Pruner
from ragzip.pipelines import Pipeline
from ragzip.protocols import Stack, SupportsFuse
from ragzip.retrievers.rerank import Rerank
from ragzip.testing.pruners import tiny_pruner
from ragzip.types import Passage, Query

CPU = {"dtype": "fp32", "device": "cpu"}
SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "The first railway was opened there in 1822.",
    "A context is compressed before a model reads it!",
    "Which city is the capital?",
    "Numbers such as 333 are tokens, too.",
]
TEXT = st.tuples(
    st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=9), st.sampled_from([" ", "\n", "  ", "\n\n"])
)
PASSAGES = st.lists(st.tuples(TEXT, st.sampled_from(["", "Fox"])), min_size=1, max_size=6).map(
    lambda found: [Passage(f"p{i}", gap.join(parts), title, 1.0) for i, ((parts, gap), title) in enumerate(found)]
)


class Fixed:
    """Gives the same passages for every question."""

    def __init__(self, passages: list[Passage]) -> None:
        self.passages = passages

    def retrieve(self, queries, *, top_k=None):
        return [self.passages[:top_k] for _ in queries]


@pytest.fixture
def model(tmp_path_factory, tiny_encoder_path):
    return str(tiny_pruner(tmp_path_factory.mktemp("pruner") / "m", tiny_encoder_path))


@pytest.fixture
def reads(monkeypatch):
    """The inputs that the model has read, one by one."""
    found, run = [], Pruner._run
    monkeypatch.setattr(Pruner, "_run", lambda self, rows: found.extend(row.key for row in rows) or run(self, rows))
    return found


def pipeline(passages, model, *compressors, hops=1, **options):
    made = compressors or (Provence(model=model, threshold=0.5, hops=hops, **CPU),)
    return Pipeline(Echo(), Rerank(Fixed(passages), model, hops=hops, **CPU, **options), made)


@given(st.lists(PASSAGES, min_size=1, max_size=3), st.integers(1, 3), st.integers(1, 7))
def test_each_input_is_read_once_and_nothing_else_changes(model, reads, given_lists, hops, top_k):
    for passages in given_lists:
        ready = pipeline(passages, model, hops=hops, top_k=top_k)
        reads.clear()
        fused = ready.compress("Which city?")
        assert len(reads) == len(set(reads))
        reads.clear()
        found = ready.retrieve(["Which city?"])[0]
        alone = len(reads)
        apart = ready.compress("Which city?", found)
        assert len(reads) > alone  # without sharing it reads again
        assert fused.context.passages == apart.context.passages
        assert fused.context.segments == apart.context.segments
        assert [step.status for step in fused.steps] == [step.status for step in apart.steps]


def test_the_model_runs_once_however_sentences_are_parted(model, reads):
    passages = [Passage(f"p{i}", gap.join(SENTENCES[:3]), "T", 1.0) for i, gap in enumerate((" ", "\n", "  "))]
    pipeline(passages, model).retrieve(["q"])
    once = len(reads)
    reads.clear()
    pipeline(passages, model).answer("q")
    assert len(reads) == once > 0


def test_compressors_in_between(model, reads):
    passages = [Passage(f"p{i}", f"{i} {SENTENCES[i]} {SENTENCES[1]}", "T", 1.0) for i in range(5)]
    prune = Provence(model=model, threshold=0.5, hops=1, order="relevance", top_k=2, **CPU)
    pipeline(passages, model).retrieve(["q"])
    once = list(reads)
    reads.clear()
    pipeline(passages, model, TopK(k=3), Reorder(), prune).answer("q")
    assert reads == once


def test_several_questions_in_one_run(model, reads):
    passages = [Passage(f"p{i}", SENTENCES[i], "T", 1.0) for i in range(4)]
    answers = pipeline(passages, model).answer_many(["Which city?", "Which fox?", "Which city?"])
    assert len(answers) == 3
    assert len(reads) == 8
    assert answers[0].compression.context == answers[2].compression.context


def test_nothing_is_kept_from_run_to_run(model, reads):
    ready = pipeline([Passage("p", SENTENCES[0], "T", 1.0)], model)
    ready.answer("q")
    ready.answer("q")
    assert len(reads) == 2
    assert ready.retriever.seen is None
    assert all(part.seen is None for part in ready.stack.compressors)
    assert "seen" not in str(ready.stack)


@pytest.mark.parametrize("other", [{"model": "other"}, {"dtype": "bf16"}, {"device": "cuda"}])
def test_other_models_do_not_fuse(model, other):
    retriever = Rerank(Fixed([]), model, **CPU)
    assert isinstance(retriever, SupportsFuse)
    same = Provence(model=model, **CPU)
    assert retriever.fuse(dataclasses.replace(same, **other)) is None
    assert retriever.fuse(TopK()) is None
    one, two = retriever.fuse(same)
    assert (one, two) == (retriever, same)
    assert one.seen is two.seen is not None


def test_settings_of_the_stack_stay(model):
    stack = Stack((Provence(model=model, **CPU),), timeout=9.0, min_tokens=3)
    made = Pipeline(Echo(), Rerank(Fixed([]), model, **CPU), stack)._fused()
    assert (made.stack.timeout, made.stack.min_tokens) == (9.0, 3)
    assert made == Pipeline(Echo(), made.retriever, stack)
    assert made.compress(Query("q"), [Passage("a", "x")]).context.passages == (Passage("a", "x"),)
