"""Sets with a corpus to retrieve from: HotpotQA pooled, Cranfield, DBpedia, MedQuAD, and the chunking evaluation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial

from ragzip.evaluation.data._lines import read_text
from ragzip.evaluation.data.beir import read_corpus, read_qrels, read_queries
from ragzip.evaluation.data.sets._base import Content, NamedSet, Wanted, clean, trim
from ragzip.evaluation.record import Record
from ragzip.text import Stretch, cut_before, sentences
from ragzip.types import Passage, Span

VERSION = "1"

CHUNK = 1000
"""Most characters of one passage of the chunking evaluation."""


def read_folder(wanted: Wanted, name: str) -> Content:
    """A BEIR folder of the data folder."""
    corpus = read_corpus(wanted.find(f"{name}/corpus.jsonl"))
    qrels = read_qrels(wanted.find(f"{name}/qrels.tsv"))
    return Content(read_queries(wanted.find(f"{name}/queries.jsonl"), qrels, corpus), corpus)


def read_medquad(wanted: Wanted) -> Content:
    """Questions over all answers; relevant is every answer that was given to the same words."""
    lines = list(wanted.lines("medquad/{}.jsonl"))
    ids = [f"{raw['file']}#{raw['qid']}" for raw in lines]
    alike: dict[str, list[str]] = defaultdict(list)
    for own, raw in zip(ids, lines, strict=True):
        alike[raw["question"].strip()].append(own)
    corpus = tuple(
        Passage(own, clean(raw["answer"])[0], raw["focus"].strip()) for own, raw in zip(ids, lines, strict=True)
    )
    records = [
        Record(own, question, qrels=dict.fromkeys(alike[question], 1))
        for own, raw in zip(ids, lines, strict=True)
        if (question := raw["question"].strip())
    ]
    return Content(records, corpus)


def read_chunking(wanted: Wanted) -> Content:
    """Five long documents cut at sentence ends into passages; relevant are the labelled characters, cut likewise."""
    questions = list(wanted.lines("chunking_eval/questions.jsonl"))
    chunks: dict[str, list[tuple[int, Passage]]] = {}
    for name in dict.fromkeys(str(raw["corpus_id"]) for raw in questions):
        document = read_text(wanted.find(f"chunking_eval/{name}.md"))
        chunks[name] = [
            (start, Passage(f"{name}/{number}", document[start:end], name.replace("_", " ")))
            for number, (start, end) in enumerate(chunked(document))
        ]
    records = []
    for number, raw in enumerate(questions, 1):
        places = [(entry["start_index"], entry["end_index"]) for entry in raw["references"]]
        relevant = tuple(dict.fromkeys(_cut(chunks[str(raw["corpus_id"])], places)))
        grades = dict.fromkeys((span.passage_id for span in relevant), 1)
        records.append(Record(str(number), raw["question"].strip(), relevant=relevant, qrels=grades))
    return Content(records, tuple(passage for found in chunks.values() for _, passage in found))


def _cut(chunks: list[tuple[int, Passage]], places: list[Stretch]) -> Iterator[Span]:
    for offset, passage in chunks:
        for start, end in places:
            inside = max(start - offset, 0), min(end - offset, len(passage.text))
            if inside[0] < inside[1]:
                first, last = trim(passage.text, *inside)
                if first < last:
                    yield Span(passage.id, first, last)


def chunked(document: str) -> Iterator[Stretch]:
    """Runs of sentences of at most ``CHUNK`` characters; a longer sentence is cut, at white space where there is."""
    start = end = -1
    for piece in (part for sentence in sentences(document) for part in _parts(document, *sentence)):
        if start >= 0 and piece[1] - start > CHUNK:
            yield start, end
            start = -1
        start, end = piece[0] if start < 0 else start, piece[1]
    if start >= 0:
        yield start, end


def _parts(text: str, start: int, end: int) -> Iterator[Stretch]:
    while end - start > CHUNK:
        stop = max(text.rfind(" ", start + 1, start + CHUNK), text.rfind("\n", start + 1, start + CHUNK))
        stop = stop if stop > start else max(cut_before(text, start + CHUNK), start + 1)
        yield trim(text, start, stop)
        start = trim(text, stop, end)[0]
    yield start, end


def _folder(name: str, description: str) -> NamedSet:
    return NamedSet(name, ("dev",), "retrieval", "", description, VERSION, partial(read_folder, name=name))


SETS = (
    _folder("hotpotqa_pooled500", "two-hop questions over 4,937 Wikipedia paragraphs"),
    _folder("cranfield", "aerodynamics questions over 1,400 abstracts"),
    _folder("dbpedia_small", "names and descriptions of entities over 5,000 abstracts, graded"),
    NamedSet(
        "medquad",
        ("train",),
        "retrieval",
        "",
        "health questions over 16,407 answers of public agencies",
        VERSION,
        read_medquad,
    ),
    NamedSet(
        "chunking_eval",
        ("dev",),
        "retrieval",
        "sentences",
        "questions over five long documents in passages, relevant characters labelled",
        VERSION,
        read_chunking,
    ),
)
