"""What of a document a model with a window reads around each sentence: all of it where it fits, else a stretch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise

from ragzip.text import Stretch, cut_before, sentences

Count = Callable[[Sequence[str]], Sequence[int]]


def surroundings(
    text: str, parts: Sequence[Stretch], room: int, overlap: int, count: Count
) -> list[tuple[Stretch, list[int]]]:
    """Stretches of a document that fit a window, and which parts are judged in each.

    Stretches begin at sentences and overlap, so that a part of at most ``overlap`` tokens stands whole in one of them;
    of those it is given to the one where it stands farthest from a cut.

    Args:
        text: The document.
        parts: What is judged, in its characters.
        room: Most tokens of a stretch; several times the overlap.
        overlap: Least tokens that neighbouring stretches share.
        count: Counts tokens.

    Returns:
        Stretches in order, with indices of parts in order; every part once, no stretch without any.
    """
    if count([text])[0] <= room:
        whole = [(0, len(text))]
    else:
        edges, costs = _units(text, max(room // 8, 1), count)
        limit = room
        while True:  # tokens of a stretch are not quite those of its units
            whole = list(_windows(edges, costs, limit, overlap))
            over = max(count([text[start:end] for start, end in whole])) - room
            if over <= 0 or limit <= 1:
                break
            limit = max(limit - over, 1)
    found: list[tuple[Stretch, list[int]]] = [(stretch, []) for stretch in whole]
    for number, part in enumerate(parts):
        best = max(range(len(whole)), key=lambda i: _fits(part, whole[i], len(text)))
        found[best][1].append(number)
    return [(stretch, numbers) for stretch, numbers in found if numbers]


def in_parts(text: str, most: int, count: Count) -> list[Stretch]:
    """A text cut into stretches of at most so many tokens, at words where it can be; mostly one, the text itself."""
    found, todo = [], [(0, len(text))]
    while todo:
        start, end = todo.pop()
        if end - start < 2 or count([text[start:end]])[0] <= most:
            found.append((start, end))
            continue
        middle = (end - start) // 2
        at = start + cut_before(text[start:end], middle)
        space = text.rfind(" ", start + middle // 2, at)
        at = space + 1 if space > start else at if start < at < end else start + middle
        todo += [(at, end), (start, at)]
    return found


def _units(text: str, most: int, count: Count) -> tuple[list[int], list[int]]:
    """Where the document can be cut, and the tokens between the cuts: sentences, or parts of long ones."""
    starts = [start for start, _ in sentences(text)][1:]
    edges = [0, *starts, len(text)]
    costs = list(count([text[a:b] for a, b in pairwise(edges)]))
    fine: list[int] = [0]
    for start, end, cost in zip(edges, edges[1:], costs, strict=False):
        cuts = in_parts(text[start:end], most, count) if cost > most else [(0, end - start)]
        fine += [start + stop for _, stop in cuts]
    return fine, list(count([text[a:b] for a, b in pairwise(fine)]))


def _windows(edges: Sequence[int], costs: Sequence[int], limit: int, overlap: int) -> Iterator[Stretch]:
    """Stretches of units, each as long as the limit allows, the next begun so far back that they share the overlap."""
    sums = [0, *accumulate(costs)]
    first, last = 0, 0
    while last < len(costs):
        last = max(first, last) + 1
        while last < len(costs) and sums[last + 1] - sums[first] <= limit:
            last += 1
        yield edges[first], edges[last]
        back = last
        while back > first + 1 and sums[last] - sums[back] < overlap:
            back -= 1
        first = back


def _fits(part: Stretch, window: Stretch, length: int) -> tuple[int, int]:
    """How much of a part a window holds, and how far the part is from where the document was cut."""
    (start, end), (first, last) = part, window
    before = start - first if first else length
    after = last - end if last < length else length
    return min(end, last) - max(start, first), min(before, after)
