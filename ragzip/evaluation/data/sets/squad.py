"""Sets in SQuAD's form: SQuAD itself, its German, Chinese, Arabic and Hindi translation, and others like it.

A record has one passage, the paragraph. Relevant are the sentences that hold an answer of any annotator.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ragzip.evaluation.data._lines import read_json
from ragzip.evaluation.data.sets._base import (
    Content,
    NamedSet,
    Wanted,
    clean,
    distinct,
    holding,
    plain_title,
    unique,
)
from ragzip.evaluation.record import Record
from ragzip.text import Stretch, sentences
from ragzip.types import Passage, Span

VERSION = "1"


def read_squad(wanted: Wanted, files: Mapping[str, str]) -> Content:
    """Reads a file in SQuAD's form; ``files`` names it for each split."""
    raw = read_json(wanted.find(files[wanted.split]))
    records: list[Record] = []
    for number, article in enumerate(raw["data"]):
        title = plain_title(article.get("title") or "")
        for place, paragraph in enumerate(article["paragraphs"]):
            text, lead = clean(paragraph["context"])
            passage = Passage(f"{title or number}/{place}", text, title)
            found = sentences(text)
            records += (_record(question, passage, found, lead) for question in paragraph["qas"])
    ids = unique(record.id for record in records)
    if ids != [record.id for record in records]:
        records = [Record(i, r.question, r.answers, r.passages, r.relevant) for i, r in zip(ids, records, strict=True)]
    return Content(records)


def _record(raw: Mapping[str, Any], passage: Passage, found: list[Stretch], lead: int) -> Record:
    answers = distinct(answer["text"] for answer in raw["answers"])
    places = [locate(passage.text, answer["text"], answer["answer_start"] - lead) for answer in raw["answers"]]
    relevant = holding(found, [place for place in places if place is not None])
    return Record(
        str(raw["id"]),
        raw["question"].strip(),
        answers or ("",),  # a question that its paragraph does not answer
        (passage,),
        tuple(Span(passage.id, start, end) for start, end in relevant),
    )


def locate(text: str, answer: str, start: int) -> Stretch | None:
    """Where an answer stands: at ``start``, else the nearest place that holds it, None where none does."""
    bare, before = clean(answer)
    start += before
    if not bare:
        return None
    if start >= 0 and text.startswith(bare, start):
        return start, start + len(bare)
    at, nearest = text.find(bare), -1
    while at >= 0:
        if nearest < 0 or abs(at - start) < abs(nearest - start):
            nearest = at
        at = text.find(bare, at + 1)
    return (nearest, nearest + len(bare)) if nearest >= 0 else None


def _set(name: str, description: str, **files: str) -> NamedSet:
    reader = partial(read_squad, files=files)
    return NamedSet(name, tuple(files), "short", "sentences", description, VERSION, reader)


_LANGUAGES = {"de": "German", "zh": "Chinese", "ar": "Arabic", "hi": "Hindi"}

SETS = (
    _set(
        "squad",
        "questions on one Wikipedia paragraph, answers as in the text (SQuAD 1.1)",
        dev="squad/dev-v1.1.json",
        train="squad/train-v1.1-part.json",
    ),
    _set("squad_v2", "as squad, half of the questions without an answer in the text", dev="squad/dev-v2.0.json"),
    _set("squadshifts", "as squad, on newer Wikipedia articles", train="squadshifts/train-new-wiki.json"),
    _set("policyqa", "questions on paragraphs of privacy policies", train="policyqa/train.json"),
    _set("covidqa", "questions on whole scientific articles, up to 67,000 characters", dev="covidqa/dev.json"),
    *(
        _set(f"xquad_{code}", f"questions and paragraphs of squad in {language}", dev=f"xquad/xquad.{code}.json")
        for code, language in _LANGUAGES.items()
    ),
)
