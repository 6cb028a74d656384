"""Arrays by name in one file, as safetensors lays them out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragzip.errors import StoreDamaged
from ragzip.indexes.files import FileEntry, guarded, mend_hint, new_file

Arrays = dict[str, NDArray[Any]]


def write(root: Path, name: str, arrays: Mapping[str, NDArray[Any]]) -> FileEntry:
    """Writes a new file below the index folder."""
    from safetensors.numpy import save

    data = save({key: np.ascontiguousarray(array) for key, array in arrays.items()})
    with guarded(root), new_file(root / name) as out:
        out.write(data)
        return out.entry(name)


def read(root: Path, file: FileEntry, *names: str) -> Arrays:
    """These arrays of a file, or all of them.

    Raises:
        FileNotFoundError: It is gone.
        StoreDamaged: It is not what was written.
    """
    from safetensors import SafetensorError, safe_open

    path = root / file.name
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        with safe_open(path, framework="np") as opened:
            return {name: opened.get_tensor(name) for name in names or opened.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise StoreDamaged(f"{path}: is damaged: {error}.", hint=mend_hint(root)) from error
