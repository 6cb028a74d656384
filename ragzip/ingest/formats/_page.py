"""The Markdown of a page, by ``trafilatura``: all of what it says is its own part, else what looks like that."""

from __future__ import annotations

import re
from typing import Any

from ragzip.ingest.formats._links import ELSEWHERE, as_links, marked

_LINK = re.compile(  # as trafilatura writes them; code, in which brackets are its own, is passed over
    r"```.*?(?:```|\Z)|`[^`\n]*`|(?<=\w)\\_(?=\w)"
    r"|\[((?:\\.|[^\[\]\\]){0,1000})\]\((<[^<>\n]+>|[^()<>\s]+)\)",
    re.DOTALL,
)
_FRAME = ("nav", "script", "style", "noscript", "template", "iframe", "button", "select", "textarea", "input")
_CALLED = ("id", "class", "role", "style", "itemprop", "rel")  # by which trafilatura tells a page's frame
_PLAIN = ("aside", "footer", "header", "figcaption", "details", "summary", "form", "fieldset")
_LEAST = 0.5  # share of a page's words below which a reading of it is not believed


def text_of(tree: Any) -> str:
    """The Markdown of a page."""
    import copy

    clean = _clean(copy.deepcopy(tree))
    body = clean.find("body")
    body = clean if body is None else body
    plain = " ".join(_plain(body).split())
    own = _own(clean)
    if own is not None and _words(_plain(own)) >= _LEAST * _words(plain):
        return _whole_of(own) or plain
    found = _extracted(tree)
    if _words(found) < _LEAST * _words(plain):
        found = max(found, _whole_of(body), key=_words)
    return found or plain


def _clean(tree: Any) -> Any:
    """The page without what nobody reads: navigation, controls, and what is hidden."""
    hidden = [e for e in tree.iter() if isinstance(e.tag, str) and _is_hidden(e)]
    for element in [*tree.iter(*_FRAME), *hidden]:
        if element.getparent() is not None:
            element.drop_tree()
    return tree


def _is_hidden(element: Any) -> bool:
    style = element.get("style") or ""
    return element.get("hidden") is not None or "display:none" in style.replace(" ", "").lower()


def _own(tree: Any) -> Any:
    """The element that a page says is its own part; None where there is none, or several."""
    for path in (".//main", ".//*[@role='main']", ".//article"):
        found = tree.findall(path)
        if found:
            return _article_of(found[0]) if len(found) == 1 else None
    return None


def _article_of(own: Any) -> Any:
    """The one article in an element, if that is most of it: what stands beside it are remarks and the like."""
    found = own.findall(".//article")
    most = len(found) == 1 and _words(_plain(found[0])) > _LEAST * _words(_plain(own))
    return found[0] if most else own


def _whole_of(own: Any) -> str:
    """All of an element, whatever its parts are called and however many links they have.

    A list of links is content here. So links are written as words, which are made links again behind.
    """
    from lxml import html

    targets = marked(own)
    for element in own.iter():
        if isinstance(element.tag, str):
            for name in _CALLED:
                element.attrib.pop(name, None)
            element.tag = "div" if element.tag in _PLAIN else "span" if element.tag == "a" else element.tag
    page = html.document_fromstring("<html><body></body></html>")
    own.tag, own.tail = "article", None
    page.find("body").append(own)
    return as_links(_extracted(page), targets)


def _extracted(tree: Any) -> str:
    import trafilatura

    text = trafilatura.extract(
        tree,
        output_format="markdown",
        include_comments=False,
        include_tables=True,
        include_links=True,
        favor_recall=True,
    )
    return _LINK.sub(_kept, text or "")


def _plain(element: Any) -> str:
    """The words of an element."""
    return " ".join(element.itertext())


def _words(text: str) -> int:
    return len(text.split())


def _kept(link: re.Match[str]) -> str:
    """A link to another document as it is, else its words; an underscore within a word needs no escape."""
    if link[0] == "\\_":
        return "_"
    return link[1] if link[2] and ELSEWHERE.match(link[2]) else link[0]
