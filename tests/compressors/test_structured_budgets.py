"""What structures leave of a budget goes to the prose, however its tokens add up."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip.compressors._parts import take_apart
from ragzip.compressors.bm25_sentences import BM25Sentences
from ragzip.compressors.random_sentences import RandomSentences
from ragzip.compressors.structured import Structured
from ragzip.protocols import Compressor, Stack
from ragzip.types import Context, Passage, Query, context_of
from tests.matrix import bpe_counter

COUNTER = bpe_counter()
QUERY = Query("Who lit the oil lamp?")
SAYS = 'He said "yes"\nto "all". The café\u2028closed. The oil lamp was lit by "Ann" at dusk. Nobody\nput it out.'


RUSSIAN = "Смотритель зажёг лампу. Масло было холодным. Ночью мимо шли корабли. Никто их не видел."


def documents(count: int, ascii_only: bool, says: str = SAYS) -> Context:
    """One passage: JSON whose prose takes more tokens as a literal than as a text."""
    items = [{"id": i, "body": says.replace("Ann", f"Ann{i}")} for i in range(count)]
    return context_of(QUERY, (Passage("a", json.dumps({"items": items}, ensure_ascii=ascii_only)),))


def titled(count: int) -> Context:
    """Passages of prose and a list, with long titles."""
    text = "The keeper lit it. The oil was cold. Ships came.\n\n- oil {0}\n- wick {0}\n\nThe tower {0} fell at last."
    title = "A very long title about lamps and the towers they stand in, number {0} of the series"
    return context_of(QUERY, tuple(Passage(f"p{i}", text.format(i), title.format(i)) for i in range(count)))


def shells(context: Context) -> int:
    """Tokens of the structures with nothing in them that is prose."""
    kept = tuple(part.shell() for part in take_apart(context) if part.kind != "prose")
    return COUNTER.context(Context(context.query, kept, context.passages))


def within(context: Context, budget: int, inner=None) -> Context:
    (after,) = Structured(inner or BM25Sentences(), budget).bind(COUNTER).compress([context])
    assert COUNTER.context(after) <= budget
    return after


@settings(max_examples=60)
@given(st.integers(1, 6), st.booleans(), st.floats(0, 1), st.sampled_from([BM25Sentences(), RandomSentences()]))
def test_json_stays_where_its_keys_and_numbers_fit(count, ascii_only, share, inner):
    context = documents(count, ascii_only)
    least, whole = shells(context), COUNTER.context(context)
    after = within(context, least + round(share * (whole - least)), inner)
    assert [item["id"] for item in json.loads(after.segments[0].text)["items"]] == list(range(count))


@pytest.mark.parametrize("share", [0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95])
@pytest.mark.parametrize(
    ("context", "sentence"),  # and about the tokens of its longest sentence
    [(titled(10), 70), (documents(12, True), 60), (documents(12, False), 60), (documents(12, True, RUSSIAN), 180)],
    ids=["titles", "ascii", "unicode", "escapes"],
)
def test_a_budget_is_used(context, sentence, share):
    least, whole = shells(context), COUNTER.context(context)
    budget = least + round(share * (whole - least))
    used = COUNTER.context(within(context, budget, BM25Sentences(threshold=0.0)))
    assert used - least >= 0.9 * (budget - least) - sentence


@dataclass(frozen=True)
class Counted(BM25Sentences):
    """Tells how often it is asked."""

    calls: ClassVar[list[int]] = []

    def compress(self, contexts):
        self.calls.append(1)
        return super().compress(contexts)


class Unlimited(Compressor):
    """The same without a budget of its own."""

    def compress(self, contexts):
        return Counted(keep=0.9).compress(contexts)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("context", [titled(10), documents(12, True, RUSSIAN)], ids=["titles", "escapes"])
def test_the_inner_compressor_is_asked_as_little_as_will_do(context, share):
    least, whole = shells(context), COUNTER.context(context)
    budget = least + round(share * (whole - least))
    for inner, most in ((Unlimited(), 1), (Counted(), 4), (Stack((Counted(keep=0.9),)), 4)):
        Counted.calls.clear()
        within(context, budget, inner)
        assert 1 <= len(Counted.calls) <= most


@settings(max_examples=40)
@given(st.integers(2, 6), st.integers(0, 10))
def test_what_must_be_kept_is_kept_where_it_fits(count, more):
    forced = RandomSentences(keep=0.01, force_pattern=r"tower \d")
    context = titled(count)
    (wanted,) = Structured(forced).bind(COUNTER).compress([context])
    after = within(context, COUNTER.context(wanted) + more, RandomSentences(force_pattern=r"tower \d"))
    assert "".join(s.text for s in after.segments).count("tower") == count


@pytest.mark.parametrize("deep", [1, 2, 3])
def test_a_budget_within_stacks_within_is_met(deep):
    inner = BM25Sentences(budget=25)
    for _ in range(deep):
        inner = Stack((inner,), timeout=20.0)
    (after,) = Structured(inner=inner).bind(COUNTER).compress([titled(1)])
    assert COUNTER.context(titled(1)) > 25
    assert COUNTER.context(after) <= 25
