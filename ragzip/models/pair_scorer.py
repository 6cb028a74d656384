"""Question and passage -> one score, by a cross-encoder in the folder format of sentence-transformers.

Such a folder is a sequence classifier of ``transformers`` with one label, whose logit is the score, or two, of which
the second means "relevant"; its config says whether the logit goes through a sigmoid. It is read without
sentence-transformers and without any code that may lie in it. Passages that are longer than the window are not cut off
but read in windows, each behind the beginning of the title, and the best window counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragzip.errors import ModelError
from ragzip.models.loading import open_model
from ragzip.models.locate import canonical, resolve
from ragzip.models.pooling import window as token_window
from ragzip.models.published_pruners import pair_specials
from ragzip.models.runtime import check_options, choose_device, choose_dtype, kept, state
from ragzip.models.token_windows import batches, firsts, windows
from ragzip.models.tokenizer import TextTokenizer, read_tokenizer, tokenizer_file, well_formed
from ragzip.models.weights import weight_files

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_TITLE = 32  # tokens of a title that are read again with every window of a long passage
_LEAST = 16  # tokens of a window: fewer leave no room for a passage
_SETTINGS = "config_sentence_transformers.json"
_HINT = "Give a cross-encoder for reranking: a sequence classifier with one label, or with two."


@dataclass(frozen=True, eq=False)
class PairScorer:
    """A loaded cross-encoder.

    Attributes:
        name: As it was asked for.
        max_tokens: Longest input, special tokens included.
        labels: 1, or 2: then the score is the logit of the second less that of the first.
        sigmoid: Whether the score is squeezed to 0 to 1; else it is the logit.
        device: Where it runs.
        dtype: The number format it computes in; scores are float32.
        folder: Its files.
    """

    name: str
    max_tokens: int
    labels: int
    sigmoid: bool
    device: str
    dtype: str
    folder: Path
    _model: Any = field(repr=False)
    _text: TextTokenizer = field(repr=False)
    _around: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], bool] = field(repr=False)

    def score(self, question: str, texts: Sequence[str], titles: Sequence[str] = ()) -> npt.NDArray[np.float32]:
        """Scores passages for a question.

        Pairs of like length share a forward pass, and equal ones are read once. In bf16 a score depends on what else is
        in its batch by about 1e-3, so give the passages of one question in one call, and those of another in another.

        Args:
            question: Any string; what is longer than a third of the window is read in parts, of which the best counts.
            texts: Any strings.
            titles: One for each text, read on a line before it; none where left out.

        Returns:
            ``[n]``, float32, greater is better.

        Raises:
            ModelError: A score that is no number.
        """
        import numpy as np

        rows = [row for part in self._parts(question) for row in self._rows(part, texts, titles or [""] * len(texts))]
        logits = np.full(len(texts), -np.inf, dtype=np.float32)
        places, distinct = firsts([(tuple(ids), start) for _, ids, start in rows])
        read = np.zeros(len(distinct), dtype=np.float32)
        for batch in batches([len(rows[i][1]) for i in distinct], self.device):
            read[batch] = self._run([rows[distinct[i]] for i in batch])
        if np.isnan(read).any():
            what = f"{self.name}: gave a score that is no number"
            raise ModelError(what, hint="Check the model, or use dtype fp32.")
        np.maximum.at(logits, [number for number, *_ in rows], read[places])
        return np.exp(-np.logaddexp(0, -logits)) if self.sigmoid else logits  # the sigmoid, also of large logits

    def _parts(self, question: str) -> list[list[int]]:
        """The question's ids, in parts of similar length that leave most of the window to the passage."""
        (ids,) = self._text.encode([question])
        count = max(-(-len(ids) // max(self.max_tokens // 3, 1)), 1)
        size = max(-(-len(ids) // count), 1)
        return [ids[start : start + size] for start in range(0, max(len(ids), 1), size)]

    def _rows(
        self, question: Sequence[int], texts: Sequence[str], titles: Sequence[str]
    ) -> list[tuple[int, list[int], int]]:
        """Inputs: whose passage, ids, and where the passage begins in them."""
        import numpy as np

        first, middle, last, _ = self._around
        head = [*first, *question, *middle]
        room = self.max_tokens - len(head) - len(last)
        whole = [well_formed(f"{title}\n{text}" if title else text) for text, title in zip(texts, titles, strict=True)]
        found = []
        for number, (text, (ids, places)) in enumerate(zip(whole, self._text.encode_places(whole), strict=True)):
            if len(ids) <= room:
                found.append((number, [*head, *ids, *last], len(head)))
                continue
            # A token belongs where its last character stands: some tokenizers put the space before a word into it.
            lead = len(titles[number]) + 1 if titles[number] else 0
            title = [token for token, (_, end) in zip(ids, places, strict=True) if end <= lead]
            body, offsets = ids[len(title) :], np.asarray(places[len(title) :], dtype=np.int64).reshape(-1, 2)
            title = title[: min(_TITLE, room // 3)]
            for start, end in windows(text, offsets, room - len(title)) or [(0, 0)]:
                found.append((number, [*head, *title, *body[start:end], *last], len(head)))
        return found

    def _run(self, rows: Sequence[tuple[int, list[int], int]]) -> npt.NDArray[np.float32]:
        """The logit of each input, ``[b]``, float32."""
        import numpy as np
        import torch

        width = max(len(ids) for _, ids, _ in rows)
        padding = int(self._model.config.pad_token_id or 0)
        ids = torch.tensor([[*row, *[padding] * (width - len(row))] for _, row, _ in rows], device=self.device)
        lengths = torch.tensor([len(row) for _, row, _ in rows], device=self.device)
        places = torch.arange(width, device=self.device)
        mask = (places < lengths[:, None]).long()
        more = {}
        if self._around[3]:
            second = torch.tensor([start for _, _, start in rows], device=self.device)
            more["token_type_ids"] = ((places >= second[:, None]) & (mask > 0)).long()
        with torch.inference_mode():
            logits = self._model(input_ids=ids, attention_mask=mask, **more).logits.float()
        found = logits[:, 0] if self.labels == 1 else logits[:, 1] - logits[:, 0]
        return np.asarray(found.cpu().numpy(), dtype=np.float32)


def load_pair_scorer(name: str, *, dtype: str = "auto", device: str = "auto") -> PairScorer:
    """A cross-encoder, loaded once for each process, dtype and device.

    Args:
        name: A folder as sentence-transformers or ``AutoModelForSequenceClassification`` saves it, or a hub id.
        dtype: "auto", "fp32", "bf16" or "fp16".
        device: "auto", "cpu", "cuda", "cuda:N", "mps" or "xpu".

    Raises:
        ModelError: It is not here, damaged, no sequence classifier, has more than two labels, or lacks parameters.
        ConfigError: A dtype or device that does not exist.
    """
    check_options(dtype, device)
    folder = resolve(name)
    labels, sigmoid = _read(folder)
    device = choose_device(device)
    number = choose_dtype(dtype, device)
    files = (*weight_files(folder), folder / "config.json", tokenizer_file(folder))

    def load() -> PairScorer:
        window = token_window(folder, folder)
        if window < _LEAST:
            raise ModelError(f"{folder} reads {window} tokens at once, fewer than {_LEAST}", hint=_HINT)
        model = open_model("AutoModelForSequenceClassification", folder, dtype=number, device=device)
        tokenizer = read_tokenizer(tokenizer_file(folder))
        first, middle, last, types = pair_specials(folder, tokenizer)
        return PairScorer(
            name=name,
            max_tokens=window,
            labels=labels,
            sigmoid=sigmoid,
            device=device,
            dtype=str(number).removeprefix("torch."),
            folder=folder,
            _model=model,
            _text=TextTokenizer(tokenizer),
            _around=(first, middle, last, types and int(getattr(model.config, "type_vocab_size", 0) or 0) > 1),
        )

    key = ("pair_scorer", canonical(name), *state(*files), labels, sigmoid, str(number), device)
    loaded: PairScorer = kept(key, load)
    return loaded


def _read(folder: Path) -> tuple[int, bool]:
    """The number of labels, and whether logits go through a sigmoid, as they do where nothing is said."""
    config = _json(folder / "config.json")
    classes = [name for name in config.get("architectures") or () if isinstance(name, str)]
    if "ragzip_format" in config or not any(name.endswith("ForSequenceClassification") for name in classes):
        what = classes[0] if classes else config.get("architecture", "a model of no known kind")
        raise ModelError(f"{folder} is {what}, not a sequence classifier", hint=_HINT)
    named = config.get("id2label")
    labels = len(named) if isinstance(named, dict) else config.get("num_labels", 2)  # transformers writes no 2
    if labels not in (1, 2):
        raise ModelError(f"{folder} tells {labels} labels apart, not one or two", hint=_HINT)
    own = config.get("sentence_transformers")
    settings = _json(folder / _SETTINGS) if (folder / _SETTINGS).is_file() else {}
    prompt = (settings.get("prompts") or {}).get(settings.get("default_prompt_name"))
    if prompt:
        raise ModelError(f"{folder} reads pairs behind the prompt {prompt!r:.60}", hint="Use a model without prompts.")
    said = (
        settings.get("activation_fn")
        or (own.get("activation_fn") if isinstance(own, dict) else None)
        or config.get("sbert_ce_default_activation_function")  # before version 4
        or "Sigmoid"
    )
    kind = str(said).rpartition(".")[2]
    if kind not in ("Sigmoid", "Identity"):
        raise ModelError(f"{folder} puts its scores through {said!r}", hint="Sigmoid and Identity are supported.")
    return labels, kind == "Sigmoid"


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint="Get the model's files again.") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} is no JSON object", hint="Get the model's files again.")
    return found
