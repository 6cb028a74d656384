"""LLMLingua: what a small language model could have guessed is dropped, first passages, then sentences, then words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ragzip.compressors._options import check_count, check_number
from ragzip.compressors._tokenwise import TokenScorer, Words
from ragzip.errors import ConfigError
from ragzip.models import GENERATOR, Dtype, check_options, perplexity
from ragzip.text import sentences
from ragzip.types import Query

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ragzip.models.perplexity import Perplexity, Tokens

    Floats = npt.NDArray[np.float64]

_BETWEEN = "\n\n"


@dataclass(frozen=True)
class LLMLingua(TokenScorer):
    """Drops what a small language model predicts anyway, coarse to fine (arXiv:2310.05736).

    Passages with the highest perplexity go on until they hold ``passage_room`` times the tokens to keep, of these the
    sentences with the highest until they hold ``sentence_room`` times as many, and of these the words with the highest
    losses stay. For the words, the text is read in steps of ``step`` tokens, each behind what the earlier steps left,
    so that what was dropped does not make anything look predictable. The question is not read.

    A word's score is the mean loss of its tokens in nats; a word of a sentence that the second stage left out scores
    from -1 to 0, of a passage that the first one left out from -2 to -1. With a threshold alone there is no number of
    tokens to aim at, and the first two stages keep everything. Without threshold, keep and budget, half of the tokens
    are kept.

    Unlike the ``llmlingua`` package, which keeps in every window the share asked for and so misses budgets below a
    window or in the last one, words of all windows compete in the end, words and not parts of them are dropped, and
    budgets are met in the generator's tokens. The reader's window is never exceeded: where what was kept outgrows it,
    its older half is forgotten.

        >>> from ragzip.types import Passage, Query, context_of
        >>> context = context_of(Query("When?"), (Passage("p", "As you may know, the museum opens at nine."),))
        >>> (shorter,) = LLMLingua(keep=0.5).compress([context])  # doctest: +SKIP

    Attributes:
        model: A causal language model: a name that ``ragzip models`` lists, a folder, or a model of the hub.
        step: Tokens that are read, and decided on, at once.
        passage_room: What the passages that go on hold together, as a multiple of the tokens to keep; at least 1.
        sentence_room: The same of sentences.
        dtype: ``auto`` (bf16 where that is much faster, else fp32), ``fp32``, ``bf16`` or ``fp16``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``xpu``.
    """

    model: str = GENERATOR
    step: int = 200
    passage_room: float = 2.0
    sentence_room: float = 1.4
    dtype: Dtype = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError("model", f"must be the name or folder of a model, not {self.model!r}")
        check_count("step", self.step, least=1)
        check_number("passage_room", self.passage_room, low=1.0)
        check_number("sentence_room", self.sentence_room, low=1.0)
        check_options(self.dtype, self.device)

    def load(self) -> Perplexity:
        """The reader, loaded now unless it is already."""
        return perplexity.load_perplexity(self.model, dtype=self.dtype, device=self.device)

    def score(self, query: Query, groups: Sequence[Words]) -> Sequence[Sequence[float]]:
        """Mean losses, or less than 0 where an earlier stage left a word out."""
        import numpy as np

        reader = self.load()
        scores = [np.full(len(group.spans), -1.0) for group in groups]
        goes_on = [np.ones(len(group.spans), dtype=np.bool_) for group in groups]
        texts = reader.encode([group.text for group in groups])
        total = sum(map(len, texts))
        target = tokens_to_keep(self, total)
        if target < total:
            losses = [reading.losses for reading in reader.read(texts)]
            for number, stage in enumerate(self._stages(groups, texts, losses, target)):
                # A word that is left out here ranks behind all that go on, by its loss among its like.
                score = -1.0 / (1.0 + texts[number].means(losses[number], groups[number].spans))
                scores[number] = np.where(stage == 1, score, score - 1.0)
                goes_on[number] = stage == 2
        for row, mask, found in zip(scores, goes_on, self._iterate(reader, groups, goes_on, target), strict=True):
            row[mask] = found
        return [row.tolist() for row in scores]

    def _stages(
        self, groups: Sequence[Words], texts: Sequence[Tokens], losses: Sequence[npt.NDArray[np.float32]], target: int
    ) -> list[npt.NDArray[np.int64]]:
        """How far each word of each group comes: 0 its passage is left out, 1 its sentence is, 2 it goes on."""
        import numpy as np

        sizes = [len(text) for text in texts]
        means = [float(row.mean()) if len(row) else 0.0 for row in losses]
        chosen = first_until(sorted(range(len(texts)), key=lambda i: (-means[i], i)), sizes, self.passage_room * target)
        cut = {number: sentences(groups[number].text) for number in sorted(chosen)}
        places = [(number, place) for number, found in cut.items() for place in range(len(found))]
        loud = [value for number in cut for value in texts[number].means(losses[number], cut[number]).tolist()]
        counts = [count for number in cut for count in texts[number].counts(cut[number]).tolist()]
        order = sorted(range(len(places)), key=lambda i: (-loud[i], i))
        kept = {places[i] for i in first_until(order, counts, self.sentence_room * target)}
        stages = [np.zeros(len(group.spans), dtype=np.int64) for group in groups]
        for number, found in cut.items():
            starts = np.asarray([start for start, _ in groups[number].spans])
            of = np.searchsorted(np.asarray([start for start, _ in found]), starts, side="right") - 1
            stays = np.asarray([(number, place) in kept for place in range(len(found))])
            stages[number] = np.where(stays[np.maximum(of, 0)], 2, 1)
        return stages

    def _iterate(
        self, reader: Perplexity, groups: Sequence[Words], masks: Sequence[npt.NDArray[np.bool_]], target: int
    ) -> list[Floats]:
        """Mean losses of the words that come so far, all passages read as one text, behind what is kept of it."""
        import numpy as np

        starts = np.cumsum([0, *(len(group.text) + len(_BETWEEN) for group in groups)])
        (text,) = reader.encode([_BETWEEN.join(group.text for group in groups)])
        spans, ahead = [], []  # of the words, and the same with the white space before, which is read with them
        for group, mask, start in zip(groups, masks, starts.tolist(), strict=False):
            places = np.asarray(group.spans, dtype=np.int64) + start
            before = np.concatenate([[start], places[:-1, 1]])
            spans.append(places[mask])
            ahead.append(np.stack([before, places[:, 1]], axis=1)[mask])
        words, wide = np.concatenate(spans), np.concatenate(ahead)
        borders = [(start - len(_BETWEEN), start) for start in starts[1:-1].tolist()]
        text = text.take(text.touching(wide) | text.touching(borders))
        between = text.touching(borders)
        share = min(target / max(len(text), 1), 1.0)

        def choose(first: int, losses: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
            part = text.take(slice(first, first + len(losses)))
            low = np.searchsorted(words[:, 1], part.starts[0], side="right")
            high = max(np.searchsorted(words[:, 0], part.ends[-1], side="left"), low)
            inside = words[low:high]
            kept = self._kept(part.means(losses, inside), part.counts(inside), share)
            return part.touching(wide[low:high][kept]) | between[first : first + len(losses)]

        losses = reader.iterate(text, choose, size=self.step)
        return [text.means(losses, row) for row in spans]

    def _kept(self, values: Floats, counts: npt.NDArray[np.int64], share: float) -> npt.NDArray[np.bool_]:
        """Which words of a step the next ones are read behind: the best share, at or above the threshold."""
        import numpy as np

        kept = np.ones(len(values), dtype=np.bool_) if self.threshold is None else values >= self.threshold
        order = np.argsort(-values, kind="stable")
        kept[order[np.cumsum(counts[order]) > share * counts.sum()]] = False
        return kept


def tokens_to_keep(method: TokenScorer, total: int) -> int:
    """About how many of so many tokens keep and budget leave; all with a threshold alone."""
    keep = method.keep
    if keep is None and method.budget is None and method.threshold is None:
        keep = method.default_keep
    share = total if keep is None else round(keep * total)
    return share if method.budget is None else min(share, method.budget)


def first_until(order: Sequence[int], sizes: Sequence[int], room: float) -> set[int]:
    """The first ones in order until they hold ``room`` together; the one that reaches it is in.

    >>> sorted(first_until([2, 0, 1], [5, 5, 5], 6))
    [0, 2]
    """
    chosen: set[int] = set()
    held = 0
    for number in order:
        if chosen and held >= room:
            break
        chosen.add(number)
        held += sizes[number]
    return chosen
