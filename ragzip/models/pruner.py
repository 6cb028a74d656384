"""Question and passage -> how much each token of the passage helps, and the passage as a whole, in one pass.

Long passages are read in windows cut at the ends of sentences, each with its surroundings and its title; long
questions in parts, of which the one that finds most counts. Nothing is left out.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragzip.errors import ModelError
from ragzip.models.locate import canonical, resolve
from ragzip.models.published_pruners import open_published
from ragzip.models.runtime import check_options, choose_device, choose_dtype, kept, state
from ragzip.models.token_windows import batches, windows
from ragzip.models.tokenizer import TextTokenizer, well_formed
from ragzip.models.tuned import deciding_state, open_tuned, read_tuned_config

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

ARCHITECTURE = "provence"
_QUESTION = 96  # tokens of a question read at once
_TITLE = 32
_LEAST = 16  # tokens of a window: what is left of fewer, once question and special tokens are in, reads nothing
_AROUND = 32  # tokens of context on each side of a window that is not the whole passage
_HINT = "Give weights made by `ragzip train provence`, or a published Provence or OpenProvence checkpoint."


@dataclass(frozen=True, eq=False, slots=True)
class Judged:
    """What the model says of one passage.

    Attributes:
        offsets: ``[n_tokens, 2]``: first character and one past the last, of each token, in order.
        keep: ``[n_tokens]``, float32, 0 to 1: how much each token helps to answer.
        relevance: 0 to 1: whether the passage helps.
    """

    offsets: npt.NDArray[np.int64]
    keep: npt.NDArray[np.float32]
    relevance: float


@dataclass(frozen=True)
class Layout:
    """How a checkpoint wants a question and a passage.

    Attributes:
        first: Special tokens before the question.
        middle: Between question and passage.
        last: After the passage.
        typed: Whether question and passage are told apart by token types.
        padding: Id of the padding token.
    """

    first: tuple[int, ...]
    middle: tuple[int, ...]
    last: tuple[int, ...]
    typed: bool
    padding: int


Forward = Callable[["torch.Tensor", "torch.Tensor | None", "torch.Tensor | None"], "tuple[torch.Tensor, torch.Tensor]"]
"""Ids, mask and types ``[b, n]`` -> keep probabilities ``[b, n]`` and relevance ``[b]``, both float32."""

Seen = MutableMapping[tuple[int, bytes], tuple[Any, float]]
"""Inputs that were read, as where the passage begins in them and their ids: keep probabilities and relevance."""


@dataclass(frozen=True, eq=False)
class Pruner:
    """A loaded cross-encoder that judges tokens and passages.

    Attributes:
        name: As it was asked for.
        max_tokens: Longest input, special tokens included.
        device: Where it runs.
        dtype: The number format it computes in; heads and probabilities are float32.
        folder: Its files.
        hops: How often it was trained to read passages, the question together with what was found the time before.
    """

    name: str
    max_tokens: int
    device: str
    dtype: str
    folder: Path
    hops: int
    _forward: Forward = field(repr=False)
    _text: TextTokenizer = field(repr=False)
    _layout: Layout = field(repr=False)

    def judge(
        self,
        question: str,
        texts: Sequence[str],
        titles: Sequence[str],
        *,
        found: str = "",
        seen: Seen | None = None,
    ) -> list[Judged]:
        """Judges passages for a question.

        In bf16 a score depends on its batch by about 1e-3, so give the passages of one context in one call, and
        those of another context in another.

        Args:
            question: Any string, the empty one included.
            texts: Any strings.
            titles: One for each text; read with it, and not judged. The first 32 tokens count.
            found: What is known already; read behind the question as far as there is room.
            seen: What was read before, and is not read again; filled with what is read now.
        """
        import numpy as np

        out = [Judged(offsets, np.zeros(len(offsets), dtype=np.float32), 0.0) for _, offsets in self._encode(texts)]
        rows = [row for part in self._parts(question, found) for row in self._rows(part, texts, titles)]
        relevance = [0.0] * len(texts)
        known = {} if seen is None else seen
        new = list({row.key: row for row in rows if row.key not in known}.values())
        for batch in batches([len(row.ids) for row in new], self.device):
            keep, relevant = self._run([new[i] for i in batch])
            for i, values, value in zip(batch, keep, relevant, strict=True):
                known[new[i].key] = values[: len(new[i].ids)], float(value)
        for row in rows:
            values, value = known[row.key]
            into = out[row.passage].keep[row.start : row.end]
            np.maximum(into, values[row.skip : row.skip + len(into)], out=into)
            relevance[row.passage] = float(np.maximum(relevance[row.passage], value))  # max() loses what is no number
        return [Judged(j.offsets, j.keep, r) for j, r in zip(out, relevance, strict=True)]

    def room(self, question: str) -> int:
        """Tokens of ``found`` that are read behind a question."""
        ((ids, _),) = self._encode([question])
        return max(self._most - len(ids), 0)

    @property
    def _most(self) -> int:
        """Tokens of a question that are read at once."""
        return max(min(_QUESTION, self.max_tokens // 3), 1)

    def _encode(self, texts: Sequence[str]) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Ids and offsets of each text; text that names a control token is text."""
        import numpy as np

        return [
            (np.asarray(ids, dtype=np.int64), np.asarray(places, dtype=np.int64).reshape(-1, 2))
            for ids, places in self._text.encode_places(texts)
        ]

    def _parts(self, question: str, found: str) -> list[list[int]]:
        """The question's ids, in parts that leave most of the window to the passage."""
        import numpy as np

        (ids, _), (more, _) = self._encode([question, found])
        most = self._most
        if len(ids) < most:
            ids = np.concatenate([ids, more[: most - len(ids)]])
        count = max(-(-len(ids) // most), 1)
        size = max(-(-len(ids) // count), 1)
        return [ids[start : start + size].tolist() for start in range(0, max(len(ids), 1), size)]

    def _rows(self, question: list[int], texts: Sequence[str], titles: Sequence[str]) -> list[_Row]:
        import numpy as np

        layout, rows = self._layout, []
        led = [ids[:_TITLE] for ids, _ in self._encode([f"{title}:" if title else "" for title in titles])]
        head = [*layout.first, *question, *layout.middle]
        for number, ((ids, offsets), text, title) in enumerate(
            zip(self._encode(texts), map(well_formed, texts), led, strict=True)
        ):
            room = self.max_tokens - len(head) - len(layout.last)
            if len(title) > room // 3:
                title = title[: room // 3]
            room -= len(title)
            whole = len(ids) <= room
            around = 0 if whole else min(_AROUND, room // 4)
            for start, end in windows(text, offsets, room - 2 * around):
                first, last = max(start - around, 0), min(end + around, len(ids))
                body = ids[first:last]
                row = np.concatenate([head, title, body, layout.last]).astype(np.int64)
                rows.append(_Row(number, start, end, len(head) + len(title) + start - first, len(head), row))
        return rows

    def _run(self, rows: Sequence[_Row]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        import numpy as np
        import torch

        lengths = np.asarray([len(row.ids) for row in rows])
        places = np.arange(lengths.max())
        filled = places < lengths[:, None]
        ids = np.full(filled.shape, self._layout.padding, dtype=np.int64)
        ids[filled] = np.concatenate([row.ids for row in rows])
        mask = None if bool(filled.all()) else torch.from_numpy(filled.astype(np.int64)).to(self.device)
        types = None
        if self._layout.typed:
            second = np.asarray([row.second for row in rows])[:, None]
            types = torch.from_numpy(((places >= second) & filled).astype(np.int64)).to(self.device)
        with torch.inference_mode():
            keep, relevance = self._forward(torch.from_numpy(ids).to(self.device), mask, types)
            return keep.cpu().numpy(), relevance.cpu().numpy()


@dataclass(frozen=True, eq=False, slots=True)
class _Row:
    """One input: which tokens ``[start, end)`` of which passage it decides, and where these begin in ``ids``."""

    passage: int
    start: int
    end: int
    skip: int
    second: int
    ids: npt.NDArray[np.int64]

    @property
    def key(self) -> tuple[int, bytes]:
        """Equal for inputs that the model cannot tell apart."""
        return self.second, self.ids.tobytes()


def load_pruner(name: str, *, dtype: str = "auto", device: str = "auto") -> Pruner:
    """A pruner, loaded once for each process, dtype and device.

    Args:
        name: A name of shipped weights, a folder, or a hub id; ragzip's own format or a published checkpoint
            (``naver/provence-reranker-debertav3-v1``, ``hotchpotch/open-provence-reranker-*``).
        dtype: "auto", "fp32", "bf16" or "fp16".
        device: "auto", "cpu", "cuda", "cuda:N", "mps" or "xpu".

    Raises:
        ModelError: It is not here, damaged, of another architecture, or lacks tensors (which are named).
        ConfigError: A dtype or device that does not exist.
    """
    check_options(dtype, device)
    folder = resolve(name)
    own = read_tuned_config(folder) is not None
    device = choose_device(device)
    number = choose_dtype(dtype, device)
    told = (folder / name for name in ("tokenizer.json", "tokenizer_config.json"))
    files = (*deciding_state(folder), *state(*(path for path in told if path.is_file())))

    def load() -> Pruner:
        if own:
            forward, tokenizer, layout, window, hops = _own(name, dtype, device)
        else:
            forward, tokenizer, specials, window = open_published(folder, number, device)
            layout, hops = Layout(*specials), 1
        if window < _LEAST:
            raise ModelError(f"{folder} reads {window} tokens at once, fewer than {_LEAST}", hint=_HINT)
        return Pruner(
            name=name,
            max_tokens=window,
            device=device,
            dtype=str(number).removeprefix("torch."),
            folder=folder,
            hops=hops,
            _forward=forward,
            _text=TextTokenizer(tokenizer),
            _layout=layout,
        )

    pruner: Pruner = kept(("pruner", canonical(name), *files, str(number), device), load)
    return pruner


def pair_tokens(what: str, tokenizer: Any, config: Any) -> tuple[int, int]:
    """What stands before a pair and behind each of its parts, in an encoder that tells the parts apart.

    Raises:
        ModelError: It has nothing of the kind; ``what`` names it.
    """
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    if cls is None or sep is None or int(getattr(config, "type_vocab_size", 0) or 0) < 2:
        raise ModelError(f"{what} has no [CLS], [SEP] and two token types", hint="Take an encoder made as BERT is.")
    return cls, sep


def _own(name: str, dtype: str, device: str) -> tuple[Forward, Any, Layout, int, int]:
    """Of ragzip's own weights: what runs them, their tokenizer, layout and window, and how often they read."""
    from torch.nn.functional import linear

    tuned = open_tuned(name, architecture=ARCHITECTURE, dtype=dtype, device=device)
    heads: list[tuple[str, Any]] = [(part, tuned.heads.get(part)) for part in ("keep", "rank")]
    lacking = [f"heads.{part}.weight" for part, head in heads if head is None]
    lacking += [f"heads.{part}.bias" for part, head in heads if head is not None and head.bias is None]
    if lacking:
        raise ModelError(f"the weights in {tuned.folder} lack {', '.join(lacking)}", hint=_HINT)
    for part, head in heads:
        if head.out_features != 1:
            raise ModelError(f"head {part!r} in {tuned.folder} gives {head.out_features} numbers, not 1", hint=_HINT)
    # In float32: bf16 would give many tokens the same score.
    keep, rank = ((head.weight.float(), head.bias.float()) for _, head in heads)

    def forward(ids: Any, mask: Any, types: Any) -> tuple[Any, Any]:
        hidden = tuned.backbone(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state.float()
        return linear(hidden, *keep).squeeze(-1).sigmoid(), linear(hidden[:, 0], *rank).squeeze(-1).sigmoid()

    cls, sep = pair_tokens(f"the base of {tuned.folder}", tuned.tokenizer, tuned.backbone.config)
    padding = int(tuned.backbone.config.pad_token_id or 0)
    hops = tuned.config.get("hops", 1)
    if not isinstance(hops, int) or isinstance(hops, bool) or hops < 1:
        raise ModelError(f"{tuned.folder / 'config.json'} says hops: {hops!r}", hint="It is a whole number from 1.")
    return forward, tuned.tokenizer, Layout((cls,), (sep,), (sep,), True, padding), tuned.max_tokens, hops
