"""LongLLMLingua: what the question makes likelier stays, and more of the passages that make the question likelier."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast, get_args

from ragzip.compressors._groups import runs, select
from ragzip.compressors._layout import Layout
from ragzip.compressors._options import check_number
from ragzip.compressors._surroundings import in_parts
from ragzip.compressors._tokenwise import TokenScorer, Words
from ragzip.compressors.llmlingua import first_until, tokens_to_keep
from ragzip.errors import ConfigError
from ragzip.models import GENERATOR, Dtype, check_options, perplexity
from ragzip.protocols import Counter
from ragzip.types import Context, Query, Segment, TextSegment

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ragzip.models.perplexity import Perplexity

    Floats = npt.NDArray[np.float64]

Order = Literal["original", "score"]

_STATEMENT = " We can get the answer to this question in the given documents."


@dataclass(frozen=True)
class LongLLMLingua(TokenScorer):
    """Keeps the words that the question makes likelier, more of them in better passages (arXiv:2310.06839).

    Passages are ranked by the mean loss of the question and the sentence "We can get the answer to this question in
    the given documents." behind them; the best go on until they hold ``passage_room`` times the tokens to keep. A
    word's score is the contrast of its mean losses without the question before the passage and with it, as a
    probability: ``p(word | question) / (p(word | question) + p(word))``, per token, 0 to 1, where 0.5 says that the
    question makes no difference. ``spread`` moves the words of the best passage up by that share of all words, and
    those of the worst one down; the passages between in steps. Words of passages that did not go on score below 0.
    Without a question words score by how surprising they are. Without threshold, keep and budget, half of the tokens
    are kept.

    The passages of a context are read in batches, twice: alone with the question behind, and, those that go on, behind
    the question. Unlike the ``llmlingua`` package, words of all passages compete in the end, so that the budget is met
    in the generator's tokens, and ``spread`` is a head start in this competition, not a share that each passage gets
    whatever it says; every passage is read on its own and not behind the compressed ones before it, so that what is
    kept of it does not depend on its neighbours' text; and no passage is cut to the reader's window. A question longer
    than a quarter of the window (of 2,048 tokens or the model's, the lesser) is read in parts, of which for each
    passage and each word the one that it has most to do with counts.

    Attributes:
        model: A causal language model: a name that ``ragzip models`` lists, a folder, or a model of the hub.
        passage_room: What the passages that go on hold together, as a multiple of the tokens to keep; at least 1. With
            a threshold alone all go on.
        spread: How much more is kept of the best passage than on average, and how much less of the worst, as a share
            of its tokens; 0 to 1.
        order: ``original`` leaves passages where they are, ``score`` puts the best first; where nothing is dropped,
            nothing is moved.
        dtype: ``auto`` (bf16 where that is much faster, else fp32), ``fp32``, ``bf16`` or ``fp16``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``xpu``.
    """

    scale: ClassVar[tuple[float, float]] = (0.0, 1.0)

    model: str = GENERATOR
    passage_room: float = 2.0
    spread: float = 0.3
    order: Order = "original"
    dtype: Dtype = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError("model", f"must be the name or folder of a model, not {self.model!r}")
        check_number("passage_room", self.passage_room, low=1.0)
        check_number("spread", self.spread, low=0.0, high=1.0)
        if self.order not in get_args(Order):
            raise ConfigError("order", f"must be one of {', '.join(get_args(Order))}, not {self.order!r}")
        check_options(self.dtype, self.device)

    def load(self) -> Perplexity:
        """The reader, loaded now unless it is already."""
        return perplexity.load_perplexity(self.model, dtype=self.dtype, device=self.device)

    def score(self, query: Query, groups: Sequence[Words]) -> Sequence[Sequence[float]]:
        """Shifted contrasts, 0 to 1, or less than 0 for words of passages that did not go on."""
        return self._measure(query, groups)[0]

    def _measure(self, query: Query, groups: Sequence[Words]) -> tuple[list[list[float]], list[float]]:
        """Scores of all words, and of each group the loss of the question behind it: less is better."""
        import numpy as np

        reader = self.load()
        texts = reader.encode([group.text for group in groups])
        question = query.text.strip()
        room = max(reader.longest - sum(reader.count(["\n\n", _STATEMENT])) - 1, 1)
        parts = [question[start:end].strip() for start, end in in_parts(question, room, reader.count)]
        readings = [reader.read(texts, suffix=f"\n\n{part}{_STATEMENT}" if part else "") for part in parts]
        plain = readings[0]
        alone = [text.means(r.losses, g.spans) for text, r, g in zip(texts, plain, groups, strict=True)]
        if not question:
            return [(row / (1.0 + row)).tolist() for row in alone], [0.0] * len(groups)
        after = [min(reading.after for reading in found) for found in zip(*readings, strict=True)]
        ranked = sorted(range(len(groups)), key=lambda i: (after[i], i))
        sizes = [len(text) for text in texts]
        goes_on = first_until(ranked, sizes, self.passage_room * tokens_to_keep(self, sum(sizes)))
        best = [number for number in ranked if number in goes_on]
        scores = [row / (1.0 + row) - 1.0 for row in alone]
        for place, number in enumerate(ranked[len(best) :]):
            scores[number] -= place
        behind = [reader.read([texts[number] for number in best], prefix=f"{part}\n\n") for part in parts]
        contrasts = [
            np.max([texts[n].means(plain[n].losses - reading.losses, groups[n].spans) for reading in found], axis=0)
            for n, found in zip(best, zip(*behind, strict=True), strict=True)
        ]
        weights = [texts[number].counts(groups[number].spans) for number in best]
        for number, row in zip(best, shifted(contrasts, weights, self.spread), strict=True):
            scores[number] = row
        return [row.tolist() for row in scores], after

    def _choose(self, layout: Layout, keep: float | None, counter: Counter) -> Context[Segment]:
        """What the limits leave, in the order asked for; read once, whatever the order."""
        if self.order == "original":
            return super()._choose(layout, keep, counter)
        context = layout.context
        places = [index for index, units in enumerate(layout.of_segment) if units]
        groups = [
            Words(cast("TextSegment", context.segments[i]).text, tuple(layout.places(i)), layout.passage(i))
            for i in places
        ]
        rows, after = self._measure(context.query, groups)
        loss, row = dict(zip(places, after, strict=True)), dict(zip(places, rows, strict=True))
        blocks = runs(context)
        first = [min((loss[i] for i in block if i in loss), default=math.inf) for block in blocks]
        order = [i for b in sorted(range(len(blocks)), key=lambda b: (first[b], b)) for i in blocks[b]]
        moved = select(context, order)
        kept = self._with(row[i] for i in order if i in row)._choose(Layout(moved, cut=self.units), keep, counter)
        if kept is moved:
            return context
        if counter.context(kept) <= counter.context(context):
            return kept
        return self._with(rows)._choose(layout, keep, counter)  # in another order, borders may cost a token more

    def _with(self, rows: Iterable[list[float]]) -> _Scored:
        """A method with the same limits that knows the scores already."""
        limits = {name: getattr(self, name) for name in ("threshold", "keep", "budget", "force_keep", "force_pattern")}
        return _Scored(**limits, rows=tuple(rows))


@dataclass(frozen=True)
class _Scored(TokenScorer):
    """Chooses by scores that were found before."""

    rows: tuple[list[float], ...] = ()

    def score(self, query: Query, groups: Sequence[Words]) -> Sequence[Sequence[float]]:
        """The rows."""
        return self.rows


def shifted(contrasts: Sequence[Floats], weights: Sequence[npt.NDArray[np.int64]], spread: float) -> list[Floats]:
    """Contrasts as probabilities, those of better passages moved up and those of poorer ones down.

    A word that ranks at a share ``x`` of all tokens, from the least contrast, gets the value of that which ranks at
    ``x + spread`` if its passage is the best, at ``x - spread`` if it is the last, and between for those between.
    Beyond the ends of the ranking values go on towards 1 and 0, so that nothing ties.

    Args:
        contrasts: ``[n_words]`` in nats for each passage, best passage first.
        weights: ``[n_words]`` tokens of each word.
        spread: 0 to 1.

    Returns:
        ``[n_words]``, 0 to 1, for each passage.
    """
    import numpy as np

    levels, of = np.unique(np.concatenate(contrasts), return_inverse=True)
    mass = np.bincount(of, weights=np.maximum(np.concatenate(weights), 1))
    place = (np.cumsum(mass) - mass / 2) / mass.sum()
    value = 0.5 * (1.0 + np.tanh(levels / 2.0))
    steps = np.linspace(spread, -spread, len(contrasts)) if len(contrasts) > 1 else np.zeros(1)
    at = place[of] + np.repeat(steps, [len(row) for row in contrasts])
    above, below = np.maximum(at - place[-1], 0.0), np.maximum(place[0] - at, 0.0)
    found = np.interp(at, place, value)
    found += (1.0 - value[-1]) * above / (1.0 + spread) - value[0] * below / (1.0 + spread)
    return np.split(found, np.cumsum([len(row) for row in contrasts])[:-1])
