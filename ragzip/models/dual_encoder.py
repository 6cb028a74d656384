"""Texts -> vectors whose inner products are scores, as the model gives them: whole, and of no certain length.

``load_encoder`` is for embedding models: it cuts what is longer than the window and scales vectors to length 1.
Dual encoders that were trained on inner products mean something by their lengths, and here no text is cut.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragzip.errors import ModelError
from ragzip.models.loading import open_model
from ragzip.models.locate import canonical, resolve
from ragzip.models.pooling import read_recipe
from ragzip.models.runtime import check_options, choose_device, choose_dtype, kept, state
from ragzip.models.token_windows import batches, firsts, special_ids, split
from ragzip.models.tokenizer import TextTokenizer, read_tokenizer, tokenizer_file
from ragzip.models.tuned import deciding_state, open_tuned, read_tuned_config

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

ARCHITECTURE = "dual_encoder"
_HINT = "Give a folder made by `ragzip train recomp_extractive`, or an encoder that is pooled by the mean."
_OTHER = (  # these write, or classify
    "ForCausalLM",
    "LMHeadModel",
    "ForConditionalGeneration",
    "ForTokenClassification",
    "ForSequenceClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
)


@dataclass(frozen=True, eq=False)
class DualEncoder:
    """A loaded dual encoder: one transformer for questions and sentences.

    Attributes:
        name: As it was asked for.
        max_tokens: Longest window in tokens, special tokens included.
        title: Whether sentences were trained with their passage's title before them: ``Title: sentence``.
        normalize: Whether vectors are scaled to length 1.
        device: Where it runs.
        dtype: The number format it computes in; vectors are float32.
        folder: Its files.
    """

    name: str
    max_tokens: int
    title: bool
    normalize: bool
    device: str
    dtype: str
    folder: Path
    _backbone: Any = field(repr=False)
    _text: TextTokenizer = field(repr=False)
    _around: tuple[list[int], list[int]] = field(repr=False)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors of texts: the mean of the last hidden states of all tokens, special ones included.

        A text that is longer than the window is read in windows of similar length, and the mean is over the tokens of
        all of them. Windows of similar length share a forward pass, and equal ones are read once: give what is
        compared with each other in one call, and nothing else.

        Args:
            texts: Any strings, the empty one included.

        Returns:
            ``[n, d]``, float32.
        """
        import numpy as np

        before, after = self._around
        room = self.max_tokens - len(before) - len(after)
        rows: list[tuple[int, list[int]]] = []
        for number, ids in enumerate(self._text.encode(texts)):
            rows += [(number, [*before, *ids[a:b], *after] or [0]) for a, b in split((0, len(ids)), room, [])]
        sums: npt.NDArray[np.float32] = np.zeros((len(texts), int(self._backbone.config.hidden_size)), dtype=np.float32)
        counts = np.zeros(len(texts), dtype=np.float32)
        places, distinct = firsts([tuple(ids) for _, ids in rows])
        windows = [rows[row][1] for row in distinct]
        read = np.zeros((len(windows), sums.shape[1]), dtype=np.float32)
        for batch in batches([len(ids) for ids in windows], self.device):
            read[batch] = self._sums([windows[i] for i in batch])
        owners = [number for number, _ in rows]
        np.add.at(sums, owners, read[places])
        np.add.at(counts, owners, [len(ids) for _, ids in rows])
        means = sums / counts[:, None]
        if self.normalize:
            means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return means

    def _sums(self, ids: Sequence[Sequence[int]]) -> Any:
        """``[b, d]``: the sum of each row's hidden states, in float32."""
        import torch

        width = max(map(len, ids))
        tokens = torch.tensor([[*row, *[0] * (width - len(row))] for row in ids], device=self.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids], device=self.device)
        with torch.inference_mode():
            hidden = self._backbone(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
            return torch.bmm(mask.float().unsqueeze(1), hidden).squeeze(1).cpu().numpy()


def load_dual_encoder(name: str, *, dtype: str = "auto", device: str = "auto") -> DualEncoder:
    """A dual encoder, loaded once for each process, dtype and device.

    Args:
        name: A name of shipped weights; a folder in ragzip's format, of ``transformers`` or of sentence-transformers;
            or a hub id.
        dtype: "auto", "fp32", "bf16" or "fp16".
        device: "auto", "cpu", "cuda", "cuda:N", "mps" or "xpu".

    Raises:
        ModelError: It is not here, damaged, of another architecture, or lacks tensors (named).
        ConfigError: A dtype or device that does not exist.
    """
    check_options(dtype, device)
    folder = resolve(name)
    config = read_tuned_config(folder) if (folder / "config.json").is_file() else None
    device = choose_device(device)
    number = choose_dtype(dtype, device)
    recipe = None if config is not None else read_recipe(folder)
    inner = folder if recipe is None else recipe.folder
    files = deciding_state(inner)
    if recipe is not None:
        files = (*files, *state(tokenizer_file(inner)))
        _check(folder, inner, recipe.mode)

    def load() -> DualEncoder:
        if config is not None:
            tuned = open_tuned(name, architecture=ARCHITECTURE, dtype=dtype, device=device)
            backbone, tokenizer, window = tuned.backbone, tuned.tokenizer, tuned.max_tokens
        else:
            backbone = open_model("AutoModel", inner, dtype=number, device=device, may_lack="pooler")
            tokenizer, window = read_tokenizer(tokenizer_file(inner)), read_recipe(folder).max_tokens
        around = special_ids(tokenizer)
        if window <= sum(map(len, around)):
            raise ModelError(f"{folder} reads {window} tokens, too few for its own special ones", hint=_HINT)
        return DualEncoder(
            name=name,
            max_tokens=window,
            title=bool((config or {}).get("title", False)),
            normalize=bool((config or {}).get("normalize", False)) or _normalizes(folder),
            device=device,
            dtype=str(number).removeprefix("torch."),
            folder=folder,
            _backbone=backbone,
            _text=TextTokenizer(tokenizer),
            _around=around,
        )

    loaded: DualEncoder = kept((ARCHITECTURE, canonical(name), *files, str(number), device), load)
    return loaded


def _check(folder: Path, inner: Path, mode: str) -> None:
    """Refuses what is no encoder pooled by the mean."""
    if mode != "mean":
        raise ModelError(f"{folder} pools by {mode!r}, not by the mean", hint=_HINT)
    path = inner / "config.json"
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint=_HINT) from error
    classes = found.get("architectures") if isinstance(found, dict) else None
    wrong = [name for name in classes or () if isinstance(name, str) and name.endswith(_OTHER)]
    if wrong:
        raise ModelError(f"{folder} is a {wrong[0]}, not an encoder", hint=_HINT)


def _normalizes(folder: Path) -> bool:
    """Whether a folder of sentence-transformers ends with the module that scales vectors to length 1."""
    path = folder / "modules.json"
    if not path.is_file():
        return False
    modules = json.loads(path.read_text("utf-8"))  # read_recipe has seen that it is sound
    return any(str(module.get("type", "")).endswith("Normalize") for module in modules)
