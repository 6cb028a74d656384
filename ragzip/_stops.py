"""Full stops that end no sentence: of abbreviations, ordinals, initials and names, in the languages met most."""

from __future__ import annotations

import re
import unicodedata

_FAR = 80  # characters on either side of a full stop that are looked at
_LONGEST = 8  # characters of an abbreviation and its stop, and one more
_WORD_HERE = re.compile(r"\w{1,80}")
_LAST_WORD = re.compile(r"(?:\A|[\s.(])([^\W\d_]+)\.\Z")
_SHORT = 3  # letters of an abbreviation that a small letter may follow
_ENDING = 4  # letters of one, as in README.TXT

# "am 3. Oktober", "Im 19. Jahrhundert"; where English has the word, too, something German has to stand before.
_ORDINAL = re.compile(r"(?:\A|[\s(–-])\d{1,2}\.\Z")
_AFTER_ORDINAL = re.compile(
    r"(?:(?:Januar|Jänner|Februar|Feber|März|Mai|Juni|Juli|Oktober|Dezember|Jahrhunderts?|Jahrtausends?|Weltkriegs?"
    r"|Geburtstag|Lebensjahr|Kapitel|Auflage|Platz|Etage|Klasse|Bezirk|Spieltag|Armee|Wahlperiode)(?!\w)"
    r"|(?:Okt|Dez|Jhd?t?)\.)"
)
_GOES_ON = re.compile(r"(?:de[rsnm]|im|am|zum|bis|und|oder|sowie|bzw)\b")  # "zum 15. des Monats"
_GERMAN_ORDINAL = re.compile(r"(?:\A|[\s(])(?:[Aa]m|[Dd]e[mnrs]|[Vv]om|[Zz]um|[Ii]m|[Ss]eit|[Bb]is|und)\s+\d{1,2}\.\Z")
_SHARED = re.compile(
    r"(?:(?:April|August|September|November|Stock|Division|Runde|Tag|Mal)(?!\w)|(?:Jan|Feb|Aug|Sept?|Nov)\.)"
)

_COUNTED = re.compile(  # before a number
    r"(?:\A|[\s(§])(?:Abs|Ziff|Kap|Bd|Rn|Rz|Sched|[Pp]aras?|[Cc]ls?|[Vv]ol|[Ff]igs?|[Aa]pprox|[Cc]a|[Ee]qs?|[Tt]abs?|Nos|[Aa]vd?a?|[Nn]úms?|ул|д|стр|рис|гл)\.\Z"
)
_LETTER = re.compile(r"[a-z](?!\w)")
_WEEKDAY = re.compile(r"(?:\A|[\s(])(?:Mon|Tues?|Wed|Thu(?:rs?)?|Fri|Sat|Sun)\.\Z")
_DATE = re.compile(r"\d{1,2}(?:st|nd|rd|th)?\.?\s+(?:Jan|Feb|Mar|Apr|May|June?|July?|Aug|Sept?|Oct|Nov|Dec)")
_NEVER = re.compile(r"(?:\A|[\s(])(?:[Vv]gl|[Bb]zw|[Ss]og|ул|просп|пл|им|св|проф|акад)\.\Z")
_MILLIONS = re.compile(r"\d\s?(?:Mio|Mrd|Tsd)\.\Z")
_MONEY = re.compile(r"(?:Euro|EUR|€|US-|USD|Dollar|\$|Franken|CHF|Mark|DM|Menschen|Einwohner|Tonnen|Stück)")
_DOUBLED, _DOUBLED_HERE = re.compile(r"(?:\A|\s)([A-Z])\1\.\Z"), re.compile(r"([A-Z])\1\.")  # EE. UU.
_HYPHENED, _HYPHENED_HERE = re.compile(r"(?:\A|[\s(])[A-Z]\.-[A-Z]\.\Z"), re.compile(r"-[A-Z]\.")  # J.-C. Martin
_INITIAL = re.compile(r"(?:\A|[\s(])[A-Z]\.\Z")

_BEFORE_SMALL = re.compile(  # before a small letter
    r"(?:\A|[\s(\d])(?:[Aa]pprox|bn|mn|Mio|Mrd|Tsd|[Ii]ncl|[Ee]xcl|resp|usw|UU|(?=[IVXL]{2})[IL]*[VX][IVXL]*)\.\Z"
)
_INDIC = frozenset(("डॉ", "डा", "पं", "प्रो", "ডা", "ড", "డా", "டாக்டர்"))


def goes_on(text: str, start: int, end: int) -> bool:
    """Whether the sentence ``[start, end)`` goes on with what follows, though it seems to end with a full stop.

    Args:
        text: Of which more than that has to follow.
        start: Of the sentence.
        end: Behind it and the white space after it.
    """
    if text[end - 1] == "." and text[end].isascii() and text[end].isalnum() and _in_a_name(text, end):
        return True
    if text[end] in ":;," and text[end - 1].isspace() and text[end + 1 : end + 2].isspace():
        return True  # "Tel. : 12 34 56"; without the spaces it may be where a note points, or a smile
    told = text[max(start, end - _FAR) : end].rstrip()
    if not told.endswith(".") or (len(told) > _LONGEST and told[-_LONGEST:-1].isalpha()):
        return False  # no abbreviation is as long
    after = text[end : end + _FAR]
    return _abbreviated(told, after) or _before_small(text, start, end, told) or _in_other_scripts(told, after[0])


def _in_a_name(text: str, end: int) -> bool:
    """Node.JS, System.Collections.Generic; not "the end.Next"."""
    first = max(text.rfind(mark, max(end - _FAR, 0), end) for mark in " \n\t") + 1
    name = re.match(r"\S*", text[first : end + _FAR])
    said = name[0].rstrip(".,;:!?)") if name else ""
    after = _WORD_HERE.match(text, end)
    short = after is not None and after[0].isupper() and len(after[0]) <= _ENDING
    return said.count(".") > 1 or "(" in said or short


def _abbreviated(told: str, after: str) -> bool:
    """Whether a stop belongs to what is before it, by what follows: a number, a month, a currency."""
    if _NEVER.search(told) or _HYPHENED.search(told) or (_INITIAL.search(told) and _HYPHENED_HERE.match(after)):
        return True
    if told.endswith((" lit.", "(lit.")) and _LETTER.match(after):  # Art. 6 Abs. 1 lit. a
        return True
    if after[0].isdigit() or after[0] in "$€£¥§":
        return bool(_COUNTED.search(told) or (_WEEKDAY.search(told) and _DATE.match(after)))
    if _ORDINAL.search(told):
        if _GOES_ON.match(after):
            return True
        return bool(_AFTER_ORDINAL.match(after) or (_GERMAN_ORDINAL.search(told) and _SHARED.match(after)))
    return bool(
        (_MILLIONS.search(told) and _MONEY.match(after)) or (_DOUBLED.search(told) and _DOUBLED_HERE.match(after))
    )


def _before_small(text: str, start: int, end: int, told: str) -> bool:
    """Whether a small letter follows an abbreviation or a numeral in a sentence that began with a capital."""
    after = _WORD_HERE.match(text, end)
    if after is None or not after[0].islower() or not _BEFORE_SMALL.search(told):  # iPhone and eBay may begin one
        return False
    first = next((character for character in text[start:end] if character.isalpha()), "")
    return first.isupper()


def _in_other_scripts(told: str, after: str) -> bool:
    """Initials and short abbreviations that the rules for English do not know."""
    if told.isascii():
        return False
    last = told[:-1].rsplit(None, 1)[-1].rsplit(".", 1)[-1].lstrip("(«“\"'") if told[:-1].split() else ""
    if last in _INDIC or (
        len(last) == 1 and unicodedata.name(last, "").startswith(("ARABIC L", "HEBREW L", "THAI CHA"))
    ):
        return True
    word = _LAST_WORD.search(told)
    if word is None or word[1].isascii():
        return False
    return (len(word[1]) == 1 and word[1].isupper()) or (len(word[1]) <= _SHORT and after.islower())
