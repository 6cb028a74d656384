"""Sentences and words with exact character offsets, and arithmetic on stretches of characters.

A *stretch* is ``(start, end)``, half open, in characters of one text. Nothing here depends on a language: sentence
ends are found in Latin, Cyrillic, Greek, Arabic, Devanagari and other scripts and in Chinese and Japanese, by
``sentencex`` for prose, after a split at what layout already says: blank lines, list items, headings, table rows
and fenced code.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import sentencex

from ragzip._lines import places_of_clauses, places_of_rows, starts_apart
from ragzip._stops import goes_on

Stretch = tuple[int, int]

# sentencex takes time that grows with length times sentences and drops characters beyond 50,000: it sees windows.
_WINDOW = 2000
_CODE_UNIT = 1000
_LINE = re.compile(r"\S.*")
_FENCE = re.compile(r"(`{3,}(?!.*`)|~{3,})[^\S\n]*(.*)")
_HEADING = re.compile(r"#{1,6}\s")
_RULE = re.compile(r"([=\-~^*_#+`'\"])\1{2,}\s*\Z")
_ITEM = re.compile(
    r"(?:[-*+•‣◦▪·–✓✔✗✘➢➤►●◆■①-⑳]|#\.|\d{1,3}[.)]|[A-Za-z]\)|[(（](?:\d{1,3}|[a-z]|[ivx]{1,4})[)）])[^\S\n]+(?=\S)"
    r"|\.\.[^\S\n]+(?=\w)"
)
_ODD_SPACE = re.compile(r"[^\S \n]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_IDEOGRAPH = "\u3040-\u3098\u309b-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_MARK = "\u0300-\u036f\u20d0-\u20f0\u3099\u309a\ufe00-\ufe0f\U000e0100-\U000e01ef"  # of voice, of a variant, ...
_WORD = re.compile(f"[{_IDEOGRAPH}][{_MARK}]*|[^\\s{_IDEOGRAPH}]+")
# What closes emphasis, brackets or an element goes with what it closes.
_CLOSING = re.compile(r"[*_\"')\]”’»]+(?=\s|\Z)|(?:</\w{1,20}>|<br ?/?>)+")
# And marks of notes with what they are on: "so it is.[^1] But", "so it is.[4]:12–14 But".
_NOTES = re.compile(
    r"(?:\[(?:\^[^\[\]\s]{1,20}|\d{1,4}|[a-z]|[a-z]{1,6} \d{1,3})\](?!\()|\{\{[^{}\n]{1,80}\}\}|:\s?[\d–,-]{1,20})+"
    r"(?=\s|\Z)"
)
_RECORD = re.compile(r"\{[\"'].*\},?\Z")  # a line that is one by itself
_ELEMENT = re.compile(r"</?(?:table|t(?:head|body|foot|r|d|h)|[uod]l|li|d[td]|p|div|h[1-6]|pre)[\s>]", re.IGNORECASE)
_FALLBACK = re.compile(r"[.!?…]+[\"')\]”’»]*\s+|[。！？｡।॥؟۔]+")


def sentences(text: str) -> list[Stretch]:
    """The sentences of a text, in order.

    They do not overlap, have no white space around them, and cover every character that is not white space. List
    items (with their markers), headings, table rows and blocks of fenced code stand alone, and no sentence crosses
    a blank line. Takes time linear in the length of the text.

        >>> text = "Dr. Ho paid $3.5. Why? 因为。好"
        >>> [text[start:end] for start, end in sentences(text)]
        ['Dr. Ho paid $3.5.', 'Why?', '因为。', '好']
    """
    plain = _plain(text)
    found: list[Stretch] = []
    for start, body, end in _blocks(plain):
        if body == end:  # a unit of code, or a marker alone
            _add(found, text, start, end)
            continue
        first = start
        for stop in _ends(plain, body, end):
            apart = stop > 0 and plain[stop - 1].isspace()
            closing = (None if apart else _NOTES.match(plain, stop, end)) or _CLOSING.match(plain, stop, end)
            stop = max(closing.end() if closing else stop, first)
            _add(found, text, first, stop)
            first = stop
    return found


def words(text: str) -> list[Stretch]:
    """The words of a text: runs without white space, and each ideograph or kana with its marks.

    They cover what is no white space.
    """
    return [match.span() for match in _WORD.finditer(text)]


def cut_before(text: str, at: int) -> int:
    """The last place at or before ``at`` where a text can be cut without parting a letter from its marks.

    A letter with combining marks and an emoji built with joiners stay whole, unless longer than 32 characters.
    """
    if not 0 < at < len(text):
        return max(0, min(at, len(text)))
    for place in range(at, max(at - 32, -1), -1):
        if place == 0 or not (_extends(text[place]) or text[place - 1] == "\u200d"):
            return place
    return at


def merge(stretches: Iterable[Stretch]) -> list[Stretch]:
    """The same characters as ordered stretches that neither overlap nor touch; empty ones vanish.

    >>> merge([(5, 9), (0, 3), (3, 4), (6, 7)])
    [(0, 4), (5, 9)]
    """
    merged: list[Stretch] = []
    for start, end in sorted(stretches):
        if start >= end:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def intersect(first: Iterable[Stretch], second: Iterable[Stretch]) -> list[Stretch]:
    """The characters in both, merged.

    >>> intersect([(0, 4), (6, 9)], [(3, 7)])
    [(3, 4), (6, 7)]
    """
    a, b = merge(first), merge(second)
    both: list[Stretch] = []
    i = j = 0
    while i < len(a) and j < len(b):
        start, end = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if start < end:
            both.append((start, end))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return both


def complement(stretches: Iterable[Stretch], length: int) -> list[Stretch]:
    """The characters of ``[0, length)`` outside all stretches: what was dropped, given what was kept.

    >>> complement([(2, 4)], 6)
    [(0, 2), (4, 6)]
    """
    left: list[Stretch] = []
    position = 0
    for start, end in intersect(stretches, [(0, length)]):
        if position < start:
            left.append((position, start))
        position = end
    if position < length:
        left.append((position, length))
    return left


def _add(found: list[Stretch], text: str, start: int, end: int) -> None:
    """Adds a stretch without the white space around it, if anything is left."""
    piece = text[start:end]
    bare = piece.strip()
    if bare:
        start += len(piece) - len(piece.lstrip())
        found.append((start, start + len(bare)))


def _plain(text: str) -> str:
    """The text, equally long, with one kind of line end and without what sentencex cannot take.

    sentencex panics on some white space of several bytes (U+2028 near an initial) and refuses surrogates.
    """
    if "\r" in text:
        text = text.replace("\r\n", " \n").replace("\r", "\n")
    return text if text.isascii() else _SURROGATE.sub("x", _ODD_SPACE.sub(" ", text))


def _blocks(text: str) -> Iterator[tuple[int, int, int]]:
    """Cuts at layout into ``(start, body, end)``: prose from ``body`` on, or one finished unit if ``body == end``."""
    lines = [match.span() for match in _LINE.finditer(text)]
    code = _fenced(text, lines)
    said = [text[left:right] for left, right in lines]
    rows, clauses = places_of_rows(said), places_of_clauses(said)
    start = body = end = first = -1  # the open block and its first line; start < 0 where none is open
    in_code = False
    for number, (left, right) in enumerate(lines):
        apart = start >= 0 and text.count("\n", end, left) > 1
        if code[number]:
            if start >= 0 and (apart or not in_code or right - start > _CODE_UNIT or code[number] == _OPENS):
                yield (start, end if in_code else body, end)
                start = -1
            if start < 0:
                start = left
            body, end, in_code = right, right, True
            if code[number] == _CLOSES:
                yield start, end, end
                start = -1
            continue
        line = text[left:right]
        item = _ITEM.match(line)
        alone = line.startswith("|") or _HEADING.match(line) or number in rows or _RECORD.match(line)
        anew = (
            item
            or alone
            or number in clauses
            or _ELEMENT.match(line)
            or starts_apart(said[number - 1] if number else "", line)
        )
        if start >= 0 and (apart or in_code or anew):
            yield (start, end if in_code else body, end)
            start = -1
        if start < 0:
            start, body, in_code, first = left, left + (item.end() if item else 0), False, number
        end = right
        rule = _RULE.match(line)
        if alone or rule:  # a title with its underline is one unit, a paragraph above a rule is not
            yield start, end if alone or number - first < 2 else body, end
            start = -1
    if start >= 0:
        yield (start, end if in_code else body, end)


_OPENS, _INSIDE, _CLOSES = 1, 2, 3


def _fenced(text: str, lines: list[Stretch]) -> list[int]:
    """For each line whether it is fenced code: opens, is inside, closes, or 0.

    A fence counts only if another closes it; one with a language name cannot close, so that a passage which
    starts in the middle of a code block does not turn its prose into code. One of another mark, or a shorter one, is
    code within a block; a line that begins with three backticks and holds more of them later is no fence.
    """
    kinds = [0] * len(lines)
    found = [
        (number, fence[1], bool(fence[2]))
        for number, (left, _) in enumerate(lines)
        if text[left] in "`~" and (fence := _FENCE.match(text, left))
    ]
    for opened, number in fence_pairs(found):
        kinds[opened : number + 1] = [_OPENS, *[_INSIDE] * (number - opened - 1), _CLOSES]
    return kinds


def fence_pairs(fences: Sequence[tuple[int, str, bool]]) -> list[tuple[int, int]]:
    """Which fences open and close a block, by the numbers of their lines.

    Args:
        fences: Line, mark (three or more of one character), and whether something is named behind the mark.

    Returns:
        Pairs in order. What stands between the two of a pair belongs to the block; a fence that nothing closes is none.
    """
    found: list[tuple[int, int]] = []
    first = 0
    while first < len(fences):
        opened = -1
        for place in range(first, len(fences)):
            number, mark, named = fences[place]
            if opened < 0:
                opened = place
            elif mark.startswith(fences[opened][1]):
                if named:
                    opened = place
                else:
                    found.append((fences[opened][0], number))
                    opened = -1
        if opened < 0:
            break
        first = opened + 1  # nothing closed it: without it, there may be blocks behind it
    return found


def _ends(text: str, start: int, end: int) -> Iterator[int]:
    """Where the sentences of a block of prose end, ``end`` last; white space after a sentence belongs to it."""
    while end - start > _WINDOW:
        stop = start + _WINDOW
        lengths = _lengths(text[start:stop])
        if len(lengths) == 1:  # a sentence longer than the window goes on in the next
            start = stop
            continue
        for length in lengths[:-1]:
            start += length
            yield start
    for length in _lengths(text[start:end])[:-1]:
        start += length
        yield start
    yield end


def _lengths(window: str) -> list[int]:
    """The lengths of a window's sentences, white space included; they add up to the window's."""
    try:
        found = sentencex.segment("en", window)  # pyright: ignore[reportAttributeAccessIssue] - compiled, untyped
        lengths = [len(sentence) for sentence in found]
    except BaseException as error:  # a panic in sentencex is no Exception
        if type(error).__name__ != "PanicException":
            raise
        lengths = []
    if sum(lengths) == len(window) and lengths:
        return _joined(window, lengths)
    stops = [match.end() for match in _FALLBACK.finditer(window)]
    if not stops or stops[-1] != len(window):
        stops.append(len(window))
    return [stop - before for before, stop in zip([0, *stops], stops, strict=False)]


def _joined(window: str, lengths: list[int]) -> list[int]:
    """The lengths without the ends that are none: within names of code and files, and after initials of any script."""
    found, start = [0], 0
    for place, length in enumerate(lengths):
        found[-1] += length
        start += length
        if place + 1 < len(lengths) and not goes_on(window, start - found[-1], start):
            found.append(0)
    return found


def _extends(character: str) -> bool:
    """Whether a character belongs to the one before it."""
    return (
        unicodedata.category(character) in ("Mn", "Mc", "Me")
        or character in "\u200d\ufe0e\ufe0f"
        or "\U0001f3fb" <= character <= "\U0001f3ff"
    )


def opens_quotation(text: str) -> bool:
    """Whether a text ends within quotation marks: what is written on from there ends with the closing mark."""
    return text.count('"') % 2 == 1
