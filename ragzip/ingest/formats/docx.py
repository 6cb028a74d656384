"""Word documents with ``python-docx``: paragraphs, headings by style, tables row by row.

The body is walked in the XML, because text in content controls and tracked insertions is not among the paragraphs
that the library lists.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from ragzip.ingest.decode import Empty, Unreadable, too_big, whole
from ragzip.ingest.formats.content import Content, on_one_line, paths, quiet

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_MATHS = "{http://schemas.openxmlformats.org/officeDocument/2006/math}t"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_LEFT_OUT = (_FALLBACK, _W + "pPr", _W + "rPr", _W + "moveFrom")
_HEADING = re.compile(r"heading (\d)$", re.IGNORECASE)
_MAX_XML = 64 * 1024 * 1024
_MAX_PARTS = 20_000


def read_docx(data: bytes, stem: str, max_bytes: int) -> Content:
    """A document's body; headers, footers, notes, comments, symbols of symbol fonts and deleted text are left out.

    Of formulas only the letters are read, in order.

    Raises:
        Unreadable: Not a Word document, encrypted, too big when unpacked, or without text.
    """
    _check_zip(data, max_bytes)
    import docx

    with quiet("docx"):
        document = docx.Document(io.BytesIO(data))
        title = on_one_line(document.core_properties.title or "")
        levels = _heading_levels(document)
        parts: list[str] = []
        headings: list[tuple[int, int, str]] = []
        at = 0
        for text, level in _blocks(document.element.body, levels):
            text = whole(text)
            if not text.strip():
                continue
            if level is not None and "\n" not in text:
                if level == 0:
                    title = title or on_one_line(text)
                else:
                    headings.append((at, level, on_one_line(text)))
            parts.append(text)
            at += len(text) + 2
    if not parts:
        raise Empty("no text found")
    return Content("\n\n".join(parts), title or (headings[0][2] if headings else stem), paths(headings))


def _check_zip(data: bytes, max_bytes: int) -> None:
    """Refuses what would not fit in memory before anything is unpacked; the sizes bind the unpacking as well."""
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        raise Unreadable("encrypted, or the old .doc format: save it as .docx without a password")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
    except zipfile.BadZipFile as error:
        raise Unreadable("not a .docx file: damaged, or of another format") from error
    total = sum(info.file_size for info in infos)
    xml = sum(info.file_size for info in infos if info.filename.lower().endswith((".xml", ".rels")))
    if total > max_bytes or len(infos) > _MAX_PARTS:
        raise Unreadable(f"unpacked {too_big(total, max_bytes)}")
    if xml > _MAX_XML:
        raise Unreadable(f"unpacked {too_big(xml, _MAX_XML)}")
    if not any(info.filename == "[Content_Types].xml" for info in infos):
        raise Unreadable("not a .docx file: a zip archive of something else")


def _heading_levels(document: Any) -> dict[str, int]:
    """Heading level of each paragraph style; 0 for the title. A style takes after the one it is based on."""
    levels: dict[str, int] = {}
    for style in document.styles:
        base, seen = style, set()
        while base is not None and base.style_id not in seen:
            seen.add(base.style_id)
            name = base.name or ""
            if match := _HEADING.match(name):
                levels[style.style_id] = int(match[1])
                break
            if name.lower() == "title":
                levels[style.style_id] = 0
                break
            base = getattr(base, "base_style", None)
    return levels


def _blocks(body: Any, levels: dict[str, int]) -> Iterator[tuple[str, int | None]]:
    """Paragraphs and tables in reading order, with the heading level where there is one."""
    stack = [iter(body)]
    while stack:
        element = next(stack[-1], None)
        if element is None:
            stack.pop()
        elif element.tag == _W + "p":
            style = element.find(f"{_W}pPr/{_W}pStyle")
            yield _text(element), None if style is None else levels.get(style.get(_W + "val"))
        elif element.tag == _W + "tbl":
            rows = (" | ".join(_cells(row)) for row in element.iter(_W + "tr"))
            yield "\n".join(row for row in rows if row.strip(" |")), None
        else:  # content controls, custom XML and tracked insertions wrap blocks
            stack.append(iter(element))


def _cells(row: Any) -> Iterator[str]:
    """The cells of one row, each on one line; a table inside a cell gives its rows on its own."""
    for cell in row.iter(_W + "tc"):
        owner = next(cell.iterancestors(_W + "tr"), None)
        if owner is row:
            own = (p for p in cell.iter(_W + "p") if next(p.iterancestors(_W + "tc"), None) is cell)
            yield " ".join(" ".join(_text(paragraph).split()) for paragraph in own).strip()


def _text(paragraph: Any) -> str:
    """A paragraph's characters; deleted text has another tag, and stand-ins for old readers are left out."""
    out: list[str] = []
    stack = [iter(paragraph)]
    while stack:
        element = next(stack[-1], None)
        if element is None:
            stack.pop()
        elif element.tag in (_W + "t", _MATHS):
            out.append(element.text or "")
        elif element.tag in (_W + "tab", _W + "ptab"):
            out.append("\t")
        elif element.tag in (_W + "br", _W + "cr"):
            out.append("\n")
        elif element.tag == _W + "noBreakHyphen":
            out.append("-")
        elif element.tag not in _LEFT_OUT:
            if element.tag == _W + "p":  # in a text box
                out.append("\n")
            stack.append(iter(element))
    return "".join(out).strip("\n")
