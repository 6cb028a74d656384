import doctest
import itertools
import re
import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ragzip import text as module
from ragzip.text import complement, cut_before, intersect, merge, sentences, words

ANY = st.one_of(
    st.text(max_size=300),
    st.text(st.sampled_from("aA .!?。؟।\"'()“”\n\r\t 漢😀\u0301\u200d\u2028\u00a0-*#|`~1"), max_size=300),
    st.text(st.characters(), max_size=40).map(lambda s: s + "\ud800 b. \udfff"),
)
STRETCHES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda p: (min(p), max(p))), max_size=12)


def pieces(text):
    return [text[start:end] for start, end in sentences(text)]


@given(ANY)
@settings(max_examples=400, deadline=None)
@example("x J.\u2028A. b")  # a panic in sentencex
@example("a\x85b.\x1c c")
@example("```\na\n```\n```")
@example("- ")
def test_sentences_are_ordered_bare_and_cover_everything(text):
    found = sentences(text)
    covered = [False] * len(text)
    before = 0
    for start, end in found:
        assert before <= start < end <= len(text)
        assert text[start:end] == text[start:end].strip()
        covered[start:end] = [True] * (end - start)
        before = end
    assert all(inside or character.isspace() for inside, character in zip(covered, text, strict=True))


@given(ANY)
@settings(deadline=None)
def test_words_cover_everything_that_is_no_space(text):
    found = words(text)
    assert "".join(text[a:b] for a, b in found) == "".join(c for c in text if not c.isspace())
    assert found == merge(found) or any(found[i][1] == found[i + 1][0] for i in range(len(found) - 1))


@given(st.text(st.sampled_from("ab. \n漢。é😀"), max_size=60), st.integers(60, 80))
@settings(deadline=None)
def test_long_texts_are_cut_as_short_ones(text, times):
    """Windows do not show: sentences of a repeated paragraph are those of the paragraph."""
    block = text.strip()
    if not block:
        return
    joined = ("\n\n" + block) * times
    once = pieces(block)
    assert pieces(joined) == once * times


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. Smith paid $3.50. Why?", ["Dr. Smith paid $3.50.", "Why?"]),
        ("今天天气很好。我们去公园吧！你好吗？", ["今天天气很好。", "我们去公园吧！", "你好吗？"]),
        ("هل تعلم؟ نعم أعلم. حسنا", ["هل تعلم؟", "نعم أعلم.", "حسنا"]),
        ("यह एक वाक्य है। यह दूसरा है। तीसरा", ["यह एक वाक्य है।", "यह दूसरा है।", "तीसरा"]),
        ("Это дом. Где он?", ["Это дом.", "Где он?"]),
        ("See http://a.org/x.html now. Then v1.2.3 came.", ["See http://a.org/x.html now.", "Then v1.2.3 came."]),
        ("one\ntwo three.\nFour", ["one\ntwo three.", "Four"]),
        ("no end\n\nnext", ["no end", "next"]),
        ("no end\r\n\r\nnext\r\rlast", ["no end", "next", "last"]),
        (
            "Buy:\n- milk. Fresh\n- bread\n  and butter\n* tea",
            ["Buy:", "- milk.", "Fresh", "- bread\n  and butter", "* tea"],
        ),
        ("1. First.\n2. Second. Third.\n(a) Fourth", ["1. First.", "2. Second.", "Third.", "(a) Fourth"]),
        ("# Title\nText here.", ["# Title", "Text here."]),
        ("Title\n=====\nText here.", ["Title\n=====", "Text here."]),
        ("One. Two\nwraps. Three\n---\nFour.", ["One.", "Two\nwraps.", "Three\n---", "Four."]),
        ("| a | b |\n| c. D | d |\ntext", ["| a | b |", "| c. D | d |", "text"]),
        (
            "Do:\n```py\nx = 1. \ny = 2\n\nz. z\n```\nDone. So.",
            ["Do:", "```py\nx = 1. \ny = 2", "z. z\n```", "Done.", "So."],
        ),
        (
            "tail\n```\nProse. More.\n```py\nx. y\n```\nEnd. Fin",
            ["tail\n```", "Prose.", "More.", "```py\nx. y\n```", "End.", "Fin"],
        ),
        ("```\nnever closed. Yes.", ["```", "never closed.", "Yes."]),
        ("", []),
        (" \n\t ", []),
        ("a", ["a"]),
        ("😀", ["😀"]),
        ("\u0301", ["\u0301"]),
    ],
)
def test_sentences_by_example(text, expected):
    assert pieces(text) == expected


def test_code_in_fences_is_cut_at_line_ends_when_long():
    code = "\n".join(f"value_{i} = call({i}). x" for i in range(200))
    found = pieces(f"```\n{code}\n```")
    assert len(found) > 3
    assert max(map(len, found)) <= 1100
    assert "\n".join(found) == f"```\n{code}\n```"


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "word ",
        "This is a sentence. ",
        "今天天气很好。",
        "“a. ",
        "(",
        '"a. b" ',
        "\n",
        "a\n",
        "- a\n",
        "```\n",
        "```py\n",
        "# a\n",
        "| ",
        "=",
        "A. ",
        " \n",
        "~~~`\n",
        "\u2028",
        "😀. ",
    ],
)
def test_time_is_linear(unit):
    """Sixteen times the text takes at most sixty times as long, give or take a second."""

    def seconds(length):
        text = unit * (length // len(unit))
        start = time.perf_counter()
        sentences(text)
        words(text)
        return time.perf_counter() - start

    small = max(min(seconds(50_000) for _ in range(2)), 0.02)
    large = seconds(800_000)
    assert large < 60 * small
    assert small < 1.0


def test_a_panic_falls_back_to_a_plain_split(monkeypatch):
    class PanicException(BaseException):
        pass

    def panics(language, text):
        raise PanicException("end byte index 37 is not a char boundary")

    monkeypatch.setattr(module.sentencex, "segment", panics)
    assert pieces("One. Two? 三。四") == ["One.", "Two?", "三。", "四"]


def test_lost_characters_fall_back_too(monkeypatch):
    monkeypatch.setattr(module.sentencex, "segment", lambda language, text: ["One."])
    assert pieces("One. Two") == ["One.", "Two"]


def test_an_interrupt_is_not_swallowed(monkeypatch):
    def interrupted(language, text):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.sentencex, "segment", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sentences("One. Two")


@given(ANY, st.integers(-3, 310))
def test_cut_before_is_a_place_in_the_text_at_or_before(text, at):
    place = cut_before(text, at)
    assert 0 <= place <= max(0, min(at, len(text)))


def test_cut_before_keeps_clusters():
    assert cut_before("ae\u0301b", 2) == 1
    assert cut_before("a👩\u200d👧b", 3) == 1
    assert cut_before("a👍🏽b", 2) == 1
    assert cut_before("abc", 2) == 2
    assert cut_before("e" + "\u0301" * 100, 60) == 60  # a cluster without end is cut all the same


@given(STRETCHES)
def test_merge(stretches):
    merged = merge(stretches)
    assert members(merged) == members(stretches)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(merged))
    assert merge(merged) == merged


@given(STRETCHES, STRETCHES)
def test_intersect(first, second):
    assert members(intersect(first, second)) == members(first) & members(second)
    assert intersect(first, second) == merge(intersect(second, first))


@given(STRETCHES, st.integers(0, 45))
def test_complement(stretches, length):
    left = complement(stretches, length)
    assert members(left) == set(range(length)) - members(stretches)
    assert merge(left) == left


def members(stretches):
    return {place for start, end in stretches for place in range(start, end)}


def test_words_by_example():
    assert [m.group() for m in re.finditer(r"\S+", "a b")] == ["a", "b"]
    text = "Hello, 世界! नमस्ते दुनिया"
    assert [text[a:b] for a, b in words(text)] == ["Hello,", "世", "界", "!", "नमस्ते", "दुनिया"]


@given(st.text("がプグ漢字abé \n、", max_size=40), st.sampled_from(["NFC", "NFD"]))
def test_words_are_the_same_however_their_marks_are_written(text, form):
    whole, parted = unicodedata.normalize("NFC", text), unicodedata.normalize(form, text)
    composed = [unicodedata.normalize("NFC", parted[start:end]) for start, end in words(parted)]
    assert composed == [whole[start:end] for start, end in words(whole)]


def test_a_variant_stays_with_its_ideograph():
    text = "葛\U000e0100城市\ufe00"
    assert [text[start:end] for start, end in words(text)] == ["葛\U000e0100", "城", "市\ufe00"]


def test_the_examples_in_the_docstrings_are_true():
    assert doctest.testmod(module).attempted >= 4
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("**Mind the gap.** It is wide.", ["**Mind the gap.**", "It is wide."]),
        ("*Really?* Yes.", ["*Really?*", "Yes."]),
        ("See there. **Bold** begins.", ["See there.", "**Bold** begins."]),
    ],
)
def test_marks_that_close_emphasis_stay_with_it(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in sentences(text)] == expected


@pytest.mark.parametrize(
    "said",
    [
        ["Use System.Collections.Generic here.", "See Node.JS now."],
        ["file.TXT and README.MD exist.", "Good."],
        ["Then df.Head() is called.", "It gives five rows."],
        ["Version 2.0.Beta is out.", "Try it."],
        ["А. С. Пушкин родился в 1799 г. в Москве.", "Он умер в 1837 г."],
        ["Σ. Α. Παπαδόπουλος ήρθε.", "Έφυγε."],
        ["Он ушёл.", "Она осталась."],
        ["Он ушёл.", "она осталась."],
    ],
)
def test_names_of_code_and_files_and_initials_are_not_cut(said):
    text = " ".join(said)
    assert [text[start:end].strip() for start, end in sentences(text)] == said


def test_sentences_with_no_space_between_are_still_two():
    text = "This is the end.Next comes more. And so on."
    assert len(sentences(text)) == 3
    assert len(sentences("我去了学校.他来了.好的.")) == len(sentences("我去了学校. 他来了. 好的."))


@pytest.mark.parametrize(
    "said",
    [
        ["Die Firma wurde am 3. Oktober 1990 gegründet.", "Prof. Dr. Müller leitet sie seit dem 1. Januar 2001."],
        ["Im 19. Jahrhundert begann es.", "Der 2. Weltkrieg endete am 8. Mai 1945.", "Es folgte vieles."],
        ["Der Umsatz betrug ca. 5 Mio. Euro.", "Ludwig XIV. war König.", "Vgl. Nr. 5 bzw. Abs. 3."],
        ["Er kam am 4. April 1990.", "He finished in place 3.", "April was cold."],
        ["Sales were approx. $3.5 bn. in 1999.", "See Art. 5 para. 2 of the Act.", "We need it by Fri. 7 Mar."],
        ["He got 12.", "The team won.", "It is the last of them.", "iPhone sales rose.", "eBay won."],
        ["She was 15.", "Julia married him.", "The score was 12.", "Maine won.", "It took 45.", "Mail it now."],
        ["It fell by 12.", "Stock prices rose.", "He was 42.", "Augustus ruled.", "World War II.", "Augusta is far."],
        ["They lost 3 to 12.", "Division rivals won.", "He won in 12.", "Tag him.", "Er ist 15.", "Julia ist 12."],
        [
            "I know it.",
            "it is fine.",
            "Meet Bob.",
            "he is nice.",
            "It was 12.",
            "then he left.",
            "Point II.",
            "the rest.",
        ],
        ["It is hepatitis-B.", "The doctor said so.", "Ford built the Model-T.", "It sold well."],
        ["They meet on Fri.", "20 people came.", "They meet on Fri. 7 March."],
        ["안 돼.", "그만해라.", "집에 가.", "빨리 가자."],
        ["நீ வா.", "அவன் போனான்."],
        ["i did it.", "then i slept."],  # who writes without capitals still ends sentences
        ["EE. UU. ganó.", "Ellos perdieron."],
        ["J.-C. Martin est là.", "Il va bien."],
        ["Он живёт на ул. Арбат, д. 5.", "Она далеко."],
        ["د. أحمد جاء.", "ذهب الولد."],
        ["डॉ. शर्मा आए।", "वे गए।"],
        ["ในปี พ.ศ. 2325 เป็นปี.", "ต่อมา."],
        ["<p>First sentence.</p>", "<p>Second sentence.</p><br/>", "Third."],
        ["Die Miete ist bis zum 15. des Monats zu zahlen.", "Der Vermieter haftet nicht."],
        ["Please contact our desk.", "Tel. : +44 20 7946 0958.", "Ask for Jane."],
        [
            "It answers on port 8080.[^1]",
            "Never expose it.[2][3]",
            "It is old.[note 2]",
            "It is so.{{sfn|Li 2001}}",
            "Yes.",
        ],
        ["As said in Stais.[4]:12–14", "The instrument is old.", "[A link](b.md) is here."],
        ["He left early.", "[He] was tired.", "[The] court held so.", "Great!", ":D Next one."],
        ["See Eq. 2 and Tab. 4.", "Art. 5 Abs. 1 lit. a DSGVO gilt.", "The lamp was lit.", "He sat down."],
    ],
)
def test_full_stops_that_end_no_sentence(said):
    text = " ".join(said)
    assert [text[start:end].strip() for start, end in sentences(text)] == said


@pytest.mark.parametrize(
    "lines",
    [
        ["Which is the capital?", "A. Sydney", "B. Canberra", "C. Perth"],
        ["The parts:", "i. one", "ii. two", "iii. three"],
        [
            "1. DEFINITIONS",
            "1.1 In this Agreement the Buyer is the buyer",
            "1.2 The Seller is the seller",
            "2.1 The price",
        ],
        ["✓ done", "➢ next", "① first", "（1） second"],
        ["> The total was 1.234", "> > What was the total?", "> Yes", "Bye"],
        ["[00:01:20] BOB: He said no.", "[00:01:22] ANN: When?", "BOB: Now."],
        ["2025-03-03 12:00:23,123 INFO [w-3] batch 391", "2025-03-03 12:00:24,500 ERROR [main] refused: password"],
        ["Mar  3 12:00:01 host sshd[1]: accepted", "Mar  3 12:00:02 host sshd[1]: closed"],
        ["id,name,age", "1,Bob,33", "2,Ann,45", "3,Eve,27"],
        ["id\tname", "1\tBob Jones", "2\tAnn"],
        ["Said so", '{"name": "svc1", "port": 1}', '{"name": "svc2", "port": 2},', "And so on"],
        ["<table>", "<tr><td>a", "<tr><td>b", "</table>", "<p>And so on"],
    ],
)
def test_lines_that_begin_anew_stand_alone(lines):
    text = "\n".join(lines)
    assert [text[start:end] for start, end in sentences(text)] == lines


@pytest.mark.parametrize(
    "text",
    [
        "The revenue of the firm was\n3.5 billion dollars in all.",
        "Some cities, such as Rome, Paris\nor London, and some rivers, such as the Po,\nthe Rhine, are old.",
        "The average rent in the city rose to\n12.5 EUR per month in 2020.",
        "It runs at a clock of\n3.2 GHz in turbo mode, and sales rose to\n3.5 Million in May.",
        "He studied the field of\nAI: it was new then.",
        "The values are\n> 5 and they grow.",
        "It was said by\nMr. A. Miller to\nMr. B. Jones that\nall is well.",
    ],
)
def test_lines_that_are_wrapped_go_on(text):
    assert [text[start:end] for start, end in sentences(text)] == [text]
