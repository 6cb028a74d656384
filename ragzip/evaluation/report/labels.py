"""Where the names of points go, so that they cover neither each other nor the points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Box = tuple[float, float, float, float]
"""Left, bottom, right, top, in pixels."""

_SIDES = (
    *((1.0, 0.0), (1.0, 1.0), (1.0, -1.0), (-1.0, 0.0), (-1.0, 1.0), (-1.0, -1.0), (0.0, 1.0), (0.0, -1.0)),
    *((1.0, 0.5), (1.0, -0.5), (0.5, -1.0), (0.5, 1.0)),
)
_DISTANCES = (7.0, 15.0, 26.0, 42.0, 64.0)


@dataclass(frozen=True, slots=True)
class Placed:
    """A label with its left end and middle, in pixels; ``far`` where a line should lead to its point."""

    index: int
    x: float
    y: float
    far: bool


def place(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    area: Box,
    obstacles: Sequence[Box] = (),
) -> list[Placed]:
    """Find room for one label a point, the first ones first.

    Args:
        points: Where the points are, in pixels.
        sizes: Width and height of each label, in pixels.
        area: Labels stay inside.
        obstacles: What labels had better not cover: error bars, lines.

    Returns:
        A place for every label that has one; labels that would cover a point or another label have none.
    """
    marks = [(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    taken: list[Box] = []
    found: list[Placed] = []
    for index, ((x, y), (width, height)) in enumerate(zip(points, sizes, strict=True)):
        options: list[tuple[float, Box, float]] = []
        for distance in _DISTANCES:
            for order, (right, up) in enumerate(_SIDES):
                left = x + right * distance - (width if right < 0 else width / 2 if right == 0 else 0)
                middle = y + up * (distance + height / 4)
                box = (left, middle - height / 2, left + width, middle + height / 2)
                if not _inside(box, area) or any(_overlap(box, other) for other in (*marks, *taken)):
                    continue
                covered = sum(_overlap(box, other) for other in obstacles)
                options.append((covered * 8 + distance + order * 0.1, box, distance))
        if options:
            _, box, distance = min(options)
            taken.append(box)
            found.append(Placed(index, box[0], (box[1] + box[3]) / 2, distance > _DISTANCES[0]))
    return found


def _inside(box: Box, area: Box) -> bool:
    return area[0] <= box[0] and area[1] <= box[1] and box[2] <= area[2] and box[3] <= area[3]


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
