from dataclasses import replace

import pytest

from ragzip.compressors.recomp_abstractive import NOTHING, said
from ragzip.errors import ConfigError
from ragzip.evaluation.data import data_dir
from ragzip.training._summary_data import make_pairs, read_pairs
from ragzip.training._summary_filter import bm25_filter
from ragzip.training.examples import Example, Marked
from ragzip.types import Passage, Query, Span, TextSegment, context_of


def count(texts):
    return [len(text.split()) for text in texts]


def passage(number, *, helps=True, title="Rome", known=True):
    text = f"Intro {number} here. Answer{number} is in it. Outro {number} here."
    at = text.index("Answer")
    support = ((at, at + len(f"Answer{number} is in it.")),) if helps and known else ()
    return Marked(text, title, support, helps, known)


def example(number, **changes):
    values = {
        "id": f"set:{number}",
        "set_name": "set",
        "question": f"Where is answer {number}?",
        "positives": (passage(number),),
        "answers": (f"answer{number}",),
    }
    return Example(**{**values, **changes})


EXAMPLES = [example(number) for number in range(100, 160)]


def make(examples=EXAMPLES, **options):
    return make_pairs(examples, **{"seed": 0, "count": count, **options})


def test_targets_are_the_supporting_sentences_and_prompts_hold_them():
    for pair in make():
        number = pair.id.removeprefix("set:")
        told = f"Rome: Answer{number} is in it."
        assert pair.target in (told, "")
        shown = [block.text for block in pair.passages]
        assert any(f"Answer{number}" in text for text in shown) == bool(pair.target)
        assert 1 <= len(shown) <= 4
        assert len(set(shown)) == len(shown)
        assert all(text in pair.request.user for text in shown)


def test_a_share_has_nothing_that_helps():
    pairs = make(empty=0.5)
    silent = [pair for pair in pairs if not pair.target]
    assert 0.3 < len(silent) / len(pairs) < 0.7
    assert {pair.completion for pair in silent} == {NOTHING}
    assert said(NOTHING) == ""
    assert all(pair.target for pair in make(empty=0.0))
    assert not any(pair.target for pair in make(empty=1.0))


def test_seeded_and_independent_of_the_other_draws():
    assert make() == make()
    assert make(seed=1) != make()
    places = {pair.id: [block.title for block in pair.passages].index("Rome") for pair in make(empty=0.0)}
    assert len(make(EXAMPLES[:30])) == 30
    assert set(places) == {e.id for e in EXAMPLES}


def test_the_passage_that_helps_stands_anywhere():
    places = [
        next(i for i, block in enumerate(pair.passages) if f"Answer{pair.id[4:]}" in block.text)
        for pair in make(empty=0.0, passages=3)
    ]
    assert set(places) == {0, 1, 2}


def test_several_sentences_come_in_the_order_of_the_prompt():
    two = example(1, positives=(passage(1, title="Rome"), passage(2, title="Answer2 (town)")), answers=("yes",))
    (pair,) = make([two], empty=0.0)
    order = [block.title[0] for block in pair.passages]
    first, second = "Rome: Answer1 is in it.", "Answer2 is in it."
    assert pair.target == (f"{first} {second}" if order == ["R", "A"] else f"{second} {first}")


def test_in_a_share_not_all_that_helps_is_shown():
    several = [example(n, positives=tuple(passage(n + i, title=f"T{n + i}") for i in (0, 100, 200))) for n in range(60)]
    assert make(several, empty=0.0, passages=3, partial=0.0) == make(several, empty=0.0, passages=3)
    numbers = {pair.id: pair.target.count(" is in it.") for pair in make(several, empty=0.0, passages=3, partial=0.5)}
    assert set(numbers.values()) == {1, 2, 3}
    assert 15 < sum(number < 3 for number in numbers.values()) < 45
    for pair in make(several, empty=0.0, passages=2, partial=1.0):
        shown = {block.title for block in pair.passages if f"{block.title}: " in pair.target}
        assert 1 <= len(shown) == pair.target.count(" is in it.") <= 2
        own = {marked.text for e in several if e.id == pair.id for marked in e.positives}
        assert sum(block.text in own for block in pair.passages) == len(shown)  # the others are no distractors
    assert make(partial=1.0) == make()  # there is one that helps, or none


def test_what_cannot_be_taught_is_left_out():
    unknown = example(1, positives=(passage(1, known=False),))
    crowded = example(2, positives=tuple(passage(n) for n in range(5)))
    assert make([unknown, crowded], empty=0.0) == []
    assert make([example(3)], empty=0.0, tokens=3) == []
    assert len(make([example(3)], empty=0.0, tokens=5)) == 1
    alone = example(4)
    assert make([alone], empty=1.0) == []  # no other passage there is


def test_no_distractor_holds_an_answer():
    spoilt = Marked("By chance ANSWER1 stands here.", "Rome")
    own = Marked("Nothing of it stands here.", "Rome")
    (pair,) = make([example(1, negatives=(spoilt, own))], empty=0.0)
    assert all("ANSWER1" not in block.text for block in pair.passages)


def test_in_a_share_a_filter_has_been_at_the_passages_and_the_target_is_what_it_left():
    whole, short = make(empty=0.0), make(empty=0.0, filtered=1.0, filters=halved)
    assert make(empty=0.0, filtered=0.0, filters=halved) == whole
    assert [pair.id for pair in short] == [pair.id for pair in whole]
    lost = 0
    for pair in short:
        shown = " ".join(block.text for block in pair.passages)
        told = f"Rome: Answer{pair.id[4:]} is in it."
        assert "Intro" not in shown
        assert pair.target == (told if f"Answer{pair.id[4:]} " in shown else "")
        lost += not pair.target
    assert 0 < lost < len(short)  # what the filter lost is not asked for
    some = make(empty=0.0, filtered=0.5, filters=halved)
    assert {pair.id: pair for pair in some}.items() <= {(p.id, p) for p in (*whole, *short)}
    assert 10 < sum(pair in short for pair in some) < 50


def test_behind_the_filter_contexts_are_wide_and_cut_to_a_drawn_length():
    sizes, lengths = set(), set()

    def watched(context, tokens):
        sizes.add(len(context.passages))
        lengths.add(tokens)
        return context

    pairs = make(empty=0.0, passages=2, wide=7, filtered=1.0, filters=watched)
    assert sizes == set(range(2, 8))
    assert len(lengths) > 20
    assert min(lengths) >= 60
    assert max(lengths) <= 320
    assert all(block.owner is not None for pair in pairs for block in pair.passages)  # as the compressor shows them


def test_the_filter_is_a_real_one():
    question = "Where is answer 100?"
    passages = tuple(Passage(str(n), passage(n).text, "Rome") for n in range(100, 130))
    left = bm25_filter(context_of(Query(question), passages), 40)
    text = " ".join(segment.text for segment in left.segments)
    assert 0 < len(text) < sum(len(p.text) for p in passages) / 5
    assert all(segment.sources for segment in left.segments)


def halved(context, tokens):
    """Every passage without its first sentence, and every third passage without its second one."""
    found = []
    for number, p in enumerate(context.passages):
        start = p.text.index("Outro" if number % 3 == 2 else "Answer")
        found.append(TextSegment(p.text[start:], (Span(p.id, start, len(p.text)),)))
    return replace(context, segments=tuple(found))


@pytest.mark.parametrize(
    "options",
    [{"passages": 0}, {"wide": 0}, {"empty": 1.5}, {"partial": -0.1}, {"filtered": 1.1}, {"tokens": 0}],
)
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ConfigError) as caught:
        make(**options)
    assert caught.value.path == next(iter(options))


@pytest.mark.skipif(data_dir() is None, reason="the data folder is not here")
def test_the_real_sets_can_be_read(monkeypatch):
    from ragzip.training import _summary_data

    monkeypatch.setattr(_summary_data, "default_counter", lambda: type("Counter", (), {"texts": staticmethod(count)}))
    pairs = read_pairs(("hotpotqa", "qed"), most={"qed": 300}, seed=3)
    assert {pair.id.partition(":")[0] for pair in pairs} == {"hotpotqa", "qed"}
    silent = sum(not pair.target for pair in pairs) / len(pairs)
    assert 0.1 < silent < 0.4
    assert all(len(pair.target.split()) <= 80 and pair.question for pair in pairs)


def test_no_distractor_holds_the_sentence_that_helps_or_a_short_answer():
    """In another passage of the set the same sentence can stand, and an answer of three letters helps, too."""
    told = "The founder was a woman named Ann."
    own = example(
        1, positives=(Marked(f"Intro. {told} Outro.", "Rome", ((7, 7 + len(told)),), True, True),), answers=()
    )
    asked = replace(own, answers=("Ann",))
    same = Marked(f"Before. {told} After.", "Other", (), False, True)
    short = Marked("The one was Ann, they say.", "Other", (), False, True)
    fine = Marked("Annual reports say nothing.", "Other", (), False, True)
    others = [example(n, positives=(marked,)) for n, marked in ((2, same), (3, short), (4, fine))]
    seen = set()
    for seed in range(40):
        for one in (own, asked):
            (pair, *_) = make([one, *others], seed=seed, passages=4, empty=0.5)
            shown = {block.text for block in pair.passages}
            assert same.text not in shown
            assert short.text not in shown or one is own
            seen |= shown
    assert {fine.text, short.text} <= seen
