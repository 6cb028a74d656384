"""The laws that every compressor keeps, as a pytest class to inherit from."""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
import pickle
import random
import re
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragzip import config, registry
from ragzip.protocols import Compressor, Counter, Stack
from ragzip.testing.strategies import contexts, edge_contexts
from ragzip.tokens import TokenCounter
from ragzip.types import Context, SoftSegment, TextSegment

_WORD = re.compile(r"\w+|[^\w\s]")
Contexts = Sequence[Context[Any]]


class CompressorContract:
    """The eight laws of a compressor. Inherit, name the class ``Test…``, and say how to make one.

    Attributes:
        extractive: Whether its text is what its spans say; False for methods that write new text.
        examples: Random contexts per law.
        tolerance: Most absolute difference of soft embeddings between a batch and its singles.
        space: The generator whose embeddings its soft segments are, or "" for text methods.
        width: Columns of the soft embeddings; 0 for text methods.

        class TestMyFilter(CompressorContract):
            def make(self):
                return MyFilter(threshold=0.2)
    """

    extractive: ClassVar[bool] = True
    examples: ClassVar[int] = 40
    tolerance: ClassVar[float] = 1e-4
    space: ClassVar[str] = ""
    width: ClassVar[int] = 0

    def make(self) -> Compressor[Any, Any]:
        """The compressor under test, with the options to test it with."""
        raise NotImplementedError("say which compressor to test: def make(self): return ...")

    def counter(self) -> Counter:
        """Whose tokens count: words and punctuation marks, titles included. Replace it by a generator's own."""
        return TokenCounter(count_words)

    def contexts(self) -> st.SearchStrategy[Context[Any]]:
        """What the laws are tried on."""
        return contexts()

    def forget(self) -> None:
        """Called between two runs that are compared: replace it where the method keeps what it computed."""

    def neutral(self) -> list[Compressor[Any, Any]]:
        """Settings that must change nothing: ``keep=1.0``, and ``threshold=0`` for methods that have both.

        Other limits are taken off, and the order is left as it is.
        """
        made = self.make()
        names = _options(made)
        cleared: dict[str, Any] = {
            name: None for name in ("keep", "threshold", "budget", "tokens", "top_k") if name in names
        }
        if "order" in names:
            cleared["order"] = "original"
        found = []
        if "keep" in names:
            found.append(dataclasses.replace(made, **{**cleared, "keep": 1.0}))  # type: ignore[type-var]
        if {"keep", "threshold"} <= names:
            found.append(dataclasses.replace(made, **{**cleared, "threshold": 0.0}))  # type: ignore[type-var]
        return found

    def budgeted(self, tokens: int) -> Compressor[Any, Any] | None:
        """The compressor with a token budget; None where the method has none."""
        made = self.make()
        name = next((name for name in ("budget", "tokens") if name in _options(made)), None)
        return dataclasses.replace(made, **{name: tokens}) if name else None  # type: ignore[type-var]

    def test_gives_one_context_each_in_order_with_query_and_passages_untouched(self) -> None:
        """Law 1."""

        def law(batch: Contexts) -> None:
            results = self._bound().compress(batch)
            expect(len(results) == len(batch), f"{len(results)} contexts for {len(batch)}")
            for before, after in zip(batch, results, strict=True):
                expect(after.query == before.query, "the query changed, or the order of contexts")
                expect(after.passages == before.passages, "the passages changed")
                expect(isinstance(after.segments, tuple), "segments are not a tuple")

        self._forall(st.lists(self.contexts(), max_size=3), law)

    def test_spans_are_in_their_passages_and_say_what_the_text_is(self) -> None:
        """Law 2."""

        def law(context: Context[Any]) -> None:
            (after,) = self._bound().compress([context])
            known = {passage.id: passage for passage in reversed(context.passages)}
            given_text = {(s.text, s.sources) for s in context.segments if isinstance(s, TextSegment)}
            for segment in after.segments:
                for span in segment.sources:
                    expect(span.passage_id in known, f"{span} is in no passage")
                    expect(span.end <= len(known[span.passage_id].text), f"{span} ends outside its passage")
                if not self.extractive or not isinstance(segment, TextSegment):
                    continue
                if (segment.text, segment.sources) in given_text or _abstractive(context, segment.sources):
                    continue
                says = segment.joiner.join(known[s.passage_id].text[s.start : s.end] for s in segment.sources)
                expect(segment.text == says, f"text {segment.text!r} is not what its spans say: {says!r}")

        self._forall(self.contexts(), law)

    def test_a_batch_gives_what_its_contexts_give_alone(self) -> None:
        """Law 3."""

        def law(batch: Contexts) -> None:
            made = self._bound()
            alone = [made.compress([context])[0] for context in batch]
            for order in (list(range(len(batch))), list(range(len(batch)))[::-1]):
                self.forget()
                together = made.compress([batch[i] for i in order])
                for i, result in zip(order, together, strict=True):
                    expect(self.same(result, alone[i]), "a context's result depends on its batch")

        self._forall(st.lists(self.contexts(), min_size=2, max_size=3), law)

    def test_takes_empty_odd_and_very_long_input(self) -> None:
        """Law 4."""
        made = self._bound()
        batch = edge_contexts()
        alone = [made.compress([context])[0] for context in batch]
        for one, other in zip(alone, made.compress(batch), strict=True):
            expect(self.same(one, other), "a context's result depends on its batch")

    def test_never_costs_more_tokens(self) -> None:
        """Law 5, for the settings of ``make``; soft methods keep it within a stack, which falls open."""
        counter = self.counter()

        def law(context: Context[Any]) -> None:
            (after,) = self._bound().compress([context])
            if any(isinstance(segment, SoftSegment) for segment in after.segments):
                after = Stack((self.make(),)).run([context], counter=counter)[0].context
            old, new = counter.context(context), counter.context(after)
            expect(new <= old, f"{new} tokens are more than {old}")

        self._forall(self.contexts(), law)

    def test_settings_that_keep_everything_change_nothing(self) -> None:
        """Law 5, for ``neutral``."""
        neutral = self.neutral()
        if not neutral:
            skip("no settings that keep everything are named")
        for made in neutral:
            bound = made.bind(self.counter())

            def law(context: Context[Any], bound: Compressor[Any, Any] = bound) -> None:
                (after,) = bound.compress([context])
                expect(self.same(after, context), f"{bound} changed a context")

            self._forall(self.contexts(), law)

    def test_a_budget_is_always_met(self) -> None:
        """Law 5, for ``budgeted``."""
        counter = self.counter()
        if self.budgeted(1) is None:
            skip("has no budget option")

        def law(context: Context[Any], tokens: int) -> None:
            made = self.budgeted(tokens)
            if made is not None:
                count = counter.context(made.bind(counter).compress([context])[0])
                expect(count <= tokens, f"{count} tokens are over the budget of {tokens}")

        self._forall(st.tuples(self.contexts(), st.integers(0, 60)), lambda pair: law(*pair))

    def test_is_deterministic_and_leaves_the_process_alone(self) -> None:
        """Law 6."""

        def law(context: Context[Any]) -> None:
            made = self._bound()
            before = process_state()
            first = made.compress([context])[0]
            after = process_state()
            changed = [name for name, value in before.items() if after[name] != value]
            expect(not changed, f"changed the process's {', '.join(changed)}")
            expect(self.same(made.compress([context])[0], first), "a second call gave something else")
            expect(self.same(self._bound().compress([context])[0], first), "an equal component gave something else")

        self._forall(self.contexts(), law)

    def test_does_not_change_its_input(self) -> None:
        """Law 7."""

        def law(batch: list[Context[Any]]) -> None:
            copies = copy.deepcopy(batch)
            self._bound().compress(batch)
            expect(batch == copies, "an input was changed")

        self._forall(st.lists(self.contexts(), max_size=2), law)

    def test_works_from_two_threads(self) -> None:
        """Law 7."""
        made, batch = self._bound(), edge_contexts()[:-5]
        expected = made.compress(batch)
        results: list[Any] = [None, None]

        def work(place: int) -> None:
            try:
                results[place] = made.compress(batch)
            except Exception as error:  # noqa: BLE001 - shown by the thread that runs the test
                results[place] = error

        threads = [threading.Thread(target=work, args=(place,)) for place in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for found in results:
            expect(not isinstance(found, Exception), f"failed in a thread: {found!r}")
            expect(all(map(self.same, found, expected)), "gave something else in a thread")

    def test_pickles(self) -> None:
        """Law 7."""
        made = self.make()
        loaded = pickle.loads(pickle.dumps(made))  # noqa: S301 - our own bytes
        expect(loaded == made, "is not equal to its pickled copy")
        batch = edge_contexts()[:4]
        first, second = (c.bind(self.counter()).compress(batch) for c in (made, loaded))
        expect(all(map(self.same, first, second)), "its pickled copy gives something else")

    def test_config_round_trip(self) -> None:
        """Law 7, for classes that the registry names."""
        made = self.make()
        if registry.kind_of(made) is not None:  # a class that no registry names has no config
            expect(config.from_config("compressor", config.to_config(made)) == made, "its config builds another")

    def test_soft_segments_fit_the_generator(self) -> None:
        """Law 8, for soft methods."""

        def law(context: Context[Any]) -> None:
            for segment in self._bound().compress([context])[0].segments:
                if not isinstance(segment, SoftSegment):
                    continue
                expect(bool(segment.space), "space is not set")
                expect(segment.space == (self.space or segment.space), f"space {segment.space!r}, not {self.space!r}")
                expect(segment.embeddings.ndim == 2, "embeddings are not [n_tokens, d_model]")
                width = int(segment.embeddings.shape[1])
                expect(width == (self.width or width), f"{width} columns, not {self.width}")
                expect(bool(segment.embeddings.isfinite().all()), "embeddings are not finite")

        self._forall(self.contexts(), law)

    def same(self, first: Context[Any], second: Context[Any]) -> bool:
        """Equal, with soft embeddings within ``tolerance``."""
        if (first.query, first.passages) != (second.query, second.passages):
            return False
        if len(first.segments) != len(second.segments):
            return False
        return all(self._same(a, b) for a, b in zip(first.segments, second.segments, strict=True))

    def _same(self, a: Any, b: Any) -> bool:
        if not (isinstance(a, SoftSegment) and isinstance(b, SoftSegment)):
            return bool(a == b)
        if (a.space, a.sources, a.embeddings.shape) != (b.space, b.sources, b.embeddings.shape):
            return False
        return bool(((a.embeddings - b.embeddings).abs() <= self.tolerance).all())

    def _bound(self) -> Compressor[Any, Any]:
        return self.make().bind(self.counter())

    def _forall(self, strategy: st.SearchStrategy[Any], law: Callable[[Any], None]) -> None:
        """Tries a law on examples. Inside the test, so that classes that inherit it do not share a database entry."""

        @settings(
            max_examples=self.examples,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        )
        @given(strategy)
        def check(value: Any) -> None:
            law(value)

        check()


def skip(reason: str) -> None:
    """Marks a law that says nothing about a method, so that it does not look kept."""
    import pytest

    pytest.skip(reason)


def expect(condition: bool, message: str) -> None:
    """Fails the test with a message that says what was wrong."""
    if not condition:
        raise AssertionError(message)


def count_words(texts: Sequence[str]) -> list[int]:
    """Words and punctuation marks: a stand-in for a tokenizer, in which counts add up exactly."""
    return [sum(1 for _ in _WORD.finditer(text)) for text in texts]


def process_state() -> dict[str, Any]:
    """What a component must not touch: random generators, environment, working directory, logging."""
    state: dict[str, Any] = {
        "random state": random.getstate(),
        "environment": dict(os.environ),
        "working directory": str(Path.cwd()),
        "logging": (logging.root.level, list(logging.root.handlers), logging.root.manager.disable),
    }
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    state["numpy random state"] = str(numpy.random.get_state(legacy=False)) if numpy else ""
    state["torch random state"] = torch.get_rng_state().tolist() if torch else []
    return state


def _options(component: Any) -> set[str]:
    return {field.name for field in config.options(type(component))}


def _abstractive(context: Context[Any], sources: tuple[Any, ...]) -> bool:
    """Whether these sources come from an input segment whose own text is not what its spans say."""
    known = {passage.id: passage.text for passage in reversed(context.passages)}
    for segment in context.segments:
        if isinstance(segment, TextSegment) and segment.sources == sources:
            says = segment.joiner.join(known.get(s.passage_id, "")[s.start : s.end] for s in segment.sources)
            if says != segment.text:
                return True
    return False
