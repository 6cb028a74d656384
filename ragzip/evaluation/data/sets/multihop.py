"""Questions that need several paragraphs: HotpotQA, 2WikiMultihopQA, MuSiQue.

A record has the paragraphs of its file in the file's order, distractors among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from ragzip.evaluation.data.sets._base import Content, NamedSet, Wanted, clean, distinct, joined, unique, whole
from ragzip.evaluation.record import Record
from ragzip.types import Passage, Span

VERSION = "1"


def read_hotpot(wanted: Wanted, file: str, joiner: str) -> Content:
    """HotpotQA's form: paragraphs as lists of sentences, labels as title and sentence number."""
    return Content([_hotpot_record(raw, joiner) for raw in wanted.lines(file)])


def _hotpot_record(raw: Mapping[str, Any], joiner: str) -> Record:
    passages, relevant = paragraphs(raw["context"], raw["supporting_facts"], joiner)
    return Record(raw["_id"], raw["question"].strip(), distinct([raw["answer"]]), passages, relevant)


def paragraphs(
    context: Iterable[tuple[str, list[str]]], facts: Iterable[tuple[str, int]], joiner: str = ""
) -> tuple[tuple[Passage, ...], tuple[Span, ...]]:
    """Passages from titles with sentences, and the spans of the labelled sentences.

    Labels that resolve to no sentence are left out; of two paragraphs with one title, a label means the first.
    """
    pairs = list(context)
    ids = unique(title.strip() or "untitled" for title, _ in pairs)
    passages: list[Passage] = []
    places: dict[tuple[str, int], Span] = {}
    for own, (title, sentences) in zip(ids, pairs, strict=True):
        passage, spans = joined(own, title.strip(), sentences, joiner)
        passages.append(passage)
        for at, span in enumerate(spans):
            if span is not None:
                places.setdefault((title, at), span)
    labelled = {span for title, at in facts if (span := places.get((title, at))) is not None}
    order = {own: at for at, own in enumerate(ids)}
    return tuple(passages), tuple(sorted(labelled, key=lambda span: (order[span.passage_id], span)))


def read_musique(wanted: Wanted) -> Content:
    """MuSiQue: 20 paragraphs, the supporting ones relevant as a whole; unanswerable questions are left out."""
    records = []
    for raw in wanted.lines("musique/{}.jsonl"):
        if not raw.get("answerable", True):
            continue
        ids = unique(paragraph["title"].strip() or "untitled" for paragraph in raw["paragraphs"])
        passages = tuple(
            Passage(own, clean(paragraph["paragraph_text"])[0], paragraph["title"].strip())
            for own, paragraph in zip(ids, raw["paragraphs"], strict=True)
        )
        relevant = tuple(
            whole(passage)
            for passage, paragraph in zip(passages, raw["paragraphs"], strict=True)
            if paragraph["is_supporting"] and passage.text
        )
        answers = distinct([raw["answer"], *raw.get("answer_aliases", ())])
        records.append(Record(raw["id"], raw["question"].strip(), answers, passages, relevant))
    return Content(records)


SETS = (
    NamedSet(
        "hotpotqa",
        ("dev", "train"),
        "short",
        "sentences",
        "two-hop questions with ten Wikipedia paragraphs, distractor setting",
        VERSION,
        partial(read_hotpot, file="hotpotqa/{}.jsonl", joiner=""),
    ),
    NamedSet(
        "hotpotqa_fullwiki",
        ("dev",),
        "short",
        "sentences",
        "two-hop questions with ten retrieved paragraphs; what is needed is often missing",
        VERSION,
        partial(read_hotpot, file="hotpotqa/dev_fullwiki.jsonl", joiner=""),
    ),
    NamedSet(
        "2wikimultihopqa",
        ("dev", "train"),
        "short",
        "sentences",
        "multi-hop and comparison questions with ten Wikipedia paragraphs",
        VERSION,
        partial(read_hotpot, file="2wikimultihopqa/{}.jsonl", joiner=" "),
    ),
    NamedSet(
        "musique",
        ("dev", "train"),
        "short",
        "passages",
        "two- to four-hop questions with twenty Wikipedia paragraphs",
        VERSION,
        read_musique,
    ),
)
