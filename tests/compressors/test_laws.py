"""Every law, over every registered compressor; and every law over compressors that break it."""

import dataclasses
import math
import os
import pickle
import random
from dataclasses import dataclass
from typing import ClassVar

import pytest

from ragzip import registry
from ragzip.errors import ConfigError
from ragzip.models.concepts import forget_segments
from ragzip.protocols import Compressor, Selector, Stack
from ragzip.testing import CompressorContract
from ragzip.types import Context, Segment, SoftSegment, Span, TextSegment
from tests.matrix import ABSTRACTIVE, COMPRESSORS, SOFT, bpe_counter

LAWS = [name for name in vars(CompressorContract) if name.startswith("test_")]
CASES = [
    pytest.param(make, id=f"{name}-{number}")
    for name, makes in COMPRESSORS.items()
    for number, make in enumerate(makes)
]
REWRITING = [make for name in ABSTRACTIVE for make in COMPRESSORS[name]]


def test_every_registered_compressor_has_examples():
    assert set(registry.names("compressor")) == set(COMPRESSORS)
    for name, makes in COMPRESSORS.items():
        assert {registry.name_of(make()) for make in makes} == {name}


def contract(make, **attributes):
    """A contract for one example."""
    body = {"make": lambda self: make(), "examples": 20, "extractive": make not in REWRITING, **attributes}
    body["forget"] = lambda self: forget_segments()
    return type("Contract", (CompressorContract,), body)()


@pytest.mark.parametrize("make", CASES)
@pytest.mark.parametrize("law", LAWS)
def test_law(law, make):
    getattr(contract(make), law)()


@pytest.mark.parametrize("make", CASES)
def test_a_budget_is_met_in_tokens_that_do_not_add_up(make):
    contract(make, counter=lambda self: bpe_counter()).test_a_budget_is_always_met()


@pytest.mark.parametrize("make", CASES)
def test_settings_that_keep_everything_in_tokens_that_do_not_add_up(make):
    contract(make, counter=lambda self: bpe_counter()).test_settings_that_keep_everything_change_nothing()


def test_thresholds_beyond_the_scale_of_the_scores_are_refused():
    scaled = {
        name: cls.scale
        for name in COMPRESSORS
        if max(map(abs, getattr(cls := registry.get("compressor", name), "scale", (math.inf,)))) < math.inf
    }
    assert {"provence", "exit", "llmlingua2", "sentence_filter", "coverage", "semantic_drop"} <= set(scaled)
    for name, (low, high) in scaled.items():
        cls = registry.get("compressor", name)
        for value in (low, high):
            assert cls(threshold=value).threshold == value
        for value in (low - 0.01, high + 0.01, math.nan, math.inf):
            with pytest.raises(ConfigError, match="threshold"):
                cls(threshold=value)


class TestStackOfAll(CompressorContract):
    examples: ClassVar[int] = 20

    def make(self):
        left_out = {"identity", *ABSTRACTIVE, *SOFT}  # new text is not what its spans say, and rows are no text
        parts = [make for name, makes in COMPRESSORS.items() for make in makes[:1] if name not in left_out]
        return Stack(tuple(make() for make in parts))

    def test_config_round_trip(self):
        from ragzip.config import from_config, to_config

        assert from_config("compressor", to_config(self.make())) == self.make()


# Compressors that break one law each: a law that cannot fail tests nothing.


@dataclass(frozen=True)
class Broken(Compressor[TextSegment, Segment]):
    """Keeps the first half of each segment, or does worse."""

    keep: float | None = None
    budget: int | None = None
    seen: ClassVar[list[str]] = []

    def compress(self, contexts):
        return [self.one(context) for context in contexts]

    def one(self, context):
        return self.with_segments(context, [self.half(s) for s in context.segments])

    def half(self, segment):
        return segment

    def with_segments(self, context, segments):
        return Context(context.query, tuple(segments), context.passages)


class DropsAContext(Broken):
    def compress(self, contexts):
        return super().compress(contexts)[:-1]


class SwapsContexts(Broken):
    def compress(self, contexts):
        return super().compress(contexts)[::-1]


class DropsPassages(Broken):
    def one(self, context):
        return Context(context.query, context.segments, context.passages[:1])


class WrongSpans(Broken):
    def half(self, segment):
        if not segment.sources or not segment.text.strip():
            return segment
        return TextSegment(segment.text[len(segment.text) // 2 :], (segment.sources[0],))


class SpansOutside(Broken):
    def half(self, segment):
        return TextSegment(segment.text, tuple(Span(s.passage_id, s.start, s.end + 1) for s in segment.sources))


class DependsOnItsBatch(Broken):
    def compress(self, contexts):
        return [self.with_segments(c, c.segments[:1] if len(contexts) > 1 else c.segments) for c in contexts]


class CannotTakeEmptyText(Broken):
    def half(self, segment):
        segment.text.split()[0]
        return segment


class Grows(Broken):
    def half(self, segment):
        return dataclasses.replace(segment, text=segment.text + " and more")


class IgnoresKeep(Broken):
    def one(self, context):
        return self.with_segments(context, context.segments[:1])


class IgnoresBudget(Broken):
    pass


class DrawsFromTheGlobalGenerator(Broken):
    def half(self, segment):
        random.random()
        return segment


class SetsTheEnvironment(Broken):
    def half(self, segment):
        os.environ["RAGZIP_TEST_BROKEN"] = str(len(os.environ))
        return segment


class Forgets(Broken):
    """Gives something else the second time."""

    def one(self, context):
        self.seen.append(context.query.text)
        return self.with_segments(context, context.segments[: len(self.seen) % 2])


class ChangesItsInput(Broken):
    def one(self, context):
        for passage in context.passages:
            passage.metadata["touched"] = True
        return context


class FailsInThreads(Broken):
    def one(self, context):
        import threading

        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("only in the main thread")
        return context


@dataclass(frozen=True)
class CannotPickle(Broken):
    function: object = lambda: None


@dataclass(frozen=True)
class LosesAnOption(Selector):
    size: int = 1

    def compress(self, contexts):
        return list(contexts)

    def __post_init__(self):
        object.__setattr__(self, "size", self.size + 1)


class NotFinite(Broken):
    def half(self, segment):
        import torch

        return SoftSegment(torch.full((1, 4), float("nan")), "some-model", segment.sources)


class TooWide(Broken):
    def half(self, segment):
        import torch

        return SoftSegment(torch.zeros(1, 5), "some-model", segment.sources)


RAISES = {CannotTakeEmptyText: IndexError, CannotPickle: (AttributeError, pickle.PicklingError)}


@pytest.mark.parametrize(
    ("law", "broken"),
    [
        ("test_gives_one_context_each_in_order_with_query_and_passages_untouched", DropsAContext),
        ("test_gives_one_context_each_in_order_with_query_and_passages_untouched", SwapsContexts),
        ("test_gives_one_context_each_in_order_with_query_and_passages_untouched", DropsPassages),
        ("test_spans_are_in_their_passages_and_say_what_the_text_is", WrongSpans),
        ("test_spans_are_in_their_passages_and_say_what_the_text_is", SpansOutside),
        ("test_a_batch_gives_what_its_contexts_give_alone", DependsOnItsBatch),
        ("test_takes_empty_odd_and_very_long_input", CannotTakeEmptyText),
        ("test_never_costs_more_tokens", Grows),
        ("test_settings_that_keep_everything_change_nothing", IgnoresKeep),
        ("test_a_budget_is_always_met", IgnoresBudget),
        ("test_is_deterministic_and_leaves_the_process_alone", DrawsFromTheGlobalGenerator),
        ("test_is_deterministic_and_leaves_the_process_alone", SetsTheEnvironment),
        ("test_is_deterministic_and_leaves_the_process_alone", Forgets),
        ("test_does_not_change_its_input", ChangesItsInput),
        ("test_works_from_two_threads", FailsInThreads),
        ("test_pickles", CannotPickle),
        ("test_config_round_trip", LosesAnOption),
        ("test_soft_segments_fit_the_generator", NotFinite),
        ("test_soft_segments_fit_the_generator", TooWide),
    ],
)
def test_a_broken_compressor_is_caught(law, broken, monkeypatch):
    monkeypatch.setenv("RAGZIP_TEST_BROKEN", "")
    monkeypatch.setattr(
        registry, "_extra", {**registry._extra, "compressor": {"broken": f"{__name__}:{broken.__name__}"}}
    )
    monkeypatch.setattr(registry, "get", lambda kind, name, **_: broken)
    made = contract(broken, width=4, space="some-model", examples=60)
    with pytest.raises(RAISES.get(broken, (AssertionError, ExceptionGroup))):
        getattr(made, law)()


@pytest.mark.parametrize("law", LAWS)
def test_a_sound_compressor_passes(law):
    """The compressor that the broken ones are made from breaks nothing but its budget."""
    if law != "test_a_budget_is_always_met":
        getattr(contract(Broken), law)()
