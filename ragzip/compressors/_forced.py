"""What a compressor must not drop, found in a text before anything is scored: titles, numbers, negations, a pattern.

A dropped "not" turns an answer round and a dropped number makes it useless, whatever a score says. Nothing here reads
a model: words of closed classes, digits and layout, for the languages that the encoders read.
"""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal, get_args

from ragzip.compressors._layout import Layout
from ragzip.errors import ConfigError, RagzipError
from ragzip.text import Stretch, merge
from ragzip.types import Context, Segment, TextSegment

Force = Literal["titles", "numbers", "negations"]
"""``titles``: headings, and the passage's title wherever the text names it. ``numbers``: everything with a digit,
with its sign, scale, currency or unit: "$3.5 billion", "20 mg/ml". ``negations``: words such as not, nicht, jamais,
нет, 不, ليس, of about thirty languages at once, so that a word of one that looks like the negation of another is kept
as well."""

FORCES: tuple[Force, ...] = get_args(Force)

_LONGEST_PATTERN = 1000
_LONGEST_TITLE = 500
_SECONDS = 2.0  # that a pattern may take for one text

_HEADING = re.compile(r"^[^\S\n]{0,3}(#{1,6}[^\S\n]+\S.*)$", re.MULTILINE)
_UNDERLINED = re.compile(r"^(\S[^\n]*)\n[^\S\n]{0,3}(?:={3,}|-{3,}|~{3,})[^\S\n]*$", re.MULTILINE)
_DIGIT = r"[\d²³¹¼-¾⁰⁴-⁹₀-₉⅐-↉①-⓿]"
_SCALES = (
    "(?:thousand|hundred|dozen|[mb]illions?|trillions?|bn|mn|(?:Mio|Mrd|Tsd|млн|млрд|тыс)\\.?|Million(?:en)?"
    "|Milliarden?|milliards?|millones|mil|milliones|millóns?|milioni|miliardi|milhões|mln|mld)"
)
_UNITS = (
    "(?:per[^\\S\\n]?cent|Prozent|kg|mg|µg|g|km|cm|mm|nm|m|ml|l|kB|[KMGT]B|[kMG]?Hz|kWh?|MW|GW|ms|mph|ft|lbs?|oz"
    "|euros?|Euro|EUR|USD|GBP|CHF|dollars?|Dollar|pounds|yen|евро|руб"
    "|dl|cl|hl|t|tonnes?|tons?|miles?|ha|mbar|bar|[hkM]?Pa|K|kJ|J|kcal|[mk]?V|mA|mAh|[kM]?W|dB|rpm"
    "|µs|ns|s|secs?|seconds?|min|mins|minutes?|h|hrs?|hours?|days?|weeks?|months?|years?"
    "|Sekunden?|Minuten?|Stunden?|Tag(?:en?)?|Wochen?|Monat(?:en?)?|Jahr(?:en?)?"
    "|secondes?|heures?|jours?|mois|ans?|segundos?|minutos?|horas?|días?|meses|años?|dagen|uur|weken|maanden|jaar)"
    "(?:/[a-zA-Zµ]{1,3})?(?:[²³]|\\^[23])?"
)
_POWER = r"(?:\^[+\-−]?\d{1,4}|[⁺⁻]?[⁰¹²³⁴-⁹]{1,4})"
_SHOWN = re.compile(r"\S")
_APOSTROPHE = re.compile("['’ʼ]")
_CODES = "EUR|USD|GBP|CHF|JPY|CNY|INR|CAD|AUD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|BRL|MXN|ZAR|KRW|RUB|US(?=\\$)|Rs\\.?"
_NUMBER = re.compile(
    rf"(?:(?<!\w)(?:{_CODES})[^\S\n]?(?=[+\-−–$€£¥₹\d]))?"
    rf"(?:[+\-−–±<>≤≥~≈][^\S\n]?)?(?:[$€£¥₹₽₩₪₺][^\S\n]?)?"
    rf"(?:(?<!\w)v(?=\d))?{_DIGIT}(?:(?:{_DIGIT}|[.,:/'’\u00a0\u202f\-])*{_DIGIT})?"
    rf"(?:[eE][+\-−]?\d{{1,4}}(?!\w)|-(?:rc|alpha|beta|dev)\.?\d{{0,4}}(?!\w)|{_POWER})?"
    rf"(?:[^\S\n]?[×·][^\S\n]?10{_POWER})?(?:[^\S\n]?×(?=[^\S\n]?\d))?(?:[kKMB](?!\w))?"
    rf"(?:[^\S\n]?[%‰°$€£¥₹₽₩₪₺])?"
    rf"(?:(?<=°)[CF]\b|[^\S\n]?(?:{_SCALES})(?![^\W\d_])|[^\S\n]?[百千万萬亿億兆만억조]+)?"
    rf"(?:[^\S\n]?(?:{_UNITS})(?![^\W\d_])|[年月日元円圓岁歲])?"
)
_WORD = re.compile(r"[^\W\d_](?:[\w\u0300-\u036f]|['’ʼ´](?=[^\W\d_]))*")
_NEGATIONS = (
    # English, German, Dutch
    "no not never none nobody nothing nowhere neither nor cannot cant without doesnt didnt "
    "dont isnt wasnt arent werent couldnt wouldnt shouldnt mustnt hasnt havent hadnt wont aint "
    "nicht kein keine keinen keinem keiner keines keins keinerlei keineswegs "
    "nie niemals niemand niemanden niemandem nichts nirgends weder ohne "
    "niet geen nooit niemand niets nergens zonder "
    # French, Spanish, Italian, Portuguese, Catalan, Romanian
    "ne pas jamais rien aucun aucune sans ni non nul nulle nullement guère "
    "nunca jamás nada nadie ningún ninguno ninguna sin tampoco "
    "niente nulla nessuno nessuna nessun né senza mai "
    "não ninguém nenhum nenhuma nem sem mai nu niciodată nimic nimeni fără "
    # Danish, Norwegian, Swedish, Finnish, Hungarian, Turkish
    "ikke ikkje ej aldrig aldri ingen inget intet inga ingenting uden uten utan inte "
    "ei eivät emme ette eikä ilman nem nincs sincs soha semmi senki değil yok hiç asla "
    # Polish, Czech and Slovak, South Slavic, Russian, Ukrainian, Bulgarian
    "nie nigdy nikt nic żaden żadna bez není nikdy nikdo žádný žádná nikada ništa niko nisu nije "
    "не нет ни никогда никто ничего ничто никакой нельзя без нету ні немає ніколи ніхто нічого няма никой нищо "
    # Greek, Arabic, Persian, Hebrew, Indonesian, Vietnamese, Korean
    "δεν δε μην μη όχι ποτέ τίποτα κανείς χωρίς "
    "لا ليس ليست ليسوا لم لن بدون بلا غير دون نه نیست بدون هیچ هرگز לא אין בלא בלי מעולם "
    "tidak bukan belum jangan tanpa không chưa chẳng đừng 안 못 아니 아니다 없다 없는 없이"
)
_NOT = frozenset(_NEGATIONS.split())
_PREFIXED = re.compile(  # behind and, then; and, that
    r"[وف](?:لا|لم|لن|ليس|ليست|ليسوا|بدون|بلا|غير|دون)|(?:ו|ש|וש)(?:לא|אין|בלא|בלי|מעולם)"
)
# Scripts that put no spaces between words. Katakana has borders to others; particles follow a Korean word at once.
_KATAKANA = r"\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
_OTHERS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u309f\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_JOINED = _KATAKANA + _OTHERS
_HANGUL = r"\u1100-\u11ff\uac00-\ud7a3"
_CONTRACTED = re.compile(r"\w*n['’ʼ´]t\Z|n['’ʼ´]\w", re.IGNORECASE)  # doesn't; il n'a pas
# Scripts without spaces between words, or whose vowel signs are no letters to Python.
_UNSPACED = re.compile(
    r"不(?!錯|错)|[没沒]|(?<![一])[无無]|未(?!来|來|必)|[勿莫]|非(?!常|洲)"
    r"|(?:ない|なかっ|なく|なけれ|ません|ませんでした)|(?:않|없)|(?<!\w)(?:아니|아닙|아닌|아닐|아녜|안(?=[되됐된됩될돼]))|(?<!잘)못(?=[하했한합할해])"
    r"|(?:(?<!\w)|(?<=[你您请们]))别(?![的人墅名致样具处称离扭针传克林列国墨])|नहीं|मत(?!लब|दा)|बिना|ไม่|มิได้|নেই|না(?!ম)|இல்லை|లేదు"
)


def check_forced(kinds: tuple[str, ...], pattern: str | None) -> None:
    """Refuses options ``force_keep`` and ``force_pattern`` that cannot work; for ``__post_init__``.

    Raises:
        ConfigError: A kind that does not exist, a pattern that does not compile or is longer than 1,000 characters.
    """
    if not isinstance(kinds, tuple):
        raise ConfigError("force_keep", f"must be a list, in Python a tuple, of {', '.join(FORCES)}, not {kinds!r}")
    for kind in kinds:
        if kind not in FORCES:
            raise ConfigError("force_keep", f"must be among {', '.join(FORCES)}, not {kind!r}")
    if pattern is None:
        return
    if not isinstance(pattern, str) or not pattern:
        raise ConfigError("force_pattern", f"must be a regular expression, not {pattern!r}")
    if len(pattern) > _LONGEST_PATTERN:
        raise ConfigError(
            "force_pattern",
            f"has {len(pattern)} characters, at most {_LONGEST_PATTERN} are allowed",
            hint="Look for the words themselves: (?i)warranty|refund.",
        )
    _compiled(pattern)


def forced(text: str, title: str, kinds: tuple[str, ...], pattern: str | None) -> list[Stretch]:
    """What must be kept of a text: ordered stretches of characters that neither overlap nor touch.

    Args:
        text: Any string.
        title: The passage's title, or "".
        kinds: Out of ``titles``, ``numbers``, ``negations``.
        pattern: A regular expression of the ``regex`` package, or None; what it matches is kept.

    Raises:
        ConfigError: The pattern is none.
        RagzipError: The pattern took more than 2 seconds for this text.

        >>> text = "It did not open in 1999."
        >>> [text[a:b] for a, b in forced(text, "", ("negations", "numbers"), "open")]
        ['not', 'open', '1999']
    """
    found: list[Stretch] = []
    if "titles" in kinds:
        found += _titles(text, title)
    if "numbers" in kinds:
        found += [match.span() for match in _NUMBER.finditer(text)]
    if "negations" in kinds:
        found += _negations(text)
    if pattern is not None:
        found += _matches(text, pattern)
    return merge(found)


def touching(units: Sequence[Stretch], stretches: Sequence[Stretch]) -> list[bool]:
    """For each unit whether it shares a character with one of the stretches; both in order, without overlaps.

    >>> touching([(0, 3), (4, 7), (8, 9)], [(2, 3), (6, 8)])
    [True, True, False]
    """
    touched, place = [], 0
    for start, end in units:
        while place < len(stretches) and stretches[place][1] <= start:
            place += 1
        touched.append(place < len(stretches) and stretches[place][0] < end)
    return touched


def forced_units(layout: Layout, kinds: tuple[str, ...], pattern: str | None) -> frozenset[int]:
    """The units of a layout that touch what must be kept; soft segments have none."""
    if not kinds and pattern is None:
        return frozenset()
    found: list[int] = []
    for index, units in enumerate(layout.of_segment):
        segment = layout.context.segments[index]
        if not units or not isinstance(segment, TextSegment):
            continue
        stretches = forced_in(layout, index, kinds, pattern)
        places = [(layout.units[unit].start, layout.units[unit].end) for unit in units]
        found += [unit for unit, kept in zip(units, touching(places, stretches), strict=True) if kept]
    return frozenset(found)


def forced_in(layout: Layout, index: int, kinds: tuple[str, ...], pattern: str | None) -> list[Stretch]:
    """What must be kept of a text segment; the titles are those of all passages that it comes from."""
    segment = layout.context.segments[index]
    if not isinstance(segment, TextSegment):
        return []
    titles = layout.titles(index)
    found = forced(segment.text, titles[0] if titles else "", kinds, pattern)
    others = [stretch for title in titles[1:] if "titles" in kinds for stretch in _titles(segment.text, title)]
    return merge([*found, *others]) if others else found


def only_forced(context: Context[Segment], kinds: tuple[str, ...], pattern: str | None) -> Context[Segment]:
    """The sentences that must be kept and no others: what methods leave that drop or rewrite whole contexts."""
    layout = Layout(context)
    return layout.build(forced_units(layout, kinds, pattern))


def _titles(text: str, title: str) -> Iterator[Stretch]:
    for expression in (_HEADING, _UNDERLINED):
        yield from (match.span(1) for match in expression.finditer(text))
    forms = (title, unicodedata.normalize("NFC", title), unicodedata.normalize("NFD", title))
    for words in dict.fromkeys(tuple(form.split()) for form in forms if len(title) <= _LONGEST_TITLE):
        if not words:
            continue
        named = r"\s+".join(_APOSTROPHE.sub("['’ʼ]", re.escape(word)) for word in words)
        first, last = words[0][0], words[-1][-1]
        before = rf"(?<![^\W_{_JOINED}])"
        after = rf"(?![^\W_{_JOINED}{_HANGUL}])"
        if re.match(rf"[{_OTHERS}]", first):
            before = ""
        elif re.match(rf"[{_KATAKANA}]", first):
            before = rf"(?<![{_KATAKANA}])"
        if re.match(rf"[{_OTHERS}{_HANGUL}]", last):
            after = ""
        elif re.match(rf"[{_KATAKANA}]", last):
            after = rf"(?![{_KATAKANA}])"
        yield from (match.span() for match in re.finditer(rf"{before}{named}{after}", text, re.IGNORECASE))


def _negations(text: str) -> Iterator[Stretch]:
    for match in _WORD.finditer(text):
        found = match[0].rstrip("_")  # _not_ is a word that is stressed, is_not_null a name
        word = found.casefold()
        if not word.isascii():
            word = unicodedata.normalize("NFC", word)
        if word in _NOT or _CONTRACTED.match(word) or _PREFIXED.fullmatch(word):
            yield match.start(), match.start() + len(found)
    if not text.isascii():
        yield from (match.span() for match in _UNSPACED.finditer(text))


def _matches(text: str, pattern: str) -> list[Stretch]:
    try:
        found = [match.span() for match in _compiled(pattern).finditer(text, timeout=_SECONDS)]
    except TimeoutError as error:
        raise RagzipError(
            f"force_pattern {pattern!r} took more than {_SECONDS:g} s on a text of {len(text)} characters",
            hint="Repeat nothing that repeats: not (a+)+.",
        ) from error
    if _compiled(pattern).fullmatch(""):  # \d*, say, matches nothing anywhere: that tells nothing
        return [(start, end) for start, end in found if start < end]
    return [(start, end) if start < end else _letter_at(text, start) for start, end in found]


def _letter_at(text: str, place: int) -> Stretch:
    """The letter at a place, which (?=here) matches, say: behind white space, but at the end the one before it."""
    found = _SHOWN.search(text, place)
    at = found.start() if found else max(len(text.rstrip()) - 1, 0)
    return at, at + 1


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> Any:
    regex: Any = importlib.import_module("regex")  # unlike re, it can be given a time limit
    try:
        return regex.compile(pattern)
    except (regex.error, OverflowError, RecursionError, ValueError) as error:
        raise ConfigError(
            "force_pattern", f"is no regular expression: {error}", hint="Escape . ( [ * with \\."
        ) from error
