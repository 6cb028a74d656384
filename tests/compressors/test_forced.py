"""What must be kept is found, and kept by every compressor that has the options."""

from __future__ import annotations

import dataclasses
import itertools
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip import config
from ragzip.compressors._forced import FORCES, forced, forced_units, only_forced, touching
from ragzip.compressors._layout import Layout
from ragzip.compressors.bm25_sentences import BM25Sentences
from ragzip.compressors.random_sentences import RandomSentences
from ragzip.errors import ConfigError, RagzipError
from ragzip.protocols import Stack
from ragzip.testing.contracts import count_words
from ragzip.testing.strategies import contexts
from ragzip.text import merge
from ragzip.tokens import TokenCounter
from ragzip.types import Passage, Query, Status, context_of
from tests.matrix import COMPRESSORS, SOFT, bpe_counter

WORDS = TokenCounter(count_words)
kinds = st.lists(st.sampled_from(FORCES), unique=True).map(tuple)
patterns = st.sampled_from([None, "e", r"\d", "(?i)rome", "^", "x*", r"\p{Han}"])


def found(text: str, title: str = "", *names: str, pattern: str | None = None) -> list[str]:
    return [text[start:end] for start, end in forced(text, title, names, pattern)]


@given(st.text(max_size=80), st.text(max_size=10), kinds, patterns)
def test_forced_stretches_are_ordered_and_inside(text, title, names, pattern):
    stretches = forced(text, title, names, pattern)
    assert stretches == merge(stretches)
    assert all(0 <= start < end <= len(text) for start, end in stretches)
    if not names and pattern is None:
        assert stretches == []


@given(st.text(alphabet="0123456789²½٣ .,%$€-ab\n", max_size=60))
def test_every_digit_is_a_number(text):
    covered = {place for start, end in forced(text, "", ("numbers",), None) for place in range(start, end)}
    assert all(place in covered for place, letter in enumerate(text) if letter.isdigit() or letter == "½")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It cost $3,000.50 (12 %), or -5°.", ["$3,000.50", "12 %", "-5°"]),
        ("In 1999-2001, COVID-19, 1/2 at 10:30.", ["1999-2001", "-19", "1/2", "10:30"]),
        ("No figure here.", []),
    ],
)
def test_numbers_have_their_signs(text, expected):
    assert found(text, "", "numbers") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It fell to $3.5 billion in 2020.", ["$3.5 billion", "2020"]),
        ("Der Umsatz: 5 Mio. Euro, 80 Prozent", ["5 Mio. Euro", "80 Prozent"]),
        ("营收3.5亿元，2021年3月5日", ["3.5亿元", "2021年3月5日"]),
        ("Take 20 mg/ml at 30 °C, 3 m away.", ["20 mg/ml", "30 °C", "3 m"]),
        ("5 men, 6 members, 7 gates, 8 Frames", ["5", "6", "7", "8"]),
        ("The total was 900 million. Then", ["900 million"]),
        ("EUR 500, USD 20.5 million, Rs. 300, US$5", ["EUR 500", "USD 20.5 million", "Rs. 300", "US$5"]),
        (
            "30 s, 12 months, 24 Stunden, 5 miles in 6 minutes",
            ["30 s", "12 months", "24 Stunden", "5 miles", "6 minutes"],
        ),
        ("6.022 × 10^23 at 300 K, 1e-7 m, 10⁻⁵, 5 km²", ["6.022 × 10^23", "300 K", "1e-7 m", "10⁻⁵", "5 km²"]),
        ("£3k for v1.25.3-rc2, 3 × 5 cm", ["£3k", "v1.25.3-rc2", "3 ×", "5 cm"]),
        ("3 sons, 4 hens, 5 tons, 6 months", ["3", "4", "5 tons", "6 months"]),
        ("Thus 7, THUS 8, EUR x, in the US 5", ["7", "8", "5"]),
    ],
)
def test_numbers_have_their_scale_and_unit(text, expected):
    assert found(text, "", "numbers") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It does not open; don't, can’t, nobody.", ["not", "don't", "can’t", "nobody"]),
        ("dont restart it", ["dont"]),
        ("Notable knots denote nothing.", ["nothing"]),
        ("Er kommt nicht ohne kein Geld.", ["nicht", "ohne", "kein"]),
        ("Il n'a jamais rien dit.", ["n'a", "jamais", "rien"]),
        ("No vino nunca, ni sin ella.", ["No", "nunca", "ni", "sin"]),
        ("Na\u0303o veio.", ["Na\u0303o"]),
        ("Он не пришёл.", ["не"]),
        ("ليس هنا", ["ليس"]),
        ("ولم يفتح فلن يفتح، وليس ولد", ["ولم", "فلن", "وليس"]),
        ("ולא נפתח, שאין, ושלא, מלא כלא", ["ולא", "שאין", "ושלא"]),
        ("وفنه والهبلي הבלי ولد", []),
        ("δεν ξέρω, δε θέλω", ["δεν", "δε"]),
        ("我不知道,非常好。", ["不"]),
        ("これはペンではない。", ["ない"]),
        ("यह नहीं है।", ["नहीं"]),
        ("ไม่มี", ["ไม่"]),
        ("Do _not_ open. It is __never__ safe, *not* so.", ["not", "never", "not"]),
        ("is_not_null, no_compression", []),
    ],
)
def test_negations_of_many_languages(text, expected):
    assert found(text, "", "negations") == expected


def test_titles_are_headings_and_where_the_passage_is_named():
    text = "# One\nRomeo went to  new\nrome today.\nTwo\n===\n#hash New Romeo"
    assert found(text, "New Rome", "titles") == ["# One", "new\nrome", "Two"]
    assert found("a.*b axxb", "a.*b", "titles") == ["a.*b"]
    assert found("_New Rome_ is no New Romeo, nor Anew Rome.", "New Rome", "titles") == ["New Rome"]
    assert found("Schindler’s List was long.", "Schindler's List", "titles") == ["Schindler’s List"]
    for form, other in itertools.permutations(("NFC", "NFD")):
        named = unicodedata.normalize(form, "Café Zoë")
        assert found(f"At {named} again", unicodedata.normalize(other, named), "titles") == [named]


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ("(?=dog)", "The dog slept."),
        ("(?<=slept)", "The dog slept."),
        (r"(?=.*dog)(?=.*slept)", "The fox ran. The dog slept."),
        (r"(?<=slept\.)", "It was wet."),
        (r"(?<=wet\.)", "It was wet."),
        (r"\bdog", "The dog slept."),
        (r"(?:wet)?", "It was wet."),
    ],
)
def test_what_matches_a_place_keeps_what_stands_there(pattern, kept):
    method = RandomSentences(threshold=1.0, force_pattern=pattern)
    (after,) = method.compress([context_of(Query("?"), (Passage("p", "The fox ran. The dog slept. It was wet.\n"),))])
    assert [segment.text for segment in after.segments] == [kept]


@pytest.mark.parametrize(
    ("marked", "title"),
    [
        ("中国<长城>是古代工程。我们参观了<长城>。", "长城"),
        ("<東京都>は日本の首都である。", "東京都"),
        ("ตอนนี้<กรุงเทพ>เป็นเมืองหลวง", "กรุงเทพ"),
        ("<서울>은 한국의 수도이다. <서울> 시. 새서울", "서울"),
        ("<東京X>は", "東京X"),
        ("プロシアと<ロシア>は国だ。", "ロシア"),
        ("<アン>はアンケートを書いた。", "アン"),
        ("アメリカ・<ロシア>は国だ。<ロシア>・アメリカ。", "ロシア"),
        ("<NASA>は宇宙へ。<NASA>는 간다. NASAL", "NASA"),
    ],
)
def test_titles_are_found_where_words_have_no_spaces(marked, title):
    pieces = re.split("[<>]", marked)  # every second one is named
    ends = list(itertools.accumulate(map(len, pieces)))
    named = [(end - len(piece), end) for piece, end in zip(pieces[1::2], ends[1::2], strict=True)]
    assert forced("".join(pieces), title, ("titles",), None) == named


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 5))),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 5))),
)
def test_touching_is_sharing_a_character(first, second):
    units = [(a, b) for a, b in itertools.pairwise(sorted({edge for s, n in first for edge in (s, s + n)}))]
    stretches = merge((s, s + n) for s, n in second)
    naive = [any(a < d and c < b for c, d in stretches) for a, b in units]
    assert touching(units, stretches) == naive


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"force_keep": ("words",)}, "force_keep: must be among titles, numbers, negations"),
        ({"force_keep": "numbers"}, "force_keep: must be a list"),
        ({"force_pattern": "("}, "force_pattern: is no regular expression"),
        ({"force_pattern": ""}, "force_pattern: must be a regular expression"),
        ({"force_pattern": 3}, "force_pattern: must be a regular expression"),
        ({"force_pattern": "a" * 1001}, "force_pattern: has 1001 characters"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError) as caught:
        RandomSentences(**options)
    assert message in str(caught.value)


def test_a_pattern_that_never_ends_is_stopped_and_the_stack_falls_open(monkeypatch):
    monkeypatch.setattr("ragzip.compressors._forced._SECONDS", 0.05)
    context = context_of(Query("q"), (Passage("p", "a" * 5000 + "b. One. Two."),))
    made = RandomSentences(keep=0.3, force_pattern="(a|aa|aaa)+$|(a+)+$")
    with pytest.raises(RagzipError, match="took more than"):
        made.bind(WORDS).compress([context])
    (step,) = Stack((made,)).run([context], counter=WORDS)[0].steps
    assert step.status is Status.ERROR
    assert "force_pattern" in step.detail


def test_options_stand_in_a_config():
    made = RandomSentences(force_keep=("numbers", "titles"), force_pattern=r"\d")
    assert config.from_config("compressor", config.to_config(made)) == made
    with pytest.raises(ConfigError, match="numbers"):
        config.from_config("compressor", {"type": "random_sentences", "force_keep": ["number"]})


def kept_places(layout, after):
    """The units of a layout whose characters are all in the sources of a context."""
    places = {(s.passage_id, at) for segment in after.segments for s in segment.sources for at in range(s.start, s.end)}
    return {
        unit
        for unit, place in enumerate(layout.units)
        if all(
            (layout.context.segments[place.segment].sources[0].passage_id, at) in places
            for at in range(place.start, place.end)
        )
    }


plain = st.lists(
    st.lists(
        st.sampled_from(["It was not so.", "He had 12 of them.", "Rome is old.", "Ships pass at night.", "Why?"]),
        min_size=1,
        max_size=5,
    ),
    min_size=1,
    max_size=3,
).map(
    lambda found: context_of(Query("Who?"), tuple(Passage(f"p{i}", " ".join(s), "Rome") for i, s in enumerate(found)))
)
scorers = st.sampled_from([RandomSentences(), BM25Sentences()])


@settings(max_examples=80)
@given(plain, scorers, kinds, patterns, st.sampled_from([None, 0.01, 0.3]), st.sampled_from([None, 0.5, 2.0]))
def test_forced_sentences_stay_whatever_threshold_and_keep_say(context, scorer, names, pattern, keep, threshold):
    made = dataclasses.replace(scorer, keep=keep, threshold=threshold, force_keep=names, force_pattern=pattern)
    for counter in (WORDS, bpe_counter()):
        after = made.bind(counter).compress([context])[0]
        layout = Layout(context)
        assert forced_units(layout, names, pattern) <= kept_places(layout, after)


@settings(max_examples=80)
@given(plain, scorers, kinds, patterns, st.integers(0, 60), st.sampled_from([None, 0.3]))
def test_only_a_budget_is_stronger(context, scorer, names, pattern, budget, keep):
    made = dataclasses.replace(scorer, keep=keep, budget=budget, force_keep=names, force_pattern=pattern)
    for counter in (WORDS, bpe_counter()):
        after = made.bind(counter).compress([context])[0]
        assert counter.context(after) <= budget
        layout = Layout(context)
        must = forced_units(layout, names, pattern)
        if counter.context(layout.build(must)) <= budget:
            assert must <= kept_places(layout, after)
        elif after.segments and keep is None:
            whole = kept_places(layout, after)
            assert not whole or whole & must or all(counter.context(layout.build((unit,))) > budget for unit in must), (
                "a sentence took the room of one that must be kept"
            )


@settings(max_examples=40)
@given(contexts(), kinds)
def test_only_forced_keeps_nothing_else(context, names):
    after = only_forced(context, names, None)
    assert any(s.text.strip() for s in after.segments) == bool(forced_units(Layout(context), names, None))


def test_a_stronger_share_is_not_spent_on_others():
    """What must be kept counts against keep: others come in only where there is room."""
    context = context_of(Query("x"), (Passage("p", "One 1. Two two. Three three. Four four. Five five. Six six."),))
    after = RandomSentences(keep=0.17, force_pattern="1").bind(WORDS).compress([context])[0]
    assert [segment.text for segment in after.segments] == ["One 1."]


METHODS = sorted(
    set(COMPRESSORS) - {"identity", "truncate", "top_k", "dedupe", "reorder", "budget", "stack", "structured", *SOFT}
)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_the_options_and_the_same_checks(name):
    made = COMPRESSORS[name][0]()
    options = {field.name for field in config.options(type(made))}
    assert {"force_keep", "force_pattern"} <= options
    assert (made.force_keep, made.force_pattern) == ((), None)
    with pytest.raises(ConfigError, match="force_keep"):
        dataclasses.replace(made, force_keep=("words",))
    with pytest.raises(ConfigError, match="force_pattern"):
        dataclasses.replace(made, force_pattern="(")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_what_it_must(name):
    """A number and a negation in the middle of prose come out of every method's default settings."""
    text = "Ships pass at night. The keeper was not alone then. He had 4711 lamps of rape oil. Ropes were long. " * 2
    context = context_of(Query("Which ropes?"), (Passage("p", text + "Tar smells. " * 30, "Harbour"),))
    made = dataclasses.replace(COMPRESSORS[name][0](), force_keep=("numbers", "negations"), force_pattern="rape")
    after = made.bind(WORDS).compress([context])[0]
    read = " ".join(segment.text for segment in after.segments)
    assert "4711" in read
    assert "not" in read.split()
    assert "rape" in read


def test_one_that_must_be_kept_stays_where_it_fits_to_the_last_token():
    context = context_of(Query("Who?"), (Passage("p0", "It was not so. Rome is old. Why?", "Rome"),))
    counter = bpe_counter()
    layout = Layout(context)
    budget = counter.context(layout.build((1,)))
    assert counter.context(layout.build((0,))) > budget > counter.context(layout.build((2,)))
    made = RandomSentences(budget=budget, force_keep=("titles", "numbers", "negations"))
    assert [s.text for s in made.bind(counter).compress([context])[0].segments] == ["Rome is old."]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("그는 의사가 아닙니다.", "아닙"),
        ("사실이 아니라 소문", "아니"),
        ("오지 못했다", "못"),
        ("그러면 안됩니다", "안"),
        ("别去博物馆。", "别"),
        ("Es gab keinerlei Problem.", "keinerlei"),
        ("It isnt open.", "isnt"),
        ("He didn´t come.", "didn´t"),
    ],
)
def test_more_ways_to_say_no(text, word):
    assert [text[a:b] for a, b in forced(text, "", ("negations",), None)] == [word]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "特别好。",
            "区别和分别。",
            "别的人。",
            "안녕하세요",
            "그는 의사입니다.",
            "別の町",
            "別荘",
            "別々に",
            "登別温泉",
        ),
        *("别克", "别林斯基", "送别", "久别重逢", "国别", "组别", "天壤之别", "피아니스트", "안토시아닌", "구아닌"),
        *("이탈리아니까", "잘못된"),
    ],
)
def test_words_that_only_look_like_no(text):
    assert not forced(text, "", ("negations",), None)
