"""Texts -> unit vectors, with a transformer and nothing around it.

Texts are sorted by length, so that a batch holds little padding, and run in bf16 where that is much faster:
three times the throughput of fp32 at a cosine of 0.9999 to it. In bf16 a vector depends on what else is in its batch
by about 1e-3, so whoever decides by a threshold must make the batch depend on nothing but the text in question;
``encode_each`` gives every text a forward pass of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragzip.errors import ModelError
from ragzip.models import layers
from ragzip.models.identity import folder_fingerprint
from ragzip.models.loading import open_model
from ragzip.models.locate import canonical, resolve
from ragzip.models.lora import base_folder, merge
from ragzip.models.pooling import read_recipe
from ragzip.models.runtime import check_options, choose_device, choose_dtype, kept, state
from ragzip.models.token_windows import batches, firsts, special_ids
from ragzip.models.tokenizer import TextTokenizer, encode_batch, read_tokenizer, tokenizer_file, well_formed
from ragzip.models.weights import ADAPTER_CONFIG, is_adapter, weight_files

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from tokenizers import Tokenizer

_BLOCK = 65_536  # texts tokenised at once: bounds memory


@dataclass(frozen=True, eq=False)
class Encoder:
    """A loaded embedding model.

    Attributes:
        name: As it was asked for.
        dimensions: Width of a vector.
        max_tokens: Longest text in tokens, special tokens included; longer ones are cut at the end.
        device: Where it runs.
        dtype: The number format it computes in.
        folder: Its files.
        query_prompt: What it wants to read before a question; "" for most models.
    """

    name: str
    dimensions: int
    max_tokens: int
    device: str
    dtype: str
    folder: Path
    query_prompt: str
    _mode: str = field(repr=False)
    _model: Any = field(repr=False)
    _cutting: Tokenizer = field(repr=False)
    _counting: TextTokenizer = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over its files: equal for equal models."""
        return layers.fingerprint_of(folder_fingerprint(self.folder), layers.split(self.name)[1])

    @cached_property
    def room(self) -> int:
        """Tokens of a text that are read at once: ``max_tokens`` without the special tokens around it, at least 1."""
        return max(self.max_tokens - sum(map(len, special_ids(self._cutting))), 1)

    def encode(
        self,
        texts: Sequence[str],
        *,
        batch_size: int = 32,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Vectors of texts.

        Args:
            texts: Any strings, the empty one included.
            batch_size: Texts of similar length that share a forward pass.
            on_progress: Told texts done and texts in all, after every batch.

        Returns:
            ``[n, dimensions]``, float32, of length 1, in the order of the texts. The same texts in the same order
            with the same batch size give the same bits. Equal texts are read once.
        """
        import numpy as np

        places, distinct = firsts(texts)
        counts = np.bincount(places, minlength=len(distinct))
        out = np.empty((len(distinct), self.dimensions), dtype=np.float32)
        done = 0
        for first in range(0, len(distinct), _BLOCK):
            some = [texts[place] for place in distinct[first : first + _BLOCK]]
            ids = [e.ids for e in encode_batch(self._cutting, some, special=True)]
            lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
            order = np.argsort(-lengths, kind="stable")  # longest first: what does not fit in memory fails at once
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                out[first + rows] = self._forward([ids[row] for row in rows], lengths[rows])
                done += int(counts[first + rows].sum())
                if on_progress:
                    on_progress(done, len(texts))
        return out if len(distinct) == len(texts) else out[places]

    def encode_each(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors of texts with one forward pass each, so that none depends on its neighbours: ``[n, dimensions]``."""
        return self.encode(texts, batch_size=1)

    def encode_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors of questions, behind the prompt that the model has for them, each by itself: ``[n, dimensions]``."""
        return self.encode_each(self.asking(texts))

    def asking(self, texts: Sequence[str]) -> list[str]:
        """Questions behind the prompt that the model has for them, as they are to be encoded."""
        return [self.query_prompt + text for text in texts]

    def tokens(self, texts: Sequence[str]) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Ids ``[n]`` and offsets in characters ``[n, 2]`` of each whole text, without special tokens."""
        import numpy as np

        try:
            found = self._counting.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        except TypeError:  # lone surrogates
            found = self._counting.tokenizer.encode_batch([well_formed(t) for t in texts], add_special_tokens=False)
        return [(np.asarray(e.ids, np.int64), np.asarray(e.offsets, np.int64).reshape(-1, 2)) for e in found]

    def encode_tokens(self, rows: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
        """As ``encode``, of texts given as the ids of ``tokens``, or some of them: ``[n, dimensions]``."""
        import numpy as np

        ids, lengths, *_ = self._with_specials(rows)
        places, distinct = firsts([tuple(row) for row in ids])
        out = np.empty((len(distinct), self.dimensions), dtype=np.float32)
        for batch in batches(lengths[distinct].tolist(), self.device):
            some = [distinct[row] for row in batch]
            out[batch] = self._forward([ids[row] for row in some], lengths[some])
        return out if len(distinct) == len(rows) else out[places]

    def token_vectors(
        self, rows: Sequence[npt.NDArray[np.int64]]
    ) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        """What the vectors of texts are the means of.

        Args:
            rows: Texts as the ids of ``tokens``; what is beyond the window is left out.

        Returns:
            For each text the vectors of its tokens ``[n, dimensions]``, and the sum of those of the special tokens
            around them ``[dimensions]``. All of them added up point where the text's vector does.

        Raises:
            ModelError: The model makes its vectors otherwise.
        """
        import torch

        if self._mode != "mean":
            raise ModelError(
                f"{self.name} does not take the mean of its tokens' vectors", hint="Use another embedding model."
            )
        found: list[Any] = [None] * len(rows)
        ids, lengths, before, after = self._with_specials(rows)
        for batch in batches(lengths.tolist(), self.device):
            with torch.inference_mode():
                hidden = self._hidden([ids[row] for row in batch], lengths[batch])[0].cpu().numpy()
            for row, vectors in zip(batch, hidden, strict=True):
                length = int(lengths[row])
                own, whole = vectors[before : length - after], vectors[: max(length, 1)]
                found[row] = own, whole.sum(axis=0) - own.sum(axis=0)
        return found

    def _with_specials(
        self, rows: Sequence[npt.NDArray[np.int64]]
    ) -> tuple[list[list[int]], npt.NDArray[np.int64], int, int]:
        """Ids with special tokens around them and cut to the window, lengths, and how many come before and after."""
        import numpy as np

        before, after = special_ids(self._cutting)
        room = max(self.max_tokens - len(before) - len(after), 0)
        ids = [[*before, *row[:room].tolist(), *after] for row in rows]
        return ids, np.fromiter(map(len, ids), dtype=np.int64, count=len(ids)), len(before), len(after)

    def word_embeddings(self) -> npt.NDArray[np.float32]:
        """What the model takes for each id of its vocabulary, ``[vocabulary, width]``; not to be changed."""
        found: npt.NDArray[np.float32] = self._model.get_input_embeddings().weight.detach().float().cpu().numpy()
        return found

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each whole text, without special tokens and without cutting."""
        return [len(encoding.ids) for encoding in encode_batch(self._counting.tokenizer, texts, special=False)]

    def _forward(self, ids: list[list[int]], lengths: npt.NDArray[np.int64]) -> Any:
        """``[b, dimensions]`` of one batch; token vectors are pooled and scaled in float32."""
        import torch

        with torch.inference_mode():
            hidden, mask = self._hidden(ids, lengths)
            if self._mode == "cls":
                pooled = hidden[:, 0]
            elif self._mode == "lasttoken":
                last = mask.sum(dim=1) - 1
                pooled = hidden[torch.arange(len(ids), device=hidden.device), last]
            else:
                shares = mask.float() / mask.sum(dim=1, keepdim=True)
                pooled = torch.bmm(shares.unsqueeze(1), hidden).squeeze(1)
            return torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()

    def _hidden(self, ids: list[list[int]], lengths: npt.NDArray[np.int64]) -> tuple[Any, Any]:
        """Token vectors ``[b, n, dimensions]`` in float32, and the mask ``[b, n]`` of those that count."""
        import numpy as np
        import torch

        width = max(int(lengths.max()), 1)
        padded = np.zeros((len(ids), width), dtype=np.int64)
        inside = np.arange(width) < np.maximum(lengths, 1)[:, None]  # a text without any token reads one padding
        filled = np.arange(width) < lengths[:, None]
        padded[filled] = np.concatenate([np.asarray(row, dtype=np.int64) for row in ids])
        tokens = torch.from_numpy(padded).to(self.device)
        mask = torch.from_numpy(inside.astype(np.int64)).to(self.device)
        return self._model(input_ids=tokens, attention_mask=mask).last_hidden_state.float(), mask


def load_encoder(name: str, *, dtype: str = "auto", device: str = "auto") -> Encoder:
    """An embedding model, loaded once for each process, dtype and device.

    Args:
        name: A built-in model, a folder (of sentence-transformers, of transformers, or with a LoRA adapter, as
            ``ragzip train retriever`` makes them), or a hub id; with ``#layers=4`` behind it, without the layers after
            the fourth.
        dtype: "auto", "fp32", "bf16" or "fp16".
        device: "auto", "cpu", "cuda", "cuda:N", "mps" or "xpu".

    Raises:
        ModelError: It is not here, damaged, or not of a kind that is supported.
        ConfigError: A dtype or device that does not exist.
    """
    check_options(dtype, device)
    whole, depth = layers.split(name)
    folder = resolve(whole)
    recipe = read_recipe(base_folder(folder))
    device = choose_device(device)
    number = choose_dtype(dtype, device)
    files = [*weight_files(recipe.folder), recipe.folder / "config.json", tokenizer_file(recipe.folder)]
    if is_adapter(folder):
        files += [*weight_files(folder), folder / ADAPTER_CONFIG]

    def load() -> Encoder:
        model = open_model("AutoModel", recipe.folder, dtype=number, device=device, may_lack="pooler")
        if is_adapter(folder):
            merge(model, folder)
        if depth is not None:
            layers.keep(model, depth, name)
        cutting = read_tokenizer(tokenizer_file(recipe.folder))
        cutting.enable_truncation(recipe.max_tokens)
        return Encoder(
            name=name,
            dimensions=int(model.config.hidden_size),
            max_tokens=recipe.max_tokens,
            device=device,
            dtype=str(number).removeprefix("torch."),
            folder=folder,
            query_prompt="" if is_adapter(folder) else recipe.query_prompt,  # adapters learned without
            _mode=recipe.mode,
            _model=model,
            _cutting=cutting,
            _counting=TextTokenizer(read_tokenizer(tokenizer_file(recipe.folder))),
        )

    encoder: Encoder = kept(("encoder", canonical(name), recipe, *state(*files), str(number), device), load)
    return encoder
