"""Weights that a training goes on from: which they are, and what of it the card has to say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ragzip.errors import ConfigError, ModelError, UsageError
from ragzip.models.locate import canonical, resolve
from ragzip.models.lora import read_adapter
from ragzip.models.soft_folder import SOFT_ARCHITECTURES, read_soft_config
from ragzip.models.tuned import read_tuned_config
from ragzip.models.weights import is_adapter
from ragzip.training.card import hashes, read_card

_SPLIT = ("sets", "texts", "most", "held_out", "seed")  # what decides which examples are held out
_CLEAN = "without the examples that are held out here"


class Started(Protocol):
    """A trainer that can go on from earlier weights; a dataclass."""

    @property
    def base(self) -> str:
        """What all of them are trained from."""
        ...

    @property
    def start(self) -> str | None:
        """The weights: a folder, or the name of shipped ones."""
        ...

    @property
    def start_sha256(self) -> str | None:
        """Of their file."""
        ...


T = TypeVar("T", bound=Started)


def check_start(start: str | None, start_sha256: str | None) -> None:
    """Checks both options.

    Raises:
        ConfigError: With the option's name.
    """
    if start == "":
        raise ConfigError("start", "must name trained weights", hint="Leave it out to start afresh.")
    if start_sha256 is not None and start is None:
        raise ConfigError("start_sha256", "is the checksum of weights that start does not name")


def settled(trainer: T, out: Path, *, method: str) -> T:
    """The trainer with the checksum of the weights it goes on from; itself where it has that, or none.

    Raises:
        ModelError: They are not here, of another base or method, or not those with the checksum.
        UsageError: They are those in ``out``.
    """
    if trainer.start is None:
        return trainer
    found = start_digest(trainer.start, method=method, base=trainer.base, out=out)
    if trainer.start_sha256 is None:
        return replace(trainer, start_sha256=found)  # type: ignore[type-var]
    if trainer.start_sha256 != found:
        raise ModelError(
            f"the weights in {trainer.start} are not those with the checksum {trainer.start_sha256}",
            hint="Give the folder of those that training is to go on from, or leave start_sha256 out.",
        )
    return trainer


def start_digest(start: str, *, method: str, base: str, out: Path) -> str:
    """The checksum of the weights that training goes on from, before anything else is read.

    Args:
        start: A folder, or the name of shipped weights.
        method: What they have to be.
        base: What they have to be trained from.
        out: Where training writes; it cannot go on from what it writes over.

    Raises:
        ModelError: They are not here, or of another base or method.
        UsageError: They are those in ``out``.
    """
    folder = resolve(start)
    if folder.resolve() == out.resolve():
        raise UsageError(f"{out} holds the weights to go on from", hint="Give another --out.")
    config = _config(folder, method)
    if config is None or config["architecture"] != method or canonical(config["base"]) != canonical(base):
        what = "of another program" if config is None else f"those of {config['architecture']} from {config['base']}"
        other = config is None or config["architecture"] != method
        raise ModelError(
            f"the weights in {folder} are {what}, not of {method} from {base}",
            hint=f"Start from weights that ragzip train {method} made." if other else "Start from the same base.",
        )
    found = _digest(hashes(folder))
    if found is None:
        raise ModelError(f"{folder} has no weights", hint="Give the folder with the trained weights.")
    return found


def _digest(files: Mapping[str, str]) -> str | None:
    """The checksum of the weights among the files of a folder."""
    return next((files[name] for name in ("model.safetensors", "adapter_model.safetensors") if name in files), None)


def _config(folder: Path, method: str) -> Mapping[str, Any] | None:
    """What a folder of weights says of itself: ``architecture`` and ``base``; None where ragzip did not make it.

    An adapter in the format of ``peft`` does not say what it is for; its card does.
    """
    if method in SOFT_ARCHITECTURES:
        return read_soft_config(folder)
    if not is_adapter(folder):
        return read_tuned_config(folder)
    return {"architecture": read_card(folder).method, "base": read_adapter(folder).base}


def same_split(model: str, config: Mapping[str, Any]) -> bool:
    """Whether weights are known, by their card, to hold out the questions that a training with this config does."""
    try:
        card = read_card(resolve(model))
    except ModelError:
        return False
    names = ("sets", "most", "held_out", "seed")
    return all(card.config.get(name) == config.get(name) for name in names)


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
    if card is None or _digest(card.sha256) != digest:
        return f"{said}. Without their card it is not known whether they were trained on what is held out here."
    said += f"; they had {card.steps:,} steps behind them"
    earlier = card.config.get("start") is None or _CLEAN in card.about  # what they went on from themselves
    if earlier and all(card.config.get(name) == config.get(name) for name in _SPLIT):
        return f"{said}, {_CLEAN}."
    if earlier and all(set(card.config.get(k, ())).isdisjoint(config.get(k, ())) for k in ("sets", "texts")):
        return f"{said}, on other sets, which may share questions with these."
    return f"{said}, and held out other examples: some of those held out here may not have been new to them."
