import torch
from hypothesis import given

from ragzip.testing import contexts
from ragzip.tokens import SEPARATOR, TokenCounter, lay_out, text_of
from ragzip.types import Context, Passage, Query, SoftSegment, Span, TextSegment, context_of

PASSAGES = (Passage("a", "One. Two.", "First"), Passage("b", "Three.", ""), Passage("c", "Four.", "Last"))
COUNTER = TokenCounter(lambda texts: [len(text) for text in texts])


def segment(name, start, end):
    text = next(p.text for p in PASSAGES if p.id == name)
    return TextSegment(text[start:end], (Span(name, start, end),))


def made(*segments, passages=PASSAGES):
    return Context(Query("q"), segments, passages)


def test_a_context_is_laid_out_with_titles_and_blank_lines():
    assert text_of(context_of(Query("q"), PASSAGES)) == "First\nOne. Two.\n\nThree.\n\nLast\nFour."
    assert text_of(context_of(Query("q"), PASSAGES), titles=False) == "One. Two.\n\nThree.\n\nFour."
    assert text_of(made()) == ""


def test_a_title_is_printed_once_for_neighbours_of_one_passage():
    one, two, other = segment("a", 0, 4), segment("a", 5, 9), segment("b", 0, 6)
    assert text_of(made(one, two)) == "First\nOne.\n\nTwo."
    assert text_of(made(one, other, two)) == "First\nOne.\n\nThree.\n\nFirst\nTwo."
    blank = TextSegment(" \n", (Span("b", 0, 0),))
    assert text_of(made(one, blank, two)) == text_of(made(one, two))


def test_what_was_written_from_several_passages_stands_under_none_of_their_titles():
    both = TextSegment("Told.", (Span("a", 0, 4), Span("c", 0, 5)))
    assert text_of(made(both)) == "Told."
    assert text_of(made(segment("a", 0, 4), both, segment("a", 5, 9))) == "First\nOne.\n\nTold.\n\nFirst\nTwo."
    alike = (PASSAGES[0], Passage("c", "Four.", "First"))
    assert text_of(made(both, passages=alike)) == "First\nTold."
    assert text_of(made(TextSegment("Told.", (Span("a", 0, 4), Span("gone", 0, 5))))) == "Told."


def test_segments_without_content_are_left_out():
    nothing = SoftSegment(torch.zeros(0, 4), "m")
    assert lay_out(made(nothing, TextSegment(""), segment("b", 0, 6))) == (segment("b", 0, 6),)


def test_a_segment_without_sources_or_of_an_unknown_passage_has_no_title():
    assert text_of(made(TextSegment("x"), TextSegment("y", (Span("?", 0, 1),)))) == "x\n\ny"


def test_the_first_title_counts_where_ids_repeat():
    twice = (Passage("a", "x", "First"), Passage("a", "y", "Second"))
    assert text_of(made(TextSegment("x", (Span("a", 0, 1),)), passages=twice)) == "First\nx"


def test_soft_segments_are_pieces_and_count_a_token_a_row():
    soft = SoftSegment(torch.ones(3, 4), "m", (Span("a", 0, 9),))
    context = made(soft, segment("b", 0, 6))
    assert lay_out(context) == ("First\n", soft, SEPARATOR, segment("b", 0, 6))
    assert COUNTER.context(context) == 3 + len("First\n" + SEPARATOR + "Three.")
    assert COUNTER.context(made(soft)) == 3 + len("First\n")


def test_counts():
    assert COUNTER.texts([]) == []
    assert COUNTER.texts(["ab", ""]) == [2, 0]
    assert COUNTER.context(made()) == 0
    context = context_of(Query("q"), PASSAGES)
    assert COUNTER.context(context) == len(text_of(context))
    assert TokenCounter(COUNTER.count_tokens, titles=False).context(context) == len(text_of(context, titles=False))


@given(contexts())
def test_what_is_counted_is_what_is_laid_out(context):
    pieces = lay_out(context)
    assert "".join(p if isinstance(p, str) else p.text for p in pieces) == text_of(context)
    assert [p for p in pieces if not isinstance(p, str)] == [s for s in context.segments if s.text.strip()]
    assert COUNTER.context(context) == len(text_of(context))


def test_rows_and_text_of_what_was_rewritten_are_read_on():
    """Parts of a text that no span says letter by letter name all that it was read from."""
    said = (Span("a", 0, 4), Span("a", 5, 9))
    rows = SoftSegment(torch.zeros(2, 4), "m", said)
    parts = (TextSegment("Two, then ", said), rows, TextSegment(" one.", said))
    assert lay_out(made(*parts)) == ("First\n", *parts)
    assert lay_out(made(parts[0], parts[2])) == ("First\n", parts[0], SEPARATOR, parts[2])
    other = SoftSegment(torch.zeros(2, 4), "m", said[:1])
    assert SEPARATOR in lay_out(made(parts[0], other))


def test_text_behind_rows_of_several_passages_gets_its_own_lines():
    rows = SoftSegment(torch.zeros(1, 4), "m", (Span("a", 0, 4), Span("c", 0, 2)))
    (before, lead, after) = lay_out(made(rows, segment("a", 5, 9)))
    assert (before, lead, after) == (rows, "\n\nFirst\n", segment("a", 5, 9))
    alone = SoftSegment(torch.zeros(1, 4), "m", (Span("a", 0, 4),))
    assert "\n\n" not in "".join(p for p in lay_out(made(alone, segment("a", 5, 9))) if isinstance(p, str))


def test_words_of_several_passages_stand_under_the_title_of_the_first():
    """A part of them stands under a title, too, and must not cost more than the whole."""
    words = TextSegment("One. Four.", (Span("a", 0, 4), Span("c", 0, 5)))
    assert text_of(made(words)) == "First\nOne. Four."
    assert text_of(made(segment("a", 0, 4))) == "First\nOne."
    nothing_of_b = TextSegment("One. ", (Span("a", 0, 4), Span("b", 0, 0)))
    assert text_of(made(nothing_of_b)) == "First\nOne. "
