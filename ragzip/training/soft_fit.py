"""Which examples fit a generator's window: the others are left out before training, and it is said how many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ragzip.models import CausalLM
from ragzip.training.row_writer import RowWriter, Told
from ragzip.training.soft_data import Asking, SoftData, Telling
from ragzip.training.soft_prompts import SAME, TELL, Framed, Frames


def fitting(data: SoftData, lm: CausalLM, writer: RowWriter | None, passages: int) -> tuple[SoftData, int]:
    """The data without examples whose prompt, with its answer, can be longer than the window; and how many these are.

    Args:
        data: All of it.
        lm: The generator.
        writer: Says how many rows a text becomes; None where there are only questions.
        passages: Most passages of a question.
    """
    frames = Frames(replace(lm, window=2**62))  # what is too long is found here, and told
    requests = (*TELL, *SAME)
    around = max(_whole(frames.telling(Telling("a", ""), 1, request)) for request in requests)
    around += _whole(frames.asking(Asking("a", "a", (("", "a"),), (), ""), (("", "a"),), None))

    def asks(one: Asking) -> bool:
        texts = sorted([*one.positives, *one.negatives], key=lambda part: len(part[0]) + len(part[1]))[-passages:]
        most = _bytes([one.question, one.answer, *(text for part in texts for text in part)])
        if around + most + 4 * len(texts) <= lm.window:  # no token is less than a byte
            return True
        return _whole(frames.asking(one, texts, None)) <= lm.window

    def tells(one: Telling) -> bool:
        if writer is None or around + 2 * _bytes([one.text]) <= lm.window:
            return True
        (rows,) = writer.counts([Told("", one.text)], min(writer.rates))
        return max(_whole(frames.telling(one, rows, request), rows) for request in requests) <= lm.window

    kept = replace(
        data,
        tellings=tuple(filter(tells, data.tellings)),
        askings=tuple(filter(asks, data.askings)),
        held_tellings=tuple(filter(tells, data.held_tellings)),
        held_askings=tuple(filter(asks, data.held_askings)),
    )
    parts = ("tellings", "askings", "held_tellings", "held_askings")
    return kept, sum(len(getattr(data, name)) - len(getattr(kept, name)) for name in parts)


def _whole(framed: Framed, rows: int = 1) -> int:
    """Positions of a prompt with its answer, where each text that is no text has so many rows."""
    return sum(len(p) if isinstance(p, list) else rows for p in framed.pieces) + len(framed.answer)


def _bytes(texts: Sequence[str]) -> int:
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
