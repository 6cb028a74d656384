"""The results of a run as a table that fits the terminal: quality with intervals, costs, and what is significant."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ragzip.evaluation.report import view
from ragzip.evaluation.report.measures import heading, is_quality, show_value
from ragzip.evaluation.report.view import RunView
from ragzip.evaluation.report.words import finite, mapping, word

if TYPE_CHECKING:
    from rich.text import Text

_GAP = 2
_MOST_ROWS = 8  # whose break-even is told
_USUAL = ("tokens_out", "ratio", "ttft", "total_seconds")
_MARKS = {"better": "▲", "worse": "▼", "n.s.": "n.s."}
_ASCII = str.maketrans({"±": "~", "▲": "^", "▼": "v", "–": "-", "−": "-", "…": ".", "×": "x"})


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table.

    Attributes:
        heading: What stands above it.
        cells: One a row.
        best: Which of them are the best.
        rank: How much it matters; the column of the highest rank is the first to go where width is short.
    """

    heading: str
    cells: tuple[str, ...]
    best: tuple[bool, ...]
    rank: int


def show(
    run: RunView,
    console_print: Callable[[Text], None] | None = None,
    *,
    width: int | None = None,
    also: Sequence[str] = (),
) -> None:
    """Print the results of a run.

    Args:
        run: What to show.
        console_print: Takes one line at a time, as a rich ``Text``; None prints to standard output, in bold where
            that is a terminal.
        width: Most columns of characters; None takes the terminal's width, or no limit where there is none.
        also: Metrics that are shown beside the usual ones, where they were measured.
    """
    from rich.console import Console

    terminal = sys.stdout.isatty()
    if console_print is None:
        console_print = Console(highlight=False, soft_wrap=not terminal).print
    if width is None and terminal:
        width = shutil.get_terminal_size().columns
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
    for line in lines(run, width=width, ascii_only=not encoding.startswith("utf"), also=also):
        console_print(line)


def lines(run: RunView, *, width: int | None = None, ascii_only: bool = False, also: Sequence[str] = ()) -> list[Text]:
    """The table and what stands under it, one rich ``Text`` a line.

    Args:
        run: What to show.
        width: Most columns of characters that a table row takes, or None for no limit. Columns that do not fit
            are left out, the least important first, and named under the table.
        ascii_only: Keep to ASCII outside names.
        also: Metrics that are shown beside the usual ones, where they were measured.
    """
    from rich.text import Text

    def text(content: str = "", style: str = "") -> Text:
        shown = content.translate(_ASCII) if ascii_only else content
        return Text(shown, style=style, no_wrap=True, overflow="ignore", end="\n")

    names = [word(name) for name in run.names]
    columns, left_out = _fit(names, _columns(run, also), width)
    name_width = _name_width(names, columns, width)
    widths = [max(_cells(column.heading), *map(_cells, column.cells), 0) for column in columns]

    head = _pad("pipeline", name_width)
    for column, size in zip(columns, widths, strict=True):
        head += " " * _GAP + _pad(column.heading, size, right=True)
    result = [text(head.rstrip(), "dim")]
    for number, name in enumerate(names):
        line = text(_pad(_cut(name, name_width), name_width))
        for column, size in zip(columns, widths, strict=True):
            line.append(" " * _GAP)
            cell = _pad(column.cells[number], size, right=True)
            line.append(cell.translate(_ASCII) if ascii_only else cell, "bold" if column.best[number] else None)
        line.rstrip()
        result.append(line)
    result.append(text())
    for remark in _remarks(run, left_out):
        result.extend(text(part, "dim") for part in _wrap(remark, width))
    return result


def _columns(run: RunView, also: Sequence[str]) -> list[Column]:
    """All columns that have a value somewhere, in the order of printing."""
    measured = view.metric_names(run)
    quality = [metric for metric in measured if is_quality(metric)]
    first = view.main_quality(run)
    asked = [metric for metric in measured if metric in also and metric not in (*quality, *_USUAL)]
    ranked = [first, *asked, "tokens_out", "ratio", "ttft", *(m for m in quality if m != first), "total_seconds"]
    shown = [*quality, *(m for m in _USUAL if m in measured), *asked]
    columns = []
    for metric in shown:
        top = view.best(run, metric)
        columns.append(
            Column(
                heading(metric),
                tuple(_aligned([_cell(run, name, metric) for name in run.names])),
                tuple(name in top for name in run.names),
                ranked.index(metric),
            )
        )
    return columns


def _cell(run: RunView, name: str, metric: str) -> tuple[str, str]:
    """A number, and the mark that follows it."""
    found = view.cell(run, name, metric)
    shown = show_value(metric, found.mean)
    if not is_quality(metric):
        return shown, ""
    if found.mean is not None and found.half is not None:
        shown += f" ±{show_value(metric, found.half)}"
    elif found.low is not None and found.high is not None:
        shown += f" [{show_value(metric, found.low)}, {show_value(metric, found.high)}]"
    verdict = view.verdict(run, name, metric)
    return shown, _MARKS[verdict.words] if verdict else ""


def _aligned(cells: Sequence[tuple[str, str]]) -> list[str]:
    """Numbers under numbers, whatever mark follows them."""
    size = max((len(mark) for _, mark in cells), default=0)
    return [f"{shown} {mark.ljust(size)}" if size else shown for shown, mark in cells]


def _fit(names: Sequence[str], columns: list[Column], width: int | None) -> tuple[list[Column], list[str]]:
    """The columns that fit beside the names, and the headings of the others, the most important first."""
    left_out: list[Column] = []
    columns = list(columns)
    while width is not None and len(columns) > 1 and _total(names, columns) > width:
        least = max(columns, key=lambda column: column.rank)
        columns.remove(least)
        left_out.insert(0, least)
    return columns, [column.heading for column in left_out]


def _total(names: Sequence[str], columns: Sequence[Column]) -> int:
    return max(map(_cells, ("pipeline", *names))) + _taken(columns)


def _taken(columns: Sequence[Column]) -> int:
    return sum(_GAP + max(_cells(column.heading), *map(_cells, column.cells), 0) for column in columns)


def _name_width(names: Sequence[str], columns: Sequence[Column], width: int | None) -> int:
    """Columns of characters for the names: as many as they need, less where even one number would not fit."""
    needed = max(map(_cells, ("pipeline", *names)))
    return needed if width is None else max(8, min(needed, width - _taken(columns)))


def _remarks(run: RunView, left_out: Sequence[str]) -> list[str]:
    quality = view.quality_names(run)
    remarks = [f"{view.data_line(run)}; {view.sizes(run, quality)}"]
    if quality:
        remarks.append(
            "quality in percent ± half the 95 % interval, or [low, high] where lopsided; times are means a question"
        )
    if any(view.verdict(run, name, metric) for name in run.names for metric in quality):
        remarks.append(
            f"against {view.against(run)}, p-values {view.CORRECTED}: "
            "▲ significantly better, ▼ significantly worse, n.s. not significant"
        )
    if any(view.uses_labels(run, name) for name in run.names):
        remarks.append("oracle rows read the labels, and are left out when the best value is marked in bold")
    remarks.extend(_break_even(run))
    remarks.extend(view.failures(run))
    if left_out:
        remarks.append(f"left out, the terminal is too narrow: {', '.join(left_out)}")
    return remarks


def _break_even(run: RunView) -> list[str]:
    """From how many tokens of context on a row is faster than none, for rows of which that is known."""
    found = mapping(run.summary.get("break_even"))
    window = finite(found.get("window"))
    never = f"not within {window:,.0f}" if window else "never"
    rows = {name: row for name, row in mapping(found.get("rows")).items() if mapping(row).get("points")}
    told = []
    for name, row in list(rows.items())[:_MOST_ROWS]:
        start, low, high = (finite(mapping(row).get(part)) for part in ("pays_from", "low", "high"))
        shown = never if start is None else f"{start:,.0f}"
        if low is not None:
            shown += f" [{low:,.0f}, {'never' if high is None else f'{high:,.0f}'}]"
        told.append(f"{word(name)} {shown}")
    more = [f"{len(rows) - len(told)} more in the report"] if len(rows) > len(told) else []
    return (
        [f"saves time to the first token from so many context tokens on: {', '.join([*told, *more])}"] if told else []
    )


def _wrap(remark: str, width: int | None) -> list[str]:
    import textwrap

    return textwrap.wrap(remark, max(width, 20), subsequent_indent="  ") if width else [remark]


def _cells(content: str) -> int:
    from rich.cells import cell_len

    return cell_len(content)


def _pad(content: str, size: int, *, right: bool = False) -> str:
    fill = " " * max(0, size - _cells(content))
    return fill + content if right else content + fill


def _cut(name: str, size: int) -> str:
    """The name, shortened in its middle so that both the method and its setting stay readable."""
    if _cells(name) <= size:
        return name
    tail = name[-(size // 3) :]
    head = name
    while head and _cells(head) + _cells(tail) + 1 > size:
        head = head[:-1]
    return f"{head}…{tail}"
