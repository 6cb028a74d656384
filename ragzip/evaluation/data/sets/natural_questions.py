"""Questions people typed into a search engine: NQ among distractors, and QED's annotated paragraphs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ragzip.evaluation.data.sets._base import Content, NamedSet, Wanted, clean, distinct, plain_title, trim, whole
from ragzip.evaluation.record import Record
from ragzip.types import Passage, Span

VERSION = "1"


def read_nq_multidoc(wanted: Wanted) -> Content:
    """The gold passage among the first ``size - 1`` BM25 distractors, at a place drawn by a hash of the question's id.

    The place is uniform over the questions and the same in every run, so that no order of reading is favoured.
    """
    passages = {
        raw["pid"]: Passage(raw["pid"], clean(raw["text"])[0], raw["title"].strip())
        for raw in wanted.lines("nq_multidoc/passages.jsonl")
    }
    records = []
    for raw in wanted.lines("nq_multidoc/{}.jsonl"):
        gold = passages[raw["gold_pid"]]
        context = [passages[pid] for pid in raw["distractor_pids"][: wanted.size - 1]]
        context.insert(place(raw["qid"], len(context) + 1), gold)
        answers = distinct(raw["answers"])
        records.append(Record(str(raw["qid"]), raw["question"].strip(), answers, tuple(context), (whole(gold),)))
    return Content(records)


def place(qid: object, size: int) -> int:
    """Where the gold passage of a question stands among ``size``, from 0: the same on every machine."""
    digest = hashlib.sha256(f"nq_multidoc/{qid}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % size


def read_qed(wanted: Wanted) -> Content:
    """QED: a paragraph, and the one sentence that answers, where annotators found that one does.

    An answer of several parts is given as its parts with commas between.
    """
    return Content([_qed_record(raw) for raw in wanted.lines("qed/{}.jsonl")])


def _qed_record(raw: Mapping[str, Any]) -> Record:
    text, lead = clean(raw["paragraph_text"])
    passage = Passage(str(raw["example_id"]), text, plain_title(raw["title_text"]))
    relevant: tuple[Span, ...] = ()
    sentence = raw["annotation"].get("selected_sentence")
    if sentence:
        relevant = (Span(passage.id, *trim(text, sentence["start"] - lead, sentence["end"] - lead)),)
    answers = distinct(", ".join(part["string"].strip() for part in parts) for parts in raw["original_nq_answers"])
    return Record(str(raw["example_id"]), raw["question_text"].strip(), answers, (passage,), relevant)


SETS = (
    NamedSet(
        "nq_multidoc",
        ("dev", "train"),
        "short",
        "passages",
        "search questions with the gold passage among 9 distractors; nq_multidoc@20 gives 20 passages in all",
        VERSION,
        read_nq_multidoc,
        size=10,
        most=30,
    ),
    NamedSet(
        "qed",
        ("dev", "train"),
        "short",
        "sentences",
        "search questions on one paragraph, the answering sentence labelled where one answers alone",
        VERSION,
        read_qed,
    ),
)
