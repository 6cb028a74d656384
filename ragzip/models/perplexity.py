"""How surprised a causal language model is by each token of a text: its losses, in nats, with character offsets.

Texts are read behind a prefix whose keys and values are computed once, in batches of like length; a text that is longer
than the window is read in windows that overlap by a quarter. Logits are turned into losses a slab of positions at a
time: with a vocabulary of 49,152 words, those of 3,000 positions would take 600 MB in fp32.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ragzip import models
from ragzip.errors import ModelError
from ragzip.models.causal_lm import keeps_keys
from ragzip.models.tokenizer import well_formed

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from tokenizers import Encoding
    from torch import Tensor

    from ragzip.models.causal_lm import CausalLM
    from ragzip.text import Stretch

    Spans = Sequence[Stretch] | npt.NDArray[np.int64]
    Choose = Callable[[int, npt.NDArray[np.float32]], npt.NDArray[np.bool_]]

_WINDOW = 2048  # tokens read at once: attention takes a third of the time there, and most of it in longer windows
_SLAB = {"cpu": 1 << 19}  # logits widened to fp32 at once: what a processor's cache holds is 4 times as fast as more
_POSITIONS = {"cpu": 1024}  # that share a forward pass; a GPU takes more
_MANY, _LARGE = 8192, 1 << 24
_START = "<|endoftext|>"


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of one text.

    Attributes:
        ids: ``[n]``, int64.
        starts: ``[n]``, int64: the first character of each, never falling. A token may begin with white space.
        ends: ``[n]``, int64: one past the last, never falling.
    """

    ids: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def means(self, values: npt.NDArray[Any], spans: Spans) -> npt.NDArray[np.float64]:
        """The mean value of the tokens that touch each span, 0 where none does: ``[n_spans]``.

        Args:
            values: ``[n]``, one per token.
            spans: ``(start, end)`` in characters, in any order; a list or ``[n_spans, 2]``.
        """
        import numpy as np

        first, last = self._edges(spans)
        sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
        counts = last - first
        return np.where(counts > 0, (sums[last] - sums[first]) / np.maximum(counts, 1), 0.0)

    def counts(self, spans: Spans) -> npt.NDArray[np.int64]:
        """How many tokens touch each span: ``[n_spans]``."""
        first, last = self._edges(spans)
        return last - first

    def touching(self, spans: Spans) -> npt.NDArray[np.bool_]:
        """Which tokens touch one of the spans: ``[n]``."""
        import numpy as np

        first, last = self._edges(spans)
        change = np.zeros(len(self) + 1, dtype=np.int64)
        np.add.at(change, first, 1)
        np.add.at(change, last, -1)
        return np.cumsum(change[:-1]) > 0

    def take(self, chosen: npt.NDArray[Any] | slice) -> Tokens:
        """Some of the tokens: by a mask, indices or a slice."""
        return Tokens(self.ids[chosen], self.starts[chosen], self.ends[chosen])

    def _edges(self, spans: Spans) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The first token of each span, and one past its last."""
        import numpy as np

        places = np.asarray(spans, dtype=np.int64).reshape(-1, 2)
        first = np.searchsorted(self.ends, places[:, 0], side="right")
        last = np.searchsorted(self.starts, places[:, 1], side="left")
        return first, np.maximum(first, last)


@dataclass(frozen=True, eq=False)
class Reading:
    """What reading one text gave.

    Attributes:
        losses: ``[n]``, float32, at least 0: -ln p of each token after the prefix and all tokens before it.
        after: The mean loss of the suffix's tokens behind the text; 0 without a suffix. For a text of several
            windows the least: that of the window that leads to it best.
    """

    losses: npt.NDArray[np.float32]
    after: float


@dataclass(frozen=True, eq=False)
class Perplexity:
    """A language model that reads texts and says what surprised it.

    Attributes:
        lm: The model; its lock is held while it reads.
        window: Most tokens read at once, prefix and suffix included; at most the model's own window.
        positions: Tokens that share a forward pass.
    """

    lm: CausalLM
    window: int = _WINDOW
    positions: int = _MANY

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text on its own; no control token comes out, whatever the text says."""
        import numpy as np

        found = []
        for text, encoding in zip(texts, self._encodings(texts), strict=True):
            ids, offsets = encoding.ids, encoding.offsets
            if not self.lm.text.control.isdisjoint(ids):
                ids, offsets = self._without_control(text)
            places = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
            starts, ends = (
                np.maximum.accumulate(places[:, side]) if len(places) else places[:, side] for side in (0, 1)
            )
            found.append(Tokens(np.asarray(ids, dtype=np.int64), starts, ends))
        return found

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text on its own."""
        return [len(tokens) for tokens in self.encode(texts)]

    @property
    def longest(self) -> int:
        """Most tokens of a prefix or suffix that are read; of a longer one its end is."""
        return max(self.window // 4 - 1, 1)

    def read(self, texts: Sequence[Tokens], *, prefix: str = "", suffix: str = "") -> list[Reading]:
        """Reads each text by itself, behind the prefix and before the suffix.

        A text that does not fit the window is read in several, each behind the prefix and with the last quarter of
        the one before it, so that every token has what stands before it as context.

        Args:
            texts: As ``encode`` gave them.
            prefix: What stands before each; of one that is longer than a quarter of the window its end is read.
            suffix: What is measured after each; the same limit.

        Returns:
            One reading a text, in order. They depend on nothing but the arguments; in bf16 on all texts together,
            in the third decimal.
        """
        import numpy as np

        head, tail = [self._start, *self._ids(prefix)], self._ids(suffix)
        room = max(self.window - len(head) - len(tail), 1)
        losses = [np.zeros(len(text), dtype=np.float32) for text in texts]
        after = [np.inf if tail else 0.0] * len(texts)
        rows: list[tuple[int, int, int, list[int]]] = []
        for number, text in enumerate(texts):
            for begin, new, end in _windows(len(text), room):
                rows.append((number, begin, new, [*text.ids[begin:end].tolist(), *tail]))
        for (number, begin, new, ids), row in zip(rows, self._rows(head, [row[3] for row in rows]), strict=True):
            end = begin + len(ids) - len(tail)
            losses[number][new:end] = row[new - begin : end - begin]
            if tail:
                after[number] = min(after[number], float(row[end - begin :].mean()))
        return [Reading(row, found) for row, found in zip(losses, after, strict=True)]

    def iterate(self, text: Tokens, choose: Choose, *, size: int = 200) -> npt.NDArray[np.float32]:
        """Reads a text a few tokens at a time, behind what was chosen of all before.

        Args:
            text: As ``encode`` gave it, or some of its tokens.
            choose: Told the first token's place and the losses of ``size`` tokens or fewer; says which of these
                the later ones are read behind: ``[n]``, boolean.
            size: Tokens of a step; at most a quarter of the window.

        Returns:
            ``[n]`` losses. Where the chosen tokens no longer fit the window, the older ones are forgotten, down to
            half a window.
        """
        import numpy as np
        import torch

        size = max(min(size, self.window // 4), 1)
        context, cached, cache = [self._start], 0, self._cache()
        found = np.zeros(len(text), dtype=np.float32)
        with self.lm.lock, torch.inference_mode():
            for first in range(0, len(text), size):
                ids = text.ids[first : first + size]
                if len(context) + len(ids) > self.window:
                    context = [self._start, *context[1 - self.window // 2 :]]
                    cached, cache = 0, self._cache()
                row = torch.tensor([[*context[cached:], *ids.tolist()]], device=self.lm.device)
                logits = self._logits(row[:, :-1], cache, keep=len(ids))
                # The last token of the context stays out of the cache: what follows it is predicted from it.
                cache.crop(-len(ids))
                cached = len(context) - 1
                losses = _losses(logits, row[:, -len(ids) :])[0]
                found[first : first + size] = losses
                context += ids[choose(first, losses)].tolist()
        return found

    @property
    def _start(self) -> int:
        """The token that the first one is read behind: what the tokenizer puts there, else the end of a text."""
        lm = self.lm
        first = lm.text.tokenizer.encode("a", add_special_tokens=True).ids[:1]
        begin = lm.tokenizer.bos_token_id
        if begin is not None and first == [begin]:
            return int(begin)
        end = lm.text.tokenizer.token_to_id(_START)
        known = (end, begin, lm.tokenizer.eos_token_id, lm.tokenizer.pad_token_id)
        return int(next((token for token in known if token is not None), 0))

    def _ids(self, text: str) -> list[int]:
        return self.lm.text.encode([text])[0][-self.longest :] if text else []

    def _encodings(self, texts: Sequence[str]) -> list[Encoding]:
        tokenizer = self.lm.text.tokenizer  # not encode_batch_fast: it gives no offsets
        try:
            return tokenizer.encode_batch(list(texts), add_special_tokens=False)
        except TypeError:
            return tokenizer.encode_batch([well_formed(text) for text in texts], add_special_tokens=False)

    def _without_control(self, text: str) -> tuple[list[int], list[Stretch]]:
        """Ids and offsets of a text that names a control token: encoded in parts that do not."""
        ids: list[int] = []
        offsets: list[Stretch] = []
        before = 0
        parts = self.lm.text.split(text)
        for part, encoding in zip(parts, self._encodings(parts), strict=True):
            ids += encoding.ids
            offsets += [(before + start, before + end) for start, end in encoding.offsets]
            before += len(part)
        return ids, offsets

    def _rows(self, head: list[int], rows: Sequence[list[int]]) -> list[npt.NDArray[np.float32]]:
        """Losses of each row's tokens behind the head, in batches of like length; empty rows need no pass."""
        import numpy as np
        import torch

        found = [np.zeros(0, dtype=np.float32)] * len(rows)
        order = sorted((i for i, row in enumerate(rows) if row), key=lambda i: (-len(rows[i]), i))
        if not order:
            return found
        with self.lm.lock, torch.inference_mode():
            shared = self._cache()
            if len(head) > 1:
                self._logits(torch.tensor([head[:-1]], device=self.lm.device), shared, keep=1)
            while order:
                width = len(rows[order[0]]) + 1
                # the keys of the head are not computed again for a row, but held for each
                most = min(self.positions // width, 2 * self.positions // (width + len(head)))
                batch = order[: max(most, 1)]
                order = order[len(batch) :]
                padded = np.full((len(batch), width), head[-1], dtype=np.int64)
                for place, i in enumerate(batch):  # padding follows the text, where causal attention never looks
                    padded[place, 1 : len(rows[i]) + 1] = rows[i]
                losses = self._batch(torch.from_numpy(padded).to(self.lm.device), shared)
                for place, i in enumerate(batch):
                    found[i] = losses[place, : len(rows[i])]
        return found

    def _batch(self, ids: Tensor, shared: Any) -> npt.NDArray[np.float32]:
        """``[b, n - 1]`` losses of ``[b, n]`` ids; what is long is read in parts, behind the keys of those before."""
        import numpy as np

        inputs, targets = ids[:, :-1], ids[:, 1:]
        part = max(self.positions // len(ids), 1)
        cache = None
        if shared.get_seq_length() or inputs.shape[1] > part:
            cache = copy.deepcopy(shared)
            cache.batch_repeat_interleave(len(ids))
        parts = [
            _losses(self._logits(inputs[:, at : at + part], cache), targets[:, at : at + part])
            for at in range(0, inputs.shape[1], part)
        ]
        return np.concatenate(parts, axis=1)

    def _cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache()

    def _logits(self, ids: Tensor, cache: Any, keep: int = 0) -> Tensor:
        """``[b, n, vocabulary]`` behind what the cache holds, which grows; ``keep``: the last positions, 0 all."""
        import torch

        model = self.lm.model
        options: dict[str, Any] = {"use_cache": cache is not None}
        if cache is not None:
            options["past_key_values"] = cache
        if keep and "logits_to_keep" in inspect.signature(model.forward).parameters:
            # As indices they give rows with strides of their own; a slice of bf16 rows multiplies 3 times as slowly.
            options["logits_to_keep"] = torch.arange(ids.shape[1] - keep, ids.shape[1], device=ids.device)
        logits: Tensor = model(input_ids=ids, **options).logits
        return logits[:, -keep:] if keep else logits


def load_perplexity(name: str, *, dtype: str = "auto", device: str = "auto") -> Perplexity:
    """A language model as a reader, loaded once for each process, dtype and device.

    Args:
        name: A built-in model, a folder in the layout of ``transformers``, or a hub id.
        dtype: "auto", "fp32", "bf16" or "fp16".
        device: "auto", "cpu", "cuda", "cuda:N", "mps" or "xpu".

    Raises:
        ModelError: It is not here, damaged, or no causal language model.
        ConfigError: A dtype or device that does not exist.
    """
    lm = models.load_causal_lm(name, dtype=dtype, device=device)
    if not keeps_keys(lm.model):
        raise ModelError(
            f"{name!r} keeps a state of all it read, which cannot be shared between texts", hint="Use another model."
        )
    return Perplexity(lm, min(lm.window, _WINDOW), _POSITIONS.get(lm.device, _MANY))


def _windows(length: int, room: int) -> list[tuple[int, int, int]]:
    """First token, first new token and end of each window; one, maybe empty, for a text that fits.

    >>> _windows(10, 4)
    [(0, 0, 4), (3, 4, 7), (6, 7, 10)]
    """
    found = [(0, 0, min(length, room))]
    while found[-1][2] < length:
        new = found[-1][2]
        begin = new - room // 4
        found.append((begin, new, min(begin + room, length)))
    return found


def _losses(logits: Tensor, targets: Tensor) -> npt.NDArray[np.float32]:
    """-ln p of the targets ``[b, n]`` under logits ``[b, n, vocabulary]``, in fp32, a slab of positions at a time."""
    import torch

    flat, wanted = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1, 1)
    step = max(_SLAB.get(logits.device.type, _LARGE) // flat.shape[1], 1)
    slabs = []
    for at in range(0, len(flat), step):
        slab = flat[at : at + step].float()
        slabs.append(torch.logsumexp(slab, dim=-1) - slab.gather(1, wanted[at : at + step]).squeeze(1))
    found: npt.NDArray[np.float32] = torch.cat(slabs).clamp_(min=0.0).reshape(targets.shape).cpu().numpy()
    return found
