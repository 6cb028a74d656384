"""The questions of the example browser: which ones, and each passage with what was kept of it.

Offsets are turned from characters into UTF-16 units, as the browser counts, and the whole is bounded in size.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ragzip.evaluation.report import view
from ragzip.evaluation.report.excerpt import Excerpt
from ragzip.evaluation.report.measures import heading, in_percent, show_value
from ragzip.evaluation.report.view import RunView
from ragzip.evaluation.report.words import finite, mapping, plain, word
from ragzip.evaluation.view import drops_all

MOST_QUESTIONS = 300
MOST_CHARACTERS = 16_000_000
PASSAGE = 4_000
_QUESTION_TEXT = 200_000
_ANSWER = 2_000
_COSTS = ("tokens_in", "tokens_out", "ratio", "ttft", "total_seconds")


def collect(run: RunView, *, limit: int = MOST_QUESTIONS, characters: int = MOST_CHARACTERS) -> dict[str, Any]:
    """What the example browser shows.

    Args:
        run: Where from.
        limit: Most questions.
        characters: Most characters of all of them together, as JSON.

    Returns:
        Plain values: row names, metrics, the questions in the run's order and how many were left out.
    """
    names = list(run.names)
    by_row = {name: {str(line.get("id")): line for line in run.rows(name)} for name in names}
    quality = view.quality_names(run)
    questions: list[tuple[str, dict[str, Any]]] = []
    used = 0
    for identity in _ranked(run, limit):
        shown = _question(run.questions[identity], [by_row[name].get(identity) for name in names], quality)
        used += len(json.dumps(shown, ensure_ascii=False))
        if questions and used > characters:
            break
        questions.append((identity, shown))
    place = {identity: number for number, identity in enumerate(run.questions)}
    questions.sort(key=lambda pair: place[pair[0]])
    return {
        "names": [word(name) for name in names],
        "bases": [names.index(base) if (base := view.baseline(run, name)) else None for name in names],
        "given": [view.kind(run, name) == "given" for name in names],
        "quality": [[metric, heading(metric), 100 if in_percent(metric) else 1] for metric in quality],
        "main": view.main_quality(run),
        "questions": [shown for _, shown in questions],
        "total": len(run.questions),
    }


def _ranked(run: RunView, limit: int) -> list[str]:
    """Ids to show: two thirds where rows differ most from the baseline, the rest drawn with the run's seed."""
    identities = list(run.questions)
    if len(identities) <= limit:
        differing: list[str] = identities
    else:
        metric = view.main_quality(run)
        gap = dict.fromkeys(identities, 0.0)
        for name in run.names if metric else ():
            base = view.baseline(run, name)
            against = run.values(base, metric) if base and base != name else {}
            if not view.uses_labels(run, name) and not drops_all(run, name):
                for identity, value in run.values(name, metric).items():
                    if identity in against and identity in gap:
                        gap[identity] = max(gap[identity], abs(value - against[identity]))
        differing = sorted(identities, key=lambda identity: -gap[identity])[: limit * 2 // 3]
    chosen = set(differing)
    rest = [identity for identity in identities if identity not in chosen]
    seed = int(finite(run.config.get("seed")) or 0)
    drawn = random.Random(seed).sample(rest, max(0, min(len(rest), limit - len(differing))))  # noqa: S311 - no secret
    # In turns, so that a set cut short by its size holds some of both.
    turns = [differing[i : i + 2] + drawn[i // 2 : i // 2 + 1] for i in range(0, len(differing), 2)]
    mixed = [identity for turn in turns for identity in turn]
    return mixed + drawn[(len(differing) + 1) // 2 :]


def _question(
    question: Mapping[str, Any], lines: Sequence[Mapping[str, Any] | None], quality: Sequence[str]
) -> dict[str, Any]:
    """One question with every row's answer to it; passages stand once, rows point at them."""
    passages = {str(p.get("id")): p for p in question.get("passages") or []}
    order = {identity: number for number, identity in enumerate(passages)}
    spans: dict[str, set[tuple[int, int]]] = {identity: set() for identity in passages}
    relevant = [(str(s.get("passage_id")), s.get("start"), s.get("end")) for s in question.get("relevant") or []]
    kept = [span for line in lines if line for span in line.get("kept") or []]
    for identity, start, end in [*relevant, *kept]:
        if identity in spans and isinstance(start, int) and isinstance(end, int):
            spans[identity].add((start, end))
    bound = max(200, min(PASSAGE, _QUESTION_TEXT // max(1, len(passages))))
    excerpts = {i: Excerpt.of(plain(p.get("text") or ""), spans[i], bound) for i, p in passages.items()}
    marked = _by_passage(relevant, excerpts)
    return {
        "id": plain(question.get("id") or ""),
        "q": _cut(question.get("question"), _ANSWER),
        "refs": [_cut(answer, 300) for answer in list(question.get("answers") or [])[:20]],
        "passages": [
            {
                "id": plain(identity),
                "title": _cut(passages[identity].get("title"), 300),
                "n": len(str(passages[identity].get("text") or "")),
                "text": excerpt.text,
                "gaps": excerpt.gaps,
                "rel": marked.get(identity, []),
            }
            for identity, excerpt in excerpts.items()
        ],
        "rows": [None if line is None else _row(line, excerpts, order, quality) for line in lines],
    }


def _row(
    line: Mapping[str, Any], excerpts: Mapping[str, Excerpt], order: Mapping[str, int], quality: Sequence[str]
) -> dict[str, Any]:
    kept = [tuple(span) for span in line.get("kept") or [] if len(span) == 3]
    shown = _by_passage(kept, excerpts)
    metrics = mapping(line.get("metrics"))
    scores = {m: finite(metrics.get(m)) for m in quality}
    costs = {m: show_value(m, value) for m in _COSTS if (value := finite(metrics.get(m))) is not None}
    row: dict[str, Any] = {
        "a": None if line.get("answer") is None else _cut(line["answer"], _ANSWER),
        "p": [order[i] for i in map(str, line.get("passages") or []) if i in order],
        "k": {order[i]: places for i, places in shown.items()},
        "kn": {order[i]: count for i, count in _counts(kept, excerpts).items()},
        "m": {m: round(value, 4) for m, value in scores.items() if value is not None},
        "c": {heading(m): text for m, text in costs.items()},
        "s": [
            [
                _cut(step.get("name"), 80),
                _cut(step.get("status"), 40),
                int(finite(step.get("tokens_in")) or 0),
                int(finite(step.get("tokens_out")) or 0),
                show_value("total_seconds", finite(step.get("seconds"))),
                _cut(step.get("detail") or "", 300),
            ]
            for step in list(line.get("steps") or [])[:20]
        ],
    }
    if line.get("error"):
        row["e"] = _cut(line["error"], 500)
    if line.get("soft"):
        row["soft"] = int(finite(line["soft"]) or 0)
    if line.get("context") is not None:
        row["x"] = _cut(line["context"], PASSAGE)
    return row


def _by_passage(spans: Iterable[tuple[Any, ...]], excerpts: Mapping[str, Excerpt]) -> dict[str, list[list[int]]]:
    """Where the spans stand in the excerpts, in UTF-16 units, by passage; neighbours are one."""
    grouped: dict[str, list[tuple[int, int]]] = {}
    for identity, start, end in spans:
        if str(identity) in excerpts and isinstance(start, int) and isinstance(end, int):
            grouped.setdefault(str(identity), []).append((start, end))
    return {identity: excerpts[identity].places(places) for identity, places in grouped.items()}


def _counts(spans: Iterable[tuple[Any, ...]], excerpts: Mapping[str, Excerpt]) -> dict[str, int]:
    """Characters kept of each passage, each counted once."""
    counts: dict[str, int] = {}
    reached: dict[str, int] = {}
    for identity, start, end in sorted(
        (str(i), s, e) for i, s, e in spans if isinstance(s, int) and isinstance(e, int)
    ):
        if identity in excerpts:
            start = max(start, reached.get(identity, 0))
            counts[identity] = counts.get(identity, 0) + max(0, end - start)
            reached[identity] = max(end, reached.get(identity, 0))
    return counts


def _cut(value: object, size: int) -> str:
    text = plain("" if value is None else value)
    return text if len(text) <= size else f"{text[:size]} … ({len(text) - size:,} more characters)"
