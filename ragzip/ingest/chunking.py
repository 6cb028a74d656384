"""Documents to passages, at sentence borders, within sections, to a token size.

A passage is a stretch of its document's characters, never a rewrite: ``document.text[start:end] == passage.text``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ragzip.errors import UsageError
from ragzip.ingest.document import Document
from ragzip.ingest.pack import CHARACTERS_PER_TOKEN, Counter, Packed, Unit, halves, pack, shortened, stretches
from ragzip.types import Passage

LEAST_TOKENS = 16
_ARROW = " > "
_LONGEST_TITLE = 200


def chunk(
    document: Document,
    *,
    tokens: int = 180,
    overlap: int = 30,
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
) -> list[Passage]:
    """Cuts a document into passages.

    Cuts fall at sentence borders; a sentence over the limit is cut at line ends, else between words, else between
    characters. A passage stays within its section, except that neighbouring sections far below the limit are put
    together under the headings they share. Every character that is not white space is in some passage. Takes time
    linear in the length of the text.

    Args:
        document: What to cut.
        tokens: Most tokens of ``title + newline + text``, as the encoder reads a passage.
        overlap: Most tokens, in whole sentences, that neighbouring passages of a section share.
        count_tokens: Tokens of each text, special tokens included or not; called once for all sentences of a
            document and once for all passages, in batches where a document is large.

    Returns:
        Passages in order, with ids ``source#0``, ``source#1`` and so on; none for a document without text.

    Raises:
        UsageError: ``tokens`` below 16, or ``overlap`` not between 0 and half of ``tokens``.
    """
    if tokens < LEAST_TOKENS:
        raise UsageError(f"passages of {tokens} tokens are too short", hint=f"Use at least {LEAST_TOKENS}.")
    if not 0 <= overlap <= tokens // 2:
        raise UsageError(f"an overlap of {overlap} tokens does not fit passages of {tokens}", hint="Use 0 to half.")
    counter = Counter(count_tokens)
    most = tokens * CHARACTERS_PER_TOKEN
    sections = _sections(document, most)
    if not sections:
        return []
    titles = _count(document, sections, counter, tokens)
    out: list[tuple[str, str, Packed]] = []
    for group in _grouped(sections, titles, tokens - counter.base, most):
        title = titles[group.path]
        room = max(1, tokens - counter.base - title.tokens)
        units = shortened(document.text, group.units, room, counter)
        out.extend((title.text, group.path, packed) for packed in pack(units, room, min(overlap, room // 2), most))
    return _passages(document, _checked(document.text, out, tokens, counter))


@dataclass(slots=True)
class _Section:
    path: str
    stretches: list[tuple[int, int, bool]]
    units: list[Unit]
    size: int = 0


@dataclass(frozen=True, slots=True)
class _Title:
    text: str
    tokens: int


def _sections(document: Document, most: int) -> list[_Section]:
    """The sections that have text; one that is only a heading goes with the section below it."""
    text = document.text
    begins = sorted((max(0, offset), path) for offset, path in document.sections if offset < len(text))
    if not begins or begins[0][0] > 0:
        begins.insert(0, (0, ""))
    out: list[_Section] = []
    heading: _Section | None = None
    for number, (start, path) in enumerate(begins):
        end = begins[number + 1][0] if number + 1 < len(begins) else len(text)
        found = stretches(text, start, end, most)
        if heading is not None and path.startswith(heading.path + _ARROW):
            found = heading.stretches + found
            out.pop()
        heading = None
        if found:
            out.append(_Section(path, found, []))
            heading = out[-1] if path and _only_heading(text, found) else None
    return out


def _only_heading(text: str, found: list[tuple[int, int, bool]]) -> bool:
    start, end = found[0][0], found[-1][1]
    if end - start > 2 * _LONGEST_TITLE:
        return False
    lines = text[start:end].splitlines()
    return sum(any(char.isalnum() for char in line) for line in lines) <= 1 and len(lines) <= 3


def _count(document: Document, sections: list[_Section], counter: Counter, tokens: int) -> dict[str, _Title]:
    """Counts all sentences and all titles in one go; gives the title of every path and of what paths share."""
    text = document.text
    paths = {""}
    for section in sections:
        steps = section.path.split(_ARROW)
        paths.update(_ARROW.join(steps[: n + 1]) for n in range(len(steps)))
    titles = {path: _title(document.title, path) for path in sorted(paths)}
    texts = [text[start:end] for section in sections for start, end, _ in section.stretches]
    counts = counter.first([*texts, *(title + "\n" for title in titles.values())])
    at = 0
    for section in sections:
        section.units = [
            Unit(start, end, counts[at + n], whole) for n, (start, end, whole) in enumerate(section.stretches)
        ]
        section.size = sum(unit.tokens for unit in section.units)
        at += len(section.stretches)
    # A title may take a third of a passage: what is found there is the text.
    most = max(1, (tokens - counter.base) // 3)
    out: dict[str, _Title] = {}
    for (path, title), count in zip(titles.items(), counts[at:], strict=True):
        size = count if title else 0
        while size > most:
            title = title[: len(title) // 2].rstrip()
            size = counter.each([title + "\n"])[0] if title else 0
        out[path] = _Title(title, size)
    return out


def _title(title: str, path: str) -> str:
    """The document's title and the section path, without saying anything twice, short."""
    title = " ".join(title.split())
    steps = [step for step in path.split(_ARROW) if step]
    if steps and title and steps[0].casefold() == title.casefold():
        steps = steps[1:]
    for kept in (steps, steps[-1:], []):
        whole = _ARROW.join([title, *kept] if title else kept)
        if whole and len(whole) <= _LONGEST_TITLE:
            return whole
    only = title or "".join(steps[-1:])
    return only[: _LONGEST_TITLE - 1].rstrip() + "…" if only else ""


def _grouped(sections: list[_Section], titles: Mapping[str, _Title], limit: int, most: int) -> list[_Section]:
    """Neighbouring sections put together as long as one of two is small and both fit in one passage."""
    out: list[_Section] = []
    for section in sections:
        if out:
            last = out[-1]
            path = _shared(last.path, section.path)
            size = last.size + section.size
            small = min(last.size, section.size) * 3 <= limit
            near = section.units[-1].end - last.units[0].start <= most
            if small and near and size + titles[path].tokens <= limit:
                out[-1] = _Section(path, [], last.units + section.units, size)
                continue
        out.append(section)
    return out


def _shared(first: str, second: str) -> str:
    """The headings that two paths begin with."""
    steps: list[str] = []
    for one, other in zip(first.split(_ARROW), second.split(_ARROW), strict=False):
        if one != other:
            break
        steps.append(one)
    return _ARROW.join(steps)


def _checked(
    text: str, passages: list[tuple[str, str, Packed]], tokens: int, counter: Counter
) -> list[tuple[str, str, int, int]]:
    """Counts the passages as they came out and shortens those over the limit, until none is."""
    fits: list[tuple[str, str, Packed, bool]] = [(*passage, False) for passage in passages]
    while todo := [at for at, (_, _, _, good) in enumerate(fits) if not good]:
        counts = counter.raw([_read(text, fits[at][0], fits[at][2]) for at in todo])
        over = {at for at, count in zip(todo, counts, strict=True) if count > tokens}
        after: list[tuple[str, str, Packed, bool]] = []
        for at, (title, path, packed, _) in enumerate(fits):
            if at in over and packed.units[-1].end - packed.units[0].start > 1:
                after.extend((title, path, half, False) for half in halves(text, packed))
            else:
                after.append((title, path, packed, True))
        fits = after
    return [(title, path, packed.units[0].start, packed.units[-1].end) for title, path, packed, _ in fits]


def _read(text: str, title: str, packed: Packed) -> str:
    body = text[packed.units[0].start : packed.units[-1].end]
    return f"{title}\n{body}" if title else body


def _passages(document: Document, found: list[tuple[str, str, int, int]]) -> list[Passage]:
    out: list[Passage] = []
    for number, (title, path, start, end) in enumerate(found):
        metadata: dict[str, Any] = {
            **document.metadata,
            "source": document.source,
            "start": start,
            "end": end,
            "section": path,
        }
        if document.pages:
            metadata["page"] = max(1, bisect_right(document.pages, start))
        out.append(Passage(f"{document.source}#{number}", document.text[start:end], title, None, metadata))
    return out
