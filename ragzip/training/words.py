"""The words that rows begin as, counted in what a soft compressor is trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from ragzip.models.picking import WordTable, word_table

if TYPE_CHECKING:
    from torch import Tensor

    from ragzip.models import CausalLM
    from ragzip.training.soft_data import SoftData

GENTLE = 0.3
"""Of an embedding's size: how what is learned from counts where rows begin as embeddings. One step of Adam changes a
whole row of a linear layer, which has to be small beside an embedding."""

_BATCH = 8192
_COUNTED = 20_000  # texts, and questions, in which words are counted


def sizes(lm: CausalLM) -> tuple[Tensor, Tensor]:
    """Mean, ``[d]``, and deviation of a generator's embeddings as it reads them, which some scale first."""
    import torch

    words = lm.model.get_input_embeddings()
    places = torch.split(torch.arange(len(words.weight), device=words.weight.device), _BATCH)
    with torch.no_grad():
        read = torch.cat([words(some).float().cpu() for some in places])
    return read.mean(0), read.std()


def counted(
    lm: CausalLM, read: Callable[[Sequence[str]], Iterable[Sequence[Sequence[int]]]], data: SoftData | None
) -> WordTable:
    """The table of a generator's tokens.

    Args:
        lm: The generator.
        read: The segments of each text as token ids, as they are compressed.
        data: What will be trained on; the first texts and questions of it are counted.
    """
    texts = [telling.text for telling in data.tellings[:_COUNTED]] if data else []
    askings = data.askings[:_COUNTED] if data else ()
    asked = [(text, a.question, a.answer) for a in askings for _, text in a.positives]
    return word_table(lm.text, len(lm.model.get_input_embeddings().weight), read, texts, asked)
