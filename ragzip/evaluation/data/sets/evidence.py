"""Sets whose sentences are labelled by hand: SciFact, FEVER, SelQA, EntailmentBank.

Claims are asked as ``Is this true? CLAIM`` and answered yes, no, or maybe where the passages decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ragzip.evaluation.data.beir import read_qrels
from ragzip.evaluation.data.sets._base import Content, NamedSet, Wanted, distinct, joined, plain_title, whole
from ragzip.evaluation.record import Record
from ragzip.types import Passage, Span

VERSION = "1"

_VERDICTS = {"SUPPORT": "yes", "CONTRADICT": "no", "SUPPORTS": "yes", "REFUTES": "no"}
_BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-COLON-": ":"}

Labelled = tuple[Passage, list[Span | None]]


def read_scifact(wanted: Wanted) -> Content:
    """Claims with the abstracts they cite; relevant are all rationale sentences."""
    abstracts = _abstracts(wanted)
    return Content([_claim(raw, abstracts) for raw in wanted.lines("scifact/claims_{}.jsonl")])


def _claim(raw: Mapping[str, Any], abstracts: Mapping[str, Labelled]) -> Record:
    cited = {str(own): abstracts[str(own)] for own in raw["cited_doc_ids"]}
    spans = {cited[str(e["doc_id"])][1][at] for e in raw["evidence"] for at in e["sentences"]}
    verdicts = distinct(_VERDICTS[evidence["label"]] for evidence in raw["evidence"])
    passages = tuple(passage for passage, _ in cited.values())
    return Record(str(raw["id"]), _asked(raw["claim"]), verdicts or ("maybe",), passages, _ordered(spans, passages))


def read_scifact_retrieval(wanted: Wanted) -> Content:
    """Claims as queries over all abstracts, as BEIR has it."""
    corpus = tuple(passage for passage, _ in _abstracts(wanted).values())
    qrels: dict[str, dict[str, int]] = {}
    for query, document, grade, _ in read_qrels(wanted.find("scifact/qrels_{}.tsv")):
        qrels.setdefault(query, {})[document] = grade
    records = [
        Record(str(raw["id"]), raw["claim"].strip(), qrels=qrels[str(raw["id"])])
        for raw in wanted.lines("scifact/claims_{}.jsonl")
        if str(raw["id"]) in qrels
    ]
    return Content(records, corpus)


def _abstracts(wanted: Wanted) -> dict[str, Labelled]:
    return {
        raw["_id"]: joined(raw["_id"], raw["title"].strip(), [sentence.strip() for sentence in raw["sentences"]], " ")
        for raw in wanted.lines("scifact/corpus.jsonl")
    }


def read_fever(wanted: Wanted) -> Content:
    """Claims with the Wikipedia page they are decided by; relevant are the sentences of every evidence."""
    pages = {
        raw["docid"]: joined(raw["docid"], _page(raw["docid"]), raw["sentences"], " ")
        for raw in wanted.lines("fever_rationale/docs.jsonl")
    }
    records = []
    for raw in wanted.lines("fever_rationale/{}.jsonl"):
        passages = tuple(pages[own][0] for own in raw["docids"])
        spans = {
            pages[piece["docid"]][1][at]
            for evidence in raw["evidences"]
            for piece in evidence
            for at in range(piece["start_sentence"], piece["end_sentence"])
        }
        verdict = (_VERDICTS[raw["classification"]],)
        own = str(raw["annotation_id"])
        records.append(Record(own, _asked(raw["query"]), verdict, passages, _ordered(spans, passages)))
    return Content(records)


def read_selqa(wanted: Wanted) -> Content:
    """Questions on one section of an article; relevant, and the answers, are the sentences that answer."""
    records = []
    for number, raw in enumerate(wanted.lines("selqa/{}.jsonl"), 1):
        article = plain_title(raw["article"])
        own = f"{article} / {raw['section'].strip()}"
        passage, spans = joined(own, article, [sentence.strip() for sentence in raw["candidates"]], " ")
        answers = distinct(raw["candidates"][at] for at in raw["answers"])
        relevant = _ordered({spans[at] for at in raw["answers"]}, (passage,))
        records.append(Record(str(number), raw["question"].strip(), answers, (passage,), relevant))
    return Content(records)


def read_entailmentbank(wanted: Wanted) -> Content:
    """Science questions with 25 facts, each a passage; relevant are those the proof uses."""
    records = []
    for number, raw in enumerate(wanted.lines("entailmentbank/{}.jsonl"), 1):
        facts = tuple(Passage(f"sent{at}", fact.strip()) for at, fact in enumerate(raw["sentences"], 1))
        relevant = tuple(whole(facts[at]) for at in sorted(raw["supporting"]))
        records.append(Record(str(number), raw["question"].strip(), distinct([raw["answer"]]), facts, relevant))
    return Content(records)


def _ordered(spans: set[Span | None], passages: tuple[Passage, ...]) -> tuple[Span, ...]:
    """The spans by their passage's place and their own."""
    order = {passage.id: at for at, passage in enumerate(passages)}
    return tuple(sorted((span for span in spans if span), key=lambda span: (order[span.passage_id], span)))


def _asked(claim: str) -> str:
    return f"Is this true? {claim.strip()}"


def _page(docid: str) -> str:
    for code, bracket in _BRACKETS.items():
        docid = docid.replace(code, bracket)
    return plain_title(docid)


SETS = (
    NamedSet(
        "scifact",
        ("dev", "train"),
        "yes_no",
        "sentences",
        "scientific claims with the abstracts they cite, rationale sentences labelled",
        VERSION,
        read_scifact,
    ),
    NamedSet(
        "scifact_retrieval",
        ("dev", "train"),
        "retrieval",
        "",
        "scientific claims as queries over 5,183 abstracts",
        VERSION,
        read_scifact_retrieval,
    ),
    NamedSet(
        "fever_rationale",
        ("train",),
        "yes_no",
        "sentences",
        "claims with the Wikipedia page that decides them, evidence sentences labelled",
        VERSION,
        read_fever,
    ),
    NamedSet(
        "selqa",
        ("dev", "train"),
        "long",
        "sentences",
        "questions on one section of a Wikipedia article, answered by its sentences",
        VERSION,
        read_selqa,
    ),
    NamedSet(
        "entailmentbank",
        ("dev", "train"),
        "short",
        "sentences",
        "science questions with 25 facts, those of the proof labelled",
        VERSION,
        read_entailmentbank,
    ),
)
