"""The figures of a run: quality against cost, time by stage, and from how many tokens on compression pays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ragzip.evaluation.report import svg, view
from ragzip.evaluation.report.labels import Box, place
from ragzip.evaluation.report.measures import heading, in_percent, show_value
from ragzip.evaluation.report.view import RunView
from ragzip.evaluation.report.words import finite, mapping, word

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STAGES = ("retrieve", "compress", "prefill", "decode")
_REFERENCES = ("no_compression", "closed_book")
_AXIS = {"tokens_out": "tokens out (a question)", "ttft": "time to first token (s)"}
_MOST_CURVES = 8


@dataclass(frozen=True, slots=True)
class Look:
    """How a family of rows is drawn.

    Attributes:
        color: A stand-in of ``svg``.
        variable: The CSS variable that it becomes.
        marker: Matplotlib's name of the shape.
        hollow: Only its outline: it reads the labels.
    """

    color: str
    variable: str
    marker: str
    hollow: bool


def looks(run: RunView) -> dict[str, Look]:
    """A look for each family, in the order of the rows; the reference rows are drawn in ink."""
    result: dict[str, Look] = {}
    index = 0
    for name, (family, _) in view.families(run.names).items():
        if family in result:
            continue
        if family in _REFERENCES:
            result[family] = Look(svg.INK, "--ink", "s" if family == "no_compression" else "X", False)
            continue
        color = index % len(svg.SERIES)
        marker = svg.MARKERS[index % len(svg.MARKERS)]
        result[family] = Look(svg.SERIES[color], f"--c{color}", marker, view.uses_labels(run, name))
        index += 1
    return result


def pareto(run: RunView, metric: str, cost: str, key: str) -> str:
    """Quality against cost: a point a row with its intervals, the front as a line. "" where nothing was measured."""
    cells = {name: (view.cell(run, name, cost), view.cell(run, name, metric)) for name in run.names}
    scale = 100.0 if in_percent(metric) else 1.0
    points = {n: (x.mean, scale * y.mean) for n, (x, y) in cells.items() if x.mean is not None and y.mean is not None}
    if not points:
        return ""
    front = [name for name in view.front(run, metric, cost) if name in points]
    style, families = looks(run), view.families(run.names)

    def paint(axes: Axes) -> Mapping[str, str]:
        from matplotlib.ticker import MaxNLocator

        axes.set_xlabel(_AXIS.get(cost, heading(cost)))
        axes.set_ylabel(heading(metric) + (" (%)" if scale > 1 else ""))
        ends = [points[name] for name in front]
        axes.plot([x for x, _ in ends], [y for _, y in ends], color=svg.MUTED, lw=1.4, ls=(0, (5, 3)), zorder=1.5)
        tips: dict[str, str] = {}
        bars: dict[str, tuple[float, float, float, float]] = {}
        for index, (name, (x, y)) in enumerate(points.items()):
            look = style[families[name][0]]
            across, up = cells[name]
            bars[name] = (*_ends(across, x, 1), *_ends(up, y, scale))
            axes.hlines(y, *bars[name][:2], color=look.color, lw=1, alpha=0.45, zorder=2)
            axes.vlines(x, *bars[name][2:], color=look.color, lw=1, alpha=0.45, zorder=2)
            face = svg.PAPER if look.hollow else look.color
            edge = look.color if look.hollow else svg.PAPER
            axes.plot(
                [x],
                [y],
                look.marker,
                ms=7.5,
                mfc=face,
                mec=edge,
                mew=1.4 if look.hollow else 0.8,
                gid=f"point{index}",
                zorder=3,
            )
            shown = ", ".join(
                f"{heading(m)} {show_value(m, found.mean)}" for m, found in ((metric, up), (cost, across))
            )
            tips[f"point{index}"] = f"{word(name)}: {shown}" + (" (on the front)" if name in front else "")
        top = max(bar[3] for bar in bars.values())
        bottom = min(bar[2] for bar in bars.values())
        room = (top - bottom) * 0.07 or 1.0
        axes.set_ylim(bottom - room, top + room)
        right = max(bar[1] for bar in bars.values()) or 1.0
        axes.set_xlim(-0.04 * right, right * 1.08)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        name_points(axes, points, front, sorted(points, key=lambda name: families[name][0] != name), bars)
        return tips

    against = "tokens" if cost == "tokens_out" else "time to first token"
    named = ", ".join(f"{word(n)} ({show_value(metric, cells[n][1].mean)})" for n in front)
    return svg.draw(
        key,
        f"{heading(metric)} against {against}",
        f"{len(points)} rows; on the front, cheapest first: {named}.",
        (400, 320),
        (50, 8, 46, 8),
        paint,
    )


def _ends(cell: view.Cell, middle: float, scale: float) -> tuple[float, float]:
    low = middle if cell.low is None else cell.low * scale
    high = middle if cell.high is None else cell.high * scale
    return min(low, middle), max(high, middle)


def name_points(
    axes: Axes,
    points: Mapping[str, tuple[float, float]],
    front: Sequence[str],
    order: Sequence[str],
    bars: Mapping[str, tuple[float, float, float, float]],
) -> None:
    """Names where there is room: the front first, then the others.

    Args:
        axes: With their limits set.
        points: Where each is.
        front: Those that a line joins, in its order.
        order: All, those that are to be named first first.
        bars: Where the intervals of points end: left, right, bottom, top; none for those without.
    """
    from rich.cells import cell_len

    order = sorted(order, key=lambda name: name not in front)
    labels = [name if len(name) <= 26 else name[:25] + "…" for name in map(word, order)]
    pixel = axes.transData.transform
    spots = [tuple(pixel(points[name])) for name in order]
    size = svg.FONT_SIZE - 2
    sizes = [(0.6 * size * cell_len(label) + 3, size + 2) for label in labels]
    obstacles: list[Box] = []
    for name in (name for name in order if name in bars):
        x, y = points[name]
        left, right, bottom, top = bars[name]
        (x0, y0), (x1, y1) = pixel((left, bottom)), pixel((right, top))
        px, py = pixel((x, y))
        obstacles.extend([(x0, py - 1, x1, py + 1), (px - 1, y0, px + 1, y1)])
    for one, other in pairwise(front):
        (x0, y0), (x1, y1) = pixel(points[one]), pixel(points[other])
        for step in range(1, 12):
            x, y = x0 + (x1 - x0) * step / 12, y0 + (y1 - y0) * step / 12
            obstacles.append((x - 2, y - 2, x + 2, y + 2))
    frame = axes.get_window_extent()
    area = (frame.x0 + 2, frame.y0 + 2, frame.x1 + 6, frame.y1)
    for found in place(spots, sizes, area, obstacles):
        x, y = axes.transData.inverted().transform((found.x, found.y))
        width = sizes[found.index][0]
        axes.text(x, y, labels[found.index], fontsize=size, va="center_baseline", zorder=5)
        if found.far:
            px, py = spots[found.index]
            ends = ((px, py), (min(max(px, found.x), found.x + width), found.y))
            line = axes.transData.inverted().transform(ends)
            axes.plot(line[:, 0], line[:, 1], color=svg.MUTED, lw=0.6, zorder=1)


def stages(run: RunView, key: str) -> str:
    """Mean seconds of each stage, a bar a row, its name above it. "" where no times were measured."""
    seconds: dict[str, list[float]] = {}
    for name in run.names:
        means = [view.cell(run, name, f"{stage}_seconds").mean for stage in STAGES]
        if any(mean is not None for mean in means):
            seconds[name] = [max(mean or 0.0, 0.0) for mean in means]
    if not seconds:
        return ""
    longest = max(map(sum, seconds.values())) or 1.0

    def paint(axes: Axes) -> Mapping[str, str]:
        from matplotlib.ticker import MaxNLocator

        tips = {}
        for row, (name, parts) in enumerate(seconds.items()):
            start = 0.0
            for stage, (part, color) in enumerate(zip(parts, svg.STAGES, strict=True)):
                if part:
                    gid = f"bar{row}x{stage}"
                    axes.barh(row, part, 0.4, start, color=color, ec=svg.PAPER, lw=0.6)[0].set_gid(gid)
                    tips[gid] = f"{word(name)}: {STAGES[stage]} {show_value('ttft', part)}"
                start += part
            axes.text(0, row - 0.29, word(name), va="bottom", fontsize=svg.FONT_SIZE - 0.5)
            axes.text(
                longest,
                row - 0.29,
                show_value("ttft", start),
                va="bottom",
                ha="right",
                fontsize=svg.FONT_SIZE - 0.5,
            )
        axes.set_ylim(len(seconds) - 0.6, -0.9)
        axes.set_xlim(0, longest)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_yticks([])
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("seconds a question")
        return tips

    described = "; ".join(f"{word(n)} {show_value('ttft', sum(parts))}" for n, parts in seconds.items())
    height = 52.0 + 38 * len(seconds)
    return svg.draw(
        key, "Seconds by stage", f"Mean seconds a question: {described}.", (480, height), (8, 16, 46, 4), paint
    )


def break_even(run: RunView, key: str) -> str:
    """Time to first token with and without each compressor by context length. "" where nothing was measured."""
    rows = mapping(mapping(run.summary.get("break_even")).get("rows"))
    drawn, _ = drawn_curves(run)
    if not drawn:
        return ""
    curves = {name: _curve(rows[name]) for name in drawn}
    pays = {name: finite(mapping(rows[name]).get("pays_from")) or 0.0 for name in drawn}
    last = max(points[-1][0] for points in curves.values())
    first = min([last / 64, *(points[0][0] for points in curves.values() if points[0][0]), *_positive(pays.values())])

    def paint(axes: Axes) -> Mapping[str, str]:
        import numpy as np
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        tips = {}
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        plain: set[tuple[tuple[float, ...], ...]] = set()
        for index, (name, points) in enumerate(curves.items()):
            x, with_, without = (np.array(part) for part in zip(*points, strict=True))
            grid = np.geomspace(max(first / 1.2, x[0], 1.0), x[-1], 40)
            baseline = tuple((p[0], p[2]) for p in points)
            if baseline not in plain:  # one for each generator
                plain.add(baseline)
                axes.plot(grid, np.interp(grid, x, without), color=svg.INK, lw=2.4, gid=f"without{index}", zorder=2)
                tips[f"without{index}"] = "without compression"
            color = svg.SERIES[index % len(svg.SERIES)]
            marker = svg.MARKERS[index % len(svg.MARKERS)]
            line: dict[str, Any] = {
                "color": color,
                "lw": 1.6,
                "marker": marker,
                "ms": 5.5,
                "mec": svg.PAPER,
                "mew": 0.6,
            }
            line |= {"markevery": (index % 5, 8), "gid": f"with{index}", "zorder": 3}
            axes.plot(grid, np.interp(grid, x, with_), **line)
            tips[f"with{index}"] = f"with {word(name)}"
            if pays[name] > 0:
                axes.axvline(pays[name], color=color, lw=1, ls=(0, (2, 3)))
        axes.set_xlabel("context tokens before compression")
        axes.set_ylabel("time to first token (s)")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        return tips

    title = "Time to first token by context length, with and without compression"
    description = "The table beside it says from where on each one pays."
    return svg.draw(key, title, description, (480, 330), (56, 20, 46, 8), paint)


def drawn_curves(run: RunView) -> tuple[list[str], int]:
    """The rows of the break-even plot in the order of its colours, and how many more were measured."""
    rows = mapping(mapping(run.summary.get("break_even")).get("rows"))
    names = [name for name, row in rows.items() if _curve(row)]
    names.sort(key=lambda name: view.kind(run, name) != "given")
    return names[:_MOST_CURVES], max(0, len(names) - _MOST_CURVES)


def _positive(values: Iterable[float]) -> list[float]:
    return [value for value in values if value > 0]


def _curve(row: Any) -> list[tuple[float, float, float]]:
    """The points of one row by context length; none where they make no line."""
    points = []
    for point in mapping(row).get("points") or []:
        x, with_, without = (finite(value) for value in point) if len(point) == 3 else (None, None, None)
        if x is not None and with_ is not None and without is not None and x >= 0 and min(with_, without) > 0:
            points.append((x, with_, without))
    points.sort()
    return points if len(points) > 1 and points[-1][0] > 1 else []
