"""Where the data folder is."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "RAGZIP_DATA"


def data_dir(data: Path | None = None) -> Path | None:
    """The folder with the named sets, or None where it is not here.

    It is ``data`` if given, else what ``RAGZIP_DATA`` names, else ``../shared/data`` beside the working directory
    or beside the repository this file belongs to. A folder that is named but not there is not replaced by another.
    """
    return next((folder for folder in looked_at(data) if folder.is_dir()), None)


def looked_at(data: Path | None = None) -> list[Path]:
    """Where ``data_dir`` looks, in order."""
    if data is not None:
        return [data.expanduser()]
    named = os.environ.get(VARIABLE, "").strip()
    if named:
        return [Path(named).expanduser()]
    beside = [Path.cwd(), Path(__file__).resolve().parents[3]]
    return list(dict.fromkeys((place.parent / "shared" / "data") for place in beside))
