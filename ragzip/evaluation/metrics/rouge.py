"""ROUGE-L (Lin, 2004): the longest common subsequence of words, through the ``rouge-score`` package."""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass
from typing import Any

from ragzip import text as text_
from ragzip.evaluation.metrics.base import Metric
from ragzip.evaluation.metrics.normalise import composed
from ragzip.evaluation.outcome import Outcome


@dataclass(frozen=True)
class RougeL(Metric):
    """``rouge_l``: F-measure of the longest common subsequence of stemmed words; the best over the references.

    For answers of a sentence and more. Lines are not told apart. On ASCII text it is rouge-score's ``rougeL`` with
    ``use_stemmer=True``; other letters, which rouge-score drops, stay: whole words, and each ideograph alone.
    """

    _name = "rouge_l"
    _needs = frozenset({"answers", "answer"})

    def score(self, outcome: Outcome) -> float | None:
        """0 to 1; where no reference has a word, whether the answer has none either."""
        answers = outcome.record.answers
        if outcome.answer is None or not answers:
            return None
        wanted = [reference for reference in answers if _split(reference)]
        if not wanted:
            return float(not _split(outcome.answer))
        return float(_scorer().score_multi(wanted, outcome.answer)["rougeL"].fmeasure)


@functools.lru_cache(maxsize=1)
def _scorer() -> Any:
    """Importing rouge-score takes more than a second, so that whoever never asks never waits."""
    from rouge_score import rouge_scorer, tokenizers

    # nltk is rouge-score's dependency, not ours: its stemmer is taken from where rouge-score takes it
    return rouge_scorer.RougeScorer(["rougeL"], tokenizer=_Tokenizer(tokenizers.porter.PorterStemmer()))


class _Tokenizer:
    """As rouge-score's own, except for what is not ASCII."""

    def __init__(self, stemmer: Any) -> None:
        self._stemmer = stemmer

    def tokenize(self, text: str) -> list[str]:
        return [self._stemmer.stem(word) if word.isascii() and len(word) > 3 else word for word in _split(text)]


def _split(text: str) -> list[str]:
    """Lower-case runs of letters with their marks and digits, and each ideograph alone."""
    text = composed(text).lower()
    kinds = {character: unicodedata.category(character)[0] in "LMN" for character in set(text)}
    plain = "".join(character if kinds[character] else " " for character in text)
    return [plain[start:end] for start, end in text_.words(plain)]
