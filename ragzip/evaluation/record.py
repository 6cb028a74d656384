"""What is evaluated: a question with what is known about its answer, and sets of such records."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from ragzip.types import Passage, Span

Task = Literal["short", "yes_no", "long", "retrieval"]
"""What kind of answer the questions want; ``retrieval`` sets have relevance judgements and no answers."""


@dataclass(frozen=True, slots=True)
class Record:
    """One question and its labels. What a set does not know stays empty, and metrics that need it are left out.

    Attributes:
        id: Unique within its set.
        question: What is asked.
        answers: Reference answers, any of which is right. ``("",)`` says that the passages hold no answer.
        passages: The retrieval result that comes with the question, in order, or none.
        relevant: Characters of passages that are needed for the answer: supporting sentences where the set labels
            sentences, whole passages where it labels passages.
        qrels: Relevance grades by passage or document id; a grade above 0 is relevant.
    """

    id: str
    question: str
    answers: tuple[str, ...] = ()
    passages: tuple[Passage, ...] = ()
    relevant: tuple[Span, ...] = ()
    qrels: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The record as the JSON lines that ``--data FILE.jsonl`` reads."""
        return {
            "id": self.id,
            "question": self.question,
            "answers": list(self.answers),
            "passages": [{"id": p.id, "title": p.title, "text": p.text} for p in self.passages],
            "relevant": [{"passage_id": s.passage_id, "start": s.start, "end": s.end} for s in self.relevant],
            **({"qrels": dict(self.qrels)} if self.qrels else {}),
        }


@dataclass(frozen=True)
class DataSet:
    """Records with where they come from.

    Attributes:
        name: As it is asked for and printed.
        records: In the set's order, at least one; ids are unique.
        version: Of the reader: it changes whenever the same files would give other records.
        source: The file, folder or hub name it was read from.
        split: ``train``, ``dev``, ``test`` or "".
        task: What kind of answer its questions want.
        corpus: Passages to retrieve from, for sets that come with a corpus instead of passages for each question.
        labels: What ``relevant`` marks: ``sentences``, ``passages``, or "" where the set has no such labels.
    """

    name: str
    records: tuple[Record, ...]
    version: str = "1"
    source: str = ""
    split: str = ""
    task: Task = "short"
    corpus: tuple[Passage, ...] = ()
    labels: Literal["sentences", "passages", ""] = ""

    @cached_property
    def sha256(self) -> str:
        """Hash of the content of all records and the corpus, whatever file they came from."""
        digest = hashlib.sha256()
        for record in self.records:
            digest.update(_line(record.to_json()))
        for passage in self.corpus:
            digest.update(_line([passage.id, passage.title, passage.text]))
        return digest.hexdigest()

    def sample(self, limit: int | None, seed: int = 0) -> DataSet:
        """At most ``limit`` records, drawn with the seed, in the set's order; None takes all."""
        if limit is None or limit >= len(self.records):
            return self
        chosen = sorted(random.Random(seed).sample(range(len(self.records)), limit))  # noqa: S311 - no secret
        return replace(self, records=tuple(self.records[i] for i in chosen))


def _line(value: Mapping[str, Any] | Sequence[Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=True, sort_keys=True) + "\n").encode()
