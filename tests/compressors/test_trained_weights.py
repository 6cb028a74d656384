"""The weights that come with ragzip, under the laws and under laws of their own: no stand-in anywhere."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragzip.compressors._extractive import groups_of
from ragzip.compressors._layout import Layout
from ragzip.compressors.comp_llm import CompLLM
from ragzip.compressors.exit import EXIT
from ragzip.compressors.icae import ICAE
from ragzip.compressors.llmlingua2 import LLMLingua2
from ragzip.compressors.provence import Provence, means
from ragzip.compressors.recomp_abstractive import RecompAbstractive
from ragzip.compressors.recomp_extractive import RecompExtractive
from ragzip.compressors.refrag import REFRAG
from ragzip.compressors.xrag import XRAG
from ragzip.indexes.looks import Read, judge
from ragzip.models import default_counter
from ragzip.models.shipped import SHIPPED
from ragzip.retrievers.rerank import Rerank
from ragzip.testing import CompressorContract
from ragzip.text import sentences
from ragzip.types import Passage, Query, SoftSegment, TextSegment, context_of

pytestmark = pytest.mark.models

LAWS = [name for name in vars(CompressorContract) if name.startswith("test_")]
READING = {
    "provence": Provence,
    "provence-limits": lambda: Provence(threshold=0.05, keep=0.6, budget=40, order="relevance"),
    "llmlingua2": LLMLingua2,
    "llmlingua2-limits": lambda: LLMLingua2(threshold=0.2, keep=0.7, budget=40, force_keep=("numbers",)),
    "recomp_extractive": RecompExtractive,
    "recomp_extractive-limits": lambda: RecompExtractive(keep=0.5, budget=40, force_keep=("negations",)),
}
WRITING_ROWS = {
    "xrag": lambda: XRAG(dtype="fp32"),
    "comp_llm": lambda: CompLLM(dtype="fp32"),
    "comp_llm-limits": lambda: CompLLM(dtype="fp32", rate=8),
    "icae": lambda: ICAE(dtype="fp32"),
    "refrag": lambda: REFRAG(dtype="fp32"),
    "refrag-limits": lambda: REFRAG(dtype="fp32", policy="similarity", budget=40),
}
_LONG_INPUT = {"test_takes_empty_odd_and_very_long_input", "test_works_from_two_threads"}
SHORT = [law for law in LAWS if law not in _LONG_INPUT]

PEOPLE = st.sampled_from(["Ines Marchetti", "Tomas Lindqvist", "Aiko Watanabe", "Peter Okafor", "Lena Vogel"])
PLACES = st.sampled_from(["Bruges", "Valparaiso", "Tartu", "Kumasi", "Sapporo"])
FACTS = st.sampled_from(
    [
        ("Where was {person} born?", "{person} was born in {place} in {year}."),
        ("When did {person} open the mill?", "The mill was opened by {person} in {year}, after two years of work."),
        ("Who designed the old bridge?", "The old bridge was designed by {person} and finished in {year}."),
        ("In which city does {person} teach?", "Since {year} {person} has taught mathematics in {place}."),
    ]
)
FILLER = (
    "The museum shop sells postcards and honey.",
    "Rain is common in the second half of October.",
    "Most copper wire is drawn through several dies.",
    "The committee meets on the first Monday of each month.",
    "Otters are found along the whole length of the river.",
    "A loaf of rye bread keeps for about a week.",
    "The film was received well by critics and audiences.",
    "Goats were brought to the island by sailors.",
)
PLANTED = st.tuples(
    FACTS,
    PEOPLE,
    PLACES,
    st.integers(1801, 1999),
    st.permutations(FILLER),
    st.integers(0, 4),
)


def planted(drawn) -> tuple[str, str, str]:
    """A question, the sentence that answers it, and a passage that holds it among sentences that have no part in it."""
    (question, sentence), person, place, year, filler, at = drawn
    words = {"person": person, "place": place, "year": year}
    answer = sentence.format(**words)
    told = [*filler[:4]]
    told.insert(at, answer)
    return question.format(**words), answer, " ".join(told)


def law_of(make, law, **attributes):
    """One law of the contract over real weights, counted in the built-in generator's own tokens."""
    body = {"make": lambda self: make(), "counter": lambda self: default_counter(), "examples": 8, **attributes}
    return getattr(type("Contract", (CompressorContract,), body)(), law)


def test_all_weights_of_the_table_are_here():
    assert [name for name, spec in SHIPPED.items() if not spec.here] == []


@pytest.mark.parametrize(
    ("law", "name"),
    [
        *((law, name) for name in (*READING, *WRITING_ROWS) for law in SHORT),
        *((law, name) for name in (*READING, *WRITING_ROWS) if "-" not in name for law in sorted(_LONG_INPUT)),
    ],
)
def test_law(law, name):
    law_of({**READING, **WRITING_ROWS}[name], law)()


@pytest.mark.parametrize("law", SHORT)  # long input is minutes of writing: see the test of a long passage below
def test_law_for_what_writes(law):
    make = lambda: RecompAbstractive(max_new_tokens=12, budget=40, window=256)  # noqa: E731
    law_of(make, law, examples=3, extractive=False)()


def test_provence_reads_twice_and_is_surer_of_the_second_step():
    assert Provence().load().hops == 2
    film = "The Quiet Harbour is a 1971 drama film directed by Ines Marchetti and starring Peter Okafor. It was long."
    ines = "Ines Marchetti (born 4 May 1932 in Bruges) was a Belgian film director and screenwriter. She liked walks."
    found = (
        Passage("film", film, "The Quiet Harbour"),
        Passage("tea", "Tea is grown in the hills. It is sold in small boxes.", "Tea"),
        Passage("ines", ines, "Ines Marchetti"),
        Passage("aiko", "Aiko Watanabe was born in Sapporo. She paints.", "Aiko Watanabe"),
    )
    query = Query("Where was the director of The Quiet Harbour born?")
    (after,) = Provence().compress([context_of(query, found)])
    text = " ".join(segment.text for segment in after.segments)
    assert "directed by Ines Marchetti" in text
    assert "4 May 1932 in Bruges" in text
    assert "small boxes" not in text
    given_ = [Read(p.text, p.title, tuple(sentences(p.text)), p.id) for p in found]
    once, twice = (judge(Provence().load(), query.text, given_, hops=hops)[2] for hops in (1, 2))
    assert twice.relevance > once.relevance + 0.01
    assert twice.keep.mean() > once.keep.mean() + 0.01


@given(PLANTED)
@settings(max_examples=25)
def test_provence_puts_the_sentence_that_answers_first(drawn):
    question, answer, text = planted(drawn)
    budget = default_counter().texts([answer])[0] + 4
    (after,) = Provence(budget=budget).compress([context_of(Query(question), (Passage("p", text),))])
    assert answer in " ".join(segment.text for segment in after.segments)


@pytest.mark.parametrize("law", [law for law in SHORT if law != "test_pickles"])  # it asks 100,000 letters: minutes
def test_law_for_what_judges(law):
    law_of(lambda: EXIT(keep=0.5, dtype="fp32"), law, examples=3)()


@given(PLANTED)
@settings(max_examples=10, derandomize=True)  # the weights are weak: these ten, not all
def test_exit_puts_the_sentence_that_answers_first(drawn):
    question, answer, text = planted(drawn)
    budget = default_counter().texts([answer])[0] + 4
    (after,) = EXIT(budget=budget).compress([context_of(Query(question), (Passage("p", text),))])
    assert answer in " ".join(segment.text for segment in after.segments)


@given(PLANTED)
@settings(max_examples=25)
def test_recomp_extractive_puts_the_sentence_that_answers_first(drawn):
    question, answer, text = planted(drawn)
    budget = default_counter().texts([answer])[0] + 4
    (after,) = RecompExtractive(budget=budget).compress([context_of(Query(question), (Passage("p", text),))])
    assert answer in " ".join(segment.text for segment in after.segments)


@given(PLANTED)
@settings(max_examples=10)
def test_refrag_leaves_the_answer_as_text(drawn):
    question, answer, text = planted(drawn)
    passages = (Passage("p", text), Passage("q", " ".join(FILLER)))
    (after,) = REFRAG(expand=0.25).compress([context_of(Query(question), passages)])
    spans = [s.sources[0] for s in after.segments if isinstance(s, TextSegment)]
    start, end = text.index(answer), text.index(answer) + len(answer)
    inside = [min(span.end, end) - max(span.start, start) for span in spans if span.passage_id == "p"]
    assert sum(part for part in inside if part > 0) > len(answer) / 2


@given(PLANTED)
@settings(max_examples=5)
def test_refrag_leaves_whole_sentences_that_help_as_text_and_no_others(drawn):
    question, _, text = planted(drawn)
    passages = (Passage("p", text), Passage("q", " ".join(FILLER)))
    context = context_of(Query(question), passages)
    (marked,) = Provence(threshold=0.1).compress([context])
    (after,) = REFRAG(expand=0.5).compress([context])
    encoder = REFRAG().load()
    helped = {(s.passage_id, at) for seg in marked.segments for s in seg.sources for at in range(s.start, s.end)}
    left = {
        (s.passage_id, at)
        for seg in after.segments
        if isinstance(seg, TextSegment)
        for s in seg.sources
        for at in range(s.start, s.end)
    }
    chunks = {(p.id, at): (a, b) for p in passages for a, b in encoder.cut(p.text) for at in range(a, b)}
    reached = {(name, at) for name, place in helped for at in range(*chunks.get((name, place), (0, 0)))}
    assert helped
    assert left == reached


def test_refrag_fills_its_share_where_nothing_helps_unless_it_is_told_not_to():
    context = context_of(Query("How many moons has Saturn?"), (Passage("p", " ".join(FILLER)),))
    (scored,) = Provence().score(context.query, groups_of(Layout(context)))
    assert max(scored) < 0.1
    (filled,), (bound,) = REFRAG().compress([context]), REFRAG(threshold=0.1).compress([context])
    (low,) = REFRAG(threshold=0.0).compress([context])
    assert any(isinstance(segment, TextSegment) for segment in filled.segments)
    assert [s.sources for s in filled.segments] == [s.sources for s in low.segments]
    assert bound.segments == ()
    (rows,) = REFRAG(threshold=0.1, drop=False).compress([context])
    assert {type(segment) for segment in rows.segments} == {SoftSegment}


@given(PLANTED, st.permutations(range(4)))
@settings(max_examples=15)
def test_provence_reranks_the_passage_that_answers_first_wherever_it_stands(drawn, order):
    question, _, text = planted(drawn)
    others = [" ".join(FILLER[(i * 3 + k) % len(FILLER)] for k in range(4)) for i in range(3)]
    passages = [Passage(f"p{number}", passage) for number, passage in enumerate([text, *others])]
    given_ = context_of(Query(question), tuple(passages[i] for i in order))
    (after,) = Provence(order="relevance", top_k=1).compress([given_])
    assert {span.passage_id for segment in after.segments for span in segment.sources} == {"p0"}


@given(PLANTED)
@settings(max_examples=10)
def test_the_order_of_passages_changes_no_sentence(drawn):
    question, _, text = planted(drawn)
    passages = (Passage("a", text), Passage("b", " ".join(FILLER)), Passage("c", FILLER[0]))
    there, back = (
        Provence(threshold=0.2).compress([context_of(Query(question), order)])[0]
        for order in (passages, passages[::-1])
    )
    kept = [{span for segment in after.segments for span in segment.sources} for after in (there, back)]
    assert kept[0] == kept[1] != set()


@pytest.mark.parametrize("at", [0, 160, 320])
@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Where was Aiko Watanabe born?", "Aiko Watanabe was born in Tartu in 1850."),
        ("Who designed the old bridge?", "The old bridge was designed by Ines Marchetti and finished in 1801."),
        ("When did Tomas Lindqvist open the mill?", "The mill was opened by Tomas Lindqvist in 1830."),
    ],
)
def test_provence_reads_all_windows_of_a_long_passage(question, answer, at):
    """The answer is among the best twentieth of 321 sentences, wherever it stands."""
    told = [*FILLER * 40]
    told.insert(at, answer)
    (judged,) = Provence().load().judge(question, [" ".join(told)], [""])
    scores = means(told, judged)
    assert sum(score >= scores[at] for score in scores) <= len(told) // 20


@given(PLANTED)
@settings(max_examples=25)
def test_llmlingua2_keeps_names_and_numbers_rather_than_small_words(drawn):
    _, answer, text = planted(drawn)
    (after,) = LLMLingua2(keep=0.5).compress([context_of(Query(""), (Passage("p", text),))])
    kept = " ".join(segment.text for segment in after.segments).split()
    names = [word.strip(".,") for word in answer.split() if word[0].isupper() and word not in ("The", "Since")]
    small = [word for word in text.split() if word in ("the", "of", "in", "and", "by", "a")]
    names_kept = sum(any(name in word for word in kept) for name in names) / len(names)
    small_kept = sum(word in ("the", "of", "in", "and", "by", "a") for word in kept) / max(len(small), 1)
    assert names_kept > small_kept


GERMAN = (
    Passage("a", "Der Turm wurde 1889 in Paris gebaut. Er ist 330 Meter hoch. Im Sommer kommen viele Besucher."),
    Passage("b", "Brot wird aus Mehl gebacken. Roggen wächst auch auf armen Böden."),
)
MIXED = (
    Passage("zh", "长城是中国古代的军事防御工程。它的总长度超过两万公里。"),
    Passage("ar", "القاهرة هي عاصمة مصر. يمر بها نهر النيل."),
    Passage("one", "Word"),
    Passage("none", ""),
    Passage("hi", "दिल्ली भारत की राजधानी है। यहाँ बहुत लोग रहते हैं।"),
)


QUESTIONS = ("How high is the tower?", "长城有多长？", "Wie hoch ist der Turm?", "x", "", "؟")
ODD = [
    (name, question, budget)
    for name in (*READING, "recomp_abstractive")
    for question in QUESTIONS
    for budget in (0, 1, 15)
]


@pytest.mark.parametrize(
    ("name", "question", "budget"), [*ODD, ("exit", "长城有多长？", 1), ("exit", "Wie hoch ist der Turm?", 15)]
)
def test_other_languages_and_budgets_next_to_nothing(name, question, budget):
    counter = default_counter()
    others = {"exit": EXIT, "recomp_abstractive": lambda: RecompAbstractive(max_new_tokens=8)}
    made = {**READING, **others}[name]()
    limited = type(made)(**{**_options(made), "budget": budget}).bind(counter)
    for passages in (GERMAN, MIXED):
        (after,) = limited.compress([context_of(Query(question), passages)])
        assert counter.context(after) <= budget


def _options(made):
    from ragzip import config

    return {field.name: getattr(made, field.name) for field in config.options(type(made))}


class TestRecompAbstractive:
    passages: ClassVar = (
        Passage("p", "The Bell Rock lighthouse was built by Robert Stevenson. It was first lit in 1811.", "Bell Rock"),
        Passage("q", "Herring is salted in barrels. The barrels are made of oak.", "Herring"),
    )

    def test_says_what_answers(self):
        (after,) = RecompAbstractive().compress(
            [context_of(Query("Who built the Bell Rock lighthouse?"), self.passages)]
        )
        assert "Stevenson" in " ".join(segment.text for segment in after.segments)

    def test_a_long_passage_is_read_in_parts_that_cover_it(self):
        text = " ".join([*FILLER * 12, "The Bell Rock lighthouse was built by Robert Stevenson."])
        made = RecompAbstractive(max_new_tokens=24, window=512, silence=1.0)
        (after,) = made.compress([context_of(Query("Who built the Bell Rock lighthouse?"), (Passage("p", text),))])
        spans = sorted((span for segment in after.segments for span in segment.sources), key=lambda span: span.start)
        assert len(spans) > 1
        assert " ".join(text[span.start : span.end] for span in spans) == text
        assert "Stevenson" in after.segments[-1].text
        assert 0 < len(" ".join(segment.text for segment in after.segments)) < len(text) / 4

    def test_the_spans_are_what_it_read(self):
        (after,) = RecompAbstractive().compress([context_of(Query("When was Bell Rock first lit?"), self.passages)])
        assert {span.passage_id for segment in after.segments for span in segment.sources} == {"p", "q"}


class Given:
    """A retriever that finds what it was given."""

    def __init__(self, passages):
        self.passages = passages

    def retrieve(self, queries, *, top_k):
        return [self.passages[:top_k] for _ in queries]


def test_reranking_is_the_same_pass():
    question = "How many hills has Rome?"
    passages = [Passage("tea", "Tea is grown in Assam."), Passage("rome", "Rome has seven hills.", "Rome")]
    (found,) = Rerank(Given(passages), hops=1).retrieve([Query(question)])
    judged = Provence().load().judge(question, [p.text for p in passages], [p.title for p in passages])
    assert [passage.id for passage in found] == ["rome", "tea"]
    assert [passage.score for passage in found] == [judged[1].relevance, judged[0].relevance]
