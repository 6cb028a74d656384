"""Questions made from passages: what is asked, what is to be found, and what is kept apart."""

from __future__ import annotations

import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ragzip.indexes.text import searched_text
from ragzip.text import sentences
from ragzip.training.self_supervised import document_of, hold_out_passages, make_items, write_items
from ragzip.types import Generation, Passage

WORDS = st.lists(
    st.sampled_from(["river", "fox", "sea", "old", "harbour", "count", "ß", "日本"]), min_size=1, max_size=8
)
SENTENCE = WORDS.map(lambda words: " ".join(words).capitalize() + ".")
TEXT = st.lists(SENTENCE, max_size=5).map(" ".join) | st.text(max_size=40)
TITLE = st.sampled_from(["", "Alba", "Borgo > Harbour", "..."])


@st.composite
def corpora(draw):
    found = []
    for document in range(draw(st.integers(0, 7))):
        for number in range(draw(st.integers(1, 4))):
            source = {"source": f"d{document}.md"}
            found.append(Passage(f"d{document}.md#{number}", draw(TEXT), draw(TITLE), metadata=source))
    return found


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


@given(corpora(), st.integers(0, 3))
def test_items(passages, seed):
    by_id = {passage.id: place for place, passage in enumerate(passages)}
    items = make_items(passages, ("cloze", "body", "next"), seed)
    assert items == make_items(passages, ("cloze", "body", "next"), seed)
    assert len({(item.task, item.passage, item.question, item.positive) for item in items}) <= len(items)
    for item in items:
        place = by_id[item.passage]
        passage = passages[place]
        whole = searched_text(passage)
        assert item.document == document_of(passage)
        assert item.question.strip()
        assert item.positive.strip()
        if item.task == "next":
            assert item.positive == whole
            beside = [passages[i] for i in (place - 1, place + 1) if 0 <= i < len(passages)]
            source = [p for p in beside if item.question in p.text and document_of(p) == item.document]
            assert source
            assert item.question not in passage.text
            continue
        if item.task == "body" and item.question == passage.title:
            assert item.positive == passage.text
            continue
        spans = [passage.text[a:b] for a, b in sentences(passage.text)]
        assert item.question in spans
        assert len(re.findall(r"\w+", item.question)) >= 4
        left = squeezed(item.positive)
        if item.task == "body":
            assert item.question == spans[0]
        if squeezed(whole) != left:  # taken out once, and nothing else
            assert len(left) == len(squeezed(whole)) - len(squeezed(item.question))
            assert item.positive.startswith(passage.title)


@given(corpora(), st.integers(0, 30), st.integers(0, 3))
def test_what_is_held_out(passages, count, seed):
    held, kept = hold_out_passages(passages, count, seed)
    assert sorted(p.id for p in (*held, *kept)) == sorted(p.id for p in passages)
    assert len(held) <= min(count, len(passages) // 5)
    order = {passage.id: place for place, passage in enumerate(passages)}
    for some in (held, kept):
        assert [order[p.id] for p in some] == sorted(order[p.id] for p in some)
    sizes = Counter(map(document_of, passages))
    if len(sizes) >= 5 and min(sizes.values()) > min(count, len(passages) // 5) > 0:
        assert held  # books: a part of one
    elif len(sizes) >= 5:
        assert not {document_of(p) for p in held} & {document_of(p) for p in kept}
    assert (held, kept) == hold_out_passages(passages, count, seed)


def test_a_link_leads_from_what_it_names_to_the_passage_it_stands_in():
    def passage(name, text):
        return Passage(name, text, metadata={"source": name.partition("#")[0]})

    passages = [
        passage("docs/a.md#0", "Alba is a town. It was founded by [old monks](b.md#life) by the sea."),
        passage("docs/a.md#1", "Nothing leads on from here at all. See [the page](a.md)."),
        passage("docs/b.md#0", "Monks lived in silence here. Their harbour was very old."),
        passage("docs/b.md#1", "Later they left the harbour. See [gone](c.md) and [Alba](a.md)."),
    ]
    items = make_items(passages, ("link",), 3)
    assert items == make_items(passages, ("link",), 3)
    assert [(item.passage, item.document, item.asker) for item in items] == [
        ("docs/a.md#0", "docs/a.md", "docs/b.md"),
        ("docs/b.md#1", "docs/b.md", "docs/a.md"),
    ]
    assert items[0].question in passages[2].text
    assert items[1].question in passages[0].text
    assert [item.positive for item in items] == [searched_text(passages[0]), searched_text(passages[3])]


def test_most_sentences_are_taken_out_but_not_all():
    passages = [Passage(f"p{i}", f"Number {i} is a town by the sea. It has an old harbour.", "T") for i in range(400)]
    items = make_items(passages, ("cloze",), 0)
    assert len(items) == 400
    left_in = sum(item.question in item.positive for item in items)
    assert 20 <= left_in <= 65


def test_passages_that_say_nothing_give_nothing():
    passages = [
        Passage("a", ""),
        Passage("b", "One."),
        Passage("c", "Four words are here."),
        Passage("d", "- . !", ".."),
    ]
    assert make_items(passages, ("cloze", "body", "next"), 0) == []


class Told:
    """A generator that says what it was given to say."""

    def __init__(self, *texts: str) -> None:
        self.texts, self.asked = list(texts), []

    def generate(self, prompts, *, on_text=None):
        self.asked += prompts
        return [Generation(self.texts.pop(0), 9, 9, 0.0, 0.0, True) for _ in prompts]


def test_written_questions():
    passages = [Passage(f"p{i}", f"Text {i}.", "T") for i in range(4)]
    told = Told('"What is told here?"\nMore.', "", "Why?", "  Who wrote all of this? ")
    done = []
    items = write_items(passages, told, on_progress=lambda *n: done.append(n))
    assert [(i.question, i.positive, i.passage) for i in items] == [
        ("What is told here?", "T\nText 0.", "p0"),
        ("Who wrote all of this?", "T\nText 3.", "p3"),
    ]
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    (message,) = told.asked[0]
    assert str(message).endswith("T\nText 0.")
