"""The model card of ``provence``: what its weights were trained on, and what they reach beside their untrained self."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ragzip.training.card import Card, Results, write_card
from ragzip.training.cards import card_of, results_of
from ragzip.training.composed import NAME as COMPOSED
from ragzip.training.composed import read_composed
from ragzip.training.loop import LoopResult

if TYPE_CHECKING:
    from ragzip.training.examples import Example
    from ragzip.training.provence import ProvenceTraining

AGAIN = "again"  # the metric of questions that are asked again: the share whose passage that helps is first
_STEPS = "A passage that helps only together with another one (the second step of a question of two steps) is"
_ALONE = f"{_STEPS} judged by itself and found less often."
_TWICE = (
    f"{_STEPS} found more often in the second look, if the first one found the right sentence, and found less often "
    "from the third step on."
)
_ASKED = (
    "For the second look, questions are asked again together with a sentence that helps, or at times one that does "
    "not: what helps then are the other passages that help, or none where there was only one."
)
_COMPOSED = (
    "The examples of `composed` are put together by rules from questions of the other sets (also from such as `most` "
    "leaves out there), in a rough wording: where one names the answer of another, a description made of that one "
    "takes its place. MuSiQue's questions are made of some of the same ones; what its development set here has as a "
    "step or reads in a passage was left out."
)
_MUSIQUE = "Sentences of MuSiQue are marked where they answer one of the question's steps."


def steps_of(examples: Sequence[Example]) -> bool:
    """Whether there are questions that several passages help: only these teach what a second look can find."""
    return any(len(example.positives) > 1 for example in examples)


def write(
    out: Path,
    settings: ProvenceTraining,
    result: LoopResult,
    untrained: Mapping[str, float],
    groups: tuple[int, int],
    *,
    examples: Sequence[Example] | None = None,
    baselines: Sequence[Mapping[str, Mapping[str, float]]] = (),
    data: Path | None = None,
    more: Sequence[Results] = (),
) -> Card:
    """Writes the card beside the weights, with their checksum.

    Args:
        out: The folder with the weights.
        settings: What they were trained with.
        result: How training ended; its metrics are those on held-out groups.
        untrained: The same metrics before training.
        groups: How many were held out, and how many of held-out questions that are asked again.
        examples: What was trained on, for the numbers by set; None reads the sets once more, without mining.
        baselines: The same metrics of other methods, by name: on held-out groups, and on those that are asked again.
        data: Where they are read then; see ``data_dir``.
        more: Results on other data, such as development sets beside baselines.

    Returns:
        The card as it was written; ``write_card`` writes it again with other results.

    Raises:
        ModelError: There are no weights, or the values are none that a card can hold.
    """
    if examples is None:
        from ragzip.training.encoders import hold_out, numbers, read_further
        from ragzip.training.examples import read_examples

        most = numbers("most", settings.most)
        found = read_examples(settings.sets, data=data, seed=settings.seed, most=most)
        held_out, kept = hold_out(found, settings.held_out, settings.seed)
        further = read_further(numbers("further", settings.further), found, held_out, data=data, seed=settings.seed)
        more_steps = read_composed(settings.sets, held_out, most=settings.composed, data=data, seed=settings.seed)
        examples = [*kept, *further, *more_steps]
    held, later = groups
    first, *second = baselines or ({},)
    metrics = {name: value for name, value in result.metrics.items() if name != AGAIN}
    card = card_of(
        settings,
        replace(result, metrics=metrics),
        untrained=untrained,
        examples=examples,
        held=held,
        baselines=first,
        what=f"{held:,} held-out groups: a question with a passage that helps and {settings.negatives} that do not",
    )
    twice, tables = bool(settings.again) and steps_of(examples), list(card.results)
    limits = f"{card.limits} {_TWICE if twice else _ALONE}"
    more_labels = [_MUSIQUE] * ("musique" in settings.sets) + [_ASKED] * bool(settings.again)
    more_labels += [_COMPOSED] * any(example.set_name == COMPOSED for example in examples)
    if later:
        names = [row.name for row in card.results[0].rows[:2]]
        rows = dict(zip(names, (result.metrics, untrained), strict=True)) | dict(*second)
        what = f"{later:,} groups of held-out questions that are asked again, with a sentence beside the question"
        shares = {name: {"passage": values.get(AGAIN, values.get("passage", 0.0))} for name, values in rows.items()}
        tables.append(results_of(what, shares))
    return write_card(
        out, replace(card, labels=" ".join([card.labels, *more_labels]), limits=limits, results=(*tables, *more))
    )
