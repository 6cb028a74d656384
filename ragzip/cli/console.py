"""What the command line prints: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

OnProgress = Callable[[int, int], None]


def complain(message: str, hint: str) -> None:
    """An error on standard error: where and what on the first line, what to do on the next."""
    typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
    typer.echo(message, err=True)
    if hint:
        typer.echo(f"  {hint}", err=True)


def note(message: str) -> None:
    """A remark on standard error."""
    typer.echo(message, err=True)


def shown(text: str) -> str:
    """Text as a terminal may have it: a document's control characters would be commands to it."""
    from ragzip.evaluation.report.words import plain

    return plain(text) if sys.stdout.isatty() else text


def print_json(value: Any) -> None:
    """One JSON object on one line of standard output, in letters that its encoding has."""
    typer.echo(json.dumps(value, ensure_ascii=not writes_unicode(), allow_nan=False))


def writes_unicode(stream: Any = None) -> bool:
    """Whether a stream takes every letter; None is standard output."""
    encoding = getattr(stream or sys.stdout, "encoding", None) or "utf-8"
    return encoding.lower().replace("_", "-") in ("utf-8", "utf8")


def out() -> Console:
    """A rich console on standard output; plain where it is no terminal."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


@contextmanager
def progress(label: str, *, unit: str = "") -> Iterator[OnProgress]:
    """A progress bar on standard error, shown after a second of work and only in a terminal.

    Yields:
        A function of (done, total); total 0 where it is not known.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Left

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    bar = Progress(*columns, TimeElapsedColumn(), Left(), console=Console(stderr=True), transient=True)
    task = bar.add_task(label, total=None)
    start, running = time.monotonic(), False

    def report(done: int, total: int) -> None:
        nonlocal running
        if not running and time.monotonic() - start > 1.0:
            bar.start()
            running = True
        bar.update(task, completed=done, total=total or None)

    try:
        yield report
    finally:
        if running:
            bar.stop()


@contextmanager
def waiting(label: str) -> Iterator[Callable[[str], None]]:
    """A spinner on standard error for work without a measure; yields a function that changes its text."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status(label) as status:
        yield lambda text: status.update(text)


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A plain table on standard output: aligned columns, nothing folded, so that it can be searched and cut."""
    lines = [columns, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    if title:
        typer.secho(title, bold=True)
    for number, line in enumerate(lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        typer.secho(text, dim=number == 0)


def human_bytes(count: float) -> str:
    """``98.2 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return ""


def pairs(values: Mapping[str, object]) -> None:
    """``key  value`` lines on standard output, keys aligned."""
    width = max(map(len, values), default=0)
    for key, value in values.items():
        typer.echo(f"{key:<{width}}  {value}")
