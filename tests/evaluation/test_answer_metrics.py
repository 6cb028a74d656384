from __future__ import annotations

import collections
import re
import string
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ragzip.evaluation.metrics import F1, ExactMatch, Match, RougeL, normalise
from ragzip.evaluation.outcome import Outcome
from ragzip.evaluation.record import Record
from ragzip.types import CompressionResult, Query, context_of

EM, MATCH, ROUGE = ExactMatch(), Match(), RougeL()


def outcome(answer: str | None, *references: str) -> Outcome:
    empty = CompressionResult(context_of(Query("q"), ()), (), 0, 0)
    return Outcome(Record("1", "q", tuple(references)), (), empty, answer)


# --- the official SQuAD scripts, as published -------------------------------------------------------------------


def official(s: str) -> str:
    s = s.lower()
    s = "".join(ch for ch in s if ch not in set(string.punctuation))
    s = re.sub(r"\b(a|an|the)\b", " ", s)
    return " ".join(s.split())


def official_f1(gold: str, predicted: str) -> float:
    gold_tokens, predicted_tokens = official(gold).split(), official(predicted).split()
    # of the HotpotQA script, which is the SQuAD script's but for this
    for text in (official(gold), official(predicted)):
        if text in ("yes", "no", "noanswer", "maybe") and official(gold) != official(predicted):
            return 0
    common = collections.Counter(gold_tokens) & collections.Counter(predicted_tokens)
    same = sum(common.values())
    if not gold_tokens or not predicted_tokens:
        return int(gold_tokens == predicted_tokens)
    if same == 0:
        return 0
    precision, recall = same / len(predicted_tokens), same / len(gold_tokens)
    return 2 * precision * recall / (precision + recall)


def official_best(measure, answers, predicted) -> float:
    gold = [a for a in answers if official(a)] or [""]
    return max(measure(a, predicted) for a in gold)


latin = st.text(
    st.one_of(st.sampled_from("theanTHE AN,.'-\"!$ \t\n0123456789_«»–’éßñ"), st.characters(max_codepoint=0x24F)),
    max_size=30,
).map(lambda text: unicodedata.normalize("NFC", text))


@given(latin)
@example("½ of 5² in 3ª, 10\u00b4 ﬁ")
@example("The  U.S.A.'s a-list")
@example("the\u00a0end\x1cof an\x85era")
def test_normalises_as_the_official_script(text):
    assert normalise(text) == official(text)


@given(st.lists(latin, min_size=1, max_size=4), latin)
def test_em_and_f1_agree_with_the_official_script(answers, predicted):
    case = outcome(predicted, *answers)
    assert EM.score(case) == official_best(lambda a, p: int(official(a) == official(p)), answers, predicted)
    assert F1().score(case) == pytest.approx(official_best(official_f1, answers, predicted))


@given(st.text(max_size=40))
@example("\x1bA𠀀")  # a word with an article in it, which stands alone once the ideograph is apart
def test_normalising_twice_changes_no_word_but_articles(text):
    once = normalise(text)
    bare = {part for word in once.split() for part in re.sub(r"\b(a|an|the)\b", " ", word).split()}
    assert set(normalise(once).split()) <= bare
    assert once == once.strip() and "  " not in once


@given(st.lists(st.text(max_size=15), min_size=1, max_size=3), st.text(max_size=20))
def test_laws_for_any_text(answers, predicted):
    case = outcome(predicted, *answers)
    em, f1, match, rouge = (metric.score(case) for metric in (EM, F1(), MATCH, ROUGE))
    assert em in (0, 1) and match in (0, 1) and 0 <= f1 <= 1 and 0 <= rouge <= 1
    assert em <= f1 + 1e-12 and em <= match
    same = outcome(answers[0], answers[0])
    assert EM.score(same) == F1().score(same) == MATCH.score(same) == 1
    assert ROUGE.score(same) == 1
    more = outcome(predicted, *answers, "another")
    if any(normalise(a) for a in answers):
        assert F1().score(more) >= f1 and MATCH.score(more) >= match


@pytest.mark.parametrize(
    ("predicted", "reference", "em", "f1", "match"),
    [
        ("the Eiffel Tower!", "Eiffel tower", 1, 1, 1),
        ("It is in Paris, France.", "Paris", 0, 2 / 6, 1),
        ("Parisian", "Paris", 0, 0, 0),
        ("cat sat on the mat", "the mat cat", 0, 2 * 0.5 / 1.5, 0),
        ("cat mat cat mat", "cat cat", 0, 2 * 0.5 / 1.5, 0),
        ("", "Paris", 0, 0, 0),
        # Chinese and Japanese by character, whatever the spacing; their marks do not count
        ("北京。", "北京", 1, 1, 1),
        ("北 京", "北京", 1, 1, 1),
        ("中国的北京市", "北京", 0, 2 * (2 / 6) / (2 / 6 + 1), 1),
        ("2008年に", "2008年", 0, 2 * (2 / 3) / (2 / 3 + 1), 1),
        ("トム・クルーズ", "トムクルーズ", 1, 1, 1),
        # other scripts by their spaces; their marks do not count
        ("القاهرة، مصر", "القاهرة مصر", 1, 1, 1),
        ("दिल्ली।", "दिल्ली", 1, 1, 1),
        ("Москва!", "москва", 1, 1, 1),
        ("cafe\u0301", "café", 1, 1, 1),
        # full-width and half-width forms are the same letters
        ("ＡＢＣ１２３", "abc123", 1, 1, 1),
        ("２００８年", "2008年", 1, 1, 1),
        ("ｶﾞﾗｽ", "ガラス", 1, 1, 1),
        ("Ｕ．Ｓ．Ａ．", "USA", 1, 1, 1),
        # as in the official script
        ("1990–1995", "19901995", 0, 0, 0),
        ("1990-1995", "19901995", 1, 1, 1),
    ],
)
def test_by_hand(predicted, reference, em, f1, match):
    case = outcome(predicted, reference)
    assert EM.score(case) == em
    assert F1().score(case) == pytest.approx(f1)
    assert MATCH.score(case) == match


@pytest.mark.parametrize(
    ("predicted", "reference", "em", "f1", "match"),
    [
        ("I have no idea", "no", 0, 0, 0),
        ("There is no doubt: yes", "no", 0, 0, 0),
        ("Answer: no", "no", 0, 0, 0),
        ("No, it is not.", "no", 0, 0, 1),
        ("**Yes**", "yes", 1, 1, 1),
        ("Yes, both are.", "yes", 0, 0, 1),
        ("yes", "Yes, Minister", 0, 0, 0),
        ("That may be; maybe.", "maybe", 0, 0, 0),
        ("Maybe so", "maybe", 0, 0, 1),
        ("no", "no man's land", 0, 0, 0),
        ("noanswer", "no answer", 0, 0, 0),
        ("There was no man there", "no man", 0, 4 / 7, 1),
    ],
)
def test_yes_and_no_are_verdicts_not_words(predicted, reference, em, f1, match):
    case = outcome(predicted, reference)
    assert EM.score(case) == em
    assert F1().score(case) == pytest.approx(f1)
    assert MATCH.score(case) == match


def test_a_verdict_beside_another_reference_leaves_it_alone():
    assert F1().score(outcome("It was no man", "no", "no man")) == pytest.approx(2 * 0.5 / 1.5)
    assert MATCH.score(outcome("It was no man", "no", "no man")) == 1


def test_unanswerable_is_answered_by_silence_alone():
    for metric in (EM, F1(), MATCH, ROUGE):
        assert metric.score(outcome("", "")) == metric.score(outcome(" . ", "")) == 1
        assert metric.score(outcome("Paris", "")) == 0
        # a reference without words counts for nothing beside a real one
        assert metric.score(outcome("", "", "Paris")) == 0


def test_nothing_to_say():
    for metric in (EM, F1(), MATCH, ROUGE):
        assert metric.score(outcome(None, "Paris")) is None
        assert metric.score(outcome("Paris")) is None
        assert metric.needs == {"answers", "answer"}
        assert metric.quality and metric.higher_is_better and metric.bounds == (0, 1)


# --- rouge ------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.text(st.characters(max_codepoint=127), max_size=60), min_size=1, max_size=3),
    st.text(st.characters(max_codepoint=127), max_size=60),
)
@example(["The dogs were running quickly"], "a dog runs quick_ly")
def test_rouge_on_ascii_is_that_of_the_package(answers, predicted):
    from rouge_score.rouge_scorer import RougeScorer

    theirs = RougeScorer(["rougeL"], use_stemmer=True).score_multi(answers, predicted)["rougeL"].fmeasure
    if any(re.search("[a-z0-9]", a.lower()) for a in answers):
        assert ROUGE.score(outcome(predicted, *answers)) == pytest.approx(theirs)


def test_rouge_published_example():
    # of the package's README
    case = outcome("The quick brown dog jumps on the log.", "The quick brown fox jumps over the lazy dog")
    precision, recall = 5 / 8, 5 / 9
    assert ROUGE.score(case) == pytest.approx(2 * precision * recall / (precision + recall))


@pytest.mark.parametrize(
    ("predicted", "reference", "score"),
    [
        ("Москва столица России", "Москва столица России", 1),
        ("Москва город", "Москва столица", 0.5),
        ("café noir", "cafe noir", 0.5),
        ("北京市", "北京", 0.8),
        ("Ｔｏｋｙｏ Ｔｏｗｅｒ", "Tokyo tower", 1),
        ("दिल्ली भारत", "दिल्ली", 2 / 3),
        ("running", "runs", 1),
    ],
)
def test_rouge_keeps_other_scripts(predicted, reference, score):
    assert ROUGE.score(outcome(predicted, reference)) == pytest.approx(score)
