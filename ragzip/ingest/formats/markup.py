"""Text formats that are kept as they are, so that offsets count in the file: Markdown, reStructuredText, plain text.

Only headings are read out of them. Candidate lines are found by one regular expression whose time is linear in the
text, so a large file costs one scan.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ragzip.ingest.formats.content import Content, heading, paths

_FRONT = re.compile(r"\A(---|\+\+\+)[ \t]*\r?\n")
_FRONT_TITLE = re.compile(r"^title[ \t]*[:=][ \t]*(.{1,300})$", re.MULTILINE | re.IGNORECASE)
_FRONT_LIMIT = 65536

_CANDIDATE = re.compile(
    r"^ {0,3}(?:(?P<atx>#{1,6})(?=[ \t\r\n]|\Z)(?P<rest>.*)"
    r"|(?P<fence>`{3,}|~{3,})(?P<info>.*)"
    r"|(?P<under>=+|-+)[ \t\r]*$"
    r"|(?P<comment><!--))",
    re.MULTILINE,
)
_NOT_PARAGRAPH = re.compile(r" {4}|\t| {0,3}(?:[#>|<]|[-*+][ \t]|\d{1,9}[.)][ \t]|`{3}|~{3}|[-=*_+]{3,}\s*$)")
_ADORNMENT = re.compile(r"^([!-/:-@\[-`{-~])\1+[ \t\r]*$", re.MULTILINE)


def read_markdown(text: str, stem: str) -> Content:
    """Markdown: sections from ATX and setext headings outside code, comments and front matter."""
    front, title = _front_matter(text)
    headings = list(_markdown_headings(text, front))
    first = next((name for _, _, name in headings if name), "")
    return Content(text, title or first or stem, paths(headings))


def markdown_sections(text: str) -> tuple[tuple[int, str], ...]:
    """The sections of Markdown that another reader wrote."""
    return paths(_markdown_headings(text, 0))


def _front_matter(text: str) -> tuple[int, str]:
    """Where the front matter ends, and the title in it."""
    opening = _FRONT.match(text)
    if opening is None:
        return 0, ""
    mark = opening[1]
    closing = re.compile(rf"^({re.escape(mark)}|\.\.\.)[ \t\r]*$", re.MULTILINE)
    end = closing.search(text, opening.end(), min(len(text), _FRONT_LIMIT))
    if end is None:
        return 0, ""
    found = _FRONT_TITLE.search(text, opening.end(), end.start())
    title = found[1].strip() if found else ""
    if len(title) >= 2 and title[0] == title[-1] and title[0] in "\"'":
        title = title[1:-1]
    return end.end(), heading(title)


def _markdown_headings(text: str, at: int) -> Iterator[tuple[int, int, str]]:
    fence = ""
    # Nothing before this offset can be the text line of a setext heading.
    floor = skip = at
    closes = True
    for match in _CANDIDATE.finditer(text, at):
        if match.start() < skip:
            continue
        mark = match["fence"]
        if mark:
            if not fence and not (mark[0] == "`" and "`" in match["info"]):
                fence = mark
            elif fence and mark[0] == fence[0] and len(mark) >= len(fence) and not match["info"].strip():
                fence, floor = "", match.end()
        elif fence:
            continue
        elif match["comment"]:
            close = text.find("-->", match.end()) if closes else -1
            closes = close >= 0  # where no comment ends any more, it is not looked for again
            skip = floor = close + 3 if close >= 0 else match.end()
        elif match["atx"]:
            floor = match.end()
            yield match.start(), len(match["atx"]), heading(_without_closing(match["rest"]))
        else:
            line = _line_before(text, match.start(), floor)
            if line is not None and not _NOT_PARAGRAPH.match(text, line, match.start()):
                yield line, 1 if match["under"][0] == "=" else 2, heading(text[line : match.start()])
            floor = match.end()


def _line_before(text: str, at: int, floor: int) -> int | None:
    """Start of the line above ``at`` where it is a paragraph of one line, which makes it a setext heading."""
    if at <= floor:
        return None
    start = max(text.rfind("\n", floor, at - 1) + 1, floor)
    above = max(text.rfind("\n", floor, max(start - 1, floor)) + 1, floor)
    if not text[start:at].strip() or at - start > 300 or (start > floor and text[above:start].strip()):
        return None
    return start


def _without_closing(rest: str) -> str:
    rest = rest.strip()
    bare = rest.rstrip("#")
    return bare.rstrip() if bare != rest and (not bare or bare[-1] in " \t") else rest


def read_rst(text: str, stem: str) -> Content:
    """reStructuredText: headings by underline or overline, their levels by the order in which styles appear."""
    headings = list(_rst_headings(text))
    return Content(text, next((name for _, _, name in headings if name), stem), paths(headings))


def _rst_headings(text: str) -> Iterator[tuple[int, int, str]]:
    styles: list[tuple[str, bool]] = []
    over: re.Match[str] | None = None
    floor = 0
    for match in _ADORNMENT.finditer(text):
        end = match.start() - 1
        start = text.rfind("\n", floor, max(end, floor)) + 1 if end > floor else match.start()
        line = text[start:end].rstrip() if 0 < end - start <= 300 else ""
        name = line.strip()
        width = len(match[0].rstrip())
        overlined = over is not None and over.end() + 1 == start and over[0].rstrip() == match[0].rstrip()
        blank_above = start <= floor or not text[max(text.rfind("\n", floor, start - 1) + 1, floor) : start].strip()
        fits = width >= len(name) or width >= 4
        if name and fits and (overlined or (blank_above and name[0] == line[0])):
            style = (match[1], overlined)
            if style not in styles:
                styles.append(style)
            begin = over.start() if overlined and over is not None else start
            yield begin, styles.index(style) + 1, heading(name)
            floor, over = match.end(), None
        else:
            over = match


def read_text(text: str, stem: str) -> Content:
    """Plain text: titled by a short first line that stands alone, else by the file's name."""
    head = text[:2000].lstrip()
    line, _, rest = head.partition("\n")
    line = line.strip()
    alone = not rest.split("\n", 1)[0].strip() and bool(rest.strip())
    good = alone and 2 < len(line) <= 80 and line[-1] not in ".!?,;:" and any(char.isalpha() for char in line)
    return Content(text, heading(line) if good else stem)
