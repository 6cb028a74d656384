"""HTML to Markdown with ``trafilatura``: the page's own text, without navigation; headings stay.

So do links to other documents, for the graph of an index, as they do in Markdown files. Those to a place on the same
page or to the web leave their words alone. Where a page says what its own part is (``main``, or a single ``article``,
with half of its words at least), all of that is read, whatever its parts are called, but for its navigation; else what
looks like the page's frame is left out, unless that is more than half of its words.
"""

from __future__ import annotations

import re
from typing import Any

from ragzip.ingest.decode import Empty, Unreadable, decode, whole
from ragzip.ingest.formats._page import text_of
from ragzip.ingest.formats.content import Content, on_one_line, quiet
from ragzip.ingest.formats.markup import markdown_sections

_CHARSET = re.compile(
    rb"""<meta[^>]{0,200}?charset=["']?([A-Za-z0-9_.:-]{1,40})|<\?xml[^>]{0,100}encoding=["']([\w.-]{1,40})"""
)
_PROLOG = re.compile(r"\A\s*<\?xml[^>]{0,200}\?>")


def read_html(data: bytes, stem: str, encoding: str | None) -> Content:
    """One page; its text is Markdown, in which offsets count.

    Raises:
        Unreadable: Not text, or no text in it.
    """
    page = _PROLOG.sub("", _decoded(data, encoding), count=1)
    with quiet("trafilatura", "htmldate", "courlan", "justext"):
        tree, deep = _parsed(page)
        title = on_one_line(tree.findtext(".//title") or "")
        text = whole(text_of(tree).strip())
    if not text:
        raise Empty("no text found")
    sections = markdown_sections(text)
    title = title or (sections[0][1].split(" > ")[0] if sections else "") or stem
    skipped = (("end", "nested too deeply: what stands behind is left out"),) if deep else ()
    return Content(text, title, sections, skipped=skipped)


def _parsed(page: str) -> tuple[Any, bool]:
    """The tree of a page, and whether a part is missing in it because it is nested too deeply."""
    from lxml import html
    from lxml.etree import ParserError

    parser = html.HTMLParser(huge_tree=True, remove_comments=True, remove_pis=True)
    try:
        tree = html.document_fromstring(page, parser=parser)
    except (ParserError, ValueError) as error:
        raise Unreadable("no text found: not an HTML page") from error
    return tree, any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log)


def _decoded(data: bytes, encoding: str | None) -> str:
    """A page that is not UTF-8 usually says what it is; the caller's word goes first."""
    try:
        return decode(data, encoding)
    except Unreadable:
        declared = _CHARSET.search(data[:4096])
        if encoding is not None or declared is None or b"\0" in data:
            raise
        name = (declared[1] or declared[2]).decode("ascii").lower()
        if name.replace("_", "-").startswith(("utf-16", "utf16", "utf-32", "utf32", "utf-7", "utf7")):
            raise  # its head could not be read as it was
        # As browsers do: pages that say latin-1 mean the superset that Windows wrote.
        name = "cp1252" if name in ("iso-8859-1", "latin-1", "latin1", "us-ascii", "ascii") else name
        try:
            return data.decode(name)
        except (LookupError, UnicodeError) as error:
            raise Unreadable(f"says it is {name}, and is not; convert it or pass --encoding") from error
