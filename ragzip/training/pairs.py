"""Questions and passages as token ids for a cross-encoder, with a label for every token, in batches by length."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ragzip.training.examples import Example, Marked

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from tokenizers import Tokenizer

IGNORED = -1.0
_QUESTION, _TITLE = 96, 32  # tokens of them that are read, of 320; fewer where the pair is shorter


@dataclass(frozen=True)
class Pair:
    """One question with one passage.

    Attributes:
        ids: Token ids, special tokens included.
        second: Index of the first token after the question's part.
        labels: ``[n_tokens]``, 1 for tokens of what helps, 0 for the passage's others, -1 for all that has no label.
        relevant: Whether the passage helps.
        sentences: For each token the number of its sentence, or -1.
    """

    ids: npt.NDArray[np.int32]
    second: int
    labels: npt.NDArray[np.float32]
    relevant: bool
    sentences: npt.NDArray[np.int16]


Group = tuple[Pair, ...]
"""Pairs of one question; the first one is relevant, or none is, and the others are not."""


def make_groups(
    examples: Sequence[Example], tokenizer: Tokenizer, *, negatives: int, max_tokens: int, seed: int
) -> list[Group]:
    """One group for every passage that helps, and one for a question that nothing helps.

    Args:
        examples: With negatives.
        tokenizer: The encoder's, with ``[CLS]`` and ``[SEP]``.
        negatives: In a group.
        max_tokens: Pairs that are longer are cut at the end.
        seed: Decides which negatives, and which titles are left out: one in five.
    """
    draw = random.Random(f"{seed} groups")  # noqa: S311 - no secret
    chosen = _drawn(examples, negatives, draw)
    flat = [(question, marked, draw.random() < 0.8) for question, group in chosen for marked in group]
    pairs = iter(_pairs(flat, tokenizer, max_tokens))
    return [tuple(next(pairs) for _ in group) for _, group in chosen]


def drawn(examples: Sequence[Example], *, negatives: int, seed: int) -> list[tuple[str, list[Marked]]]:
    """The questions and passages of ``make_groups``, as text: the one that helps first, where there is one."""
    return _drawn(examples, negatives, random.Random(f"{seed} groups"))  # noqa: S311 - no secret


def _drawn(examples: Sequence[Example], negatives: int, draw: random.Random) -> list[tuple[str, list[Marked]]]:
    chosen: list[tuple[str, list[Marked]]] = []
    for example in examples:
        firsts = [[positive] for positive in example.positives] or [[]]
        for first in firsts:
            wanted = negatives + 1 - len(first)
            others = draw.sample(example.negatives, min(wanted, len(example.negatives)))
            if first or others:
                chosen.append((example.question, [*first, *others]))
    return chosen


def _pairs(flat: Sequence[tuple[str, Marked, bool]], tokenizer: Tokenizer, max_tokens: int) -> list[Pair]:
    import numpy as np

    from ragzip.text import sentences

    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    asked = {q: e.ids for q, e in zip(*_encoded(sorted({q for q, _, _ in flat}), tokenizer), strict=True)}
    titled = {t: e.ids for t, e in zip(*_encoded(sorted({f"{m.title}:" for _, m, _ in flat}), tokenizer), strict=True)}
    texts = dict(zip(*_encoded(sorted({m.text for _, m, _ in flat}), tokenizer), strict=True))
    arrays: dict[str, tuple[Any, Any, Any]] = {}
    pairs = []
    for question, marked, with_title in flat:
        if marked.text not in arrays:
            encoding = texts[marked.text]
            # A token belongs where its last character stands: some tokenizers put the space before a word into it.
            places = np.fromiter((b - 1 for _, b in encoding.offsets), dtype=np.int32, count=len(encoding.offsets))
            firsts = np.array([a for a, _ in sentences(marked.text)] or [0])
            arrays[marked.text] = (
                np.array(encoding.ids, dtype=np.int32),
                places,
                (np.searchsorted(firsts, places, side="right") - 1).clip(0).astype(np.int16),
            )
        ids, places, numbers = arrays[marked.text]
        title = titled[f"{marked.title}:"][: min(_TITLE, max_tokens // 10)] if marked.title and with_title else []
        head = [cls, *asked[question][: min(_QUESTION, max_tokens * 3 // 10)], sep, *title]
        room = max_tokens - len(head) - 1
        body = ids[:room]
        labels = np.zeros(len(body), dtype=np.float32)
        for start, end in marked.support:
            labels[(places[:room] >= start) & (places[:room] < end)] = 1.0
        if not marked.known or (marked.support and not labels.any()):  # what helps may stand beyond the cut
            labels[:] = IGNORED
        pairs.append(
            Pair(
                np.concatenate([np.array(head, dtype=np.int32), body, np.array([sep], dtype=np.int32)]),
                len(head) - len(title),
                np.concatenate([np.full(len(head), IGNORED), labels, [IGNORED]]).astype(np.float32),
                marked.relevant,
                np.concatenate([np.full(len(head), -1), numbers[:room], [-1]]).astype(np.int16),
            )
        )
    return pairs


def _encoded(texts: list[str], tokenizer: Tokenizer) -> tuple[list[str], list[Any]]:
    return texts, tokenizer.encode_batch(texts, add_special_tokens=False)


def plan(lengths: Sequence[int], size: int, steps: int, seed: int) -> list[list[int]]:
    """Which groups each step reads: groups of like length together, all of them once before any comes again."""
    order: list[list[int]] = []
    epoch = 0
    while len(order) < steps and lengths:
        draw = random.Random(f"{seed} epoch {epoch}")  # noqa: S311 - no secret
        indices = list(range(len(lengths)))
        draw.shuffle(indices)
        for start in range(0, len(indices), size * 50):
            block = sorted(indices[start : start + size * 50], key=lambda i: lengths[i])
            batches = [block[i : i + size] for i in range(0, len(block), size)]
            draw.shuffle(batches)
            order += batches
        epoch += 1
    return order[:steps]


def stack(pairs: Sequence[Pair], device: str) -> dict[str, Any]:
    """Pairs as padded tensors ``[n_pairs, n_tokens]``: ``ids``, ``mask``, ``types`` and ``labels``."""
    import numpy as np
    import torch

    width = max(len(pair.ids) for pair in pairs)
    ids = np.zeros((len(pairs), width), dtype=np.int64)
    types = np.zeros((len(pairs), width), dtype=np.int64)
    labels = np.full((len(pairs), width), IGNORED, dtype=np.float32)
    mask = np.zeros((len(pairs), width), dtype=np.int64)
    for row, pair in enumerate(pairs):
        count = len(pair.ids)
        ids[row, :count], mask[row, :count], labels[row, :count] = pair.ids, 1, pair.labels
        types[row, pair.second : count] = 1
    arrays = {"ids": ids, "mask": mask, "types": types, "labels": labels}
    return {key: torch.from_numpy(value).to(device) for key, value in arrays.items()}


def by_length(pairs: Sequence[Pair], size: int) -> list[list[int]]:
    """Indices of pairs of like length together: little padding."""
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i].ids))
    return [order[start : start + size] for start in range(0, len(order), size)]
