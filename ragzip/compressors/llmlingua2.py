"""LLMLingua-2: a small encoder says of every word whether it is needed, and the rest is dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from ragzip.compressors._tokenwise import TokenScorer, Words
from ragzip.errors import ConfigError
from ragzip.models import Dtype, check_options, token_classifier
from ragzip.models.token_classifier import TokenClassifier, TokenScores
from ragzip.text import Stretch
from ragzip.types import Query

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

WordScore = Literal["mean", "first", "max"]


@dataclass(frozen=True)
class LLMLingua2(TokenScorer):
    """Keeps the words that a token classifier holds to be needed, whatever is asked (arXiv:2403.12968).

    An encoder that was trained on compressions by a large model gives each token the probability that it should stay.
    The question is not read, so that a passage can be compressed before anyone asks. A word's score is the mean over
    its tokens; words compete over the whole context, so that a passage which says much is left with more. Without
    threshold, keep and budget, half of the tokens are kept; ``threshold=0.5`` keeps what the model would.

    Unlike the ``llmlingua`` package: a limit holds for the whole context, not for each chunk and twice for lists; words
    are found by characters, not by the name of the model; every tokenizer gets its own special tokens; no window is
    longer than the model reads, and none is padded to it; and the limit is met in the generator's tokens.

        >>> from ragzip.types import Passage, Query, context_of
        >>> context = context_of(Query(""), (Passage("p", "The museum, as you may know, opens at nine."),))
        >>> (shorter,) = LLMLingua2(keep=0.6).compress([context])  # doctest: +SKIP
        >>> shorter.segments[0].text  # doctest: +SKIP
        'museum, opens nine.'

    Attributes:
        model: ragzip's own weights, or a folder or hub id of a checkpoint for token classification with two labels,
            ``microsoft/llmlingua-2-xlm-roberta-large-meetingbank`` say.
        word: What a word of several tokens scores: their ``mean``, the ``first``, or the greatest (``max``).
        dtype: ``auto`` (bf16 where that is much faster, else fp32), ``fp32``, ``bf16`` or ``fp16``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``xpu``.
    """

    scale: ClassVar[tuple[float, float]] = (0.0, 1.0)

    model: str = "llmlingua2-minilm-l6"
    word: WordScore = "mean"
    dtype: Dtype = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError("model", f"must be the name or folder of a model, not {self.model!r}")
        if self.word not in get_args(WordScore):
            raise ConfigError("word", f"must be one of {', '.join(get_args(WordScore))}, not {self.word!r}")
        check_options(self.dtype, self.device)

    def load(self) -> TokenClassifier:
        """The classifier, loaded now unless it is already."""
        return token_classifier.load_token_classifier(self.model, dtype=self.dtype, device=self.device)

    def score(self, query: Query, groups: Sequence[Words]) -> Sequence[Sequence[float]]:
        """Probabilities, 0 to 1; a word of which the model reads nothing (control characters) has 0."""
        found = self.load().scores([group.text for group in groups])
        return [
            word_scores(tokens, group.spans, self.word).tolist() for tokens, group in zip(found, groups, strict=True)
        ]


def word_scores(tokens: TokenScores, spans: Sequence[Stretch], how: WordScore) -> npt.NDArray[np.float64]:
    """A score for each word from those of the tokens that share characters with it.

    Args:
        tokens: Offsets and probabilities of ``n_tokens``, in order.
        spans: ``n_words`` stretches of characters, in order, without overlaps.
        how: ``mean``, ``first`` or ``max`` of a word's tokens.

    Returns:
        ``[n_words]``; 0 for words without a token.
    """
    import numpy as np

    from ragzip.compressors._words import touching

    token, word = touching(tokens.offsets, spans)
    value = tokens.keep[token].astype(np.float64)
    scores = np.zeros(len(spans))
    if how == "mean":
        count = np.bincount(word, minlength=len(spans))
        return np.bincount(word, weights=value, minlength=len(spans)) / np.maximum(count, 1)
    if how == "max":
        np.maximum.at(scores, word, value)
    else:
        found, at = np.unique(word, return_index=True)
        scores[found] = value[at]
    return scores
