"""Questions on whole stories and meetings: FairytaleQA, SQuALITY, QMSum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ragzip.evaluation.data.sets._base import Content, NamedSet, Wanted, clean, distinct, joined, unique, whole
from ragzip.evaluation.record import Record
from ragzip.types import Passage, Span

VERSION = "1"


def read_fairytaleqa(wanted: Wanted) -> Content:
    """A story's sections as passages; relevant are the sections the question was written for, as a whole."""
    stories = {
        raw["story"]: {
            section["section"]: Passage(f"{raw['story']}/{section['section']}", clean(section["text"])[0], _name(raw))
            for section in raw["sections"]
        }
        for raw in wanted.lines("fairytaleqa/{}_stories.jsonl")
    }
    questions = list(wanted.lines("fairytaleqa/{}_questions.jsonl"))
    ids = unique(f"{raw['story']}/{raw['question_id']}" for raw in questions)
    return Content([_fairytale(own, raw, stories[raw["story"]]) for own, raw in zip(ids, questions, strict=True)])


def _fairytale(own: str, raw: Mapping[str, Any], sections: Mapping[str, Passage]) -> Record:
    answers = distinct(raw.get(f"answer{number}") or "" for number in range(1, 7))
    needed = {section.strip() for section in raw["cor_section"].split(",")}
    relevant = tuple(whole(passage) for section, passage in sections.items() if section in needed and passage.text)
    return Record(own, raw["question"].strip(), answers, tuple(sections.values()), relevant)


def _name(raw: Mapping[str, Any]) -> str:
    return str(raw["story"]).replace("-", " ")


def read_squality(wanted: Wanted) -> Content:
    """A short story as one passage; what four writers answered in a paragraph or more."""
    records = []
    for raw in wanted.lines("squality/{}.jsonl"):
        own = str(raw["metadata"]["passage_id"])
        passage = Passage(own, clean(raw["document"])[0])
        for question in raw["questions"]:
            answers = distinct(response["response_text"] for response in question["responses"])
            number = question["question_number"]
            records.append(Record(f"{own}/{number}", question["question_text"].strip(), answers, (passage,)))
    return Content(records)


def read_qmsum(wanted: Wanted) -> Content:
    """A meeting as one passage, a line ``Speaker: words`` for each turn; relevant are the labelled runs of turns.

    Questions on the meeting as a whole have no labels.
    """
    records: list[Record] = []
    for raw in wanted.lines("qmsum/{}.jsonl"):
        own = str(raw["meeting_id"])
        turns = [f"{turn['speaker'].strip()}: {turn['content'].strip()}" for turn in raw["meeting_transcripts"]]
        meeting, spans = joined(own, "", turns, "\n")
        for number, question in enumerate([*raw["general_query_list"], *raw["specific_query_list"]], 1):
            runs = question.get("relevant_text_span", ())
            relevant = tuple(Span(own, *_run(spans, int(first), int(last))) for first, last in runs)
            answers = distinct([question["answer"]])
            records.append(Record(f"{own}/{number}", question["query"].strip(), answers, (meeting,), relevant))
    return Content(records)


def _run(spans: list[Span | None], first: int, last: int) -> tuple[int, int]:
    """From the first turn's first character to the last turn's end; every turn has one, its speaker's name."""
    found = [span for span in spans[first : last + 1] if span is not None]
    return found[0].start, found[-1].end


SETS = (
    NamedSet(
        "fairytaleqa",
        ("dev", "train"),
        "short",
        "passages",
        "questions on whole fairy tales in sections, answered in the reader's words",
        VERSION,
        read_fairytaleqa,
    ),
    NamedSet(
        "squality",
        ("dev", "train"),
        "long",
        "",
        "questions on whole short stories, four long answers each",
        VERSION,
        read_squality,
    ),
    NamedSet(
        "qmsum",
        ("dev", "train"),
        "long",
        "sentences",
        "queries on whole meeting transcripts, up to 140,000 characters, relevant turns labelled",
        VERSION,
        read_qmsum,
    ),
)
