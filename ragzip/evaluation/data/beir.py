"""Retrieval sets in BEIR's layout: a folder with a corpus, queries and relevance judgements (qrels).

``corpus.jsonl`` holds ``_id``, ``title`` and ``text``, ``queries.jsonl`` holds ``_id`` and ``text``, and
``qrels/<split>.tsv`` or ``qrels.tsv`` one judgement a line: query, document, grade, with or without a header, or
TREC's four columns. Each may be gzip-compressed. Queries without judgements are left out, as BEIR does. A query
may carry ``answer`` or ``answers``, itself or in its ``metadata``: where all have one, pipelines are judged by their
answers too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ragzip.errors import IngestError, UsageError
from ragzip.evaluation.data._lines import json_lines, text_lines
from ragzip.evaluation.data.records import parse_record, task_of
from ragzip.evaluation.record import DataSet, Record
from ragzip.types import Passage

VERSION = "1"

_ORDER = ("test", "dev", "validation", "train")
"""Which split is read where none is asked for: BEIR's own, then the next best that is there."""


class Qrel(NamedTuple):
    """One relevance judgement and where it stands."""

    query: str
    document: str
    grade: int
    where: str


def is_beir(folder: Path) -> bool:
    """Whether a folder has a corpus and queries in BEIR's layout."""
    return all(_either(folder, name) is not None for name in ("corpus.jsonl", "queries.jsonl"))


def read_beir(folder: Path, split: str = "") -> DataSet:
    """A set from a folder in BEIR's layout.

    Args:
        folder: Where corpus, queries and qrels lie.
        split: Which ``qrels/<split>.tsv``; "" takes ``qrels.tsv``, or test, dev, train, whichever is there first.

    Raises:
        UsageError: The folder has no judgements, or none for this split.
        IngestError: A file that is not in the layout, with file and line.
    """
    corpus_file, queries_file = _either(folder, "corpus.jsonl"), _either(folder, "queries.jsonl")
    if corpus_file is None or queries_file is None:
        raise UsageError(
            f"{folder} is no BEIR folder: it needs corpus.jsonl and queries.jsonl",
            hint="They may end in .gz; the judgements are in qrels/<split>.tsv or qrels.tsv.",
        )
    qrels_file, found = _qrels_file(folder, split)
    corpus = read_corpus(corpus_file)
    records = read_queries(queries_file, read_qrels(qrels_file), corpus)
    return DataSet(folder.resolve().name, records, VERSION, str(folder), found, task_of(records), corpus)


def read_corpus(path: Path) -> tuple[Passage, ...]:
    """The passages of a corpus, in its order.

    Raises:
        IngestError: A line that is no passage, an id that comes twice, or no passage at all.
    """
    passages: dict[str, Passage] = {}
    for number, raw in json_lines(path):
        where = f"{path}:{number}"
        own = _id(raw, where)
        if own in passages:
            raise IngestError(f"{where}: the document id {own!r} comes twice")
        text, title = raw.get("text"), raw.get("title") or ""
        if not isinstance(text, str) or not isinstance(title, str):
            raise IngestError(f"{where}: text and title must be text", hint=_CORPUS)
        passages[own] = Passage(own, text, title)
    if not passages:
        raise IngestError(f"{path}: has no document", hint=_CORPUS)
    return tuple(passages.values())


_CORPUS = 'A line of the corpus is {"_id": "...", "title": "...", "text": "..."}.'


def read_queries(path: Path, qrels: list[Qrel], corpus: tuple[Passage, ...]) -> tuple[Record, ...]:
    """The queries that have judgements, in the file's order.

    Raises:
        IngestError: A line that is no query; a judgement for a query that is not there, or against another one; or
            judgements of which no relevant document stands in the corpus.
    """
    queries: dict[str, Record] = {}
    for number, raw in json_lines(path):
        where = f"{path}:{number}"
        own = _id(raw, where)
        if own in queries:
            raise IngestError(f"{where}: the query id {own!r} comes twice")
        if not isinstance(raw.get("text"), str) or not raw["text"].strip():
            raise IngestError(f"{where}: the query has no text", hint='A query is {"_id": "...", "text": "..."}.')
        metadata = raw.get("metadata")
        answered = raw if not isinstance(metadata, Mapping) or "answer" in raw or "answers" in raw else metadata
        form = {"id": own, "question": raw["text"].strip(), **{k: answered.get(k) for k in ("answer", "answers")}}
        queries[own] = parse_record(form, where, number)
    grades: dict[str, dict[str, int]] = {}
    for query, document, grade, where in qrels:
        if query not in queries:
            raise IngestError(f"{where}: no query has the id {query!r}", hint=f"The queries are in {path}.")
        if grades.setdefault(query, {}).setdefault(document, grade) != grade:
            raise IngestError(f"{where}: query {query!r} and document {document!r} have another grade further up")
    here = {passage.id for passage in corpus}
    if not any(grade > 0 and document in here for _, document, grade, _ in qrels):
        raise IngestError(f"{path.parent}: no relevant document of the qrels stands in the corpus")
    judged = {own: queries[own] for own in queries if own in grades}
    complete = all(record.answers for record in judged.values())  # some answers would make means over part of the set
    return tuple(
        Record(own, record.question, record.answers if complete else (), qrels=grades[own])
        for own, record in judged.items()
    )


def read_qrels(path: Path) -> list[Qrel]:
    """Relevance judgements: query, document and grade, or TREC's query, iteration, document and grade.

    Raises:
        IngestError: A line of another form, or no judgement at all.
    """
    qrels: list[Qrel] = []
    first = True
    for number, line in text_lines(path):
        cells = [cell.strip() for cell in line.split("\t")] if "\t" in line else line.split()
        where = f"{path}:{number}"
        header, first = first, False
        if len(cells) not in (3, 4) or not cells[0] or not cells[-2]:
            raise IngestError(f"{where}: needs 3 or 4 columns, not {len(cells)}", hint=_QRELS)
        try:
            qrels.append(Qrel(cells[0], cells[-2], int(cells[-1]), where))
        except ValueError as error:
            if not header:
                raise IngestError(f"{where}: the grade {cells[-1]!r} is no whole number", hint=_QRELS) from error
    if not qrels:
        raise IngestError(f"{path}: has no judgement", hint=_QRELS)
    return qrels


_QRELS = "A line is query, document, grade, with tabs between; or TREC's query, 0, document, grade."


def _id(raw: Mapping[str, Any], where: str) -> str:
    own = raw.get("_id", raw.get("id"))
    if isinstance(own, int) and not isinstance(own, bool):
        own = str(own)
    if not isinstance(own, str) or not own.strip():
        raise IngestError(f"{where}: has no _id", hint="Every document and query has an _id.")
    return own


def _either(folder: Path, name: str) -> Path | None:
    """The file, plain or compressed, or None where there is none."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _qrels_file(folder: Path, split: str) -> tuple[Path, str]:
    """The judgements and the split they are of."""
    alone = _either(folder, "qrels.tsv")
    if alone is not None and not split:
        return alone, ""
    names = sorted((folder / "qrels").iterdir()) if (folder / "qrels").is_dir() else []
    splits = {path.name.removesuffix(".gz").removesuffix(".tsv"): path for path in names if ".tsv" in path.name}
    wanted = [split] if split else [*_ORDER, *splits]
    for name in wanted:
        if name in splits:
            return splits[name], name
    there = f"It has: {', '.join(splits)}." if splits else "Judgements are in qrels/<split>.tsv or qrels.tsv."
    if alone is not None:
        there = "Its qrels.tsv is of no split: leave the split out."
    raise UsageError(f"{folder} has no judgements" + (f" for the split {split!r}" if split else ""), hint=there)
