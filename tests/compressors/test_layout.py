"""Cutting a context into units and putting any choice of them together again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.compressors._layout import Layout
from ragzip.testing import contexts, texts
from ragzip.text import words
from ragzip.types import Context, Passage, Query, SoftSegment, Span, TextSegment, context_of


def one(text):
    return context_of(Query("?"), (Passage("p", text),))


@given(contexts(), st.data())
def test_any_choice_is_exact(context, data):
    layout = Layout(context)
    kept = data.draw(st.sets(st.integers(0, max(len(layout.units) - 1, 0)))) if layout.units else set()
    ends = {}
    if kept and data.draw(st.booleans()):
        unit = data.draw(st.sampled_from(sorted(kept)))
        ends[unit] = data.draw(st.integers(layout.units[unit].start + 1, layout.units[unit].end))
    after = layout.build(kept, ends)
    assert after.passages is context.passages
    known = {p.id: p.text for p in reversed(context.passages)}
    before = {(s.sources, s.joiner.join(known.get(x.passage_id, "")[x.start : x.end] for x in s.sources) == s.text)
              for s in context.segments}  # fmt: skip
    for segment in after.segments:
        says = segment.joiner.join(known.get(s.passage_id, "")[s.start : s.end] for s in segment.sources)
        assert segment.text == says or (segment.sources, False) in before
    if len(kept) == len(layout.units) and not ends:
        assert after is context
    shorter = len("".join("".join(s.text.split()) for s in after.segments))
    assert shorter <= len("".join("".join(s.text.split()) for s in context.segments))


@given(contexts())
def test_units_are_in_order_and_cover_the_text(context):
    layout = Layout(context)
    for index, units in enumerate(layout.of_segment):
        text = context.segments[index].text
        stretches = [(layout.units[u].start, layout.units[u].end) for u in units]
        assert "".join("".join(text[a:b].split()) for a, b in stretches) == "".join(text.split())
        assert stretches == sorted(stretches)


def test_long_sentences_are_cut_at_lines_words_or_letters():
    lines = Layout(one("\n".join("row with some words" * 5 for _ in range(60))))
    assert all(lines.text(u).endswith("words") for u in range(len(lines.units)))
    for text in ("word " * 2000, "x" * 5000, "字" * 5000, "e\u0301" * 3000, "a" + "\u0301" * 5000):
        layout = Layout(one(text))
        pieces = [layout.text(u) for u in range(len(layout.units))]
        assert max(map(len, pieces)) <= 1000
        assert "".join(pieces) == "".join(text.split()) or " " in text
    assert not any(Layout(one("e\u0301" * 3000)).text(u).startswith("\u0301") for u in range(5))


def test_a_sentence_across_spans_is_one_unit():
    passage = Passage("p", "The cat, which was black, sat.")
    segment = TextSegment("The cat sat. ", (Span("p", 0, 7), Span("p", 26, 30), Span("p", 30, 30)))
    context = Context(Query("?"), (segment, TextSegment("More here.")), (passage,))
    layout = Layout(context)
    assert [layout.text(u) for u in range(2)] == ["The cat sat.", "More here."]
    assert layout.build([0]).segments == (segment,)


def test_joiners_that_cost_tokens_give_way_to_a_space():
    passage = Passage("p", "One. Two. Three. Four.")
    segment = TextSegment("One. Two. … Four.", (Span("p", 0, 9), Span("p", 17, 22)), " … ")
    layout = Layout(Context(Query("?"), (segment,), (passage,)))
    left = layout.build([0, len(layout.units) - 1]).segments[0]
    assert left.joiner == " "
    assert left.text == " ".join(passage.text[s.start : s.end] for s in left.sources)
    assert "Two" not in left.text


@pytest.mark.parametrize(
    ("text", "dropped", "expected"),
    [
        ("罗马是首都。茶来自中国。面包来自面粉。", {"是", "自"}, "罗马首都。面包来面粉。"),
        # or two words or numbers would be one
        ("我用它 Ada\n\n茶来自中国。\n\nGo 也好。", {"用"}, "我 它 Ada Go 也好。"),
        ("他用了 5.\n\n茶来自中国。\n\n3 个人来了。", {"用"}, "他 了 5. 3 个人来了。"),
    ],
)
def test_words_without_spaces_are_joined_by_nothing_after_sentences_were_dropped(text, dropped, expected):
    first = Layout(one(text)).build([0, 2])
    assert len(first.segments[0].sources) == 2
    layout = Layout(first, cut=words)
    left = layout.build([u for u in range(len(layout.units)) if layout.text(u) not in dropped]).segments[0]
    assert left.text == expected
    assert left.text == left.joiner.join(text[s.start : s.end] for s in left.sources)


def test_soft_segments_are_units_of_their_own():
    import torch

    soft, empty = SoftSegment(torch.ones(3, 4), "m"), SoftSegment(torch.ones(0, 4), "m")
    layout = Layout(Context(Query("?"), (soft, TextSegment("One. Two."), empty), ()))
    assert [len(units) for units in layout.of_segment] == [1, 2, 0]
    assert layout.size(0) == 12
    assert layout.length == 12 + 8
    assert layout.build([0, 2]).segments == (soft, TextSegment("Two."))


def test_dropped_words_make_no_new_number():
    layout = Layout(one("他用5.用3个。"), cut=words)
    left = layout.build([u for u in range(len(layout.units)) if layout.text(u) != "用"]).segments[0]
    assert "5.3" not in left.text


@pytest.mark.parametrize("marks", ['""', "“”", "„“", "«»"])
def test_a_long_quotation_is_cut_between_its_sentences(marks):
    told = [f"We went to river number {number} in the morning." for number in range(40)]
    text = f"She told the court: {marks[0]}{' '.join(told)}{marks[1]} The judge thanked her."
    layout = Layout(context_of(Query("?"), (Passage("p", text),)))
    units = [layout.text(unit) for unit in range(len(layout.units))]
    assert len(units) >= 40
    assert "".join("".join(units).split()) == "".join(text.split())
    assert all(unit in units for unit in told[1:-1])
    assert layout.build(range(len(units))) is layout.context
    short = f"She said: {marks[0]}It is so. We saw it.{marks[1]} Then she left."
    assert len(Layout(context_of(Query("?"), (Passage("p", short),))).units) < 4  # as it is cut everywhere


@given(texts(400), st.integers(3, 9))
def test_what_is_quoted_loses_no_character(text, times):
    quoted = f'"{text} ' * times + '" "end.' + "x" * 1000
    layout = Layout(context_of(Query("?"), (Passage("p", quoted),)))
    assert "".join("".join(layout.text(u) for u in range(len(layout.units))).split()) == "".join(quoted.split())


@pytest.mark.parametrize(
    ("text", "kept", "left"),
    [
        ("# Shopping\n- milk\n- eggs\n- bread\n- nails", {0, 2, 4}, "# Shopping\n- eggs\n- nails"),
        ("| Name | Port |\n| --- | --- |\n| a | 1 |\n| b | 2 |", {0, 3}, "| Name | Port |\n| b | 2 |"),
        ("One is first. Two is next.\n\nThree follows. Four ends.", {0, 2}, "One is first.\nThree follows."),
        ("One is first. Two is next. Three follows.", {0, 2}, "One is first. Three follows."),
        (
            "One is first. Two is next. Three follows.\n\nFour.\n\nFive.",
            {0, 2, 4},
            "One is first. Three follows.\nFive.",
        ),
    ],
)
def test_lines_stay_lines(text, kept, left):
    (segment,) = Layout(one(text)).build(kept).segments
    assert segment.text == left
    assert segment.text == segment.joiner.join(text[s.start : s.end] for s in segment.sources)


def test_every_gap_keeps_its_line_end():
    text = "One is first. Two is next. Three is last.\n\nFour.\n\nFive is it."
    once = Layout(one(text)).build({0, 1, 2, 4})
    assert once.segments[0].text == "One is first. Two is next. Three is last.\nFive is it."
    twice = Layout(once).build({0, 2, 3}).segments[0]
    straight = Layout(one(text)).build({0, 2, 4}).segments[0]
    assert twice.text == straight.text == "One is first. Three is last.\nFive is it."
    again = Layout(once).build({0, 1, 2}).segments[0]
    assert again.text == "One is first. Two is next. Three is last."
