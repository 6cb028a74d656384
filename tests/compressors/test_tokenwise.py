"""The base of methods that score words: limits, force-keep, spans; with scores that are known beforehand."""

import itertools
import threading
import zlib
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.compressors._layout import Layout
from ragzip.compressors._tokenwise import TokenScorer, Words
from ragzip.compressors._words import Choice, touching
from ragzip.errors import ConfigError
from ragzip.testing import contexts
from ragzip.text import words
from ragzip.tokens import TokenCounter
from ragzip.types import Context, Passage, Query, Span, TextSegment, context_of
from tests.matrix import bpe_counter

SPACED = TokenCounter(lambda texts: [len(text.split()) for text in texts])
SEEN = []


def worth(word):
    """0 to 1, of no meaning."""
    return zlib.crc32(word.encode("utf-8", "replace")) / 2**32


@dataclass(frozen=True)
class Known(TokenScorer):
    """Scores a word by its characters alone."""

    def score(self, query, groups):
        SEEN.append((query, groups))
        return [[worth(group.text[a:b]) for a, b in group.spans] for group in groups]


@dataclass(frozen=True)
class Fixed(TokenScorer):
    """The word of the highest number is the best."""

    def score(self, query, groups):
        return [[float("".join(c for c in g.text[a:b] if c.isdigit()) or 0) for a, b in g.spans] for g in groups]


@dataclass(frozen=True)
class Halves(Fixed):
    """Decides on phrases between commas."""

    def units(self, text):
        places = [0, *(i + 1 for i, c in enumerate(text) if c == ","), len(text)]
        return [(a, b) for a, b in itertools.pairwise(places) if text[a:b].strip()]


def of(*texts, title=""):
    return context_of(Query("q"), tuple(Passage(str(i), text, title) for i, text in enumerate(texts)))


def text_of(context):
    return [segment.text for segment in context.segments]


def run(scorer, context, counter=SPACED):
    return scorer.bind(counter).compress([context])[0]


LONG = " ".join(
    f"{'word' if i % 3 else 'longerword'}{zlib.crc32(bytes([i % 251, i // 251])) % 9973}" for i in range(900)
)


@given(contexts(), st.floats(0.0, 1.0))
def test_a_threshold_keeps_exactly_the_words_that_reach_it(context, threshold):
    after = run(Known(threshold=threshold), context, TokenCounter(lambda texts: list(map(len, texts))))
    if after is context or any(segment.joiner.strip() for segment in context.segments):
        return  # what joins the spans of an earlier step belongs to no passage
    want = sum(
        (b - a) for s in context.segments for a, b in words(s.text) if worth(s.text[a:b]) >= threshold
    )  # characters that are not white space
    assert sum(len("".join(s.text.split())) for s in after.segments) == want


@given(st.lists(st.integers(0, 99), min_size=1, max_size=60), st.floats(0.05, 0.95))
def test_keep_takes_the_best_words_of_the_whole_context(numbers, keep):
    half = len(numbers) // 2
    context = of(*(" ".join(map(str, part)) for part in (numbers[:half], numbers[half:])))
    kept = [int(word) for text in text_of(run(Fixed(keep=keep), context)) for word in text.split()]
    assert sorted(kept) == sorted(numbers)[-max(int(keep * len(numbers)), 1) :]


@given(contexts(), st.floats(0.05, 0.95))
def test_no_more_than_the_share_is_kept(context, keep):
    counter = bpe_counter()
    after = run(Known(keep=keep), context, counter)
    few = sum(len(words(segment.text)) for segment in after.segments) <= 1
    assert few or counter.context(after) <= int(keep * counter.context(context)) or after is context


@pytest.mark.parametrize("budget", [5, 50, 333, 1000])
def test_a_budget_is_used(budget):
    counter = bpe_counter()
    found = counter.context(run(Known(budget=budget), of(LONG, LONG[::-1], title="it"), counter))
    assert 0.96 * budget - 4 <= found <= budget


def test_passages_of_no_worth_are_dropped_with_their_titles():
    assert text_of(run(Fixed(budget=4), of("1 2 3", "7 8 9", title="T"))) == ["7 8 9"]


def test_limits_hold_together():
    context = of("1 2 3 4 5 6 7 8 9 10")
    assert text_of(run(Fixed(threshold=4, keep=0.5, budget=3), context)) == ["8 9 10"]
    assert text_of(run(Fixed(threshold=4, keep=0.2, budget=9), context)) == ["9 10"]
    assert text_of(run(Fixed(threshold=10, keep=0.9, budget=9), context)) == ["10"]
    assert text_of(run(Fixed(threshold=11), context)) == []
    assert text_of(run(Fixed(budget=0), context)) == []


def test_half_is_kept_where_nothing_is_said_and_the_best_word_always():
    assert text_of(run(Fixed(), of("1 2 3 4"))) == ["3 4"]
    assert text_of(run(Fixed(keep=0.01), of("1 2 3 4"))) == ["4"]
    assert text_of(run(Fixed(keep=0.01, budget=1), of("1 2 3 4"))) == ["4"]


def test_a_word_that_is_too_long_makes_room_for_others():
    counter = TokenCounter(lambda texts: list(map(len, texts)))
    assert text_of(run(Fixed(budget=7), of(f"{'9' * 40} 81 82 83"), counter)) in (["81 82"], ["82 83"])
    assert text_of(run(Fixed(budget=5), of("999999999"), counter)) == ["99999"]  # rather than nothing


def test_neighbours_keep_their_white_space_and_others_get_the_joiner():
    context = of("9  8\n7 1 6")
    (segment,) = run(Fixed(keep=0.8), context).segments
    assert (segment.text, segment.sources) == ("9  8\n7 6", (Span("0", 0, 6), Span("0", 9, 10)))
    joined = TextSegment("9\t1\t8", tuple(Span("0", a, a + 1) for a in (0, 2, 4)), "\t")
    (segment,) = run(Fixed(threshold=2), Context(Query(""), (joined,), (Passage("0", "9 1 8"),))).segments
    assert (segment.text, segment.joiner) == ("9\t8", "\t")


def test_scripts_without_spaces_get_none():
    text = "罗马1有9。座8。山 7 word 2的6。 5"
    (segment,) = run(Fixed(threshold=5), of(text)).segments
    assert segment.joiner == ""
    assert segment.text == "".join(text[s.start : s.end] for s in segment.sources) == "9。8。 7 6。 5"


def test_no_number_is_made_of_two():
    text = "罗马1有9座8山 7 word 2的6。 5"
    (segment,) = run(Fixed(threshold=5), of(text)).segments
    assert segment.text == " ".join(text[s.start : s.end] for s in segment.sources) == "9 8 7 6。 5"


@given(contexts(), st.data())
def test_any_choice_of_words_is_exact(context, data):
    layout = Layout(context, cut=words)
    kept = data.draw(st.sets(st.integers(0, max(len(layout.units) - 1, 0)))) if layout.units else set()
    known = {p.id: p.text for p in reversed(context.passages)}

    def says(segment):
        return segment.joiner.join(known.get(x.passage_id, "")[x.start : x.end] for x in segment.sources)

    written = {segment.sources for segment in context.segments if says(segment) != segment.text}
    joined = any(len(segment.sources) > 1 and segment.joiner.strip() for segment in context.segments)
    after = layout.build(kept)
    for segment in after.segments:
        assert segment.sources in written or segment.text == says(segment)
    want = "".join(layout.text(unit) for unit in sorted(kept))
    # What joins the spans of an earlier step ("…") belongs to no passage: it can go with a word that is dropped.
    assert joined or "".join("".join(s.text for s in after.segments).split()) == "".join(want.split())


def test_force_keep_is_stronger_than_all_but_a_budget():
    context = of("It did not open in 2 or 3, 8 said 9.")
    assert text_of(run(Fixed(threshold=9, force_keep=("negations",)), context)) == ["not 9."]
    assert text_of(run(Fixed(keep=0.1, force_keep=("numbers",)), context)) == ["2 3, 8 9."]
    assert text_of(run(Fixed(keep=0.1, force_pattern="(?i)it|open"), context)) == ["It open"]
    assert text_of(run(Fixed(budget=2, force_pattern="It|open"), context)) == ["It open"]
    assert text_of(run(Fixed(budget=1, force_pattern="It|open"), context)) in (["It"], ["open"])
    assert text_of(run(Fixed(keep=0.1, budget=2, force_pattern="It|op|in"), context)) == ["It open"]
    titled = of("Rome. About Rome 9 8 7 6", title="rome")
    assert text_of(run(Fixed(threshold=9, force_keep=("titles",)), titled)) == ["Rome. Rome 9"]


def test_forced_words_that_fit_a_budget_all_stay():
    counter = bpe_counter()
    context = of(LONG)
    least = counter.context(run(Known(threshold=2.0, force_pattern="longer"), context, counter))
    after = run(Known(budget=least, force_pattern="longer"), context, counter)
    assert text_of(after)[0].count("longer") == LONG.count("longer")


def test_nothing_is_dropped_where_that_costs_tokens():
    counter = TokenCounter(lambda texts: [len(text.replace("9字9", "x")) for text in texts])
    context = of("9字9")
    for limits in ({"threshold": 5}, {"threshold": 5, "budget": 7}, {"keep": 0.1, "force_keep": ("numbers",)}):
        assert run(Fixed(**limits), context, counter) is context


def test_phrases_instead_of_words():
    context = of("a 9 b, c 1 d,e 5,f")
    assert text_of(run(Halves(threshold=5), context)) == ["a 9 b, e 5,"]


def test_scores_are_asked_once_with_titles_and_whole_texts():
    SEEN.clear()
    run(Known(keep=0.5), of("a b", "", "c", title="T"))
    ((query, groups),) = SEEN
    assert query == Query("q")
    assert groups == [
        Words("a b", ((0, 1), (2, 3)), Passage("0", "a b", "T")),
        Words("c", ((0, 1),), Passage("2", "c", "T")),
    ]
    assert groups[0].title == "T" and Words("", ()).title == ""


def test_nothing_is_asked_where_nothing_is_to_decide():
    SEEN.clear()
    for scorer in (Known(keep=1.0), Known(budget=99), Known(budget=0), Known()):
        run(scorer, of("" if scorer == Known() else "a b c"))
    assert SEEN == []


@pytest.mark.parametrize("scores", [[[1.0]], [[1.0, 2.0], [1.0]], [[1.0, float("nan")]], [[1.0, float("inf")]]])
def test_scores_must_fit_the_words(scores):
    @dataclass(frozen=True)
    class Wrong(TokenScorer):
        def score(self, query, groups):
            return scores

    with pytest.raises(ValueError, match=r"Wrong\.score gave"):
        run(Wrong(keep=0.5), of("a b"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("keep", 0), ("keep", 1.1), ("threshold", float("nan")), ("budget", -1), ("budget", 1.5)),
        *(("force_keep", ("verbs",)), ("force_pattern", "("), ("force_pattern", "")),
    ],
)
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(ConfigError) as caught:
        Known(**{option: value})
    assert caught.value.path == option


def test_few_counts_are_needed():
    counts = []

    class Counting(TokenCounter):
        def context(self, context):
            counts.append(context)
            return super().context(context)

    run(Known(keep=0.5), of(*[LONG] * 10), Counting(bpe_counter().count_tokens))
    assert len(counts) <= 8


def test_the_whole_is_counted_while_the_model_reads():
    counted, named = threading.Event(), ContextVar("named", default="")
    seen = []

    class Telling(TokenCounter):
        def context(self, context):
            seen.append(named.get())
            counted.set()
            return super().context(context)

    @dataclass(frozen=True)
    class Waiting(TokenScorer):
        def score(self, query, groups):
            assert counted.wait(20), "nothing was counted until the scores were there"
            return [[float(start) for start, _ in group.spans] for group in groups]

    named.set("of the caller")
    assert run(Waiting(keep=0.5), of(LONG), Telling(bpe_counter().count_tokens)).segments
    assert seen[0] == "of the caller"


@pytest.mark.parametrize("options", [{"keep": 0.5}, {"budget": 5}])
def test_a_counter_that_fails_is_heard(options):
    def broken(texts):
        raise OSError("no tokenizer")

    with pytest.raises(OSError, match="no tokenizer"):
        run(Known(**options), of(LONG), TokenCounter(broken))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(0, 60), st.data())
def test_the_greedy_choice_is_that_of_a_plain_loop(costs, room, data):
    segments = data.draw(st.lists(st.integers(0, 2), min_size=len(costs), max_size=len(costs)).map(sorted))
    texts = [" ".join(str(c) for c, s in zip(costs, segments, strict=True) if s == part) for part in range(3)]
    context = of(*texts, title="5")
    counter = TokenCounter(lambda given: [sum(map(int, text.split())) for text in given])
    layout = Layout(context, cut=words)
    groups = [Words(texts[i], tuple(layout.places(i)), layout.passage(i)) for i in range(3) if texts[i]]
    order = np.asarray(data.draw(st.permutations(range(len(costs)))))
    chosen, spent = Choice(layout, groups, counter)._greedy(order, room)
    left, want, opened = room, [], set()
    for unit in order:
        cost = costs[unit] + (0 if segments[unit] in opened else 5)
        if cost <= left:
            left -= cost
            want.append(unit)
            opened.add(segments[unit])
    assert (list(chosen), spent) == (want, room - left)


@given(st.text(st.sampled_from("ab \u5b57"), max_size=30), st.data())
def test_tokens_touch_the_words_they_share_characters_with(text, data):
    spans = words(text)
    edges = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12)))
    offsets = np.asarray([*itertools.pairwise(edges), (0, 0)], dtype=np.int64).reshape(-1, 2)
    want = [(t, w) for t, (a, b) in enumerate(offsets) for w, (c, d) in enumerate(spans) if max(a, c) < min(b, d)]
    assert list(zip(*(array.tolist() for array in touching(offsets, spans)), strict=True)) == want
