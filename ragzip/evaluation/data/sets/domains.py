"""Questions of one trade: PubMedQA's abstracts and TAT-QA's financial reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ragzip.evaluation.data._lines import read_json
from ragzip.evaluation.data.sets._base import Content, NamedSet, Wanted, clean, distinct, whole
from ragzip.evaluation.record import Record
from ragzip.types import Passage

VERSION = "1"


def read_pubmedqa(wanted: Wanted) -> Content:
    """Research questions with the sections of an abstract but its conclusion, answered yes, no or maybe."""
    records = []
    for raw in wanted.lines("pubmedqa/{}.jsonl"):
        own = str(raw["pmid"])
        passages = tuple(
            Passage(f"{own}/{at}", clean(text)[0], label.strip().capitalize())
            for at, (label, text) in enumerate(zip(raw["LABELS"], raw["CONTEXTS"], strict=True), 1)
        )
        records.append(Record(own, raw["QUESTION"].strip(), (raw["final_decision"],), passages))
    return Content(records)


def read_tatqa(wanted: Wanted) -> Content:
    """A table, one line a row, and the paragraphs around it; relevant is what the answer was taken from, as a whole.

    Numbers are accepted with and without their scale; answers of several parts are given with commas between.
    """
    records: list[Record] = []
    for raw in read_json(wanted.find("tatqa/{}.json")):
        own = raw["table"]["uid"]
        rows = ["| " + " | ".join(cell.strip() for cell in row) + " |" for row in raw["table"]["table"]]
        table = Passage(f"{own}/table", "\n".join(rows), "Table")
        texts = {str(entry["order"]): entry["text"] for entry in raw["paragraphs"]}
        paragraphs = {order: Passage(f"{own}/{order}", clean(text)[0]) for order, text in texts.items()}
        passages = (table, *paragraphs.values())
        records += (_tatqa_record(question, passages, table, paragraphs) for question in raw["questions"])
    return Content(records)


def _tatqa_record(
    raw: Mapping[str, Any], passages: tuple[Passage, ...], table: Passage, paragraphs: Mapping[str, Passage]
) -> Record:
    needed = [table] if "table" in raw["answer_from"] else []
    needed += (paragraphs[order] for order in raw["rel_paragraphs"])
    value = raw["answer"]
    answer = ", ".join(str(part).strip() for part in value) if isinstance(value, list) else str(value)
    scale = {"": "", "percent": "%"}.get(raw["scale"], f" {raw['scale']}")
    answers = distinct([answer + scale if not answer.endswith(scale) else answer, answer])
    return Record(raw["uid"], raw["question"].strip(), answers, passages, tuple(whole(passage) for passage in needed))


SETS = (
    NamedSet(
        "pubmedqa",
        ("dev", "train"),
        "yes_no",
        "",
        "research questions with an abstract's sections, answered yes, no or maybe",
        VERSION,
        read_pubmedqa,
    ),
    NamedSet(
        "tatqa",
        ("dev",),
        "short",
        "passages",
        "questions on a table and paragraphs of a financial report; many answers are computed",
        VERSION,
        read_tatqa,
    ),
)
