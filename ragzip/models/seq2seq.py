"""A frozen encoder-decoder language model (T5, BART and their kin) with its tokenizer, loaded once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragzip.errors import ModelError, PromptTooLong
from ragzip.models.decode import Tap, end_tokens, no_memory, out_of_memory
from ragzip.models.loading import open_tokenizer
from ragzip.models.locate import canonical, resolve
from ragzip.models.lora import base_folder, deciding_files, open_merged, tokenizer_folder
from ragzip.models.runtime import check_options, choose_device, choose_dtype, kept, state
from ragzip.models.tokenizer import TextTokenizer, encode_batch, text_tokenizer, tokenizer_file
from ragzip.types import Generation

if TYPE_CHECKING:
    from torch import Tensor

_SETTINGS = ("config.json", "generation_config.json", "tokenizer_config.json")
_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id")
_POSITIONS = ("max_encoder_position_embeddings", "max_position_embeddings", "max_source_positions")
_DECODED = ("max_decoder_position_embeddings", "max_position_embeddings", "max_target_positions")
_RELATIVE_WINDOW = 1024


@dataclass(frozen=True, eq=False)
class Seq2SeqLM:
    """A loaded encoder-decoder in evaluation mode; no parameter asks for a gradient.

    Attributes:
        name: As it was asked for.
        model: The ``transformers`` model.
        tokenizer: The ``transformers`` tokenizer, for special tokens.
        text: Encodes text that is data, such that no control token comes out of it.
        window: Most tokens of an input, special tokens included. Models with relative positions (T5) have no limit
            of their own; theirs is 1,024, what RECOMP's were trained with.
        most_new: Most tokens that it can write.
        lead: Special tokens before every input.
        tail: Special tokens after it.
        device: Where it runs.
        dtype: The number format it computes in.
        folder: Its files.
        lock: Held while it computes.
    """

    name: str
    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    text: TextTokenizer = field(repr=False)
    window: int
    most_new: int
    lead: tuple[int, ...]
    tail: tuple[int, ...]
    device: str
    dtype: str
    folder: Path
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Inputs as the model reads them, special tokens included; nothing is cut."""
        return [[*self.lead, *ids, *self.tail] for ids in self.text.encode(texts)]

    def generate(
        self, inputs: Sequence[Sequence[int]], *, max_new_tokens: int, stop: tuple[str, ...] = ()
    ) -> list[Generation]:
        """What the model writes, the likeliest token each time, for inputs that run together.

        Args:
            inputs: Made by ``encode``; shorter ones are padded and the padding is masked.
            max_new_tokens: Most tokens of each text.
            stop: Strings that end a text and are not part of it.

        Raises:
            PromptTooLong: An input beyond the window, or no memory for the batch.
        """
        import torch
        from transformers import GenerationConfig, StoppingCriteriaList

        start = time.perf_counter()
        if not inputs:
            return []
        lengths = [len(ids) for ids in inputs]
        if max(lengths) > self.window:
            raise PromptTooLong(
                f"an input of {max(lengths)} tokens is longer than the window of {self.window} of {self.name!r}",
                hint="Lower top_k, or add a budget before this step.",
            )
        ends = end_tokens(self.model, self.tokenizer)
        tap = Tap(self.text.tokenizer, ends, [stop] * len(inputs), [None] * len(inputs))
        config = GenerationConfig(
            **{key: getattr(self.model.generation_config, key, None) for key in _SPECIAL_IDS},
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            use_cache=True,
        )
        config.eos_token_id = ends or None
        config.pad_token_id = self._pad(ends)
        try:
            with self.lock, torch.inference_mode():
                self.model.generate(
                    **self._padded(inputs, config.pad_token_id),
                    generation_config=config,
                    stopping_criteria=StoppingCriteriaList([tap]),
                )
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise no_memory(self.device, lengths) from error
        return tap.results(lengths, start)

    def _pad(self, ends: Sequence[int]) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else next(iter(ends), 0)

    def _padded(self, inputs: Sequence[Sequence[int]], pad: int) -> dict[str, Tensor]:
        """Ids and mask, padded on the right: ``[n, longest]`` each. An empty input reads one padding."""
        import torch

        width = max(1, *map(len, inputs))
        ids = torch.full((len(inputs), width), pad, dtype=torch.long)
        mask = torch.zeros(len(inputs), width, dtype=torch.long)
        for row, found in enumerate(inputs):
            ids[row, : len(found)] = torch.tensor(list(found), dtype=torch.long)
            mask[row, : max(len(found), 1)] = 1
        return {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}


def is_seq2seq(folder: Path) -> bool:
    """Whether a model folder holds an encoder-decoder, as its config says; nothing is loaded."""
    path = base_folder(folder) / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint="Get the model's files again.") from error
    return isinstance(config, dict) and bool(config.get("is_encoder_decoder"))


def load_seq2seq(name: str, *, dtype: str = "auto", device: str = "auto") -> Seq2SeqLM:
    """An encoder-decoder language model, loaded once for each process, dtype and device.

    Args:
        name: A folder in the layout of ``transformers``, or a hub id.
        dtype: "auto", "fp32", "bf16" or "fp16".
        device: "auto", "cpu", "cuda", "cuda:N", "mps" or "xpu".

    Raises:
        ModelError: It is not here, damaged, or no encoder-decoder.
        ConfigError: A dtype or device that does not exist.
    """
    check_options(dtype, device)
    folder = resolve(name)
    if not is_seq2seq(folder):
        raise ModelError(f"{folder} is no encoder-decoder model", hint="Causal models are loaded as such: use one.")
    device = choose_device(device)
    number = choose_dtype(dtype, device)
    files = [*deciding_files(folder, _SETTINGS), tokenizer_file(tokenizer_folder(folder))]

    def load() -> Seq2SeqLM:
        import transformers

        model = open_merged("AutoModelForSeq2SeqLM", folder, dtype=number, device=device)
        known = {key: getattr(model.generation_config, key, None) for key in _SPECIAL_IDS}
        start = known["decoder_start_token_id"]
        if start is None:
            start = getattr(model.config, "decoder_start_token_id", None)
        if start is None:
            start = known["bos_token_id"] if known["bos_token_id"] is not None else known["pad_token_id"]
        # how to decode is said by options, and by nothing that comes with the weights
        model.generation_config = transformers.GenerationConfig(**{**known, "decoder_start_token_id": start})
        text = text_tokenizer(name)
        lead, tail = _frame(text)
        return Seq2SeqLM(
            name=name,
            model=model,
            tokenizer=open_tokenizer(tokenizer_folder(folder)),
            text=text,
            window=_window(model),
            most_new=_decoder_positions(model) - 1,  # it begins with a token of its own
            lead=lead,
            tail=tail,
            device=device,
            dtype=str(number).removeprefix("torch."),
            folder=folder,
        )

    found: Seq2SeqLM = kept(("seq2seq", canonical(name), *state(*files), str(number), device), load)
    return found


def _frame(text: TextTokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens that the tokenizer puts before and after a text."""
    with_them = encode_batch(text.tokenizer, ["a"], special=True)[0].ids
    plain = encode_batch(text.tokenizer, ["a"], special=False)[0].ids
    for at in range(len(with_them) - len(plain) + 1):
        if with_them[at : at + len(plain)] == plain:
            return tuple(with_them[:at]), tuple(with_them[at + len(plain) :])
    return (), ()


def _decoder_positions(model: Any) -> int:
    """Most positions of the decoder; without bound where they are relative."""
    found = (getattr(model.config, key, None) for key in _DECODED)
    return next((value for value in found if isinstance(value, int) and value > 0), 1 << 20)


def _window(model: Any) -> int:
    found = (getattr(model.config, key, None) for key in _POSITIONS)
    return next((value for value in found if isinstance(value, int) and value > 0), _RELATIVE_WINDOW)
