"""Tokens of a segment that say most: those of words that are rare and were often asked for.

A frozen generator reads word embeddings; the mean of several is none, and it makes little of it. The embedding of one
word it does read. So of the tokens that a few rows stand for, those of some words are picked, in their order: what a
text compressor does that leaves out common words, here as where training begins.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ragzip.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.models.soft_folder import SoftFolder
    from ragzip.models.tokenizer import TextTokenizer

_OWN = 0.01  # what a token's own score counts beside its word's: it orders the tokens of one word
_RARITY = 0.3  # what a nat of rarity counts beside one of having been asked for
_CONTENT = 6.5  # nats: rarer words of a question are what it asks about
_SHRINK = 20  # occurrences that a token's kind counts as
_RARE = 100  # occurrences: what is known of rarer tokens stands for the unknown ones of their kind
_BATCH = 512
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, eq=False, slots=True)
class WordTable:
    """What is known of each token of a vocabulary.

    Attributes:
        values: ``[3, vocabulary]`` on the processor: how much it says, in nats, more being better; 1 where it begins
            with something else than a letter or a digit, such as a space, else 0; and the same of its end.
    """

    values: Tensor


def word_table(
    text: TextTokenizer,
    vocabulary: int,
    read: Callable[[Sequence[str]], Iterable[Sequence[Sequence[int]]]],
    texts: Sequence[str],
    asked: Sequence[tuple[str, str, str]] = (),
) -> WordTable:
    """The table of a vocabulary.

    A token scores 0.3 times its information, -log of its share of the texts. Where there are questions, the logarithm
    of the share of its occurrences, in passages that help, in words that the answer or the question has, too, is added;
    common words of questions do not count.

    Args:
        text: Encodes, and decodes, tokens of the vocabulary.
        vocabulary: Rows of the embedding.
        read: The segments of each text as token ids, as they are compressed.
        texts: A corpus.
        asked: Passages with the questions they help with and the answers to these.
    """
    import torch

    counts = torch.zeros(vocabulary, dtype=torch.long)
    for start in range(0, len(texts), _BATCH):
        ids = [token for segments in read(texts[start : start + _BATCH]) for segment in segments for token in segment]
        counts += torch.bincount(torch.tensor(ids, dtype=torch.long), minlength=vocabulary)
    information = -torch.log((counts + 0.5) / max(int(counts.sum()), 1))
    tokens = spelt(text, range(vocabulary))
    ends = torch.tensor([[not _letter(t[:1]) for t in tokens], [not _letter(t[-1:]) for t in tokens]]).float()
    scores = _RARITY * information
    seen, wanted = _wanted(text, information, ends, read, asked)
    if int(seen.sum()):
        kinds = torch.tensor([(t.strip()[:1].isdigit()) + 2 * (t.strip()[:1].isupper()) for t in tokens])
        for kind in range(3):
            own = kinds == kind
            rare = own & (seen < _RARE)
            prior = (wanted[rare].sum() + 1) / (seen[rare].sum() + 2)
            scores[own] += torch.log((wanted[own] + _SHRINK * prior) / (seen[own] + _SHRINK))
    # as it is stored, so that what is trained picks what is used
    return WordTable(torch.cat([scores[None], ends]).half().float())


def read_words(found: SoftFolder, vocabulary: int) -> WordTable:
    """The table of a folder.

    Args:
        found: The folder.
        vocabulary: Least tokens that it must know.

    Raises:
        ModelError: It is missing, too small, or holds what cannot be.
    """
    own = found.tensors.get("words")
    values = found.take("words", 3, max(vocabulary, own.shape[-1] if own is not None and own.dim() else 0))
    if not bool(((values[1:] == 0) | (values[1:] == 1)).all()):
        raise ModelError(f"words in {found.folder} says of a token neither 0 nor 1", hint="Train it again.")
    return WordTable(values)


def _wanted(
    text: TextTokenizer,
    information: Tensor,
    ends: Tensor,
    read: Callable[[Sequence[str]], Iterable[Sequence[Sequence[int]]]],
    asked: Sequence[tuple[str, str, str]],
) -> tuple[Tensor, Tensor]:
    """``[vocabulary]`` twice: occurrences of each token, and those in words that a question or its answer has."""
    import torch

    size = len(information)
    seen, wanted = torch.zeros(2, size)
    first, last = (row.tolist() for row in ends)
    known: dict[str, bool] = {}
    (anchor,) = text.encode(["a"])

    def content(word: str) -> bool:
        if word not in known:
            (ids,) = text.encode([f"a {word}"])
            own = ids[len(anchor) :] if ids[: len(anchor)] == anchor else ids
            known[word] = max((float(information[token]) for token in own), default=0.0) > _CONTENT
        return known[word]

    for start in range(0, len(asked), _BATCH):
        batch = asked[start : start + _BATCH]
        every: list[int] = []
        found: list[int] = []
        for segments, (_, question, answer) in zip(read([passage for passage, _, _ in batch]), batch, strict=True):
            sought = {word for word in _WORD.findall(question.lower()) if content(word)}
            sought.update(_WORD.findall(answer.lower()))
            words: list[list[int]] = []
            for segment in segments:
                for place, token in enumerate(segment):
                    if place == 0 or first[token] or last[segment[place - 1]]:
                        words.append([])
                    words[-1].append(token)
            spelt = text.tokenizer.decode_batch(words)
            every += [token for word in words for token in word]
            found += [t for ids, word in zip(words, spelt, strict=True) if word.strip().lower() in sought for t in ids]
        for into, tokens in ((seen, every), (wanted, found)):
            into += torch.bincount(torch.tensor(tokens, dtype=torch.long), minlength=size)
    return seen, wanted


def spelt(text: TextTokenizer, ids: Iterable[int]) -> list[str]:
    """Each token as it is spelt behind a letter, where one that goes on with a word shows no space in between."""
    (anchor,) = text.encode(["a"])
    read = partial(text.tokenizer.decode_batch, skip_special_tokens=False)
    before = len(read([anchor])[0])
    return [word[before:] for word in read([[*anchor, token] for token in ids])]


def _letter(character: str) -> bool:
    """Of a word: a letter, a digit, or a part of a character, as tokens of bytes have it."""
    return character.isalnum() or character == "\ufffd"


def pick(table: WordTable, ids: Tensor, own: Tensor, counts: Tensor) -> Tensor:
    """Which tokens stand for their segments.

    Args:
        table: See there.
        ids: ``[segments, width]``, with padding behind.
        own: ``[segments, width]``: what is no padding.
        counts: ``[segments]``: how many of each, at least one and no more than it has.

    Returns:
        ``[segments, width]``: whether a token is picked.
    """
    import torch

    own_scores, begins, ended = (row[ids] for row in table.values)
    begins[:, 1:] = torch.maximum(begins[:, 1:], ended[:, :-1])
    words = torch.cumsum(begins, 1).long()
    most = torch.full((len(ids), ids.shape[1] + 1), -math.inf)
    most = most.scatter_reduce(1, words, own_scores.masked_fill(~own, -math.inf), "amax")
    scores = (most.gather(1, words) + _OWN * own_scores).masked_fill(~own, -math.inf)
    order = scores.argsort(dim=1, descending=True, stable=True)
    ranks = torch.empty_like(order).scatter_(1, order, torch.arange(ids.shape[1]).expand_as(order).contiguous())
    return ranks < counts[:, None]


def best(table: WordTable, segments: Sequence[Sequence[int]]) -> Tensor:
    """Of each segment the token that says most, ``[segments]``; 0 for one without tokens."""
    import torch

    found = torch.zeros(len(segments), dtype=torch.long)
    width = max(map(len, segments), default=0)
    if not width:
        return found
    lengths = torch.tensor([len(segment) for segment in segments])
    own = torch.arange(width) < lengths[:, None]
    ids = torch.zeros(len(segments), width, dtype=torch.long)
    ids[own] = torch.tensor([token for segment in segments for token in segment])
    some = lengths > 0
    found[some] = ids[pick(table, ids, own, some.long())]
    return found


def group(chosen: Tensor, counts: Tensor) -> Tensor:
    """Which pick each token belongs to, ``[segments, width]``: the next one, and behind the last one the last one."""
    import torch

    before = torch.cumsum(chosen.long(), 1) - chosen.long()
    return torch.minimum(before, counts[:, None] - 1)
