"""The late-interaction model while it is trained: token vectors, scores, and what they should be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ragzip.models.late_recipe import HEAD, PUNCTUATION
from ragzip.models.token_windows import special_ids
from ragzip.models.tokenizer import text_tokenizer
from ragzip.training.encoders import longest, named, trainable
from ragzip.training.examples import Marked
from ragzip.training.late_data import Item

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from ragzip.training.late_interaction import LateInteractionTraining

_AT_ONCE = 32  # texts of a forward pass
_FAR = -1e4
_CHARACTERS = 5  # of a token, about
_SURE = 3.0  # logits of the judge lie within this on both sides: nobody is surer of a passage


Judge = Callable[[str, Sequence[Marked]], list[float]]
"""Question and passages -> logits of how much each helps."""


class Late:
    """The encoder and its projection."""

    def __init__(self, settings: LateInteractionTraining) -> None:
        import torch

        self.settings = settings
        self.backbone, self.device = trainable(
            settings.base, dtype=settings.dtype, device=settings.device, layers=settings.layers or 1
        )
        self.frozen = settings.layers is None
        if self.frozen:
            self.backbone.requires_grad_(False)
        self._read: dict[str, Tensor] = {}  # text -> hidden states, where these never change
        self.text = text_tokenizer(settings.base)
        self.before, self.after = special_ids(self.text.tokenizer)
        self.longest = longest(settings.base, settings.max_tokens)
        found = map(self.text.tokenizer.token_to_id, PUNCTUATION)
        self.skipped = torch.tensor([i for i in found if i is not None], dtype=torch.long, device=self.device)
        width = int(self.backbone.config.hidden_size)
        with torch.device("meta"):  # not drawn at random first: that would move the process's generator
            projection = torch.nn.Linear(width, settings.dimensions, bias=False)
        self.projection: Any = projection.to_empty(device=self.device).float()

    def begin(self, texts: Sequence[str]) -> None:
        """Sets the projection to the directions in which token vectors are longest: it keeps their products best."""
        import torch

        width = int(self.backbone.config.hidden_size)
        products = torch.zeros(width, width, dtype=torch.float64)
        with torch.inference_mode():
            for start in range(0, len(texts), _AT_ONCE):
                hidden, mask = self._hidden(texts[start : start + _AT_ONCE])
                rows = torch.nn.functional.normalize(hidden[mask], dim=-1)
                products += (rows.T @ rows).double().cpu()
        _, directions = torch.linalg.eigh(products)
        best = directions[:, -self.settings.dimensions :].flip(1).T.float()
        signs = torch.sign(best.gather(1, best.abs().argmax(1, keepdim=True)))  # else the machine's to choose
        with torch.no_grad():
            self.projection.weight.copy_((best * signs).to(self.device))

    def parameters(self) -> list[tuple[str, Any]]:
        """What is trained, as ``save_tuned`` names it."""
        return named(self.backbone, **{HEAD: self.projection})

    def vectors(self, texts: Sequence[str], *, documents: bool) -> tuple[Tensor, Tensor]:
        """Unit vectors ``[n, tokens, dimensions]`` of texts, and the mask ``[n, tokens]`` of those that count."""
        import torch

        hidden, mask = self._hidden(texts, documents=documents)
        return torch.nn.functional.normalize(self.projection(hidden), dim=-1), mask

    def prepare(self, texts: Sequence[str], on_progress: Callable[[int, int], None] | None = None) -> None:
        """Reads texts ahead where the encoder is not trained: each once, and the same whatever is read later."""
        new = [text for text in dict.fromkeys(texts) if self.frozen and text not in self._read]
        rows = dict(zip(new, self._ids(new), strict=True))
        order = sorted(new, key=lambda text: len(rows[text]))
        for start in range(0, len(order), _AT_ONCE):
            some = order[start : start + _AT_ONCE]
            hidden = self._forward([rows[text] for text in some]).half().cpu()
            self._read.update((text, row[: len(rows[text])].clone()) for text, row in zip(some, hidden, strict=True))
            if on_progress:
                on_progress(start + len(some), len(order))

    def pooled(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors ``[n, d]``, each the mean of a text's hidden states: how the encoder itself compares texts."""
        import numpy as np
        import torch

        found = []
        with torch.inference_mode():
            for start in range(0, len(texts), _AT_ONCE):
                hidden, mask = self._hidden(texts[start : start + _AT_ONCE], documents=False)
                sums = (hidden * mask[:, :, None]).sum(1)
                found.append(torch.nn.functional.normalize(sums, dim=-1).cpu().numpy())
        vectors: npt.NDArray[np.float32] = np.concatenate(found)
        return vectors

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        room = self.longest - len(self.before) - len(self.after)
        return [[*self.before, *ids[:room], *self.after] for ids in self.text.encode(texts)]

    def _hidden(self, texts: Sequence[str], *, documents: bool = True) -> tuple[Tensor, Tensor]:
        """The encoder's hidden states ``[n, tokens, d]`` in float32, and the mask of those that count."""
        import torch

        encoded = self._ids(texts)
        most = max(map(len, encoded))
        ids, there = self._padded(encoded)
        counts = there.bool() & ~torch.isin(ids, self.skipped) if documents else there.bool()
        if self.frozen:
            self.prepare(texts)
            known = [self._read[text] for text in texts]
            states = torch.nn.utils.rnn.pad_sequence(known, batch_first=True).to(self.device).float()
            return states, counts
        order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))  # texts of like length share a pass
        parts = []
        for start in range(0, len(order), _AT_ONCE):
            hidden = self._forward([encoded[i] for i in order[start : start + _AT_ONCE]])
            parts.append(torch.nn.functional.pad(hidden, (0, 0, 0, most - hidden.shape[1])))
        back = torch.empty(len(order), dtype=torch.long, device=self.device)
        back[torch.tensor(order, device=self.device)] = torch.arange(len(order), device=self.device)
        return torch.cat(parts)[back], counts

    def _forward(self, rows: Sequence[Sequence[int]]) -> Tensor:
        import torch

        ids, there = self._padded(rows)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            hidden: Tensor = self.backbone(input_ids=ids, attention_mask=there).last_hidden_state.float()
        return hidden

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Token ids ``[n, tokens]``, and 1 where there are some."""
        import torch

        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=self.device)
        there = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self.device)
        return ids, there

    def scores(self, questions: Sequence[str], texts: Sequence[str]) -> Tensor:
        """``[q, n]``: the mean, over a question's tokens, of the largest cosine to a token of the text."""
        asked, asking = self.vectors(questions, documents=False)
        found, there = self.vectors(texts, documents=True)
        return maxsim(asked, asking, found, there)

    def loss(self, batch: Sequence[Item], judge: Judge | None) -> Tensor:
        """How far the scores of a batch are from what they should be.

        The cross-entropy of the passage that helps among all passages of the batch, without those that help, too; and
        with a judge the divergence from what it says of a question's own passages, weighted by the settings. Of these
        it also says which help, and are no negatives.
        """
        import torch

        texts = list(dict.fromkeys(text for item in batch for text in item.texts))
        place = {text: number for number, text in enumerate(texts)}
        scores = self.scores([item.question for item in batch], texts) * self.settings.scale
        own = torch.full((len(batch), max(len(item.passages) for item in batch)), -1, dtype=torch.long)
        hidden = torch.zeros(scores.shape, dtype=torch.bool)
        for row, item in enumerate(batch):
            own[row, : len(item.texts)] = torch.tensor([place[text] for text in item.texts])
            hidden[row, [place[text] for text in item.helping if text in place]] = True
            hidden[row, own[row, 0]] = False
        own, hidden = own.to(self.device), hidden.to(self.device)
        total = torch.zeros((), device=self.device)
        if judge is not None:
            absent = own < 0
            judged = torch.full(own.shape, _FAR, device=self.device)
            for row, item in enumerate(batch):
                judged[row, : len(item.passages)] = torch.tensor(judge(item.question, item.passages))
            for row, column in ((judged > 0) & ~absent).nonzero().tolist():
                hidden[row, own[row, column]] |= column > 0
            mine = scores.gather(1, own.clamp_min(0)).masked_fill(absent, _FAR)
            total = self.settings.judge_weight * _divergence(mine, judged)
        return total + torch.nn.functional.cross_entropy(scores.masked_fill(hidden, _FAR), own[:, 0])

    def rank(self, questions: Sequence[str], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """``[q, n]``: scores in evaluation, a few texts at a time."""
        import numpy as np
        import torch

        found = np.empty((len(questions), len(texts)), np.float32)
        with torch.inference_mode():
            asked = self.vectors(questions, documents=False)
            order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
            for start in range(0, len(order), _AT_ONCE):
                rows = order[start : start + _AT_ONCE]
                vectors = self.vectors([texts[i] for i in rows], documents=True)
                found[:, rows] = maxsim(*asked, *vectors).cpu().numpy()
        return found


def maxsim(asked: Tensor, asking: Tensor, found: Tensor, there: Tensor) -> Tensor:
    """Scores of questions for texts.

    Args:
        asked: ``[q, m, d]``: vectors of the questions' tokens.
        asking: ``[q, m]``: which of them count.
        found: ``[n, k, d]``: vectors of the texts' tokens.
        there: ``[n, k]``: which of them count.

    Returns:
        ``[q, n]``: the mean over a question's tokens of the largest product with a token of the text.
    """
    products = asked.flatten(0, 1) @ found.flatten(0, 1).T
    products = products.view(*asking.shape, *there.shape).masked_fill(~there, _FAR)
    best = products.max(-1).values * asking[:, :, None]
    return best.sum(1) / asking.sum(1)[:, None]


def judged_by(name: str, max_tokens: int, *, dtype: str, device: str) -> Judge:
    """What a pruner says of passages, as logits.

    Args:
        name: Of the pruner.
        max_tokens: About so much of a passage is read: no more than the model in training reads, either.
        dtype: Its number format.
        device: Where it runs.
    """
    from ragzip.models import load_pruner

    pruner = load_pruner(name, dtype=dtype, device=device)
    known: dict[tuple[str, tuple[Marked, ...]], list[float]] = {}  # by groups: a score depends a little on its batch

    def judge(question: str, passages: Sequence[Marked]) -> list[float]:
        key = question, tuple(passages)
        if key not in known:
            texts = [marked.text[: max_tokens * _CHARACTERS] for marked in passages]
            found = pruner.judge(question, texts, [marked.title for marked in passages])
            known[key] = [_logit(one.relevance) for one in found]
        return known[key]

    return judge


def _logit(share: float) -> float:
    low = 1 / (1 + math.exp(_SURE))
    share = min(max(share, low), 1 - low)
    return math.log(share / (1 - share))


def _divergence(scores: Tensor, wanted: Tensor) -> Tensor:
    """Of the distribution over each row that scores give from the one that is wanted."""
    import torch

    functional = torch.nn.functional
    return functional.kl_div(scores.log_softmax(-1), wanted.log_softmax(-1), reduction="batchmean", log_target=True)
