"""identity, truncate, top_k, reorder, budget: by example."""

import doctest
import sys

import pytest
import torch

from ragzip.compressors.budget import Budget
from ragzip.compressors.identity import Identity
from ragzip.compressors.reorder import Reorder
from ragzip.compressors.top_k import TopK
from ragzip.compressors.truncate import Truncate
from ragzip.errors import ConfigError
from ragzip.testing.contracts import count_words
from ragzip.tokens import TokenCounter
from ragzip.types import Context, Passage, Query, SoftSegment, Span, TextSegment, context_of

COUNTER = TokenCounter(count_words)


def of(*scores, text="Text {}."):
    return context_of(
        Query("?"), tuple(Passage(f"p{i}", text.format(i), score=score) for i, score in enumerate(scores))
    )


def names(context):
    return "".join(segment.sources[0].passage_id[1:] if segment.sources else "-" for segment in context.segments)


def left(compressor, context):
    return names(compressor.bind(COUNTER).compress([context])[0])


def texts(compressor, context):
    return [segment.text for segment in compressor.bind(COUNTER).compress([context])[0].segments]


def soft(passage="", rows=2):
    return SoftSegment(torch.ones(rows, 4), "m", (Span(passage, 0, 1),) if passage else ())


def test_identity():
    context = of(1.0, None)
    assert Identity().compress([context])[0] is context


@pytest.mark.parametrize("compressor", [Identity, Truncate])
def test_the_examples_in_the_docstrings_are_true(compressor):
    result = doctest.testmod(sys.modules[compressor.__module__])
    assert result.attempted
    assert not result.failed


# top_k


def test_top_k_keeps_the_best_in_their_order():
    assert left(TopK(2), of(0.1, 0.9, 0.5, 0.7)) == "13"
    assert left(TopK(9), of(0.1, 0.9)) == "01"


def test_top_k_without_scores_keeps_the_first():
    assert left(TopK(2), of(None, None, None)) == "01"
    assert left(TopK(2), of(None, -3.0, None, float("nan"))) == "01"
    assert left(TopK(2), of(1.0, 1.0, 1.0)) == "01"


def test_top_k_counts_passages_not_segments():
    base = of(0.9, 0.1, 0.5)
    parts = (base.segments[1], base.segments[0], TextSegment("Text", (Span("p0", 0, 4),)), base.segments[2])
    assert left(TopK(1), Context(base.query, parts, base.passages)) == "00"
    assert left(TopK(2), Context(base.query, parts, base.passages)) == "002"


def test_top_k_keeps_soft_segments_and_ones_without_sources():
    base = of(0.1, 0.9)
    mixed = Context(base.query, (soft("p1"), TextSegment("bare"), base.segments[0]), base.passages)
    assert TopK(1).compress([mixed])[0].segments == (mixed.segments[0],)
    assert TopK(3).compress([mixed])[0] is mixed


@pytest.mark.parametrize("k", [0, -1, 1.5])
def test_top_k_needs_at_least_one(k):
    with pytest.raises(ConfigError, match=r"^k: must be"):
        TopK(k)


# reorder


def test_reorder_puts_the_best_at_both_ends():
    assert left(Reorder(), of(5, 4, 3, 2, 1)) == "02431"
    assert left(Reorder(), of(1, 2, 3, 4)) == "3102"
    assert left(Reorder(), of(None, None, None)) == "021"
    assert left(Reorder(), of(7.0)) == "0"


def test_reorder_by_score_and_back():
    context = of(0.2, None, 0.9, 0.5)
    assert left(Reorder("score"), context) == "2301"
    shuffled = Reorder("score").compress([context])[0]
    assert Reorder("original").compress([shuffled])[0] == context
    assert Reorder("original").compress([context])[0] is context


def test_reorder_leaves_segments_of_one_passage_together():
    base = of(1.0, 2.0)
    one, two = TextSegment("Te", (Span("p0", 0, 2),)), TextSegment("xt", (Span("p0", 2, 4),))
    blank = TextSegment(" ", (Span("p1", 4, 5),))
    context = Context(base.query, (one, blank, two, base.segments[1]), base.passages)
    assert Reorder("score").compress([context])[0].segments == (base.segments[1], one, blank, two)


def test_reorder_moves_soft_segments_and_ones_without_sources():
    base = of(1.0, 2.0)
    context = Context(base.query, (TextSegment("bare"), base.segments[0], soft("p1")), base.passages)
    found = Reorder("score").compress([context])[0].segments
    assert found == (context.segments[2], context.segments[1], context.segments[0])


def test_reorder_refuses_other_orders():
    with pytest.raises(ConfigError, match="must be one of ends, score, original"):
        Reorder("best")


# truncate


def test_truncate_keeps_the_head_to_the_last_sentence():
    context = of(1, 2, text="Passage {} starts. It goes on here.")
    assert texts(Truncate(tokens=12), context) == ["Passage 0 starts. It goes on here."]
    assert texts(Truncate(tokens=13), context) == ["Passage 0 starts. It goes on here.", "Passage 1 starts."]
    assert texts(Truncate(tokens=8), context) == ["Passage 0 starts."]
    assert texts(Truncate(tokens=3), context) == ["Passage 0"]
    assert texts(Truncate(tokens=0), context) == []
    assert texts(Truncate(keep=0.5), context) == ["Passage 0 starts. It goes on here."]
    assert texts(Truncate(tokens=4, keep=0.9), context) == ["Passage 0 starts."]
    assert Truncate(tokens=18).bind(COUNTER).compress([context])[0] is context


def test_truncate_keeps_what_is_first_not_what_fits():
    context = context_of(Query("?"), (Passage("p0", "One. A sentence that is rather long. Two."),))
    assert texts(Truncate(tokens=5), context) == ["One."]


def test_truncate_keeps_or_drops_soft_segments_whole():
    base = of(1.0)
    context = Context(base.query, (base.segments[0], soft(rows=5), TextSegment("More.")), base.passages)
    assert Truncate(tokens=8).bind(COUNTER).compress([context])[0].segments == context.segments[:2]
    assert Truncate(tokens=7).bind(COUNTER).compress([context])[0].segments == context.segments[:1]


def test_truncate_needs_a_limit():
    with pytest.raises(ConfigError, match="Give tokens"):
        Truncate()


# budget


LONG = "First of {0} is here. Second of {0} is here. Third of {0} is here."


def test_budget_gives_better_passages_more():
    context = of(0.1, 0.9, 0.5, text=LONG)
    assert texts(Budget(12), context) == ["First of 1 is here.", "First of 2 is here."]
    assert texts(Budget(18), context) == ["First of 1 is here. Second of 1 is here.", "First of 2 is here."]
    assert texts(Budget(24), context)[0] == "First of 0 is here."
    assert texts(Budget(6), context) == ["First of 1 is here."]
    assert texts(Budget(0), context) == []
    assert Budget(54).bind(COUNTER).compress([context])[0] is context


def test_budget_shares_evenly_without_scores():
    assert texts(Budget(18), of(None, None, None, text=LONG)) == [f"First of {i} is here." for i in range(3)]
    assert texts(Budget(18), of(2.0, 2.0, 2.0, text=LONG)) == [f"First of {i} is here." for i in range(3)]


def test_what_a_short_passage_leaves_over_goes_to_others():
    passages = (Passage("a", "Tiny.", score=9.0), Passage("b", LONG.format("b"), score=1.0))
    context = context_of(Query("?"), passages)
    assert texts(Budget(14), context) == ["Tiny.", "First of b is here. Second of b is here."]


def test_budget_keeps_or_drops_soft_segments_whole():
    base = of(0.5, 0.9)
    context = Context(base.query, (base.segments[0], soft("p1", rows=2)), base.passages)
    assert Budget(5).bind(COUNTER).compress([context])[0] is context
    assert Budget(4).bind(COUNTER).compress([context])[0].segments == (context.segments[1],)
    assert texts(Budget(1), context) == ["Text"]


@pytest.mark.parametrize("tokens", [-1, 1.5])
def test_budget_refuses_nonsense(tokens):
    with pytest.raises(ConfigError, match=r"^tokens: must be"):
        Budget(tokens)
