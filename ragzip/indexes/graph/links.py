"""What a text links to: targets of Markdown and HTML links, as sources of documents."""

from __future__ import annotations

import hashlib
import posixpath
import re
from urllib.parse import unquote

_LINK = re.compile(
    r"""\]\(\s*(?:<([^<>\n]+)>|([^)<>\s]+))"""  # [text](target "title")
    r"""|^\s{0,3}\[[^\]\n]{1,200}\]:\s*<?(\S+?)>?\s*$"""  # [name]: target
    r"""|\bhref\s*=\s*["']([^"']+)["']"""
    r"""|<((?:https?|file)://[^>\s]+)>""",
    re.IGNORECASE | re.MULTILINE,
)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_MOST, _LONGEST = 256, 2000


def links(text: str, source: str) -> list[int]:
    """The documents a text links to, each once, as ``key`` numbers them; not the document itself.

    Args:
        text: Markdown, HTML, or any other.
        source: Its document's, which relative targets start from.
    """
    if "](" not in text and "href" not in text and "://" not in text and "]:" not in text:
        return []
    found: dict[int, None] = {}
    for match in _LINK.finditer(text):
        target = unquote(next(filter(None, match.groups()))).partition("#")[0].partition("?")[0]
        if not 0 < len(target) <= _LONGEST:
            continue
        if _SCHEME.match(target):
            found[key(target)] = None
        elif target.startswith("/"):
            found[key(posixpath.normpath(target.lstrip("/")))] = None
        else:
            found[key(posixpath.normpath(posixpath.join(posixpath.dirname(source), target)))] = None
        if len(found) == _MOST:
            break
    found.pop(key(source), None)
    return list(found)


def key(source: str) -> int:
    """The number of a source."""
    return int.from_bytes(hashlib.blake2b(source.encode("utf-8", "replace"), digest_size=8).digest(), "little")
