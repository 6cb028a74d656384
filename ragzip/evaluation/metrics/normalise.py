"""Text as answers are compared: the normalisation of the SQuAD script, and what scripts without spaces need.

Lower case, no punctuation, no English articles, one space between words: on English text, and on all text in Latin
script, exactly the official script's. Three things are added. Each ideograph and kana is a word of its own, as in
MLQA, so that Chinese and Japanese answers overlap by character. Punctuation of other scripts (``。``, ``،``, ``।``)
goes the way of ASCII's; typographic marks of Latin script (``«``, ``–``, ``’``) stay, because the official script
leaves them. And full-width and half-width forms are the letters, digits and marks that they are forms of.
"""

from __future__ import annotations

import re
import string
import unicodedata

from ragzip import text as text_

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ASCII_MARKS = str.maketrans("", "", string.punctuation)
_WIDTHS = re.compile("[\uff00-\uffef]+")


def tokens(text: str) -> list[str]:
    """The normalised words of a text.

    >>> tokens("The U.S. won, 3-2!")
    ['us', 'won', '32']
    """
    plain = composed(text).lower()
    plain = plain.translate(_ASCII_MARKS)
    if not plain.isascii():
        foreign = {ord(mark): None for mark in set(plain) if _is_foreign_mark(mark)}
        plain = plain.translate(foreign) if foreign else plain
    plain = _ARTICLES.sub(" ", plain)
    if plain.isascii():
        return plain.split()
    return [plain[start:end] for start, end in text_.words(plain)]


def composed(text: str) -> str:
    """Letters with their accents in one (NFC), full-width and half-width forms in their usual one.

    No other compatibility forms: superscripts and fractions mean something else than the digits in them.

    >>> composed("Ａ１ ｶﾞ ²")
    'A1 ガ ²'
    """
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _WIDTHS.sub(lambda run: unicodedata.normalize("NFKC", run[0]), text))


def normalise(text: str) -> str:
    """The normalised words with one space between."""
    return " ".join(tokens(text))


def stands_in(part: str, whole: str) -> bool:
    """Whether a normalised text stands in another between word borders. Nothing stands nowhere."""
    return bool(part) and f" {part} " in f" {whole} "


def references(answers: tuple[str, ...]) -> tuple[str, ...]:
    """Reference answers, normalised, those of no words left out; ``("",)`` where that leaves none: unanswerable.

    As in SQuAD 2.0. No references at all stay none.
    """
    found = tuple(dict.fromkeys(normalised for normalised in map(normalise, answers) if normalised))
    return found or (("",) if answers else ())


def _is_foreign_mark(character: str) -> bool:
    code = ord(character)
    latin = code < 0x100 or 0x2000 <= code <= 0x206F or 0x2E00 <= code <= 0x2E7F
    return not latin and unicodedata.category(character).startswith("P")
