"""Links of a page that are written as words, which count as words, and are made links of Markdown again behind."""

from __future__ import annotations

import re
from typing import Any

ELSEWHERE = re.compile(r"<?(?:#|\?|//|[a-z][a-z0-9+.-]*:)", re.IGNORECASE)
_OPEN, _AT, _CLOSE = "\u2997", "\u2999", "\u2998"  # around the words of a link, which then count as words
_MARKED = re.compile(f"{_OPEN}(\\d+){_AT}([^{_OPEN}{_CLOSE}]*){_CLOSE}")
_MARKS = re.compile(f"[{_OPEN}{_AT}{_CLOSE}]")


def marked(own: Any) -> list[str]:
    """Makes the links of an element words with marks around them, where they lead to other documents: to these.

    Those in code, to the web and on the same page are their words alone, and so are headings that are links.
    """
    targets: list[str] = []
    code = {link for part in own.iter("pre", "code") for link in part.iter("a")}
    marks = not _MARKS.search(" ".join(own.itertext()))
    links = list(own.iter("a"))
    for link in links:
        target = link.get("href") or ""
        if not (marks and target) or ELSEWHERE.match(target) or link in code or not _inline(link):
            continue
        link.text = f"{_OPEN}{len(targets)}{_AT}{link.text or ''}"
        targets.append(target)
        if len(link):
            link[-1].tail = f"{link[-1].tail or ''}{_CLOSE}"
        else:
            link.text += _CLOSE
    for parent in {link.getparent(): None for link in links if link.getparent() is not None}:
        _dissolve(parent)
    return targets


def as_links(text: str, targets: list[str]) -> str:
    """The text with links to these targets where the marks are."""
    made = _MARKED.sub(lambda link: _written(link[2].strip(), targets[int(link[1])]), text)
    return re.sub(f"{_OPEN}\\d+{_AT}|{_CLOSE}", "", made) if targets else made


def _inline(link: Any) -> bool:
    """Whether a link holds words alone, and no heading or paragraph."""
    return all(part.tag in ("code", "b", "strong", "i", "em", "span", "kbd", "tt", "sub", "sup") for part in link[:9])


def _dissolve(parent: Any) -> None:
    """Makes the links of an element that hold nothing but words part of its text, in one go."""
    kept: list[Any] = []
    words = [parent.text or ""]

    def put() -> None:
        if kept:
            kept[-1].tail = "".join(words)
        else:
            parent.text = "".join(words)

    children = list(parent)
    for child in children:
        if child.tag == "a" and not len(child):
            words += [child.text or "", child.tail or ""]
        else:
            put()
            kept.append(child)
            words = [child.tail or ""]
    put()
    tails = [child.tail for child in kept]
    parent[:] = kept
    for child, tail in zip(kept, tails, strict=True):
        child.tail = tail


def _written(words: str, target: str) -> str:
    target = f"<{target}>" if re.search(r"[()\s]", target) else target
    return f"[{words}]({target})" if words and not re.search(r"[<>\n]", target[1:-1]) else words
