"""Files of records: JSON lines of questions with answers, passages and relevant spans.

A line is an object::

    {"id": "7", "question": "Who?", "answers": ["Ada"], "passages": [{"id": "p", "title": "T", "text": "Ada did."}],
     "relevant": [{"passage_id": "p", "start": 0, "end": 8}], "qrels": {"p": 1}}

Only ``question`` must be there. Other fields are passed over.
"""

from __future__ import annotations

import difflib
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ragzip.errors import IngestError
from ragzip.evaluation.data._lines import json_lines, kind
from ragzip.evaluation.record import DataSet, Record, Task
from ragzip.types import Passage, Span

VERSION = "1"
SUFFIXES = (".jsonl", ".jsonl.gz")

_FORM = (
    'A record is {"question": "...", "answers": ["..."], "passages": [{"id", "title", "text"}], '
    '"relevant": [{"passage_id", "start", "end"}]}.'
)
_LONG = 20
"""Words from which on an answer counts as long."""


def is_records(path: Path) -> bool:
    """Whether a path is called like a file of records."""
    return path.name.lower().endswith(SUFFIXES)


def read_records(path: Path) -> DataSet:
    """A set from a file of records, ``.jsonl`` or ``.jsonl.gz``.

    Raises:
        IngestError: A line that is no record, with file and line; or no record at all.
    """
    numbered = ((f"{path}:{number}", parse_record(raw, f"{path}:{number}", number)) for number, raw in json_lines(path))
    records = tuple(distinct(numbered))
    if not records:
        raise IngestError(f"{path}: has no record", hint=_FORM)
    name = path.name.removesuffix(".gz").removesuffix(".jsonl")
    return DataSet(name, records, VERSION, str(path), task=task_of(records), labels=labels_of(records))


def distinct(records: Iterable[tuple[str, Record]]) -> Iterator[Record]:
    """The records, each given with its place, as long as no id comes twice.

    Raises:
        IngestError: Two records with one id.
    """
    seen: dict[str, str] = {}
    for where, record in records:
        if record.id in seen:
            raise IngestError(
                f"{where}: the record id {record.id!r} stands at {seen[record.id]} already",
                hint="Ids are unique; records without one get their line number.",
            )
        seen[record.id] = where
        yield record


_FIELDS = ("id", "question", "answers", "answer", "passages", "relevant", "qrels")


def parse_record(raw: Mapping[str, Any], where: str, number: int) -> Record:
    """One record from its JSON form.

    Args:
        raw: The object.
        where: Its place, which errors start with.
        number: Its line, which is its id where it has none.

    Raises:
        IngestError: A field that is missing or not what it should be.
    """
    _refuse_misspelt(raw, where)
    question = _text(raw.get("question"), where, "question")
    if not question.strip():
        raise _bad(where, "the question is empty")
    passages = _passages(raw, where)
    return Record(
        id=_id(raw.get("id"), where, "id") or str(number),
        question=question,
        answers=_answers(raw, where),
        passages=passages,
        relevant=_relevant(raw, {passage.id: len(passage.text) for passage in passages}, where),
        qrels=_qrels(raw, where),
    )


def task_of(records: Sequence[Record]) -> Task:
    """What kind of answer the questions want, from the answers that are known.

    ``retrieval`` where nothing but relevance judgements is known, ``yes_no`` where all answers are yes, no or maybe,
    ``long`` where half of the records have no answer of fewer than 20 words, else ``short``.
    """
    answered = [record.answers for record in records if any(record.answers)]
    if not answered:
        return "retrieval" if any(record.qrels for record in records) else "short"
    if all(answer.strip().lower().rstrip(".") in ("yes", "no", "maybe") for answers in answered for answer in answers):
        return "yes_no"
    shortest = [min(len(answer.split()) for answer in answers if answer) for answers in answered]
    return "long" if statistics.median(shortest) >= _LONG else "short"


def labels_of(records: Sequence[Record]) -> Literal["sentences", "passages", ""]:
    """What the relevant spans mark: ``passages`` where each is a whole passage, else ``sentences``; "" without any."""
    found: Literal["passages", ""] = ""
    for record in records:
        whole = {passage.id: (0, len(passage.text)) for passage in record.passages}
        if any(whole[span.passage_id] != (span.start, span.end) for span in record.relevant):
            return "sentences"
        found = "passages" if record.relevant else found
    return found


def _refuse_misspelt(raw: Mapping[str, Any], where: str) -> None:
    """Other fields are passed over, but not ``anwsers`` where there are no ``answers``."""
    for key in raw:
        near = () if key in _FIELDS else difflib.get_close_matches(str(key), _FIELDS, n=1, cutoff=0.85)
        if near and near[0] not in raw:
            raise _bad(where, f"the field {key!r} is unknown; {near[0]!r} is meant?")


def _answers(raw: Mapping[str, Any], where: str) -> tuple[str, ...]:
    key = "answers" if raw.get("answers") is not None else "answer"
    value = raw.get(key)
    if isinstance(value, str):
        return (value,)
    return tuple(_text(answer, where, f"{key}.{at}") for at, answer in enumerate(_list(value, where, key)))


def _passages(raw: Mapping[str, Any], where: str) -> tuple[Passage, ...]:
    passages: dict[str, Passage] = {}
    for at, item in enumerate(_list(raw.get("passages"), where, "passages")):
        path = f"passages.{at}"
        entry = {"text": item} if isinstance(item, str) else _object(item, where, path)
        own = _id(entry.get("id"), where, f"{path}.id") or str(at + 1)
        if own in passages:
            raise _bad(where, f"{path}: the passage id {own!r} comes twice in this record")
        title = entry.get("title")
        text = _text(entry.get("text"), where, f"{path}.text")
        passages[own] = Passage(own, text, "" if title is None else _text(title, where, f"{path}.title"))
    return tuple(passages.values())


def _relevant(raw: Mapping[str, Any], lengths: Mapping[str, int], where: str) -> tuple[Span, ...]:
    spans = []
    for at, item in enumerate(_list(raw.get("relevant"), where, "relevant")):
        path = f"relevant.{at}"
        entry = _object(item, where, path)
        own = _id(entry.get("passage_id"), where, f"{path}.passage_id")
        if own not in lengths:
            raise _bad(where, f"{path}: no passage of this record has the id {own!r}")
        start = _whole(entry.get("start"), where, f"{path}.start")
        end = _whole(entry.get("end"), where, f"{path}.end")
        if not 0 <= start < end <= lengths[own]:
            length = f"the {lengths[own]} characters of passage {own!r}"
            raise _bad(where, f"{path}: [{start}, {end}) is no stretch of {length}", _STRETCH)
        spans.append(Span(own, start, end))
    return tuple(spans)


_STRETCH = "A span needs 0 <= start < end <= length, in characters of the passage's text."


def _qrels(raw: Mapping[str, Any], where: str) -> dict[str, int]:
    value = raw.get("qrels")
    if value is None:
        return {}
    return {key: _whole(grade, where, f"qrels.{key}") for key, grade in _object(value, where, "qrels").items()}


def _text(value: Any, where: str, path: str) -> str:
    if not isinstance(value, str):
        raise _bad(where, f"{path} is missing" if value is None else f"{path} is {kind(value)}, not text")
    return value


def _id(value: Any, where: str, path: str) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not _text(value, where, path).strip():
        raise _bad(where, f"{path} is empty")
    return str(value)


def _whole(value: Any, where: str, path: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _bad(where, f"{path} is missing" if value is None else f"{path} is {kind(value)}, not a whole number")
    return value


def _list(value: Any, where: str, path: str) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise _bad(where, f"{path} is {kind(value)}, not a list")
    return value or []


def _object(value: Any, where: str, path: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _bad(where, f"{path} is {kind(value)}, not an object")
    return value


def _bad(where: str, problem: str, hint: str = _FORM) -> IngestError:
    return IngestError(f"{where}: {problem}", hint=hint)
