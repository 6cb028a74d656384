"""Pairs of question and passage: labels where they belong, groups in a fixed order, batches with little padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ragzip.models import load_tokenizer
from ragzip.testing.strategies import texts
from ragzip.text import merge, sentences
from ragzip.training.examples import Example, Marked
from ragzip.training.pairs import IGNORED, by_length, make_groups, plan, stack

CLS, SEP = 1, 2


@pytest.fixture(scope="module")
def tokenizer(tiny_encoder_path):
    return load_tokenizer(tiny_encoder_path)


plain = texts(80).filter(lambda t: t.encode("utf-8", "ignore").decode() == t)


@st.composite
def marked(draw, relevant):
    text = " ".join(draw(st.lists(plain, min_size=1, max_size=6)))
    chosen = draw(st.lists(st.sampled_from(sentences(text)), max_size=3)) if relevant and sentences(text) else []
    return Marked(text, draw(plain.map(lambda t: t[:40])), tuple(merge(chosen)), relevant, draw(st.booleans()))


@st.composite
def examples(draw):
    found = []
    for number in range(draw(st.integers(1, 3))):
        positives = draw(st.lists(marked(True), max_size=2))  # none: a question that nothing helps
        negatives = draw(st.lists(marked(False), max_size=3))
        found.append(Example(str(number), "set", draw(plain), tuple(positives), tuple(negatives)))
    return found


@settings(max_examples=60)
@given(
    given_examples=examples(), negatives=st.integers(0, 3), most=st.sampled_from([40, 120, 320]), seed=st.integers(0, 3)
)
def test_labels_mark_the_tokens_of_what_helps(tokenizer, given_examples, negatives, most, seed):
    groups = make_groups(given_examples, tokenizer, negatives=negatives, max_tokens=most, seed=seed)
    asked = [(example, positive) for example in given_examples for positive in example.positives or (None,)]
    asked = [(example, positive) for example, positive in asked if positive or example.negatives]
    assert len(groups) == len(asked)
    for (example, positive), group in zip(asked, groups, strict=True):
        helps = int(positive is not None)  # a question that nothing helps has one more that does not
        assert len(group) == helps + min(negatives + 1 - helps, len(example.negatives))
        assert [pair.relevant for pair in group] == [True] * helps + [False] * (len(group) - helps)
        for place, pair in enumerate(group):
            candidates = [positive] if place == 0 and helps else example.negatives
            assert any(_is(pair, example.question, c, tokenizer, most) for c in candidates)


def _is(pair, question, marked, tokenizer, most):
    """Whether a pair is this passage, with and without its title, every label right."""
    body = tokenizer.encode(marked.text, add_special_tokens=False)
    asked = tokenizer.encode(question, add_special_tokens=False).ids[: min(96, most * 3 // 10)]
    title = tokenizer.encode(f"{marked.title}:", add_special_tokens=False).ids[: min(32, most // 10)]
    for led in (title, []):
        head = [CLS, *asked, SEP, *led]
        shown = min(len(body.ids), most - len(head) - 1)
        ends = [end for _, end in body.offsets[:shown]]
        labels = [float(any(a < end <= b for a, b in marked.support)) for end in ends]
        known = marked.known and (1.0 in labels or not marked.support)
        units = [sum(start < end for start, _ in sentences(marked.text)) - 1 for end in ends]
        same = (
            pair.ids.tolist() == [*head, *body.ids[:shown], SEP]
            and pair.second == len(asked) + 2
            and pair.labels.tolist() == [IGNORED] * len(head) + (labels if known else [IGNORED] * shown) + [IGNORED]
            and pair.sentences.tolist() == [-1] * len(head) + [max(unit, 0) for unit in units] + [-1]
        )
        if same and len(pair.ids) <= most:
            return True
    return False


def test_one_title_in_five_is_left_out(tokenizer):
    many = [Example(str(n), "set", "q", (Marked("text", "Title", (), True),)) for n in range(400)]
    groups = make_groups(many, tokenizer, negatives=0, max_tokens=64, seed=0)
    lengths = [len(group[0].ids) for group in groups]
    assert 0.12 < lengths.count(min(lengths)) / 400 < 0.28
    again = make_groups(many, tokenizer, negatives=0, max_tokens=64, seed=0)
    assert [len(group[0].ids) for group in again] == lengths
    other = make_groups(many, tokenizer, negatives=0, max_tokens=64, seed=1)
    assert [len(group[0].ids) for group in other] != lengths


def test_a_pair_never_exceeds_its_length_whatever_the_title(tokenizer):
    endless = Marked("A text. " * 90, "A title without an end. " * 90, ((0, 7),), True)
    for most in (32, 64, 320):
        ((pair,),) = make_groups(
            [Example("0", "s", "Why? " * 90, (endless,))], tokenizer, negatives=0, max_tokens=most, seed=0
        )
        assert len(pair.ids) == most
        assert (pair.labels == 1).any()


def test_where_what_helps_lies_beyond_the_cut_nothing_is_said_of_the_tokens(tokenizer):
    text = "Nothing of note is said here. " * 30 + "The answer."
    example = Example("0", "s", "Why?", (Marked(text, "", ((len(text) - 11, len(text)),), True),), (Marked(text),))
    ((helps, does_not),) = make_groups([example], tokenizer, negatives=1, max_tokens=64, seed=0)
    assert helps.relevant
    assert set(helps.labels.tolist()) == {IGNORED}
    assert set(does_not.labels.tolist()) == {IGNORED, 0.0}


@given(st.lists(st.integers(1, 60), max_size=130), st.integers(1, 7), st.integers(1, 80), st.integers(0, 5))
def test_a_plan_reads_each_group_once_before_any_comes_again(lengths, size, steps, seed):
    order = plan(lengths, size, steps, seed)
    assert order == plan(lengths, size, steps, seed)
    assert len(order) == (steps if lengths else 0)
    assert all(0 < len(batch) <= size for batch in order)
    flat = [index for batch in order for index in batch]
    for start in range(0, len(flat), max(len(lengths), 1)):
        epoch = flat[start : start + len(lengths)]
        assert len(set(epoch)) == len(epoch)
    assert plan(lengths, size, steps + 9, seed)[: len(order)] == order  # more steps begin with the same ones


def test_a_plan_puts_like_lengths_together():
    draw = np.random.default_rng(0)
    lengths = draw.integers(10, 500, size=1200).tolist()
    spread = [max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in plan(lengths, 12, 100, 0)]
    assert np.mean(spread) < 30
    assert plan(lengths, 12, 100, 0) != plan(lengths, 12, 100, 1)


@settings(max_examples=30)
@given(given_examples=examples())
def test_a_stack_holds_its_pairs_and_padding(tokenizer, given_examples):
    pairs = [p for g in make_groups(given_examples, tokenizer, negatives=2, max_tokens=120, seed=0) for p in g]
    assume(pairs)
    batch = stack(pairs, "cpu")
    width = max(len(pair.ids) for pair in pairs)
    assert {tuple(tensor.shape) for tensor in batch.values()} == {(len(pairs), width)}
    for row, pair in enumerate(pairs):
        count = len(pair.ids)
        assert batch["ids"][row, :count].tolist() == pair.ids.tolist()
        assert batch["mask"][row].tolist() == [1] * count + [0] * (width - count)
        assert batch["types"][row].tolist() == [0] * pair.second + [1] * (count - pair.second) + [0] * (width - count)
        assert batch["labels"][row, :count].tolist() == pair.labels.tolist()
        assert torch.all(batch["labels"][row, count:] == IGNORED)
    rows = by_length(pairs, 2)
    assert sorted(i for some in rows for i in some) == list(range(len(pairs)))
    sizes = [len(pairs[i].ids) for some in rows for i in some]
    assert sizes == sorted(sizes)
