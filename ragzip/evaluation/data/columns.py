"""The usual columns of question answering sets, as the JSON form of a record.

Known are ``question`` or ``query``; ``answers`` or ``answer`` as text, a list, or an object with ``text`` (SQuAD) or
``value`` and ``aliases`` (TriviaQA); ``context``, ``contexts``, ``passages``, ``paragraphs``, ``documents`` or
``ctxs`` as text, a list of texts or of objects, or HotpotQA's titles with sentences; ``supporting_facts``,
``relevant``, ``qrels``; ``title``; and ``id``, ``_id``, ``qid`` or ``question_id``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ragzip.errors import IngestError
from ragzip.evaluation.data.sets._base import holding, unique
from ragzip.evaluation.data.sets.multihop import paragraphs
from ragzip.evaluation.data.sets.squad import locate
from ragzip.text import Stretch, sentences

_IDS = ("id", "_id", "qid", "question_id")
_QUESTIONS = ("question", "query", "question_text")
_ANSWERS = ("answers", "answer")
_PASSAGES = ("passages", "context", "contexts", "paragraphs", "documents", "ctxs")
_TEXTS = ("text", "passage_text", "paragraph_text", "contents", "content", "body")


def as_record(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A row in the form that files of records have.

    Raises:
        IngestError: It has no question, or a column of a known name holds something else.
    """
    question = _first(row, _QUESTIONS)
    if question is None:
        raise IngestError(
            f"{where}: no question among the columns {', '.join(map(str, row))}",
            hint=f"It is read from a column {' or '.join(_QUESTIONS)}.",
        )
    context, facts = _first(row, _PASSAGES), row.get("supporting_facts")
    pairs = _titled_sentences(context)
    form: dict[str, Any] = {"id": _first(row, _IDS), "question": question, "qrels": _grades(row.get("qrels"))}
    form["answers"] = answers = _answers(_first(row, _ANSWERS))
    if pairs is not None:
        joiner = "" if any(line[:1].isspace() for _, lines in pairs for line in lines[1:]) else " "
        passages, relevant = paragraphs(pairs, _facts(facts, where), joiner)
        form["passages"] = [{"id": p.id, "title": p.title, "text": p.text} for p in passages]
        form["relevant"] = [{"passage_id": s.passage_id, "start": s.start, "end": s.end} for s in relevant]
        return form
    form["passages"] = _passages(context, row.get("title"), where)
    form["relevant"] = row.get("relevant")
    if isinstance(context, str):
        form["relevant"] = form["relevant"] or _answering(context, _first(row, _ANSWERS))
        form["answers"] = answers if answers or not _is_squad(_first(row, _ANSWERS)) else [""]
    return form


def _grades(value: Any) -> Any:
    """Judgements without the empty places that columns have for the documents of other rows."""
    return {key: grade for key, grade in value.items() if grade is not None} if isinstance(value, Mapping) else value


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _answers(value: Any) -> Any:
    if isinstance(value, Mapping):
        if "text" in value:
            value = value["text"]
        elif "value" in value:
            value = [value["value"], *(value.get("aliases") or ())]
    if isinstance(value, str):
        return [value]
    return list(dict.fromkeys(value)) if _are(value, str) else value


def _is_squad(value: Any) -> bool:
    return isinstance(value, Mapping) and _are(value.get("text"), str) and _are(value.get("answer_start"), int)


def _answering(context: str, value: Any) -> list[dict[str, Any]]:
    """The sentences that hold an answer, where SQuAD's column says at which character it starts."""
    if not _is_squad(value):
        return []
    given = zip(value["text"], value["answer_start"], strict=False)
    places: list[Stretch] = [place for text, start in given if (place := locate(context, text, start)) is not None]
    return [{"passage_id": "1", "start": start, "end": end} for start, end in holding(sentences(context), places)]


def _titled_sentences(value: Any) -> list[tuple[str, list[str]]] | None:
    """HotpotQA's context, as columns or as pairs, or None where it is something else."""
    if isinstance(value, Mapping) and _are(value.get("title"), str) and isinstance(value.get("sentences"), list):
        pairs = list(zip(value["title"], value["sentences"], strict=False))
    elif isinstance(value, list) and value and all(isinstance(item, list | tuple) and len(item) == 2 for item in value):
        pairs = [(item[0], item[1]) for item in value]
    else:
        return None
    return pairs if all(isinstance(title, str) and _are(lines, str) for title, lines in pairs) else None


def _facts(value: Any, where: str) -> list[tuple[str, int]]:
    if isinstance(value, Mapping) and _are(value.get("title"), str) and _are(value.get("sent_id"), int):
        value = list(zip(value["title"], value["sent_id"], strict=False))
    pairs = [tuple(fact) if isinstance(fact, list | tuple) else fact for fact in value or ()]
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], int)):
            raise IngestError(f"{where}: supporting_facts holds {pair!r}, not a title and a sentence number")
    return pairs


def _passages(value: Any, title: Any, where: str) -> Any:
    if value is None:
        return None
    if isinstance(value, str):
        return [{"id": "1", "title": title if isinstance(title, str) else "", "text": value}]
    if isinstance(value, Mapping):  # lists side by side, as in MS MARCO
        texts, titles = _first(value, [*_TEXTS, "contexts"]), value.get("title")
        if not _are(texts, str):
            raise IngestError(f"{where}: no list of texts among {', '.join(map(str, value))}")
        same = isinstance(titles, list | tuple) and len(titles) == len(texts)
        return [{"text": text, "title": titles[at] if titles and same else ""} for at, text in enumerate(texts)]
    if not isinstance(value, list):
        return value
    entries = [_entry(item) for item in value]
    named = [isinstance(entry, dict) and isinstance(entry.get("id"), str) for entry in entries]
    if entries and all(named):
        for entry, own in zip(entries, unique(entry["id"] for entry in entries), strict=True):
            entry["id"] = own
    return entries


def _entry(item: Any) -> Any:
    if not isinstance(item, Mapping):
        return {"text": item} if isinstance(item, str) else item
    own = _first(item, ("id", "_id", "pid", "docid"))
    return {"id": own, "title": item.get("title"), "text": _first(item, _TEXTS)}


def _are(value: Any, wanted: type) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, wanted) for item in value)
