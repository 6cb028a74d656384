"""Structures stay whole and valid, whatever compresses the prose between them."""

from __future__ import annotations

import csv
import itertools
import json
import re
import time
import timeit
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip.compressors._json_text import is_json, json_literal
from ragzip.compressors._records import records
from ragzip.compressors._structures import json_prose, structures
from ragzip.compressors.bm25_sentences import BM25Sentences
from ragzip.compressors.budget import Budget
from ragzip.compressors.dedupe import Dedupe
from ragzip.compressors.random_sentences import RandomSentences
from ragzip.compressors.reorder import Reorder
from ragzip.compressors.structured import Structured
from ragzip.compressors.truncate import Truncate
from ragzip.errors import ConfigError
from ragzip.protocols import Compressor, Stack
from ragzip.testing import CompressorContract
from ragzip.testing.contracts import count_words
from ragzip.tokens import TokenCounter
from ragzip.types import Context, Passage, Query, SoftSegment, Span, TextSegment, context_of
from tests.compressors.test_structures import CODE, PROSE, blocks_of
from tests.matrix import bpe_counter

WORDS = TokenCounter(count_words)

names = st.sampled_from(["lamp", "keeper", "oil", "42", "ship's", "Öl"])
prose = st.lists(st.sampled_from(PROSE.split(". ")), min_size=1, max_size=3).map(lambda s: ". ".join(s) + ".")
values = st.recursive(
    names | prose | st.integers(-9, 9) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(names, values, min_size=1, max_size=3)


@st.composite
def tables(draw: st.DrawFn) -> str:
    width = draw(st.integers(2, 4))
    row = st.lists(names, min_size=width, max_size=width)
    rows = draw(st.lists(row, min_size=2, max_size=4))
    if draw(st.booleans()):
        rows.insert(1, ["---"] * width)
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join("\t".join(row) for row in rows)


fences = st.sampled_from(["```", "~~~~"]).flatmap(
    lambda mark: st.lists(names | st.just("") | st.just("x = {1"), max_size=3).map(
        lambda lines: "\n".join([mark + "py", *lines, mark])
    )
)
lists = st.tuples(st.sampled_from(["- ", "* ", "  - "]), st.lists(names, min_size=2, max_size=4)).map(
    lambda drawn: "\n".join(drawn[0] + item for item in drawn[1])
)
jsons = st.tuples(objects, st.sampled_from([None, 2]), st.booleans()).map(
    lambda drawn: json.dumps(drawn[0], indent=drawn[1], ensure_ascii=drawn[2])
)
blocks = tables() | fences | lists | jsons
texts = st.lists(blocks | prose, min_size=1, max_size=5).map("\n\n".join) | jsons
contexts = st.lists(st.tuples(texts, st.sampled_from(["", "Lamps"])), min_size=1, max_size=3).map(
    lambda found: context_of(
        Query("Who kept the lamp?"), tuple(Passage(f"p{i}", text, title) for i, (text, title) in enumerate(found))
    )
)
inners = st.sampled_from(
    [
        RandomSentences(keep=0.4),
        BM25Sentences(threshold=0.2),
        Truncate(keep=0.3),
        Budget(7),
        Stack((Dedupe(), RandomSentences(keep=0.5), Reorder("score"))),
    ]
)


def compress(context: Context[TextSegment], inner: Compressor, budget: int | None = None) -> Context[TextSegment]:
    return Structured(inner, budget).bind(WORDS).compress([context])[0]


def originals(context: Context[TextSegment]) -> list[str]:
    """The structures of a context, and its JSON segments."""
    return [b for s in context.segments for b in ([s.text] if is_json(s.text) else blocks_of(s.text))]


def shape(value: object) -> object:
    """A JSON value without what its strings say."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return "" if isinstance(value, str) else value


@settings(max_examples=80)
@given(contexts, inners)
def test_every_structure_comes_out_whole_and_in_order(context, inner):
    after = compress(context, inner if not isinstance(inner, Budget) else RandomSentences(keep=0.2))
    text = "\n".join(segment.text for segment in after.segments)
    position = 0
    for block in originals(context):
        if is_json(block):
            continue
        position = text.find(block, position)
        assert position >= 0, block
        position += len(block)
    wanted = [shape(json.loads(b)) for b in originals(context) if is_json(b)]
    got = [shape(json.loads(b)) for b in originals(after) if is_json(b)]
    assert got == wanted


def by_rows(block, whole):
    """Whether a block is some rows of a table with its header, or some items of a list, in order."""
    found = records(whole)
    if found is None:
        return False
    head = [line for a, b in found.head for line in whole[a:b].split("\n")]
    lines = block.split("\n")
    rest, place = "\n".join(lines[len(head) :]), 0
    for start, end in found.rows:
        row = whole[start:end]
        if rest.startswith(row, place):
            place += len(row)
            place += len(rest[place:]) - len(rest[place:].lstrip("\n"))
    return lines[: len(head)] == head and place == len(rest)


@settings(max_examples=80)
@given(contexts, inners, st.integers(0, 60))
def test_under_a_budget_structures_are_dropped_but_never_broken(context, inner, budget):
    for counter in (WORDS, bpe_counter()):
        after = Structured(inner, budget).bind(counter).compress([context])[0]
        assert counter.context(after) <= budget
        before = originals(context)
        shapes = [shape(json.loads(b)) for b in before if is_json(b)]
        whole = "\n\n".join(s.text for s in context.segments)
        for block in originals(after):
            if is_json(block):
                assert shape(json.loads(block)) in shapes
            else:
                assert any(block in b or by_rows(block, b) for b in before) or block in whole
        for segment in after.segments:  # what is left of a fence or a table is all of it
            if not is_json(segment.text):
                inside = "\n".join(blocks_of(segment.text))
                assert segment.text.count("```") == inside.count("```")
                assert segment.text.count("\t") == inside.count("\t")
                assert segment.text.count("\n|") <= inside.count("\n|") + inside.count("| ")


@settings(max_examples=60)
@given(contexts, inners)
def test_spans_say_what_the_text_is_and_nothing_grows(context, inner):
    after = compress(context, inner)
    assert WORDS.context(after) <= WORDS.context(context)
    known = {passage.id: passage.text for passage in context.passages}
    for segment in after.segments:
        says = segment.joiner.join(known[s.passage_id][s.start : s.end] for s in segment.sources)
        assert says == segment.text or is_json(segment.text)


@settings(max_examples=60)
@given(contexts, inners)
def test_what_keeps_all_prose_changes_nothing(context, inner):
    assert compress(context, RandomSentences(keep=1.0)) == context


@settings(max_examples=60)
@given(st.lists(prose, min_size=1, max_size=3), inners)
def test_prose_alone_is_left_to_the_inner_compressor(texts, inner):
    context = context_of(Query("lamp"), tuple(Passage(str(i), text) for i, text in enumerate(texts)))
    assert Structured(inner).bind(WORDS).compress([context]) == inner.bind(WORDS).compress([context])


@settings(max_examples=120)
@given(st.text(max_size=60) | texts)
def test_structures_are_ordered_stretches_of_the_text(text):
    found = structures(text)
    assert all(0 <= start < end <= len(text) for start, end in found)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(found))


@given(prose | st.text(max_size=200), st.booleans())
def test_a_value_keeps_its_escapes(value, ascii_only):
    literal = json.dumps(value, ensure_ascii=ascii_only)
    assert json.loads(json_literal(value, literal)) == value
    assert len(json_literal(value, literal)) <= len(literal)


def test_values_lose_sentences_and_keys_do_not():
    long_key = "A key that looks like prose. It has two sentences, and is longer than any other key."
    text = json.dumps(
        {long_key: PROSE, "n": [1, 2.50, "short. text."], "é": f"{PROSE} \u00e9 \ud800"}, ensure_ascii=True
    )
    text = text.replace("2.5", "2.50")
    context = context_of(Query("Who lived alone?"), (Passage("p", text),))
    (segment,) = compress(context, BM25Sentences(keep=0.3)).segments
    after = json.loads(segment.text)
    assert list(after) == [long_key, "n", "é"]
    assert after["n"] == [1, 2.5, "short. text."]
    assert "The keeper lived alone for years." in after[long_key]
    assert "Ships" not in after[long_key]
    assert "2.50" in segment.text
    assert segment.sources == context.segments[0].sources


def test_neighbours_are_put_together_as_they_stood():
    text = "Ships passed.\nThe lamp:\n- a\n- b\nstays"
    after = compress(context_of(Query("lamp"), (Passage("p", text),)), BM25Sentences(threshold=0.01))
    assert [segment.text for segment in after.segments] == ["The lamp:\n- a\n- b\nstays"]


def test_the_structure_that_is_wanted_stays_when_not_all_can():
    useful = "| lamp | oil |\n|---|---|\n| keeper | lamp |"
    other = "| ship | tar |\n|---|---|\n| night | rope |"
    context = context_of(Query("lamp keeper"), (Passage("a", other), Passage("b", useful), Passage("c", PROSE)))
    after = compress(context, BM25Sentences(), WORDS.context(context_of(Query(""), (Passage("b", useful),))) + 3)
    assert useful in [segment.text for segment in after.segments]
    assert all("ship | tar" not in segment.text for segment in after.segments)


def test_a_budget_of_the_inner_compressor_is_that_of_the_context():
    context = context_of(Query("lamp"), (Passage("a", f"- x\n- y\n\n{PROSE}"),))
    after = compress(context, BM25Sentences(budget=12))
    assert WORDS.context(after) <= 12
    assert after.segments[0].text.startswith("- x\n- y")


def test_code_at_the_left_edge_is_not_cut():
    code = CODE["python"]
    context = context_of(Query("shape"), (Passage("p", code), Passage("q", f"{PROSE}\n\n{code}\n\n{PROSE}")))
    after = compress(context, BM25Sentences(keep=0.5))
    assert [segment.text.count(code) for segment in after.segments].count(1) == 2


@settings(max_examples=60)
@given(st.lists(st.sampled_from(sorted(CODE)) | prose, min_size=1, max_size=4))
def test_code_among_prose_comes_out_whole(drawn):
    text = "\n\n".join(CODE.get(name, name) for name in drawn)
    after = compress(context_of(Query("lamp"), (Passage("p", text),)), RandomSentences(keep=0.2))
    left = "\n".join(segment.text for segment in after.segments)
    assert all(CODE[name] in left for name in drawn if name in CODE)


@settings(max_examples=60)
@given(st.text(" \t\n\r", max_size=80), st.integers(0, 200), inners)
def test_keys_never_change(space, spaces, inner):
    key = "A key that is prose. It has sentences, and is longer than any other key. So it is."
    text = json.dumps({key: {key: PROSE}}).replace('":', f'"{" " * spaces}{space}:')
    assert [value for _, value in json_prose(text)] == [PROSE]
    (segment,) = compress(context_of(Query("lamp"), (Passage("p", text),)), inner).segments or [TextSegment(text)]
    assert list(json.loads(segment.text)) == [key]
    assert list(json.loads(segment.text)[key]) == [key]


@pytest.mark.parametrize(
    "text", ["[" * 50_000, '{"a":' * 20_000, '["a",' * 20_000, '{"a": "' * 10_000, '{"a" ' * 10_000, "\n|" * 50_000]
)
def test_what_never_closes_takes_linear_time(text):
    structures(text)
    compress(context_of(Query("q"), (Passage("p", text),)), Truncate(tokens=5), 5)


@pytest.mark.parametrize("inner", [Truncate(tokens=50), RandomSentences(keep=0.5)])
def test_many_structures_take_linear_time(inner):
    def seconds(count):
        block = "Some prose stands here. It has two sentences.\n\n```python\nx = 1\nprint(x)\n```"
        context = context_of(Query("q"), (Passage("p", "\n\n".join([block] * count)),))
        method = Structured(inner).bind(WORDS)
        return min(timeit.repeat(lambda: method.compress([context]), timer=time.process_time, number=1, repeat=3))

    assert seconds(2400) < 14 * seconds(300) + 0.2  # quadratic would be 64 times


def test_a_soft_inner_compressor_is_refused():
    @dataclass(frozen=True)
    class Soft(Compressor[TextSegment, SoftSegment]):
        def compress(self, contexts):
            import torch

            made = SoftSegment(torch.zeros(1, 4), "model")
            return [Context(c.query, (made,), c.passages) for c in contexts]

    with pytest.raises(ConfigError, match="inner: gives soft segments"):
        compress(context_of(Query("q"), (Passage("p", f"- a\n- b\n\n{PROSE}"),)), Soft())


@pytest.mark.parametrize("made", [lambda: Structured("sentence_filter"), lambda: Structured(budget=-1)])
def test_wrong_options_are_refused(made):
    with pytest.raises(ConfigError):
        made()


class TestOnStructures(CompressorContract):
    """The laws on contexts that have structures; JSON that lost sentences is no longer what its spans say."""

    examples: ClassVar[int] = 15
    extractive: ClassVar[bool] = False

    def make(self):
        return Structured(RandomSentences(keep=0.4))

    def contexts(self):
        return contexts


def rows_of(text: str) -> Sequence[Sequence[str]]:
    return list(csv.reader(text.splitlines(), delimiter="\t"))


@given(tables(), inners)
def test_tables_keep_their_columns(table, inner):
    context = context_of(Query("ship"), (Passage("p", f"{PROSE}\n\n{table}\n\n{PROSE}"),))
    after = compress(context, inner if not isinstance(inner, Budget) else Truncate(keep=0.3))
    found = [b for segment in after.segments for b in blocks_of(segment.text)]
    assert table in found
    assert len({len(row) for row in rows_of(table)}) == 1 or re.match(r"\|", table)


@settings(max_examples=60)
@given(contexts, inners, st.none() | st.integers(0, 40))
def test_segments_of_several_spans_keep_the_laws(context, inner, budget):
    """What another compressor left is read like any other text."""
    (before,) = RandomSentences(keep=0.7, seed=1).bind(WORDS).compress([context])
    after = compress(before, inner, budget)
    assert WORDS.context(after) <= (WORDS.context(before) if budget is None else budget)
    known = {passage.id: passage.text for passage in context.passages}
    for segment in after.segments:
        says = segment.joiner.join(known[s.passage_id][s.start : s.end] for s in segment.sources)
        assert says == segment.text or is_json(segment.text)


def test_prose_of_several_passages_is_given_under_none_of_their_titles():
    @dataclass(frozen=True)
    class Seen(Compressor[TextSegment, TextSegment]):
        """Remembers the titles of what it is given."""

        titles: list[str] = field(default_factory=list)

        def compress(self, contexts):
            """Leaves all as it is."""
            self.titles.extend(passage.title for context in contexts for passage in context.passages)
            return list(contexts)

    one, two = Passage("a", "One is here.", "Title A"), Passage("b", "Two is there.", "Title B")
    text = "Told of both. Nothing else.\n\n```\ncode()\n```"
    both = TextSegment(text, (Span("a", 0, 12), Span("b", 0, 13)))
    inner = Seen()
    Structured(inner).bind(WORDS).compress([Context(Query("?"), (both,), (one, two))])
    assert set(inner.titles) == {""}


def test_a_byte_order_mark_is_no_prose():
    data = json.dumps([{"name": f"host{n}", "port": 8000 + n} for n in range(30)])
    after = Structured(budget=60).compress([context_of(Query("port of host7"), (Passage("p", "\ufeff" + data),))])[0]
    assert not after.segments
