"""The built wheel holds the package and nothing else, and stays small."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

MOST_BYTES = 70_000_000


def main(folder: str) -> int:
    """Looks into the newest wheel of a folder; gives the exit code."""
    wheels = sorted(Path(folder).glob("*.whl"), key=lambda path: path.stat().st_mtime)
    if not wheels:
        print(f"no wheel in {folder}")
        return 1
    with zipfile.ZipFile(wheels[-1]) as archive:
        names = archive.namelist()
        size = sum(item.compress_size for item in archive.infolist())
    tops = {name.split("/")[0] for name in names}
    problems = [
        f"{top} lies at the top of the wheel" for top in tops if top != "ragzip" and not top.endswith(".dist-info")
    ]
    pages = [f"ragzip/evaluation/report/page.{kind}" for kind in ("html", "css", "js")]
    needed = ("ragzip/py.typed", "ragzip/__init__.py", *pages)
    problems += [f"{name} is missing" for name in needed if name not in names]
    shipped = [path.as_posix() for path in Path("ragzip/weights").rglob("*") if path.is_file()]
    problems += [f"{name} is in the checkout, but not in the wheel" for name in shipped if name not in names]
    problems += [f"{name} does not belong in a wheel" for name in names if name.endswith((".pyc", ".gguf", ".pkl"))]
    if size > MOST_BYTES:
        problems.append(f"the wheel has {size:,} bytes, more than {MOST_BYTES:,}")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
