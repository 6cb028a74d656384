import random
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ragzip.compressors.dedupe import Dedupe, _shingles
from ragzip.errors import ConfigError
from ragzip.types import Context, Passage, Query, SoftSegment, Span, TextSegment, context_of

FACT = "Rome was founded on the seven hills by the river Tiber in the year of the wolf."


def of(*texts, scores=None):
    scores = scores or [None] * len(texts)
    pairs = enumerate(zip(texts, scores, strict=True))
    return context_of(Query("?"), tuple(Passage(f"p{i}", text, score=score) for i, (text, score) in pairs))


def left(context, **options):
    return [int(s.sources[0].passage_id[1:]) for s in Dedupe(**options).compress([context])[0].segments]


def test_exact_duplicates_go_the_first_stays():
    assert left(of(FACT, "Other.", FACT, FACT)) == [0, 1]
    assert left(of("!", "?", "!")) == [0, 1]
    assert left(of("a  b\n", " a b")) == [0]


def under(*pairs):
    return context_of(Query("?"), tuple(Passage(f"p{i}", text, title) for i, (title, text) in enumerate(pairs)))


def test_the_same_few_words_under_two_titles_are_about_two_things():
    town = "It has 5,000 inhabitants."
    names = ("Springfield", "Shelbyville", "springfield", "")
    assert left(under(*((name, town) for name in names))) == [0, 1]
    assert left(under(("", town), ("Springfield", town))) == [0]
    assert left(under(("Springfield", f"It lies by a river. {town}"), ("Shelbyville", town))) == [0, 1]
    assert left(under(("Springfield", f"It lies by a river. {town}"), ("Springfield", town))) == [0]


def test_more_words_are_the_same_under_any_title():
    titles = ("A long title that has nothing at all to do with it", "Quite another one of as many words, or even more")
    assert left(under(*((title, FACT) for title in titles))) == [0]


def test_a_title_makes_nothing_alike():
    title = "Frequently asked questions about the return policy of Acme"
    assert left(under(*((title, f"It costs {number}.") for number in (5, 7, 9)))) == [0, 1, 2]


def test_the_better_scored_one_stays():
    assert left(of(FACT, FACT, "Other.", scores=[0.1, 0.9, 0.5])) == [1, 2]
    assert left(of(FACT, FACT, scores=[None, 0.1])) == [1]


def test_case_and_punctuation_do_not_matter():
    assert left(of(FACT, FACT.upper().replace(" ", "  ").rstrip(".") + "!")) == [0]


def test_contained_text_goes_and_containing_text_stays():
    more = f"{FACT} Then it grew for a thousand years and fell."
    assert left(of(more, FACT)) == [0]
    assert left(of(FACT, more)) == [0, 1]


def test_the_threshold_is_the_share_of_shingles():
    changed = FACT.replace("river", "stream")  # 3 of 15 shingles
    assert len(_shingles(FACT)) == 15
    assert left(of(FACT, changed)) == [0, 1]
    assert left(of(FACT, changed), threshold=0.81) == [0, 1]
    assert left(of(FACT, changed), threshold=0.8) == [0]


def test_other_scripts():
    assert left(of("罗马建立在七座山丘上", "罗马建立在七座山丘上。", "罗马很大")) == [0, 2]
    assert left(of("रोम सात पहाड़ियों पर", "रोम सात पहाड़ियों पर।")) == [0]


def test_empty_segments_are_left_alone():
    context = of("", " ", "", FACT)
    assert Dedupe().compress([context])[0] is context


def test_equal_soft_segments_go():
    soft = [SoftSegment(torch.full((2, 3), float(v)), "m", (Span("p0", 0, 1),)) for v in (1, 1, 2)]
    context = Context(Query("?"), (soft[0], soft[1], TextSegment("x"), soft[2]), (Passage("p0", "abc"),))
    assert Dedupe().compress([context])[0].segments == (soft[0], TextSegment("x"), soft[2])


@given(
    st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12).map(" ".join), max_size=8), st.integers(1, 10)
)
def test_gives_what_comparing_all_pairs_gives(texts, tenths):
    """The look-up by rare shingles is exact."""
    threshold = tenths / 10
    kept = []
    for index, text in enumerate(texts):
        mine = _shingles(text)
        shares = [len(mine & _shingles(texts[other])) / len(mine) for other in kept]
        if not any(share >= threshold - 1e-9 for share in shares):
            kept.append(index)
    assert left(of(*texts), threshold=threshold) == kept


def test_time_is_near_linear():
    words = [f"w{i}" for i in range(3000)]

    def seconds(count):
        draw = random.Random(0)
        shared = " ".join(draw.choices(words, k=60))  # boilerplate that every passage repeats
        context = of(*(" ".join(draw.choices(words, k=100)) + " " + shared for _ in range(count)))
        start = time.perf_counter()
        kept = left(context)
        taken = time.perf_counter() - start
        assert len(kept) == count
        return taken

    small = max(seconds(100), 0.05)
    assert seconds(1600) < 60 * small


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.1, float("nan")])
def test_refuses_nonsense(threshold):
    with pytest.raises(ConfigError, match=r"^threshold: must be"):
        Dedupe(threshold)


NOTICE = "The board of the company said on Monday that the merger with its smaller rival {} completed before the end"
NOTICE += " of the next quarter, once the authorities of both countries have given their consent to it in writing."


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("one", "two", "left"),
    [
        ("will be", "will not be", 2),
        ("with 300 shops will be", "with 500 shops will be", 2),
        ("will be", "shall be", 1),
        ("with 300 shops will be", "with 300 shops shall be", 1),
    ],
)
def test_texts_that_contradict_each_other_stay(one, two, left, turned):
    texts = [NOTICE.format(one), NOTICE.format(two)][:: -1 if turned else 1]
    after = Dedupe().compress([context_of(Query("?"), tuple(Passage(str(i), t) for i, t in enumerate(texts)))])[0]
    assert len(after.segments) == left


def test_marks_that_mean_something_are_part_of_words():
    texts = ["C", "C#", "C++", "5", "-5", "+5", "5%", "$5", "(C)", "'C#'", "(-5)", "5.", "“5”"]
    after = Dedupe().compress([context_of(Query("?"), tuple(Passage(str(i), t) for i, t in enumerate(texts)))])[0]
    assert [segment.text for segment in after.segments] == texts[:8]


def test_a_part_of_a_longer_text_goes_without_its_other_numbers():
    part = NOTICE.format("with 300 shops will be")
    whole = (
        part.replace(" once", " or in 2031, once") + " Its 7 founders do not agree. " + "More words follow here. " * 20
    )
    passages = (Passage("a", whole, score=2.0), Passage("b", part, score=1.0))
    assert [s.text for s in Dedupe().compress([context_of(Query("?"), passages)])[0].segments] == [whole]


def test_many_that_differ_by_a_number_take_no_long_time():
    passages = tuple(Passage(str(n), NOTICE.format(f"with {n} shops will be")) for n in range(600))
    start = time.perf_counter()
    after = Dedupe().compress([context_of(Query("?"), passages)])[0]
    assert len(after.segments) == 600
    assert time.perf_counter() - start < 5


SLOT = (
    "Take {} of the powder twice a day after meals with plenty of water, and see a doctor if the pain stays or grows "
)
SLOT += "worse within a week, or if there is fever, a rash, or any swelling of the face or of the hands."


@pytest.mark.parametrize(
    ("one", "other"), [("10 mg", "10 g"), ("–5", "5"), ("5 %", "5 €"), ("$5", "5"), ("3 million", "3 billion")]
)
def test_units_signs_and_currencies_are_no_duplicates(one, other):
    context = context_of(Query("?"), (Passage("a", SLOT.format(one)), Passage("b", SLOT.format(other))))
    (found,) = Dedupe().compress([context])
    assert len(found.segments) == 2
    same = context_of(Query("?"), (Passage("a", SLOT.format(one)), Passage("b", SLOT.format(one).upper())))
    assert len(Dedupe().compress([same])[0].segments) == 1


def test_versions_of_one_text_take_time_in_proportion():
    import time

    times = []
    for count in (300, 1200):
        passages = tuple(Passage(str(n), SLOT.format(f"{n} mg")) for n in range(count))
        context = context_of(Query("?"), passages)
        start = time.process_time()
        (found,) = Dedupe().compress([context])
        times.append(time.process_time() - start)
        assert len(found.segments) == count
    assert times[1] < 8 * max(times[0], 0.05)
