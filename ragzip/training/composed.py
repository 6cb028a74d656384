"""Questions of several steps, put together from questions of one: the second names what the first one asks for.

"When did the airline end?" needs nothing else once "the airline that Robertson founded" stands in place of its name,
and two passages then. MuSiQue was made in this way (https://arxiv.org/abs/2108.00573), by people and with care; here
rules do it, and the wording is rough.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ragzip.text import sentences
from ragzip.training.encoders import apart, helping
from ragzip.training.examples import Example, plain, read_examples, steps_of_dev
from ragzip.training.negatives import holds

NAME = "composed"
"""The name of the set of these questions."""

SOURCES = ("squad", "squadshifts", "squad_paragraphs", "qed", "nq_multidoc")
"""The sets whose questions are put together: those with short answers that were marked in a passage."""

_FIRST, _SECOND = 18, 32  # words of a question at most
_SHORT, _LONG = 3, 40  # characters of an answer that is looked for in other questions
_EACH = 3  # a question is put into so many others at most, with two steps and with three, and so many into it
_TELLING = 20  # characters of a sentence, from which on it is the same one wherever it stands

_IN = "(in|on|at|from|to|for|with|by|of|under)"
_WHICH = r"(?:what|which) (\S+(?: \S+){0,3}?)"
_BE = "(is|was|are|were|has|had|have|can|could|would|will)"
_DID = (
    "(won|made|wrote|led|held|built|gave|took|became|began|sold|bought|found|sang|ran|fought|lost|came|went|has|had|"
    "produces|hosts|contains|includes|owns|runs|lies|flows|borders|uses|makes|provides|[a-z]+ed)"
)
_FORMS = (
    (r"who(?:m)? (?:did|does|do) (.+)", "the person that {}"),
    (r"(?:who|what|which) (?:is|was|are|were) ((?:the|a|an) .+|\S+['’]s? .+)", "{}"),
    (rf"who {_BE} ([^A-Z].+)", "the person who {} {}"),
    (r"who ([a-z].+)", "the person who {}"),
    (r"where (?:did|does|do) (.+)", "the place where {}"),
    (r"where (?:is|was|are|were) (.+)", "the place of {}"),
    (rf"{_IN} {_WHICH} (?:did|does|do) (.+)", "the {1} that {2} {0}"),
    (rf"{_WHICH} (?:did|does|do) (.+)", "the {} that {}"),
    (rf"{_IN} {_WHICH} {_BE} (.+)", "the {1} that {3} {2} {0}"),
    (rf"{_WHICH} {_BE} ((?!the |a |an )[^A-Z].+)", "the {} that {} {}"),
    (rf"{_WHICH} {_DID} (.+)", "the {} that {} {}"),
)
_EDGE = (r"""(?<![^\s"'(“‘])""", r"""(?![^\s,.;:?!"')’”])""")  # where a name begins, and where it ends
_ENDS = re.compile(r"(?:,?\s+(?:called|named|located|situated|based))?[\s?.!]*$")
_ARTICLE = re.compile(r"(?:^|\s)the\s+$", re.IGNORECASE)
_NAMES = re.compile(r"[A-Z0-9]")  # in a phrase: it is about something that is named
_POINTS = re.compile(r"\b(?:he|she|it|they|his|her|its|their|him|them|this|these|those|both|each)\b", re.IGNORECASE)
_WORDS = (
    "is was are were has had have did does do can could will would should who what which when where why how whom "
    "whose in on at from to for with by of under and or as after before during while that between against into over "
    "through since until than about near because if so not also according besides like the"
)
_PLAIN = frozenset(_WORDS.split())  # what may stand beside a name that is one by itself
_ASKS = re.compile(
    r"\b(?:that|where|did|does|do|is|was|are|were|has|had|have|can|could|will|would)\s+(?:the\s+)?$", re.IGNORECASE
)
_POSTS = "president king queen emperor pope minister senate congress parliament government church party state city"
_OFFICES = frozenset(_POSTS.split())  # one answer, many who hold it


def read_composed(
    sets: Sequence[str], held: Sequence[Example], *, most: int, data: Path | None, seed: int
) -> list[Example]:
    """Questions put together from all of these sets that have such as can be, whatever ``most`` says of them there.

    Without what is held out, and without what the development set of MuSiQue, which is made from some of the same
    questions, has as a step or reads in a passage.

    Raises:
        UsageError, IngestError: As ``read_examples``.
    """
    names = [name for name in SOURCES if name in sets]
    if not names or not most:
        return []
    asked, told = steps_of_dev(data)
    told = told.union(*(helping(example) for example in held))
    found = [
        example
        for example in apart(read_examples(names, data=data, seed=seed, most={}), held)
        if plain(example.question) not in asked and not any(_said(m.text) & told for m in example.positives)
    ]
    return composed(found, most=most, seed=seed)


def composed(examples: Sequence[Example], *, most: int, seed: int, rounds: int = 2) -> list[Example]:
    """Questions of two steps, and of three, that these examples answer together.

    The answer of a first question is named in a second one: there a description, made of the first question, takes
    its place, and the passages of both help. No passage of an earlier step holds the answer of a later one. A
    question of three steps is one of two in which a third is put.

    Args:
        examples: With answers and known marks, for one passage; others are not used.
        most: So many questions at most; fewer where fewer fit.
        seed: For every draw.
        rounds: 1 for questions of two steps only. Of those of three there are at most half as many.

    Returns:
        Examples without negatives, see ``mine``, of the set ``composed``. Their answers are those of the last step,
        and behind these the ones of all steps before it: no passage with one of them is a negative.
    """
    draw = random.Random(f"{seed} composed")  # noqa: S311 - no secret
    sure = [example for example in examples if _sure(example)]
    by_answer: dict[str, list[Example]] = {}
    for first in sure:
        answers = {answer.strip() for answer in first.answers}
        if as_phrase(first.question) and _agree(answers):
            for answer in answers:
                if _SHORT <= len(answer) <= _LONG and answer[0].isupper() and answer.lower() not in _OFFICES:
                    by_answer.setdefault(answer, []).append(first)
    found: list[Example] = []
    seconds, turns = sure, _EACH
    for number in range(rounds):
        room = min(most - len(found), len(found) // 2) if number else most - most // 3 * (rounds > 1)
        seconds = _round(seconds, by_answer, room, turns, draw)
        found += seconds
        turns = 1
    return found


def as_phrase(question: str) -> str:
    """A question as a noun phrase for what it asks: "the place where ..."; "" where that says too little.

    Known forms only, and none that names nothing or points to what stands elsewhere ("these people").
    """
    bare = _ENDS.sub("", " ".join(question.split()))
    if len(bare.split()) > _FIRST:
        return ""
    bare = bare[:1].lower() + bare[1:]
    for pattern, form in _FORMS:
        match = re.fullmatch(pattern, bare)
        if match:
            phrase = form.format(*match.groups())
            return phrase if _NAMES.search(phrase) and not _POINTS.search(phrase) else ""
    return ""


def put(question: str, answer: str, phrase: str) -> str:
    """The question with the phrase where the answer is named; "" where it is not, or twice, or in another name.

    Nor where it says only of what kind something else is ("the Greek word").
    """
    places = [match.span() for match in re.finditer(rf"{_EDGE[0]}{re.escape(answer)}{_EDGE[1]}", question)]
    if len(places) != 1:
        return ""
    start, end = places[0]
    before, after = question[:start], question[end:]
    words = [word.strip("\"'(“‘,;:") for word in before.split()]
    last = words[-1] if words else ""
    if last and last.lower() not in _PLAIN and (last.lower() in ("a", "an") or not last.islower()):
        return ""  # "the University of", "Mary Ann Bell", "a Greek"
    if last.lower() in ("what", "which", "many") or (last == "of" and words[-2:-1] and words[-2][:1].isupper()):
        return ""
    if last == "the" and words[-2:-1] == ["of"] and words[-3:-2] and words[-3][:1].isupper():
        return ""
    follows = re.match(r"(['’]s?)?([,;:?!\"')’”]|\.$|\s|$)\s*(\S*)", after)
    if not follows or re.match(r"\s+of (the )?[A-Z]", after):
        return ""
    next_ = follows.group(3).strip("?.,;:!\"'")
    alone = follows.group(1) or follows.group(2).strip() or not next_ or next_ in _PLAIN
    if not alone and not (next_.islower() and _ASKS.search(before)):
        return ""
    article = _ARTICLE.search(before)
    if article and phrase.lower().startswith("the "):
        before = before[: article.start()] + (" " if article.start() else "")
    return f"{before}{phrase}{after}"


def _sure(example: Example) -> bool:
    """Whether it is known what helps to answer, one passage does, and what the answer is."""
    return bool(example.answers) and [m.known and bool(m.support) for m in example.positives] == [True]


def _agree(answers: set[str]) -> bool:
    """Whether all answers that were given are one, more or less of it."""
    longest = max(answers, key=len, default="").casefold()
    return bool(longest) and all(answer and answer.casefold() in longest for answer in answers)


def _round(
    seconds: Sequence[Example],
    by_answer: Mapping[str, Sequence[Example]],
    most: int,
    turns: int,
    draw: random.Random,
) -> list[Example]:
    """One question put into another, for as many as are wanted: each one in few of them."""
    order = list(seconds)
    draw.shuffle(order)
    tried: set[tuple[str, str]] = set()
    asked: set[str] = set()
    used: Counter[str] = Counter()
    found: list[Example] = []
    for _ in range(turns):
        for second in order:
            if len(found) >= most:
                return found
            named = _named(second, by_answer)
            fit = [(f, a) for f, a in named if used[f.id] < _EACH and (f.id, second.id) not in tried]
            if not fit:
                continue
            first, answer = draw.choice(fit)
            tried.add((first.id, second.id))
            made = _together(first, second, answer)
            if made and plain(made.question) not in asked:
                asked.add(plain(made.question))
                used[first.id] += 1
                found.append(made)
    return found


def _named(second: Example, by_answer: Mapping[str, Sequence[Example]]) -> Iterator[tuple[Example, str]]:
    """The questions whose answer this one names, and the answer, where its passages name it, too."""
    words = second.question.split()
    seen = set()
    for start in range(len(words)):
        for end in range(start + 1, min(start + 6, len(words)) + 1):
            text = " ".join(words[start:end]).strip(".,;:?!\"'()’").removesuffix("'s").removesuffix("’s")
            if text in by_answer and text not in seen:
                seen.add(text)
                if any(text in marked.text or text in marked.title for marked in second.positives):
                    yield from ((first, text) for first in by_answer[text])


def _together(first: Example, second: Example, answer: str) -> Example | None:
    """Both questions as one, or None where they are not two steps or a step's answer is told."""
    texts = {marked.text for marked in second.positives}
    if len(second.question.split()) > _SECOND or any(marked.text in texts for marked in first.positives):
        return None
    question = put(second.question, answer, as_phrase(first.question))
    if not question or holds(question.lower(), (*first.answers, *second.answers)):
        return None
    if any(holds(marked.text.lower(), second.answers) for marked in first.positives):
        return None
    id_ = f"{NAME}:{first.id}+{second.id.removeprefix(f'{NAME}:')}"
    answers = tuple(dict.fromkeys((*second.answers, *first.answers)))
    return Example(id_, NAME, question, (*first.positives, *second.positives), (), answers)


def _said(text: str) -> set[str]:
    """The sentences of a text that say enough to be told from others."""
    return {plain(text[start:end]) for start, end in sentences(text) if end - start >= _TELLING}
