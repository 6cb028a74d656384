"""The Markdown of a page, by ``trafilatura``: all of what it says is its own part, else what looks like that."""

from __future__ import annotations

import re
from typing import Any

_LINK = re.compile(  # as trafilatura writes them; code, in which brackets are its own, is passed over
    r"```.*?(?:```|\Z)|`[^`\n]*`|(?<=\w)\\_(?=\w)"
    r"|\[((?:\\.|[^\[\]\\]){0,1000})\]\((<[^<>\n]+>|[^()<>\s]+)\)",
    re.DOTALL,
)
_ELSEWHERE = re.compile(r"<?(?:#|\?|//|[a-z][a-z0-9+.-]*:)", re.IGNORECASE)
_OPEN, _AT, _CLOSE = "\u2997", "\u2999", "\u2998"  # around the words of a link, which then count as words
_MARKED = re.compile(f"{_OPEN}(\\d+){_AT}([^{_OPEN}{_CLOSE}]*){_CLOSE}")
_MARKS = re.compile(f"[{_OPEN}{_AT}{_CLOSE}]")
_FRAME = ("nav", "script", "style", "noscript", "template", "iframe", "button", "select", "form")
_CALLED = ("id", "class", "role", "style", "itemprop", "rel")  # by which trafilatura tells a page's frame
_LEAST = 0.5  # share of a page's words below which a reading of it is not believed


def text_of(tree: Any) -> str:
    """The Markdown of a page."""
    import copy

    import trafilatura

    own = _own(tree)
    if own is not None:
        return _whole_of(own)
    found = _extracted(copy.deepcopy(tree))
    body = tree.find("body")
    if body is not None and _words(found) < _LEAST * _words(_plain(body)):
        found = max(found, _whole_of(body), key=_words)
    return found or str(trafilatura.html2txt(tree) or "")


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
    """All of an element but its navigation, whatever its parts are called and however many links they have.

    A list of links is content here. So links are written as words, which are made links again behind.
    """
    from lxml import html

    for element in [e for e in own.iter(*_FRAME) if e is not own]:
        if element.getparent() is not None:
            element.drop_tree()
    targets: list[str] = []
    marks = not _MARKS.search(_plain(own))
    for element in own.iter():
        if not isinstance(element.tag, str):
            continue
        for name in _CALLED:
            element.attrib.pop(name, None)
        if element.tag in ("aside", "footer", "header", "figcaption", "details", "summary"):
            element.tag = "div"
        if element.tag == "a":
            target = element.attrib.pop("href", "")
            element.tag = "span"
            code = next(element.iterancestors("pre", "code"), None) is not None
            if marks and target and not code and not _ELSEWHERE.match(target):
                element.text = f"{_OPEN}{len(targets)}{_AT}{element.text or ''}"
                targets.append(target)
                if len(element):
                    element[-1].tail = f"{element[-1].tail or ''}{_CLOSE}"
                else:
                    element.text += _CLOSE
    page = html.document_fromstring("<html><body></body></html>")
    own.tag, own.tail = "article", None
    page.find("body").append(own)
    text = _MARKED.sub(lambda link: _written(link[2].strip(), targets[int(link[1])]), _extracted(page))
    return re.sub(f"{_OPEN}\\d+{_AT}|{_CLOSE}", "", text) if targets else text


def _written(words: str, target: str) -> str:
    target = f"<{target}>" if re.search(r"[()\s]", target) else target
    return f"[{words}]({target})" if words and not re.search(r"[<>\n]", target[1:-1]) else words


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
    """The words of an element, without what nobody reads."""
    return " ".join(
        text
        for node in element.iter()
        for text in (node.text if node.tag not in _FRAME else None, node.tail if node is not element else None)
        if text
    )


def _words(text: str) -> int:
    return len(text.split())


def _kept(link: re.Match[str]) -> str:
    """A link to another document as it is, else its words; an underscore within a word needs no escape."""
    if link[0] == "\\_":
        return "_"
    return link[1] if link[2] and _ELSEWHERE.match(link[2]) else link[0]
