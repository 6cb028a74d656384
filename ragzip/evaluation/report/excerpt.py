"""A passage as it is shown: whole where it is short, else the parts around what was kept or marked."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable
from dataclasses import dataclass

_AROUND = 80


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The shown text of a passage.

    Attributes:
        text: The shown parts, one after the other.
        gaps: Where something was left out: a place in ``text`` in UTF-16 units, and how many characters.
        windows: The shown parts as characters of the passage, in order.
        astral: Places in ``text``, in characters, of those that take two UTF-16 units.
    """

    text: str
    gaps: tuple[tuple[int, int], ...]
    windows: tuple[tuple[int, int], ...]
    astral: tuple[int, ...]

    @classmethod
    def of(cls, text: str, spans: Collection[tuple[int, int]], bound: int) -> Excerpt:
        """Show at most about ``bound`` characters: the head, and the surroundings of spans, short spans first."""
        if len(text) <= bound:
            windows = [(0, len(text))]
        else:
            left = bound - bound // 4
            wanted = [(0, bound // 4)]
            for start, end in sorted(set(spans), key=lambda span: (span[1] - span[0], span)):
                if left <= 0:
                    break
                first = max(0, min(start, len(text)) - _AROUND)
                last = min(len(text), end + _AROUND, first + left)
                left -= max(0, last - first)
                wanted.append((first, last))
            windows = _merged(wanted)
        shown = "".join(text[start:end] for start, end in windows)
        astral = tuple(i for i, char in enumerate(shown) if char > "\uffff") if _has_astral(shown) else ()
        gaps, place, reached = [], 0, 0
        for start, end in [*windows, (len(text), len(text))]:
            if start > reached:
                gaps.append((place + bisect_left(astral, place), start - reached))
            place += end - start
            reached = end
        return cls(shown, tuple(gaps), tuple(windows), astral)

    def places(self, spans: Iterable[tuple[int, int]]) -> list[list[int]]:
        """Spans of the passage as places in ``text``, in UTF-16 units; those a blank apart become one."""
        found: list[list[int]] = []
        for start, end in sorted(spans):
            first, last = self._place(start), self._place(end)
            if first >= last:
                continue
            if found and first <= found[-1][1] + 1 and not self.text[found[-1][1] : first].strip():
                found[-1][1] = max(found[-1][1], last)
            else:
                found.append([first, last])
        return [[a + bisect_left(self.astral, a), b + bisect_left(self.astral, b)] for a, b in found]

    def _place(self, position: int) -> int:
        """A character of the passage as a character of ``text``: the end of the part before, where it is not shown."""
        number = bisect_right([start for start, _ in self.windows], position)
        before = sum(end - start for start, end in self.windows[: max(0, number - 1)])
        if not number:
            return 0
        start, end = self.windows[number - 1]
        return before + min(max(position, start), end) - start


def _merged(windows: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(w for w in windows if w[0] < w[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _has_astral(text: str) -> bool:
    return bool(text) and max(text) > "\uffff"
