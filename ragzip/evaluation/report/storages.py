"""The figure of ``ragzip index tune``: recall against what a storage costs, with the front as a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ragzip.evaluation.report import svg
from ragzip.evaluation.report.plots import name_points
from ragzip.evaluation.storage import Cost, StorageTuning

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_AXIS: Mapping[Cost, str] = {
    "disk": "bytes a passage on the disk",
    "memory": "bytes a passage that are read for a question",
    "milliseconds": "milliseconds a question",
}
_VALUES = {
    "--ink": "#16191d", "--muted": "#59616b", "--grid": "#dde1e6", "--card": "#ffffff", "--c0": "#0072b2",
    "--c1": "#d55e00", "--font": "sans-serif",
}  # fmt: skip
"""The page's colours in the light: a picture of its own has no page."""


def front(found: StorageTuning, by: Cost, chosen: str = "") -> str:
    """A picture that stands alone, as SVG.

    Args:
        found: What ``tune`` measured.
        by: The cost across; on a scale of ratios.
        chosen: The storage that is drawn as the chosen one.
    """
    each = 1 if by == "milliseconds" else max(found.passages, 1)
    points = {one.storage: (getattr(one, by) / each, one.recall) for one in found.measured}
    line = sorted((one for one in found.measured if by in one.fronts), key=lambda one: getattr(one, by))

    def paint(axes: Axes) -> Mapping[str, str]:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(_AXIS[by])
        axes.set_ylabel(f"recall@{found.k}")
        axes.plot(*zip(*(points[one.storage] for one in line), strict=True), color=svg.MUTED, lw=1.4, zorder=1.5)
        tips = {}
        for number, (name, (x, y)) in enumerate(points.items()):
            color = svg.SERIES[1] if name == chosen else svg.SERIES[0]
            on = any(one.storage == name for one in line)
            axes.plot([x], [y], "o", ms=8, mfc=color if on else svg.PAPER, mec=color, gid=f"point{number}", zorder=3)
            tips[f"point{number}"] = f"{name}: recall {y:.3f}, {x:,.2f} {_AXIS[by]}"
        low = min(y for _, y in points.values())
        axes.set_ylim(low - 0.06 * (1.02 - low), 1.02)
        across = [x for x, _ in points.values()]
        axes.set_xlim(min(across) / 1.25, max(across) * 1.6)
        name_points(axes, points, [one.storage for one in line], list(points), {})
        return tips

    drawn = svg.draw(
        "storage",
        f"recall@{found.k} against {_AXIS[by]}",
        f"{len(points)} storages; on the front, cheapest first: {', '.join(one.storage for one in line)}.",
        (560, 400),
        (56, 10, 46, 10),
        paint,
    )
    for name, value in _VALUES.items():
        drawn = drawn.replace(f"var({name})", value)
    return drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" style="background:#ffffff" ', 1)
