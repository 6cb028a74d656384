"""The model card of ``provence``: what its weights were trained on, and what they reach beside their untrained self."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ragzip.training.card import Card, Results
from ragzip.training.cards import write_result
from ragzip.training.loop import LoopResult

if TYPE_CHECKING:
    from ragzip.training.examples import Example
    from ragzip.training.provence import ProvenceTraining


def write(
    out: Path,
    settings: ProvenceTraining,
    result: LoopResult,
    untrained: Mapping[str, float],
    kept: int,
    held: int,
    *,
    examples: Sequence[Example] | None = None,
    baselines: Mapping[str, Mapping[str, float]] | None = None,
    data: Path | None = None,
    more: Sequence[Results] = (),
) -> Card:
    """Writes the card beside the weights, with their checksum.

    Args:
        out: The folder with the weights.
        settings: What they were trained with.
        result: How training ended; its metrics are those on held-out groups.
        untrained: The same metrics before training.
        kept: Groups that were trained on.
        held: Groups that were held out.
        examples: What was trained on, for the numbers by set; None reads the sets once more, without mining.
        baselines: The same metrics of other methods, by name.
        data: Where they are read then; see ``data_dir``.
        more: Results on other data, such as development sets beside baselines.

    Returns:
        The card as it was written; ``write_card`` writes it again with other results.

    Raises:
        ModelError: There are no weights, or the values are none that a card can hold.
    """
    if examples is None:
        from ragzip.training.encoders import hold_out, numbers
        from ragzip.training.examples import read_examples

        most = numbers("most", settings.most)
        found = read_examples(settings.sets, data=data, seed=settings.seed, most=most)
        _, examples = hold_out(found, settings.held_out, settings.seed)
    return write_result(
        out,
        settings,
        result,
        untrained=untrained,
        examples=examples,
        held=held,
        baselines=baselines,
        what=f"{held:,} groups that were held out of {kept + held:,}: a question with a passage that helps and "
        f"{settings.negatives} that do not",
        more=more,
    )
