"""Texts -> a probability for each token that it should be kept, with the tokens' places in characters.

Two kinds of weights are read: ragzip's own (a base encoder and a head ``keep``) and checkpoints of ``transformers``
for token classification with two labels, of which the second means "keep". Long texts are read in windows, cut at the
ends of sentences where there are any: nothing is left out, and no window is longer than what the model reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from ragzip.errors import ModelError
from ragzip.models.loading import open_model
from ragzip.models.locate import canonical, resolve
from ragzip.models.pooling import read_recipe
from ragzip.models.runtime import check_options, choose_device, choose_dtype, kept, state
from ragzip.models.token_windows import batches, firsts, special_ids, windows
from ragzip.models.tokenizer import TextTokenizer, read_tokenizer, tokenizer_file, well_formed
from ragzip.models.tuned import deciding_state, open_tuned, read_tuned_config

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

ARCHITECTURE, HEAD = "token_classifier", "keep"
_ALIKE = ("ForSequenceClassification", "ForMultipleChoice")  # their heads have the same names and shapes
_HINT = "Give a checkpoint for token classification with two labels (drop, keep), such as those of LLMLingua-2."


@dataclass(frozen=True, eq=False, slots=True)
class TokenScores:
    """What the model says of one text.

    Attributes:
        offsets: ``[n_tokens, 2]``: first character and one past the last, of each token, in order. Some models
            count the space before a word to its first token.
        keep: ``[n_tokens]``, float32, 0 to 1: the probability that the token should be kept.
    """

    offsets: npt.NDArray[np.int64]
    keep: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TokenClassifier:
    """A loaded token classifier.

    Attributes:
        name: As it was asked for.
        max_tokens: Longest window in tokens, special tokens included.
        device: Where it runs.
        dtype: The number format its encoder computes in; logits and probabilities are float32.
        folder: Its files.
    """

    name: str
    max_tokens: int
    device: str
    dtype: str
    folder: Path
    _logits: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor] = field(repr=False)
    _text: TextTokenizer = field(repr=False)
    _around: tuple[list[int], list[int]] = field(repr=False)
    _padding: int = field(repr=False)

    def scores(self, texts: Sequence[str]) -> list[TokenScores]:
        """The probabilities of all tokens of each text.

        Windows of similar length share a forward pass, and equal ones are read once. In bf16 a probability depends
        on its batch by about 1e-3, so give the texts of one context in one call, and those of another context in
        another.
        """
        import numpy as np

        ids, offsets = self._encode(texts)
        room = self.max_tokens - sum(map(len, self._around))
        places = [
            (number, start, end)
            for number, text in enumerate(texts)
            for start, end in windows(text, offsets[number], room)
        ]
        found = [TokenScores(part, np.zeros(len(part), dtype=np.float32)) for part in offsets]
        like, distinct = firsts([ids[number][start:end].tobytes() for number, start, end in places])
        values: list[npt.NDArray[np.float32]] = [np.zeros(0, dtype=np.float32)] * len(distinct)
        for batch in batches([places[i][2] - places[i][1] for i in distinct], self.device):
            rows = [places[distinct[i]] for i in batch]
            read = self._forward([ids[number][start:end] for number, start, end in rows])
            for i, (_, start, end), row in zip(batch, rows, read, strict=True):
                values[i] = row[: end - start]
        for (number, start, end), which in zip(places, like, strict=True):
            found[number].keep[start:end] = values[which]
        return found

    def _encode(self, texts: Sequence[str]) -> tuple[list[npt.NDArray[np.int64]], list[npt.NDArray[np.int64]]]:
        """Ids ``[n_tokens]`` and offsets ``[n_tokens, 2]`` of each text; text that names a control token is text."""
        import numpy as np

        tokenizer, control = self._text.tokenizer, self._text.control
        try:
            encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
        except TypeError:  # lone surrogates
            encodings = tokenizer.encode_batch([well_formed(text) for text in texts], add_special_tokens=False)
        ids, offsets = [], []
        for text, encoding in zip(texts, encodings, strict=True):
            parts = [text] if control.isdisjoint(encoding.ids) else self._text.split(text)
            pieces = [encoding] if len(parts) == 1 else tokenizer.encode_batch(parts, add_special_tokens=False)
            starts = np.cumsum([0, *map(len, parts)])
            ids.append(np.concatenate([np.asarray(piece.ids, dtype=np.int64) for piece in pieces]))
            places = [np.asarray(piece.offsets, dtype=np.int64).reshape(-1, 2) for piece in pieces]
            offsets.append(np.concatenate([place + start for place, start in zip(places, starts, strict=False)]))
        return ids, offsets

    def _forward(self, rows: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
        """``[b, n]``: probabilities of one batch of windows, without those of the special tokens before them."""
        import numpy as np
        import torch

        before, after = self._around
        whole = [np.concatenate([before, row, after]).astype(np.int64) for row in rows]
        lengths = np.asarray([len(row) for row in whole])
        filled = np.arange(lengths.max()) < lengths[:, None]
        padded = np.full(filled.shape, self._padding, dtype=np.int64)
        padded[filled] = np.concatenate(whole)
        with torch.inference_mode():
            mask = None if bool(filled.all()) else torch.from_numpy(filled.astype(np.int64)).to(self.device)
            logits = self._logits(torch.from_numpy(padded).to(self.device), mask).float()
            one = logits[..., 0] if logits.shape[-1] == 1 else logits[..., 1] - logits[..., 0]  # softmax of two
            found: npt.NDArray[np.float32] = one[:, len(before) :].sigmoid().cpu().numpy()
        return found


def load_token_classifier(name: str, *, dtype: str = "auto", device: str = "auto") -> TokenClassifier:
    """A token classifier, loaded once for each process, dtype and device.

    Args:
        name: A name of shipped weights, a folder (ragzip's format, or that of ``transformers``), or a hub id.
        dtype: "auto", "fp32", "bf16" or "fp16".
        device: "auto", "cpu", "cuda", "cuda:N", "mps" or "xpu".

    Raises:
        ModelError: It is not here, damaged, no token classifier, of other labels, or lacks tensors (named).
        ConfigError: A dtype or device that does not exist.
    """
    check_options(dtype, device)
    folder = resolve(name)
    own = read_tuned_config(folder) is not None
    device = choose_device(device)
    number = choose_dtype(dtype, device)
    files = deciding_state(folder)
    if not own:
        files = (*files, *state(tokenizer_file(folder)))

    def load() -> TokenClassifier:
        logits, tokenizer, window, padding = (_own if own else _published)(name, folder, dtype, device)
        around = _around(folder, tokenizer)
        if window <= sum(map(len, around)):
            raise ModelError(f"{folder} reads {window} tokens, too few for its own special ones", hint=_HINT)
        return TokenClassifier(
            name=name,
            max_tokens=window,
            device=device,
            dtype=str(number).removeprefix("torch."),
            folder=folder,
            _logits=logits,
            _text=TextTokenizer(tokenizer),
            _around=around,
            _padding=padding,
        )

    loaded: TokenClassifier = kept((ARCHITECTURE, canonical(name), *files, str(number), device), load)
    return loaded


Parts = tuple[Callable[..., Any], Tokenizer, int, int]


def _own(name: str, folder: Path, dtype: str, device: str) -> Parts:
    """Of ragzip's own weights: logits, tokenizer, window, padding id."""
    from torch.nn.functional import linear

    tuned = open_tuned(name, architecture=ARCHITECTURE, dtype=dtype, device=device)
    head, backbone = tuned.heads.get(HEAD), tuned.backbone
    if head is None:
        raise ModelError(f"the weights in {folder} lack heads.{HEAD}.weight", hint=_HINT)
    _check_labels(folder, int(head.weight.shape[0]), least=1)
    weight, bias = head.weight.float(), None if head.bias is None else head.bias.float()

    def logits(ids: Any, mask: Any) -> Any:
        # In float32 from here on: bf16 would give many tokens the same score.
        return linear(backbone(input_ids=ids, attention_mask=mask).last_hidden_state.float(), weight, bias)

    return logits, tuned.tokenizer, tuned.max_tokens, int(backbone.config.pad_token_id or 0)


def _published(name: str, folder: Path, dtype: str, device: str) -> Parts:
    """Of a checkpoint of ``transformers``: logits, tokenizer, window, padding id."""
    config = _config(folder)
    _check_labels(folder, _labels(folder, config), least=2)
    classes = [name for name in config.get("architectures") or () if isinstance(name, str)]
    wrong = [name for name in classes if name.endswith(_ALIKE)]
    if wrong:
        raise ModelError(f"{folder} is a {wrong[0]}, which does not classify tokens", hint=_HINT)
    number = choose_dtype(dtype, device)
    model = open_model("AutoModelForTokenClassification", folder, dtype=number, device=device)
    head: Any = getattr(model, "classifier", None)
    if hasattr(head, "in_features"):  # a linear layer: in float32, as above
        head.float().register_forward_pre_hook(lambda _, given: (given[0].float(),))

    def logits(ids: Any, mask: Any) -> Any:
        return model(input_ids=ids, attention_mask=mask).logits

    window = read_recipe(folder).max_tokens
    return logits, read_tokenizer(tokenizer_file(folder)), window, int(model.config.pad_token_id or 0)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint=_HINT) from error
    return config


def _labels(folder: Path, config: dict[str, Any]) -> int:
    """How many labels the config names; two where it says nothing, as in ``transformers``."""
    try:
        return len(config["id2label"]) if "id2label" in config else int(config.get("num_labels", 2))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{folder / 'config.json'} cannot be read: {error}", hint=_HINT) from error


def _check_labels(folder: Path, labels: int, *, least: int) -> None:
    if not least <= labels <= 2:
        raise ModelError(f"{folder} tells {labels} labels apart, not 2", hint=_HINT)


def _around(folder: Path, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens before and after a text: the tokenizer's own, else those that its config names."""
    before, after = special_ids(tokenizer)
    if before or after or tokenizer.post_processor is not None:
        return before, after
    path = folder / "tokenizer_config.json"
    try:
        config = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint=_HINT) from error
    named = [config.get("cls_token"), config.get("sep_token")]
    contents = [value.get("content") if isinstance(value, dict) else value for value in named]
    found = [tokenizer.token_to_id(value) if isinstance(value, str) else None for value in contents]
    return ([] if found[0] is None else [found[0]]), ([] if found[1] is None else [found[1]])
