"""Weights that a training goes on from: which they are, and what of it the card has to say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ragzip.errors import ModelError, UsageError
from ragzip.models.locate import canonical, resolve
from ragzip.models.tuned import read_tuned_config
from ragzip.training.card import hashes, read_card

_SPLIT = ("sets", "most", "held_out", "seed")  # what decides which examples are held out
_CLEAN = "without the examples that are held out here"


def start_digest(start: str, *, base: str, out: Path) -> str:
    """The checksum of the weights that training goes on from, before anything else is read.

    Args:
        start: A folder, or the name of shipped weights.
        base: What they have to be trained from.
        out: Where training writes; it cannot go on from what it writes over.

    Raises:
        ModelError: They are not here, or of another base or method.
        UsageError: They are those in ``out``.
    """
    folder = resolve(start)
    if folder.resolve() == out.resolve():
        raise UsageError(f"{out} holds the weights to go on from", hint="Give another --out.")
    config = read_tuned_config(folder)
    if config is None or config["architecture"] != "provence" or canonical(config["base"]) != canonical(base):
        what = "no weights of ragzip" if config is None else f"a {config['architecture']} from {config['base']}"
        raise ModelError(f"{folder} holds {what}, not a provence from {base}", hint="Start from the same base.")
    found = hashes(folder)
    if "model.safetensors" not in found:
        raise ModelError(f"{folder} has no model.safetensors", hint="Give the folder with the trained weights.")
    return found["model.safetensors"]


def went_on(start: str, digest: str, config: Mapping[str, Any]) -> str:
    """What weights training went on from, in words, and whether held-out examples were new to them.

    Args:
        start: As it was given.
        digest: Of the weights.
        config: Of this training.
    """
    said = f"Training went on from `{start}`, SHA-256 `{digest}`, which are needed to make these again"
    try:
        card = read_card(resolve(start))
    except ModelError:
        card = None
    if card is None or card.sha256.get("model.safetensors") != digest:
        return f"{said}. Without their card it is not known whether they were trained on what is held out here."
    said += f"; they had {card.steps:,} steps behind them"
    earlier = card.config.get("start") is None or _CLEAN in card.about  # what they went on from themselves
    if earlier and all(card.config.get(name) == config.get(name) for name in _SPLIT):
        return f"{said}, {_CLEAN}."
    if earlier and set(card.config.get("sets", ())).isdisjoint(config.get("sets", ())):
        return f"{said}, on other sets, which may share questions with these."
    return f"{said}, and held out other examples: some of those held out here may not have been new to them."
