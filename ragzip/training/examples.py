"""Training sets as questions with marked passages: which characters help to answer, and which passages do not."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ragzip.errors import IngestError, UsageError
from ragzip.evaluation.data import data_dir, open_set
from ragzip.evaluation.record import Record
from ragzip.text import Stretch, intersect, merge, sentences
from ragzip.types import Passage

LABELLED = (
    "squad",
    "squadshifts",
    "policyqa",
    "qed",
    "hotpotqa",
    "2wikimultihopqa",
    "nq_multidoc",
    "fever_rationale",
    "scifact",
    "selqa",
    "entailmentbank",
    "qmsum",
)
"""Sets with marked sentences, or with answers that can be found in a marked passage."""

RANKED = ("musique", "fairytaleqa", "medquad")
"""Sets that say which passage is needed; what the passages of ``musique`` answer says which of its sentences."""

EXTRA = ("squad_sentences", "squad_paragraphs")
"""Two more files of SQuAD's training set: sentences that answer, and paragraphs with questions."""

_SURE = 40  # characters of a sentence that two sets share only where they share the passage
_FORM = "See the README of the data folder."


@dataclass(frozen=True, slots=True)
class Marked:
    """A passage and what of it helps.

    Attributes:
        text: The passage's.
        title: The passage's, or "".
        support: Stretches of ``text`` that help to answer, merged; none in a passage that does not help.
        relevant: Whether the passage helps at all.
        known: Whether ``support`` says which sentences do; False where only the passage as a whole is judged.
    """

    text: str
    title: str = ""
    support: tuple[Stretch, ...] = ()
    relevant: bool = False
    known: bool = True


@dataclass(frozen=True, slots=True)
class Example:
    """A question with passages that help and passages that do not.

    Attributes:
        id: Unique over all sets.
        set_name: Where it comes from.
        question: What is asked.
        positives: Passages that help; at least one, but for questions asked again, see ``second_looks``.
        negatives: Passages that came with the question and do not help; may be empty, see ``mine``.
        answers: Reference answers, for telling passages that hold one by chance.
    """

    id: str
    set_name: str
    question: str
    positives: tuple[Marked, ...]
    negatives: tuple[Marked, ...] = ()
    answers: tuple[str, ...] = ()


def read_examples(names: Sequence[str], *, data: Path | None, seed: int, most: Mapping[str, int]) -> list[Example]:
    """The examples of training sets.

    Args:
        names: Out of ``LABELLED``, ``RANKED`` and ``EXTRA``.
        data: The data folder; else see ``data_dir``.
        seed: For the draw where a set has more than its share, and for cutting long documents.
        most: At most so many questions of a set; a set not named here is taken whole.

    Raises:
        UsageError: No such set.
        IngestError: A file that is not in its form.
    """
    found: list[Example] = []
    for name in names:
        draw = random.Random(f"{seed} {name}")  # noqa: S311 - no secret
        if name in EXTRA:
            folder = _folder(data)
            try:
                examples = list(_EXTRA_READERS[name](folder))
            except (KeyError, TypeError, AttributeError) as error:
                raise IngestError(f"{folder}: {name!r} is not in its form ({error!r})", hint=_FORM) from error
        elif name in (*LABELLED, *RANKED):
            examples = list(_from_set(name, data, draw))
        else:
            known = ", ".join((*LABELLED, *RANKED, *EXTRA))
            raise UsageError(f"unknown training set {name!r}", hint=f"Known: {known}.")
        if not examples:
            raise IngestError(f"{name!r} holds no example that can be trained on", hint=_FORM)
        limit = most.get(name, len(examples))
        if limit < len(examples):
            examples = [examples[i] for i in sorted(draw.sample(range(len(examples)), limit))]
        found += examples
    return found


def fingerprint(examples: Sequence[Example]) -> str:
    """The same for the same examples: a training goes on only with the data it began with."""
    digest = hashlib.sha256()
    for example in examples:
        marked = [(m.title, m.text, m.support, m.relevant, m.known) for m in (*example.positives, *example.negatives)]
        digest.update(repr((example.id, example.question, example.answers, marked)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _from_set(name: str, data: Path | None, draw: random.Random) -> Iterator[Example]:
    read = open_set(name, data=data, split="train")
    held_out = _paragraphs_of_dev(data) if name == "musique" else frozenset()
    steps = _steps(_folder(data)) if name == "musique" else {}
    corpus = {passage.id: passage for passage in read.corpus}
    for record in read.records:
        positives, negatives = (
            tuple(m for m in some if not held_out or _key(m.text) not in held_out)
            for some in _marked(record, corpus, known=read.labels == "sentences", steps=steps.get(record.id, {}))
        )
        if name == "entailmentbank":  # single sentences: put them together into passages
            positives, negatives = _gathered((*positives, *negatives), draw)
        positives = tuple(cut_out(m, draw) for m in positives)
        negatives = tuple(cut_out(m, draw) for m in negatives)
        answers = record.answers if read.task == "short" else ()
        if positives and record.question.strip():
            yield Example(f"{name}:{record.id}", name, record.question, positives, negatives, answers)


def _marked(
    record: Record, corpus: Mapping[str, Passage], *, known: bool, steps: Mapping[int, Sequence[str]]
) -> tuple[tuple[Marked, ...], tuple[Marked, ...]]:
    """The passages that help, with their marks, and those that do not.

    ``steps`` has, by the passage's place, what it answers on the way to the answer.
    """
    spans: dict[str, list[Stretch]] = {}
    for span in record.relevant:
        spans.setdefault(span.passage_id, []).append((span.start, span.end))
    passages = list(record.passages)
    for id_, grade in record.qrels.items():
        if grade > 0 and id_ in corpus and not record.passages:
            passages.append(corpus[id_])
            spans.setdefault(id_, [])
    positives: list[Marked] = []
    negatives: list[Marked] = []
    for place, passage in enumerate(passages):
        if passage.id not in spans:
            negatives.append(Marked(passage.text, passage.title))
            continue
        support = tuple(merge(spans[passage.id]))
        sure = known and bool(support)  # a judgement alone does not say which sentences help
        if not known:
            support = tuple(with_answer(passage.text, steps.get(place, record.answers)))
            sure = bool(support)
        positives.append(Marked(passage.text, passage.title, support, True, sure))
    return tuple(positives), tuple(negatives)


def with_answer(text: str, answers: Sequence[str]) -> list[Stretch]:
    """The sentences that hold an answer of four letters or more, whatever the case."""
    low = text.lower()
    wanted = [answer.lower() for answer in answers if len(answer) > 3]
    return merge((start, end) for start, end in sentences(text) if any(a in low[start:end] for a in wanted))


def _gathered(marked: Iterable[Marked], draw: random.Random) -> tuple[tuple[Marked, ...], tuple[Marked, ...]]:
    """Single sentences, shuffled and joined to passages of six to nine."""
    units = list(marked)
    draw.shuffle(units)
    positives: list[Marked] = []
    negatives: list[Marked] = []
    while units:
        size = draw.randint(6, 9)
        some, units = units[:size], units[size:]
        made = joined(some)
        (positives if made.relevant else negatives).append(made)
    return tuple(positives), tuple(negatives)


def joined(units: Sequence[Marked]) -> Marked:
    """Passages one after the other as one."""
    text, support = "", []
    for unit in units:
        start = len(text) + bool(text)
        text = f"{text} {unit.text}" if text else unit.text
        support += [(start + a, start + b) for a, b in unit.support]
    return Marked(text, "", tuple(merge(support)), any(unit.relevant for unit in units))


def cut_out(marked: Marked, draw: random.Random, *, least: int = 500, most: int = 1200) -> Marked:
    """A stretch of whole sentences from a passage that is longer than ``most`` characters, around what helps."""
    if len(marked.text) <= most:
        return marked
    size = draw.randint(least, most)
    units = sentences(marked.text)
    if not units:
        return marked
    if marked.support:
        at = draw.choice(marked.support)[0]
        first = next((i for i, (_, end) in enumerate(units) if end > at), 0)
    else:
        first = draw.randrange(len(units))
    last = first
    while units[last][1] - units[first][0] < size:
        before = first > 0 and (last + 1 == len(units) or draw.random() < 0.5)
        if before:
            first -= 1
        elif last + 1 < len(units):
            last += 1
        else:
            break
    start, end = units[first][0], min(units[last][1], units[first][0] + 2 * most)
    support = tuple((a - start, b - start) for a, b in intersect(marked.support, [(start, end)]))
    known = marked.known and bool(support) == bool(marked.support)  # what helps may stand late in an endless sentence
    return replace(marked, text=marked.text[start:end], support=support, known=known)


def _folder(data: Path | None) -> Path:
    folder = data_dir(data)
    if folder is None:
        raise UsageError("the data folder is not here", hint="Name it with --data-dir or RAGZIP_DATA.")
    return folder


def plain(text: str) -> str:
    """A text as what it says: in lower case, with single spaces."""
    return " ".join(text.casefold().split())


def _key(text: str) -> str:
    return " ".join(text.lower().split())[:200]


def _paragraphs_of_dev(data: Path | None) -> frozenset[str]:
    """Paragraphs of SQuAD's development set: some stand in MuSiQue's training set, and must not be trained on."""
    read = open_set("squad", data=data, split="dev")
    return frozenset(_key(passage.text) for record in read.records for passage in record.passages)


def steps_of_dev(data: Path | None) -> tuple[frozenset[str], frozenset[str]]:
    """What must not be put together again: the steps that MuSiQue's development set asks, and the sentences it reads.

    Both as ``plain`` text. Some of its questions are made from those of SQuAD's training set. None
    where the set is not there.
    """
    path = _packed_or_plain(_folder(data) / "musique" / "dev.jsonl.gz")
    if not path.is_file():
        return frozenset(), frozenset()
    asked, told = set(), set()
    for row in _lines(path):
        steps = _dicts(row, "question_decomposition")
        asked |= {" ".join(str(step.get("question")).casefold().split()) for step in steps}
        for paragraph in _dicts(row, "paragraphs"):
            text = str(paragraph.get("paragraph_text"))
            told |= {plain(text[a:b]) for a, b in sentences(text) if b - a >= _SURE}
    return frozenset(asked), frozenset(told)


def _steps(folder: Path) -> dict[str, dict[int, list[str]]]:
    """What each paragraph of MuSiQue answers on the way to the answer, by question and the paragraph's place.

    Files that do not say so give none: their sentences are marked by the answer alone.
    """
    found: dict[str, dict[int, list[str]]] = {}
    for row in _lines(_packed_or_plain(folder / "musique" / "train.jsonl.gz")):
        for step in _dicts(row, "question_decomposition"):
            place, answer = (step.get(key) for key in ("paragraph_support_idx", "answer"))
            if isinstance(place, int) and answer:
                found.setdefault(str(row.get("id")), {}).setdefault(place, []).append(str(answer))
    return found


def _dicts(row: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The objects of a list in a row; none where there is no such list."""
    value = row.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _packed_or_plain(packed: Path) -> Path:
    """A file of a set, which may have been unpacked: then it has the name without ``.gz``."""
    return packed if packed.is_file() else packed.with_suffix("")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"a line is no JSON object but {line[:40]!r}")
                yield row
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise IngestError(f"{path} cannot be read: {error}") from error


def _sentences(folder: Path) -> Iterator[Example]:
    """Questions with the one sentence that answers them: passages are made of these by ``mine``."""
    for row in _lines(_packed_or_plain(folder / "squad" / "train-answer-sentences.jsonl.gz")):
        text = str(row["answer_sentence"]).strip()
        if text:
            positive = Marked(text, "", ((0, len(text)),), True)
            yield Example(f"squad_sentences:{row['question_id']}", "squad_sentences", str(row["question"]), (positive,))


def _paragraphs(folder: Path) -> Iterator[Example]:
    """Questions on whole paragraphs; where an answer stands is found by its text."""
    for number, row in enumerate(_lines(_packed_or_plain(folder / "squad" / "train-extra-paragraphs.jsonl.gz"))):
        text = str(row["context"])
        for place, asked in enumerate(row["qas"]):
            answer = str(asked["answer"])
            at = text.find(answer) if answer.strip() else -1
            support = with_answer(text, [answer]) or [s for s in sentences(text) if s[0] <= at < s[1]]
            if support:
                positive = Marked(text, "", tuple(support), True)
                id_ = f"squad_paragraphs:{number}.{place}"
                yield Example(id_, "squad_paragraphs", str(asked["question"]), (positive,), (), (answer,))


_EXTRA_READERS: Mapping[str, Callable[[Path], Iterator[Example]]] = {
    "squad_sentences": _sentences,
    "squad_paragraphs": _paragraphs,
}
