"""The house rules that no linter knows: file sizes, one version, no machine paths, no unsafe loading."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
from pathlib import Path

LONGEST, MEDIAN = 400, 150
FORBIDDEN = {
    r"\bpickle\.loads?\(|allow_pickle=True|yaml\.load\(|trust_remote_code=True|\beval\(|\bexec\(": "unsafe loading",
    r"/(home|root|work|Users)/[a-z]": "a path of one machine",
}


def main() -> int:
    """Prints each breach and gives the exit code."""
    listed = subprocess.run(["git", "ls-files", "*.py"], capture_output=True, text=True, check=True).stdout.split()
    files = [Path(name) for name in listed if Path(name).is_file()]
    problems: list[str] = []
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    problems += [f"{path}: {n} lines, more than {LONGEST}" for path, n in lengths.items() if n > LONGEST]
    package = [n for path, n in lengths.items() if path.parts[0] == "ragzip" and n > 1 and path.name != "__init__.py"]
    if package and statistics.median(package) > MEDIAN:
        problems.append(f"ragzip: the median file has {statistics.median(package):.0f} lines, more than {MEDIAN}")
    for path in files:
        if path.parts[0] in ("ragzip", "examples", "benchmarks"):
            problems += _forbidden(path)
    problems += _versions()
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def _forbidden(path: Path) -> list[str]:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        for pattern, what in FORBIDDEN.items():
            allowed = "model.eval()" in line or "noqa: S" in line  # with its reason beside it
            if re.search(pattern, line) and not allowed:
                found.append(f"{path}:{number}: {what}: {line.strip()[:80]}")
    return found


def _versions() -> list[str]:
    patterns = {
        "pyproject.toml": r'^version = "([^"]+)"',
        "ragzip/__init__.py": r'^__version__ = "([^"]+)"',
        "CHANGELOG.md": r"^## \[?(\d+\.\d+\.\d+)",
    }
    versions = {}
    for name, pattern in patterns.items():
        match = re.search(pattern, Path(name).read_text(encoding="utf-8"), re.MULTILINE)
        versions[name] = match.group(1) if match else None
    return [] if len(set(versions.values())) == 1 else [f"versions differ: {versions}"]


if __name__ == "__main__":
    sys.exit(main())
