"""Runs the benchmarks and writes what they gave: benchmarks/results/*.json and docs/numbers.md.

    python benchmarks/run.py                # speed of the main job
    python benchmarks/run.py quality        # answer quality: over an hour
    python benchmarks/run.py hard:quarter   # one part of a benchmark that has several

Run it with nothing else on the machine. Numbers are medians; compare ratios, not seconds of different machines.
"""

from __future__ import annotations

import importlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
NUMBERS = ROOT / "docs" / "numbers.md"
PARTS = ("main_job",)


def main(parts: list[str]) -> None:
    sys.path.insert(0, str(ROOT))
    from benchmarks.measure import environment

    RESULTS.mkdir(exist_ok=True)
    for part in parts or PARTS:
        module, piece = _module(part)
        record = {
            "command": f"python benchmarks/run.py {part}",
            "when": datetime.now(UTC).strftime("%Y-%m-%d"),
            "environment": environment(),
            "results": module.run(*piece),
        }
        text = json.dumps(record, indent=2) + "\n"
        (RESULTS / f"{part.replace(':', '_')}.json").write_text(text, encoding="utf-8")
        print(render(record))
    write_page()


def _module(part: str) -> tuple[Any, list[str]]:
    """The module of a benchmark, and the piece of it that is wanted, if one is named."""
    name, _, piece = part.partition(":")
    return importlib.import_module(f"benchmarks.{name}"), [piece] if piece else []


def write_page() -> None:
    """Renders every stored result between the page's markers; the prose around them is written by hand."""
    page = NUMBERS.read_text(encoding="utf-8")
    for path in sorted(RESULTS.glob("*.json")):
        begin, end = f"<!-- begin {path.stem} -->", f"<!-- end {path.stem} -->"
        if begin not in page:
            continue
        head, _, rest = page.partition(begin)
        _, _, tail = rest.partition(end)
        page = f"{head}{begin}\n{render(json.loads(path.read_text(encoding='utf-8')))}{end}{tail}"
    NUMBERS.write_text(page, encoding="utf-8")


def render(record: dict[str, Any]) -> str:
    """The record as Markdown: by its part's own ``render``, else one table of names and values."""
    module, _ = _module(record["command"].split()[-1])
    if hasattr(module, "render"):
        return str(module.render(record))
    lines = [
        f"`{record['command']}`, {record['when']}, " + ", ".join(f"{k} {v}" for k, v in record["environment"].items())
    ]
    lines += ["", "| what | | value |", "|---|---|---|"]
    for name, value in record["results"].items():
        rows = value.items() if isinstance(value, dict) else [("", value)]
        lines += [f"| {name} | {key} | {shown(value)} |" for key, value in rows]
    return "\n".join(lines) + "\n"


def shown(value: Any) -> str:
    """A number with separators, anything else as it is."""
    return f"{value:,}" if isinstance(value, int | float) else str(value)


if __name__ == "__main__":
    main(sys.argv[1:])
