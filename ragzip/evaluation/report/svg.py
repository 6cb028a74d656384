"""Matplotlib figures as SVG that lives inside a page: its colours are the page's, its ids are its own.

Colours are drawn as stand-ins and become CSS variables afterwards, so that one drawing serves light and dark.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any, cast

from ragzip.evaluation.report.words import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GRID, PAPER = "#010203", "#010204", "#010205", "#010206"
SERIES = tuple(f"#0a0b{index:02x}" for index in range(7))
"""Stand-ins for ``--c0`` ... ``--c6``, the colour-blind-safe colours of the page."""
STAGES = tuple(f"#0a0c{index:02x}" for index in range(4))
"""Stand-ins for ``--s0`` ... ``--s3``: retrieve, compress, prefill, decode."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")

FONT_SIZE = 12.5
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--card",
    **{color: f"--c{index}" for index, color in enumerate(SERIES)},
    **{color: f"--s{index}" for index, color in enumerate(STAGES)},
}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ragzip",
    "text.parse_math": False,  # a name may hold a dollar sign
    "text.usetex": False,
    "font.family": ["DejaVu Sans"],
    "font.size": FONT_SIZE,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelsize": FONT_SIZE,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": FONT_SIZE - 1,
    "ytick.labelsize": FONT_SIZE - 1,
}

Paint = Callable[["Axes"], Mapping[str, str]]
"""Draws on the axes; returns tooltips by the gid of what was drawn."""


def draw(key: str, title: str, description: str, size: tuple[float, float], margins: Margins, paint: Paint) -> str:
    """One figure with one pair of axes.

    Args:
        key: Starts every id of this figure; unique on the page.
        title: Read out as the figure's name.
        description: Read out as what it shows.
        size: Width and height in pixels.
        margins: Left, right, bottom and top, in pixels.
        paint: Draws.

    Returns:
        An ``<svg>`` element that ends at its own tag, the same for the same drawing.
    """
    import io

    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    width, height = size
    left, right, bottom, top = margins
    target = io.StringIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter the measuring font lacks; the browser's fonts have it
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(cast(Any, _STYLE))
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none")
        FigureCanvasSVG(figure)
        box = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
        axes = figure.add_axes(box, facecolor="none")
        tips = paint(axes)
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None})
    return _embed(target.getvalue(), key, title, description, size, tips)


Margins = tuple[float, float, float, float]


def _embed(
    text: str, key: str, title: str, description: str, size: tuple[float, float], tips: Mapping[str, str]
) -> str:
    """The drawing as part of a page: no preamble, no metadata, no rules for other elements, ids of its own."""
    body = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href=", "href=")
    for gid, tip in tips.items():
        body = body.replace(f'<g id="{gid}">', f'<g id="{gid}" class="tip"><title>{escape(plain(tip))}</title>', 1)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))

    def own(match: re.Match[str]) -> str:
        return f' id="{key}-{match[1]}"' if match[1] in used else ""

    body = re.sub(r' id="([^"]+)"', own, body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{key}-", body)
    for stand_in, variable in _VARIABLES.items():
        body = body.replace(stand_in, f"var({variable})")
    body = body.replace("'DejaVu Sans'", "var(--font)")
    body = re.sub(r"<defs>\s*</defs>", "", body)
    body = re.sub(r">\s*\n\s*<", ">\n<", body).strip()
    width, height = size
    return (
        f'<svg class="plot" role="img" viewBox="0 0 {width:g} {height:g}" '
        f'aria-labelledby="{key}-title {key}-desc"><title id="{key}-title">{escape(plain(title))}</title>'
        f'<desc id="{key}-desc">{escape(plain(description))}</desc>\n{body}\n</svg>'
    )
