"""Full stops that end no sentence: of abbreviations, ordinals, initials and names, in the languages met most."""

from __future__ import annotations

import re
import unicodedata

_FAR = 80  # characters on either side of a full stop that are looked at
_WORD_HERE = re.compile(r"\w{1,80}")
_LAST_WORD = re.compile(r"(?:\A|[\s.(])([^\W\d_]+)\.\Z")
_SHORT = 3  # letters of an abbreviation that a small letter may follow
_ENDING = 4  # letters of one, as in README.TXT
_BRIEF = re.compile(r"(?:\A|[\s.(])(?:[A-Za-z]{1,3}|[IVXLC]{2,6}|\d{1,2})\.\Z")
_LONGEST = 8  # characters of an abbreviation and its stop, and one more
_INITIAL = re.compile(r"(?:\A|[\s.(-])[A-ZÀ-ÖØ-Þ]\.\Z")
_ORDINAL = re.compile(r"(?:\A|[\s(–-])(?:\d{1,2}|[IVX]{1,6})\.\Z")
_AFTER_ORDINAL = re.compile(
    r"(?:Januar|Jänner|Jan\.|Februar|Feb\.|März|Mai|Juni|Juli|August|Aug\.|Sept?\.|Oktober|Okt\.|Nov\.|Dezember|Dez\."
    r"|Jahrhundert|Jhd?t?\.|Jahrtausend|Weltkrieg|Geburtstag|Lebensjahr|Kapitel|Auflage|Platz|Etage|Stock|Klasse|Bezirk"
    r"|Spieltag|Runde|Armee|Division|Wahlperiode|Tag\b|Mal\b)"
)
_SHARED_MONTH = re.compile(r"(?:April|September|November)\b")  # English, too: there a date is not written so
_BEFORE_ORDINAL = re.compile(r"(?:\A|[\s(])(?:[Aa]m|[Dd]e[mnrs]|[Vv]om|[Zz]um|[Ii]m|[Ss]eit|bis|und)\s+\d{1,2}\.\Z")
_COUNTED = re.compile(
    r"(?:\A|[\s(§])(?:Abs|Ziff|Kap|Bd|Rn|Rz|Sched|[Pp]aras?|[Cc]ls?|[Vv]ol|[Ff]igs?|[Cc]h|[Aa]pprox|[Cc]a|[Nn]úms?"
    r"|ул|д|стр|рис|гл|Mon|Tue|Tues|Wed|Thu|Thurs|Fri)\.\Z"
)
_NEVER = re.compile(r"(?:\A|[\s(])(?:[Vv]gl|[Bb]zw|[Ss]og|ул|просп|пл|им|св|проф|акад)\.\Z")
_MILLIONS = re.compile(r"\d\s?(?:Mio|Mrd|Tsd)\.\Z")
_MONEY = re.compile(r"(?:Euro|EUR|€|US-|USD|Dollar|\$|Franken|CHF|Mark|DM|Menschen|Einwohner|Tonnen|Stück)")
_DOUBLED = re.compile(r"(?:\A|\s)([A-Z])\1\.\Z")
_DOUBLED_HERE = re.compile(r"([A-Z])\1\.")


def goes_on(text: str, start: int, end: int) -> bool:
    """Whether the sentence ``[start, end)`` goes on with what follows, though it seems to end with a full stop.

    Args:
        text: Of which more than that has to follow.
        start: Of the sentence.
        end: Behind it and the white space after it.
    """
    if text[end - 1] == "." and text[end].isascii() and text[end].isalnum() and _in_a_name(text, end):
        return True
    told = text[max(start, end - _FAR) : end].rstrip()
    if not told.endswith(".") or (len(told) > _LONGEST and told[-_LONGEST:-1].isalpha()):
        return False  # no abbreviation is as long
    after = text[end : end + _FAR]
    return _abbreviated(told, after) or _mid_sentence(text, start, end, told) or _in_other_scripts(told, after[0])


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
    if after[0] == "-" and _INITIAL.search(told):  # J.-C.
        return True
    if told[-3:-2] == "-" and _INITIAL.search(told):  # J.-C. Martin
        return True
    if _NEVER.search(told):
        return True
    if (after[0].isdigit() or after[0] in "$€£¥§") and _COUNTED.search(told):
        return True
    if _ORDINAL.search(told) and _AFTER_ORDINAL.match(after):
        return True
    if _BEFORE_ORDINAL.search(told) and _SHARED_MONTH.match(after):
        return True
    return bool(
        (_MILLIONS.search(told) and _MONEY.match(after)) or (_DOUBLED.search(told) and _DOUBLED_HERE.match(after))
    )


def _mid_sentence(text: str, start: int, end: int, told: str) -> bool:
    """Whether a small letter follows a short word or a numeral, and the sentence began with a capital."""
    after = _WORD_HERE.match(text, end)
    if after is None or not after[0].islower() or not _BRIEF.search(told):  # iPhone and eBay may begin one
        return False
    first = next((character for character in text[start:end] if character.isalpha()), "")
    return first.isupper()


def _in_other_scripts(told: str, after: str) -> bool:
    """Initials and short abbreviations that the rules for English do not know."""
    if told.isascii():
        return False
    last = told[:-1].rsplit(None, 1)[-1].rsplit(".", 1)[-1].lstrip("(«“\"'") if told[:-1].split() else ""
    letters = [character for character in last if not unicodedata.category(character).startswith("M")]
    if len(letters) == 1 and letters[0].isalpha() and unicodedata.category(letters[0]) == "Lo":
        return not ("\u3040" <= letters[0] <= "\u9fff")
    word = _LAST_WORD.search(told)
    if word is None or word[1].isascii():
        return False
    return (len(word[1]) == 1 and word[1].isupper()) or (len(word[1]) <= _SHORT and after.islower())
