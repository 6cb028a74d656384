"""HTML to Markdown with ``trafilatura``: the page's own text, without navigation; headings stay.

So do links to other documents, for the graph of an index, as they do in Markdown files. Those to a place on the same
page or to the web leave their words alone.
"""

from __future__ import annotations

import re

from ragzip.ingest.decode import Empty, Unreadable, decode, whole
from ragzip.ingest.formats.content import Content, heading, quiet
from ragzip.ingest.formats.markup import markdown_sections

_CHARSET = re.compile(
    rb"""<meta[^>]{0,200}?charset=["']?([A-Za-z0-9_.:-]{1,40})|<\?xml[^>]{0,100}encoding=["']([\w.-]{1,40})"""
)
_LINK = re.compile(  # as trafilatura writes them; code, in which brackets are its own, is passed over
    r"```.*?(?:```|\Z)|`[^`\n]*`|\[((?:\\.|[^\[\]\\]){0,1000})\]\((<[^<>\n]+>|[^()<>\s]+)\)", re.DOTALL
)
_ELSEWHERE = re.compile(r"<?(?:#|\?|//|[a-z][a-z0-9+.-]*:)", re.IGNORECASE)
_PROLOG = re.compile(r"\A\s*<\?xml[^>]{0,200}\?>")


def read_html(data: bytes, stem: str, encoding: str | None) -> Content:
    """One page; its text is Markdown, in which offsets count.

    Raises:
        Unreadable: Not text, or no text in it.
    """
    page = _PROLOG.sub("", _decoded(data, encoding), count=1)
    import trafilatura

    with quiet("trafilatura", "htmldate", "courlan", "justext"):
        tree = trafilatura.load_html(page)
        if tree is None:  # a fragment
            page = f"<html><body>{page}</body></html>"
            tree = trafilatura.load_html(page)
        if tree is None:
            raise Unreadable("no text found: not an HTML page")
        title = heading(tree.findtext(".//title") or "")
        text = trafilatura.extract(
            tree,
            output_format="markdown",
            include_comments=False,
            include_tables=True,
            include_links=True,
            favor_recall=True,
        )
        text = _LINK.sub(_kept, text or "")
        if not text or not text.strip():
            text = trafilatura.html2txt(page)
    text = whole((text or "").strip())
    if not text:
        raise Empty("no text found")
    sections = markdown_sections(text)
    return Content(text, title or (sections[0][1].split(" > ")[0] if sections else "") or stem, sections)


def _kept(link: re.Match[str]) -> str:
    """A link to another document as it is, else its words."""
    return link[1] if link[2] and _ELSEWHERE.match(link[2]) else link[0]


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
