"""Hypothesis strategies for texts, passages and contexts, over arbitrary Unicode."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ragzip.types import Context, Passage, Query, Span, TextSegment, context_of

_WORDS = st.sampled_from(
    [
        "the",
        "Rome",
        "Dr.",
        "3.5",
        "e.g.",
        "漢字",
        "かな",
        "مرحبا",
        "नमस्ते",
        "e\u0301a\u0308",
        "👩\u200d👧",
        "😀",
        "x" * 30,
        "-",
        "a",
    ]
)
_ENDS = st.sampled_from([". ", "? ", "! ", "。", "؟ ", "। ", "\n\n", "\n- ", "\r\n", ".\u00a0", " ", "\n```\n", "\n| "])


def texts(max_size: int = 120) -> st.SearchStrategy[str]:
    """Text of any kind: arbitrary characters, or sentences in several scripts with the layout that documents have."""
    sentence = st.tuples(st.lists(_WORDS, min_size=1, max_size=8).map(" ".join), _ENDS).map("".join)
    return st.one_of(
        st.lists(sentence, max_size=8).map("".join),
        st.text(max_size=max_size),
        st.sampled_from(["", " ", "a", ".", "\n\n", "\u0301", "😀", "\u200f"]),
    )


@st.composite
def passages(draw: st.DrawFn, max_size: int = 4) -> tuple[Passage, ...]:
    """Up to ``max_size`` passages, with and without titles and scores; now and then an id or a text repeats."""
    scored = draw(st.sampled_from(["all", "none", "some"]))
    found: list[Passage] = []
    for number in range(draw(st.integers(0, max_size))):
        text = draw(texts())
        if draw(_rarely()) and found:
            text = found[0].text
        score = draw(st.floats(-5, 5)) if scored == "all" or (scored == "some" and draw(st.booleans())) else None
        title = draw(st.one_of(st.just(""), st.sampled_from(["Rome", "A longer title"]), st.text(max_size=12)))
        name = "p0" if number and draw(_rarely()) else f"p{number}"
        found.append(Passage(name, text, title, score, {"source": f"{name}.txt"}))
    return tuple(found)


@st.composite
def contexts(draw: st.DrawFn, max_passages: int = 4) -> Context[TextSegment]:
    """Text contexts as retrieval and earlier compressors leave them.

    Whole passages; segments of several spans, of two passages, abstractive ones and ones without sources; a query
    that may be empty.
    """
    query = Query(draw(st.one_of(texts(40), st.sampled_from(["", "Who was in Rome?"]))))
    retrieved = draw(passages(max_passages))
    first = {passage.id: passage for passage in reversed(retrieved)}
    if len(first) == len(retrieved) and draw(st.booleans()):
        return context_of(query, retrieved)
    segments: list[TextSegment] = []
    for passage in retrieved:
        kind = draw(st.sampled_from(["whole", "spans", "mixed", "abstractive", "bare", "gone"]))
        if kind == "whole":
            text = first[passage.id].text
            segments.append(TextSegment(text, (Span(passage.id, 0, len(text)),)))
        elif kind in ("spans", "mixed"):
            spans = draw(_spans(first[passage.id]))
            if kind == "mixed":
                spans += draw(_spans(first[draw(st.sampled_from(sorted(first)))]))
            joiner = draw(st.sampled_from([" ", " ", "\n", "", " … "]))
            text = joiner.join(first[s.passage_id].text[s.start : s.end] for s in spans)
            segments.append(TextSegment(text, tuple(spans), joiner))
        elif kind == "abstractive":
            segments.append(TextSegment(draw(texts()), (Span(passage.id, 0, len(first[passage.id].text)),)))
        elif kind == "bare":
            segments.append(TextSegment(draw(texts())))
    return Context(query, tuple(segments), retrieved)


@st.composite
def _spans(draw: st.DrawFn, passage: Passage) -> list[Span]:
    """Ordered stretches of a passage that do not overlap; some may touch, or be empty."""
    length = len(passage.text)
    places = sorted(draw(st.lists(st.integers(0, length), min_size=2, max_size=6)))
    return [Span(passage.id, a, b) for a, b in zip(places[::2], places[1::2], strict=False)]


def _rarely() -> st.SearchStrategy[bool]:
    return st.integers(0, 9).map(lambda n: n == 9)


def edge_contexts() -> list[Context[Any]]:
    """The inputs that break code most often, one a context; every one must pass without an exception."""
    long = "word " * 20_000
    samples = [
        "",
        " \n\t",
        "a",
        "😀",
        "👩\u200d👧\u200d👦",
        "e\u0301\u0323",
        "\u0301",
        "שלום עולם. מה שלומך?",
        "\u202eabc",
        "\x00",
        long,
    ]
    samples += ["x" * 100_000, "字" * 5_000, "\n" * 5_000, "one. " * 2_000]
    made = [context_of(Query("Who?"), (Passage("p", text, "Title"),)) for text in samples]
    two = (Passage("same", "One fact. Another fact."), Passage("same", "A third."))
    return [
        context_of(Query("Who?"), ()),
        context_of(Query(""), (Passage("p", "One fact. Another fact."),)),
        context_of(Query(" \n"), (Passage("p", "One fact. Another fact."),)),
        context_of(Query("x" * 100_000), (Passage("p", "One fact. Another fact."),)),
        context_of(Query("Who?"), two),
        Context(Query("Who?"), (TextSegment("No source. At all."),), ()),
        Context(Query("Who?"), (TextSegment("Unknown. Passage.", (Span("nowhere", 0, 9),)),), ()),
        Context(Query("Who?"), (TextSegment("Out. Of range.", (Span("p", 50, 90),)),), (Passage("p", "short"),)),
        *made,
    ]
