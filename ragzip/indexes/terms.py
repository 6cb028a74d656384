"""Text to search terms, the same way for passages and questions.

Words in any script, compatibility forms and case folded; English endings are cut off where PyStemmer is there. Scripts
that write without spaces give single characters and pairs of neighbours.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from typing import Any

from ragzip.errors import StoreError

VERSION = 2
_LONGEST = 64
_INVISIBLE: dict[int, None] = dict.fromkeys((0x00AD, 0x200B, 0x2060, 0xFEFF))  # soft hyphen, and spaces without width
# Thai, Lao, Myanmar, Khmer, kana, Han, Hangul syllables (Korean has spaces, but glues particles to its words).
_SPACELESS = (
    "\u0e01-\u0e2e\u0e30-\u0e3a\u0e40-\u0e4e\u0e81-\u0ecd\u1000-\u1049\u1050-\u109f\u1780-\u17d3"
    "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
    "\uf900-\ufaff\U00020000-\U0003134f"
)
_ASCII_WORD = re.compile(r"[a-z0-9]+")
# Words of questions that say nothing about what is asked for; passages keep them.
_TELL_NOTHING = (
    "a about an and any are as at be been by can could did do does for from had has have how i if in into is it its"
    " me my of on or our should so some than that the their them then there these they this those to us was we were"
    " what when where which who whom whose why will with would you your"
)
_FUNCTION_WORDS = frozenset(_TELL_NOTHING.split())
_LETTER = f"[^\\W_{_SPACELESS}]"


@functools.cache
def _marks() -> str:
    r"""Combining marks, which ``\w`` leaves out, for a character class."""
    blocks = (range(0x300, 0x3100), range(0xA600, 0xAC00), range(0xFE00, 0xFE30))
    return "".join(chr(c) for block in blocks for c in block if unicodedata.category(chr(c)).startswith("M"))


@functools.cache
def word_pattern() -> re.Pattern[str]:
    """Runs of spaceless characters (group 1), or words with their combining marks."""
    return re.compile(f"([{_SPACELESS}]+)|{_LETTER}(?:{_LETTER}|[{_marks()}])*")


@functools.cache
def _counted() -> re.Pattern[str]:
    return re.compile(f"[{_SPACELESS}]|{_LETTER}(?:{_LETTER}|[{_marks()}])*|[^\\w\\s{_marks()}]|_+")


def _folded(text: str) -> str:
    """As words are compared: without the marks that only say where a line may break, and with one small i."""
    return unicodedata.normalize("NFKC", text).translate(_INVISIBLE).casefold().replace("i\u0307", "i")


def count_words(text: str) -> int:
    """Words, marks of punctuation, and characters of scripts without spaces: a size that needs no model."""
    return sum(1 for _ in _counted().finditer(text))


def stemmer_name() -> str:
    """The stemmer this machine has: ``porter2`` or none."""
    try:
        import Stemmer  # noqa: F401
    except ImportError:
        return ""
    return "porter2"


class Analyzer:
    """Cuts text into terms. Not for several threads at once: make one for each.

    Args:
        stemmer: ``porter2`` or "" for none.

    Raises:
        StoreError: The stemmer is not installed.
    """

    def __init__(self, stemmer: str) -> None:
        self._stem: Any = None
        if stemmer:
            try:
                import Stemmer
            except ImportError:
                raise StoreError(
                    "this index was made with the stemmer of PyStemmer, which is not here.",
                    hint="Install it: pip install PyStemmer",
                ) from None
            self._stem = Stemmer.Stemmer("english").stemWord

    def words(self, text: str) -> list[str]:
        """The words of a text, before stemming."""
        if text.isascii():
            return _ASCII_WORD.findall(text.lower())
        found: list[str] = []
        for match in word_pattern().finditer(_folded(text)):
            run = match[1]
            if run is None:
                found.append(match[0])
            else:
                found += run
                found += map("".join, itertools.pairwise(run))
        return found

    def term(self, word: str) -> str:
        """The term a word is searched by."""
        word = word[:_LONGEST]
        return str(self._stem(word)) if self._stem is not None and word.isascii() else word

    def asked(self, text: str) -> list[str]:
        """The terms of a question, each once, without function words where others are left.

        A question's "is" would otherwise bring up passages that have nothing else of it.
        """
        words = dict.fromkeys(self.words(text))
        telling = [word for word in words if word not in _FUNCTION_WORDS]
        return list(dict.fromkeys(map(self.term, telling or words)))

    def terms(self, text: str) -> list[str]:
        """The terms of a text, in order, with repetitions."""
        return [self.term(word) for word in self.words(text)]
