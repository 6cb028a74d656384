"""PDF with ``pypdf``, page by page."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from ragzip.ingest.decode import Unreadable, too_big, whole
from ragzip.ingest.formats.content import Content, heading, quiet, reason

if TYPE_CHECKING:
    from pypdf import PdfReader

_HYPHEN = re.compile(r"([^\W\d_]{2,40})-\n([^\W\d_]{2,40})")
_WORD = re.compile(r"[^\W\d_]{4,80}")
_LIGATURES = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st", "\xad": "", "\0": "", "\r": ""}
)
_NO_TITLE = re.compile(r"(untitled.*|.*\.(docx?|tex|dvi|indd|qxd|pptx?|pdf|rtf))$", re.IGNORECASE)


def read_pdf(data: bytes, stem: str, max_bytes: int) -> Content:
    """The text layer of all pages.

    Ligatures are spelled out; a word broken at a line's end is joined where the document writes it in one piece
    elsewhere.

    Raises:
        Unreadable: Corrupt, encrypted, or without a text layer.
    """
    import pypdf
    from pypdf.errors import DependencyError

    with quiet("pypdf"):
        try:
            reader = pypdf.PdfReader(io.BytesIO(data))
            if reader.is_encrypted and not reader.decrypt(""):
                raise Unreadable("encrypted: needs a password")
            count = len(reader.pages)
        except DependencyError as error:
            raise Unreadable("encrypted with AES: pip install cryptography to read it") from error
        if count == 0:
            raise Unreadable("no pages")
        texts, skipped = _page_texts(reader, count, max_bytes)
        title = _title(reader)
    if len(skipped) == count:
        raise Unreadable(f"no page can be read: {skipped[0][1]}")
    if not any(texts):
        raise Unreadable("no text layer: run OCR first")
    texts = _joined_words(texts)
    pages: list[int] = []
    at = 0
    for number, text in enumerate(texts):
        pages.append(at)
        # Sentences run on over page breaks: only a finished one ends its paragraph there.
        gap = "\n\n" if text.endswith((".", "!", "?", ":", "”", '"')) or not text else "\n"
        texts[number] = text + (gap if number < count - 1 else "")
        at += len(texts[number])
    return Content("".join(texts), title or stem, pages=tuple(pages), skipped=tuple(skipped))


def _page_texts(reader: PdfReader, count: int, max_bytes: int) -> tuple[list[str], list[tuple[str, str]]]:
    texts: list[str] = []
    skipped: list[tuple[str, str]] = []
    total = 0
    for number in range(count):
        try:
            text = reader.pages[number].extract_text().translate(_LIGATURES)
        except Exception as error:  # noqa: BLE001 - one bad page must not cost the others
            text = ""
            skipped.append((f"page {number + 1}", reason(error)))
        texts.append(whole(text.strip()))
        total += len(text)
        if total > max_bytes:
            raise Unreadable(too_big(total, max_bytes))
    return texts, skipped


def _title(reader: PdfReader) -> str:
    try:
        said = str((reader.metadata.title if reader.metadata else "") or "")
    except Exception:  # noqa: BLE001 - a broken title is no reason to lose the text
        return ""
    title = whole(heading(said.removeprefix("Microsoft Word - ").replace("\0", "")))
    return "" if _NO_TITLE.match(title) else title


def _joined_words(texts: list[str]) -> list[str]:
    if not any("-\n" in text for text in texts):
        return texts
    known = {word.lower() for text in texts for word in _WORD.findall(text)}

    def join(match: re.Match[str]) -> str:
        word = match[1] + match[2]
        return word if word.lower() in known else match[0]

    return [_HYPHEN.sub(join, text) for text in texts]
