"""The trained weights that come with the package: each with a card, each the file it says it is, and small."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from ragzip.errors import ModelError
from ragzip.models import shipped
from ragzip.models.soft_folder import SOFT_ARCHITECTURES
from ragzip.training.card import CARD, Card, check_card
from ragzip.training.card_text import render

MOST_BYTES = 60_000_000
_LICENCE = "LICENSE"
MOST_SOFT_BYTES = 40_000_000
KINDS = (".safetensors", ".json", ".md")
MACHINE = re.compile(r"(?<![\w.])/(home|root|work|tmp|mnt|Users)/\w")


def main() -> int:
    """Prints each breach and gives the exit code."""
    found = problems()
    for problem in found:
        print(problem)
    return 1 if found else 0


def problems() -> list[str]:
    """Everything that is wrong with ``shipped.ROOT`` or the table that describes it."""
    known = {spec.method: spec for spec in shipped.all_shipped()}
    entries = sorted(shipped.ROOT.iterdir()) if shipped.ROOT.is_dir() else []
    found = [
        f"{path}: not in the table of ragzip/models/shipped.py"
        for path in entries
        if path.name not in known and path.name != _LICENCE
    ]
    if entries and not (shipped.ROOT / _LICENCE).is_file():
        found.append(f"{shipped.ROOT / _LICENCE}: missing; it says under which licence the weights are")
    for spec in known.values():
        if spec.folder.is_dir():
            found += _folder(spec)
        elif spec.sha256:
            found.append(f"{spec.folder}: missing, though the table has its checksum")
    sizes = {False: 0, True: 0}
    for path in shipped.ROOT.rglob("*"):
        if path.is_file():
            sizes[path.relative_to(shipped.ROOT).parts[0] in SOFT_ARCHITECTURES] += path.stat().st_size
    for soft, most in ((False, MOST_BYTES), (True, MOST_SOFT_BYTES)):
        if sizes[soft] > most:
            found.append(f"{shipped.ROOT}: {sizes[soft]:,} bytes{' of soft compressors' * soft}, more than {most:,}")
    return found


def _folder(spec: shipped.ShippedSpec) -> list[str]:
    found = []
    for path in sorted(spec.folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or path.suffix not in KINDS:
            found.append(f"{path}: only files of the kinds {', '.join(KINDS)} belong here")
        elif path.suffix != ".safetensors" and MACHINE.search(path.read_text("utf-8", "replace")):
            found.append(f"{path}: a path of one machine")
    try:
        card = check_card(spec.folder)
    except ModelError as error:
        return [*found, str(error)]
    if set(card.sha256) != {spec.weights}:
        found.append(f"{spec.folder}: holds {', '.join(card.sha256)}, the table says {spec.weights}")
    elif card.sha256[spec.weights] != spec.sha256:
        found.append(f'{spec.folder}: the table should say sha256="{card.sha256[spec.weights]}"')
    for name, want in (
        ("name", spec.name),
        ("method", spec.method),
        ("base_model", spec.base),
        ("licence", spec.licence),
    ):
        if getattr(card, name) != want:
            found.append(f"{spec.folder}: {name} is {getattr(card, name)!r} on the card, {want!r} in the table")
    return found + _results(spec.folder, card)


def _results(folder: Path, card: Card) -> list[str]:
    """The card must say how good the weights are, beside their untrained self and a baseline, as its numbers stand."""
    found = [
        f"{folder}: the results on {table.data} have no row that is {role}"
        for table in card.results
        for role in ("trained", "untrained", "baseline")
        if all(row.role != role for row in table.rows)
    ]
    if not card.results:
        found.append(f"{folder}: the card has no results")
    if (folder / CARD).read_text(encoding="utf-8") != render(card):
        found.append(f"{folder}: the card's text is not what its head says; write it with ragzip.training.card")
    return found


if __name__ == "__main__":
    sys.exit(main())
