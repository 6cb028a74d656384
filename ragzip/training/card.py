"""Model cards: what a weight file is, from which data, how good, and how to make it again; with its checksum.

A card is the ``README.md`` beside the weights: front matter in YAML for programs, in the keys that model hubs read, and
a body for people. Facts and numbers stand in the front matter and the body's tables are made from it; prose stands in
the body alone. ``read_card`` gives back what ``write_card`` wrote.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ragzip.errors import ModelError
from ragzip.indexes.files import checksum, new_file
from ragzip.training.options import CHECKPOINTS

CARD = "README.md"
LIBRARY = "ragzip"

Role = Literal["trained", "untrained", "baseline", "reference"]
"""What a row of results is: these weights, the same model before training, a cheap method, or something that is only
there for orientation (an oracle, the teacher, no compression)."""


@dataclass(frozen=True, slots=True)
class DataSource:
    """Data that the weights were trained on.

    Attributes:
        name: Of the set.
        split: Of the set; never a development or test split.
        rows: Examples that training drew from; fewer steps than a pass takes leave some of them unread.
        licence: As an SPDX identifier.
    """

    name: str
    split: str
    rows: int
    licence: str


@dataclass(frozen=True, slots=True)
class Row:
    """One method's results.

    Attributes:
        name: Of the method.
        role: What it is to these weights.
        values: One a metric; None where there is none.
    """

    name: str
    role: Role
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Results:
    """A table of results on data that were not trained on.

    Attributes:
        data: The set, its split, how many questions, at which budget.
        metrics: The columns; greater is better, but for names with a leading "-".
        rows: The methods.
    """

    data: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]

    def losses(self) -> list[str]:
        """Where the trained weights are not better than their untrained self or a baseline, in words."""
        found = []
        for ours in (row for row in self.rows if row.role == "trained"):
            for other in (row for row in self.rows if row.role in ("untrained", "baseline")):
                for metric, mine, theirs in zip(self.metrics, ours.values, other.values, strict=True):
                    if mine is None or theirs is None:
                        continue
                    better = mine < theirs if metric.startswith("-") else mine > theirs
                    if not better:
                        found.append(
                            f"{ours.name} does not beat {other.name} on {self.data}: "
                            f"{metric.removeprefix('-')} {number(mine)} against {number(theirs)}"
                        )
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A model card.

    Attributes:
        name: What ``model`` options call the weights.
        method: The registry name of the method that reads them.
        about: What they are, in a paragraph or two.
        licence: Of the weights, as an SPDX identifier.
        base_model: What they were trained from.
        data: What they were trained on.
        labels: How the labels were made.
        results: On data that they were not trained on; empty until measured.
        limits: What they cannot do.
        command: What makes them again.
        config: The trainer's, with every default.
        steps: Updates.
        seed: Of the training.
        seconds: Of the training.
        tags: For hubs.
        environment: Versions and hardware, by name.
        sha256: File name -> checksum; ``write_card`` fills it in.
    """

    name: str
    method: str
    about: str
    licence: str
    base_model: str
    data: tuple[DataSource, ...]
    labels: str
    limits: str
    command: str
    config: Mapping[str, Any]
    steps: int
    seed: int
    seconds: float = 0.0
    results: tuple[Results, ...] = ()
    tags: tuple[str, ...] = ("context-compression", "retrieval-augmented-generation")
    environment: Mapping[str, str] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("about", "labels", "limits", "command"):
            object.__setattr__(self, name, getattr(self, name).strip())
        for name in ("config", "environment", "sha256"):  # plain values without shared parts, as they are read back
            object.__setattr__(self, name, json.loads(json.dumps(getattr(self, name), default=dict)))


def number(value: float | None) -> str:
    """A metric in a table: three decimals below ten, none from a thousand on."""
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def hashes(folder: Path) -> dict[str, str]:
    """Checksums of the weight files in a folder, checkpoints aside, by name.

    Raises:
        ModelError: There are none, or one cannot be read.
    """
    try:
        files = [path for path in sorted(folder.glob("*.safetensors")) if not path.match(CHECKPOINTS)]
        found = {path.name: checksum(path) for path in files}
    except OSError as error:
        raise ModelError(
            f"{error.filename or folder} cannot be read: {error.strerror or error}", hint="Check its permissions."
        ) from error
    if not found:
        raise ModelError(f"{folder} has no *.safetensors", hint="Give the folder with the trained weights.")
    return found


def write_card(folder: str | Path, card: Card) -> Card:
    """Writes ``README.md`` beside the weights; gives the card back with their checksums.

    Args:
        folder: With the weights, as they will be shipped.
        card: What to say. Where it names checksums already, they must be those of the files.

    Raises:
        ModelError: No weights, other weights than the card's, or values that a card cannot hold.
    """
    from ragzip.training.card_text import parse, render

    path = Path(folder) / CARD
    found = hashes(path.parent)
    if card.sha256 and dict(card.sha256) != found:
        raise ModelError(
            f"{path}: the weights beside it are not those that the card is about",
            hint="Write a new card for new weights.",
        )
    full = dataclasses.replace(card, sha256=found)
    problems = _problems(full)
    if problems:
        raise ModelError(f"{path}: {problems[0]}", hint="Mend the card that was to be written.")
    text = render(full)
    try:
        data = text.encode()
        same = parse(text.replace("\r\n", "\n"), str(path)) == full
    except (ModelError, UnicodeEncodeError) as error:
        raise ModelError(f"{path}: cannot be written so that it can be read back: {error}") from error
    if not same:
        raise ModelError(
            f"{path}: cannot be written so that it can be read back",
            hint="Its prose may have no headings of the second level, and its config holds plain values only.",
        )
    with new_file(path) as file:
        file.write(data)
    return full


def read_card(folder: str | Path) -> Card:
    """The model card in a folder.

    Raises:
        ModelError: There is none, or it lacks a field; says which.
    """
    from ragzip.training.card_text import MAX_BYTES, parse

    path = Path(folder) / CARD
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path} is too large for a model card", hint="Is it the right folder?")
        text = path.read_bytes().decode()
    except FileNotFoundError as error:
        raise ModelError(
            f"{path.parent} has no model card ({CARD})", hint="Give a folder of trained weights."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint="Get the model's files again.") from error
    return parse(text.replace("\r\n", "\n"), str(path))


def check_card(folder: str | Path) -> Card:
    """Compares every weight file of a folder with the checksum on its card, and gives the card.

    Raises:
        ModelError: A checksum that differs, a file that is missing or not on the card, a field that is missing.
    """
    card = read_card(folder)
    path = Path(folder) / CARD
    problems = _problems(card)
    if problems:
        raise ModelError(f"{path}: {problems[0]}", hint="Train again, or mend the card.")
    found = hashes(path.parent)
    for name in sorted({*found, *card.sha256}):
        if name not in found:
            raise ModelError(f"{path.parent / name} is missing", hint="Get the model's files again.")
        if name not in card.sha256:
            raise ModelError(f"{path}: says nothing of {name}", hint="Remove the file, or write a new card.")
        if found[name] != card.sha256[name]:
            raise ModelError(
                f"{path.parent / name} is not the file that its card is about (its checksum differs)",
                hint="Another version or a damaged file: get the model's files again.",
            )
    return card


def _problems(card: Card) -> list[str]:
    """What a card says that cannot be."""
    found = [
        f"{name} is empty"
        for name in ("name", "method", "about", "licence", "base_model", "labels", "limits", "command")
        if not getattr(card, name).strip()
    ]
    if not card.data:
        found.append("data is empty")
    if not card.config:
        found.append("config is empty")
    for name, value in card.sha256.items():
        if Path(name).name != name or not name.endswith(".safetensors"):
            found.append(f"sha256.{name} is no weight file beside the card")
        elif len(value) != 64 or not set(value) <= set("0123456789abcdef"):
            found.append(f"sha256.{name} is no SHA-256 in hex")
    for table in card.results:
        if any(len(row.values) != len(table.metrics) for row in table.rows):
            found.append(f"results on {table.data}: a row has not one value a metric")
        if any(row.role not in get_args(Role) for row in table.rows):
            found.append(f"results on {table.data}: a row's role is none of {', '.join(get_args(Role))}")
        if any(value is not None and not math.isfinite(value) for row in table.rows for value in row.values):
            found.append(f"results on {table.data}: a value is not finite; use null for none")
    return found
